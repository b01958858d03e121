//! Writes that were added to the log and wait until they are committed.

use std::collections::VecDeque;

use tokio::sync::oneshot;

use super::replica::WriteReceipt;
use super::write_room::TakenRoom;
use crate::error_code::{Error, ErrorCode};
use crate::ids::{Lsn, ShardIndex};
use crate::storage::{Refusal, Verdict};

/// Where a write's answer goes.
pub(super) type WriteReply = oneshot::Sender<Result<WriteReceipt, Error>>;

/// Writes in the order of the log.
#[derive(Default)]
pub(super) struct Answers {
    waiting: VecDeque<Waiting>,
    /// Refusals that are told when this replica is known to lead: an earlier primary's documents may be old (R4).
    doubtful: Vec<(Refusal, WriteReply)>,
}

struct Waiting {
    verdict: Verdict,
    reply: WriteReply,
    _room: TakenRoom,
}

impl Answers {
    /// A write that was judged.
    pub(super) fn push(&mut self, verdict: Verdict, reply: WriteReply, room: TakenRoom) {
        // A repeat of an earlier write depends on less than what waits already; it waits in its turn all the same.
        self.waiting.push_back(Waiting { verdict, reply, _room: room });
    }

    /// Answers what depends on no more than `applied`, which this replica committed as primary. `copies` says on how many
    /// disks a position is.
    pub(super) fn committed(&mut self, applied: Lsn, copies: impl Fn(Lsn) -> u32) {
        while let Some(waiting) = self.waiting.pop_front_if(|waiting| waiting.verdict.judged_by <= applied) {
            match waiting.verdict.outcome {
                Ok(receipt) => {
                    let durable_copies = copies(receipt.lsn);
                    let receipt =
                        WriteReceipt { lsn: receipt.lsn, affected: receipt.affected, durable_copies };
                    // A caller that has gone needs no answer, here and below.
                    let _ = waiting.reply.send(Ok(receipt));
                }
                Err(refusal) => self.doubtful.push((refusal, waiting.reply)),
            }
        }
    }

    /// True when refusals wait for a proof that this replica leads.
    pub(super) fn has_doubtful(&self) -> bool {
        !self.doubtful.is_empty()
    }

    /// Takes the refusals that wait now.
    pub(super) fn take_doubtful(&mut self) -> Vec<(Refusal, WriteReply)> {
        std::mem::take(&mut self.doubtful)
    }

    /// Nobody will know here what becomes of the writes.
    pub(super) fn give_up(&mut self, shard: ShardIndex, why: &str) {
        let unknown = Error::new(ErrorCode::OutcomeUnknown, format!("shard {shard}: {why}"));
        for waiting in self.waiting.drain(..) {
            let _ = waiting.reply.send(Err(unknown.clone()));
        }
        // Refused writes were not appended, whoever leads.
        let other = Error::new(ErrorCode::NotPrimary, format!("shard {shard}: {why}"));
        for (_, reply) in self.doubtful.drain(..) {
            let _ = reply.send(Err(other.clone()));
        }
    }
}

/// Answers refusals for good.
pub(super) fn refuse(refusals: Vec<(Refusal, WriteReply)>) {
    for (refusal, reply) in refusals {
        let code = match refusal {
            Refusal::NoSuchDocument(_) => ErrorCode::DocumentNotFound,
            Refusal::VersionMismatch { .. } => ErrorCode::VersionMismatch,
            Refusal::OtherBatch => ErrorCode::RequestIdReused,
            Refusal::TooLarge { .. } => ErrorCode::PayloadTooLarge,
            Refusal::TooLate => ErrorCode::RetryTooLate,
        };
        let _ = reply.send(Err(Error::new(code, refusal.to_string())));
    }
}
