//! Who may call, and how often.

use std::time::{SystemTime, UNIX_EPOCH};

use jsonwebtoken::{EncodingKey, Header};
use prost::Message;
use serde_json::{Value, json};
use tonic::Code;
use tonic::client::Grpc;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::metadata::AsciiMetadataValue;
use tonic::transport::Channel;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;
use tonic_types::StatusExt as _;
use vectorsphere_proto::FILE_DESCRIPTOR_SET;

use super::support::{Sandbox, refused};

const SECRET: &str = "a secret of the tests, at least 32 bytes";
const AUTH: [(&str, &str); 2] = [("auth.enabled", "true"), ("auth.jwt_secret", SECRET)];
const OPEN: [&str; 3] = ["/health", "/livez", "/readyz"];

fn sign(secret: &str, claims: &Value) -> String {
    let key = EncodingKey::from_secret(secret.as_bytes());
    jsonwebtoken::encode(&Header::default(), claims, &key).expect("signed")
}

/// `Authorization` headers that must open nothing.
fn wrong_credentials() -> Vec<Option<String>> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs();
    let good = json!({"sub": "ann", "iat": now, "exp": now + 60});
    let with = |field: &str, value: Value| {
        let mut claims = good.clone();
        claims[field] = value;
        Some(format!("Bearer {}", sign(SECRET, &claims)))
    };
    let unsigned = "Bearer eyJhbGciOiJub25lIn0.eyJzdWIiOiJhIiwiaWF0IjoxLCJleHAiOjk5OTk5OTk5OTl9.";
    vec![
        None,
        Some("Bearer".to_owned()),
        Some("Basic YWRtaW46YWRtaW4=".to_owned()),
        Some(unsigned.to_owned()),
        Some(format!("Bearer {}", sign("another secret, also of at least 32 bytes", &good))),
        with("exp", json!(now - 30)),
        with("exp", json!(now + 7200)),
        with("exp", Value::Null),
        with("iat", json!(now + 600)),
        with("nbf", json!(now + 600)),
        with("sub", json!("")),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_valid_token_nothing_but_the_probes_is_open_over_rest() {
    let sandbox = Sandbox::with(&["auto"], &AUTH).await;
    sandbox.get("/api/v1/tables").await.ok(200);
    let mut routes = sandbox.routes().await;
    let unknown = [("GET", "/api/v1/unknown"), ("GET", "/"), ("PUT", "/metrics"), ("GET", "/console")];
    routes.extend(unknown.map(|(method, path)| (method.to_owned(), path.to_owned())));
    let client = reqwest::Client::new();
    for (method, path) in routes {
        let url = format!("http://127.0.0.1:{}{path}", sandbox.nodes[0].http_port);
        for header in wrong_credentials() {
            let mut request = client.request(method.parse().expect("a method"), &url);
            if let Some(header) = &header {
                request = request.header("authorization", header);
            }
            let answer = sandbox.send(request).await;
            let what = format!("{method} {path} {header:?}");
            if OPEN.contains(&path.as_str()) {
                assert_eq!(answer.status, 200, "{what}");
                continue;
            }
            answer.refused(&what, 401, "unauthenticated", "");
            assert_eq!(answer.headers["www-authenticate"], "Bearer", "{what}");
        }
    }
}

/// The parts of descriptors that name methods.
#[derive(Clone, PartialEq, Message)]
struct Files {
    #[prost(message, repeated, tag = "1")]
    file: Vec<File>,
}

#[derive(Clone, PartialEq, Message)]
struct File {
    #[prost(string, tag = "2")]
    package: String,
    #[prost(message, repeated, tag = "6")]
    service: Vec<Service>,
}

#[derive(Clone, PartialEq, Message)]
struct Service {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(message, repeated, tag = "2")]
    method: Vec<Method>,
}

#[derive(Clone, PartialEq, Message)]
struct Method {
    #[prost(string, tag = "1")]
    name: String,
}

