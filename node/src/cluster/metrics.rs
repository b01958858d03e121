//! Metrics of this node's part in the cluster.

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

/// Metrics of this node's part in the cluster. Clones are the same metrics; the default belongs to no registry.
#[derive(Clone, Debug, Default)]
pub struct ClusterMetrics {
    /// 1 while this node is Master.
    pub is_master: Gauge,
    /// Its reign as Master; 0 while it is none.
    pub epoch: Gauge,
    /// Times that this node became Master.
    pub elections_won: Counter,
    /// 1 while this node's session is certain.
    pub has_session: Gauge,
    /// Sessions begun.
    pub sessions: Counter,
    /// Keep-alives of the session that were not answered.
    pub unanswered_keep_alives: Counter,
    /// Live nodes that this node sees.
    pub nodes: Gauge,
    /// Times that the watch on the metadata store ended or could not begin.
    pub watch_losses: Counter,
}

impl ClusterMetrics {
    /// Enters the metrics into `registry` (whose prefix is `vectorsphere`).
    pub fn register(&self, registry: &mut Registry) {
        let registry = registry.sub_registry_with_prefix("cluster");
        registry.register("is_master", "1 while this node is Master", self.is_master.clone());
        registry.register("epoch", "Reign of this node as Master, else 0", self.epoch.clone());
        registry.register("elections_won", "Times that this node became Master", self.elections_won.clone());
        registry.register("has_session", "1 while this node's session is certain", self.has_session.clone());
        registry.register("sessions", "Sessions begun", self.sessions.clone());
        let unanswered = self.unanswered_keep_alives.clone();
        registry.register(
            "unanswered_keep_alives",
            "Keep-alives of the session without an answer",
            unanswered,
        );
        registry.register("nodes", "Live nodes that this node sees", self.nodes.clone());
        registry.register(
            "watch_losses",
            "Ends of the watch on the metadata store",
            self.watch_losses.clone(),
        );
    }
}
