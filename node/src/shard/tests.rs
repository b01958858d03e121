//! One node's shards over a disk that fails and a metadata store in memory.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::future::BoxFuture;
use futures::stream::BoxStream;
use prometheus_client::registry::Registry;
use prost::Message as _;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tonic::Request;
use vectorsphere_index::{Kernels, Metric};
use vectorsphere_proto::internal::operation::Kind;
use vectorsphere_proto::internal::shard_service_server::ShardService;
use vectorsphere_proto::internal::{self as proto};
use vectorsphere_proto::keys::Keys;
use vectorsphere_proto::meta::{ClusterMeta, NodeRecord, Replica as ReplicaRecord, ReplicaRole, ShardRecord};

use super::*;
use crate::cluster::meta_store::{
    ChangeBatch, Condition, Entry, LeaseId, Listing, MetaError, Operation, Txn, TxnOutcome, WatchEnd,
};
use crate::cluster::view::ClusterView;
use crate::cluster::{HeldSession, MetaStore};
use crate::comm::{ChannelSettings, CommMetrics, CommunicationService};
use crate::document::vector_to_bytes;
use crate::error_code::{Error, ErrorCode};
use crate::ids::{
    Epoch, NodeId, OpId, ReplicaId, Revision, Session, ShardId, ShardIndex, TableId, TableName,
};
use crate::replication::{EtcdPolicy, Timing};
use crate::runtime::disk::{Disk, DiskOperation, MemoryDisk};
use crate::runtime::network::Tcp;
use crate::runtime::{ComputePool, TaskGroup};
use crate::storage::data_dir;
use crate::storage::segment::{RowCache, RowCacheMetrics};
use crate::table::{IndexKind, Table, TableSchema, TableState};

const NODE: &str = "node-0";
const PATIENCE: Duration = Duration::from_secs(20);

/// What replicas need of a metadata store: reads and guarded writes of single keys.
#[derive(Clone, Default)]
pub(super) struct TestMeta(Arc<Mutex<MetaState>>);

#[derive(Default)]
struct MetaState {
    entries: BTreeMap<String, Entry>,
    revision: i64,
    /// The next commit happens, but its answer is lost.
    loses_next_answer: bool,
}

impl TestMeta {
    fn put(&self, key: String, value: Vec<u8>, create_revision: Option<i64>) {
        let mut state = self.0.lock().expect("no panic");
        state.revision = create_revision.unwrap_or_default().max(state.revision + 1);
        let mod_revision = Revision(state.revision);
        let create_revision = create_revision.map_or(mod_revision, Revision);
        let entry =
            Entry { key: key.clone(), value: value.into(), create_revision, mod_revision, lease: None };
        state.entries.insert(key, entry);
    }
}

impl MetaState {
    fn holds(&self, condition: &Condition) -> bool {
        match condition {
            Condition::Absent(key) => !self.entries.contains_key(key),
            Condition::CreatedAt(key, at) => {
                self.entries.get(key).is_some_and(|entry| entry.create_revision == *at)
            }
            Condition::ModifiedAt(key, at) => {
                self.entries.get(key).is_some_and(|entry| entry.mod_revision == *at)
            }
        }
    }
}

fn unused<T>() -> Result<T, MetaError> {
    Err(MetaError::Refused("replicas do not need this".to_owned()))
}

impl MetaStore for TestMeta {
    fn get<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<Option<Entry>, MetaError>> {
        Box::pin(async move { Ok(self.0.lock().expect("no panic").entries.get(key).cloned()) })
    }

    fn list<'a>(&'a self, _prefix: &'a str) -> BoxFuture<'a, Result<Listing, MetaError>> {
        Box::pin(async { unused() })
    }

