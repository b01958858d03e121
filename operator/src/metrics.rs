//! What the operator counts.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

/// A reconcile that has not ended after this hangs: each of its calls has a deadline of its own.
const STUCK_AFTER: Duration = Duration::from_secs(300);

/// Counters of this operator. Cheap to clone.
#[derive(Clone)]
pub struct OperatorMetrics {
    registry: Arc<Registry>,
    reconciles: Counter,
    /// Reconciles that ended with an error.
    pub failures: Counter,
    seconds: Histogram,
    /// 1 while this operator leads.
    pub leading: Gauge,
    under_way: Arc<UnderWay>,
}

/// Reconciles under way, by number, with their start.
#[derive(Default)]
struct UnderWay {
    begun: AtomicU64,
    since: Mutex<BTreeMap<u64, Instant>>,
}

/// A reconcile under way; counted when dropped.
pub struct Timer<'m> {
    metrics: &'m OperatorMetrics,
    number: u64,
    started: Instant,
}

impl Default for OperatorMetrics {
    fn default() -> OperatorMetrics {
        let buckets = [0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0];
        let (reconciles, failures, leading) = (Counter::default(), Counter::default(), Gauge::default());
        let seconds = Histogram::new(buckets);
        let mut registry = Registry::with_prefix("vectorsphere_operator");
        registry.register("reconciles", "Reconciles", reconciles.clone());
        registry.register("reconcile_failures", "Reconciles that failed", failures.clone());
        registry.register("reconcile_duration_seconds", "Time of a reconcile", seconds.clone());
        registry.register("leading", "1 while this operator leads", leading.clone());
        let (registry, under_way) = (Arc::new(registry), Arc::default());
        OperatorMetrics { registry, reconciles, failures, seconds, leading, under_way }
    }
}

impl OperatorMetrics {
    /// A reconcile begins.
    pub fn begin(&self) -> Timer<'_> {
        let number = self.under_way.begun.fetch_add(1, Ordering::Relaxed);
        let started = Instant::now();
        self.under_way.lock().insert(number, started);
        Timer { metrics: self, number, started }
    }

    /// False when a reconcile has been under way for far too long.
    pub fn is_alive(&self) -> bool {
        self.none_longer_than(STUCK_AFTER)
    }

    fn none_longer_than(&self, longest: Duration) -> bool {
        self.under_way.lock().values().all(|started| started.elapsed() < longest)
    }

    /// All metrics as text.
    pub fn encode(&self) -> String {
        let mut text = String::new();
        encode(&mut text, &self.registry).expect("writing to a string does not fail");
        text
    }
}

impl UnderWay {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<u64, Instant>> {
        self.since.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Timer<'_> {
    fn drop(&mut self) {
        self.metrics.under_way.lock().remove(&self.number);
        self.metrics.reconciles.inc();
        self.metrics.seconds.observe(self.started.elapsed().as_secs_f64());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reconcile_that_hangs_shows_beside_others_that_end() {
        let metrics = OperatorMetrics::default();
        let hanging = metrics.begin();
        drop(metrics.begin());
        assert!(metrics.is_alive() && !metrics.none_longer_than(Duration::ZERO));
        drop(hanging);
        assert!(metrics.none_longer_than(Duration::ZERO));
        assert!(
            metrics.encode().contains("vectorsphere_operator_reconciles_total 2"),
            "{}",
            metrics.encode()
        );
    }
}
