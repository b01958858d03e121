//! One process over one disk.

use crate::ids::{Epoch, Lsn, ReplicaId, Session};
use crate::replication::{
    EpochHistory, EtcdPolicy, LogOperation, LogShape, Now, Opening, Replica, Rules, Ticket,
};

use super::limits::TIMING;

/// A record of a log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Entry {
    pub(super) epoch: Epoch,
    /// Which write; 0: the record that begins a reign.
    pub(super) value: u8,
    pub(super) batch_end: bool,
}

/// What a disk holds.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Image {
    pub(super) log: Vec<Entry>,
    pub(super) promised: Epoch,
}

/// One process over one disk.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Node {
    pub(super) core: Replica,
    pub(super) session: Session,
    /// The metadata store knows the session.
    pub(super) is_registered: bool,
    /// What it writes reaches the disk.
    pub(super) has_volume: bool,
    /// What was handed to the disk, and what a crash leaves.
    pub(super) written: Image,
    pub(super) durable: Image,
    /// Everything handed to the log up to here is durable.
    pub(super) synced: Ticket,
}

/// How a process is started.
#[derive(Clone, Debug)]
pub(super) struct Start {
    pub(super) id: ReplicaId,
    pub(super) session: Session,
    pub(super) image: Image,
    /// The process before is known to have ended.
    pub(super) predecessor_ended: bool,
    pub(super) rules: Rules,
    pub(super) now: Now,
}

impl Node {
    pub(super) fn start(start: Start) -> Node {
        let Start { id, session, image, predecessor_ended, rules, now } = start;
        let opening = Opening {
            id,
            log: shape(&image.log),
            commit: Lsn::ZERO,
            promised: image.promised,
            tail_was_cut: false,
            predecessor_ended,
            timing: TIMING,
            policy: EtcdPolicy::Strict,
            rules,
        };
        Node {
            core: Replica::open(opening, now),
            session,
            is_registered: true,
            has_volume: true,
            written: image.clone(),
            durable: image,
            synced: Ticket(0),
        }
    }

    pub(super) fn id(&self) -> ReplicaId {
        self.core.id()
    }

    pub(super) fn end(&self) -> Lsn {
        Lsn(self.written.log.len() as u64)
    }

    /// Carries an operation on the log out. `entries`: the records that the message carried.
    pub(super) fn write(&mut self, operation: LogOperation, entries: &[Entry]) {
        let Image { log, promised } = &mut self.written;
        match operation {
            LogOperation::Promise(epoch) => *promised = epoch,
            LogOperation::Cut(to) => log.truncate(to.0 as usize),
            LogOperation::Receive(last) => {
                let missing = last.0 as usize - log.len();
                log.extend_from_slice(&entries[entries.len() - missing..]);
            }
            LogOperation::StartEpoch(epoch) => log.push(Entry { epoch, value: 0, batch_end: true }),
        }
    }
}

fn shape(log: &[Entry]) -> LogShape {
    let mut epochs = EpochHistory::default();
    for (index, entry) in log.iter().enumerate() {
        if epochs.last().is_none_or(|(last, _)| last != entry.epoch) {
            epochs.begin(entry.epoch, Lsn(index as u64 + 1));
        }
    }
    let end = Lsn(log.len() as u64);
    LogShape { epochs, first: Lsn(1), end, durable: end }
}
