//! Tables whose documents say whose they are.

use serde_json::{Value, json};
use tonic::Code;
use vectorsphere_proto::v1 as proto;

use super::support::{Sandbox, refused};

const DOCUMENTS: &str = "/api/v1/tables/t/documents";

fn document(i: u32) -> Value {
    let owner = json!({"name": format!("tenant {}", i % 30)});
    json!({"document_id": i, "vector": [f64::from(i).sin(), f64::from(i).cos()], "metadata": {"owner": owner}})
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tenant_key_has_an_index_and_every_document_names_its_tenant() {
    let sandbox = Sandbox::start(2).await;
    sandbox.table("t", 2, json!({"tenant_key": "owner.name", "metadata_indexes": {"n": "integer"}})).await;
    let table = sandbox.get("/api/v1/tables/t").await.ok(200);
    assert_eq!(table["tenant_key"], "owner.name");
    assert_eq!(table["metadata_indexes"], json!({"n": "integer", "owner.name": "keyword"}));
    sandbox.load("t", &(0..300).map(document).collect::<Vec<_>>()).await;
    let of = |tenant: &str| json!({"must": [{"key": "owner.name", "match": {"value": tenant}}]});
    let hits = sandbox.hits("t", json!({"vector": [1, 0], "top_k": 100, "filter": of("tenant 7")})).await;
    let mut found: Vec<u32> = hits
        .iter()
        .map(|hit| hit["document_id"].as_str().expect("an id").parse().expect("a number"))
        .collect();
    found.sort_unstable();
    assert_eq!(found, (0..10).map(|i| 7 + 30 * i).collect::<Vec<_>>());

    // A write that does not say whose the document is changes nothing, wherever it comes from.
    let vector = json!([1, 0]);
    for metadata in [
        Value::Null,
        json!({}),
        json!({"owner": "tenant 1"}),
        json!({"owner": {"name": 1}}),
        json!({"owner": {"name": ""}}),
        json!({"owner": {"name": ["a", "b"]}}),
        json!({"owner": {"name": "x".repeat(257)}}),
    ] {
        let body = json!({"document_id": "new", "vector": vector, "metadata": metadata});
        let answer = sandbox.call("POST", DOCUMENTS, body.clone()).await;
        answer.refused(&metadata.to_string(), 400, "invalid_argument", "/metadata");
        let batch = json!({"documents": [document(900), body]});
        let answer = sandbox.call("POST", DOCUMENTS, batch).await;
        answer.refused(&metadata.to_string(), 400, "invalid_argument", "/documents/1/metadata");
        if metadata.is_object() {
            let answer =
                sandbox.call("PATCH", &format!("{DOCUMENTS}/7"), json!({"metadata": metadata})).await;
            answer.refused(&metadata.to_string(), 400, "invalid_argument", "/metadata");
        }
    }
    let stats = sandbox.get("/api/v1/tables/t/stats").await.ok(200);
    assert_eq!(stats["documents"], 300);
    let request = proto::UpdateMetadataRequest {
        table_name: "t".to_owned(),
        document_id: "7".to_owned(),
        metadata: Some(proto::Metadata::default()),
        ..Default::default()
    };
    let mut grpc = sandbox.grpc().await;
    let answer = grpc.documents.update_metadata(request).await;
    refused("no tenant", answer, Code::InvalidArgument, "invalid_argument", "/metadata");
    let moved = json!({"metadata": {"owner": {"name": "tenant 8"}}});
    sandbox.call("PATCH", &format!("{DOCUMENTS}/7"), moved).await.ok(200);
    let hits = sandbox.hits("t", json!({"vector": [1, 0], "top_k": 100, "filter": of("tenant 8")})).await;
    assert_eq!(hits.len(), 11);

    // Its index stays.
    let index = "/api/v1/tables/t/metadata_indexes/owner.name";
    let answer = sandbox.call("DELETE", index, Value::Null).await;
    answer.refused("the tenant key", 400, "invalid_argument", "/field");
    let answer = sandbox.call("PUT", index, json!({"type": "integer"})).await;
    answer.refused("the tenant key", 400, "invalid_argument", "/field");
    sandbox.call("PUT", index, json!({"type": "keyword"})).await.ok(200);
    for (options, pointer) in [
        (json!({"tenant_key": "a[]"}), "/tenant_key"),
        (json!({"tenant_key": "a..b"}), "/tenant_key"),
        (json!({"tenant_key": "a", "metadata_indexes": {"a": "bool"}}), "/metadata_indexes/a"),
    ] {
        let mut body = json!({"table_name": "u", "dimension": 2});
        body.as_object_mut().expect("an object").extend(options.as_object().expect("an object").clone());
        let answer = sandbox.call("POST", "/api/v1/tables", body).await;
        answer.refused(&options.to_string(), 400, "invalid_argument", pointer);
    }
}
