//! A node that runs, and the order in which it stops.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use futures::future::BoxFuture;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::info;

use super::listeners::Ports;
use crate::config::Config;
use crate::ids::NodeId;
use crate::runtime::{Readiness, TaskGroup};
use crate::shard::IndexService;

/// Time beyond the grace of the requests in which everything else ends: shards close their logs.
const PARTS_GRACE: Duration = Duration::from_secs(10);
/// What handing all shards over may take.
const HAND_OVER_LIMIT: Duration = Duration::from_secs(3);
/// What resigning, or ending the session, may take at least, however late it is: they are bounded themselves.
const LEAVE_GRACE: Duration = Duration::from_secs(3);

/// A node that runs.
pub struct RunningNode {
    /// Its name.
    pub id: NodeId,
    /// Port of REST.
    pub http_port: u16,
    /// Port of the public gRPC API; `None` on slaves.
    pub grpc_port: Option<u16>,
    config: watch::Receiver<Arc<Config>>,
    /// Its replicas, when it holds any.
    pub(super) index_service: OnceLock<Arc<IndexService>>,
    pub(super) readiness: Readiness,
    /// The public API.
    pub(super) edge: TaskGroup,
    /// Requests of other nodes, and decisions.
    pub(super) core: TaskGroup,
    /// Replicas.
    pub(super) shards: TaskGroup,
    /// The view of the cluster, and the session.
    pub(super) base: TaskGroup,
}

impl RunningNode {
    /// Nothing runs yet.
    pub(super) fn new(id: NodeId, ports: Ports, config: watch::Receiver<Arc<Config>>) -> RunningNode {
        let group = || TaskGroup::new(CancellationToken::new());
        RunningNode {
            id,
            http_port: ports.http,
            grpc_port: ports.grpc,
            config,
            index_service: OnceLock::new(),
            readiness: Readiness::default(),
            edge: group(),
            core: group(),
            shards: group(),
            base: group(),
        }
    }

    /// Returns when a part of the node has ended although nobody told it to.
    pub async fn failed(&self) {
        tokio::select! {
            () = self.edge.cancellation().cancelled() => {}
            () = self.core.cancellation().cancelled() => {}
            () = self.shards.cancellation().cancelled() => {}
            () = self.base.cancellation().cancelled() => {}
        }
    }

    /// Stops in order, within the configured grace and ten seconds; `true` when everything ended in time.
    pub fn stop(self) -> BoxFuture<'static, bool> {
        Box::pin(self.drain())
    }

    async fn drain(self) -> bool {
        let grace = self.config.borrow().shutdown_grace;
        let requests_end = Instant::now() + grace;
        let all_end = requests_end + PARTS_GRACE;
        let leave = || Instant::now() + LEAVE_GRACE;
        info!(node = %self.id, ?grace, "stopping: no more requests");
        self.readiness.set("accepting requests", false);
        let edge_ended = end(&self.edge, requests_end).await;
        if let Some(shards) = self.index_service.get() {
            // While its replicas still answer each other: others lead then, and nobody has to find out that this node is gone.
            shards.leave_all(HAND_OVER_LIMIT).await;
        }
        let core_ended = end(&self.core, requests_end.max(leave())).await;
        let shards_ended = end(&self.shards, all_end).await;
        let base_ended = end(&self.base, all_end.max(leave())).await;
        info!(node = %self.id, "stopped");
        edge_ended && core_ended && shards_ended && base_ended
    }
}

async fn end(group: &TaskGroup, by: Instant) -> bool {
    group.cancellation().cancel();
    group.join(by.saturating_duration_since(Instant::now())).await
}
