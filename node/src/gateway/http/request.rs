//! What handlers need of a request: its body within limits, its deadline, its query.

use std::time::Duration;

use axum::body::Body;
use axum::extract::FromRequestParts;
use axum::extract::path::ErrorKind;
use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{Path, Query};
use axum::http::header::{CONTENT_TYPE, EXPECT};
use axum::http::request::Parts;
use http_body_util::BodyExt as _;
use hyper::body::Body as _;
use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::super::limits::{BODY_BYTES_MAX, DISCARDED_BYTES_MAX};
use super::super::validate::ReadDraft;
use super::super::{Admitted, ApiGateway};
use super::problem::Problem;
use crate::error_code::{Error, ErrorCode};
use crate::router::RequestContext;

const TIMEOUT_HEADER: &str = "x-request-timeout";

/// Id and deadline of a request.
pub(super) struct Context(pub(super) RequestContext);

impl FromRequestParts<ApiGateway> for Context {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, gateway: &ApiGateway) -> Result<Context, Problem> {
        let admitted = parts.extensions.get::<Admitted>();
        let request_id = admitted.map(|admitted| admitted.request_id.clone()).unwrap_or_default();
        Ok(Context(gateway.context(request_id, asked_timeout(parts)?)))
    }
}

/// Seconds in `X-Request-Timeout`, fractions allowed.
fn asked_timeout(parts: &Parts) -> Result<Option<Duration>, Error> {
    let Some(header) = parts.headers.get(TIMEOUT_HEADER) else { return Ok(None) };
    let seconds = header.to_str().ok().and_then(|text| text.trim().parse::<f64>().ok());
    let timeout = seconds.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
    match timeout.filter(|timeout| !timeout.is_zero()) {
        Some(timeout) => Ok(Some(timeout)),
        None => Err(Error::invalid("/X-Request-Timeout", "X-Request-Timeout must be seconds, such as 2.5")),
    }
}

/// A path's names.
pub(super) type Names<T> = Result<Path<T>, PathRejection>;

/// The names of a path.
pub(super) fn names<T>(path: Names<T>) -> Result<T, Error> {
    match path {
        Ok(Path(names)) => Ok(names),
        Err(PathRejection::FailedToDeserializePathParams(why))
            if matches!(why.kind(), ErrorKind::InvalidUtf8InPathParam { .. }) =>
        {
            Err(Error::invalid("", "the path is not UTF-8 after percent-decoding"))
        }
        Err(why) => Err(Error::invalid("", format!("the path is not understood: {why}"))),
    }
}

/// The query of a URL.
pub(super) fn query<T: DeserializeOwned>(query: Result<Query<T>, QueryRejection>) -> Result<T, Error> {
    match query {
        Ok(Query(query)) => Ok(query),
        Err(why) => Err(Error::invalid("", format!("the query is not understood: {}", why.body_text()))),
    }
}

/// How a document or a page is read.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ReadQuery {
    pub(super) with_vector: Option<bool>,
    pub(super) limit: Option<u64>,
    #[serde(default)]
    pub(super) cursor: String,
    #[serde(default)]
    pub(super) consistency: String,
    pub(super) max_staleness_ms: Option<u64>,
    #[serde(default)]
    pub(super) session_token: String,
}

/// The version at which a document is deleted.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct VersionQuery {
    pub(super) if_version: Option<u64>,
}

impl ReadQuery {
    pub(super) fn read(&mut self) -> ReadDraft {
        ReadDraft {
            consistency: std::mem::take(&mut self.consistency),
            max_staleness_ms: self.max_staleness_ms,
            session_token: std::mem::take(&mut self.session_token),
        }
    }
}

/// A JSON body within its limit, or the empty object where there is no body.
pub(super) async fn json_body_or_empty(parts: &Parts, body: Body) -> Result<Vec<u8>, Error> {
    match body.is_end_stream() {
        true => Ok(b"{}".to_vec()),
        false => json_body(parts, body).await,
    }
}

/// A JSON body within its limit.
pub(super) async fn json_body(parts: &Parts, mut body: Body) -> Result<Vec<u8>, Error> {
    let content_type = parts.headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or("");
    let essence = content_type.split(';').next().unwrap_or("").trim().to_ascii_lowercase();
    if essence != "application/json" && !(essence.starts_with("application/") && essence.ends_with("+json")) {
        let message = format!("Content-Type is {content_type:?}, must be application/json");
        return Err(Error::new(ErrorCode::UnsupportedMediaType, message));
    }
    // A client that waits for leave to send is told at once. Any other one is busy sending, and would see a broken
    // connection instead of the answer, so some of the rest is read and forgotten.
    let waits = parts.headers.contains_key(EXPECT);
    let announced = body.size_hint().lower();
    if announced > (if waits { BODY_BYTES_MAX } else { DISCARDED_BYTES_MAX }) as u64 {
        return Err(too_large());
    }
    let (mut kept, mut received) = (Vec::new(), 0);
    while let Some(frame) = body.frame().await {
        let frame =
            frame.map_err(|error| Error::invalid("", format!("the body could not be read: {error}")))?;
        let Ok(data) = frame.into_data() else { continue };
        received += data.len();
        if received <= BODY_BYTES_MAX {
            kept.extend_from_slice(&data);
        } else if received <= DISCARDED_BYTES_MAX {
            kept = Vec::new();
        } else {
            break;
        }
    }
    if received > BODY_BYTES_MAX { Err(too_large()) } else { Ok(kept) }
}

fn too_large() -> Error {
    let message = format!("the body has more than {BODY_BYTES_MAX} bytes, send smaller batches");
    Error::new(ErrorCode::PayloadTooLarge, message)
}
