//! The owner of a copy, as it runs, and its clients, under many schedules of their steps: whoever is told that a write
//! happened finds it on the disk and sees it, and everybody is told something.

use std::panic::catch_unwind;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use prometheus_client::encoding::text::encode;
use prometheus_client::registry::Registry;
use shuttle::future::block_on;
use shuttle::thread;
use tokio::sync::{Semaphore, watch};
use tokio_util::sync::CancellationToken;
use vectorsphere_index::{Metric, StorageType};
use vectorsphere_proto::keys::Keys;

use super::ShardMetrics;
use super::disk_stage::SharedDiskStage;
use super::interleavings::check;
use super::links::Links;
use super::memory::MemoryLedger;
use super::owner::{Ending, Owner};
use super::pace::Pace;
use super::records::Records;
use super::replica::Replica;
use super::step::{OwnerContext, employ};
use super::tests::TestMeta;
use super::write_room::WriteRoom;
use crate::cluster::HeldSession;
use crate::cluster::view::{self, ClusterView, ReplicaRole, Shard};
use crate::comm::{ChannelSettings, CommMetrics, CommunicationService};
use crate::document::{Document, Metadata};
use crate::ids::{
    DocumentId, Epoch, Lsn, NodeId, OpId, ReplicaId, Revision, Session, ShardId, ShardIndex, TableId,
};
use crate::replication::{EtcdPolicy, Timing};
use crate::runtime::TaskGroup;
use crate::runtime::disk::MemoryDisk;
use crate::runtime::network::Tcp;
use crate::storage::{Batch, Operation, ReplicaIdentity, ReplicaMeta, Store, StorePlace};

const SCHEDULES: usize = 500;
const CLIENTS: u64 = 3;
const WRITES: u64 = 2;
const EPOCH: Epoch = Epoch(1);
const SESSION: Session = Session(5);
const NOT_ON_DISK: &str = "what was acknowledged is not on the disk";
const REPLICA: ReplicaId = ReplicaId([1; 16]);

fn place(disk: &MemoryDisk) -> StorePlace {
    StorePlace { disk: Arc::new(disk.clone()), directory: PathBuf::from("r"), rows: Default::default() }
}

fn open(disk: &MemoryDisk) -> Store {
    let place = place(disk);
    let meta = ReplicaMeta::read(disk, &place.directory).expect("whole").expect("there");
    Store::open(place, meta).expect("whole").0
}

/// The owner of the only copy of a shard, which the record names as primary, and the copy.
fn employed(disk: &MemoryDisk, registry: &mut Registry, cancel: &CancellationToken) -> (Arc<Replica>, Owner) {
    let shard = ShardId { table: TableId::parse(&"0".repeat(32)).expect("a UUID"), index: ShardIndex(0) };
    let identity = ReplicaIdentity {
        cluster_uid: String::new(),
        shard,
        replica: REPLICA,
        dimension: 1,
        storage_type: StorageType::F32,
    };
    Store::format(&place(disk), identity).expect("fresh");
    let node = NodeId::parse("a").expect("valid");
    let copy = view::Replica {
        id: REPLICA,
        node: node.clone(),
        role: ReplicaRole::Full,
        damaged: false,
        replaces: None,
    };
    let record = Shard {
        id: shard,
        epoch: EPOCH,
        primary: Some(REPLICA),
        primary_session: SESSION,
        replicas: vec![copy],
        isr: vec![REPLICA],
        min_isr: 1,
        incarnation: 0,
        mod_revision: Revision(9),
    };
    let view = watch::channel(Arc::new(ClusterView::default())).1;
    let second = Duration::from_secs(1);
    let channels = ChannelSettings { connections: 1, keepalive_time: second, keepalive_timeout: second };
    let comm = CommunicationService::new(view.clone(), channels, Arc::new(Tcp), CommMetrics::default());
    let context = OwnerContext {
        shard,
        metric: Metric::L2,
        session: watch::channel(Some(HeldSession { session: SESSION, valid_until: Duration::MAX })).1,
        record: watch::channel(Arc::new(record)).1,
        records: Records { meta: Arc::new(TestMeta::default()), keys: Keys::of_service("t"), node, view },
        links: Arc::new(Links::new(Arc::new(comm), TaskGroup::new(CancellationToken::new()))),
        checkpoint_log_bytes: watch::channel(u64::MAX).1,
        checkpoint_permits: Arc::new(Semaphore::new(1)),
        index: None,
        index_permits: Arc::new(Semaphore::new(1)),
        catch_up_permits: Arc::new(Semaphore::new(1)),
        pace: Pace::new(1 << 30),
        disk_stage: SharedDiskStage::default(),
        memory: MemoryLedger::new(u64::MAX),
        policy: EtcdPolicy::Strict,
        timing: Timing::default(),
        predecessor_ended: true,
        tail_was_cut: false,
        metrics: ShardMetrics::register(registry),
        cancel: cancel.clone(),
    };
    employ(open(disk), context)
}

