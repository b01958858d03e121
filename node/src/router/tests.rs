//! The router over slaves that answer as they are told.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio_stream::wrappers::TcpListenerStream;
use tokio_util::sync::CancellationToken;
use tonic::transport::Server;
use tonic::{Request, Response, Status};
use vectorsphere_proto::internal as proto;
use vectorsphere_proto::internal::shard_service_server::{ShardService, ShardServiceServer};

use super::session_token::{SeenPosition, SessionToken};
use super::*;
use crate::cluster::view::{Endpoint, Replica, ReplicaRole, Shard};
use crate::comm::convert::to_status;
use crate::comm::{ChannelSettings, CommMetrics};
use crate::document::Metadata;
use crate::ids::{DocumentId, OpId, ReplicaId, Revision, Session, ShardId, TableId};
use crate::runtime::TaskGroup;
use crate::runtime::network::Tcp;
use crate::search::{Consistency, MetadataChoice, ReadOptions, SearchQuery, SearchRequest, SearchTarget};
use crate::table::{IndexKind, Metric, TableSchema};

/// How a slave takes one call.
#[derive(Clone, Copy, Debug)]
enum Does {
    /// It answers, from this position.
    Answer(u64),
    Fail(ErrorCode),
    Hang,
}

/// A slave that does what is next on its list, and the last thing for ever.
#[derive(Clone, Default)]
struct Slave(Arc<Mutex<SlaveState>>);

#[derive(Default)]
struct SlaveState {
    does: VecDeque<Does>,
    reads: Vec<proto::ReadRule>,
    writes: Vec<proto::WriteRequest>,
}

impl Slave {
    fn does(&self, list: &[Does]) {
        self.lock().does = list.iter().copied().collect();
    }

    fn reads(&self) -> usize {
        self.lock().reads.len()
    }

