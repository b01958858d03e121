//! `AppLauncher`: builds the parts of a node bottom-up, and drains them top-down.
//!
//! The order of a stop: readiness off, accept nothing more, let requests end, resign mastership, end the session, flush
//! the shards. A part that panics stops the node.

mod identity;
mod listeners;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tonic::transport::Server;
use tracing::{error, info, warn};
use vectorsphere_index::{Kernels, UnknownTier};
use vectorsphere_proto::internal::catalog_service_server::CatalogServiceServer;
use vectorsphere_proto::internal::coordinator_service_server::CoordinatorServiceServer;
use vectorsphere_proto::internal::shard_service_server::ShardServiceServer;
use vectorsphere_proto::keys::Keys;
use vectorsphere_proto::meta;

use crate::cluster::distributed_manager::ElectionSettings;
use crate::cluster::meta_store::{EmbeddedStore, EtcdStore};
use crate::cluster::node_session::{SessionError, SessionSettings};
use crate::cluster::view::ClusterView;
use crate::cluster::{DistributedManager, MetaStore, NodeSession, Role, ServiceDiscovery};
use crate::comm::{ChannelSettings, CommunicationService, MESSAGE_BYTES_MAX};
use crate::config::{Config, NodeType};
use crate::coordinator::{CatalogRpc, Coordinator, CoordinatorRpc};
use crate::gateway::{self, ApiGateway, GatewayParts};
use crate::ids::{NodeId, Session};
use crate::router::Router;
use crate::runtime::disk::{Disk, FileDisk, OpenError};
use crate::runtime::{ComputePool, Readiness, TaskGroup};
use crate::shard::{DiskThresholds, IndexService, IndexServiceParts, ShardMetrics, ShardSettings};
use crate::storage::data_dir;
use crate::telemetry::Metrics;
use listeners::Listeners;

/// Pause between two tries to reach the metadata store at the start.
const JOIN_PAUSE: Duration = Duration::from_millis(500);
/// Time that parts beyond the requests get to end: they hold nothing that is not on disk.
const PARTS_GRACE: Duration = Duration::from_secs(10);
/// How often the zone's file is looked at.
const ZONE_LOOK: Duration = Duration::from_secs(5);

