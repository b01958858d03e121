//! What the operator counts.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

/// A leader that has not ended a reconcile for this long although it began one hangs.
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
    /// Start of the reconcile under way, in ms since 1970; 0: none.
    busy_since: Arc<AtomicU64>,
}

/// A reconcile under way; counted when dropped.
pub struct Timer<'m> {
    metrics: &'m OperatorMetrics,
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
        let busy_since = Arc::default();
        OperatorMetrics { registry: Arc::new(registry), reconciles, failures, seconds, leading, busy_since }
    }
}

impl OperatorMetrics {
    /// A reconcile begins.
    pub fn begin(&self) -> Timer<'_> {
        self.busy_since.store(now_ms(), Ordering::Relaxed);
        Timer { metrics: self, started: Instant::now() }
    }

    /// False when a reconcile has been under way for far too long.
    pub fn is_alive(&self) -> bool {
        let since = self.busy_since.load(Ordering::Relaxed);
        since == 0 || now_ms().saturating_sub(since) < STUCK_AFTER.as_millis() as u64
    }

    /// All metrics as text.
    pub fn encode(&self) -> String {
        let mut text = String::new();
        encode(&mut text, &self.registry).expect("writing to a string does not fail");
        text
    }
}

impl Drop for Timer<'_> {
    fn drop(&mut self) {
        self.metrics.busy_since.store(0, Ordering::Relaxed);
        self.metrics.reconciles.inc();
        self.metrics.seconds.observe(self.started.elapsed().as_secs_f64());
    }
}

fn now_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
}
