//! Metrics of routed calls.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;

use super::traffic::ReadKind;

/// Metrics of routed calls. Clones are the same metrics; the default belongs to no registry.
#[derive(Clone, Debug, Default)]
pub struct RouterMetrics {
    hedges: Family<HedgeLabels, Counter>,
    /// Reads that were sent to another replica because one failed.
    pub(super) failovers: Counter,
    /// Writes that were sent again because nobody knows what became of them.
    pub(super) repeated_writes: Counter,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct HedgeLabels {
    call: &'static str,
    /// Whether the second replica answered first.
    won: &'static str,
}

impl RouterMetrics {
    /// Enters the metrics into `registry` (whose prefix is `vectorsphere`).
    pub fn register(&self, registry: &mut Registry) {
        let registry = registry.sub_registry_with_prefix("router");
        let (hedges, failovers) = (self.hedges.clone(), self.failovers.clone());
        registry.register("hedges", "Reads sent to a second replica because the first was slow", hedges);
        registry.register("failovers", "Reads sent to another replica because one failed", failovers);
        let repeated = self.repeated_writes.clone();
        registry.register("repeated_writes", "Writes sent again because their outcome was unknown", repeated);
    }

    /// A read was sent to a second replica, which answered first, or not.
    pub(super) fn hedged(&self, kind: ReadKind, won: bool) {
        let won = if won { "yes" } else { "no" };
        self.hedges.get_or_create(&HedgeLabels { call: kind.as_str(), won }).inc();
    }
}