/// Why a node does not start.
#[derive(Debug, thiserror::Error)]
pub enum LaunchError {
    /// A port is taken, or an address is not ours.
    #[error("cannot listen for {what} at {address} (key {key})")]
    Listen {
        /// Which listener.
        what: &'static str,
        /// Where.
        address: String,
        /// The configuration's key.
        key: &'static str,
        /// The system's word.
        #[source]
        source: std::io::Error,
    },
    /// The data directory cannot be used.
    #[error(transparent)]
    Disk(#[from] OpenError),
    /// A file in the data directory cannot be used.
    #[error("cannot use {path}")]
    File {
        /// The file.
        path: PathBuf,
        /// The system's word.
        #[source]
        source: std::io::Error,
    },
    /// The forced kernels cannot be had.
    #[error(transparent)]
    Kernels(#[from] UnknownTier),
    /// The node does not belong to this cluster.
    #[error(transparent)]
    Cluster(#[from] SessionError),
    /// The data directory belongs to another cluster, or is damaged.
    #[error("the data directory cannot join the cluster")]
    Storage(#[from] crate::storage::StorageError),
    /// Told to stop before everything ran.
    #[error("stopped before the node had started")]
    Stopped,
}

/// Starts nodes.
pub struct AppLauncher {
    config: watch::Receiver<Arc<Config>>,
    store: Option<Arc<dyn MetaStore>>,
}

/// A node that runs.
pub struct RunningNode {
    /// Its name.
    pub id: NodeId,
    /// Port of REST.
    pub http_port: u16,
    /// Port of the public gRPC API; `None` on slaves.
    pub grpc_port: Option<u16>,
    config: watch::Receiver<Arc<Config>>,
    readiness: Readiness,
    edge: TaskGroup,
    core: TaskGroup,
    base: TaskGroup,
    index_service: Option<Arc<IndexService>>,
}

impl AppLauncher {
    /// A node by `config`, over the metadata store that the configuration names.
    pub fn new(config: watch::Receiver<Arc<Config>>) -> AppLauncher {
        AppLauncher { config, store: None }
    }

    /// Uses this store instead: several nodes of one process share one.
    pub fn with_store(self, store: Arc<dyn MetaStore>) -> AppLauncher {
        AppLauncher { store: Some(store), ..self }
    }

    /// Starts the node and returns when it has joined its cluster. Waits for a metadata store that is away; probes answer
    /// meanwhile.
    ///
    /// # Errors
    /// What cannot get better by waiting.
    pub fn start(self, stop: CancellationToken) -> BoxFuture<'static, Result<RunningNode, LaunchError>> {
        // Boxed here, so that this large future is compiled once and not again in every program that starts a node.
        Box::pin(self.launch(stop))
    }

    async fn launch(self, stop: CancellationToken) -> Result<RunningNode, LaunchError> {
        let config = self.config.borrow().clone();
        let kernels = Kernels::detect(Some(config.kernel_tier.as_str()).filter(|tier| !tier.is_empty()))?;
        let disk: Arc<dyn Disk> = Arc::new(FileDisk::open(&config.data_dir)?);
        let id = identity::node_id(&config)?;
        let listeners = Listeners::bind(&config).await?;
        let keys = match &config.etcd.prefix {
            Some(prefix) => Keys::with_prefix(prefix),
            None => Keys::of_service(&config.service_name),
        };
        let store = match self.store {
            Some(store) => store,
            None => open_store(&config)?,
        };
        let (edge, core, base) = (group(), group(), group());
        let (metrics, readiness) = (Metrics::new(), Readiness::default());
        readiness.set("joined the cluster", false);
        info!(node = %id, node_type = config.node_type.as_str(), kernels = kernels.name(), "starting");

        let discovery = Arc::new(ServiceDiscovery::new(store.clone(), keys.clone()));
        let following = discovery.clone();
        let cancel = base.cancellation().clone();
        base.spawn("service discovery", async move { following.run(cancel).await });
        let comm = Arc::new(CommunicationService::new(discovery.subscribe(), channel_settings(&config)));
        let router = Router::new(discovery.subscribe(), comm.clone());
        let gateway = ApiGateway::new(GatewayParts {
            router: config.node_type.is_gateway().then_some(router),
            discovery: discovery.clone(),
            config: self.config.clone(),
            readiness: readiness.clone(),
            metrics: metrics.clone(),
            node_id: id.clone(),
        });
        let ports = listeners.ports();
        let (http, grpc, internal) = (listeners.http, listeners.grpc, listeners.internal);
        edge.spawn("http", gateway::http::serve(gateway.clone(), http, edge.clone()));

        join(&*store, &keys, &*disk, &stop).await?;
        let record = node_record(&config, &id, &ports);
        let (announce, record) = watch::channel(record);
        let session =
            NodeSession::new(store.clone(), keys.clone(), session_settings(&config), record.clone());
        let session_seen = session.subscribe();
        let mut parts = Parts { config: &config, keys, store, core: &core, base: &base };
        let index_service = config.node_type.holds_shards().then(|| {
            let metrics = register_shards(&metrics);
            parts.index_service(ShardParts {
                disk,
                node_id: id.clone(),
                view: discovery.subscribe(),
                session: session_seen.clone(),
                kernels,
                metrics,
                live: self.config.clone(),
            })
        });
        let role = parts.manager(&discovery, &record.borrow());
        let coordinator = parts.coordinator(discovery.clone(), comm, role);
        parts.internal_server(internal, coordinator, discovery.clone(), index_service.clone());
        parts.session(session);
        parts.zone(announce);
        if let Some(grpc) = grpc {
            serve_grpc(&edge, gateway, grpc).await;
        }
        await_session(&discovery, session_seen, &stop).await?;
        readiness.set("joined the cluster", true);
        info!(node = %id, http_port = ports.http, grpc_port = ?ports.grpc, "this node serves");
        Ok(RunningNode {
            id,
            http_port: ports.http,
            grpc_port: ports.grpc,
            config: self.config,
            readiness,
            edge,
            core,
            base,
            index_service,
        })
    }
}

impl RunningNode {
    /// Returns when a part of the node has ended although nobody told it to.
    pub async fn failed(&self) {
        tokio::select! {
            () = self.edge.cancellation().cancelled() => {}
            () = self.core.cancellation().cancelled() => {}
            () = self.base.cancellation().cancelled() => {}
        }
    }

    /// Stops in order; `true` when everything ended in time.
    pub fn stop(self) -> BoxFuture<'static, bool> {
        Box::pin(self.drain())
    }

    async fn drain(self) -> bool {
        let grace = self.config.borrow().shutdown_grace;
        info!(node = %self.id, ?grace, "stopping: no more requests");
        self.readiness.set("accepting requests", false);
        self.edge.cancellation().cancel();
        let requests_ended = self.edge.join(grace).await;
        self.core.cancellation().cancel();
        let decisions_ended = self.core.join(PARTS_GRACE).await;
        if let Some(index_service) = &self.index_service {
            index_service.stop().await;
        }
        self.base.cancellation().cancel();
        let base_ended = self.base.join(PARTS_GRACE).await;
        info!(node = %self.id, "stopped");
        requests_ended && decisions_ended && base_ended
    }
}

/// What the parts of a node are built from.
struct Parts<'p> {
    config: &'p Config,
    keys: Keys,
    store: Arc<dyn MetaStore>,
    core: &'p TaskGroup,
    base: &'p TaskGroup,
}

impl Parts<'_> {
    /// The candidate's part in the election; slaves have none.
    fn manager(&mut self, discovery: &ServiceDiscovery, record: &meta::NodeRecord) -> watch::Receiver<Role> {
        let settings = ElectionSettings {
            session_ttl: self.config.master.session_ttl,
            election_timeout: self.config.master.election_timeout,
            retry_interval: self.config.master.retry_interval,
            max_retry_count: self.config.master.max_retry_count,
        };
        let candidate = meta::MasterCandidate {
            node_id: record.node_id.clone(),
            session: record.session.clone(),
            endpoints: record.endpoints.clone(),
        };
        let manager = DistributedManager::new(
            self.store.clone(),
            self.keys.clone(),
            settings,
            candidate,
            discovery.subscribe(),
        );
        let role = manager.subscribe();
        if self.config.node_type.is_gateway() {
            let cancel = self.core.cancellation().clone();
            self.core.spawn("election", async move { manager.run(cancel).await });
        }
        role
    }

