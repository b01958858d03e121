//! A small client of the REST API.

use std::time::Duration;

use anyhow::{Context as _, bail};
use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_TYPE};
use http::{HeaderValue, Method, Request, StatusCode, Uri};
use http_body_util::{BodyExt as _, Full};
use hyper_util::client::legacy::Client as HttpClient;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde_json::Value;

/// Longest time of one call: a hand-over waits for other nodes.
const LIMIT: Duration = Duration::from_secs(60);

/// Calls one server.
pub(super) struct Client {
    /// Without a slash at the end.
    server: String,
    authorization: Option<HeaderValue>,
    http: HttpClient<HttpConnector, Full<Bytes>>,
}

impl Client {
    /// A client of the server at a URL such as `http://127.0.0.1:8080`.
    pub(super) fn new(server: &str, token: Option<&str>) -> anyhow::Result<Client> {
        let url: Uri = server.parse().with_context(|| format!("--server {server} is no URL"))?;
        if url.scheme_str() != Some("http") || url.host().is_none() {
            bail!("--server {server} must be a URL such as http://127.0.0.1:8080");
        }
        let authorization = token.map(|token| {
            let mut header = HeaderValue::try_from(format!("Bearer {}", token.trim()))?;
            header.set_sensitive(true);
            anyhow::Ok(header)
        });
        let authorization = authorization.transpose().context("--token is no token")?;
        let http = HttpClient::builder(TokioExecutor::new()).build_http();
        Ok(Client { server: server.trim_end_matches('/').to_owned(), authorization, http })
    }

    pub(super) async fn get(&self, path: &str) -> anyhow::Result<Value> {
        self.call(Method::GET, path, Bytes::new()).await
    }

    pub(super) async fn post(&self, path: &str, body: Value) -> anyhow::Result<Value> {
        self.call(Method::POST, path, body.to_string().into()).await
    }

    pub(super) async fn delete(&self, path: &str) -> anyhow::Result<Value> {
        self.call(Method::DELETE, path, Bytes::new()).await
    }

    /// The answer's body; null when there is none.
    async fn call(&self, method: Method, path: &str, body: Bytes) -> anyhow::Result<Value> {
        let mut request = Request::builder().method(method).uri(format!("{}{path}", self.server));
        if !body.is_empty() {
            request = request.header(CONTENT_TYPE, "application/json");
        }
        if let Some(authorization) = &self.authorization {
            request = request.header(AUTHORIZATION, authorization);
        }
        let request = request.body(Full::new(body))?;
        let answer = async {
            let (head, body) = self.http.request(request).await?.into_parts();
            anyhow::Ok((head.status, body.collect().await?.to_bytes()))
        };
        let server = &self.server;
        let (status, text) = tokio::time::timeout(LIMIT, answer)
            .await
            .with_context(|| format!("{server} did not answer within {} s", LIMIT.as_secs()))?
            .with_context(|| format!("{server} cannot be reached"))?;
        read(status, &text)
    }
}

/// The body of an answer, or what its problem document says.
fn read(status: StatusCode, text: &[u8]) -> anyhow::Result<Value> {
    if text.is_empty() && status.is_success() {
        return Ok(Value::Null);
    }
    let body: Value = serde_json::from_slice(text).with_context(|| {
        format!("the server answered {status}, but not in JSON: is it a VectorSphere node?")
    })?;
    if status.is_success() {
        return Ok(body);
    }
    let (code, detail) = (body["code"].as_str(), body["detail"].as_str());
    bail!("{} ({})", detail.unwrap_or("refused"), code.unwrap_or(status.as_str()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_problem_is_told_in_its_own_words() {
        let refused =
            |status: StatusCode, text: &str| read(status, text.as_bytes()).expect_err("refused").to_string();
        let problem = r#"{"code": "no_master", "detail": "no Master is elected at present"}"#;
        let told = refused(StatusCode::SERVICE_UNAVAILABLE, problem);
        assert_eq!(told, "no Master is elected at present (no_master)");
        assert!(refused(StatusCode::OK, "<html>").contains("not in JSON"));
        assert_eq!(read(StatusCode::NO_CONTENT, b"").expect("fine"), Value::Null);
    }

    #[test]
    fn a_server_is_an_http_url() {
        for wrong in ["", "127.0.0.1:8080", "https://a:1", "ftp://a", "/api"] {
            assert!(Client::new(wrong, None).is_err(), "{wrong}");
        }
        assert!(Client::new("http://a:1/", Some("x.y.z")).is_ok());
        assert!(Client::new("http://a:1", Some("x\ny")).is_err());
    }
}