    fn commit<'a>(&'a self, txn: Txn) -> BoxFuture<'a, Result<TxnOutcome, MetaError>> {
        Box::pin(async move {
            let mut state = self.0.lock().expect("no panic");
            if !txn.conditions.iter().all(|condition| state.holds(condition)) {
                return Ok(TxnOutcome::ConditionFailed);
            }
            state.revision += 1;
            let revision = Revision(state.revision);
            for operation in txn.operations {
                let Operation::Put { key, value, .. } = operation else { return unused() };
                let entry = state.entries.get_mut(&key).expect("records are changed, not made");
                (entry.value, entry.mod_revision) = (value, revision);
            }
            if std::mem::take(&mut state.loses_next_answer) {
                return Err(MetaError::Unavailable("the answer was lost".to_owned()));
            }
            Ok(TxnOutcome::Committed(revision))
        })
    }

    fn watch<'a>(
        &'a self,
        _prefix: &'a str,
        _from: Revision,
    ) -> BoxFuture<'a, Result<BoxStream<'static, Result<ChangeBatch, WatchEnd>>, MetaError>> {
        Box::pin(async { unused() })
    }

    fn grant_lease<'a>(&'a self, _ttl: Duration) -> BoxFuture<'a, Result<LeaseId, MetaError>> {
        Box::pin(async { unused() })
    }

    fn keep_alive<'a>(&'a self, _lease: LeaseId) -> BoxFuture<'a, Result<bool, MetaError>> {
        Box::pin(async { unused() })
    }

    fn revoke_lease<'a>(&'a self, _lease: LeaseId) -> BoxFuture<'a, Result<(), MetaError>> {
        Box::pin(async { unused() })
    }
}

/// One table with one shard, placed on the node.
pub(super) struct World {
    pub(super) disk: MemoryDisk,
    meta: TestMeta,
    keys: Keys,
    shard: ShardId,
    view: watch::Sender<Arc<ClusterView>>,
    session: watch::Sender<Option<HeldSession>>,
    checkpoint_log_bytes: u64,
    pub(super) service: IndexService,
}

impl World {
    pub(super) fn new() -> World {
        let (keys, meta) = (Keys::of_service("test"), TestMeta::default());
        let cluster = ClusterMeta { cluster_uid: "cluster".to_owned(), ..ClusterMeta::default() };
        meta.put(keys.meta(), cluster.encode_to_vec(), None);
        let (disk, view, session) = (MemoryDisk::new(1), watch::Sender::default(), watch::Sender::default());
        let service = start(&disk, &meta, &keys, &view, &session, u64::MAX);
        let shard = ShardId { table: TableId::random(), index: ShardIndex(0) };
        let world = World { disk, meta, keys, shard, view, session, checkpoint_log_bytes: u64::MAX, service };
        world.place(shard);
        world.begin_session(100);
        world.show();
        world
    }

    /// A node that begins a checkpoint when its log has this size.
    pub(super) async fn with_checkpoints_of(log_bytes: u64) -> World {
        let mut world = World::new();
        world.checkpoint_log_bytes = log_bytes;
        world.restart(200).await;
        world
    }

    /// Waits until the shard is led; the epoch.
    pub(super) async fn leads(&self) -> u64 {
        self.until("led", |world| world.state().is_ok_and(|state| state.leads.is_some())).await;
        self.state().expect("open").leads.expect("led").0
    }

    /// The node's process ends, and another one starts.
    async fn restart(&mut self, session: i64) {
        self.service.stop().await;
        self.session = watch::Sender::default();
        self.service =
            start(&self.disk, &self.meta, &self.keys, &self.view, &self.session, self.checkpoint_log_bytes);
        self.begin_session(session);
        self.show();
    }

    /// Makes the records of a shard that was placed on the node, and of its table.
    fn place(&self, shard: ShardId) {
        let replica = ReplicaRecord {
            replica_id: ReplicaId::random().0.to_vec(),
            node_id: NODE.to_owned(),
            role: ReplicaRole::Learner.into(),
            ..ReplicaRecord::default()
        };
        let record = ShardRecord { replicas: vec![replica], min_isr: 1, ..ShardRecord::default() };
        self.meta.put(self.keys.shard(&shard.table.to_string(), 0), record.encode_to_vec(), None);
        self.put_table(shard.table, TableState::Active);
    }

    fn put_table(&self, id: TableId, state: TableState) {
        let schema = TableSchema {
            name: TableName::parse(&format!("t{id}")).expect("valid"),
            dimension: 2,
            metric: Metric::L2,
            storage_type: Default::default(),
            rows: Default::default(),
            index: IndexKind::Flat,
            shards: 1,
            replicas: 1,
            min_isr: 1,
            metadata_indexes: Default::default(),
            unknown_indexes: Default::default(),
            tenant_key: None,
        };
        let record = Table { id, schema, state }.to_record();
        self.meta.put(self.keys.table(&id.to_string()), record.encode_to_vec(), None);
    }

