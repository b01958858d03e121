//! The steps that change a copy of a shard on this node, one function each. Run by the keeper.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{Semaphore, mpsc, watch};
use tokio_util::sync::CancellationToken;
use vectorsphere_index::Metric;

use super::decide::{DirectoryVerdict, judge_directory};
use super::disk_stage::SharedDiskStage;
use super::fetch::FetchFailure;
use super::links::Links;
use super::memory::MemoryLedger;
use super::metrics::ShardMetrics;
use super::owner::{MAILBOX_MESSAGES, MAILBOX_WRITES, MESSAGE_BYTES, Owner, OwnerParts, chain, now};
use super::pace::Pace;
use super::records::{RecordFailure, Records};
use super::replica::{Replica, ReplicaState, SharedGrant};
use super::segment_indexes::SegmentIndexes;
use crate::cluster::HeldSession;
use crate::cluster::view::{self, Shard};
use crate::ids::{ReplicaId, Session, ShardId};
use crate::replication::driver::{Driver, Terms};
use crate::replication::{EtcdPolicy, Rules, Timing};
use crate::runtime::disk::Disk;
use crate::runtime::spawn_blocking;
use crate::storage::indexing::IndexPlan;
use crate::storage::segment::{RowCache, RowPlace};
use crate::storage::{OpenReport, ReplicaIdentity, ReplicaMeta, StorageError, Store, StorePlace, data_dir};
use crate::table::{RowStorage, TableSchema};

/// A copy that is to be open.
#[derive(Clone)]
pub(super) struct Wanted {
    pub(super) cluster_uid: String,
    pub(super) record: Arc<Shard>,
    pub(super) entry: view::Replica,
    pub(super) schema: TableSchema,
    pub(super) row_cache: RowCache,
}

/// A copy that was opened.
pub(super) struct Opened {
    pub(super) store: Store,
    pub(super) report: OpenReport,
    /// Its directory was made just now.
    pub(super) formatted: bool,
    pub(super) elapsed: Duration,
    pub(super) wanted: Wanted,
}

/// Why a step failed.
#[derive(Debug, thiserror::Error)]
pub(super) enum StepFailure {
    #[error("{}", chain(.0))]
    Storage(StorageError),
    #[error("{0}")]
    Lost(String),
    /// This build cannot serve such a table.
    #[error("{0}")]
    Unsupported(String),
    /// The copy obeyed what the record does not show.
    #[error("{reason}")]
    Refused { reason: String, meta: Box<ReplicaMeta> },
    #[error("{0}")]
    Record(RecordFailure),
    #[error("{}", chain(.0))]
    Fetch(FetchFailure),
    #[error("a storage thread panicked")]
    Panicked,
}

impl StepFailure {
    /// The data itself is the problem.
    pub(super) fn is_damage(&self) -> bool {
        match self {
            StepFailure::Storage(error) => error.is_lasting(),
            StepFailure::Lost(_) => true,
            StepFailure::Unsupported(_)
            | StepFailure::Refused { .. }
            | StepFailure::Record(_)
            | StepFailure::Fetch(_)
            | StepFailure::Panicked => false,
        }
    }

    /// The disk did not do what it was told.
    pub(super) fn is_of_disk(&self) -> bool {
        match self {
            StepFailure::Storage(_) => true,
            StepFailure::Fetch(failure) => failure.is_of_disk(),
            StepFailure::Lost(_)
            | StepFailure::Unsupported(_)
            | StepFailure::Refused { .. }
            | StepFailure::Record(_)
            | StepFailure::Panicked => false,
        }
    }

    /// Somebody else was faster, which is nothing to report.
    pub(super) fn is_race(&self) -> bool {
        matches!(self, StepFailure::Record(RecordFailure::Changed | RecordFailure::Absent))
    }
}

impl Wanted {
    pub(super) fn place(&self, disk: Arc<dyn Disk>) -> StorePlace {
        let directory = data_dir::replica_directory(self.record.id, self.entry.id);
        let rows = match self.schema.rows {
            RowStorage::Memory => RowPlace::Memory,
            RowStorage::Disk => RowPlace::Disk(self.row_cache.clone()),
        };
        StorePlace { disk, directory, rows }
    }

    pub(super) fn identity(&self) -> ReplicaIdentity {
        ReplicaIdentity {
            cluster_uid: self.cluster_uid.clone(),
            shard: self.record.id,
            replica: self.entry.id,
            dimension: self.schema.dimension,
            storage_type: self.schema.storage_type,
        }
    }
}

/// Makes the copy's directory if it is new, and opens it.
pub(super) async fn open(disk: Arc<dyn Disk>, wanted: Wanted) -> Result<Opened, StepFailure> {
    let started = Instant::now();
    let run = move || {
        let TableSchema { index, dimension, metric, .. } = &wanted.schema;
        index.check(*dimension, *metric).map_err(StepFailure::Unsupported)?;
        let (place, identity) = (wanted.place(disk), wanted.identity());
        let read = || ReplicaMeta::read(place.disk.as_ref(), &place.directory).map_err(StepFailure::Storage);
        let mut meta = read()?;
        let formatted = match judge_directory(&wanted.record, &wanted.entry, meta.as_ref()) {
            DirectoryVerdict::Lost(reason) => return Err(StepFailure::Lost(reason)),
            DirectoryVerdict::Refuse(reason) => {
                let meta = Box::new(meta.expect("it was judged"));
                return Err(StepFailure::Refused { reason, meta });
            }
            DirectoryVerdict::Open => false,
            DirectoryVerdict::Format => {
                Store::format(&place, identity.clone()).map_err(StepFailure::Storage)?;
                meta = read()?;
                true
            }
        };
        let meta = meta.filter(|meta| meta.identity == identity).ok_or_else(|| {
            let directory = place.directory.display();
            StepFailure::Lost(format!("{directory} belongs to another cluster or table"))
        })?;
        let (store, report) = Store::open(place, meta).map_err(StepFailure::Storage)?;
        Ok(Opened { store, report, formatted, elapsed: started.elapsed(), wanted })
    };
    spawn_blocking(run).await.map_err(|_| StepFailure::Panicked)?
}

