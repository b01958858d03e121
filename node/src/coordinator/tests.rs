//! Table changes over an embedded store, with slaves that exist in the metadata alone.

use std::sync::Arc;

use vectorsphere_index::Metric;

use super::*;
use crate::cluster::ClusterMetrics;
use crate::cluster::meta_store::EmbeddedStore;
use crate::cluster::view::{Drain, Replica};
use crate::comm::{ChannelSettings, CommMetrics};
use crate::filter::KeyPath;
use crate::filter::index::{FIELDS_MAX, FieldKind};
use crate::ids::{Epoch, ShardIndex};
use crate::runtime::TaskGroup;
use crate::runtime::network::Tcp;
use crate::table::IndexKind;

const PATIENCE: Duration = Duration::from_secs(20);
const SLAVES: u32 = 4;

/// A Master and its view, and what it decides by.
struct World {
    meta: Arc<dyn MetaStore>,
    keys: Keys,
    discovery: Arc<ServiceDiscovery>,
    coordinator: Arc<Coordinator>,
    tasks: TaskGroup,
    role: watch::Sender<Role>,
    _folder: tempfile::TempDir,
}

impl World {
    /// The coordinator's loop runs only when it is asked to.
    async fn new() -> World {
        let folder = tempfile::tempdir().expect("a folder");
        let meta: Arc<dyn MetaStore> = Arc::new(EmbeddedStore::open(folder.path()).expect("opens"));
        let keys = Keys::of_service("tables");
        let election = keys.master(1);
        let mut last = put(&*meta, election.clone(), Vec::new()).await;
        let (role, role_seen) = watch::channel(Role::Master { epoch: Epoch(last.0 as u64), key: election });
        for number in 0..SLAVES {
            let node_id = format!("slave-{number}");
            let node_type = "slave".to_owned();
            let key = keys.node(&node_id);
            let record = meta::NodeRecord { node_id, node_type, ..meta::NodeRecord::default() };
            last = put(&*meta, key, record.encode_to_vec()).await;
        }
        let discovery =
            Arc::new(ServiceDiscovery::new(meta.clone(), keys.clone(), ClusterMetrics::default()));
        let channels = ChannelSettings {
            connections: 1,
            keepalive_time: Duration::from_secs(30),
            keepalive_timeout: Duration::from_secs(5),
        };
        let comm =
            CommunicationService::new(discovery.subscribe(), channels, Arc::new(Tcp), CommMetrics::default());
        let coordinator = Arc::new(Coordinator::new(
            meta.clone(),
            keys.clone(),
            discovery.clone(),
            Arc::new(comm),
            role_seen,
            StepBack::default(),
            || Duration::from_secs(600),
        ));
        let tasks = TaskGroup::new(CancellationToken::new());
        let (following, cancel) = (discovery.clone(), tasks.cancellation().clone());
        tasks.spawn("discovery", async move { following.run(cancel).await });
        assert!(discovery.await_revision(last, Instant::now() + PATIENCE).await);
        World { meta, keys, discovery, coordinator, tasks, role, _folder: folder }
    }

    fn run(&self) {
        let (coordinator, cancel) = (self.coordinator.clone(), self.tasks.cancellation().clone());
        self.tasks.spawn("coordinator", async move { coordinator.run(cancel).await });
    }

    async fn sees(&self, what: &str, is_so: impl Fn(&ClusterView) -> bool) -> Arc<ClusterView> {
        let mut view = self.discovery.subscribe();
        match tokio::time::timeout(PATIENCE, view.wait_for(|view| is_so(view))).await {
            Ok(seen) => seen.expect("discovery runs").clone(),
            Err(_) => panic!("not {what}"),
        }
    }

    /// Does what the slaves would do: every placed shard gets its primary.
    async fn serve_all(&self, id: TableId, shards: u32) {
        let placed = self.sees("placed", |view| view.shards_of(id).count() == shards as usize).await;
        for shard in placed.shards_of(id) {
            let Replica { id: replica, node, .. } = &shard.replicas[0];
            let record = meta::ShardRecord {
                epoch: 1,
                primary: replica.0.to_vec(),
                isr: vec![replica.0.to_vec()],
                ..fresh_record(std::slice::from_ref(node), 1)
            };
            let record = meta::ShardRecord {
                replicas: vec![meta::Replica {
                    replica_id: replica.0.to_vec(),
                    ..record.replicas[0].clone()
                }],
                ..record
            };
            put(&*self.meta, self.keys.shard(&id.to_string(), shard.id.index.0), record.encode_to_vec())
                .await;
        }
    }

    async fn stored_state(&self, id: TableId) -> Option<TableState> {
        let stored = self.coordinator.stored_table(id).await.expect("readable");
        stored.map(|(table, _)| table.state)
    }
}

