//! One world from its beginning to its end: trouble, recovery, judgement.

use std::time::Duration;

use vectorsphere_checker as checker;

use super::settings::Settings;
use super::time::Time;
use super::trace::{Trace, text_of};
use super::world::{Event, World};
use crate::cluster::view::{ReplicaRole, Shard};
use crate::replication::Standing;
use crate::runtime::disk::Effects;

/// How long a cluster that is well again may take until everything is available and equal.
const RECOVERY: Duration = Duration::from_secs(120);

/// What became of a world.
#[derive(Debug)]
pub(super) struct Summary {
    pub(super) trace: u64,
    pub(super) effects: Effects,
    /// Operations of clients.
    pub(super) operations: u64,
    /// How long the recovery took.
    pub(super) recovery: Duration,
}

/// Lets a world happen.
///
/// # Errors
/// What was broken.
pub(super) fn run(settings: Settings, is_told: bool) -> Result<Summary, String> {
    let chaos = settings.chaos;
    let mut world = World::new(settings, Trace::new(is_told));
    // First everything works for once.
    world.schedule.at(Time(0) + Duration::from_secs(2), Event::Trouble);
    run_until(&mut world, Time(0) + chaos)?;
    world.heal();
    let recovery = recover(&mut world)?;
    judge(&mut world)?;
    let disks: Vec<_> = world.nodes.iter().map(|node| node.disk.effects()).collect();
    disks.iter().for_each(|effects| world.note_effects(effects));
    let fast = world.nodes.iter().filter(|node| node.clock.rate_ppm().abs() > 1_000).count();
    let mut effects = world.effects;
    let network = world.network.effects;
    effects.extend([
        ("clock that is wrong by more than 0.1 %", fast as u64),
        ("lease that ended late", world.store.late_ends),
        ("message lost", network.lost),
        ("message doubled", network.doubled),
        ("message late", network.late),
        ("message cut off", network.cut),
    ]);
    Ok(Summary { trace: world.trace.hash(), effects, operations: world.ledger.operations, recovery })
}

fn run_until(world: &mut World, until: Time) -> Result<(), String> {
    match world.run_until(until) {
        true => Ok(()),
        false => Err(format!(
            "at {:?}: {}",
            world.time.since(Time(0)),
            world.ledger.broken.clone().unwrap_or_default()
        )),
    }
}

/// Waits until everything is available and equal.
fn recover(world: &mut World) -> Result<Duration, String> {
    let begun = world.time;
    loop {
        run_until(world, world.time + Duration::from_millis(500))?;
        let missing = world.missing();
        let took = world.time.since(begun);
        match missing {
            None => return Ok(took),
            Some(missing) if took >= RECOVERY => {
                let masters: Vec<String> =
                    world.masters.iter().map(|master| master.describe(world.time)).collect();
                return Err(format!("not recovered after {took:?}: {missing}; {}", masters.join("; ")));
            }
            Some(_) => {}
        }
    }
}

/// What clients were told must be possible.
fn judge(world: &mut World) -> Result<(), String> {
    let history = std::mem::take(&mut world.ledger.history);
    checker::check(&history).map_err(|violation| format!("not linearizable: {violation}"))?;
    let sessions = std::mem::take(&mut world.ledger.sessions);
    checker::session::check(&sessions).map_err(|violation| format!("a session went back: {violation}"))?;
    Ok(())
}

impl World {
    /// What is not yet as it should be in a cluster that is well. Clients go on until all else is.
    fn missing(&mut self) -> Option<String> {
        let shards: Vec<_> = self.store.content().shards().cloned().collect();
        let missing = shards.iter().find_map(|shard| self.missing_of(shard));
        if missing.is_some() {
            self.is_quiet = false;
            return missing;
        }
        if !self.is_quiet {
            self.is_quiet = true;
            return Some("clients are at work".to_owned());
        }
        if self.clients.iter().any(super::client::Client::is_busy) {
            return Some("a client waits for an answer".to_owned());
        }
        shards.iter().find_map(|shard| self.difference(shard))
    }

    fn missing_of(&self, shard: &Shard) -> Option<String> {
        let copies: Vec<_> = shard.staying().collect();
        let is_whole = |replica: &&&crate::cluster::view::Replica| {
            shard.is_in_sync(replica.id) && replica.role == ReplicaRole::Full && !replica.damaged
        };
        let whole = copies.iter().filter(is_whole).count();
        if whole < self.settings.replicas {
            return Some(format!("{whole} copies are in sync: {}", text_of(shard)));
        }
        let primary = shard.primary.and_then(|primary| shard.replica(primary));
        let Some(primary) = primary else { return Some(format!("nobody leads {}", shard.id)) };
        let node = &self.nodes[self.index_of(&primary.node)];
        let slot = node.process.as_ref().and_then(|process| process.slots.get(&(shard.id, primary.id)));
        let Some(open) = slot.and_then(|slot| slot.open.as_ref()) else {
            return Some(format!("the primary of {} is not open", shard.id));
        };
        match open.driver.core().standing() {
            Standing::Primary(leads) if open.driver.core().commit() >= leads.start => None,
            standing => Some(format!("{standing:?} is no primary: {}", text_of(shard))),
        }
    }

    /// Copies that are not equal, when nobody writes any more.
    fn difference(&self, shard: &Shard) -> Option<String> {
        let mut first = None;
        for replica in shard.staying() {
            let node = &self.nodes[self.index_of(&replica.node)];
            let slot = node.process.as_ref().and_then(|process| process.slots.get(&(shard.id, replica.id)));
            let Some(open) = slot.and_then(|slot| slot.open.as_ref()) else {
                return Some(format!("{} is not open", replica.id));
            };
            let digest = open.store.digest();
            let rows = open.reader.snapshot().content_digest();
            if rows != digest.content {
                return Some(format!("the rows of {} are not what its digest says", replica.id));
            }
            let first = *first.get_or_insert(digest);
            if first != digest {
                return Some(format!("{} holds {digest:?}, another copy {first:?}", replica.id));
            }
        }
        None
    }

    /// Clients begin nothing new.
    pub(super) fn is_resting(&self) -> bool {
        self.is_quiet
    }
}
