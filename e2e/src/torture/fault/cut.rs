//! Hosts that do not hear each other. Packets are dropped without a word; the kernel counts them.

use std::time::Duration;

use anyhow::Result;
use rand::RngExt;
use rand_chacha::ChaCha8Rng;

use super::{Effect, last, pick};
use crate::torture::etcd::MEMBERS;
use crate::torture::lab::{CLIENTS, Lab, MASTERS, SLAVES, nodes};

const SHORTEST: Duration = Duration::from_secs(1);
/// Beyond the life of a node's session (8 s).
const LONGEST: Duration = Duration::from_secs(15);

/// Cuts one slave off from everybody, or a master from everybody but its clients.
pub(super) async fn one(lab: &mut Lab, random: &mut ChaCha8Rng) -> Result<Effect> {
    let all: Vec<&str> = nodes().collect();
    let alone = *pick(random, &all);
    let others: Vec<&str> = nodes().chain(MEMBERS).filter(|host| *host != alone).collect();
    lab.network.part(&[alone], &others).await?;
    healed(lab, random, alone.to_owned()).await
}

/// Two halves, the clients in one of them or in both.
pub(super) async fn halves(lab: &mut Lab, random: &mut ChaCha8Rng) -> Result<Effect> {
    let (mut some, mut others) = (Vec::new(), Vec::new());
    for group in [&MASTERS[..], &SLAVES[..], &MEMBERS[..]] {
        let turn = random.random_range(0..group.len() as u64) as usize;
        let turned: Vec<&str> = group[turn..].iter().chain(&group[..turn]).copied().collect();
        some.extend_from_slice(&turned[..group.len() / 2]);
        others.extend_from_slice(&turned[group.len() / 2..]);
    }
    let what = format!("{some:?} from {others:?}");
    match random.random_range(0..3) {
        0 => some.push(CLIENTS),
        1 => others.push(CLIENTS),
        _ => {}
    }
    lab.network.part(&some, &others).await?;
    healed(lab, random, what).await
}

/// A slave that is not heard, or hears nothing.
pub(super) async fn one_way(lab: &mut Lab, random: &mut ChaCha8Rng) -> Result<Effect> {
    let victim = *pick(random, &SLAVES);
    let others: Vec<&str> = nodes().chain(MEMBERS).filter(|host| *host != victim).collect();
    let what = match random.random_range(0..2) {
        0 => {
            lab.network.cut(&others, victim).await?;
            format!("{victim} hears nobody")
        }
        _ => {
            for other in others {
                lab.network.cut(&[victim], other).await?;
            }
            format!("nobody hears {victim}")
        }
    };
    healed(lab, random, what).await
}

/// Some nodes without etcd.
pub(super) async fn etcd(lab: &mut Lab, random: &mut ChaCha8Rng) -> Result<Effect> {
    let all: Vec<&str> = nodes().collect();
    let some: Vec<&str> = match random.random_range(0..4) {
        0 => all,
        1 => SLAVES.to_vec(),
        _ => vec![*pick(random, &all)],
    };
    lab.network.part(&some, &MEMBERS).await?;
    healed(lab, random, format!("{some:?} from etcd")).await
}

/// A network that loses some of all packets.
pub(super) async fn lossy(lab: &mut Lab, random: &mut ChaCha8Rng) -> Result<Effect> {
    let part = random.random_range(0.05..0.5);
    for host in nodes().chain(MEMBERS) {
        lab.network.lose(host, part).await?;
    }
    healed(lab, random, format!("{:.0} % of all packets lost", part * 100.0)).await
}

/// A slave that starts anew behind a cut: its peers hold connections to a process that is no more.
pub(super) async fn half_open(lab: &mut Lab, random: &mut ChaCha8Rng) -> Result<Effect> {
    let victim = *pick(random, &SLAVES);
    // What it says at its end is not heard; what others say to it meets the new process.
    for other in nodes().chain(MEMBERS).filter(|host| *host != victim) {
        lab.network.cut(&[victim], other).await?;
    }
    let died = lab.node(victim).kill().await?;
    last(random, Duration::from_millis(100), Duration::from_secs(3)).await;
    lab.start_nodes()?;
    healed(lab, random, format!("{died}, unheard")).await
}

async fn healed(lab: &Lab, random: &mut ChaCha8Rng, what: String) -> Result<Effect> {
    let lasted = last(random, SHORTEST, LONGEST).await;
    let dropped = lab.network.heal().await?;
    let told = format!("{what}: {dropped} packets dropped in {lasted:.1?}");
    Ok(if dropped > 0 { Effect::Confirmed(told) } else { Effect::Unconfirmed(told) })
}
