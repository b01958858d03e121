//! Reads of a [`Replica`] beside its owner, under many schedules of their steps.

use std::panic::catch_unwind;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use shuttle::future::block_on;
use shuttle::thread;
use tokio::sync::{mpsc, watch};
use tokio::time::timeout;
use vectorsphere_index::{Metric, StorageType};

use super::disk_stage::SharedDiskStage;
use super::memory::MemoryLedger;
use super::replica::{ReadRule, Replica, ReplicaState, SharedGrant};
use super::segment_indexes::SegmentIndexes;
use crate::document::{Document, Metadata};
use crate::error_code::ErrorCode;
use crate::ids::{DocumentId, Epoch, Lsn, OpId, ReplicaId, ShardId, ShardIndex, TableId};
use crate::replication::Grant;
use crate::runtime::disk::MemoryDisk;
use crate::runtime::sync::explore;
use crate::search::Consistency;
use crate::storage::{Batch, Operation, ReplicaIdentity, ReplicaMeta, Store, StorePlace};

const SCHEDULES: usize = 2_000;
const EPOCH: Epoch = Epoch(1);
const GROUPS: u64 = 3;
/// The record that begins the reign is the first one; each group has one more.
const LAST: Lsn = Lsn(1 + GROUPS);

/// What an owner shares with readers, and a client's knowledge of what was acknowledged.
struct Owner {
    store: Store,
    state: watch::Sender<ReplicaState>,
    grant: SharedGrant,
    acknowledged: Arc<AtomicU64>,
}

fn employ() -> (Owner, Arc<Replica>) {
    let disk = MemoryDisk::new(1);
    let place =
        StorePlace { disk: Arc::new(disk.clone()), directory: PathBuf::from("r"), rows: Default::default() };
    let shard = ShardId { table: TableId::random(), index: ShardIndex(0) };
    let id = ReplicaId([1; 16]);
    let identity = ReplicaIdentity {
        cluster_uid: String::new(),
        shard,
        replica: id,
        dimension: 1,
        storage_type: StorageType::F32,
    };
    Store::format(&place, identity).expect("fresh");
    let meta = ReplicaMeta::read(&disk, &place.directory).expect("whole").expect("there");
    let (mut store, _) = Store::open(place, meta).expect("whole");
    store.promise(EPOCH).expect("well");
    store.start_epoch(EPOCH).expect("well");
    store.sync().expect("well");
    let state = ReplicaState {
        epoch: EPOCH,
        leads: Some(EPOCH),
        in_sync: true,
        has_enough_others: false,
        fresh: None,
        incarnation: 0,
        applied: store.apply(store.end()).expect("rows can be read"),
        disk_bytes: 0,
        failure: None,
    };
    let (state, receiver) = watch::channel(state);
    let grant = SharedGrant::default();
    grant.set(Some(Grant { epoch: EPOCH, start: store.end(), until: Duration::MAX }));
    let replica = Replica {
        shard,
        id,
        dimension: 1,
        storage_type: StorageType::F32,
        memory: MemoryLedger::new(u64::MAX),
        metric: Metric::L2,
        reader: store.reader(),
        indexes: SegmentIndexes::default(),
        state: receiver,
        grant: grant.clone(),
        // Nobody takes requests: a read that needs a confirmation is refused.
        writes: mpsc::channel(1).0,
        mailbox: mpsc::channel(1).0,
        disk: SharedDiskStage::default(),
    };
    let acknowledged = Arc::new(AtomicU64::new(store.end().0));
    (Owner { store, state, grant, acknowledged }, Arc::new(replica))
}

impl Owner {
    /// Makes a group durable whose document has the group's position as its value.
    fn write(&mut self) {
        let id = DocumentId::parse("a").expect("valid");
        let document =
            Document { id, vector: vec![self.store.end().next().0 as f32], metadata: Metadata::empty() };
        let operations = vec![Operation::Upsert { document, if_version: None }];
        let batch = Batch { op_id: OpId::random(), base: None, operations };
        self.store.stage(EPOCH, vec![batch]).expect("well");
        self.store.sync().expect("well");
    }

    fn apply(&mut self) {
        self.store.apply(self.store.end()).expect("rows can be read");
    }

    fn tell_state(&self) {
        // Outside of the lock of the channel: nobody goes on while that is held.
        let applied = self.store.end();
        self.state.send_modify(|state| state.applied = applied);
    }

    fn acknowledge(&self) {
        self.acknowledged.store(self.store.end().0, Ordering::Relaxed);
    }
}

/// A primary that had just begun told bounded readers that it is up to date, before it had applied what others had
/// acknowledged.
#[test]
fn a_new_primary_is_up_to_date_when_it_has_applied_the_beginning_of_its_reign() {
    explore(2, || {
        let (mut owner, replica) = employ();
        assert_eq!(replica.staleness(), Some(Duration::ZERO));
        owner.write();
        owner.grant.set(Some(Grant { epoch: EPOCH, start: owner.store.end(), until: Duration::MAX }));
        assert_eq!(replica.staleness(), None, "committed, but not applied");
        owner.apply();
        owner.tell_state();
        assert_eq!(replica.staleness(), Some(Duration::ZERO));
    });
}

