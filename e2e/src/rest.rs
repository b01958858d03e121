//! A client of VectorSphere's REST API, as small as the tests, the demo and the benchmarks need it.

use std::fmt;
use std::ops::Range;
use std::time::Duration;

use anyhow::Result;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::debian::Debian;
use crate::http;

/// A connection pool to one gateway or Service.
#[derive(Clone)]
pub struct RestClient {
    http: reqwest::Client,
    url: String,
    deadline: Option<Duration>,
}

/// An answer that is not a success.
#[derive(Debug, Deserialize)]
pub struct Problem {
    /// HTTP status.
    pub status: u16,
    /// The stable word.
    pub code: String,
    /// What happened.
    #[serde(default)]
    pub detail: String,
}

/// Why a call failed.
#[derive(Debug)]
pub enum CallError {
    /// The server said no.
    Problem(Problem),
    /// No whole answer came.
    Transport(reqwest::Error),
    /// The answer is not what the API promises.
    Garbled(String),
}

/// One hit.
#[derive(Clone, Debug, Deserialize)]
pub struct Hit {
    /// The document.
    pub document_id: String,
    /// Its score.
    pub score: f64,
    /// When asked for.
    #[serde(default)]
    pub metadata: Value,
}

/// A search's answer.
#[derive(Clone, Debug, Deserialize)]
pub struct SearchAnswer {
    /// Best first.
    pub hits: Vec<Hit>,
    /// Shards that did not answer.
    #[serde(default)]
    pub missing: Vec<Value>,
}

impl RestClient {
    /// A client of `url`, such as `http://127.0.0.1:8080`.
    ///
    /// # Errors
    /// When the HTTP client cannot be made.
    pub fn new(url: impl Into<String>, timeout: Duration) -> Result<RestClient> {
        Ok(RestClient { http: http::client(timeout)?, url: url.into(), deadline: None })
    }

    /// A client that opens a connection per call, so that every call is balanced anew by the Service before it.
    ///
    /// # Errors
    /// When the HTTP client cannot be made.
    pub fn without_reuse(url: impl Into<String>, timeout: Duration) -> Result<RestClient> {
        Ok(RestClient { http: http::client_without_reuse(timeout)?, url: url.into(), deadline: None })
    }

    /// The same client, which tells the server how long it waits.
    #[must_use]
    pub fn with_deadline(self, deadline: Duration) -> RestClient {
        RestClient { deadline: Some(deadline), ..self }
    }

    /// Sends a request and reads the JSON of its answer.
    ///
    /// # Errors
    /// A problem of the server, a broken connection, or an answer that is not JSON.
    pub async fn call<T: DeserializeOwned>(
        &self,
        method: reqwest::Method,
        path: &str,
        body: Option<Vec<u8>>,
    ) -> Result<T, CallError> {
        self.call_with_key(method, path, body, None).await
    }

    /// The same; a write with the key of an earlier one is that one, sent again.
    ///
    /// # Errors
    /// As [`RestClient::call`].
    pub async fn call_with_key<T: DeserializeOwned>(
        &self,
        method: reqwest::Method,
        path: &str,
        body: Option<Vec<u8>>,
        key: Option<&str>,
    ) -> Result<T, CallError> {
        let mut request = self.http.request(method, format!("{}{path}", self.url));
        if let Some(deadline) = self.deadline {
            request = request.header("x-request-timeout", deadline.as_secs_f64().to_string());
        }
        if let Some(key) = key {
            request = request.header("idempotency-key", key);
        }
        if let Some(body) = body {
            request = request.header("content-type", "application/json").body(body);
        }
        let answer = request.send().await.map_err(CallError::Transport)?;
        let success = answer.status().is_success();
        let bytes = answer.bytes().await.map_err(CallError::Transport)?;
        let garbled = |error: serde_json::Error| {
            CallError::Garbled(format!(
                "{error} in {:?}",
                String::from_utf8_lossy(&bytes[..bytes.len().min(200)])
            ))
        };
        if success {
            let text = if bytes.is_empty() { b"null" } else { &bytes[..] };
            serde_json::from_slice(text).map_err(garbled)
        } else {
            Err(CallError::Problem(serde_json::from_slice(&bytes).map_err(garbled)?))
        }
    }

