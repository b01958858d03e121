//! What happens to the cluster. Each fault tells what shows that it took effect: a fault that missed proves nothing.

mod cut;
mod disk;
mod flip;
mod freeze;
mod kill;
mod places;

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rand::RngExt;
use rand_chacha::ChaCha8Rng;

use super::lab::{Lab, MASTERS, SLAVES};
use crate::shards::shards;
use crate::wait::until;

/// A node that is gone is noticed within the life of its session (8 s).
const EVICTED: Duration = Duration::from_secs(25);

/// A class of faults.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    /// SIGKILL to a slave that leads a shard.
    KillPrimary,
    /// SIGKILL to a slave that follows one.
    KillFollower,
    /// SIGKILL to the Master.
    KillMaster,
    /// SIGKILL to the gateway that is not the Master.
    KillGateway,
    /// SIGKILL to all nodes.
    KillAll,
    /// SIGSTOP of a slave that leads a shard.
    FreezePrimary,
    /// SIGSTOP of a slave that follows one.
    FreezeFollower,
    /// SIGSTOP of the Master.
    FreezeMaster,
    /// SIGSTOP of the member of etcd that leads.
    FreezeEtcdLeader,
    /// A slave hears nobody and is heard by nobody.
    CutOne,
    /// Two halves, of the slaves, of the masters and of etcd, do not hear each other.
    CutHalves,
    /// A slave hears the others, who do not hear it; or the other way round.
    CutOneWay,
    /// Some nodes do not reach etcd, and each other very well.
    CutEtcd,
    /// Some of all packets are lost.
    LossyNetwork,
    /// A slave is killed and started while it is cut off: nobody hears that its connections have ended.
    HalfOpen,
    /// SIGKILL to the member of etcd that leads.
    KillEtcdLeader,
    /// SIGKILL to two members of etcd.
    KillEtcdQuorum,
    /// A slave and its disk lose their power at once.
    PowerLoss,
    /// All nodes and their disks do.
    PowerLossOfAll,
    /// A bit of a copy's log flips while its node is down.
    FlipInLog,
    /// A bit of its `replica.meta`.
    FlipInMeta,
    /// A bit of its manifest.
    FlipInManifest,
    /// A bit of one of its segments.
    FlipInSegment,
    /// The disk of a slave is full.
    FullDisk,
    /// Its syncs take long.
    SlowSyncs,
    /// Its syncs fail.
    FailingSyncs,
    /// It comes back with an empty disk.
    WipedDisk,
    /// Copies move and shards are handed over, by request.
    Moves,
    /// A slave is emptied, by request.
    Drain,
}

/// What a fault came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// It took effect, and how that shows.
    Confirmed(String),
    /// It did not, or not so that it shows.
    Unconfirmed(String),
}

impl Fault {
    /// All of them.
    pub const ALL: [Fault; 29] = [
        Fault::KillPrimary,
        Fault::KillFollower,
        Fault::KillMaster,
        Fault::KillGateway,
        Fault::KillAll,
        Fault::FreezePrimary,
        Fault::FreezeFollower,
        Fault::FreezeMaster,
        Fault::FreezeEtcdLeader,
        Fault::CutOne,
        Fault::CutHalves,
        Fault::CutOneWay,
        Fault::CutEtcd,
        Fault::LossyNetwork,
        Fault::HalfOpen,
        Fault::KillEtcdLeader,
        Fault::KillEtcdQuorum,
        Fault::PowerLoss,
        Fault::PowerLossOfAll,
        Fault::FlipInLog,
        Fault::FlipInMeta,
        Fault::FlipInManifest,
        Fault::FlipInSegment,
        Fault::FullDisk,
        Fault::SlowSyncs,
        Fault::FailingSyncs,
        Fault::WipedDisk,
        Fault::Moves,
        Fault::Drain,
    ];

    /// Some of each family, for a short run.
    pub const SOME: [Fault; 11] = [
        Fault::KillPrimary,
        Fault::KillAll,
        Fault::FreezePrimary,
        Fault::CutHalves,
        Fault::CutEtcd,
        Fault::KillEtcdQuorum,
        Fault::PowerLossOfAll,
        Fault::FlipInLog,
        Fault::FullDisk,
        Fault::SlowSyncs,
        Fault::WipedDisk,
    ];

