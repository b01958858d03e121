//! What the protocol's driver wants done, carried out: messages, changes of the record, answers.

use tracing::{debug, error, info, warn};

use super::answers::not_written;
use super::catch_up::ReadDone;
use super::owner::{Changed, Owner, OwnerFailure, Writer, chain, now};
use super::records::Asked;
use super::replica::ConfirmReply;
use super::wire::letter_to_proto;
use crate::replication::driver::{Effect, Letter};
use crate::replication::{Alarm, Event, Outcome};

impl Owner {
    /// Lets the protocol take an event, and carries out what it wants.
    pub(super) fn step(&mut self, event: Event) {
        self.driver.step(event, now());
        self.carry_out_all();
    }

    /// Carries out everything that the driver wants.
    pub(super) fn carry_out_all(&mut self) {
        while let Some(effect) = self.driver.next_effect() {
            self.carry_out(effect);
        }
    }

    fn carry_out(&mut self, effect: Effect<Writer, ConfirmReply>) {
        match effect {
            Effect::Post { to, message, records, enclosed } => {
                self.post(Letter { from: self.id, to, message, records, enclosed });
            }
            Effect::Read(to, append) => self.catch_up.read(to, append),
            Effect::Propose { number, compared, change, guards } => {
                let Some(session) = self.session() else {
                    return self.driver.step(Event::Proposed(number, Outcome::NotMade), now());
                };
                debug!(shard = %self.shard, ?change, "asks for a change of the record");
                let (records, shard) = (self.records.clone(), self.shard);
                let asked = Asked { compared, change, guards, session };
                self.changes
                    .spawn(async move { Changed::Proposed(number, records.change(shard, asked).await) });
            }
            Effect::Reload => {
                let (records, shard) = (self.records.clone(), self.shard);
                self.changes.spawn(async move { Changed::Reloaded(records.read(shard).await) });
            }
            // A caller that has gone needs no answer, here and below.
            Effect::Answer((reply, _room), outcome) => {
                let _ = reply.send(outcome.map_err(|why| not_written(self.shard, why)));
            }
            Effect::Confirmed(reply, position) => drop(reply.send(position)),
            Effect::HandedOver(outcome) => {
                for reply in self.hand_overs.drain(..) {
                    let _ = reply.send(outcome);
                }
            }
            Effect::Lead(epoch) => {
                self.metrics.epochs.inc();
                info!(shard = %self.shard, %epoch, replica = %self.id, "reign begun");
            }
            Effect::Resign(epoch) => warn!(shard = %self.shard, %epoch, replica = %self.id, "reign ended"),
            // Seen by `wants_snapshot`.
            Effect::Fetch(from) => info!(shard = %self.shard, %from, "log is too old, a snapshot is needed"),
            Effect::Cut { to, end } => {
                warn!(shard = %self.shard, %to, %end, "cuts records that are not in the primary's log");
            }
            Effect::Alarm(alarm) => self.alarm(alarm),
            Effect::Differs { other, at, stops } => {
                self.metrics.alarms.inc();
                error!(shard = %self.shard, replica = %other, lsn = %at, "the content of two copies differs");
                if stops {
                    self.diverged = Some(OwnerFailure::Diverged(at));
                }
            }
        }
    }

    fn alarm(&mut self, alarm: Alarm) {
        self.metrics.alarms.inc();
        match alarm {
            Alarm::DiskLied(replica) => {
                error!(shard = %self.shard, %replica, "a replica came back without records that it had said to be durable");
            }
            Alarm::LacksCommitted => {
                error!(shard = %self.shard, replica = %self.id, "this copy lacks records that are committed: its volume went back in time");
            }
            Alarm::StoreWentBack { shown, promised } => {
                error!(shard = %self.shard, %shown, %promised, "the metadata store was put back to an older state");
            }
        }
    }

    /// Hands a message over to the connection; the driver is told when it does not leave.
    fn post(&mut self, letter: Letter) {
        let node = self.record.borrow().replica(letter.to).map(|replica| replica.node.clone());
        let (to, message, bytes) = (letter.to, letter.message.clone(), letter.bytes());
        let leaves = |node| self.links.send(&node, letter_to_proto(self.shard, letter), bytes);
        if !node.is_some_and(leaves) {
            self.driver.not_sent(to, &message, now());
        }
    }

    /// Records that were read for a copy that is behind.
    pub(super) fn on_read(&mut self, done: ReadDone) -> Result<(), OwnerFailure> {
        let ReadDone { to, append, outcome, .. } = done;
        match outcome {
            Err(error) if error.is_lasting() => return Err(OwnerFailure::Storage(error)),
            Err(error) => {
                warn!(shard = %self.shard, error = chain(&error), "log could not be read for another copy");
                self.driver.on_read(to, append, None, now());
            }
            Ok(read) => self.driver.on_read(to, append, Some(read), now()),
        }
        self.carry_out_all();
        Ok(())
    }
}