    /// `GET path`.
    ///
    /// # Errors
    /// As [`RestClient::call`].
    pub async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, CallError> {
        self.call(reqwest::Method::GET, path, None).await
    }

    /// `POST path` with a JSON body.
    ///
    /// # Errors
    /// As [`RestClient::call`].
    pub async fn post<T: DeserializeOwned>(&self, path: &str, body: &Value) -> Result<T, CallError> {
        self.call(reqwest::Method::POST, path, Some(body.to_string().into_bytes())).await
    }

    /// Creates a table for the Debian set with one copy of each shard: what is lost is missed.
    ///
    /// # Errors
    /// As [`RestClient::call`].
    pub async fn create_table(&self, table: &str, dimension: usize, shards: u32) -> Result<Value, CallError> {
        let body = json!({"table_name": table, "dimension": dimension, "shards": shards, "replicas": 1});
        self.post("/api/v1/tables", &body).await
    }

    /// Upserts documents `range` of the Debian set in one batch.
    ///
    /// # Errors
    /// As [`RestClient::call`].
    pub async fn upsert(
        &self,
        table: &str,
        debian: &Debian,
        range: Range<usize>,
    ) -> Result<Value, CallError> {
        let body = batch(debian, range);
        self.call(reqwest::Method::POST, &format!("/api/v1/tables/{table}/documents"), Some(body)).await
    }

    /// Searches for a vector.
    ///
    /// # Errors
    /// As [`RestClient::call`].
    pub async fn search(&self, table: &str, vector: &[f32], top_k: usize) -> Result<SearchAnswer, CallError> {
        self.send_search(table, &SearchBody { vector, top_k, exact: false }).await
    }

    /// Searches for a vector among all rows: for checks of what is there.
    ///
    /// # Errors
    /// As [`RestClient::call`].
    pub async fn search_exactly(
        &self,
        table: &str,
        vector: &[f32],
        top_k: usize,
    ) -> Result<SearchAnswer, CallError> {
        self.send_search(table, &SearchBody { vector, top_k, exact: true }).await
    }

    async fn send_search(&self, table: &str, body: &SearchBody<'_>) -> Result<SearchAnswer, CallError> {
        let path = format!("/api/v1/tables/{table}/search");
        self.call(reqwest::Method::POST, &path, Some(json(body))).await
    }
}

#[derive(Serialize)]
struct SearchBody<'a> {
    vector: &'a [f32],
    top_k: usize,
    exact: bool,
}

#[derive(Serialize)]
struct BatchBody<'a> {
    documents: Vec<DocumentBody<'a>>,
}

#[derive(Serialize)]
struct DocumentBody<'a> {
    document_id: &'a str,
    vector: &'a [f32],
    metadata: &'a Map<String, Value>,
}

/// The body of an upsert of documents `range`.
#[must_use]
pub fn batch(debian: &Debian, range: Range<usize>) -> Vec<u8> {
    let documents = range.map(|index| {
        let (package, vector) = debian.document(index);
        DocumentBody { document_id: &package.name, vector, metadata: &package.metadata }
    });
    json(&BatchBody { documents: documents.collect() })
}

fn json(body: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(body).expect("strings and finite numbers are JSON")
}

impl SearchAnswer {
    /// Names and scores, for [`Debian::check`].
    #[must_use]
    pub fn pairs(&self) -> Vec<(String, f64)> {
        self.hits.iter().map(|hit| (hit.document_id.clone(), hit.score)).collect()
    }
}

impl CallError {
    /// The stable word, when the server answered with a problem.
    #[must_use]
    pub fn code(&self) -> Option<&str> {
        match self {
            CallError::Problem(problem) => Some(&problem.code),
            CallError::Transport(_) | CallError::Garbled(_) => None,
        }
    }
}

impl fmt::Display for CallError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            CallError::Problem(problem) => {
                write!(f, "{} {}: {}", problem.status, problem.code, problem.detail)
            }
            CallError::Transport(error) => write!(f, "no answer: {error}"),
            CallError::Garbled(what) => write!(f, "answer is not what the API promises: {what}"),
        }
    }
}

impl std::error::Error for CallError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            CallError::Transport(error) => Some(error),
            CallError::Problem(_) | CallError::Garbled(_) => None,
        }
    }
}
