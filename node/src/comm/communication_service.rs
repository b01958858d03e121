//! Channels to other nodes, by node id: made when first used, dropped when the node listens elsewhere. Probes tell which
//! nodes answer.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use futures::future::join_all;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tonic::body::Body;
use tonic::transport::{Channel, Endpoint};
use tonic::{Status, codegen::http};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;
use tower::ServiceExt;
use tower::util::BoxCloneSyncService;
use tracing::debug;
use vectorsphere_proto::internal::catalog_service_client::CatalogServiceClient;
use vectorsphere_proto::internal::coordinator_service_client::CoordinatorServiceClient;
use vectorsphere_proto::internal::replication_service_client::ReplicationServiceClient;
use vectorsphere_proto::internal::shard_service_client::ShardServiceClient;
use vectorsphere_proto::internal::shard_service_server::{ShardService, ShardServiceServer};
use vectorsphere_proto::internal::{AwaitRevisionRequest, AwaitRevisionResponse, ReachesRequest};

use super::convert;
use super::metrics::CommMetrics;
use super::suspicion::Suspicion;
use crate::cluster::view::{self, ClusterView, Node};
use crate::error_code::{Error, ErrorCode};
use crate::ids::{NodeId, Revision};
use crate::runtime::network::Network;

/// A node that does not accept a connection in this time is away.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// A node that stops in order answers what it was asked within this time after it left.
const LAST_ANSWERS: Duration = Duration::from_secs(1);
/// Largest message between nodes: the 64 MiB that a search may answer, and room for ids.
pub const MESSAGE_BYTES_MAX: usize = 96 * 1024 * 1024;

/// A node that has not confirmed a change of metadata in this time learns of it by itself.
const BROADCAST_LIMIT: Duration = Duration::from_secs(1);
/// Longest time that a probe may take.
const PROBE_LIMIT: Duration = Duration::from_secs(1);

/// What carries calls to the shards of a node: a channel to it, or the node's own service.
type ShardTransport = BoxCloneSyncService<http::Request<Body>, http::Response<Body>, Status>;

/// A client of the shards on one node.
pub type ShardClient = ShardServiceClient<ShardTransport>;

/// Why a probe was not answered.
enum Missed {
    /// Nobody listens there: the process is gone.
    Refused(String),
    /// No answer, or a connection that broke.
    Silent(String),
}

/// True when the machine is there and says that nobody listens.
fn is_refusal(status: &Status) -> bool {
    let mut cause = std::error::Error::source(status);
    while let Some(error) = cause {
        let io = error.downcast_ref::<std::io::Error>();
        if io.is_some_and(|error| error.kind() == std::io::ErrorKind::ConnectionRefused) {
            return true;
        }
        cause = error.source();
    }
    false
}

/// How channels are made.
#[derive(Clone, Debug)]
pub struct ChannelSettings {
    /// Connections to each peer, used in turn; at least 1.
    pub connections: usize,
    /// Interval of keep-alive pings.
    pub keepalive_time: Duration,
    /// Time that a ping may take.
    pub keepalive_timeout: Duration,
}

/// Calls other nodes.
pub struct CommunicationService {
    view: watch::Receiver<Arc<ClusterView>>,
    settings: ChannelSettings,
    network: Arc<dyn Network>,
    peers: Mutex<HashMap<NodeId, Arc<Peer>>>,
    /// This node and its own shards.
    own_shards: OnceLock<(NodeId, ShardTransport)>,
    suspicion: Suspicion,
    metrics: CommMetrics,
}

struct Peer {
    endpoint: view::Endpoint,
    channels: Vec<Channel>,
    next: AtomicUsize,
}

