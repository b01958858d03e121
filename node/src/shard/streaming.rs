//! What a replica sends to others, with the records that belong to it.

use tracing::{debug, warn};

use super::catch_up::ReadDone;
use super::owner::{Owner, OwnerFailure, chain};
use super::wire::{Enclosed, Letter};
use crate::ids::{Lsn, ReplicaId};
use crate::replication::{Append, Event, Message, PeerState};
use crate::storage::{LogRead, Record};

/// Bytes of records of one message.
const MESSAGE_BYTES: usize = 1 << 20;

impl Owner {
    /// Sends a message; of an append with as many of its records as are at hand. What does not leave is told to the
    /// protocol.
    pub(super) fn send(&mut self, to: ReplicaId, message: Message) {
        let Message::Append(append) = message else {
            self.post(to, message, Vec::new());
            return;
        };
        let (first, last) = (append.prev.lsn.next(), append.last);
        if last < first {
            self.post(to, Message::Append(append), Vec::new());
            return;
        }
        if let Some(records) = self.tail.get(first, last, MESSAGE_BYTES) {
            return self.send_records(to, append, records);
        }
        let was_reading = self.catch_up.is_reading(to);
        if !was_reading {
            self.catch_up.read(to, append);
        }
        // What follows waits until these records have left.
        let unsent = if was_reading { first } else { last.next() };
        self.step(Event::Unsent(to, unsent), Vec::new());
    }

    /// Sends the records of a message, or the first of them.
    fn send_records(&mut self, to: ReplicaId, mut append: Append, records: Vec<Record>) {
        let (first, wanted) = (append.prev.lsn.next(), append.last);
        let sent = records.last().map_or(append.prev.lsn, |record| record.lsn);
        append.last = sent;
        append.starts.retain(|(_, start)| *start <= sent);
        let unsent = if self.post(to, Message::Append(append), records) { sent.next() } else { first };
        if unsent <= wanted {
            self.step(Event::Unsent(to, unsent), Vec::new());
        }
    }

    /// Records that were read for a copy that is behind.
    pub(super) fn on_read(&mut self, done: ReadDone) -> Result<(), OwnerFailure> {
        let ReadDone { to, append, outcome, .. } = done;
        let first = append.prev.lsn.next();
        match outcome {
            Ok(LogRead::Records(mut records)) => {
                records.retain(|record| record.lsn <= append.last);
                if records.is_empty() {
                    // Not durable yet: they are sent when they are asked for again.
                    self.step(Event::Unsent(to, first), Vec::new());
                } else {
                    self.send_records(to, append, records);
                }
            }
            Ok(LogRead::Gone) => {
                debug!(shard = %self.shard, %to, lsn = %first, "log does not reach back to a copy that is behind");
                self.step(Event::Unsent(to, first), Vec::new());
            }
            Err(error) if error.is_lasting() => return Err(OwnerFailure::Storage(error)),
            Err(error) => {
                warn!(shard = %self.shard, error = chain(&error), "log could not be read for another copy");
                self.step(Event::Unsent(to, first), Vec::new());
            }
        }
        Ok(())
    }

    /// Hands a message over to the connection. False: it does not leave.
    fn post(&mut self, to: ReplicaId, message: Message, records: Vec<Record>) -> bool {
        let record = self.record.borrow().clone();
        let Some(node) = record.replica(to).map(|replica| replica.node.clone()) else { return false };
        let mut enclosed = Enclosed { digest: self.digests.take_untold(), ..Enclosed::default() };
        match &message {
            Message::Append(_) => {
                let isr = record.isr.clone();
                enclosed.membership = Some((record.mod_revision.0, isr));
            }
            Message::Reply(_) => enclosed.applied = self.state.borrow().applied,
            Message::Install { .. } => {}
        }
        let letter = Letter { shard: self.shard, from: self.id, to, message, records, enclosed };
        let bytes = letter.bytes();
        self.links.send(&node, letter.into_proto(), bytes)
    }

    /// The first record that another copy still needs, as far as this one leads and knows them; the log keeps it for a while,
    /// so that a copy that was away for short needs no snapshot.
    pub(super) fn needed_from(&self) -> Lsn {
        let peers = self.core.peers(super::owner::now());
        let flushed = peers.iter().filter(|peer| peer.flushed > Lsn::ZERO).map(|peer| peer.flushed).min();
        flushed.map_or(Lsn::MAX, Lsn::next)
    }

    /// Forgets records that every copy has, so that an idle shard keeps none in memory.
    pub(super) fn release_tail(&mut self) {
        let peers = self.core.peers(super::owner::now());
        let behind = peers.iter().filter(|peer| matches!(peer.state, PeerState::Streaming { .. }));
        let everywhere = behind.map(|peer| peer.flushed).min().unwrap_or(Lsn::MAX);
        self.tail.release(everywhere.min(self.core.log().durable));
    }
}
