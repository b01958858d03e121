//! Processes that stand still, and go on as if nothing had been.

use std::time::Duration;

use anyhow::Result;
use rand_chacha::ChaCha8Rng;

use super::{Effect, last};
use crate::torture::etcd::MEMBERS;
use crate::torture::lab::Lab;

const SHORTEST: Duration = Duration::from_millis(200);
const LONGEST: Duration = Duration::from_secs(30);

/// Stops a node for a while.
pub(super) async fn node(lab: &mut Lab, name: &str, random: &mut ChaCha8Rng) -> Result<Effect> {
    let node = lab.node(name);
    let stands = node.freeze().await?;
    let stood = last(random, SHORTEST, LONGEST).await;
    node.thaw().await?;
    Ok(Effect::Confirmed(format!("{stands} for {stood:.1?}")))
}

/// Stops the member of etcd that leads for a while.
pub(super) async fn etcd_leader(lab: &mut Lab, random: &mut ChaCha8Rng) -> Result<Effect> {
    let leader = lab.etcd.leader().await?;
    let member = lab.etcd.member(leader);
    let stands = member.freeze().await?;
    let stood = last(random, SHORTEST, LONGEST).await;
    member.thaw().await?;
    Ok(Effect::Confirmed(format!("{stands} for {stood:.1?}; {} led", MEMBERS[leader])))
}
