//! One turn of a replica's store: what the protocol asks of it, in order. Blocks.

use crate::ids::{Epoch, Lsn};
use crate::replication::Ticket;
use crate::storage::{Batch, Membership, Record, Staged, StorageError, Store, Verdict};

/// What a store is to do in one turn.
#[derive(Debug, Default)]
pub(crate) struct Job {
    /// Apply everything that is committed up to here, first: readers and clients wait for it.
    pub(super) commit: Lsn,
    /// Operations of the protocol.
    pub(super) tasks: Vec<LogTask>,
    /// Batches of clients, written in this reign.
    pub(super) intake: Option<(Epoch, Vec<Batch>)>,
    /// Who is in sync, as the primary said.
    pub(super) membership: Option<Membership>,
    /// Operations of the protocol up to here are durable when the turn ends, if it takes in no batches.
    pub(super) ticket: Ticket,
}

/// An operation of the protocol on the log, with its records.
#[derive(Clone, Debug)]
pub(super) enum LogTask {
    /// Make a promise durable.
    Promise(Epoch),
    /// Remove every record behind this one.
    Cut(Lsn),
    /// Append what the primary sent.
    Receive(Vec<Record>),
    /// Append the record that begins a reign.
    StartEpoch(Epoch),
}

/// What is known before the sync: records may be sent to others meanwhile.
#[derive(Debug)]
pub(crate) struct Prelude {
    /// Everything up to here is applied.
    pub(crate) applied: Lsn,
    /// Of each batch, in order.
    pub(super) verdicts: Vec<Verdict>,
    /// Records that were added here, not received.
    pub(crate) records: Vec<Record>,
    pub(super) ticket: Ticket,
}

impl Job {
    /// Batches of clients that it takes in.
    pub(crate) fn batches(&self) -> usize {
        self.intake.as_ref().map_or(0, |(_, batches)| batches.len())
    }

    /// It touches no file: what is durable is applied, and nothing else.
    pub(crate) fn only_applies(&self) -> bool {
        self.tasks.is_empty() && self.intake.is_none()
    }

    /// Up to where it applies.
    pub(crate) fn commit(&self) -> Lsn {
        self.commit
    }

    /// Does everything but the sync that ends a turn: [`Store::sync`]. After an error the store takes nothing more.
    pub(crate) fn begin(self, store: &mut Store) -> Result<Prelude, StorageError> {
        let applied = store.apply(self.commit)?;
        if let Some(membership) = self.membership {
            store.note_membership(membership);
        }
        let mut records = Vec::new();
        for task in self.tasks {
            match task {
                LogTask::Promise(epoch) => store.promise(epoch)?,
                LogTask::Cut(to) => {
                    store.cut(to)?;
                }
                LogTask::Receive(received) => store.receive(received)?,
                LogTask::StartEpoch(epoch) => records.push(store.start_epoch(epoch)?),
            }
        }
        let staged = match self.intake {
            Some((epoch, batches)) => store.stage(epoch, batches)?,
            None => Staged::default(),
        };
        records.extend(staged.records);
        Ok(Prelude { applied, verdicts: staged.verdicts, records, ticket: self.ticket })
    }
}
