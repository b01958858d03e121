//! What the gateway counts.

use std::time::Instant;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;

use crate::telemetry::Metrics;

/// Latencies from half a millisecond to half a minute.
const BUCKETS: [f64; 13] = [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0, 30.0];

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RequestLabels {
    /// Template of the path, or the gRPC method: a closed set.
    route: &'static str,
    method: &'static str,
    code: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RouteLabels {
    route: &'static str,
}

#[derive(Clone)]
pub(super) struct GatewayMetrics {
    requests: Family<RequestLabels, Counter>,
    duration: Family<RouteLabels, Histogram>,
    in_flight: Gauge,
}

impl GatewayMetrics {
    pub(super) fn new(metrics: &Metrics) -> GatewayMetrics {
        let ours = GatewayMetrics {
            requests: Family::default(),
            duration: Family::new_with_constructor(|| Histogram::new(BUCKETS)),
            in_flight: Gauge::default(),
        };
        metrics.register(|registry| {
            registry.register("gateway_requests", "Requests by outcome", ours.requests.clone());
            registry.register("gateway_request_duration_seconds", "Time of requests", ours.duration.clone());
            registry.register("gateway_in_flight", "Requests under way", ours.in_flight.clone());
        });
        ours
    }

    /// One request begins; its end is counted by [`Observed::end`].
    pub(super) fn begin(&self, route: &'static str, method: &'static str) -> Observed<'_> {
        self.in_flight.inc();
        Observed { metrics: self, route, method, started: Instant::now(), code: "cancelled" }
    }
}

/// A request under way. One that is dropped without an end was cancelled by its caller.
pub(super) struct Observed<'m> {
    metrics: &'m GatewayMetrics,
    route: &'static str,
    method: &'static str,
    started: Instant,
    code: &'static str,
}

impl Observed<'_> {
    pub(super) fn end(mut self, code: &'static str) {
        self.code = code;
    }
}

impl Drop for Observed<'_> {
    fn drop(&mut self) {
        let (route, method, code) = (self.route, self.method, self.code);
        self.metrics.in_flight.dec();
        self.metrics.requests.get_or_create(&RequestLabels { route, method, code }).inc();
        let seconds = self.started.elapsed().as_secs_f64();
        self.metrics.duration.get_or_create(&RouteLabels { route }).observe(seconds);
    }
}
