//! Probes and metrics of the operator.

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::IntoResponse;
use axum::routing::get;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::metrics::OperatorMetrics;

/// Serves until `cancel`.
///
/// # Errors
/// When the listener fails.
pub async fn serve(
    listener: TcpListener,
    metrics: OperatorMetrics,
    cancel: CancellationToken,
) -> std::io::Result<()> {
    let routes = Router::new()
        .route("/livez", get(livez))
        // A standby is ready too: it takes over when the leader goes.
        .route("/readyz", get(async || "ok\n"))
        .route("/metrics", get(encoded))
        .with_state(metrics);
    axum::serve(listener, routes).with_graceful_shutdown(cancel.cancelled_owned()).await
}

async fn livez(State(metrics): State<OperatorMetrics>) -> (StatusCode, &'static str) {
    match metrics.is_alive() {
        true => (StatusCode::OK, "ok\n"),
        false => (StatusCode::INTERNAL_SERVER_ERROR, "a reconcile hangs\n"),
    }
}

async fn encoded(State(metrics): State<OperatorMetrics>) -> impl IntoResponse {
    let content_type = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    ([("content-type", content_type)], metrics.encode())
}
