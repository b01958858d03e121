//! A cluster in this process, and clients of it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::future::{join_all, try_join_all};
use reqwest::header::HeaderMap;
use reqwest::{Body, Method, RequestBuilder};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;
use tonic::transport::Channel;
use tonic::{Code, Response, Status};
use tonic_types::StatusExt as _;
use vectorsphere::app_launcher::{AppLauncher, RunningNode};
use vectorsphere::cluster::MetaStore;
use vectorsphere::cluster::meta_store::EmbeddedStore;
use vectorsphere::config::{ConfigManager, Overrides};
use vectorsphere_proto::v1::cluster_service_client::ClusterServiceClient;
use vectorsphere_proto::v1::document_service_client::DocumentServiceClient;
use vectorsphere_proto::v1::search_service_client::SearchServiceClient;
use vectorsphere_proto::v1::table_service_client::TableServiceClient;

const PATIENCE: Duration = Duration::from_secs(30);

/// Nodes over one embedded metadata store, on ports that the system chose.
pub(crate) struct Sandbox {
    folder: TempDir,
    types: Vec<&'static str>,
    store: Option<Arc<dyn MetaStore>>,
    settings: Vec<(&'static str, String)>,
    pub(crate) nodes: Vec<RunningNode>,
    http: reqwest::Client,
    token: Option<String>,
}

/// What REST answered.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    /// `Null` when the body is no JSON.
    pub(crate) body: Value,
    pub(crate) text: String,
}

impl Sandbox {
    /// Nodes of type `auto` with a Master.
    pub(crate) async fn start(nodes: usize) -> Sandbox {
        Sandbox::with(&vec!["auto"; nodes], &[]).await
    }