    async fn next(&self) -> Result<proto::ReadPosition, Error> {
        let next = {
            let mut state = self.lock();
            if state.does.len() > 1 { state.does.pop_front() } else { state.does.front().copied() }
        };
        match next.expect("told what to do") {
            Does::Answer(applied_lsn) => {
                Ok(proto::ReadPosition { applied_lsn, staleness_ms: 0, incarnation: 0 })
            }
            Does::Fail(code) => Err(Error::new(code, "as told")),
            Does::Hang => std::future::pending().await,
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, SlaveState> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[tonic::async_trait]
impl ShardService for Slave {
    async fn write(
        &self,
        request: Request<proto::WriteRequest>,
    ) -> Result<Response<proto::WriteResponse>, Status> {
        self.lock().writes.push(request.into_inner());
        let position = self.next().await.map_err(|error| to_status(&error))?;
        let (lsn, affected) = (position.applied_lsn, 1);
        Ok(Response::new(proto::WriteResponse { lsn, affected, durable_copies: 1, incarnation: 0 }))
    }

    async fn get(&self, request: Request<proto::GetRequest>) -> Result<Response<proto::GetResponse>, Status> {
        let request = request.into_inner();
        self.lock().reads.extend(request.rule);
        let position = self.next().await.map_err(|error| to_status(&error))?;
        let document = proto::Document { id: request.id, ..proto::Document::default() };
        let version = position.applied_lsn;
        Ok(Response::new(proto::GetResponse { document: Some(document), version, position: Some(position) }))
    }

    async fn list(&self, _: Request<proto::ListRequest>) -> Result<Response<proto::ListResponse>, Status> {
        Err(Status::unimplemented("not needed"))
    }

    async fn search(
        &self,
        request: Request<proto::SearchRequest>,
    ) -> Result<Response<proto::SearchResponse>, Status> {
        let mut answers = Vec::new();
        for part in request.into_inner().parts {
            self.lock().reads.extend(part.rule);
            let answer = match self.next().await {
                Ok(position) => proto::ShardAnswer { position: Some(position), ..Default::default() },
                Err(error) => {
                    let failure = proto::Failure { code: error.code.to_string(), message: error.message };
                    proto::ShardAnswer { failure: Some(failure), ..Default::default() }
                }
            };
            answers.push(proto::ShardAnswer { shard: part.shard, ..answer });
        }
        Ok(Response::new(proto::SearchResponse { answers }))
    }

    async fn search_batch(
        &self,
        _: Request<proto::SearchBatchRequest>,
    ) -> Result<Response<proto::SearchBatchResponse>, Status> {
        Err(Status::unimplemented("not needed"))
    }

    async fn statistics(
        &self,
        _: Request<proto::StatisticsRequest>,
    ) -> Result<Response<proto::StatisticsResponse>, Status> {
        Err(Status::unimplemented("not needed"))
    }
}

/// A table of two shards, each with a copy on `a`, `b` and `c`; `a` has the primaries.
struct World {
    view: watch::Sender<Arc<ClusterView>>,
    router: Router,
    table: Table,
    slaves: BTreeMap<&'static str, Slave>,
    tasks: TaskGroup,
}

const NAMES: [&str; 3] = ["a", "b", "c"];

impl World {
    async fn new() -> World {
        let tasks = TaskGroup::new(CancellationToken::new());
        let (mut slaves, mut nodes) = (BTreeMap::new(), BTreeMap::new());
        for name in NAMES {
            let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
            let port = listener.local_addr().expect("bound").port();
            let slave = Slave::default();
            slave.does(&[Does::Answer(10)]);
            let server = Server::builder().add_service(ShardServiceServer::new(slave.clone()));
            let serving = server.serve_with_incoming_shutdown(
                TcpListenerStream::new(listener),
                tasks.cancellation().clone().cancelled_owned(),
            );
            tasks.spawn("slave", async move { serving.await.expect("served") });
            slaves.insert(name, slave);
            nodes.insert(node_id(name), Arc::new(node(name, port)));
        }
        let schema = TableSchema {
            name: TableName::parse("t").expect("valid"),
            dimension: 1,
            metric: Metric::L2,
            storage_type: Default::default(),
            rows: Default::default(),
            index: IndexKind::Flat,
            shards: 2,
            replicas: 3,
            min_isr: 2,
            metadata_indexes: Default::default(),
            unknown_indexes: Default::default(),
            tenant_key: None,
        };
        let table = Table { id: TableId::random(), schema, state: TableState::Active };
        let shards = (0..2).map(|index| shard(&table, index)).map(|shard| (shard.id, Arc::new(shard)));
        let view = ClusterView { nodes, shards: shards.collect(), ..ClusterView::default() };
        let (view, seen) = watch::channel(Arc::new(view));
        let channels = ChannelSettings {
            connections: 1,
            keepalive_time: Duration::from_secs(30),
            keepalive_timeout: Duration::from_secs(5),
        };
        let comm = Arc::new(CommunicationService::new(
            seen.clone(),
            channels,
            Arc::new(Tcp),
            CommMetrics::default(),
        ));
        let router = Router::new(seen, comm, node_id("gateway"), RouterMetrics::default());
        World { view, router, table, slaves, tasks }
    }

    fn all_do(&self, list: &[Does]) {
        self.slaves.values().for_each(|slave| slave.does(list));
    }

    fn reads(&self) -> [usize; 3] {
        NAMES.map(|name| self.slaves[name].reads())
    }

    /// Changes the record of every shard.
    fn change(&self, change: impl Fn(&mut Shard)) {
        self.view.send_modify(|view| {
            for shard in Arc::make_mut(view).shards.values_mut() {
                let shard = Arc::make_mut(shard);
                change(shard);
                shard.mod_revision = Revision(shard.mod_revision.0 + 1);
            }
        });
    }

    async fn get(&self, consistency: Consistency, limit: Duration) -> Result<StoredDocument, Error> {
        let read = ReadOptions { consistency, session_token: String::new() };
        let id = DocumentId::parse("x").expect("valid");
        let found = self.router.get(&within(limit), &self.table, &id, false, &read).await?;
        Ok(found.expect("each slave has it"))
    }

    async fn write(&self, limit: Duration) -> Result<WriteReceipt, Error> {
        let document = Document {
            id: DocumentId::parse("x").expect("valid"),
            vector: vec![1.0],
            metadata: Metadata::empty(),
        };
        let upserts = vec![Upsert { document, if_version: Some(7) }];
        self.router.upsert(&within(limit), &self.table, upserts, OpId::random()).await
    }

    async fn end(self) {
        self.tasks.cancellation().cancel();
        assert!(self.tasks.join(PATIENCE).await);
    }
}

const PATIENCE: Duration = Duration::from_secs(20);
const SHORT: Duration = Duration::from_millis(400);

fn within(limit: Duration) -> RequestContext {
    RequestContext { deadline: Instant::now() + limit, request_id: String::new() }
}

fn node_id(name: &str) -> NodeId {
    NodeId::parse(name).expect("valid")
}

fn node(name: &str, port: u16) -> Node {
    let (kind, scheme, host) = ("internal".to_owned(), "http".to_owned(), "127.0.0.1".to_owned());
    Node {
        id: node_id(name),
        session: Session(1),
        node_type: "slave".to_owned(),
        endpoints: vec![Endpoint { kind, scheme, host, port }],
        version: String::new(),
        zone: String::new(),
        capacity_bytes: 0,
    }
}

fn shard(table: &Table, index: u32) -> Shard {
    let replica = |(number, name): (usize, &str)| Replica {
        id: ReplicaId([number as u8; 16]),
        node: node_id(name),
        role: ReplicaRole::Full,
        damaged: false,
        replaces: None,
    };
    let replicas: Vec<Replica> = NAMES.into_iter().enumerate().map(replica).collect();
    Shard {
        id: ShardId { table: table.id, index: ShardIndex(index) },
        epoch: Epoch(3),
        primary: Some(replicas[0].id),
        primary_session: Session(1),
        isr: replicas.iter().map(|replica| replica.id).collect(),
        replicas,
        min_isr: 2,
        incarnation: 0,
        mod_revision: Revision(1),
    }
}

#[tokio::test]
async fn a_strong_read_asks_the_primary_alone_and_weaker_ones_all_in_turn() {
    let world = World::new().await;
    for _ in 0..6 {
        world.get(Consistency::Strong, PATIENCE).await.expect("read");
    }
    assert_eq!(world.reads(), [6, 0, 0]);
    for _ in 0..6 {
        world.get(Consistency::Session, PATIENCE).await.expect("read");
    }
    assert_eq!(world.reads(), [8, 2, 2]);
    world.slaves["a"].does(&[Does::Fail(ErrorCode::NotPrimary)]);
    let refused = world.get(Consistency::StrongNoClock, SHORT).await.expect_err("no primary");
    assert_eq!(refused.code, ErrorCode::NotPrimary);
    assert_eq!(world.reads()[1..], [2, 2]);
    world.end().await;
}

/// Steps: two copies fail in a way that may pass: the third answers, each time; a failure that another copy would repeat is
/// told at once.
#[tokio::test]
async fn a_read_passes_over_copies_that_fail() {
    let world = World::new().await;
    world.all_do(&[Does::Fail(ErrorCode::ShardUnavailable)]);
    world.slaves["b"].does(&[Does::Answer(44)]);
    for _ in 0..6 {
        let read = world.get(Consistency::Eventual, PATIENCE).await.expect("read");
        assert_eq!(read.version, 44);
    }
    assert_eq!(world.slaves["b"].reads(), 6);
    let failovers = world.router.metrics.failovers.get();
    assert!(failovers >= 4, "{failovers} failovers");
    world.all_do(&[Does::Fail(ErrorCode::SessionExpired)]);
    let before: usize = world.reads().iter().sum();
    let refused = world.get(Consistency::Session, PATIENCE).await.expect_err("refused");
    assert_eq!(refused.code, ErrorCode::SessionExpired);
    assert_eq!(world.reads().iter().sum::<usize>(), before + 1);
    world.end().await;
}

/// Steps: the primary's node has come back in a new session and leads nothing yet: session reads go on, also at once when
/// its node is gone; strong ones wait.
#[tokio::test]
async fn without_a_primary_session_reads_go_on_and_strong_ones_wait() {
    let world = World::new().await;
    world.change(|shard| shard.primary_session = Session(0));
    world.get(Consistency::Session, PATIENCE).await.expect("read");
    let refused = world.get(Consistency::Strong, SHORT).await.expect_err("no primary");
    assert_eq!(refused.code, ErrorCode::ShardUnavailable);
    world.view.send_modify(|view| drop(Arc::make_mut(view).nodes.remove(&node_id("a"))));
    let before = world.reads();
    for _ in 0..4 {
        world.get(Consistency::Session, PATIENCE).await.expect("read");
    }
    let after = world.reads();
    assert_eq!([after[0] - before[0], after[1] + after[2] - before[1] - before[2]], [0, 4]);
    world.end().await;
}

/// Steps: twenty quick reads; then a copy hangs: each read is answered all the same, by a second call.
#[tokio::test]
async fn a_copy_that_does_not_answer_is_not_waited_for() {
    let world = World::new().await;
    for _ in 0..30 {
        world.get(Consistency::Session, PATIENCE).await.expect("read");
    }
    world.slaves["b"].does(&[Does::Hang]);
    for _ in 0..3 {
        world.get(Consistency::Session, PATIENCE).await.expect("read");
    }
    let query = SearchQuery {
        target: SearchTarget::Vector(vec![1.0]),
        top_k: 1,
        offset: 0,
        exact: false,
        ef: None,
        target_recall: None,
        threshold: None,
        filter: None,
        explain: false,
        metadata: MetadataChoice::Nothing,
        with_vector: false,
        group_by: None,
    };
    let search = SearchRequest {
        queries: vec![query],
        allow_partial: false,
        read: ReadOptions { consistency: Consistency::Session, session_token: String::new() },
    };
    let found = world.router.search(&within(PATIENCE), &world.table, search).await.expect("found");
    let token = SessionToken::decode(&found.session_token, world.table.id).expect("ours");
    let seen = SeenPosition { incarnation: 0, lsn: Lsn(10) };
    assert_eq!([0, 1].map(|shard| token.position(ShardIndex(shard))), [seen; 2]);
    world.end().await;
}

/// Steps: nobody knows what became of a write: it is sent again with the same id and base until it is answered. Where the
/// answer is a refusal, the outcome stays unknown.
#[tokio::test]
async fn a_write_whose_outcome_is_unknown_is_repeated_as_the_same_one() {
    let world = World::new().await;
    world.get(Consistency::Strong, PATIENCE).await.expect("read");
    let primary = &world.slaves["a"];
    primary.does(&[
        Does::Fail(ErrorCode::OutcomeUnknown),
        Does::Fail(ErrorCode::ShardUnavailable),
        Does::Answer(99),
    ]);
    world.write(PATIENCE).await.expect("written");
    let writes = std::mem::take(&mut primary.lock().writes);
    assert_eq!(writes.len(), 3);
    assert!(writes.iter().all(|write| write.op_id == writes[0].op_id && write.base_lsn == 10), "{writes:?}");
    assert_eq!(writes[0].operations[0].if_version, Some(7));

    primary.does(&[Does::Fail(ErrorCode::OutcomeUnknown), Does::Fail(ErrorCode::VersionMismatch)]);
    let unknown = world.write(PATIENCE).await.expect_err("nobody knows");
    assert_eq!(unknown.code, ErrorCode::OutcomeUnknown);
    assert_eq!(primary.lock().writes.last().map(|write| write.base_lsn), Some(99));
    primary.does(&[Does::Fail(ErrorCode::VersionMismatch)]);
    let refused = world.write(PATIENCE).await.expect_err("refused");
    assert_eq!(refused.code, ErrorCode::VersionMismatch);
    primary.does(&[Does::Hang]);
    assert_eq!(world.write(SHORT).await.expect_err("nobody knows").code, ErrorCode::OutcomeUnknown);
    world.end().await;
}

/// Steps: the primary of the map leads no more; the map tells of the new one while the write is under way: it goes there.
#[tokio::test]
async fn a_write_follows_the_primary() {
    let world = World::new().await;
    world.slaves["a"].does(&[Does::Fail(ErrorCode::NotPrimary)]);
    let moving = async {
        while world.slaves["a"].lock().writes.is_empty() {
            tokio::task::yield_now().await;
        }
        world.change(|shard| (shard.primary, shard.epoch) = (Some(ReplicaId([1; 16])), Epoch(4)));
    };
    let (written, ()) = tokio::join!(world.write(PATIENCE), moving);
    written.expect("written");
    let writes = world.slaves["b"].lock().writes.clone();
    assert_eq!(
        writes.iter().filter_map(|write| write.shard.as_ref()).map(|shard| shard.epoch).collect::<Vec<_>>(),
        [4]
    );
    world.end().await;
}

#[tokio::test]
async fn a_search_asks_another_copy_where_one_fails_and_tells_the_gravest_failure() {
    let world = World::new().await;
    let query = SearchQuery {
        target: SearchTarget::Vector(vec![1.0]),
        top_k: 1,
        offset: 0,
        exact: false,
        ef: None,
        target_recall: None,
        threshold: None,
        filter: None,
        explain: false,
        metadata: MetadataChoice::Nothing,
        with_vector: false,
        group_by: None,
    };
    let search = |allow_partial| SearchRequest {
        queries: vec![query.clone()],
        allow_partial,
        read: ReadOptions { consistency: Consistency::Session, session_token: String::new() },
    };
    let find = async |allow_partial, limit| {
        world.router.search(&within(limit), &world.table, search(allow_partial)).await
    };
    world.all_do(&[Does::Fail(ErrorCode::ShardDamaged)]);
    world.slaves["c"].does(&[Does::Answer(5)]);
    for _ in 0..3 {
        find(false, PATIENCE).await.expect("one copy has it");
    }
    assert_eq!(world.slaves["c"].reads(), 6);
    world.slaves["c"].does(&[Does::Fail(ErrorCode::ShardUnavailable)]);
    assert_eq!(find(false, SHORT).await.expect_err("no copy has it").code, ErrorCode::ShardDamaged);
    let partial = find(true, SHORT).await.expect("partial");
    assert_eq!((partial.queries[0].hits.len(), partial.missing.len()), (0, 2));
    world.end().await;
}