    fn begin_session(&self, session: i64) {
        let node = NodeRecord { node_id: NODE.to_owned(), ..NodeRecord::default() };
        self.meta.put(self.keys.node(NODE), node.encode_to_vec(), Some(session));
        self.show();
        self.hold_session(session, Duration::MAX);
    }

    fn hold_session(&self, session: i64, valid_until: Duration) {
        self.session.send_replace(Some(HeldSession { session: Session(session), valid_until }));
    }

    fn record(&self) -> (ShardRecord, Revision) {
        let state = self.meta.0.lock().expect("no panic");
        let entry = &state.entries[&self.keys.shard(&self.shard.table.to_string(), 0)];
        (ShardRecord::decode(entry.value.clone()).expect("a record"), entry.mod_revision)
    }

    /// Lets the node see what the metadata store says.
    fn show(&self) {
        let state = self.meta.0.lock().expect("no panic");
        let mut view = ClusterView { revision: Revision(state.revision), ..ClusterView::default() };
        for (key, entry) in &state.entries {
            view.put(&self.keys, key, &entry.value, entry.create_revision, entry.mod_revision)
                .expect("readable");
        }
        self.view.send_replace(Arc::new(view));
    }

    pub(super) fn shard_ref(&self, epoch: u64) -> Option<proto::ShardRef> {
        Some(proto::ShardRef { table_id: self.shard.table.to_string(), shard: 0, epoch })
    }

    pub(super) async fn write(&self, epoch: u64, kind: Kind) -> Result<proto::WriteResponse, tonic::Status> {
        let request = proto::WriteRequest {
            shard: self.shard_ref(epoch),
            op_id: OpId::random().0.to_vec().into(),
            operations: vec![proto::Operation { kind: Some(kind), if_version: None }],
            base_lsn: 0,
        };
        Ok(self.service.write(Request::new(request)).await?.into_inner())
    }

    async fn get(&self, epoch: u64, id: &str) -> Result<Option<Vec<u8>>, tonic::Status> {
        self.get_by(strong(), epoch, id).await
    }

    async fn get_by(
        &self,
        rule: Option<proto::ReadRule>,
        epoch: u64,
        id: &str,
    ) -> Result<Option<Vec<u8>>, tonic::Status> {
        let (shard, id) = (self.shard_ref(epoch), id.to_owned());
        let request = proto::GetRequest { shard, id, with_vector: true, rule };
        let answer = self.service.get(Request::new(request)).await?.into_inner();
        Ok(answer.document.map(|document| document.vector.to_vec()))
    }

    /// Ids of the nearest documents to `vector`.
    async fn search(&self, epoch: u64, vector: [f32; 2], top_k: u32) -> proto::ShardAnswer {
        let request = proto::SearchRequest {
            parts: vec![proto::ShardPart { shard: self.shard_ref(epoch), rule: session() }],
            vector: vector_to_bytes(&vector),
            top_k,
            ..proto::SearchRequest::default()
        };
        let answer = self.service.search(Request::new(request)).await.expect("each part answers for itself");
        answer.into_inner().answers.remove(0)
    }

