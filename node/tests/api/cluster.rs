//! The cluster as a whole: statistics, slaves, restarts, probes, descriptions.

use std::collections::BTreeSet;
use std::time::Duration;

use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;
use tonic::Code;
use tonic::transport::Channel;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;
use tonic_reflection::pb::v1::ServerReflectionRequest;
use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
use tonic_reflection::pb::v1::server_reflection_response::MessageResponse;
use vectorsphere::app_launcher::{AppLauncher, LaunchError};
use vectorsphere_proto::v1 as proto;
use vectorsphere_proto::v1::cluster_service_client::ClusterServiceClient;
use vectorsphere_proto::v1::document_service_client::DocumentServiceClient;
use vectorsphere_proto::v1::table_service_client::TableServiceClient;

use super::ports::free_port;
use super::support::{Sandbox, refused};

fn documents(count: u32) -> Vec<Value> {
    (0..count).map(|i| json!({"document_id": i, "vector": [i, 1], "metadata": {"i": i}})).collect()
}

/// A gateway that was restarted said for a moment that no table exists: its clients took that for the truth.
#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_that_has_read_no_records_yet_does_not_call_tables_unknown() {
    let sandbox = Sandbox::start(1).await;
    let (free, free_grpc) = (free_port(), free_port());
    let ports = [("http_port", free.to_string()), ("default_port", free_grpc.to_string())];
    let config = sandbox.config_with("early", &ports);
    let stop = CancellationToken::new();
    // Nobody answers at the metadata store's address, so the node goes on starting.
    let starting = AppLauncher::new(config.subscribe()).start(stop.clone());
    let early = format!("http://127.0.0.1:{free}");
    let asking = async {
        sandbox.eventually_at(&format!("{early}/health"), |body| body.is_object()).await;
        for (method, path) in [("GET", ""), ("GET", "/t"), ("POST", "/t/search")] {
            let request = sandbox.request_at(method, &format!("{early}/api/v1/tables{path}"));
            let answer = sandbox.send(request).await;
            let told = (answer.status, &answer.body["code"]);
            assert_eq!(told, (503, &json!("not_ready")), "{path}: {}", answer.text);
            assert!(answer.headers.contains_key("retry-after"));
        }
        let endpoint = Channel::from_shared(format!("http://127.0.0.1:{free_grpc}")).expect("a URL");
        let channel = endpoint.connect().await.expect("gRPC is served");
        let request = proto::GetTableRequest { table_name: "t".to_owned() };
        let answer = TableServiceClient::new(channel.clone()).get_table(request).await;
        refused("a table", answer, Code::Unavailable, "not_ready", "");
        let request = proto::GetDocumentRequest { table_name: "t".to_owned(), ..Default::default() };
        let answer = DocumentServiceClient::new(channel.clone()).get_document(request).await;
        refused("a document", answer, Code::Unavailable, "not_ready", "");
        let status =
            ClusterServiceClient::new(channel).get_cluster_status(proto::GetClusterStatusRequest {}).await;
        status.expect("what a node knows of the cluster is told all the same");
        stop.cancel();
    };
    let (started, ()) = tokio::join!(starting, asking);
    assert!(matches!(started, Err(LaunchError::Stopped)));
}