impl CommunicationService {
    /// Finds nodes by `view` and connects over `network`.
    pub fn new(
        view: watch::Receiver<Arc<ClusterView>>,
        settings: ChannelSettings,
        network: Arc<dyn Network>,
        metrics: CommMetrics,
    ) -> CommunicationService {
        assert!(settings.connections > 0, "a peer needs a connection");
        let (peers, suspicion) = (Mutex::default(), Suspicion::default());
        CommunicationService {
            view,
            settings,
            network,
            peers,
            own_shards: OnceLock::new(),
            suspicion,
            metrics,
        }
    }

    /// Lets calls of `node`, which is this one, stay within the process: the same service, without a connection to itself.
    pub fn keep_calls_of(&self, node: NodeId, shards: ShardServiceServer<impl ShardService>) {
        let transport = BoxCloneSyncService::new(ServiceExt::<http::Request<Body>>::map_err(
            shards,
            |never| match never {},
        ));
        // A node has one service of shards for as long as it runs.
        let _ = self.own_shards.set((node, transport));
    }

    /// The shards on a node.
    ///
    /// # Errors
    /// When the node is not there.
    pub fn shard_client(&self, node: &NodeId) -> Result<ShardClient, Error> {
        let transport = match self.own_shards.get() {
            Some((own, transport)) if own == node => transport.clone(),
            _ => BoxCloneSyncService::new(
                self.channel(node)?.map_err(|error| Status::from_error(error.into())),
            ),
        };
        let client = ShardServiceClient::new(transport);
        Ok(client.max_decoding_message_size(MESSAGE_BYTES_MAX).max_encoding_message_size(MESSAGE_BYTES_MAX))
    }

    /// The replicas on a node, for other replicas and for the Master.
    ///
    /// # Errors
    /// When the node is not there.
    pub fn replication_client(&self, node: &NodeId) -> Result<ReplicationServiceClient<Channel>, Error> {
        let client = ReplicationServiceClient::new(self.channel(node)?);
        Ok(client.max_decoding_message_size(MESSAGE_BYTES_MAX).max_encoding_message_size(MESSAGE_BYTES_MAX))
    }

    /// Table changes at a node, which should be the Master.
    ///
    /// # Errors
    /// When the node is not there.
    pub fn coordinator_client(&self, node: &NodeId) -> Result<CoordinatorServiceClient<Channel>, Error> {
        Ok(CoordinatorServiceClient::new(self.channel(node)?))
    }

    /// True when the node has missed several probes in a row.
    pub fn is_suspect(&self, node: &Node) -> bool {
        self.suspicion.is_suspect(node)
    }

    /// Changes when a node becomes suspect.
    pub fn new_suspects(&self) -> watch::Receiver<()> {
        self.suspicion.news()
    }

    /// Returns when an answer of the node is not to be waited for any longer: it is suspect, or its process has left, whether
    /// or not another one has come, and had [`LAST_ANSWERS`] to finish what it was doing. Connections to a host that is cut
    /// off stay open and silent for long.
    pub async fn lost(&self, node: &NodeId) {
        let session_of = |view: &ClusterView| view.nodes.get(node).map(|node| node.session);
        let asked = session_of(&self.view.borrow());
        let became_suspect = async {
            let mut suspects = self.suspicion.news();
            // The sender lives as long as this service.
            while !self.view.borrow().nodes.get(node).is_some_and(|node| self.is_suspect(node)) {
                let _ = suspects.changed().await;
            }
        };
        let left = async {
            self.until(|view| asked.is_none() || session_of(view) != asked).await;
            tokio::time::sleep(LAST_ANSWERS).await;
        };
        tokio::select! {
            () = became_suspect => {}
            () = left => {}
        }
    }

    /// Probes every node of the view until `cancel`, each time after the pause that `interval` says.
    pub async fn probe_nodes(&self, interval: impl Fn() -> Duration, cancel: CancellationToken) {
        let probing = async {
            loop {
                let interval = interval();
                let next = tokio::time::Instant::now() + interval;
                let view = self.view.borrow().clone();
                let limit = interval.min(PROBE_LIMIT);
                join_all(view.nodes.values().map(|node| self.probe(node, limit))).await;
                self.metrics.suspects.set(self.suspicion.keep_only(&view) as i64);
                tokio::time::sleep_until(next).await;
            }
        };
        cancel.run_until_cancelled(probing).await;
    }