/// Every method of the public API, as a path.
fn methods() -> Vec<String> {
    let files = Files::decode(FILE_DESCRIPTOR_SET).expect("descriptors").file;
    let public = files.iter().filter(|file| file.package == "vectorsphere.v1");
    let services = public.flat_map(|file| file.service.iter().map(|service| (&file.package, service)));
    let methods = services.flat_map(|(package, service)| {
        service.method.iter().map(move |method| format!("/{package}.{}/{}", service.name, method.name))
    });
    methods.collect()
}

/// Calls a method with an empty message.
async fn call(channel: &Channel, path: &str, authorization: Option<&str>) -> Result<(), tonic::Status> {
    let mut client = Grpc::new(channel.clone());
    client.ready().await.expect("connected");
    let mut request = tonic::Request::new(());
    if let Some(header) = authorization {
        let value: AsciiMetadataValue = header.parse().expect("ASCII");
        request.metadata_mut().insert("authorization", value);
    }
    let path: PathAndQuery = path.parse().expect("a path");
    let codec = tonic_prost::ProstCodec::<(), ()>::default();
    client.unary(request, path, codec).await.map(|_| ())
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_valid_token_nothing_but_health_is_open_over_grpc() {
    let sandbox = Sandbox::with(&["auto"], &AUTH).await;
    let channel = sandbox.channel(0).await;
    let mut paths = methods();
    assert!(paths.len() >= 14, "{paths:?}");
    paths.push("/grpc.reflection.v1.ServerReflection/ServerReflectionInfo".to_owned());
    paths.push("/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo".to_owned());
    for path in paths {
        for header in wrong_credentials() {
            let answer = call(&channel, &path, header.as_deref()).await;
            let status = answer.expect_err(&path);
            assert_eq!(status.code(), Code::Unauthenticated, "{path} {header:?}: {status:?}");
        }
    }
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs();
    let good = format!("Bearer {}", sign(SECRET, &json!({"sub": "ann", "iat": now, "exp": now + 60})));
    call(&channel, "/vectorsphere.v1.TableService/ListTables", Some(&good)).await.expect("a good token");
    let unknown = call(&channel, "/vectorsphere.v1.TableService/Unknown", None).await.expect_err("unknown");
    assert_eq!(unknown.code(), Code::Unimplemented);
    let health = HealthClient::new(channel).check(HealthCheckRequest::default()).await;
    health.expect("an orchestrator has no token");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_caller_over_its_rate_is_told_when_to_come_back() {
    let limits = [
        ("rate_limit.enabled", "true"),
        ("rate_limit.requests_per_second", "1"),
        ("rate_limit.burst_size", "5"),
    ];
    let sandbox = Sandbox::without_master(&["auto"], &limits).await;
    let mut told = None;
    for _ in 0..20 {
        let answer = sandbox.get("/api/v1/tables").await;
        if answer.status == 429 {
            told = Some(answer);
            break;
        }
        answer.ok(200);
    }
    let told = told.expect("twenty calls at once are over the rate");
    told.refused("over the rate", 429, "rate_limited", "");
    assert_eq!(told.headers["retry-after"], "1");
    assert!(
        told.body["retry_after_ms"].as_u64().is_some_and(|wait| (1..=1_000).contains(&wait)),
        "{}",
        told.text
    );
    // The same bucket, whatever the format; the probes are not counted. Replicas open shortly after the node has joined.
    sandbox.eventually(0, "/health", |answer| answer["status"] == "healthy").await;
    let mut grpc = sandbox.grpc().await;
    let answer = grpc.tables.list_tables(vectorsphere_proto::v1::ListTablesRequest {}).await;
    let retry = answer.as_ref().err().and_then(|status| status.get_details_retry_info());
    assert!(retry.is_some_and(|retry| retry.retry_delay.is_some()), "{answer:?}");
    refused("over the rate", answer, Code::ResourceExhausted, "rate_limited", "");
    for path in OPEN {
        sandbox.get(path).await.ok(200);
    }
}