async fn put(meta: &dyn MetaStore, key: String, value: Vec<u8>) -> Revision {
    let operations = vec![Operation::Put { key, value: value.into(), lease: None }];
    match meta.commit(Txn { conditions: Vec::new(), operations }).await.expect("committed") {
        TxnOutcome::Committed(revision) => revision,
        TxnOutcome::ConditionFailed => panic!("there is no condition"),
    }
}

fn schema(shards: u32) -> TableSchema {
    TableSchema {
        name: TableName::parse("docs").expect("valid"),
        dimension: 4,
        metric: Metric::L2,
        storage_type: Default::default(),
        rows: Default::default(),
        index: IndexKind::Flat,
        shards,
        replicas: 1,
        min_isr: 1,
        metadata_indexes: Default::default(),
        unknown_indexes: Default::default(),
        tenant_key: None,
    }
}

fn soon() -> Instant {
    Instant::now() + PATIENCE
}

/// Steps: a table of several batches of shards: they are spread evenly; when all are served, the create returns. Again with
/// the same id: it returns the same table; with another id: the name is taken.
#[tokio::test]
async fn shards_are_spread_and_a_repeated_create_is_the_same_one() {
    let world = World::new().await;
    world.run();
    let (id, shards) = (TableId::random(), 64);
    let (created, ()) = tokio::join!(
        world.coordinator.create_table(id, schema(shards), soon()),
        world.serve_all(id, shards),
    );
    assert_eq!(created.expect("created").state, TableState::Active);
    let view = world.discovery.view();
    for node in view.nodes.keys() {
        let held = view.shards_of(id).filter(|shard| shard.replicas[0].node == *node).count();
        assert_eq!(held, (shards / SLAVES) as usize, "{node}");
    }
    let again = world.coordinator.create_table(id, schema(shards), soon()).await.expect("the same one");
    assert_eq!(again.id, id);
    let other = world.coordinator.create_table(TableId::random(), schema(shards), soon()).await;
    assert_eq!(other.expect_err("taken").code, ErrorCode::TableAlreadyExists);
}

/// Steps: all shards are served, and the table is deleted before the loop has looked: the old view makes nothing active, and
/// gives no shard to a node.
#[tokio::test]
async fn a_view_from_before_a_deletion_decides_nothing() {
    let world = World::new().await;
    let id = TableId::random();
    let table = Table { id, schema: schema(2), state: TableState::Creating };
    let guard = world.coordinator.guard().expect("Master");
    world.coordinator.write_table(&table, &guard).await.expect("written");
    let empty = world.sees("created", |view| view.tables_by_id.contains_key(&id)).await;
    world
        .coordinator
        .settle(&empty, &Detection::default())
        .await
        .expect("placed")
        .expect("something changed");
    world.serve_all(id, 2).await;
    let served = |view: &ClusterView| view.shards_of(id).filter(|shard| shard.primary.is_some()).count() == 2;
    let served = world.sees("served", served).await;
    let deleting = Table { state: TableState::Deleting, ..table };
    put(&*world.meta, world.keys.table(&id.to_string()), deleting.to_record().encode_to_vec()).await;

    for old in [&served, &empty] {
        assert_eq!(world.coordinator.settle(old, &Detection::default()).await, Ok(None));
        assert_eq!(world.stored_state(id).await, Some(TableState::Deleting));
    }
}

/// Steps: a table is deleted; its name goes to a new one; the delete comes once more for the old one: the new one stays.
#[tokio::test]
async fn a_repeated_delete_spares_the_next_table_of_the_name() {
    let world = World::new().await;
    world.run();
    let name = schema(1).name;
    let old = TableId::random();
    let (created, ()) =
        tokio::join!(world.coordinator.create_table(old, schema(1), soon()), world.serve_all(old, 1));
    created.expect("created");
    let delete = world.coordinator.delete_table(&name, Some(old), soon());
    let withdraw = async {
        let is_deleting = |view: &ClusterView| view.tables_by_id[&old].state == TableState::Deleting;
        world.sees("deleting", is_deleting).await;
        let emptied = fresh_record(&[], 1);
        put(&*world.meta, world.keys.shard(&old.to_string(), 0), emptied.encode_to_vec()).await;
    };
    let (deleted, ()) = tokio::join!(delete, withdraw);
    deleted.expect("deleted");
    world.sees("gone", |view| !view.tables_by_id.contains_key(&old)).await;
    let new = TableId::random();
    let (created, ()) =
        tokio::join!(world.coordinator.create_table(new, schema(1), soon()), world.serve_all(new, 1));
    created.expect("created");
    let again = world.coordinator.delete_table(&name, Some(old), soon()).await;
    assert_eq!(again.expect_err("it is gone").code, ErrorCode::TableNotFound);
    assert_eq!(world.stored_state(new).await, Some(TableState::Active));
    assert_eq!(world.discovery.view().shards_of(new).next().expect("placed").id.index, ShardIndex(0));
}