    /// Any answer counts: a node that does not want requests is there all the same.
    async fn probe(&self, node: &Node, limit: Duration) {
        let Err(missed) = self.call_health(&node.id, limit).await else {
            return self.suspicion.answered(node);
        };
        self.metrics.failed("probe");
        match missed {
            Missed::Refused(why) => self.suspicion.refused(node, &why),
            Missed::Silent(why) => self.suspicion.missed(node, &why),
        }
    }

    async fn call_health(&self, node: &NodeId, limit: Duration) -> Result<(), Missed> {
        let call = async {
            let channel = self.channel(node).map_err(|error| Missed::Silent(error.to_string()))?;
            let answer = HealthClient::new(channel).check(HealthCheckRequest::default()).await;
            answer.map(drop).map_err(|status| match is_refusal(&status) {
                true => Missed::Refused(status.to_string()),
                false => Missed::Silent(status.to_string()),
            })
        };
        let silent = |_| Err(Missed::Silent(format!("no answer within {limit:?}")));
        tokio::time::timeout(limit, call).await.unwrap_or_else(silent)
    }

    /// Whether a node answers this one at this moment.
    pub async fn reaches(&self, node: &NodeId) -> bool {
        self.call_health(node, PROBE_LIMIT).await.is_ok()
    }

    /// Whether another node reaches `node`; `None`: it did not answer.
    pub async fn ask_witness(&self, witness: &NodeId, node: &NodeId) -> Option<bool> {
        let call = async {
            let mut client = CatalogServiceClient::new(self.channel(witness).ok()?);
            let answer = client.reaches(ReachesRequest { node_id: node.to_string() }).await.ok()?;
            Some(answer.into_inner().reached)
        };
        tokio::time::timeout(2 * PROBE_LIMIT, call).await.ok().flatten()
    }

    /// Waits until every node has seen the metadata at `revision`, but not beyond `deadline`, nor longer than a second. A
    /// node that does not answer is left out: it reads the metadata by itself.
    pub async fn broadcast_revision(&self, revision: Revision, deadline: Instant) {
        let deadline = deadline.min(Instant::now() + BROADCAST_LIMIT);
        let view = self.view.borrow().clone();
        let calls = view.nodes.keys().map(async |node| {
            let told = tokio::select! {
                () = self.until(|view| !view.nodes.contains_key(node)) => return,
                told = tokio::time::timeout_at(
                    deadline.into(),
                    self.await_revision(node, revision, deadline),
                ) => told,
            };
            let why = match told {
                Ok(Ok(_)) => return,
                Ok(Err(error)) => error.to_string(),
                Err(_) => "no answer in time".to_owned(),
            };
            self.metrics.failed("broadcast");
            debug!(%node, why, "a node did not confirm a change of metadata");
        });
        join_all(calls).await;
    }

