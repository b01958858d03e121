//! The steps that change a shard of this node, one function each. Run by the keeper.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{Semaphore, mpsc, watch};
use tokio::task::spawn_blocking;
use tokio_util::sync::CancellationToken;
use vectorsphere_index::Metric;

use super::checkpointing::Checkpointing;
use super::decide::{DirectoryVerdict, judge_directory};
use super::disk_stage::SharedDiskStage;
use super::leadership::{Leadership, LeadershipError};
use super::metrics::ShardMetrics;
use super::owner::{MAILBOX_WRITES, Owner, chain};
use super::replica::{Replica, ReplicaState};
use crate::cluster::HeldSession;
use crate::cluster::view::Shard;
use crate::error_code::Error;
use crate::ids::{Epoch, ReplicaId, Session, ShardId};
use crate::runtime::disk::Disk;
use crate::storage::{OpenReport, ReplicaIdentity, ReplicaMeta, StorageError, Store, StorePlace, data_dir};
use crate::table::TableSchema;

/// A replica that is to be open.
pub(super) struct Wanted {
    pub(super) cluster_uid: String,
    pub(super) record: Shard,
    pub(super) schema: TableSchema,
    pub(super) replica: ReplicaId,
}

/// A replica that was opened.
pub(super) struct Opened {
    pub(super) store: Store,
    pub(super) report: OpenReport,
    /// Its directory was made just now.
    pub(super) formatted: bool,
    pub(super) elapsed: Duration,
    pub(super) schema: TableSchema,
}

/// Why a step failed.
#[derive(Debug, thiserror::Error)]
pub(super) enum StepFailure {
    #[error("{}", chain(.0))]
    Storage(StorageError),
    #[error("{0}")]
    Refused(String),
    #[error("{0}")]
    Leadership(LeadershipError),
    #[error("{0}")]
    Replica(Error),
    #[error("a storage thread panicked")]
    Panicked,
}

impl StepFailure {
    /// The data itself is the problem.
    pub(super) fn is_damage(&self) -> bool {
        match self {
            StepFailure::Storage(error) => error.is_lasting(),
            StepFailure::Refused(_) => true,
            StepFailure::Leadership(_) | StepFailure::Replica(_) | StepFailure::Panicked => false,
        }
    }

    /// Somebody else was faster, which is nothing to report.
    pub(super) fn is_race(&self) -> bool {
        matches!(self, StepFailure::Leadership(LeadershipError::Changed | LeadershipError::Absent))
    }
}

/// Makes the replica's directory if it is new, and opens it.
pub(super) async fn open(disk: Arc<dyn Disk>, wanted: Wanted) -> Result<Opened, StepFailure> {
    let started = Instant::now();
    let run = move || {
        let Wanted { cluster_uid, record, schema, replica } = wanted;
        let place = StorePlace { disk, directory: data_dir::shard_directory(record.id) };
        let read = || ReplicaMeta::read(place.disk.as_ref(), &place.directory).map_err(StepFailure::Storage);
        let identity =
            ReplicaIdentity { cluster_uid, shard: record.id, replica, dimension: schema.dimension };
        let mut meta = read()?;
        let formatted = match judge_directory(&record, replica, meta.as_ref()) {
            DirectoryVerdict::Refuse(reason) => return Err(StepFailure::Refused(reason)),
            DirectoryVerdict::Open => false,
            DirectoryVerdict::Format => {
                Store::format(&place, identity.clone()).map_err(StepFailure::Storage)?;
                meta = read()?;
                true
            }
        };
        let meta = meta.filter(|meta| meta.identity == identity).ok_or_else(|| {
            let directory = place.directory.display();
            StepFailure::Refused(format!("{directory} belongs to another cluster or table"))
        })?;
        let (store, report) = Store::open(place, meta).map_err(StepFailure::Storage)?;
        Ok(Opened { store, report, formatted, elapsed: started.elapsed(), schema })
    };
    spawn_blocking(run).await.map_err(|_| StepFailure::Panicked)?
}

