//! Disks that lose their power, fill up, get slow, fail, or are replaced by empty ones.

use std::time::Duration;

use anyhow::{Result, ensure};
use rand::RngExt;
use rand_chacha::ChaCha8Rng;

use super::{Effect, last, outside_of_the_set, pick};
use crate::torture::lab::{Lab, SLAVES, nodes};
use crate::torture::volume::Syncs;
use crate::wait::until;

const BRIEFLY: Duration = Duration::from_millis(50);
const LONG: Duration = Duration::from_secs(12);
/// The node looks at its disk each second.
const NOTICED: Duration = Duration::from_secs(20);

/// Cuts the power of one slave: process and disk at once.
pub(super) async fn power_loss(lab: &mut Lab, random: &mut ChaCha8Rng) -> Result<Effect> {
    let victim = *pick(random, &SLAVES);
    cut_power(lab, victim, random).await?;
    let away = last(random, BRIEFLY, LONG).await;
    let is_gone = lab.volume(victim).restore_power().await?;
    lab.start_nodes()?;
    let what = format!("{victim} without power for {away:.1?}");
    Ok(match is_gone {
        true => Effect::Confirmed(format!("{what}: what was not synced is gone")),
        false => Effect::Unconfirmed(format!("{what}: nothing is gone")),
    })
}

/// Cuts the power of all nodes.
pub(super) async fn power_loss_of_all(lab: &mut Lab, random: &mut ChaCha8Rng) -> Result<Effect> {
    for victim in SLAVES {
        cut_power(lab, victim, random).await?;
    }
    for node in nodes().filter(|node| !SLAVES.contains(node)) {
        lab.node(node).kill().await?;
    }
    let away = last(random, BRIEFLY, LONG).await;
    let mut gone = 0;
    for victim in SLAVES {
        gone += usize::from(lab.volume(victim).restore_power().await?);
    }
    lab.start_nodes()?;
    let what = format!("no power for {away:.1?}: what was not synced is gone on {gone} of {}", SLAVES.len());
    Ok(if gone > 0 { Effect::Confirmed(what) } else { Effect::Unconfirmed(what) })
}

/// Which of the two goes first is no matter: a process without a disk may acknowledge nothing, and one that has ended has
/// left what the kernel had not written yet.
async fn cut_power(lab: &mut Lab, victim: &str, random: &mut ChaCha8Rng) -> Result<()> {
    if random.random_range(0..2) == 0 {
        lab.volume(victim).cut_power().await?;
        lab.node(victim).end().await
    } else {
        lab.node(victim).kill().await?;
        lab.volume(victim).cut_power().await
    }
}

/// Fills the disk of a slave to the last byte.
pub(super) async fn full(lab: &mut Lab, random: &mut ChaCha8Rng) -> Result<Effect> {
    let victim = *pick(random, &SLAVES);
    let said = lab.node(victim).said()?;
    let filled = lab.volume(victim).fill()?;
    let noticed = says(lab, victim, said, "upserts are refused").await;
    let lasted = last(random, Duration::from_secs(1), LONG).await;
    lab.volume(victim).make_room()?;
    let what = format!("{victim}: {filled} bytes to the last one, for {lasted:.1?}");
    Ok(match noticed {
        Ok(()) => Effect::Confirmed(format!("{what}; it refused upserts")),
        Err(error) => Effect::Unconfirmed(format!("{what}; {error:#}")),
    })
}

/// Makes each sync of a slave slow.
pub(super) async fn slow(lab: &mut Lab, random: &mut ChaCha8Rng) -> Result<Effect> {
    let delay = Duration::from_millis(random.random_range(300..3_000));
    syncs(lab, random, Syncs::Slow(delay), |(slow, _)| slow).await
}

/// Makes each sync of a slave fail.
pub(super) async fn failing(lab: &mut Lab, random: &mut ChaCha8Rng) -> Result<Effect> {
    syncs(lab, random, Syncs::Fail, |(_, failed)| failed).await
}

async fn syncs(
    lab: &Lab,
    random: &mut ChaCha8Rng,
    syncs: Syncs,
    count: fn((u64, u64)) -> u64,
) -> Result<Effect> {
    let victim = *pick(random, &SLAVES);
    let before = count(lab.volume(victim).set_syncs(syncs)?);
    let lasted = last(random, Duration::from_secs(1), LONG).await;
    let hit = count(lab.volume(victim).set_syncs(Syncs::Usual)?) - before;
    let what = format!("{victim}: {hit} syncs were {syncs:?} in {lasted:.1?}");
    Ok(if hit > 0 { Effect::Confirmed(what) } else { Effect::Unconfirmed(what) })
}

/// Replaces the disk of a slave by an empty one.
pub(super) async fn wiped(lab: &mut Lab, random: &mut ChaCha8Rng) -> Result<Effect> {
    let victim = *pick(random, &SLAVES);
    lab.node(victim).kill().await?;
    let may_be_lost = outside_of_the_set(lab, victim, |_| true).await;
    if may_be_lost.is_ok() {
        lab.volume(victim).wipe().await?;
        ensure!(!lab.data(victim).exists(), "the volume of {victim} is not empty");
    }
    let said = lab.node(victim).said()?;
    lab.start_nodes()?;
    if let Err(error) = may_be_lost {
        return Ok(Effect::Unconfirmed(format!("{victim} was killed only: {error:#}")));
    }
    Ok(match says(lab, victim, said, "marked as damaged").await {
        Ok(()) => Effect::Confirmed(format!("{victim} lost its disk, and said so")),
        Err(error) => Effect::Unconfirmed(format!("{victim} lost its disk; {error:#}")),
    })
}

/// Waits until a node has said something.
pub(super) async fn says(lab: &mut Lab, name: &str, since: u64, words: &str) -> Result<()> {
    let node = lab.node(name);
    until(&format!("{name} says {words:?}"), NOTICED, async || {
        ensure!(node.says_since(since)?.contains(words), "it does not");
        Ok(())
    })
    .await
}
