//! Processes that end without a word.

use std::time::Duration;

use anyhow::Result;
use rand::RngExt;
use rand_chacha::ChaCha8Rng;

use super::{Effect, last};
use crate::torture::etcd::MEMBERS;
use crate::torture::lab::{Lab, nodes};

const BRIEFLY: Duration = Duration::from_millis(50);
/// Beyond the life of a node's session (8 s).
const LONG: Duration = Duration::from_secs(12);

/// Kills a node and starts it again after a while.
pub(super) async fn node(lab: &mut Lab, name: &str, random: &mut ChaCha8Rng) -> Result<Effect> {
    let died = lab.node(name).kill().await?;
    let away = last(random, BRIEFLY, LONG).await;
    lab.start_nodes()?;
    Ok(Effect::Confirmed(format!("{died}, away for {away:.1?}")))
}

/// Kills all nodes, one right after the other.
pub(super) async fn all(lab: &mut Lab, random: &mut ChaCha8Rng) -> Result<Effect> {
    for name in nodes() {
        lab.node(name).kill().await?;
    }
    let away = last(random, BRIEFLY, LONG).await;
    lab.start_nodes()?;
    Ok(Effect::Confirmed(format!("all {} nodes ended by signal 9, away for {away:.1?}", nodes().count())))
}

/// Kills the member of etcd that leads; the others elect another one before it is back.
pub(super) async fn etcd_leader(lab: &mut Lab, random: &mut ChaCha8Rng) -> Result<Effect> {
    let leader = lab.etcd.leader().await?;
    let died = lab.etcd.member(leader).kill().await?;
    let away = last(random, BRIEFLY, LONG).await;
    lab.etcd.start().await?;
    Ok(Effect::Confirmed(format!("{died}, which led, away for {away:.1?}")))
}

/// Kills two members of etcd: the third one can do nothing.
pub(super) async fn etcd_quorum(lab: &mut Lab, random: &mut ChaCha8Rng) -> Result<Effect> {
    let survivor = random.random_range(0..MEMBERS.len() as u64) as usize;
    for index in (0..MEMBERS.len()).filter(|index| *index != survivor) {
        lab.etcd.member(index).kill().await?;
    }
    let away = last(random, Duration::from_secs(3), 2 * LONG).await;
    let can_read = lab.etcd.can_read(survivor).await;
    lab.etcd.start().await?;
    let what = format!("{} alone for {away:.1?}", MEMBERS[survivor]);
    Ok(match can_read {
        false => Effect::Confirmed(format!("{what}, could not read")),
        true => Effect::Unconfirmed(format!("{what}, could read")),
    })
}
