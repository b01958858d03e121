//! What happened in a world: a number that two runs of a seed must agree on, and a text for people.

use std::fmt::Write as _;

use super::node::CopyId;
use super::time::Time;
use super::world::World;
use crate::cluster::view::{ReplicaRole, Shard};
use crate::ids::ReplicaId;

/// A trace.
#[derive(Debug, Default)]
pub(super) struct Trace {
    hash: u64,
    is_told: bool,
}

impl Trace {
    /// `is_told`: as text too.
    pub(super) fn new(is_told: bool) -> Trace {
        Trace { hash: 0, is_told }
    }

    /// Takes in a number.
    pub(super) fn mix(&mut self, number: u64) {
        self.hash = (self.hash.rotate_left(5) ^ number).wrapping_mul(0x517c_c1b7_2722_0a95);
    }

    /// Of everything that was taken in.
    pub(super) fn hash(&self) -> u64 {
        self.hash
    }
}

impl World {
    /// Tells people what happens, if they want to know.
    pub(super) fn tell(&self, what: impl FnOnce() -> String) {
        if self.trace.is_told {
            println!("{:>10.3?} {}", self.time.since(Time(0)), what());
        }
    }

    /// The same, of a copy.
    pub(super) fn tell_of(&self, node: usize, copy: CopyId, what: impl FnOnce() -> String) {
        self.tell(|| format!("n{node} {}/{} {}", copy.0.index, short(copy.1), what()));
    }
}

/// Enough of an identity to tell it from others.
pub(super) fn short(id: ReplicaId) -> String {
    format!("{:02x}{:02x}", id.0[0], id.0[1])
}

/// A record on one line.
pub(super) fn text_of(shard: &Shard) -> String {
    let mut text =
        format!("shard {} at revision {}: epoch {}", shard.id.index, shard.mod_revision, shard.epoch);
    for replica in &shard.replicas {
        let mark = |is_so, mark| if is_so { mark } else { "" };
        let role = match replica.role {
            ReplicaRole::Full => "",
            ReplicaRole::Learner => " learns",
            ReplicaRole::Leaving => " leaves",
        };
        let leads = mark(shard.primary == Some(replica.id), " leads");
        let in_sync = mark(shard.is_in_sync(replica.id), " in sync");
        let damaged = mark(replica.damaged, " damaged");
        let (id, node) = (short(replica.id), &replica.node);
        write!(text, ", {id} on {node}{leads}{in_sync}{role}{damaged}").expect("a string takes text");
    }
    text
}