    /// Lets it happen, and mends what it broke: when this returns, everything runs and hears everything again.
    ///
    /// # Errors
    /// When the test itself fails, or a process had ended before.
    pub async fn strike(self, lab: &mut Lab, random: &mut ChaCha8Rng) -> Result<Effect> {
        match self {
            Fault::KillPrimary => {
                let victim = slave_that_leads(lab, random, true).await?;
                kill::node(lab, victim, random).await
            }
            Fault::KillFollower => {
                let victim = slave_that_leads(lab, random, false).await?;
                kill::node(lab, victim, random).await
            }
            Fault::KillMaster => {
                let victim = lab.master().await?;
                kill::node(lab, victim, random).await
            }
            Fault::KillGateway => {
                let victim = lab.other_gateway().await?;
                kill::node(lab, victim, random).await
            }
            Fault::KillAll => kill::all(lab, random).await,
            Fault::FreezePrimary => {
                let victim = slave_that_leads(lab, random, true).await?;
                freeze::node(lab, victim, random).await
            }
            Fault::FreezeFollower => {
                let victim = slave_that_leads(lab, random, false).await?;
                freeze::node(lab, victim, random).await
            }
            Fault::FreezeMaster => {
                let victim = lab.master().await?;
                freeze::node(lab, victim, random).await
            }
            Fault::FreezeEtcdLeader => freeze::etcd_leader(lab, random).await,
            Fault::CutOne => cut::one(lab, random).await,
            Fault::CutHalves => cut::halves(lab, random).await,
            Fault::CutOneWay => cut::one_way(lab, random).await,
            Fault::CutEtcd => cut::etcd(lab, random).await,
            Fault::LossyNetwork => cut::lossy(lab, random).await,
            Fault::HalfOpen => cut::half_open(lab, random).await,
            Fault::KillEtcdLeader => kill::etcd_leader(lab, random).await,
            Fault::KillEtcdQuorum => kill::etcd_quorum(lab, random).await,
            Fault::PowerLoss => disk::power_loss(lab, random).await,
            Fault::PowerLossOfAll => disk::power_loss_of_all(lab, random).await,
            Fault::FlipInLog => flip::bit(lab, random, flip::Kind::Log).await,
            Fault::FlipInMeta => flip::bit(lab, random, flip::Kind::Meta).await,
            Fault::FlipInManifest => flip::bit(lab, random, flip::Kind::Manifest).await,
            Fault::FlipInSegment => flip::bit(lab, random, flip::Kind::Segment).await,
            Fault::FullDisk => disk::full(lab, random).await,
            Fault::SlowSyncs => disk::slow(lab, random).await,
            Fault::FailingSyncs => disk::failing(lab, random).await,
            Fault::WipedDisk => disk::wiped(lab, random).await,
            Fault::Moves => places::moves(lab, random).await,
            Fault::Drain => places::drain(lab, random).await,
        }
    }
}

impl FromStr for Fault {
    type Err = anyhow::Error;

    fn from_str(words: &str) -> Result<Fault> {
        let fault = Fault::ALL.into_iter().find(|fault| fault.to_string() == words);
        fault.with_context(|| format!("no fault is called {words:?}"))
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // As in the words of the variants: `KillPrimary` is "kill primary".
        let name = format!("{self:?}");
        let words = name.char_indices().map(|(at, letter)| match letter.is_uppercase() && at > 0 {
            true => format!(" {}", letter.to_lowercase()),
            false => letter.to_lowercase().to_string(),
        });
        f.write_str(&words.collect::<String>())
    }
}

/// Lets a fault last: mostly short, sometimes long.
async fn last(random: &mut ChaCha8Rng, shortest: Duration, longest: Duration) -> Duration {
    let share: f64 = random.random_range(0.0..1.0);
    let lasts = shortest.mul_f64((longest.as_secs_f64() / shortest.as_secs_f64()).powf(share));
    // How long it lasts is the fault itself, not a wait for a condition.
    tokio::time::sleep(lasts).await;
    lasts
}

/// One of some.
fn pick<'a, T>(random: &mut ChaCha8Rng, from: &'a [T]) -> &'a T {
    &from[random.random_range(0..from.len() as u64) as usize]
}

/// A slave that leads a shard of the first table, or one that holds a copy of it and does not.
async fn slave_that_leads(lab: &Lab, random: &mut ChaCha8Rng, leads: bool) -> Result<&'static str> {
    let client = lab.client(MASTERS[0])?;
    let shards = shards(&client, super::TABLES[0].name).await?;
    let shard = pick(random, &shards);
    let holders = shard.replicas.iter().map(|copy| copy.node_id.as_str());
    let fitting = |node: &str| (shard.primary_node() == Some(node)) == leads;
    let nodes: Vec<&str> = holders.filter(|node| fitting(node)).collect();
    let node = nodes.first().with_context(|| format!("no such copy of {shard:?}"))?;
    SLAVES.into_iter().find(|slave| slave == node).context("a copy on a node that is no slave")
}

/// Waits until the copies on a slave whose loss is outside of the claim count for nothing any more. A table survives the loss
/// of `min_isr - 1` disks; of one that survives none, only a copy outside of the in-sync set may be lost. `matters` picks
/// among copies, by table and shard.
async fn outside_of_the_set(lab: &Lab, slave: &str, matters: impl Fn((&str, u32)) -> bool) -> Result<()> {
    let client = lab.client(MASTERS[0])?;
    for table in super::TABLES.iter().filter(|table| table.min_isr == 1).map(|table| table.name) {
        until(&format!("no copy of {table} on {slave} is in sync"), EVICTED, async || {
            for shard in shards(&client, table).await?.iter().filter(|shard| matters((table, shard.shard))) {
                let counts = shard.replicas.iter().any(|copy| copy.node_id == slave && copy.in_sync);
                ensure!(!counts, "that of shard {} is", shard.shard);
            }
            Ok(())
        })
        .await?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fault_is_told_in_words() {
        assert_eq!(Fault::KillEtcdQuorum.to_string(), "kill etcd quorum");
        assert_eq!("kill etcd quorum".parse::<Fault>().unwrap(), Fault::KillEtcdQuorum);
        assert!("kill".parse::<Fault>().is_err());
        let mut all = Fault::ALL.to_vec();
        all.dedup();
        assert_eq!(all.len(), Fault::ALL.len());
    }
}
