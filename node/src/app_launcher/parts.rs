//! The parts of a node, bottom-up.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tonic::transport::Server;
use tonic_health::ServingStatus;
use tonic_health::pb::health_server::{Health, HealthServer};
use tracing::{error, info, warn};
use vectorsphere_index::Kernels;
use vectorsphere_proto::internal::catalog_service_server::CatalogServiceServer;
use vectorsphere_proto::internal::coordinator_service_server::CoordinatorServiceServer;
use vectorsphere_proto::internal::replication_service_server::ReplicationServiceServer;
use vectorsphere_proto::internal::shard_service_server::ShardServiceServer;
use vectorsphere_proto::keys::Keys;
use vectorsphere_proto::meta;

use super::join::{await_session, join, keep_seen, prove_disk, prove_store};
use super::listeners::Listeners;
use super::{LaunchError, RunningNode, identity, settings};
use crate::cluster::meta_store::ForwardOnly;
use crate::cluster::{
    ClusterMetrics, DistributedManager, HeldSession, NodeSession, Role, ServiceDiscovery, StepBack,
};
use crate::comm::{CommMetrics, CommunicationService, MESSAGE_BYTES_MAX};
use crate::config::Config;
use crate::coordinator::{CatalogRpc, Coordinator, CoordinatorRpc};
use crate::gateway::{self, ApiGateway, GatewayParts};
use crate::replication::{EtcdPolicy, Timing};
use crate::router::{Router, RouterMetrics};
use crate::runtime::acceptor::Acceptor;
use crate::runtime::disk::Disk;
use crate::runtime::network::{Listener, Network};
use crate::runtime::{ComputePool, machine_memory};
use crate::shard::{
    DiskThresholds, IndexService, IndexServiceParts, MemoryLedger, ReplicationRpc, ShardMetrics,
    ShardSettings,
};
use crate::storage::segment::{RowCache, RowCacheMetrics};
use crate::telemetry::Metrics;

/// How often the zone's file is looked at.
const ZONE_LOOK: Duration = Duration::from_secs(5);
/// Connections of other nodes at once.
const CONNECTIONS_MAX: usize = 8_192;
/// Calls that a node finds given up on one connection when it goes on after a standstill; beyond that it closes the connection.
const GIVEN_UP_CALLS_MAX: usize = 8_192;
/// Conditions of readiness.
const JOINED: &str = "joined the cluster";
const OPENED: &str = "opened its replicas";

/// What the parts of a node are built from.
pub(super) struct Parts<'n> {
    pub(super) node: &'n RunningNode,
    /// As it was at the start.
    pub(super) config: Arc<Config>,
    pub(super) live: watch::Receiver<Arc<Config>>,
    pub(super) keys: Keys,
    pub(super) store: Arc<ForwardOnly>,
    pub(super) disk: Arc<dyn Disk>,
    pub(super) network: Arc<dyn Network>,
    pub(super) kernels: Kernels,
    pub(super) metrics: Metrics,
    /// No earlier process can be running over the data directory.
    pub(super) predecessor_ended: bool,
}

