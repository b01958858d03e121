//! Channels to other nodes, by node id: made when first used, dropped when the node listens elsewhere.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use futures::future::join_all;
use tokio::sync::watch;
use tonic::transport::{Channel, Endpoint};
use tracing::debug;
use vectorsphere_proto::internal::catalog_service_client::CatalogServiceClient;
use vectorsphere_proto::internal::coordinator_service_client::CoordinatorServiceClient;
use vectorsphere_proto::internal::shard_service_client::ShardServiceClient;
use vectorsphere_proto::internal::{AwaitRevisionRequest, AwaitRevisionResponse};

use crate::cluster::view::{self, ClusterView};
use crate::error_code::{Error, ErrorCode};
use crate::ids::{NodeId, Revision};

/// A node that does not accept a connection in this time is away.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// Largest message between nodes: the 64 MiB that a search may answer, and room for ids.
pub const MESSAGE_BYTES_MAX: usize = 96 * 1024 * 1024;

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
    peers: Mutex<HashMap<NodeId, Arc<Peer>>>,
}

struct Peer {
    endpoint: view::Endpoint,
    channels: Vec<Channel>,
    next: AtomicUsize,
}

impl CommunicationService {
    /// Finds nodes by `view`.
    pub fn new(view: watch::Receiver<Arc<ClusterView>>, settings: ChannelSettings) -> CommunicationService {
        assert!(settings.connections > 0, "a peer needs a connection");
        CommunicationService { view, settings, peers: Mutex::default() }
    }

    /// The shards on a node.
    ///
    /// # Errors
    /// When the node is not there.
    pub fn shard_client(&self, node: &NodeId) -> Result<ShardServiceClient<Channel>, Error> {
        let client = ShardServiceClient::new(self.channel(node)?);
        Ok(client.max_decoding_message_size(MESSAGE_BYTES_MAX).max_encoding_message_size(MESSAGE_BYTES_MAX))
    }

    /// Table changes at a node, which should be the Master.
    ///
    /// # Errors
    /// When the node is not there.
    pub fn coordinator_client(&self, node: &NodeId) -> Result<CoordinatorServiceClient<Channel>, Error> {
        Ok(CoordinatorServiceClient::new(self.channel(node)?))
    }

    /// Waits until every node has seen the metadata at `revision`, or `deadline`. A node that does not answer is left
    /// out: it reads the metadata when it comes back.
    pub async fn broadcast_revision(&self, revision: Revision, deadline: Instant) {
        let view = self.view.borrow().clone();
        let calls = view.nodes.keys().map(async |node| {
            let told =
                tokio::time::timeout_at(deadline.into(), self.await_revision(node, revision, deadline));
            match told.await {
                Ok(Ok(_)) => {}
                Ok(Err(error)) => debug!(%node, %error, "a node did not confirm a change of metadata"),
                Err(_) => debug!(%node, "a node did not confirm a change of metadata in time"),
            }
        });
        join_all(calls).await;
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
        answer.map(tonic::Response::into_inner).map_err(|status| super::convert::from_status(&status))
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
        let channels = (0..self.settings.connections).map(|_| transport.connect_lazy()).collect();
        Ok(Peer { endpoint: endpoint.clone(), channels, next: AtomicUsize::new(0) })
    }
}
