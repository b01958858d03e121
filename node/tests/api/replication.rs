//! Shards with several copies.

use serde_json::{Value, json};

use crate::support::Sandbox;

fn documents(range: std::ops::Range<u32>) -> Vec<Value> {
    range.map(|i| json!({"document_id": format!("d{i}"), "vector": [i as f32, 1.0]})).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_write_is_on_the_disks_of_all_copies() {
    let sandbox = Sandbox::start(3).await;
    sandbox.table("t", 2, json!({"replicas": 3, "min_isr": 2, "shards": 4, "metric": "l2"})).await;
    let body = json!({"documents": documents(0..100)});
    let answer = sandbox.call("POST", "/api/v1/tables/t/documents", body).await.ok(200);
    assert_eq!((&answer["count"], &answer["durable_copies"]), (&json!(100), &json!(3)), "{answer}");
    for node in 0..3 {
        let request = sandbox.request(node, "GET", "/api/v1/tables/t/documents/d7");
        sandbox.send(request).await.ok(200);
    }
    let hits = sandbox.hits("t", json!({"vector": [50.2, 1.0], "top_k": 3})).await;
    let ids: Vec<&str> = hits.iter().map(|hit| hit["document_id"].as_str().expect("an id")).collect();
    assert_eq!(ids, ["d50", "d51", "d49"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_stops_loses_nothing_and_comes_back_in_sync() {
    let mut sandbox = Sandbox::start(3).await;
    sandbox.table("t", 2, json!({"replicas": 2, "min_isr": 1, "shards": 6, "metric": "l2"})).await;
    sandbox.load("t", &documents(0..200)).await;
    let stopped = sandbox.nodes.pop().expect("three nodes");
    assert!(stopped.stop().await, "in time");
    sandbox.load("t", &documents(200..400)).await;
    for document in ["d5", "d150", "d399"] {
        sandbox.get(&format!("/api/v1/tables/t/documents/{document}")).await.ok(200);
    }
    sandbox.restart_missing().await;
    sandbox.load("t", &documents(400..500)).await;
    let statistics = sandbox.get("/api/v1/tables/t/stats").await.ok(200);
    assert_eq!(statistics["documents"], 500, "{statistics}");
}

/// Steps: of three nodes with two copies of each shard one is drained: it keeps nothing, nobody leads on it, and every document
/// is there; then a copy is moved back by hand, once the drain is cancelled.
#[tokio::test(flavor = "multi_thread")]
async fn a_drained_node_is_emptied_and_a_copy_is_moved_by_hand() {
    let sandbox = Sandbox::start(3).await;
    sandbox.table("t", 2, json!({"replicas": 2, "shards": 3, "metric": "l2"})).await;
    sandbox.load("t", &documents(0..200)).await;
    const DRAIN: &str = "/api/v1/cluster/nodes/node-2/drain";
    sandbox.call("POST", DRAIN, json!({"reason": "new disks"})).await.ok(200);
    sandbox.eventually(0, DRAIN, |progress| progress["replicas"] == 0 && progress["primaries"] == 0).await;
    let statistics = sandbox.get("/api/v1/tables/t/stats").await.ok(200);
    assert_eq!((&statistics["documents"], &statistics["unavailable_shards"]), (&json!(200), &json!(0)));
    sandbox.request(0, "DELETE", DRAIN).send().await.expect("cancelled");
    let shards = sandbox.get("/api/v1/tables/t/shards").await.ok(200);
    let copies = shards["shards"][0]["replicas"].as_array().expect("copies");
    let staying = copies.iter().find(|copy| copy["role"] != "leaving").expect("one stays");
    let from = staying["node_id"].as_str().expect("a node");
    let moved = json!({"from": from, "to": "node-2"});
    let answer = sandbox.call("POST", "/api/v1/tables/t/shards/0:move", moved).await;
    // The even spread that begins by itself may be moving this very shard.
    assert!(answer.status == 200 || answer.status == 400, "{}", answer.text);
    sandbox
        .eventually(0, "/api/v1/cluster/status", |status| {
            status["under_replicated_shards"] == 0 && status["status"] == "green"
        })
        .await;
    sandbox.load("t", &documents(200..220)).await;
}
