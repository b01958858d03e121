//! One turn of a replica's store: what the protocol asks of it, in order, with one sync at the end. Blocks.

use crate::ids::{Epoch, Lsn};
use crate::storage::{Batch, Membership, Record, Staged, StorageError, Store, Verdict};

/// What a store is to do in one turn.
#[derive(Debug, Default)]
pub(crate) struct Job {
    /// Apply everything that is committed up to here, first: readers and clients wait for it.
    pub(crate) commit: Lsn,
    /// Operations of the protocol.
    pub(crate) tasks: Vec<LogTask>,
    /// Batches of clients, written in this reign.
    pub(crate) intake: Option<(Epoch, Vec<Batch>)>,
    /// Who is in sync, as the primary said.
    pub(crate) membership: Option<Membership>,
}

/// An operation of the protocol on the log, with its records.
#[derive(Clone, Debug)]
pub(crate) enum LogTask {
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
    pub(crate) verdicts: Vec<Verdict>,
    /// Records that were added here, not received.
    pub(crate) records: Vec<Record>,
}

impl Job {
    /// Carries it out; `tell` is called before the sync. After an error the store takes nothing more.
    pub(crate) fn run(self, store: &mut Store, tell: impl FnOnce(Prelude)) -> Result<(), StorageError> {
        let applied = store.apply(self.commit);
        let mut records = Vec::new();
        if let Some(membership) = self.membership {
            store.note_membership(membership);
        }
        for task in self.tasks {
            match task {
                LogTask::Promise(epoch) => store.promise(epoch)?,
                LogTask::Cut(to) => {
                    store.cut(to)?;
                }
                LogTask::Receive(records) => store.receive(records)?,
                LogTask::StartEpoch(epoch) => records.push(store.start_epoch(epoch)?),
            }
        }
        let staged = match self.intake {
            Some((epoch, batches)) => store.stage(epoch, batches)?,
            None => Staged::default(),
        };
        records.extend(staged.records);
        tell(Prelude { applied, verdicts: staged.verdicts, records });
        store.sync()
    }
}