impl Parts<'_> {
    /// Starts one part after the other; returns when the node is in the cluster.
    pub(super) async fn start(
        self,
        listeners: Listeners,
        stop: &CancellationToken,
    ) -> Result<(), LaunchError> {
        let (node, readiness) = (self.node, &self.node.readiness);
        let is_gateway = self.config.node_type.is_gateway();
        readiness.set(JOINED, false);
        let (cluster_metrics, comm_metrics) = (ClusterMetrics::default(), CommMetrics::default());
        let router_metrics = RouterMetrics::default();
        self.metrics.register(|registry| {
            cluster_metrics.register(registry);
            comm_metrics.register(registry);
            if is_gateway {
                router_metrics.register(registry);
            }
        });

        let discovery =
            Arc::new(ServiceDiscovery::new(self.store.clone(), self.keys.clone(), cluster_metrics.clone()));
        let (following, cancel) = (discovery.clone(), node.base.cancellation().clone());
        node.base.spawn("service discovery", async move { following.run(cancel).await });
        let channels = settings::channels(&self.config);
        let comm = Arc::new(CommunicationService::new(
            discovery.subscribe(),
            channels,
            self.network.clone(),
            comm_metrics,
        ));
        let router = || Router::new(discovery.subscribe(), comm.clone(), node.id.clone(), router_metrics);
        let gateway = ApiGateway::new(GatewayParts {
            router: is_gateway.then(router),
            discovery: discovery.clone(),
            config: self.live.clone(),
            readiness: readiness.clone(),
            metrics: self.metrics.clone(),
            node_id: node.id.clone(),
        });
        let ports = listeners.ports;
        let health = self.health().await;
        // Probes are answered from here on, and calls by what is known: no Master, no tables.
        node.edge.spawn("http", gateway::http::serve(gateway.clone(), listeners.http, node.edge.clone()));
        if let Some(grpc) = listeners.grpc {
            self.public_server(gateway, grpc, health.clone());
        }

        join(&*self.store, &self.keys, &*self.disk, readiness, &self.live, stop).await?;
        prove_store(&self.store, &self.keys, &*self.disk, readiness, &self.live, stop).await?;
        let cancel = node.base.cancellation().clone();
        let seen = keep_seen(self.store.clone(), self.disk.clone(), cancel);
        node.base.spawn("history of the metadata store", seen);
        let record = identity::node_record(&self.config, &node.id, &ports, &*self.disk);
        let (store, whose) = (&*self.store, (&self.keys, &node.id));
        prove_disk(store, whose, &*self.disk, &record.session, readiness, &self.live, stop).await?;
        let (announce, record) = watch::channel(record);
        let session = self.session(record.clone(), cluster_metrics.clone());
        let held = session.subscribe();
        let index_service = self
            .config
            .node_type
            .holds_shards()
            .then(|| self.index_service(&discovery, comm.clone(), held.clone()));
        let (role, step_back) = self.manager(&discovery, &record.borrow(), cluster_metrics);
        let coordinator = self.coordinator(discovery.clone(), comm.clone(), role, step_back);
        // Served as soon as it listens: nobody waits for a node that has not joined.
        let internal = listeners.internal.listen()?;
        self.internal_server(internal, coordinator, (discovery.clone(), comm.clone()), index_service, health);
        let cancel = node.base.cancellation().clone();
        node.base.spawn("node session", async move { session.run(cancel).await });
        self.zone(announce);
        if is_gateway {
            self.probes(comm);
        }
        await_session(&discovery, held, stop).await?;
        readiness.set(JOINED, true);
        info!(node = %node.id, http_port = ports.http, grpc_port = ?ports.grpc, "this node serves");
        Ok(())
    }

    /// The standard health service; it says what readiness says.
    async fn health(&self) -> HealthServer<impl Health> {
        let (reporter, service) = tonic_health::server::health_reporter();
        reporter.set_service_status("", ServingStatus::NotServing).await;
        let (readiness, cancel) = (self.node.readiness.clone(), self.node.base.cancellation().clone());
        self.node.base.spawn("gRPC health", async move {
            let tell = async |is_ready| {
                let status = if is_ready { ServingStatus::Serving } else { ServingStatus::NotServing };
                reporter.set_service_status("", status).await;
            };
            cancel.run_until_cancelled(readiness.follow(tell)).await;
        });
        service
    }

    fn public_server(
        &self,
        gateway: ApiGateway,
        listener: Box<dyn Listener>,
        health: HealthServer<impl Health>,
    ) {
        let cancel = self.node.edge.cancellation().clone();
        self.node.edge.spawn("gRPC", async move {
            if let Err(error) = gateway::grpc::serve(gateway, listener, health, cancel).await {
                error!(%error, "the gRPC server failed");
            }
        });
    }

    fn session(&self, record: watch::Receiver<meta::NodeRecord>, metrics: ClusterMetrics) -> NodeSession {
        let live = self.live.clone();
        let settings = move || settings::session(&live.borrow());
        NodeSession::new(self.store.clone(), self.keys.clone(), settings, record, metrics)
    }

    /// The candidate's part in the election; slaves have none.
    fn manager(
        &self,
        discovery: &ServiceDiscovery,
        record: &meta::NodeRecord,
        metrics: ClusterMetrics,
    ) -> (watch::Receiver<Role>, StepBack) {
        let live = self.live.clone();
        let manager = DistributedManager::new(
            self.store.clone(),
            self.keys.clone(),
            move || settings::election(&live.borrow()),
            meta::MasterCandidate {
                node_id: record.node_id.clone(),
                session: record.session.clone(),
                endpoints: record.endpoints.clone(),
            },
            discovery.subscribe(),
            metrics,
        );
        let (role, step_back) = (manager.subscribe(), manager.step_back());
        if self.config.node_type.is_gateway() {
            let cancel = self.node.core.cancellation().clone();
            self.node.core.spawn("election", async move { manager.run(cancel).await });
        }
        (role, step_back)
    }

    fn coordinator(
        &self,
        discovery: Arc<ServiceDiscovery>,
        comm: Arc<CommunicationService>,
        role: watch::Receiver<Role>,
        step_back: StepBack,
    ) -> Arc<Coordinator> {
        let (store, keys) = (self.store.clone(), self.keys.clone());
        let live = self.live.clone();
        let rereplicate_after = move || live.borrow().rereplicate_after;
        let coordinator =
            Arc::new(Coordinator::new(store, keys, discovery, comm, role, step_back, rereplicate_after));
        if self.config.node_type.is_gateway() {
            let (driven, cancel) = (coordinator.clone(), self.node.core.cancellation().clone());
            self.node.core.spawn("coordinator", async move { driven.run(cancel).await });
        }
        coordinator
    }

    fn index_service(
        &self,
        discovery: &ServiceDiscovery,
        comm: Arc<CommunicationService>,
        session: watch::Receiver<Option<HeldSession>>,
    ) -> Arc<IndexService> {
        let (node, mut live) = (self.node, self.live.clone());
        let (tell, checkpoint_log_bytes) = watch::channel(self.config.checkpoint_log_bytes);
        let cancel = node.base.cancellation().clone();
        node.base.spawn("shard settings", async move {
            while let Some(Ok(())) = cancel.run_until_cancelled(live.changed()).await {
                tell.send_replace(live.borrow_and_update().checkpoint_log_bytes);
            }
            // The receivers must not find the channel closed before they end themselves.
            cancel.cancelled().await;
        });
        if !self.predecessor_ended {
            self.outlive_predecessors(session.clone());
        }
        let (mut metrics, mut cache_metrics) = (None, None);
        self.metrics.register(|registry| {
            metrics = Some(ShardMetrics::register(registry));
            cache_metrics = Some(RowCacheMetrics::register(registry));
        });
        let cache_metrics = cache_metrics.expect("registered just now");
        let parts = IndexServiceParts {
            disk: self.disk.clone(),
            node_id: node.id.clone(),
            meta: self.store.clone(),
            keys: self.keys.clone(),
            view: discovery.subscribe(),
            session,
            kernels: self.kernels,
            compute: ComputePool::new(self.config.scheduler_worker_count),
            row_cache: RowCache::new(self.config.row_cache_bytes, cache_metrics),
            settings: ShardSettings {
                checkpoint_log_bytes,
                memory: MemoryLedger::new(memory_limit(self.config.memory_limit_bytes)),
                disk_thresholds: DiskThresholds::default(),
                policy: if self.config.is_failsafe { EtcdPolicy::Failsafe } else { EtcdPolicy::Strict },
                timing: Timing::with_readmission(self.config.readmission_pause),
                leaving_grace: self.config.leaving_grace,
                catch_up_bytes_per_second: self.config.catch_up_bytes_per_second,
                predecessor_ended: self.predecessor_ended,
            },
            comm,
            metrics: metrics.expect("registered just now"),
        };
        let service = Arc::new(IndexService::start(parts, node.shards.clone()));
        // Set once: parts are started once.
        let _ = node.index_service.set(service.clone());
        node.readiness.set(OPENED, false);
        let (mut all_opened, readiness) = (service.all_opened(), node.readiness.clone());
        let cancel = node.base.cancellation().clone();
        node.base.spawn_brief("opening of replicas", async move {
            let opened = cancel.run_until_cancelled(all_opened.wait_for(|all| *all)).await;
            if let Some(Ok(_)) = opened {
                readiness.set(OPENED, true);
            }
        });
        service
    }

    /// Once this process has been registered for as long as a session lasts, all earlier ones have noticed their end.
    fn outlive_predecessors(&self, mut session: watch::Receiver<Option<HeldSession>>) {
        let (disk, cancel) = (self.disk.clone(), self.node.base.cancellation().clone());
        self.node.base.spawn_brief("end of earlier processes", async move {
            let outlived = async {
                let is_registered = session.wait_for(Option::is_some).await.is_ok();
                tokio::time::sleep(Timing::default().session).await;
                is_registered
            };
            if cancel.run_until_cancelled(outlived).await == Some(true)
                && let Err(error) = identity::note_predecessors_ended(&*disk)
            {
                // The next process waits as this one did.
                warn!(%error, "the end of earlier processes could not be noted");
            }
        });
    }

    fn internal_server(
        &self,
        listener: Box<dyn Listener>,
        coordinator: Arc<Coordinator>,
        (discovery, comm): (Arc<ServiceDiscovery>, Arc<CommunicationService>),
        index_service: Option<Arc<IndexService>>,
        health: HealthServer<impl Health>,
    ) {
        let replicas = index_service.clone().map(|service| {
            ReplicationServiceServer::new(ReplicationRpc::new(service, self.node.core.cancellation().clone()))
                .max_decoding_message_size(MESSAGE_BYTES_MAX)
                .max_encoding_message_size(MESSAGE_BYTES_MAX)
        });
        let shards = index_service.map(|service| {
            ShardServiceServer::from_arc(service)
                .max_decoding_message_size(MESSAGE_BYTES_MAX)
                .max_encoding_message_size(MESSAGE_BYTES_MAX)
        });
        if let Some(shards) = &shards {
            comm.keep_calls_of(self.node.id.clone(), shards.clone());
        }
        let server = Server::builder()
            .http2_max_pending_accept_reset_streams(Some(GIVEN_UP_CALLS_MAX))
            .http2_keepalive_interval(Some(self.config.grpc_keepalive_time))
            .add_service(health)
            .add_service(CoordinatorServiceServer::new(CoordinatorRpc(coordinator)))
            .add_service(CatalogServiceServer::new(CatalogRpc { discovery, comm }))
            .add_optional_service(shards)
            .add_optional_service(replicas);
        let incoming = Acceptor::new("node to node gRPC", listener, CONNECTIONS_MAX).into_stream();
        let cancel = self.node.core.cancellation().clone();
        self.node.core.spawn("internal gRPC", async move {
            if let Err(error) = server.serve_with_incoming_shutdown(incoming, cancel.cancelled_owned()).await
            {
                error!(%error, "the internal gRPC server failed");
            }
        });
    }

    /// Gateways look whether the nodes answer.
    fn probes(&self, comm: Arc<CommunicationService>) {
        let (live, cancel) = (self.live.clone(), self.node.core.cancellation().clone());
        self.node.core.spawn("probes", async move {
            comm.probe_nodes(|| live.borrow().health_check_interval, cancel).await;
        });
    }

    /// Registers again when the zone's file gets content: an operator writes it after the pod has started.
    fn zone(&self, announce: watch::Sender<meta::NodeRecord>) {
        let (file, cancel) = (self.config.zone_file.clone(), self.node.base.cancellation().clone());
        self.node.base.spawn("zone", async move {
            // Without a file the record never changes, but its channel stays open.
            let Some(file) = file else { return cancel.cancelled().await };
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
}

/// Bytes that shards may hold: as configured, or four fifths of what the process may have.
fn memory_limit(configured: u64) -> u64 {
    match configured {
        0 => machine_memory().map_or(u64::MAX, |all| all / 5 * 4),
        limit => limit,
    }
}
