//! A copy of a shard on this node, as the keeper sees it: what is known of it, and when the next step may be tried.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::decide::Facts;
use super::replica::Replica;
use crate::cluster::view::{self, ReplicaRole, Shard};
use crate::filter::index::IndexedFields;
use crate::ids::{ReplicaId, Revision, Session};
use crate::table::Table;

/// Pause after a step that failed, doubled with each failure in a row.
const RETRY_MIN: Duration = Duration::from_millis(500);
/// Longest pause between tries.
const RETRY_MAX: Duration = Duration::from_secs(60);

/// A copy on this node.
#[derive(Default)]
pub(super) struct Slot {
    pub(super) open: Option<OpenCopy>,
    /// A step is under way.
    pub(super) is_busy: bool,
    pub(super) failures: u32,
    pub(super) not_before: Option<Instant>,
    /// The last step lost a race, begun with this in sight: the pause ends as soon as something else is in sight.
    pub(super) lost_race: Option<Sight>,
    pub(super) is_damaged: bool,
    /// Since when its disk has failed, until it is open again.
    pub(super) failing_since: Option<Instant>,
    pub(super) needs_snapshot: Option<ReplicaId>,
    /// The next snapshot comes from the primary.
    pub(super) asks_primary: bool,
    /// When the record was seen to say that it leaves.
    pub(super) leaving_since: Option<Instant>,
}

/// A copy that is open.
pub(super) struct OpenCopy {
    pub(super) replica: Arc<Replica>,
    pub(super) record: watch::Sender<Arc<Shard>>,
    /// What its table has indexes of.
    pub(super) fields: watch::Sender<IndexedFields>,
    pub(super) cancel: CancellationToken,
}

/// What a step that changes a shard's record goes by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Sight {
    pub(super) record: Revision,
    pub(super) session: Option<Session>,
}

/// Closes a replica and waits until nothing of it is under way.
pub(super) async fn end(open: Option<OpenCopy>) {
    if let Some(open) = open {
        open.cancel.cancel();
        open.replica.ended().await;
    }
}

impl Slot {
    pub(super) fn facts(&self) -> Facts {
        Facts {
            is_open: self.open.is_some(),
            is_damaged: self.is_damaged,
            needs_snapshot: self.needs_snapshot,
            leaving_for: self.leaving_since.map(|since| since.elapsed()),
            failing_for: self.failing_since.map(|since| since.elapsed()),
        }
    }

    pub(super) fn note_failure(&mut self, is_damage: bool, is_of_disk: bool) {
        self.is_damaged = is_damage;
        if is_of_disk {
            self.failing_since.get_or_insert_with(Instant::now);
        }
        self.rest();
    }

    /// Lets an open copy know its record.
    pub(super) fn tell(&self, record: &Arc<Shard>) {
        let Some(open) = &self.open else { return };
        open.record.send_if_modified(|known| {
            let is_newer = known.mod_revision < record.mod_revision;
            if is_newer {
                *known = record.clone();
            }
            is_newer
        });
    }

    /// Lets an open copy know what its table wants.
    pub(super) fn tell_fields(&self, table: Option<&Table>) {
        let (Some(open), Some(table)) = (&self.open, table) else { return };
        open.fields.send_if_modified(|known| {
            let is_other = *known != table.schema.metadata_indexes;
            if is_other {
                known.clone_from(&table.schema.metadata_indexes);
            }
            is_other
        });
    }

    pub(super) fn note_leaving(&mut self, entry: Option<&view::Replica>) {
        match entry.is_some_and(|entry| entry.role == ReplicaRole::Leaving) {
            true => drop(self.leaving_since.get_or_insert_with(Instant::now)),
            false => self.leaving_since = None,
        }
    }

    pub(super) fn is_resting(&self, sight: Sight) -> bool {
        self.not_before.is_some_and(|time| Instant::now() < time)
            && self.lost_race.is_none_or(|lost| lost == sight)
    }

    /// Waits before the next try, longer each time.
    pub(super) fn rest(&mut self) {
        let pause = RETRY_MIN.saturating_mul(1 << self.failures.min(10)).min(RETRY_MAX);
        self.failures += 1;
        self.not_before = Some(Instant::now() + pause);
        self.lost_race = None;
    }

    /// Waits until what made the step lose a race is in sight.
    pub(super) fn rest_at(&mut self, sight: Sight) {
        self.rest();
        self.lost_race = Some(sight);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lost_race_is_run_again_as_soon_as_something_else_is_in_sight() {
        let sight = Sight { record: Revision(7), session: Some(Session(1)) };
        let mut slot = Slot::default();
        slot.rest_at(sight);
        assert!(slot.is_resting(sight), "asking again would tell the same");
        assert!(!slot.is_resting(Sight { record: Revision(8), ..sight }));
        assert!(!slot.is_resting(Sight { session: None, ..sight }));
        slot.rest();
        assert!(slot.is_resting(Sight { record: Revision(8), ..sight }), "a failure waits in any case");
    }
}
