//! Errors as problem documents (RFC 9457).

use axum::body::Body;
use axum::http::header::{CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use utoipa::ToSchema;

use crate::error_code::{Error, ErrorCode};

/// An error on its way out; the middleware, which knows the request's id, writes the body.
#[derive(Debug)]
pub(super) struct Problem(pub(super) Error);

/// A problem document, `application/problem+json`.
#[derive(Serialize, ToSchema)]
#[schema(as = Problem)]
pub(super) struct ProblemBody<'a> {
    /// URN of the code.
    #[serde(rename = "type")]
    kind: String,
    /// The same for every error of this code.
    title: &'static str,
    /// The HTTP status.
    status: u16,
    /// What happened to what.
    detail: &'a str,
    /// A stable word for programs.
    code: &'static str,
    /// Also in the header `X-Request-Id` and in the log.
    request_id: &'a str,
    /// Every broken rule, for `invalid_argument`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    errors: Vec<ViolationBody<'a>>,
    /// When a retry is worth it.
    #[serde(skip_serializing_if = "Option::is_none")]
    retry_after_ms: Option<u64>,
}

#[derive(Serialize, ToSchema)]
#[schema(as = Violation)]
pub(super) struct ViolationBody<'a> {
    /// JSON pointer into the request.
    pointer: &'a str,
    /// What was wrong and what is allowed.
    message: &'a str,
}

impl From<Error> for Problem {
    fn from(error: Error) -> Problem {
        Problem(error)
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let mut response = StatusCode::from_u16(self.0.code.http_status())
            .unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
            .into_response();
        // `Error` is shared, so that the extension can be cloned.
        response.extensions_mut().insert(self.0);
        response
    }
}

/// The whole response to a request that failed.
pub(super) fn render(error: &Error, request_id: &str) -> Response {
    let violations =
        error.violations.iter().map(|v| ViolationBody { pointer: &v.pointer, message: &v.message });
    let body = ProblemBody {
        kind: format!("urn:vectorsphere:error:{}", error.code),
        title: error.code.title(),
        status: error.code.http_status(),
        detail: &error.message,
        code: error.code.as_str(),
        request_id,
        errors: violations.collect(),
        retry_after_ms: error.retry_after.map(|after| after.as_millis() as u64),
    };
    let body = serde_json::to_vec(&body).expect("strings and numbers are JSON");
    let mut response = Response::new(Body::from(body));
    *response.status_mut() =
        StatusCode::from_u16(error.code.http_status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
    if let Some(after) = error.retry_after {
        // Whole seconds: rounded up, or the retry would come too early.
        headers.insert(RETRY_AFTER, HeaderValue::from(after.as_millis().div_ceil(1000).max(1) as u64));
    }
    if error.code == ErrorCode::Unauthenticated {
        headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    }
    response
}