/// What an owner does with a group that is durable.
type Commit = fn(&mut Owner);

fn in_order(owner: &mut Owner) {
    owner.apply();
    owner.tell_state();
    owner.acknowledge();
}

/// Sessions that have seen what was acknowledged, and one that asks for a position which is to come.
fn sessions(commit: Commit) {
    let (mut owner, replica) = employ();
    let read = |replica: Arc<Replica>, wanted: Lsn| {
        let rule = ReadRule { consistency: Consistency::Session, min_lsn: wanted, incarnation: 0 };
        let snapshot = block_on(replica.snapshot(EPOCH, rule)).expect("the position comes");
        assert!(snapshot.lsn >= wanted, "a search sees what the session saw");
        let found = block_on(replica.get(EPOCH, rule, "a", true)).expect("the position comes");
        let value = found.map_or(1.0, |(document, _)| document.vector[0]);
        assert!(value >= wanted.0 as f32, "a look-up sees what the session saw");
    };
    let (patient, acknowledged) = (replica.clone(), owner.acknowledged.clone());
    let readers = [
        thread::spawn(move || read(patient, LAST)),
        thread::spawn(move || {
            for _ in 0..2 {
                read(replica.clone(), Lsn(acknowledged.load(Ordering::Relaxed)));
            }
        }),
    ];
    for _ in 0..GROUPS {
        owner.write();
        commit(&mut owner);
    }
    for reader in readers {
        reader.join().expect("it saw what it must");
    }
}

/// Strong reads while this copy leads, and when another one leads and acknowledges what is not here.
fn strong_reads(resign: Commit) {
    let (mut owner, replica) = employ();
    let acknowledged = owner.acknowledged.clone();
    let reader = thread::spawn(move || {
        let rule = ReadRule { consistency: Consistency::Strong, min_lsn: Lsn::ZERO, incarnation: 0 };
        // Until this copy leads no more.
        loop {
            let before = Lsn(acknowledged.load(Ordering::Relaxed));
            let Ok(snapshot) = block_on(replica.snapshot(EPOCH, rule)) else { break };
            assert!(snapshot.lsn >= before, "a search misses what was acknowledged before it");
            let before = Lsn(acknowledged.load(Ordering::Relaxed));
            let Ok(found) = block_on(replica.get(EPOCH, rule, "a", true)) else { break };
            let value = found.map_or(1.0, |(document, _)| document.vector[0]);
            assert!(value >= before.0 as f32, "a look-up misses what was acknowledged before it");
        }
    });
    for _ in 0..GROUPS {
        owner.write();
        in_order(&mut owner);
    }
    resign(&mut owner);
    reader.join().expect("it saw what it must");
}

fn resign_in_order(owner: &mut Owner) {
    owner.grant.set(None);
    owner.acknowledged.store(u64::MAX, Ordering::Relaxed);
    owner.state.send_modify(|state| state.leads = None);
}

#[test]
fn a_session_sees_what_it_saw() {
    check(SCHEDULES, || sessions(in_order));
}

#[test]
fn a_strong_read_that_is_answered_misses_nothing() {
    check(SCHEDULES, || strong_reads(resign_in_order));
}

#[test]
fn the_scenario_finds_an_owner_that_tells_its_state_before_it_applies() {
    let found = catch_unwind(|| {
        check(SCHEDULES, || {
            sessions(|owner| {
                owner.tell_state();
                owner.apply();
                owner.acknowledge();
            });
        });
    });
    found.expect_err("the mutant goes unnoticed");
}

#[test]
fn the_scenario_finds_a_grant_that_outlives_the_reign() {
    let found = catch_unwind(|| {
        check(SCHEDULES, || {
            strong_reads(|owner| {
                owner.acknowledged.store(u64::MAX, Ordering::Relaxed);
                owner.grant.set(None);
            });
        });
    });
    found.expect_err("the mutant goes unnoticed");
}

#[tokio::test(start_paused = true)]
async fn who_asks_an_owner_that_has_ended_is_told_so() {
    let (_, replica) = employ();
    let answer = timeout(Duration::from_secs(3600), replica.describe()).await.expect("at once");
    assert_eq!(answer.expect_err("nobody is there").code, ErrorCode::ShardUnavailable);
}

/// Reads have time limits, and owners timers, so they need a runtime; it stands still, and no time is ever over. It is never
/// ended: that would wake what a schedule that failed has left.
pub(super) fn check(schedules: usize, scenario: impl Fn() + Send + Sync + Copy + 'static) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("started");
    let _entered = Box::leak(Box::new(runtime)).enter();
    explore(schedules, scenario);
}
