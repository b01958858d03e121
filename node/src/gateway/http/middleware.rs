//! What every REST call passes: an id, the door, a time limit, and the form of its errors.

use std::net::SocketAddr;
use std::panic::AssertUnwindSafe;
use std::time::Duration;

use axum::extract::{ConnectInfo, MatchedPath, Request, State};
use axum::http::header::{ALLOW, AUTHORIZATION};
use axum::http::{HeaderName, HeaderValue, Method};
use axum::middleware::Next;
use axum::response::Response;
use futures::FutureExt;
use tracing::{Instrument, debug, error, info_span};

use super::super::limits::REQUEST_ID_BYTES_MAX;
use super::super::{Admitted, ApiGateway, new_request_id};
use super::problem::render;
use crate::error_code::{Error, ErrorCode};

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// A body that does not arrive, or a handler that does not end, is given up this long after the deadline.
const OVERTIME: Duration = Duration::from_secs(1);
/// Paths whose answers depend on the cluster's records.
const TABLES: &str = "/api/v1/tables";
/// Paths that need no credentials.
const PROBES: [&str; 3] = ["/livez", "/readyz", "/health"];

pub(super) async fn pass_the_door(
    State(gateway): State<ApiGateway>,
    request: Request,
    next: Next,
) -> Response {
    let request_id = request_id(&request);
    let route = route_of(&request);
    let observed = gateway.door().metrics.begin(route, method_of(&request));
    let span = info_span!("request", request_id, route);
    let answer = answer(&gateway, request, next, &request_id, route).instrument(span).await;
    let mut response = match answer {
        Ok(response) => match response.extensions().get::<Error>() {
            Some(error) => {
                let mut problem = render(error, &request_id);
                if let Some(methods) = response.headers().get(ALLOW) {
                    problem.headers_mut().insert(ALLOW, methods.clone());
                }
                observed.end(error.code.as_str());
                problem
            }
            None => {
                observed.end("ok");
                response
            }
        },
        Err(error) => {
            observed.end(error.code.as_str());
            render(&error, &request_id)
        }
    };
    if let Ok(value) = HeaderValue::from_str(&request_id) {
        response.headers_mut().insert(REQUEST_ID, value);
    }
    response
}

async fn answer(
    gateway: &ApiGateway,
    mut request: Request,
    next: Next,
    request_id: &str,
    route: &'static str,
) -> Result<Response, Error> {
    if PROBES.contains(&route) {
        return Ok(next.run(request).await);
    }
    let authorization = request.headers().get(AUTHORIZATION).and_then(|value| value.to_str().ok());
    let peer = request.extensions().get::<ConnectInfo<SocketAddr>>().map(|info| info.0.ip());
    let (caller, _inside) = gateway.door().enter(authorization, peer)?;
    if route.starts_with(TABLES) {
        gateway.check_tables_are_known()?;
    }
    request.extensions_mut().insert(Admitted { caller, request_id: request_id.to_owned() });
    let limit = gateway.config().task_timeout.max(asked_timeout(&request)) + OVERTIME;
    match tokio::time::timeout(limit, AssertUnwindSafe(next.run(request)).catch_unwind()).await {
        Ok(Ok(response)) => {
            debug!(status = response.status().as_u16(), "answered");
            Ok(response)
        }
        Ok(Err(_)) => {
            error!("a handler panicked");
            Err(Error::new(ErrorCode::Internal, "a bug of the server ended this request; its log says more"))
        }
        Err(_) => {
            Err(Error::new(ErrorCode::DeadlineExceeded, "the request was not finished before its deadline"))
        }
    }
}

fn asked_timeout(request: &Request) -> Duration {
    let header = request.headers().get("x-request-timeout").and_then(|value| value.to_str().ok());
    let seconds = header.and_then(|text| text.trim().parse::<f64>().ok()).unwrap_or(0.0);
    super::super::validate::timeout(Duration::try_from_secs_f64(seconds).unwrap_or_default())
}

/// The caller's id if it is short and plain, else a new one.
fn request_id(request: &Request) -> String {
    let given = request.headers().get(REQUEST_ID).and_then(|value| value.to_str().ok());
    let plain = |id: &&str| {
        let fits = (1..=REQUEST_ID_BYTES_MAX).contains(&id.len());
        fits && id.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.:/".contains(&b))
    };
    given.filter(plain).map_or_else(new_request_id, str::to_owned)
}

/// The template of the path, for metrics and logs: a closed set.
fn route_of(request: &Request) -> &'static str {
    const ROUTES: [&str; 21] = [
        "/livez",
        "/readyz",
        "/health",
        "/metrics",
        "/openapi.json",
        "/api/v1/tables",
        "/api/v1/tables/{table}",
        "/api/v1/tables/{table}/stats",
        "/api/v1/tables/{table}/documents",
        "/api/v1/tables/{table}/documents:delete",
        "/api/v1/tables/{table}/documents/{document_id}",
        "/api/v1/tables/{table}/search",
        "/api/v1/tables/{table}/search:batch",
        "/api/v1/tables/{table}/shards",
        super::shards::ACTIONS,
        "/api/v1/cluster/status",
        "/api/v1/cluster/nodes",
        "/api/v1/cluster/stats",
        "/api/v1/cluster/nodes/{node}/drain",
        "/api/v1/cluster/master:handover",
        "other",
    ];
    let matched = request.extensions().get::<MatchedPath>().map_or("other", |path| path.as_str());
    ROUTES.into_iter().find(|route| *route == matched).unwrap_or("other")
}

fn method_of(request: &Request) -> &'static str {
    match *request.method() {
        Method::GET => "GET",
        Method::POST => "POST",
        Method::PUT => "PUT",
        Method::PATCH => "PATCH",
        Method::DELETE => "DELETE",
        _ => "other",
    }
}