    fn coordinator(
        &mut self,
        discovery: Arc<ServiceDiscovery>,
        comm: Arc<CommunicationService>,
        role: watch::Receiver<Role>,
    ) -> Arc<Coordinator> {
        let coordinator =
            Arc::new(Coordinator::new(self.store.clone(), self.keys.clone(), discovery, comm, role));
        let (driven, cancel) = (coordinator.clone(), self.core.cancellation().clone());
        if self.config.node_type.is_gateway() {
            self.core.spawn("coordinator", async move { driven.run(cancel).await });
        }
        coordinator
    }

    fn index_service(&mut self, shards: ShardParts) -> Arc<IndexService> {
        let (tell, checkpoint_log_bytes) = watch::channel(self.config.checkpoint_log_bytes);
        let (mut live, cancel) = (shards.live, self.base.cancellation().clone());
        self.base.spawn("shard settings", async move {
            while let Some(Ok(())) = cancel.run_until_cancelled(live.changed()).await {
                tell.send_replace(live.borrow_and_update().checkpoint_log_bytes);
            }
            // The receivers must not find the channel closed before they end themselves.
            cancel.cancelled().await;
        });
        Arc::new(IndexService::start(IndexServiceParts {
            disk: shards.disk,
            node_id: shards.node_id,
            meta: self.store.clone(),
            keys: self.keys.clone(),
            view: shards.view,
            session: shards.session,
            kernels: shards.kernels,
            compute: ComputePool::new(self.config.scheduler_worker_count),
            settings: ShardSettings { checkpoint_log_bytes, disk_thresholds: DiskThresholds::default() },
            metrics: shards.metrics,
        }))
    }

