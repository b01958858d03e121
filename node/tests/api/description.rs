//! The bodies and URLs of the original description, as they stand there.

use serde_json::{Value, json};

use super::support::Sandbox;

/// `[0.1, 0.2, 0.3, ...]`, 128 values.
fn vector() -> String {
    let values: Vec<String> = (1..=128).map(|i| format!("0.{}", i % 9 + 1)).collect();
    format!("[0.1, 0.2, 0.3, {}]", values[3..].join(", "))
}

#[tokio::test(flavor = "multi_thread")]
async fn the_examples_of_the_description_work_verbatim() {
    let sandbox = Sandbox::start(3).await;
    let table = r#"{
    "table_name": "my_vectors",
    "dimension": 128,
    "index_type": "flat"
  }"#;
    let created = sandbox.raw("POST", "/api/v1/tables", table).await.ok(201);
    assert_eq!(created["table_name"], "my_vectors");
    assert_eq!((&created["dimension"], &created["metric"]), (&json!(128), &json!("cosine")));
    assert_eq!((&created["replicas"], &created["min_isr"]), (&json!(2), &json!(1)));

    let document = format!(
        r#"{{
    "document_id": "doc1",
    "vector": {},
    "metadata": {{"title": "Example Document"}}
  }}"#,
        vector()
    );
    let written = sandbox.raw("POST", "/api/v1/tables/my_vectors/documents", document).await.ok(200);
    assert_eq!((&written["document_ids"], &written["count"]), (&json!(["doc1"]), &json!(1)));
    assert_eq!(written["durable_copies"], 2);
    assert!(written["session_token"].as_str().is_some_and(|token| !token.is_empty()));

    let search = format!(
        r#"{{
    "vector": {},
    "top_k": 10,
    "threshold": 0.8
  }}"#,
        vector()
    );
    let found = sandbox.raw("POST", "/api/v1/tables/my_vectors/search", search).await.ok(200);
    assert_eq!(found["hits"][0]["document_id"], "doc1");
    assert!((found["hits"][0]["score"].as_f64().expect("a score") - 1.0).abs() < 1e-12);
    assert_eq!(found["hits"].as_array().map(Vec::len), Some(1));

    let status = sandbox.get("/api/v1/cluster/status").await.ok(200);
    assert_eq!(
        (&status["status"], &status["nodes"], &status["tables"]),
        (&json!("green"), &json!(3), &json!(1))
    );
    assert!(status["master"]["epoch"].as_u64().is_some_and(|epoch| epoch > 0));
    let nodes = sandbox.get("/api/v1/cluster/nodes").await.ok(200);
    let nodes: Vec<&Value> = nodes["nodes"].as_array().expect("nodes").iter().collect();
    assert_eq!(nodes.iter().filter(|node| node["role"] == "Master").count(), 1);
    assert_eq!(nodes.iter().map(|node| node["shards"].as_u64().expect("a count")).sum::<u64>(), 16);
    assert!(nodes.iter().all(|node| node["endpoints"].as_array().map(Vec::len) == Some(3)), "{nodes:?}");
    assert_eq!(sandbox.get("/health").await.ok(200), json!({"status": "healthy"}));
}