    async fn until(&self, what: &str, is_so: impl Fn(&World) -> bool) {
        let waiting = async {
            while !is_so(self) {
                self.show();
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        };
        if tokio::time::timeout(PATIENCE, waiting).await.is_err() {
            panic!("not {what}: {:?}", self.state());
        }
    }

    pub(super) fn state(&self) -> Result<replica::ReplicaState, Error> {
        self.service.replica(self.shard).map(|replica| replica.state())
    }

    pub(super) async fn until_led(&self, epoch: u64) {
        let what = format!("led in epoch {epoch}");
        self.until(&what, |world| world.state().is_ok_and(|state| state.leads == Some(Epoch(epoch)))).await;
    }
}

fn start(
    disk: &MemoryDisk,
    meta: &TestMeta,
    keys: &Keys,
    view: &watch::Sender<Arc<ClusterView>>,
    session: &watch::Sender<Option<HeldSession>>,
    checkpoint_log_bytes: u64,
) -> IndexService {
    let second = Duration::from_secs(1);
    let channels = ChannelSettings { connections: 1, keepalive_time: second, keepalive_timeout: second };
    let parts = IndexServiceParts {
        disk: Arc::new(disk.clone()),
        node_id: NodeId::parse(NODE).expect("valid"),
        meta: Arc::new(meta.clone()),
        keys: keys.clone(),
        view: view.subscribe(),
        session: session.subscribe(),
        kernels: Kernels::detect(None).expect("there is one"),
        compute: ComputePool::new(2),
        row_cache: RowCache::new(1 << 20, RowCacheMetrics::default()),
        settings: ShardSettings {
            memory: MemoryLedger::new(u64::MAX),
            checkpoint_log_bytes: watch::channel(checkpoint_log_bytes).1,
            disk_thresholds: DiskThresholds::default(),
            policy: EtcdPolicy::Strict,
            timing: Timing::default(),
            leaving_grace: Duration::ZERO,
            catch_up_bytes_per_second: 1 << 30,
            predecessor_ended: true,
        },
        comm: Arc::new(CommunicationService::new(
            view.subscribe(),
            channels,
            Arc::new(Tcp),
            CommMetrics::default(),
        )),
        metrics: ShardMetrics::register(&mut Registry::default()),
    };
    IndexService::start(parts, TaskGroup::new(CancellationToken::new()))
}

pub(super) fn upsert(id: &str, x: f32) -> Kind {
    let vector = vector_to_bytes(&[x, 0.0]);
    Kind::Upsert(proto::Document { id: id.to_owned(), vector, metadata: Default::default() })
}

pub(super) fn code(status: &tonic::Status) -> i32 {
    status.code() as i32
}

/// A read that only the primary may answer.
pub(super) fn strong() -> Option<proto::ReadRule> {
    Some(proto::ReadRule { level: proto::Level::Strong.into(), ..proto::ReadRule::default() })
}

/// A read that any copy in sync may answer.
fn session() -> Option<proto::ReadRule> {
    Some(proto::ReadRule { level: proto::Level::Session.into(), ..proto::ReadRule::default() })
}

#[tokio::test]
async fn a_fresh_shard_is_claimed_written_and_searched() {
    let world = World::new();
    world.until_led(1).await;
    let (record, _) = world.record();
    let replica = &record.replicas[0];
    assert_eq!((record.epoch, record.primary_session), (1, 100));
    assert_eq!((&record.primary, &record.isr), (&replica.replica_id, &vec![replica.replica_id.clone()]));
    assert_eq!(replica.role(), ReplicaRole::Full);

    for (id, x) in [("a", 3.0), ("b", 1.0), ("c", 1.0)] {
        let answer = world.write(1, upsert(id, x)).await.expect("written");
        assert_eq!((answer.affected, answer.durable_copies), (1, 1));
    }
    let answer = world.search(1, [0.0, 0.0], 2).await;
    let hits: Vec<_> = answer.hits.iter().map(|hit| (hit.id.as_str(), hit.score)).collect();
    assert_eq!(hits, [("b", 1.0), ("c", 1.0)]);
    assert_eq!(world.write(1, Kind::Delete("b".to_owned())).await.expect("written").affected, 1);
    assert_eq!(world.write(1, Kind::Delete("b".to_owned())).await.expect("written").affected, 0);
    assert_eq!(world.search(1, [0.0, 0.0], 1).await.hits[0].id, "c");
    let missing = Kind::SetMetadata(proto::SetMetadata { id: "b".to_owned(), metadata: Default::default() });
    let refused = world.write(1, missing).await.expect_err("there is no b");
    assert_eq!(code(&refused), ErrorCode::DocumentNotFound.grpc_status());
    world.service.stop().await;
}

#[tokio::test]
async fn a_new_process_takes_a_new_epoch_and_has_every_document() {
    let mut world = World::new();
    world.until_led(1).await;
    world.write(1, upsert("a", 1.0)).await.expect("written");
    for round in 2..5u64 {
        world.restart(100 + round as i64).await;
        world.until_led(round).await;
        let stale = world.get(round - 1, "a").await.expect_err("an old epoch");
        assert_eq!(code(&stale), ErrorCode::NotPrimary.grpc_status());
        assert!(stale.message().contains(&format!("epoch {round}")), "{stale}");
        assert_eq!(world.get(round, "a").await.expect("read"), Some(vector_to_bytes(&[1.0, 0.0]).to_vec()));
    }
}

#[tokio::test]
async fn without_a_session_writes_are_refused_and_reads_go_on() {
    let world = World::new();
    world.until_led(1).await;
    world.write(1, upsert("a", 1.0)).await.expect("written");
    world.session.send_replace(None);
    let refused = world.write(1, upsert("b", 1.0)).await.expect_err("no session");
    assert_eq!(code(&refused), ErrorCode::ShardUnavailable.grpc_status());
    assert!(world.get_by(session(), 1, "a").await.expect("read").is_some());
    assert_eq!(world.search(1, [0.0, 0.0], 9).await.hits.len(), 1);
    assert!(world.get(1, "a").await.is_err(), "another process may lead by now");
    world.begin_session(200);
    world.until_led(2).await;
    world.write(2, upsert("b", 1.0)).await.expect("written");
}

#[tokio::test]
async fn a_claim_whose_answer_was_lost_is_found_in_the_record() {
    let world = World::new();
    world.meta.0.lock().expect("no panic").loses_next_answer = true;
    world.until("led", |world| world.state().is_ok_and(|state| state.leads.is_some())).await;
    let (record, _) = world.record();
    assert_eq!(world.state().expect("open").epoch, Epoch(record.epoch));
    world.write(record.epoch, upsert("a", 1.0)).await.expect("written");
}

#[tokio::test]
async fn a_lost_directory_is_never_made_again() {
    let mut world = World::new();
    world.until_led(1).await;
    world.write(1, upsert("a", 1.0)).await.expect("written");
    world.service.stop().await;
    world.disk = MemoryDisk::new(2);
    world.restart(200).await;
    let is_damaged = |world: &World| world.state().is_err_and(|error| error.code == ErrorCode::ShardDamaged);
    world.until("damaged", is_damaged).await;
    let answer = world.search(1, [0.0, 0.0], 1).await;
    let failure = answer.failure.expect("no hits");
    assert_eq!(failure.code, "shard_damaged");
    assert!(failure.message.contains("is missing from this node's disk"), "{}", failure.message);
    assert_eq!(world.record().0.epoch, 1, "nothing was claimed");
    assert!(world.disk.files().iter().all(|file| !file.starts_with("shards")), "nothing was made");
}

#[tokio::test]
async fn a_flipped_bit_makes_the_shard_refuse_itself() {
    let mut world = World::new();
    world.until_led(1).await;
    world.write(1, upsert("a", 1.0)).await.expect("written");
    world.service.stop().await;
    let is_log = |path: &&std::path::PathBuf| path.extension().is_some_and(|kind| kind == "log");
    let files = world.disk.files();
    let log = files.iter().find(is_log).expect("there is a log");
    world.disk.flip_bit(log, 80, 3);
    world.restart(200).await;
    let is_damaged = |world: &World| world.state().is_err_and(|error| error.code == ErrorCode::ShardDamaged);
    world.until("damaged", is_damaged).await;
}

#[tokio::test]
async fn a_table_that_is_being_deleted_takes_its_data_along_and_an_absent_one_does_not() {
    let mut world = World::new();
    world.until_led(1).await;
    world.write(1, upsert("a", 1.0)).await.expect("written");
    let has_data = |world: &World, shard: ShardId| {
        let directory = data_dir::table_directory(shard);
        world.disk.files().iter().any(|file| file.starts_with(&directory))
    };

    // The table's record is absent. When the node has opened a shard that was placed later, it has seen that.
    let key = world.keys.table(&world.shard.table.to_string());
    world.meta.0.lock().expect("no panic").entries.remove(&key);
    let other = ShardId { table: TableId::random(), index: ShardIndex(0) };
    world.place(other);
    world.restart(200).await;
    world.until("opened", |world| world.service.replica(other).is_ok()).await;
    assert!(world.state().is_err() && has_data(&world, world.shard), "a record that is absent says nothing");

    world.put_table(world.shard.table, TableState::Deleting);
    world.until("withdrawn", |world| world.record().0.replicas.is_empty()).await;
    assert!(!has_data(&world, world.shard) && has_data(&world, other));
    let (record, _) = world.record();
    assert!(record.primary.is_empty() && record.isr.is_empty());
    world.until("gone", |world| world.state().is_err_and(|error| error.code == ErrorCode::NotPrimary)).await;
    let tables = world.disk.list(Path::new("shards")).expect("listed");
    assert_eq!(tables, [other.table.to_string()], "nothing is left of it");
}

#[tokio::test]
async fn after_a_failed_sync_the_replica_is_opened_again_in_a_new_epoch() {
    let world = World::new();
    world.until_led(1).await;
    world.write(1, upsert("a", 1.0)).await.expect("written");
    world.disk.fail_next(DiskOperation::Sync, io::ErrorKind::Other);
    let unknown = world.write(1, upsert("b", 1.0)).await.expect_err("the disk failed");
    assert_eq!(code(&unknown), ErrorCode::OutcomeUnknown.grpc_status());
    world.until_led(2).await;
    assert!(world.get(2, "a").await.expect("read").is_some());
    world.write(2, upsert("b", 2.0)).await.expect("written");
    assert_eq!(world.get(2, "b").await.expect("read"), Some(vector_to_bytes(&[2.0, 0.0]).to_vec()));
}

#[tokio::test]
async fn a_volume_that_is_nearly_full_takes_deletes_only() {
    let world = World::new();
    world.until_led(1).await;
    let metadata = format!("{{\"text\":\"{}\"}}", "x".repeat(200_000)).into();
    let vector = vector_to_bytes(&[1.0, 0.0]);
    let large = proto::Document { id: "a".to_owned(), vector, metadata };
    world.write(1, Kind::Upsert(large)).await.expect("written");
    let used = world.disk.space().expect("known");
    let used = used.capacity_bytes - used.free_bytes;
    world.disk.set_capacity(used + used / 30);
    let replica = world.service.replica(world.shard).expect("open");
    world.until("full", |_| replica.disk.get() == DiskStage::Refuse).await;
    let refused = world.write(1, upsert("b", 1.0)).await.expect_err("full");
    assert_eq!(code(&refused), ErrorCode::DiskFull.grpc_status());
    assert!(world.state().expect("open").leads.is_some(), "nothing was appended, nothing failed");
    assert_eq!(world.write(1, Kind::Delete("a".to_owned())).await.expect("written").affected, 1);
    world.disk.set_capacity(1 << 40);
    world.until("roomy", |_| replica.disk.get() == DiskStage::Normal).await;
    world.write(1, upsert("b", 1.0)).await.expect("written");
}

#[tokio::test]
async fn searches_and_checkpoints_go_on_while_documents_are_written() {
    let world = World::with_checkpoints_of(20_000).await;
    let epoch = world.leads().await;
    let world = &world;
    let writes = async {
        for round in 0..40 {
            let batch =
                (0..25).map(|number| world.write(epoch, upsert(&format!("id{number}"), round as f32)));
            for answer in futures::future::join_all(batch).await {
                answer.expect("written");
            }
        }
    };
    let searches = async {
        let mut found = 0;
        for _ in 0..200 {
            let answer = world.search(epoch, [0.0, 0.0], 100).await;
            assert!(answer.failure.is_none() && answer.hits.len() >= found, "documents are only replaced");
            found = answer.hits.len();
            let mut ids: Vec<_> = answer.hits.iter().map(|hit| &hit.id).collect();
            ids.sort();
            ids.dedup();
            assert_eq!(ids.len(), found, "one version of each");
            tokio::task::yield_now().await;
        }
    };
    futures::future::join(writes, searches).await;
    let log_is_short = |world: &World| {
        world
            .service
            .replica(world.shard)
            .is_ok_and(|replica| replica.statistics().segments <= 10 && replica.state().disk_bytes < 60_000)
    };
    world.until("checkpointed", log_is_short).await;
    let answer = world.search(epoch, [0.0, 0.0], 100).await;
    assert!(answer.hits.iter().all(|hit| hit.score == 39.0) && answer.hits.len() == 25);
    world.service.stop().await;
}

/// Steps: the session's time is over before its task says so, as after a pause of the machine: no write is taken. The
/// session goes on: writes are.
#[tokio::test]
async fn a_session_whose_time_is_over_takes_no_writes() {
    let world = World::new();
    world.until_led(1).await;
    world.hold_session(100, Duration::ZERO);
    let refused = world.write(1, upsert("a", 1.0)).await.expect_err("the session is not certain");
    assert_eq!(code(&refused), ErrorCode::ShardUnavailable.grpc_status());
    assert_eq!(world.get_by(session(), 1, "a").await.expect("readable"), None, "nothing was appended");
    world.hold_session(100, Duration::MAX);
    world.write(1, upsert("a", 1.0)).await.expect("written");
    world.service.stop().await;
}
