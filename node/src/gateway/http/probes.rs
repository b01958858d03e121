//! Health and metrics of this node; they need no table, and the probes no credentials.

use std::sync::LazyLock;

use axum::Json;
use axum::extract::{RawQuery, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use utoipa::ToSchema;

use super::super::ApiGateway;

#[derive(Serialize, ToSchema)]
#[schema(as = Health)]
pub(super) struct HealthBody {
    /// healthy, or not_ready.
    status: &'static str,
}

/// The process lives. Never depends on anything outside of it.
#[utoipa::path(get, path = "/livez", tag = "probes", responses((status = 200, body = String)))]
pub(super) async fn livez() -> &'static str {
    "ok\n"
}

/// This node wants requests; `?verbose` says what it waits for.
#[utoipa::path(get, path = "/readyz", tag = "probes",
    responses((status = 200, body = String), (status = 503, body = String)))]
pub(super) async fn readyz(State(gateway): State<ApiGateway>, RawQuery(query): RawQuery) -> Response {
    let readiness = &gateway.parts().readiness;
    let status = if readiness.is_ready() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    if query.is_none_or(|query| !query.contains("verbose")) {
        let text = if status == StatusCode::OK { "ok\n" } else { "not ready, ?verbose says why\n" };
        return (status, text).into_response();
    }
    let lines = readiness.conditions().into_iter().map(|(condition, holds)| {
        let mark = if holds { '+' } else { '-' };
        format!("[{mark}] {condition}\n")
    });
    (status, lines.collect::<String>()).into_response()
}

/// The same as `/readyz`, as JSON.
#[utoipa::path(get, path = "/health", tag = "probes",
    responses((status = 200, body = HealthBody), (status = 503, body = HealthBody)))]
pub(super) async fn health(State(gateway): State<ApiGateway>) -> (StatusCode, Json<HealthBody>) {
    match gateway.parts().readiness.is_ready() {
        true => (StatusCode::OK, Json(HealthBody { status: "healthy" })),
        false => (StatusCode::SERVICE_UNAVAILABLE, Json(HealthBody { status: "not_ready" })),
    }
}

/// This description of the REST API.
#[utoipa::path(get, path = "/openapi.json", tag = "probes",
    responses((status = 200, content_type = "application/json", body = Object)))]
pub(super) async fn description() -> impl IntoResponse {
    static DESCRIPTION: LazyLock<String> = LazyLock::new(super::openapi);
    ([("content-type", "application/json")], DESCRIPTION.as_str())
}

/// Metrics in the OpenMetrics text format.
#[utoipa::path(get, path = "/metrics", tag = "probes", responses((status = 200, body = String)))]
pub(super) async fn metrics(State(gateway): State<ApiGateway>) -> impl IntoResponse {
    let content_type = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    ([("content-type", content_type)], gateway.parts().metrics.encode())
}
