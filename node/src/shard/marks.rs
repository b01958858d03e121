//! When a replica writes to `replica.meta` how far it is, and lets go of files that nobody needs any more.

use std::time::{Duration, Instant};

use super::owner::{Owner, now};
use super::turn::Done;
use crate::ids::{Epoch, Lsn};

/// How old a mark may get while something happens to the replica.
const INTERVAL: Duration = Duration::from_secs(1);
/// While nothing does, this often is enough for what failed before or was in use: a node may have thousands of idle shards.
const IDLE_INTERVAL: Duration = Duration::from_secs(30);

/// The marks that were written last.
pub(super) struct Marks {
    written: Instant,
    /// `None`: it has to be done again.
    standpoint: Option<Standpoint>,
}

/// What marks follow from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Standpoint {
    keep_from: Lsn,
    applied: Lsn,
    commit: Lsn,
    durable: Lsn,
    promised: Epoch,
}

impl Default for Marks {
    fn default() -> Marks {
        Marks { written: Instant::now(), standpoint: None }
    }
}

impl Marks {
    /// They were not written.
    pub(super) fn failed(&mut self) {
        self.standpoint = None;
    }
}

impl Owner {
    /// Begins a turn that writes marks, when they are due.
    pub(super) fn begin_mark_if_due(&mut self) {
        let age = self.marks.written.elapsed();
        if age < INTERVAL {
            return;
        }
        let (keep_from, core) = (self.driver.needed_from(now()), self.driver.core());
        let standpoint = Standpoint {
            keep_from,
            applied: self.state.borrow().applied,
            commit: core.commit(),
            durable: core.log().durable,
            promised: core.promised(),
        };
        if self.marks.standpoint == Some(standpoint) && age < IDLE_INTERVAL && !self.wants_checkpoint() {
            return;
        }
        self.marks = Marks { written: Instant::now(), standpoint: Some(standpoint) };
        self.lane.begin_other(move |store| {
            Done::Marked(store.keep_from(keep_from).and_then(|()| store.save_marks()))
        });
    }
}