#[tokio::test(flavor = "multi_thread")]
async fn statistics_count_what_is_there() {
    let sandbox = Sandbox::start(2).await;
    for name in ["a", "b"] {
        sandbox.table(name, 2, json!({"shards": 3})).await;
        sandbox.load(name, &documents(100)).await;
    }
    let ids: Vec<u32> = (0..40).collect();
    sandbox.call("POST", "/api/v1/tables/b/documents:delete", json!({"document_ids": ids})).await.ok(200);
    let table = sandbox.get("/api/v1/tables/b/stats").await.ok(200);
    let shards = table["shards"].as_array().expect("shards");
    assert_eq!((&table["documents"], &table["unavailable_shards"], shards.len()), (&json!(60), &json!(0), 3));
    for field in ["documents", "deleted_rows", "vector_bytes", "index_bytes", "indexed_rows", "disk_bytes"] {
        let sum: u64 = shards.iter().map(|shard| shard[field].as_u64().expect("a count")).sum();
        assert_eq!(table[field], sum, "{field}");
    }
    assert!(table["disk_bytes"].as_u64() > Some(0) && table["vector_bytes"].as_u64() > Some(0), "{table}");
    let cluster = sandbox.get("/api/v1/cluster/stats").await.ok(200);
    for (field, value) in [("nodes", 2), ("tables", 2), ("shards", 6), ("documents", 160)] {
        assert_eq!(cluster[field], value, "{field}");
    }
    let mut grpc = sandbox.grpc().await;
    let request = proto::GetTableStatisticsRequest { table_name: "b".to_owned() };
    let same = grpc.tables.get_table_statistics(request).await.expect("counted").into_inner();
    assert_eq!((same.documents, same.shards.len(), same.unavailable_shards), (60, 3, 0));
    assert_eq!(json!(same.deleted_rows), table["deleted_rows"]);
    let request = proto::GetClusterStatisticsRequest {};
    let same = grpc.cluster.get_cluster_statistics(request).await.expect("counted").into_inner();
    assert_eq!((same.nodes, same.tables, same.shards, same.documents), (2, 2, 6, 160));
    let status = grpc.cluster.get_cluster_status(proto::GetClusterStatusRequest {}).await.expect("known");
    let status = status.into_inner();
    assert_eq!((status.status.as_str(), status.nodes, status.shards), ("green", 2, 6));
    let nodes = grpc.cluster.list_nodes(proto::ListNodesRequest {}).await.expect("listed").into_inner().nodes;
    let ids: Vec<&str> = nodes.iter().map(|node| node.node_id.as_str()).collect();
    assert_eq!(ids, ["node-0", "node-1"]);
    assert!(ids.contains(&status.master_node_id.as_str()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slave_answers_health_and_metrics_alone() {
    let sandbox = Sandbox::with(&["master", "slave", "slave"], &[]).await;
    sandbox.table("t", 2, json!({"shards": 4, "replicas": 1})).await;
    sandbox.load("t", &documents(50)).await;
    assert_eq!(sandbox.hits("t", json!({"vector": [1, 1], "top_k": 50})).await.len(), 50);
    let nodes = sandbox.get("/api/v1/cluster/nodes").await.ok(200);
    let nodes = nodes["nodes"].as_array().expect("nodes");
    let roles: Vec<_> = nodes.iter().map(|node| &node["role"]).collect();
    assert_eq!(roles, ["Master", "slave", "slave"]);
    let shards: Vec<_> = nodes.iter().map(|node| &node["shards"]).collect();
    assert_eq!(shards, [0, 2, 2]);
    assert_eq!(sandbox.nodes[1].grpc_port, None);
    for (method, path) in sandbox.routes().await {
        let answer = sandbox.send(sandbox.request(1, &method, &path)).await;
        if ["/health", "/livez", "/readyz", "/metrics"].contains(&path.as_str()) {
            answer.ok(200);
        } else {
            answer.refused(&format!("{method} {path}"), 404, "route_not_found", "");
            assert!(answer.body["detail"].as_str().expect("text").contains("slave"), "{}", answer.text);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_of_all_nodes_keeps_tables_and_documents() {
    let mut sandbox = Sandbox::with(&["auto", "auto"], &[("checkpoint_log_bytes", "65536")]).await;
    sandbox.table("t", 2, json!({"metric": "l2", "shards": 4})).await;
    let filler = "x".repeat(2_000);
    let large: Vec<Value> = (0..300)
        .map(|i| json!({"document_id": i, "vector": [i, 1], "metadata": {"i": i, "filler": filler}}))
        .collect();
    sandbox.load("t", &large).await;
    let read = async |sandbox: &Sandbox| {
        let hits = sandbox.hits("t", json!({"vector": [7, 1], "top_k": 1_000, "with_metadata": true})).await;
        let list = sandbox.get("/api/v1/tables/t/documents?limit=1000&with_vector=true").await.ok(200);
        let list = list["documents"].clone();
        (sandbox.get("/api/v1/tables").await.ok(200), hits, list)
    };
    for round in 0..3 {
        let id = json!({"document_ids": [round * 10]});
        sandbox.call("POST", "/api/v1/tables/t/documents:delete", id).await.ok(200);
        let path = format!("/api/v1/tables/t/documents/{}", round * 10 + 1);
        sandbox.call("PATCH", &path, json!({"metadata": {"round": round}})).await.ok(200);
        let before = read(&sandbox).await;
        assert_eq!(before.1.len(), 299 - round);
        sandbox.restart().await;
        assert_eq!(read(&sandbox).await, before, "round {round}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_description_has_every_route_and_the_server_every_route_of_the_description() {
    let sandbox = Sandbox::start(1).await;
    sandbox.table("t", 2, json!({})).await;
    let routes = sandbox.routes().await;
    for (method, path) in &routes {
        let answer = sandbox.send(sandbox.request(0, method, path)).await;
        let code = answer.body["code"].as_str().unwrap_or_default();
        assert!(
            !["route_not_found", "method_not_allowed"].contains(&code),
            "{method} {path}: {}",
            answer.text
        );
        if method == "POST" && path.ends_with("/drain") {
            // A node that is emptied takes no new table.
            sandbox.send(sandbox.request(0, "DELETE", path)).await;
        }
        if (method.as_str(), path.as_str()) == ("DELETE", "/api/v1/tables/t") {
            sandbox.table("t", 2, json!({})).await;
        }
    }
    // What a path answers beyond its description would be in `Allow`.
    let paths: BTreeSet<&str> = routes.iter().map(|(_, path)| path.as_str()).collect();
    for path in paths {
        let described: BTreeSet<&str> =
            routes.iter().filter(|(_, other)| other == path).map(|(method, _)| method.as_str()).collect();
        let answer = sandbox.send(sandbox.request(0, "TRACE", path)).await;
        answer.refused(path, 405, "method_not_allowed", "");
        let allowed = answer.headers["allow"].to_str().expect("text").split(',').map(str::trim);
        // GET brings HEAD with it.
        let allowed: BTreeSet<&str> = allowed.filter(|method| *method != "HEAD").collect();
        assert_eq!(allowed, described, "{path}");
    }
    let description = sandbox.get("/openapi.json").await.ok(200);
    let committed = include_str!("../../../docs/reference/openapi.json");
    assert_eq!(description, serde_json::from_str::<Value>(committed).expect("JSON"));
    let mut ids = BTreeSet::new();
    for (path, operations) in description["paths"].as_object().expect("paths") {
        for (method, operation) in operations.as_object().expect("operations") {
            let id = operation["operationId"].as_str().expect("an id");
            assert!(ids.insert(id.to_owned()), "{id} is there twice");
            let problem = &operation["responses"]["default"]["content"]["application/problem+json"];
            assert!(problem.is_object(), "{method} {path} tells how it fails");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn probes_follow_the_life_of_a_node() {
    let mut sandbox = Sandbox::start(1).await;
    assert_eq!(sandbox.get("/livez").await.text, "ok\n");
    assert!(sandbox.get("/readyz?verbose").await.text.contains("[+] joined the cluster"));
    let metrics = sandbox.get("/metrics").await;
    assert!(metrics.text.ends_with("# EOF\n"), "OpenMetrics");
    assert!(metrics.text.contains("vectorsphere_gateway_requests_total"), "{}", metrics.text);
    // The health service follows readiness: it may be told a moment after REST.
    let mut health = HealthClient::new(sandbox.channel(0).await);
    let mut watch = health.watch(HealthCheckRequest::default()).await.expect("watched").into_inner();
    while watch.message().await.expect("told").expect("a status").status() != ServingStatus::Serving {}
    let status = health.check(HealthCheckRequest::default()).await.expect("known").into_inner();
    assert_eq!(status.status(), ServingStatus::Serving);
    // A node that stops says so before its connections end.
    let told = tokio::time::timeout(Duration::from_secs(20), async move {
        let last = watch.message().await.expect("told").expect("a status");
        drop((watch, health));
        last.status()
    });
    let (in_time, last) = tokio::join!(sandbox.nodes.remove(0).stop(), told);
    assert_eq!((in_time, last), (true, Ok(ServingStatus::NotServing)));
}

#[tokio::test(flavor = "multi_thread")]
async fn reflection_lists_the_public_services() {
    let sandbox = Sandbox::start(1).await;
    let mut client = ServerReflectionClient::new(sandbox.channel(0).await);
    let list = MessageRequest::ListServices(String::new());
    let request = ServerReflectionRequest { host: String::new(), message_request: Some(list) };
    let mut answers =
        client.server_reflection_info(futures::stream::iter([request])).await.expect("served").into_inner();
    let answer = answers.message().await.expect("answered").expect("an answer").message_response;
    let Some(MessageResponse::ListServicesResponse(list)) = answer else { panic!("{answer:?}") };
    let names: BTreeSet<String> = list.service.into_iter().map(|service| service.name).collect();
    for name in ["ClusterService", "DocumentService", "SearchService", "TableService"] {
        assert!(names.contains(&format!("vectorsphere.v1.{name}")), "{names:?}");
    }
    // Services that no client can reach are not advertised to them.
    assert!(!names.iter().any(|name| name.contains("internal")), "{names:?}");
}
