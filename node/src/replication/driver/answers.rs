//! Writes that were added to the log and wait until they are committed.

use std::collections::VecDeque;

use super::Effect;
use crate::ids::{Epoch, Lsn};
use crate::replication::NotAdmitted;
use crate::storage::{Refusal, Verdict};

/// The answer of a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct WriteReceipt {
    /// Position of the batch's last record.
    pub lsn: Lsn,
    /// Documents written, or that existed and were deleted.
    pub affected: u64,
    /// Disks that it is on.
    pub durable_copies: u32,
}

/// Why a write has no receipt. But for [`NotWritten::Unknown`] nothing of it was done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum NotWritten {
    /// The protocol takes no writes here.
    NotAdmitted(NotAdmitted),
    /// The caller believes in another reign than the one that is led here.
    OtherReign {
        /// What it believes in.
        wanted: Epoch,
        /// What is true.
        led: Epoch,
    },
    /// It was refused for what the documents are.
    Refused(Refusal),
    /// It was refused for what the documents are here, but this replica may not lead any more.
    NotPrimary,
    /// Its owner has too much to do. (The owner's.)
    Overloaded,
    /// It may have been done, and may be done later.
    Unknown(&'static str),
}

/// Writes in the order of the log.
pub(super) struct Answers<W> {
    waiting: VecDeque<(Verdict, W)>,
    /// Refusals that are told when this replica is known to lead: an earlier primary's documents may be old (R4).
    doubtful: Vec<Refused<W>>,
}

/// A write that was refused.
pub(super) struct Refused<W>(Refusal, W);

impl<W> Default for Answers<W> {
    fn default() -> Answers<W> {
        Answers { waiting: VecDeque::new(), doubtful: Vec::new() }
    }
}

impl<W> Refused<W> {
    /// Told for good, or not: the reason.
    pub(super) fn told<R>(self, proven: bool) -> Effect<W, R> {
        let Refused(refusal, write) = self;
        Effect::Answer(write, Err(if proven { NotWritten::Refused(refusal) } else { NotWritten::NotPrimary }))
    }
}

impl<W> Answers<W> {
    /// A write that was judged. A repeat of an earlier one depends on less than what waits already; it waits in its turn all
    /// the same.
    pub(super) fn push(&mut self, verdict: Verdict, write: W) {
        self.waiting.push_back((verdict, write));
    }

    /// Takes the next write that depends on no more than `applied`, and was done. Refused ones become doubtful.
    pub(super) fn next_done(&mut self, applied: Lsn) -> Option<(crate::storage::Receipt, W)> {
        while let Some((verdict, write)) =
            self.waiting.pop_front_if(|(verdict, _)| verdict.judged_by <= applied)
        {
            match verdict.outcome {
                Ok(receipt) => return Some((receipt, write)),
                Err(refusal) => self.doubtful.push(Refused(refusal, write)),
            }
        }
        None
    }

    /// Takes the refusals that wait now.
    pub(super) fn take_doubtful(&mut self) -> Vec<Refused<W>> {
        std::mem::take(&mut self.doubtful)
    }

    /// Nobody will know here what becomes of the writes. Refused ones were not appended, whoever leads.
    pub(super) fn give_up<R>(&mut self, why: &'static str) -> impl Iterator<Item = Effect<W, R>> {
        let waiting = std::mem::take(&mut self.waiting).into_iter();
        let unknown = waiting.map(move |(_, write)| Effect::Answer(write, Err(NotWritten::Unknown(why))));
        unknown.chain(self.take_doubtful().into_iter().map(|refused| refused.told(false)))
    }
}
