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