/// Finds out whether a copy's disk can be written.
pub(super) async fn probe(disk: Arc<dyn Disk>, wanted: &Wanted) -> Result<(), StepFailure> {
    let place = wanted.place(disk);
    let written = spawn_blocking(move || Store::probe(&place)).await.map_err(|_| StepFailure::Panicked)?;
    written.map_err(StepFailure::Storage)
}

/// What an owner needs beside its store.
pub(super) struct OwnerContext {
    pub(super) shard: ShardId,
    pub(super) metric: Metric,
    pub(super) session: watch::Receiver<Option<HeldSession>>,
    pub(super) record: watch::Receiver<Arc<Shard>>,
    pub(super) records: Records,
    pub(super) links: Arc<Links>,
    pub(super) checkpoint_log_bytes: watch::Receiver<u64>,
    pub(super) checkpoint_permits: Arc<Semaphore>,
    /// How indexes are built; `None`: there are none.
    pub(super) index: Option<IndexPlan>,
    pub(super) index_permits: Arc<Semaphore>,
    pub(super) catch_up_permits: Arc<Semaphore>,
    pub(super) pace: Pace,
    pub(super) disk_stage: SharedDiskStage,
    pub(super) memory: MemoryLedger,
    pub(super) policy: EtcdPolicy,
    pub(super) timing: Timing,
    /// No earlier process of this node can be running.
    pub(super) predecessor_ended: bool,
    pub(super) tail_was_cut: bool,
    pub(super) metrics: ShardMetrics,
    pub(super) cancel: CancellationToken,
}

/// The owner of a store, and the handle that requests use.
pub(super) fn employ(store: Store, context: OwnerContext) -> (Arc<Replica>, Owner) {
    let (positions, identity) = (store.positions(), store.meta().identity.clone());
    let terms = Terms {
        tail_was_cut: context.tail_was_cut,
        predecessor_ended: context.predecessor_ended,
        timing: context.timing,
        policy: context.policy,
        rules: Rules::default(),
        message_bytes: MESSAGE_BYTES,
    };
    let state = ReplicaState {
        epoch: positions.promised,
        leads: None,
        in_sync: false,
        has_enough_others: false,
        fresh: None,
        incarnation: 0,
        applied: positions.applied,
        disk_bytes: store.disk_bytes(),
        failure: None,
    };
    let (state, state_receiver) = watch::channel(state);
    let (mailbox, mailbox_receiver) = mpsc::channel(MAILBOX_MESSAGES);
    let (writes, writes_receiver) = mpsc::channel(MAILBOX_WRITES);
    let grant = SharedGrant::default();
    let replica = Replica {
        shard: context.shard,
        id: identity.replica,
        dimension: identity.dimension,
        storage_type: identity.storage_type,
        metric: context.metric,
        reader: store.reader(),
        indexes: SegmentIndexes::default(),
        state: state_receiver,
        grant: grant.clone(),
        writes,
        mailbox,
        disk: context.disk_stage.clone(),
        memory: context.memory.clone(),
    };
    let parts = OwnerParts {
        shard: context.shard,
        id: identity.replica,
        driver: Driver::new(identity.replica, &positions, terms, now()),
        writes: writes_receiver,
        mailbox: mailbox_receiver,
        state,
        grant,
        session: context.session,
        record: context.record,
        records: context.records,
        links: context.links,
        checkpoint_log_bytes: context.checkpoint_log_bytes,
        checkpoint_permits: context.checkpoint_permits,
        index: context.index,
        index_permits: context.index_permits,
        catch_up_permits: context.catch_up_permits,
        pace: context.pace,
        disk_stage: context.disk_stage,
        memory: context.memory,
        metrics: context.metrics,
        cancel: context.cancel,
    };
    (Arc::new(replica), Owner::new(parts, store))
}

/// Deletes a closed copy's data, then takes it out of the record. Done again after a stop in between.
pub(super) async fn remove(
    records: &Records,
    disk: Arc<dyn Disk>,
    shard: ShardId,
    replica: ReplicaId,
    session: Session,
) -> Result<(), StepFailure> {
    let run = move || {
        let directory = data_dir::replica_directory(shard, replica);
        Store::remove(disk.as_ref(), &directory)?;
        // Of the shard, or of the whole table, nothing may be left.
        for above in [data_dir::shard_directory(shard), data_dir::table_directory(shard)] {
            if disk.list(&above).map_err(StorageError::read(&above))?.is_empty() {
                disk.remove_dir_all(&above).map_err(StorageError::write(&above))?;
            }
        }
        Ok(())
    };
    let removed = spawn_blocking(run).await.map_err(|_| StepFailure::Panicked)?;
    removed.map_err(StepFailure::Storage)?;
    match records.withdraw(shard, replica, session).await {
        // The record went with the last replica.
        Err(RecordFailure::Absent) => Ok(()),
        outcome => outcome.map_err(StepFailure::Record),
    }
}