/// Steps: a node is drained for an hour, which the record says; the drain gets another reason and no end; it is cancelled,
/// twice. Nobody drains a node that does not exist.
#[tokio::test]
async fn a_drain_is_a_record_until_it_is_cancelled() {
    let world = World::new().await;
    let node = NodeId::parse("slave-1").expect("valid");
    let hour = Duration::from_secs(3600);
    let start = |ttl, reason: &str| world.coordinator.start_drain(&node, ttl, reason.to_owned(), soon());
    let record = start(Some(hour), "disks").await.expect("started");
    assert_eq!(record.expires_unix_ms, record.requested_unix_ms + 3_600_000);
    let drains = async |what: &str, is_so: &dyn Fn(&Drain) -> bool| {
        let seen = world.sees(what, |view| view.drains.get(&node).is_some_and(is_so)).await;
        seen.drains[&node].clone()
    };
    let drain = drains("draining", &|drain| drain.reason == "disks").await;
    assert_eq!(drain.expires_unix_ms, Some(record.expires_unix_ms));
    start(None, "more").await.expect("started again");
    assert_eq!(drains("changed", &|drain| drain.reason == "more").await.expires_unix_ms, None);
    for _ in 0..2 {
        world.coordinator.cancel_drain(&node, soon()).await.expect("cancelled");
        world.sees("not draining", |view| view.drains.is_empty()).await;
    }
    let stranger = NodeId::parse("stranger").expect("valid");
    let refused = world.coordinator.start_drain(&stranger, None, String::new(), soon()).await;
    assert_eq!(refused.expect_err("unknown").code, ErrorCode::NodeNotFound);
}

#[tokio::test]
async fn metadata_indexes_are_changed_one_by_one_in_the_tables_record() {
    let world = World::new().await;
    world.run();
    let id = TableId::random();
    let create = world.coordinator.create_table(id, schema(1), soon());
    let (created, ()) = tokio::join!(create, world.serve_all(id, 1));
    created.expect("created");
    let set = async |field: &str, kind| {
        let field = KeyPath::parse(field).expect("a path");
        let table = world.coordinator.set_metadata_index(id, &field, kind, soon()).await?;
        Ok::<_, Error>(table.schema.metadata_index_words().collect::<Vec<_>>())
    };
    let words = |field: &str, kind: &str| (field.to_owned(), kind.to_owned());
    // Those of one moment do not undo each other.
    let (a, b) = tokio::join!(set("a", Some(FieldKind::Geo)), set("b[].c", Some(FieldKind::Bool)));
    assert!(a.is_ok() && b.is_ok(), "{a:?} {b:?}");
    let before = world.coordinator.stored_table(id).await.expect("readable").expect("there");
    assert_eq!(set("a", Some(FieldKind::Geo)).await, Ok(vec![words("a", "geo"), words("b[].c", "bool")]));
    assert_eq!(
        world.coordinator.stored_table(id).await.expect("readable"),
        Some(before),
        "not written again"
    );
    assert_eq!(set("a", None).await, Ok(vec![words("b[].c", "bool")]));
    assert_eq!(set("a", None).await, Ok(vec![words("b[].c", "bool")]));
    for number in 1..FIELDS_MAX {
        set(&format!("f{number}"), Some(FieldKind::Keyword)).await.expect("there is room");
    }
    assert_eq!(
        set("more", Some(FieldKind::Keyword)).await.expect_err("full").code,
        ErrorCode::InvalidArgument
    );
    assert!(set("b[].c", Some(FieldKind::Integer)).await.is_ok(), "another type takes no room");
    let name = schema(1).name;
    // The slaves exist in the metadata alone: nobody removes the data.
    let _ = world.coordinator.delete_table(&name, Some(id), Instant::now()).await;
    assert_eq!(set("a", None).await.expect_err("deleted").code, ErrorCode::TableNotFound);
}

#[tokio::test]
async fn a_node_that_is_not_the_master_decides_nothing() {
    let world = World::new().await;
    world.role.send_replace(Role::Candidate { leader: None });
    let node = NodeId::parse("slave-1").expect("valid");
    let drained = world.coordinator.start_drain(&node, None, String::new(), soon()).await;
    assert_eq!(drained.expect_err("refused").code, ErrorCode::NotMaster);
    let cancelled = world.coordinator.cancel_drain(&node, soon()).await;
    assert_eq!(cancelled.expect_err("refused").code, ErrorCode::NotMaster);
    let handed_over = world.coordinator.hand_over_mastership(soon()).await;
    assert_eq!(handed_over.expect_err("refused").code, ErrorCode::NotMaster);
}