    fn internal_server(
        &mut self,
        listener: tokio::net::TcpListener,
        coordinator: Arc<Coordinator>,
        discovery: Arc<ServiceDiscovery>,
        index_service: Option<Arc<IndexService>>,
    ) {
        let cancel = self.core.cancellation().clone();
        let shards = index_service.map(|service| {
            ShardServiceServer::from_arc(service)
                .max_decoding_message_size(MESSAGE_BYTES_MAX)
                .max_encoding_message_size(MESSAGE_BYTES_MAX)
        });
        let server = Server::builder()
            .tcp_nodelay(true)
            .http2_keepalive_interval(Some(self.config.grpc_keepalive_time))
            .add_service(CoordinatorServiceServer::new(CoordinatorRpc(coordinator)))
            .add_service(CatalogServiceServer::new(CatalogRpc(discovery)))
            .add_optional_service(shards);
        let group = self.core.cancellation().clone();
        self.core.spawn("internal gRPC", async move {
            let incoming = tokio_stream::wrappers::TcpListenerStream::new(listener);
            if let Err(error) = server.serve_with_incoming_shutdown(incoming, cancel.cancelled_owned()).await
            {
                error!(%error, "the internal gRPC server failed");
                group.cancel();
            }
        });
    }

    fn session(&mut self, session: NodeSession) {
        let cancel = self.base.cancellation().clone();
        self.base.spawn("node session", async move { session.run(cancel).await });
    }

    /// Registers again when the zone's file gets content: an operator writes it after the pod has started.
    fn zone(&mut self, announce: watch::Sender<meta::NodeRecord>) {
        let Some(file) = self.config.zone_file.clone() else { return self.keep(announce) };
        let cancel = self.base.cancellation().clone();
        self.base.spawn("zone", async move {
            let mut look = tokio::time::interval(ZONE_LOOK);
            while cancel.run_until_cancelled(look.tick()).await.is_some() {
                let Some(zone) = identity::zone_of(&file).await else { continue };
                announce.send_if_modified(|record| {
                    let changed = record.zone != zone;
                    record.zone.clone_from(&zone);
                    changed
                });
            }
        });
    }

    /// The record never changes, but its channel must stay open.
    fn keep(&mut self, announce: watch::Sender<meta::NodeRecord>) {
        let cancel = self.base.cancellation().clone();
        self.base.spawn("node record", async move {
            cancel.cancelled().await;
            drop(announce);
        });
    }
}

/// What only nodes with shards need.
struct ShardParts {
    disk: Arc<dyn Disk>,
    node_id: NodeId,
    view: watch::Receiver<Arc<ClusterView>>,
    session: watch::Receiver<Option<Session>>,
    kernels: Kernels,
    metrics: ShardMetrics,
    live: watch::Receiver<Arc<Config>>,
}

fn register_shards(metrics: &Metrics) -> ShardMetrics {
    let mut registered = None;
    metrics.register(|registry| registered = Some(ShardMetrics::register(registry)));
    registered.expect("registered just now")
}

fn group() -> TaskGroup {
    TaskGroup::new(CancellationToken::new())
}

fn open_store(config: &Config) -> Result<Arc<dyn MetaStore>, LaunchError> {
    if !config.etcd.endpoints.is_empty() {
        return Ok(Arc::new(EtcdStore::new(config.etcd.clone())));
    }
    let path = config.data_dir.join("meta");
    let store = EmbeddedStore::open(&path).map_err(|source| LaunchError::File { path, source })?;
    info!("no etcd endpoint is configured: standalone, over the embedded store");
    Ok(Arc::new(store))
}

