//! [`IndexService`]: keeps this node's replicas as the cluster's records want them.
//!
//! One task looks at records, session and disk, and takes one step for each copy at a time ([`super::decide`]): make or
//! open a replica, fetch a snapshot for it, close it, delete it. Steps of different shards run side by side. Requests
//! find open replicas in a shared table and never wait for a step.

use std::collections::HashMap;
use std::sync::{Arc, RwLock};
use std::time::Duration;

use futures::future::join_all;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tracing::{info, warn};
use vectorsphere_index::Kernels;
use vectorsphere_proto::internal::ReplicaStatus;
use vectorsphere_proto::keys::Keys;

use super::disk_stage::{DiskStage, DiskThresholds, SharedDiskStage};
use super::keeper::Keeper;
use super::links::Links;
use super::memory::MemoryLedger;
use super::metrics::ShardMetrics;
use super::pace::Pace;
use super::replica::Replica;
use super::write_room::WriteRoom;
use crate::cluster::view::ClusterView;
use crate::cluster::{HeldSession, MetaStore};
use crate::comm::CommunicationService;
use crate::error_code::{Error, ErrorCode};
use crate::ids::{NodeId, ShardId};
use crate::replication::driver::Letter;
use crate::replication::{EtcdPolicy, Timing};
use crate::runtime::disk::Disk;
use crate::runtime::{ComputePool, TaskGroup};
use crate::storage::segment::RowCache;

/// When a caller should ask again for a shard that is being opened.
const OPENING_PAUSE: Duration = Duration::from_millis(200);

/// Snapshots that are sent at once.
const SNAPSHOTS_SENT_MAX: usize = 1;

/// Checkpoints that are written at once: each may hold a copy of the rows that it merges.
const CHECKPOINTS_MAX: usize = 1;

/// What the service is made of.
pub struct IndexServiceParts {
    /// The data directory, locked for this process.
    pub disk: Arc<dyn Disk>,
    /// This node.
    pub node_id: NodeId,
    /// Where shard records are.
    pub meta: Arc<dyn MetaStore>,
    /// Their keys.
    pub keys: Keys,
    /// The cluster as it changes.
    pub view: watch::Receiver<Arc<ClusterView>>,
    /// This node's session; `None` while it has none: writes are refused then, reads go on.
    pub session: watch::Receiver<Option<HeldSession>>,
    /// Distance kernels of this processor.
    pub kernels: Kernels,
    /// Where searches run.
    pub compute: ComputePool,
    /// Of tables whose rows are on disk.
    pub row_cache: RowCache,
    /// What can be tuned.
    pub settings: ShardSettings,
    /// Calls other nodes.
    pub comm: Arc<CommunicationService>,
    /// Metrics.
    pub metrics: ShardMetrics,
}

/// What can be tuned.
#[derive(Clone, Debug)]
pub struct ShardSettings {
    /// Size of a shard's log that starts a checkpoint, bytes; may change at any time.
    pub checkpoint_log_bytes: watch::Receiver<u64>,
    /// What shards of this node may hold in memory.
    pub memory: MemoryLedger,
    /// When the data volume is too full.
    pub disk_thresholds: DiskThresholds,
    /// What primaries do when the metadata store is away.
    pub policy: EtcdPolicy,
    /// Intervals of replication.
    pub timing: Timing,
    /// How long the data of a copy that left its shard is kept.
    pub leaving_grace: Duration,
    /// Bytes a second that a node sends to copies that are behind.
    pub catch_up_bytes_per_second: u64,
    /// No earlier process of this node can be running: it ended on this machine.
    pub predecessor_ended: bool,
}

/// The shards of this node. Cheap to share as `Arc<IndexService>`.
pub struct IndexService {
    pub(super) node_id: NodeId,
    pub(super) kernels: Kernels,
    pub(super) compute: ComputePool,
    pub(super) metrics: ShardMetrics,
    pub(super) write_room: WriteRoom,
    pub(super) memory: MemoryLedger,
    snapshot_permits: Arc<Semaphore>,
    disk_stage: SharedDiskStage,
    pub(super) pace: Pace,
    /// Checkpoints that may be written at once.
    #[cfg_attr(not(test), expect(dead_code, reason = "tests take one to see what waits for it"))]
    pub(super) checkpoint_permits: Arc<Semaphore>,
    table: SharedTable,
    tasks: TaskGroup,
    all_opened: watch::Receiver<bool>,
}

/// What requests find for a shard.
#[derive(Clone)]
pub(super) enum Found {
    /// An open replica.
    Open(Arc<Replica>),
    /// Not yet.
    Opening,
    /// Not, because of this. A copy that is well, but must stay closed, says where it stands.
    Failed { error: Error, status: Option<Arc<ReplicaStatus>> },
}

/// Shards of this node, written by the keeper, read by requests. The lock is held for one look-up or change.
#[derive(Clone, Default)]
pub(super) struct SharedTable(Arc<RwLock<HashMap<ShardId, Found>>>);

