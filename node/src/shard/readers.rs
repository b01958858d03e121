//! Readers that wait for a proof that this replica leads, or until something is applied.

use tokio::sync::oneshot;

use super::answers::{WriteReply, refuse};
use crate::error_code::{Error, ErrorCode};
use crate::ids::Lsn;
use crate::storage::Refusal;

/// Where the answer to a reader goes: the position that its snapshot must have; `None`: the replica may lead no more.
pub(super) type ConfirmReply = oneshot::Sender<Option<Lsn>>;

/// Questions to the other copies whether this one still leads: one is asked at a time, for all that wait.
#[derive(Default)]
pub(super) struct Readers {
    /// The question that was asked last, and who waits for its answer.
    asked: Option<(u64, Vec<Waiting>)>,
    /// Who came after it was asked.
    next: Vec<Waiting>,
    last: u64,
}

enum Waiting {
    Reader(ConfirmReply),
    Refusals(Vec<(Refusal, WriteReply)>),
}

impl Readers {
    /// Adds a reader. The number of a question that is to be asked now, if there is one.
    pub(super) fn ask(&mut self, reply: ConfirmReply) -> Option<u64> {
        self.next.push(Waiting::Reader(reply));
        self.ask_next()
    }

    /// As [`Readers::ask`], for refusals of writes.
    pub(super) fn ask_for_refusals(&mut self, refusals: Vec<(Refusal, WriteReply)>) -> Option<u64> {
        self.next.push(Waiting::Refusals(refusals));
        self.ask_next()
    }

    /// Takes the answer to a question. The number of the next one that is to be asked now, if there is one.
    pub(super) fn answer(&mut self, id: u64, position: Option<Lsn>) -> Option<u64> {
        let (_, waiting) = self.asked.take_if(|(asked, _)| *asked == id)?;
        for waiting in waiting {
            match (waiting, position) {
                // A reader that has gone needs no answer.
                (Waiting::Reader(reply), position) => drop(reply.send(position)),
                (Waiting::Refusals(refusals), Some(_)) => refuse(refusals),
                (Waiting::Refusals(refusals), None) => {
                    let error =
                        Error::new(ErrorCode::NotPrimary, "this replica may not lead its shard any more");
                    for (_, reply) in refusals {
                        let _ = reply.send(Err(error.clone()));
                    }
                }
            }
        }
        self.ask_next()
    }

    fn ask_next(&mut self) -> Option<u64> {
        if self.asked.is_some() || self.next.is_empty() {
            return None;
        }
        self.last += 1;
        self.asked = Some((self.last, std::mem::take(&mut self.next)));
        Some(self.last)
    }
}