/// Finds out which cluster this is, and binds the data directory to it.
async fn join(
    store: &dyn MetaStore,
    keys: &Keys,
    disk: &dyn Disk,
    stop: &CancellationToken,
) -> Result<(), LaunchError> {
    let own = data_dir::cluster_uid(disk)?;
    let mut told = false;
    let cluster_uid = loop {
        match NodeSession::join_cluster(store, keys, own.as_deref()).await {
            Ok(cluster_uid) => break cluster_uid,
            Err(SessionError::Meta(error)) => {
                if !std::mem::replace(&mut told, true) {
                    warn!(%error, "waiting for the metadata store");
                }
            }
            Err(error) => return Err(error.into()),
        }
        tokio::select! {
            () = stop.cancelled() => return Err(LaunchError::Stopped),
            () = tokio::time::sleep(JOIN_PAUSE) => {}
        }
    };
    Ok(data_dir::join_cluster(disk, &cluster_uid)?)
}

/// Ready means registered, and the view has seen it.
async fn await_session(
    discovery: &ServiceDiscovery,
    mut session: watch::Receiver<Option<Session>>,
    stop: &CancellationToken,
) -> Result<(), LaunchError> {
    let mut view = discovery.subscribe();
    let registered = async {
        // The sender lives as long as the node; a closed channel means that it stops.
        let session = session.wait_for(Option::is_some).await.ok().and_then(|session| *session);
        match session {
            Some(session) => view.wait_for(|view| view.revision.0 >= session.0).await.is_ok(),
            None => false,
        }
    };
    tokio::select! {
        () = stop.cancelled() => Err(LaunchError::Stopped),
        joined = registered => if joined { Ok(()) } else { Err(LaunchError::Stopped) },
    }
}

async fn serve_grpc(edge: &TaskGroup, gateway: ApiGateway, listener: tokio::net::TcpListener) {
    let (health, service) = tonic_health::server::health_reporter();
    let cancel = edge.cancellation().clone();
    let group = cancel.clone();
    edge.spawn("gRPC", async move {
        if let Err(error) = gateway::grpc::serve(gateway, listener, health, service, cancel).await {
            error!(%error, "the gRPC server failed");
            group.cancel();
        }
    });
}

fn channel_settings(config: &Config) -> ChannelSettings {
    ChannelSettings {
        connections: config.grpc_max_connections,
        keepalive_time: config.grpc_keepalive_time,
        keepalive_timeout: config.grpc_keepalive_timeout,
    }
}

fn session_settings(config: &Config) -> SessionSettings {
    SessionSettings {
        heartbeat: match config.node_type {
            NodeType::Slave => config.slave.heartbeat_interval,
            NodeType::Master | NodeType::Auto => config.heartbeat,
        },
        retry_interval: config.slave.register_retry_interval,
        retry_count: config.slave.register_retry_count,
    }
}

fn node_record(config: &Config, id: &NodeId, ports: &listeners::Ports) -> meta::NodeRecord {
    let host = identity::advertised_host(config);
    let endpoint = |kind: &str, port: u16| meta::Endpoint {
        kind: kind.to_owned(),
        scheme: "http".to_owned(),
        host: host.clone(),
        port: u32::from(port),
    };
    let mut endpoints = vec![endpoint("http", ports.http), endpoint("internal", ports.internal)];
    endpoints.extend(ports.grpc.map(|port| endpoint("grpc", port)));
    meta::NodeRecord {
        node_id: id.to_string(),
        session: uuid::Uuid::new_v4().to_string(),
        node_type: config.node_type.as_str().to_owned(),
        endpoints,
        version: env!("CARGO_PKG_VERSION").to_owned(),
        zone: identity::zone(config),
        capacity_bytes: identity::capacity_bytes(&config.data_dir),
        protocol_min: 1,
        protocol_max: 1,
    }
}
