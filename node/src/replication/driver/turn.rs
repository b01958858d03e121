//! Turns of the store: what a job is made of, and what follows from what it did.

use super::answers::{NotWritten, WriteReceipt};
use super::job::{Job, LogTask, Prelude};
use super::readers::Waiting;
use super::{Driver, Effect};
use crate::ids::{Epoch, Lsn};
use crate::replication::{Event, LogOperation, Now, PeerState, Standing, Ticket};
use crate::storage::{Batch, Record, RecordKind, Store};

/// A write of a client.
#[derive(Debug)]
pub(crate) struct Write<W> {
    /// The reign that the caller believes in.
    pub(crate) epoch: Epoch,
    /// What to write.
    pub(crate) batch: Batch,
    /// Whom to tell.
    pub(crate) token: W,
}

impl<W, R> Driver<W, R> {
    /// The next turn of the store, if there is something to do. `writes`: what clients want, as much as one group takes.
    /// Those that are not admitted are answered at once: nothing of them was begun.
    pub(crate) fn next_job(&mut self, writes: impl IntoIterator<Item = Write<W>>, now: Now) -> Option<Job> {
        let intake = self.admit(writes, now);
        let commit = self.core.commit().min(self.core.log().durable);
        if self.tasks.is_empty() && intake.is_none() && commit <= self.apply_tried.max(self.applied) {
            return None;
        }
        self.apply_tried = commit;
        let (tasks, membership) = (std::mem::take(&mut self.tasks), self.membership.take());
        Some(Job { commit, tasks, intake, membership, ticket: self.core.last_ticket() })
    }

    fn admit(&mut self, writes: impl IntoIterator<Item = Write<W>>, now: Now) -> Option<(Epoch, Vec<Batch>)> {
        let mut intake: Option<(Epoch, Vec<Batch>)> = None;
        for Write { epoch, batch, token } in writes {
            let refused = match self.core.admit(batch.adds(), now) {
                Ok(led) if led == epoch => {
                    self.judged.push(token);
                    intake.get_or_insert_with(|| (epoch, Vec::new())).1.push(batch);
                    continue;
                }
                Ok(led) => NotWritten::OtherReign { wanted: epoch, led },
                Err(why) => NotWritten::NotAdmitted(why),
            };
            self.effects.push_back(Effect::Answer(token, Err(refused)));
        }
        intake
    }

    /// A job is done but for its sync, which has not ended. The ticket that is durable with it: [`Driver::on_durable`].
    /// Nothing else may be told in between its beginning and this: the log is ahead of what the protocol knows.
    pub(crate) fn on_prelude(&mut self, prelude: Prelude, now: Now) -> Ticket {
        let Prelude { applied, verdicts, records, ticket } = prelude;
        self.tail.push(records.iter().cloned());
        self.applied = applied;
        for (token, verdict) in std::mem::take(&mut self.judged).into_iter().zip(verdicts) {
            self.answers.push(verdict, token);
        }
        // Also what was judged just now: a repeat of what was applied long ago waits for nothing.
        self.answer(now);
        let added = |record: &&Record| record.batch_end && record.kind != RecordKind::EpochStart;
        let ends: Vec<Lsn> = records.iter().filter(added).map(|record| record.lsn).collect();
        let (Some(last), Some(record)) = (ends.last(), records.last()) else { return ticket };
        self.log_end = *last;
        self.step(Event::Staged(record.epoch, ends), now);
        self.core.last_ticket()
    }

    /// The sync of a job has ended; of records those up to `end` are durable, where a batch ends.
    pub(crate) fn on_durable(&mut self, ticket: Ticket, end: Lsn, now: Now) {
        self.step(Event::Durable(ticket, end), now);
        self.release_tail(now);
    }

    /// The first record that another copy still needs, as far as this one leads and knows them; the log keeps it for a while,
    /// so that a copy that was away for short needs no snapshot. [`Lsn::MAX`]: none is needed.
    pub(crate) fn needed_from(&self, now: Now) -> Lsn {
        self.core.peers(now).iter().filter_map(|peer| peer.needs).min().unwrap_or(Lsn::MAX)
    }

    /// Takes in what changed in the store beside jobs: its digest, where its log begins.
    pub(crate) fn look_at(&mut self, store: &Store, now: Now) {
        self.digests.note(store, now);
        let first = store.positions().first;
        if first > self.core.log().first {
            self.step(Event::Released(first), now);
        }
    }

    /// The store is gone: nobody will know here what becomes of the writes.
    pub(crate) fn give_up(&mut self, why: &'static str) {
        let judged = std::mem::take(&mut self.judged).into_iter();
        self.effects.extend(judged.map(|token| Effect::Answer(token, Err(NotWritten::Unknown(why)))));
        self.effects.extend(self.answers.give_up(why));
    }

    /// Answers writes that are committed and applied.
    fn answer(&mut self, now: Now) {
        if !matches!(self.core.standing(), Standing::Primary(_)) {
            return;
        }
        if !self.core.may_acknowledge(now) {
            return self.effects.extend(self.answers.give_up("the node's session ended meanwhile"));
        }
        while let Some((receipt, token)) = self.answers.next_done(self.applied) {
            let durable_copies = self.core.durable_copies(receipt.lsn);
            let receipt = WriteReceipt { lsn: receipt.lsn, affected: receipt.affected, durable_copies };
            self.effects.push_back(Effect::Answer(token, Ok(receipt)));
        }
        let doubtful = self.answers.take_doubtful();
        if doubtful.is_empty() {
            return;
        }
        // Told when this replica is known to lead at this moment; else the others are asked first.
        if self.core.grant(now).is_some() {
            return self.effects.extend(doubtful.into_iter().map(|refused| refused.told(true)));
        }
        let question = self.readers.ask(Waiting::Refused(doubtful));
        self.ask(question, now);
    }

    pub(super) fn queue(&mut self, operation: LogOperation, records: &mut Vec<Record>) {
        match operation {
            LogOperation::Promise(epoch) => self.tasks.push(LogTask::Promise(epoch)),
            LogOperation::Cut(to) => {
                self.effects.push_back(Effect::Cut { to, end: self.log_end });
                self.tail.cut(to);
                self.log_end = self.log_end.min(to);
                self.tasks.push(LogTask::Cut(to));
            }
            LogOperation::Receive(last) => {
                let end = self.log_end;
                let missing: Vec<Record> = records.drain(..).filter(|record| record.lsn > end).collect();
                let brought = missing.last().map(|record| record.lsn);
                assert_eq!(brought, Some(last), "a message carries its records");
                self.tail.push(missing.iter().cloned());
                self.log_end = last;
                self.tasks.push(LogTask::Receive(missing));
            }
            LogOperation::StartEpoch(epoch) => {
                self.log_end = self.log_end.next();
                self.tasks.push(LogTask::StartEpoch(epoch));
            }
        }
    }

    /// Forgets records that every copy has, so that an idle shard keeps none in memory.
    fn release_tail(&mut self, now: Now) {
        let peers = self.core.peers(now);
        let close = peers.iter().filter(|peer| matches!(peer.state, PeerState::Streaming { .. }));
        let everywhere = close.map(|peer| peer.flushed).min().unwrap_or(Lsn::MAX);
        self.tail.release(everywhere.min(self.core.log().durable));
    }
}