    /// Returns when the view is such.
    async fn until(&self, is_so: impl Fn(&ClusterView) -> bool) {
        let mut view = self.view.clone();
        // A closed channel means that this node stops: then the call itself ends.
        if view.wait_for(|view| is_so(view)).await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    async fn await_revision(
        &self,
        node: &NodeId,
        revision: Revision,
        deadline: Instant,
    ) -> Result<AwaitRevisionResponse, Error> {
        let mut client = CatalogServiceClient::new(self.channel(node)?);
        let mut request = tonic::Request::new(AwaitRevisionRequest { revision: revision.0 });
        request.set_timeout(deadline.saturating_duration_since(Instant::now()));
        let answer = client.await_revision(request).await;
        answer.map(tonic::Response::into_inner).map_err(|status| convert::from_status(&status))
    }

    /// A channel to a node; the next one in turn.
    fn channel(&self, node: &NodeId) -> Result<Channel, Error> {
        let peer = self.peer(node)?;
        let next = peer.next.fetch_add(1, Ordering::Relaxed);
        Ok(peer.channels[next % peer.channels.len()].clone())
    }

    fn peer(&self, node: &NodeId) -> Result<Arc<Peer>, Error> {
        let away = || Error::new(ErrorCode::ShardUnavailable, format!("node {node} is not there"));
        let view = self.view.borrow().clone();
        let endpoint = view.nodes.get(node).and_then(|node| node.endpoint("internal")).ok_or_else(away)?;
        // Short and without waits; a panic leaves the map whole.
        let mut peers = self.peers.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(peer) = peers.get(node).filter(|peer| peer.endpoint == *endpoint) {
            return Ok(peer.clone());
        }
        peers.retain(|known, _| view.nodes.contains_key(known));
        let peer = Arc::new(self.connect(endpoint)?);
        peers.insert(node.clone(), peer.clone());
        Ok(peer)
    }

    /// Channels that connect when they are first used, and again after a break.
    fn connect(&self, endpoint: &view::Endpoint) -> Result<Peer, Error> {
        let host = match endpoint.host.contains(':') {
            true => format!("[{}]", endpoint.host),
            false => endpoint.host.clone(),
        };
        let url = format!("{}://{host}:{}", endpoint.scheme, endpoint.port);
        let transport = Endpoint::from_shared(url.clone())
            .map_err(|error| Error::new(ErrorCode::Internal, format!("{url} is no address: {error}")))?
            .connect_timeout(CONNECT_TIMEOUT)
            .http2_keep_alive_interval(self.settings.keepalive_time)
            .keep_alive_timeout(self.settings.keepalive_timeout)
            .keep_alive_while_idle(true)
            .tcp_nodelay(true);
        let channels = (0..self.settings.connections).map(|_| self.network.channel(&transport)).collect();
        Ok(Peer { endpoint: endpoint.clone(), channels, next: AtomicUsize::new(0) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::network::Tcp;

    fn node() -> Node {
        Node::slave("a", 1)
    }

    fn service() -> (watch::Sender<Arc<ClusterView>>, CommunicationService) {
        let mut view = ClusterView::default();
        view.nodes.insert(node().id, Arc::new(node()));
        let (tell, view) = watch::channel(Arc::new(view));
        let second = Duration::from_secs(1);
        let channels = ChannelSettings { connections: 1, keepalive_time: second, keepalive_timeout: second };
        let service = CommunicationService::new(view, channels, Arc::new(Tcp), CommMetrics::default());
        (tell, service)
    }

    /// A call to a host that was cut off waited for its deadline, though another copy led after two seconds: the connection
    /// stayed open and silent.
    #[tokio::test(start_paused = true)]
    async fn an_answer_is_not_waited_for_when_probes_are_not_answered() {
        let (_view, service) = service();
        let node = node();
        let started = tokio::time::Instant::now();
        let probing = async {
            for _ in 0..10 {
                tokio::time::sleep(Duration::from_millis(100)).await;
                service.suspicion.missed(&node, "silent");
            }
            std::future::pending::<()>().await;
        };
        tokio::select! {
            () = service.lost(&node.id) => {}
            () = probing => {}
        }
        assert!(started.elapsed() < Duration::from_millis(500), "{:?}", started.elapsed());
        service.lost(&node.id).await;
        service.suspicion.answered(&node);
        let again = tokio::time::timeout(Duration::from_secs(3600), service.lost(&node.id));
        again.await.expect_err("it answers again");
    }

    #[tokio::test(start_paused = true)]
    async fn a_node_that_has_left_may_finish_what_it_was_doing() {
        let (view, service) = service();
        view.send_replace(Arc::default());
        let started = tokio::time::Instant::now();
        service.lost(&node().id).await;
        assert!(started.elapsed() >= LAST_ANSWERS && started.elapsed() < 2 * LAST_ANSWERS);
    }
}