impl IndexService {
    /// Starts to keep this node's replicas, in a task of `tasks`, which are nobody else's.
    pub fn start(parts: IndexServiceParts, tasks: TaskGroup) -> IndexService {
        let table = SharedTable::default();
        let (tell, all_opened) = watch::channel(false);
        let checkpoint_permits = Arc::new(Semaphore::new(CHECKPOINTS_MAX));
        let pace = Pace::new(parts.settings.catch_up_bytes_per_second);
        let disk_stage = SharedDiskStage::default();
        let service = IndexService {
            node_id: parts.node_id.clone(),
            kernels: parts.kernels,
            compute: parts.compute.clone(),
            metrics: parts.metrics.clone(),
            write_room: WriteRoom::default(),
            memory: parts.settings.memory.clone(),
            snapshot_permits: Arc::new(Semaphore::new(SNAPSHOTS_SENT_MAX)),
            disk_stage: disk_stage.clone(),
            pace: pace.clone(),
            checkpoint_permits: checkpoint_permits.clone(),
            table: table.clone(),
            tasks: tasks.clone(),
            all_opened,
        };
        let links = Arc::new(Links::new(parts.comm.clone(), tasks.clone()));
        let shared = (checkpoint_permits, pace, disk_stage);
        let keeper = Keeper::new(parts, table, links, shared, tell, tasks.cancellation().clone());
        tasks.spawn("shards", keeper.run());
        service
    }

    /// The open replica of a shard.
    ///
    /// # Errors
    /// [`ErrorCode::NotPrimary`] when this node has none, [`ErrorCode::ShardUnavailable`] while it is being opened,
    /// [`ErrorCode::ShardDamaged`] when its data cannot be served.
    pub fn replica(&self, shard: ShardId) -> Result<Arc<Replica>, Error> {
        match self.table.get(shard) {
            Some(Found::Open(replica)) => Ok(replica),
            Some(Found::Opening) => {
                let message = format!("shard {} is being opened", shard.index);
                Err(Error::new(ErrorCode::ShardUnavailable, message).retry_after(OPENING_PAUSE))
            }
            Some(Found::Failed { error, .. }) => Err(error),
            None => {
                let message = format!("node {} has no replica of shard {shard}", self.node_id);
                Err(Error::new(ErrorCode::NotPrimary, message))
            }
        }
    }

    /// Hands a message of another replica to the one that it is for, if that is open.
    pub(super) fn deliver(&self, shard: ShardId, letter: Letter) {
        if let Some(Found::Open(replica)) = self.table.get(shard) {
            replica.deliver(letter);
        }
    }

    /// Every open replica.
    pub(super) fn open_replicas(&self) -> Vec<Arc<Replica>> {
        self.table.open()
    }

    /// What the copy of a shard that must stay closed says of itself.
    pub(super) fn closed_copy(&self, shard: ShardId) -> Option<Arc<ReplicaStatus>> {
        match self.table.get(shard)? {
            Found::Failed { status, .. } => status,
            Found::Open(_) | Found::Opening => None,
        }
    }

    /// True when the data volume has no room for another copy.
    pub(super) fn is_full(&self) -> bool {
        self.disk_stage.get() >= DiskStage::NoCopies
    }

    /// The right to send a snapshot.
    pub(super) async fn snapshot_permit(&self) -> OwnedSemaphorePermit {
        self.snapshot_permits.clone().acquire_owned().await.expect("never closed")
    }

    /// Becomes and stays true when every replica that the cluster wanted here at the node's start is open, or cannot be
    /// opened.
    pub fn all_opened(&self) -> watch::Receiver<bool> {
        self.all_opened.clone()
    }

    /// Lets other copies lead, and leaves the in-sync set of every shard, as far as there are copies enough and it takes no
    /// longer than `limit`.
    pub async fn leave_all(&self, limit: Duration) {
        let shared = self.open_replicas().into_iter().filter(|replica| replica.state().has_enough_others);
        let left = shared.map(async |replica| replica.leave().await);
        match tokio::time::timeout(limit, join_all(left)).await {
            Ok(left) => info!(shards = left.len(), "other copies serve the shards of this node"),
            Err(_) => warn!("shards could not all be handed to other copies in time"),
        }
    }

    /// Stops taking writes, finishes what was begun and closes all replicas in order.
    pub async fn stop(&self) {
        self.tasks.cancellation().cancel();
        self.tasks.ended().await;
    }
}

impl SharedTable {
    pub(super) fn get(&self, shard: ShardId) -> Option<Found> {
        self.0.read().expect("no panic under this lock").get(&shard).cloned()
    }

    fn open(&self) -> Vec<Arc<Replica>> {
        let table = self.0.read().expect("no panic under this lock");
        let open = table.values().filter_map(|found| match found {
            Found::Open(replica) => Some(replica.clone()),
            Found::Opening | Found::Failed { .. } => None,
        });
        open.collect()
    }

    pub(super) fn set(&self, shard: ShardId, found: Found) {
        self.0.write().expect("no panic under this lock").insert(shard, found);
    }

    pub(super) fn remove(&self, shard: ShardId) {
        self.0.write().expect("no panic under this lock").remove(&shard);
    }
}
