//! Messages to other copies, with the records that belong to them.

use super::{Driver, Effect};
use crate::ids::{Lsn, ReplicaId, Revision};
use crate::replication::{Append, Event, Message, Now};
use crate::storage::{Digest, LogRead, Record};

/// A message with what travels beside it.
#[derive(Clone, Debug)]
pub(crate) struct Letter {
    /// From which copy.
    pub(crate) from: ReplicaId,
    /// To which copy.
    pub(crate) to: ReplicaId,
    /// What.
    pub(crate) message: Message,
    /// The records of an append.
    pub(crate) records: Vec<Record>,
    /// What goes along.
    pub(crate) enclosed: Enclosed,
}

impl Letter {
    /// About how many bytes it takes on its way.
    pub(crate) fn bytes(&self) -> usize {
        128 + self.records.iter().map(Record::stored_bytes).sum::<usize>()
    }
}

/// What replicas tell each other beside the protocol.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Enclosed {
    /// Of a primary: revision and in-sync set of the record that it goes by.
    pub(crate) membership: Option<(Revision, Vec<ReplicaId>)>,
    /// Digest at a position that is applied.
    pub(crate) digest: Option<Digest>,
    /// Of a follower: everything up to here is applied.
    pub(crate) applied: Lsn,
}

impl<W, R> Driver<W, R> {
    /// Sends a message; of an append as many of its records as are at hand. What does not leave is told to the protocol.
    pub(super) fn send(&mut self, to: ReplicaId, message: Message, now: Now) {
        let Message::Append(append) = message else { return self.post(to, message, Vec::new(), now) };
        let (first, last) = (append.prev.lsn.next(), append.last);
        if last < first {
            return self.post(to, Message::Append(append), Vec::new(), now);
        }
        if let Some(records) = self.tail.get(first, last, self.message_bytes) {
            return self.send_records(to, append, records, now);
        }
        let unsent = match self.reading.insert(to) {
            true => {
                self.effects.push_back(Effect::Read(to, append));
                last.next()
            }
            // What follows waits until these records have left.
            false => first,
        };
        self.step(Event::Unsent(to, unsent), now);
    }

    /// A message that was to be posted did not leave.
    pub(crate) fn not_sent(&mut self, to: ReplicaId, message: &Message, now: Now) {
        if let Message::Append(append) = message
            && append.last > append.prev.lsn
        {
            self.step(Event::Unsent(to, append.prev.lsn.next()), now);
        }
    }

    /// Records were read for a copy that is behind, or could not be.
    pub(crate) fn on_read(&mut self, to: ReplicaId, append: Append, read: Option<LogRead>, now: Now) {
        self.reading.remove(&to);
        let first = append.prev.lsn.next();
        if let Some(LogRead::Records(mut records)) = read {
            records.retain(|record| record.lsn <= append.last);
            if !records.is_empty() {
                return self.send_records(to, append, records, now);
            }
        }
        // Not durable yet, or gone: they are sent, or a snapshot is, when they are asked for again.
        self.step(Event::Unsent(to, first), now);
    }

    /// Sends the records of a message, or the first of them.
    fn send_records(&mut self, to: ReplicaId, mut append: Append, records: Vec<Record>, now: Now) {
        let wanted = append.last;
        append.last = records.last().map_or(append.prev.lsn, |record| record.lsn);
        append.starts.retain(|(_, start)| *start <= append.last);
        let unsent = append.last.next();
        self.post(to, Message::Append(append), records, now);
        if unsent <= wanted {
            self.step(Event::Unsent(to, unsent), now);
        }
    }

    fn post(&mut self, to: ReplicaId, message: Message, records: Vec<Record>, now: Now) {
        let mut enclosed = Enclosed { digest: self.digests.take_untold(now), ..Enclosed::default() };
        match &message {
            Message::Append(_) => {
                let known = self.core.configuration();
                enclosed.membership = known.map(|known| (known.revision, known.isr.clone()));
            }
            Message::Reply(_) => enclosed.applied = self.applied,
            Message::Install { .. } => {}
        }
        self.effects.push_back(Effect::Post { to, message, records, enclosed });
    }
}