fn insert(id: &str) -> Batch {
    let id = DocumentId::parse(id).expect("valid");
    let document = Document { id, vector: vec![1.0], metadata: Metadata::empty() };
    let operations = vec![Operation::Upsert { document, if_version: None }];
    Batch { op_id: OpId::random(), base: None, operations }
}

/// What would be there if the power went now.
fn after_power_loss(disk: &MemoryDisk) -> Store {
    let other = MemoryDisk::new(1);
    other.restore(&disk.image());
    other.crash();
    open(&other)
}

/// Clients that write, each one document after the other. `lies`: syncs that say that they succeeded and do nothing.
fn scenario(lies: u64, shared_groups: &AtomicBool) {
    let (disk, cancel) = (MemoryDisk::new(1), CancellationToken::new());
    let mut registry = Registry::default();
    let (replica, owner) = employed(&disk, &mut registry, &cancel);
    let owner = thread::spawn(move || block_on(owner.run()));
    let mut state = replica.state.clone();
    // The reign has begun, and what begins it is on the disk.
    block_on(state.wait_for(|state| state.applied >= Lsn(1))).expect("the owner runs");
    disk.forget_syncs(lies);
    let clients = (0..CLIENTS).map(|client| {
        let (replica, disk) = (replica.clone(), disk.clone());
        thread::spawn(move || {
            let write = |number| write(&replica, &disk, &format!("{client}-{number}"));
            (0..WRITES).map(write).max().expect("some")
        })
    });
    let clients: Vec<_> = clients.collect();
    let ends: Vec<Lsn> = clients.into_iter().map(|client| client.join().expect("all was well")).collect();
    cancel.cancel();
    let ending = owner.join().expect("no panic").expect("the disk is well");
    assert!(matches!(ending, Ending::Cancelled));
    let store = open(&disk);
    // The record that begins the reign, and one for each write.
    assert_eq!(ends.iter().max(), Some(&Lsn(1 + CLIENTS * WRITES)));
    assert_eq!(store.reader().snapshot().lsn, Lsn(1 + CLIENTS * WRITES));
    let mut metrics = String::new();
    encode(&mut metrics, &registry).expect("text");
    let each_alone = format!("commit_batches_count {}\n", CLIENTS * WRITES);
    shared_groups.fetch_or(!metrics.contains(&each_alone), Ordering::Relaxed);
}

fn write(replica: &Replica, disk: &MemoryDisk, id: &str) -> Lsn {
    let room = WriteRoom::default().take(1).expect("empty");
    let receipt = block_on(replica.write(EPOCH, insert(id), room)).expect("written");
    assert!(replica.reader.snapshot().lsn >= receipt.lsn, "what was acknowledged is visible");
    let found = after_power_loss(disk);
    assert!(found.end() >= receipt.lsn, "{NOT_ON_DISK}");
    receipt.lsn
}

#[test]
fn what_is_acknowledged_is_on_the_disk_and_visible() {
    static SHARED_GROUPS: AtomicBool = AtomicBool::new(false);
    check(SCHEDULES, || scenario(0, &SHARED_GROUPS));
    assert!(SHARED_GROUPS.load(Ordering::Relaxed), "no two writes ever shared a sync");
}

#[test]
fn the_scenario_finds_a_sync_that_does_nothing() {
    static SHARED_GROUPS: AtomicBool = AtomicBool::new(false);
    let found = catch_unwind(|| check(SCHEDULES, || scenario(1, &SHARED_GROUPS)));
    let panic = found.expect_err("the mutant goes unnoticed");
    let why = panic.downcast_ref::<String>().expect("a message");
    assert!(why.contains(NOT_ON_DISK), "{why}");
}