    /// Nodes of these types, all with these settings, and a Master.
    pub(crate) async fn with(types: &[&'static str], settings: &[(&'static str, &str)]) -> Sandbox {
        let mut sandbox = Sandbox::without_master(types, settings).await;
        if let Some((_, secret)) = settings.iter().find(|(key, _)| *key == "auth.jwt_secret") {
            sandbox.token = Some(sandbox.token_of(secret));
        }
        sandbox.await_master().await;
        sandbox
    }

    /// As [`Sandbox::with`], without a single call to the API.
    pub(crate) async fn without_master(types: &[&'static str], settings: &[(&'static str, &str)]) -> Sandbox {
        // The client asks for one even when it speaks no TLS; another test may have installed it.
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let mut sandbox = Sandbox {
            folder: tempfile::tempdir().expect("a folder"),
            types: types.to_vec(),
            store: None,
            settings: settings.iter().map(|(key, value)| (*key, (*value).to_owned())).collect(),
            nodes: Vec::new(),
            http: reqwest::Client::new(),
            token: None,
        };
        sandbox.launch().await;
        sandbox
    }

    /// Starts the last node again, over its data.
    pub(crate) async fn restart_missing(&mut self) {
        let index = self.nodes.len();
        let launcher = AppLauncher::new(self.config(index, self.types[index]).subscribe());
        let store = self.store.clone().expect("nodes were launched");
        let started = launcher.with_store(store).start(CancellationToken::new()).await;
        self.nodes.push(started.expect("the node starts"));
    }

    async fn launch(&mut self) {
        // The store of an earlier launch goes first: its files are locked.
        self.store = None;
        let store = EmbeddedStore::open(&self.folder.path().join("meta")).expect("a store");
        let store: Arc<dyn MetaStore> = Arc::new(store);
        self.store = Some(store.clone());
        let started = self.types.iter().enumerate().map(|(index, node_type)| {
            let launcher = AppLauncher::new(self.config(index, node_type).subscribe());
            launcher.with_store(store.clone()).start(CancellationToken::new())
        });
        self.nodes = try_join_all(started).await.expect("every node starts");
    }

    fn config(&self, index: usize, node_type: &str) -> ConfigManager {
        self.config_with(&format!("node-{index}"), &[("node_type", node_type.to_owned())])
    }

    /// The configuration of a node of this name; `more` wins.
    pub(crate) fn config_with(&self, name: &str, more: &[(&'static str, String)]) -> ConfigManager {
        let data_dir = self.folder.path().join(name).display().to_string();
        let own = [
            ("node_id", name.to_owned()),
            ("bind_address", "127.0.0.1".to_owned()),
            ("advertise_address", "127.0.0.1".to_owned()),
            ("http_port", "0".to_owned()),
            ("default_port", "0".to_owned()),
            ("internal_port", "0".to_owned()),
            ("data_dir", data_dir),
            ("scheduler_worker_count", "2".to_owned()),
            // Never dialled, since the nodes share a store; types other than `auto` want one.
            ("etcd.endpoints", "127.0.0.1:1".to_owned()),
        ];
        let told: Vec<_> = self.settings.iter().chain(more).cloned().collect();
        let is_told = |key: &str| told.iter().any(|(other, _)| *other == key);
        let own: Vec<_> = own.into_iter().filter(|(key, _)| !is_told(key)).collect();
        let flags = own.into_iter().chain(told).map(|(key, value)| (key, value, "test"));
        ConfigManager::load(None, Overrides { environment: Vec::new(), flags: flags.collect() })
            .expect("a valid configuration")
    }

    /// Where a node keeps its data.
    pub(crate) fn data_folder(&self, node: usize) -> std::path::PathBuf {
        self.folder.path().join(format!("node-{node}"))
    }

    /// Stops every node in order and starts all of them over their data.
    pub(crate) async fn restart(&mut self) {
        for in_time in join_all(self.nodes.drain(..).map(RunningNode::stop)).await {
            assert!(in_time, "every part of a node ends in time");
        }
        self.launch().await;
        self.await_master().await;
    }

    /// Waits until every node sees a Master and all nodes.
    async fn await_master(&self) {
        let gateways = (0..self.nodes.len()).filter(|node| self.nodes[*node].grpc_port.is_some());
        for node in gateways {
            self.eventually(node, "/api/v1/cluster/status", |status| {
                status["master"].is_object() && status["nodes"] == self.nodes.len()
            })
            .await;
        }
    }

    /// Asks until the answer is as wanted.
    pub(crate) async fn eventually(&self, node: usize, path: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        self.eventually_at(&self.url(node, path), wanted).await
    }

    /// As [`Sandbox::eventually`], of a server that may not be there yet.
    pub(crate) async fn eventually_at(&self, url: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        let until = Instant::now() + PATIENCE;
        loop {
            let body = match self.request_at("GET", url).send().await {
                Ok(answer) => answer.json().await.unwrap_or_default(),
                Err(_) => Value::Null,
            };
            if wanted(&body) {
                return body;
            }
            assert!(Instant::now() < until, "{url} is still {body}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    fn token_of(&self, secret: &str) -> String {
        let hour = Duration::from_secs(3600);
        vectorsphere::gateway::auth::mint_token(&secret.to_owned().into(), "tester", hour).expect("minted")
    }

    fn url(&self, node: usize, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.nodes[node].http_port)
    }

    pub(crate) fn request(&self, node: usize, method: &str, path: &str) -> RequestBuilder {
        self.request_at(method, &self.url(node, path))
    }

    /// A request with this sandbox's token to any server.
    pub(crate) fn request_at(&self, method: &str, url: &str) -> RequestBuilder {
        let method: Method = method.parse().expect("a method");
        let request = self.http.request(method, url);
        match &self.token {
            Some(token) => request.bearer_auth(token),
            None => request,
        }
    }

    pub(crate) async fn send(&self, request: RequestBuilder) -> Answer {
        let answer = request.send().await.expect("an answer");
        let (status, headers) = (answer.status().as_u16(), answer.headers().clone());
        let text = answer.text().await.expect("a body");
        let body = serde_json::from_str(&text).unwrap_or_default();
        Answer { status, headers, body, text }
    }

    /// Sends a body, as JSON, to the first node.
    pub(crate) async fn raw(&self, method: &str, path: &str, body: impl Into<Body>) -> Answer {
        let request = self.request(0, method, path).header("content-type", "application/json").body(body);
        self.send(request).await
    }

    /// Asks the first node.
    pub(crate) async fn call(&self, method: &str, path: &str, body: Value) -> Answer {
        self.raw(method, path, body.to_string()).await
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.send(self.request(0, "GET", path)).await
    }

    /// Creates a table; more fields come from `more`.
    pub(crate) async fn table(&self, name: &str, dimension: u32, more: Value) {
        let mut body = json!({"table_name": name, "dimension": dimension});
        let fields = body.as_object_mut().expect("an object");
        fields.extend(more.as_object().cloned().unwrap_or_default());
        self.call("POST", "/api/v1/tables", body).await.ok(201);
    }

    /// Writes documents.
    pub(crate) async fn load(&self, table: &str, documents: &[Value]) {
        let path = format!("/api/v1/tables/{table}/documents");
        for batch in documents.chunks(500) {
            self.call("POST", &path, json!({"documents": batch})).await.ok(200);
        }
    }

    /// Searches; the hits.
    pub(crate) async fn hits(&self, table: &str, body: Value) -> Vec<Value> {
        let answer = self.call("POST", &format!("/api/v1/tables/{table}/search"), body).await.ok(200);
        answer["hits"].as_array().expect("hits").clone()
    }

    pub(crate) async fn channel(&self, node: usize) -> Channel {
        let port = self.nodes[node].grpc_port.expect("a gateway");
        let endpoint = Channel::from_shared(format!("http://127.0.0.1:{port}")).expect("a URL");
        endpoint.connect().await.expect("gRPC is served")
    }

    pub(crate) async fn grpc(&self) -> Grpc {
        let channel = self.channel(0).await;
        Grpc {
            tables: TableServiceClient::new(channel.clone()),
            documents: DocumentServiceClient::new(channel.clone()).max_decoding_message_size(128 << 20),
            search: SearchServiceClient::new(channel.clone()).max_decoding_message_size(128 << 20),
            cluster: ClusterServiceClient::new(channel),
        }
    }

    /// Every route that `/openapi.json` describes, as method and path, with names filled in.
    pub(crate) async fn routes(&self) -> Vec<(String, String)> {
        let description = self.get("/openapi.json").await.ok(200);
        let mut routes = Vec::new();
        for (path, operations) in description["paths"].as_object().expect("paths") {
            let named = [
                ("{table}", "t"),
                ("{document_id}", "d"),
                ("{shard}", "0"),
                ("{node}", "node-0"),
                ("{field}", "f"),
            ];
            let path = named.iter().fold(path.clone(), |path, (name, value)| path.replace(name, value));
            let methods = operations.as_object().expect("operations").keys();
            routes.extend(methods.map(|method| (method.to_uppercase(), path.clone())));
        }
        assert!(routes.len() > 15, "{routes:?}");
        routes
    }
}

/// Clients of the first node.
pub(crate) struct Grpc {
    pub(crate) tables: TableServiceClient<Channel>,
    pub(crate) documents: DocumentServiceClient<Channel>,
    pub(crate) search: SearchServiceClient<Channel>,
    pub(crate) cluster: ClusterServiceClient<Channel>,
}

impl Answer {
    /// The body, when the status is this one.
    pub(crate) fn ok(self, status: u16) -> Value {
        assert_eq!(self.status, status, "{}", self.text);
        self.body
    }

    /// Checks that this is a problem document with this code, whose first broken rule (if any) is at `pointer`.
    pub(crate) fn refused(&self, what: &str, status: u16, code: &str, pointer: &str) {
        let (text, body) = (&self.text, &self.body);
        assert_eq!(self.status, status, "{what}: {text}");
        assert_eq!(self.headers["content-type"], "application/problem+json", "{what}");
        assert_eq!(body["code"], code, "{what}: {text}");
        assert_eq!(body["status"], status, "{what}: {text}");
        assert_eq!(body["type"], format!("urn:vectorsphere:error:{code}"), "{what}");
        assert_eq!(self.headers["x-request-id"], body["request_id"].as_str().expect("an id"), "{what}");
        let detail = body["detail"].as_str().expect("a detail");
        assert!(!detail.is_empty() && detail.len() < 1_000, "{what}: {text}");
        let first = body["errors"][0]["pointer"].as_str().unwrap_or_default();
        assert_eq!(first, pointer, "{what}: {text}");
    }
}

/// Checks that a call was refused with this status, reason, and first broken rule.
pub(crate) fn refused<T: std::fmt::Debug>(
    what: &str,
    answer: Result<Response<T>, Status>,
    code: Code,
    reason: &str,
    field: &str,
) {
    let status = answer.expect_err(what);
    assert_eq!(status.code(), code, "{what}: {status:?}");
    let details = status.get_error_details();
    assert_eq!(details.error_info().map(|info| info.reason.as_str()), Some(reason), "{what}: {status:?}");
    let violation = details.bad_request().and_then(|request| request.field_violations.first());
    assert_eq!(violation.map_or("", |violation| violation.field.as_str()), field, "{what}: {status:?}");
}