/// Finds out whether a replica's disk can be written.
pub(super) async fn probe(disk: Arc<dyn Disk>, shard: ShardId) -> Result<(), StepFailure> {
    let run = move || Store::probe(&StorePlace { disk, directory: data_dir::shard_directory(shard) });
    let written = spawn_blocking(run).await.map_err(|_| StepFailure::Panicked)?;
    written.map_err(StepFailure::Storage)
}

/// What an owner needs beside its store.
pub(super) struct OwnerContext {
    pub(super) shard: ShardId,
    pub(super) metric: Metric,
    pub(super) session: watch::Receiver<Option<HeldSession>>,
    pub(super) checkpoint_log_bytes: watch::Receiver<u64>,
    pub(super) checkpoint_permits: Arc<Semaphore>,
    pub(super) disk_stage: SharedDiskStage,
    pub(super) metrics: ShardMetrics,
    pub(super) cancel: CancellationToken,
}

/// The owner of a store, and the handle that requests use.
pub(super) fn employ(store: Store, context: OwnerContext) -> (Arc<Replica>, Owner) {
    let state = ReplicaState {
        epoch: store.epoch(),
        leads: None,
        applied: store.applied(),
        disk_bytes: store.disk_bytes(),
        failure: None,
    };
    let (state, state_receiver) = watch::channel(state);
    let (mailbox, mailbox_receiver) = mpsc::channel(MAILBOX_WRITES);
    let identity = &store.meta().identity;
    let replica = Replica {
        shard: context.shard,
        id: identity.replica,
        dimension: identity.dimension,
        metric: context.metric,
        reader: store.reader(),
        state: state_receiver,
        mailbox,
        disk: context.disk_stage,
    };
    let owner = Owner {
        shard: context.shard,
        store: Some(store),
        mailbox: mailbox_receiver,
        state,
        session: context.session,
        checkpoint_log_bytes: context.checkpoint_log_bytes,
        checkpoint_permits: context.checkpoint_permits,
        checkpoint: Checkpointing::default(),
        no_checkpoint_before: None,
        metrics: context.metrics,
        cancel: context.cancel,
    };
    (Arc::new(replica), owner)
}

/// Becomes the primary of a new epoch: first in the record, then in the log.
pub(super) async fn lead(
    leadership: &Leadership,
    replica: &Replica,
    id: ReplicaId,
    session: Session,
) -> Result<Epoch, StepFailure> {
    let promised = replica.state().epoch;
    let epoch =
        leadership.claim(replica.shard(), id, session, promised).await.map_err(StepFailure::Leadership)?;
    replica.lead(epoch, session).await.map_err(StepFailure::Replica)?;
    Ok(epoch)
}

/// Deletes a closed replica's data, then takes it out of the record. Done again after a stop in between.
pub(super) async fn remove(
    leadership: &Leadership,
    disk: Arc<dyn Disk>,
    shard: ShardId,
    replica: ReplicaId,
    session: Session,
) -> Result<(), StepFailure> {
    let run = move || {
        let directory = data_dir::shard_directory(shard);
        disk.remove_dir_all(&directory).map_err(StorageError::write(&directory))?;
        let table = data_dir::table_directory(shard);
        if disk.list(&table).map_err(StorageError::read(&table))?.is_empty() {
            disk.remove_dir_all(&table).map_err(StorageError::write(&table))?;
        }
        Ok(())
    };
    let removed = spawn_blocking(run).await.map_err(|_| StepFailure::Panicked)?;
    removed.map_err(StepFailure::Storage)?;
    match leadership.withdraw(shard, replica, session).await {
        // The record went with the last replica.
        Err(LeadershipError::Absent) => Ok(()),
        outcome => outcome.map_err(StepFailure::Leadership),
    }
}
