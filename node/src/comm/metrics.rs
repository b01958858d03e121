//! Metrics of calls to other nodes.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

/// Metrics of calls to other nodes. Clones are the same metrics; the default belongs to no registry.
#[derive(Clone, Debug, Default)]
pub struct CommMetrics {
    errors: Family<CallLabels, Counter>,
    /// Nodes that do not answer probes.
    pub(super) suspects: Gauge,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct CallLabels {
    call: &'static str,
}

impl CommMetrics {
    /// Enters the metrics into `registry` (whose prefix is `vectorsphere`).
    pub fn register(&self, registry: &mut Registry) {
        let registry = registry.sub_registry_with_prefix("comm");
        registry.register("errors", "Calls that failed or were not answered in time", self.errors.clone());
        registry.register("suspects", "Nodes that do not answer probes", self.suspects.clone());
    }

    /// A call, such as `probe`, failed.
    pub(super) fn failed(&self, call: &'static str) {
        self.errors.get_or_create(&CallLabels { call }).inc();
    }
}
