//! The operations on one document in the form that the search works on. Pure.

use std::collections::{BTreeMap, BTreeSet};

use crate::history::{Entry, Fate, Operation, Outcome, Seen, Value, Version};
use crate::register::{ABSENT, Effect, Fact, Slot};

/// The operations on one document.
#[derive(Debug)]
pub(crate) struct Problem {
    /// Operations that were answered, by the tick at which they were sent.
    pub(crate) calls: Vec<Call>,
    /// Changes of unknown outcome.
    pub(crate) doubts: Vec<Doubt>,
    /// Number of slots, [`ABSENT`] among them.
    pub(crate) slots: usize,
}

/// An operation that happened between two ticks.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Call {
    pub(crate) effect: Effect,
    pub(crate) invoked: u64,
    pub(crate) returned: u64,
}

/// Changes of one effect that may each happen at any time after their tick, or never. They differ in nothing else, so
/// there is no need to try another one than the earliest.
#[derive(Debug)]
pub(crate) struct Doubt {
    pub(crate) effect: Effect,
    /// When they were sent, ascending.
    pub(crate) invoked: Vec<u64>,
}

/// What the answers say of values and versions.
struct Names {
    slots: BTreeMap<Value, Slot>,
    /// What a document of a version holds.
    holds: BTreeMap<Version, Slot>,
    /// The versions of values that were written once, so that whoever saw one tells the version of its write.
    versions: BTreeMap<Slot, Version>,
}

impl Problem {
    /// The operations on one document as clients knew them right after tick `until`: what was not answered by then is of
    /// unknown outcome, what was not sent by then is not there.
    pub(crate) fn new(entries: &[Entry], until: u64) -> Problem {
        let sent: Vec<Entry> = entries.iter().filter_map(|entry| entry.known_at(until)).collect();
        let names = Names::new(&sent);
        let mut calls = Vec::new();
        let mut doubts: BTreeMap<Effect, Vec<u64>> = BTreeMap::new();
        for entry in &sent {
            match (names.effect(entry), entry.returned) {
                (None, _) => {}
                (Some(effect), Some(returned)) => {
                    calls.push(Call { effect, invoked: entry.invoked, returned });
                }
                (Some(effect), None) => doubts.entry(effect).or_default().push(entry.invoked),
            }
        }
        calls.sort_by_key(|call| (call.invoked, call.returned));
        doubts.values_mut().for_each(|invoked| invoked.sort_unstable());
        let doubts = doubts.into_iter().map(|(effect, invoked)| Doubt { effect, invoked });
        Problem { calls, doubts: doubts.collect(), slots: names.slots.len() + 1 }
    }
}

impl Names {
    fn new(entries: &[Entry]) -> Names {
        let written = entries.iter().filter_map(|entry| match (entry.operation, entry.fate()) {
            (Operation::Write { value, .. }, Some(Fate::Acknowledged | Fate::Unknown)) => Some(value),
            _ => None,
        });
        let seen = entries.iter().filter_map(|entry| match entry.outcome {
            Outcome::Found(Some(seen)) => Some(seen.value),
            _ => None,
        });
        let values: BTreeSet<Value> = written.clone().chain(seen).collect();
        let slots: BTreeMap<Value, Slot> = values.into_iter().zip(ABSENT + 1..).collect();
        let holds = entries.iter().filter_map(|entry| match (entry.operation, entry.outcome) {
            (_, Outcome::Found(Some(Seen { value, version: Some(version) }))) => {
                Some((version, slots[&value]))
            }
            (Operation::Write { value, .. }, Outcome::Done(Some(version))) => Some((version, slots[&value])),
            _ => None,
        });
        let holds: BTreeMap<Version, Slot> = holds.collect();
        let mut writes: BTreeMap<Slot, usize> = BTreeMap::new();
        written.for_each(|value| *writes.entry(slots[&value]).or_default() += 1);
        let once = holds.iter().filter(|(_, slot)| writes.get(slot) == Some(&1));
        let versions = once.map(|(version, slot)| (*slot, *version)).collect();
        Names { slots, holds, versions }
    }

    /// What the operation saw or did, or may do if its outcome is unknown; `None` if it tells nothing.
    fn effect(&self, entry: &Entry) -> Option<Effect> {
        let (to, condition) = match (entry.operation, entry.outcome) {
            (_, Outcome::Failed) | (Operation::Read, Outcome::Unknown) => return None,
            (_, Outcome::Found(seen)) => return Some(Effect::Observe(self.seen(seen))),
            (_, Outcome::Mismatch(found)) => return Some(Effect::Observe(self.has_version(found))),
            (Operation::Read, Outcome::Done(_)) => unreachable!("a history refuses this outcome of a read"),
            (Operation::Write { value, condition }, _) => (self.slots[&value], condition),
            (Operation::Delete { condition }, _) => (ABSENT, condition),
        };
        let version = match entry.outcome {
            Outcome::Done(Some(version)) => Some(version),
            _ => self.versions.get(&to).copied(),
        };
        let requires = condition.map(|version| self.has_version(version));
        Some(Effect::Change { requires, to, version: version.map(|version| version.0) })
    }

    fn seen(&self, seen: Option<Seen>) -> Fact {
        match seen {
            None => Fact { slot: Some(ABSENT), version: None },
            Some(Seen { value, version }) => {
                Fact { slot: Some(self.slots[&value]), version: version.map(|version| version.0) }
            }
        }
    }

    fn has_version(&self, version: Version) -> Fact {
        match version {
            Version::ABSENT => self.seen(None),
            _ => Fact { slot: self.holds.get(&version).copied(), version: Some(version.0) },
        }
    }
}
