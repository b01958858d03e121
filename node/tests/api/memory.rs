//! What shards may hold in memory: said before, and refused with the numbers.

use serde_json::{Value, json};
use tonic::Code;
use vectorsphere_proto::v1 as proto;

use super::support::{Sandbox, refused};

const DIMENSION: usize = 256;
const DOCUMENTS: u32 = 6_000;

fn document(i: u32) -> Value {
    let vector: Vec<f64> = (0..DIMENSION).map(|value| f64::from(i * 31 + value as u32 * 7).sin()).collect();
    json!({"document_id": format!("{i:05}"), "vector": vector})
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_says_what_it_needs_and_one_that_does_not_fit_is_refused_with_the_arithmetic() {
    let sandbox = Sandbox::with(&["auto", "auto"], &[("memory_limit_bytes", "16777216")]).await;
    let body = |name: &str, documents: u64| {
        let settings =
            json!({"dimension": DIMENSION, "shards": 2, "replicas": 2, "expected_documents": documents});
        let mut body = json!({"table_name": name});
        body.as_object_mut().expect("an object").extend(settings.as_object().expect("an object").clone());
        body
    };
    let answer = sandbox.call("POST", "/api/v1/tables", body("large", 20_000)).await;
    answer.refused("too many documents", 507, "memory_full", "");
    let detail = answer.body["detail"].as_str().expect("a text");
    assert!(detail.contains("20000 documents") && detail.contains("2 of 2 slaves"), "{detail}");
    for count in [0, (1u64 << 40) + 1] {
        let answer = sandbox.call("POST", "/api/v1/tables", body("odd", count)).await;
        answer.refused("a count", 400, "invalid_argument", "/expected_documents");
    }
    let table = sandbox.call("POST", "/api/v1/tables", body("fits", 4_000)).await.ok(201);
    // A row of 1 KiB, its code of eight bits, 34 numbers of links and rows, and what stands beside.
    let million = table["memory_bytes_per_million"].as_u64().expect("a number");
    assert!((1_400_000_000..1_600_000_000).contains(&million), "{million}");
    let on_disk = json!({"table_name": "d", "dimension": DIMENSION, "rows": "disk"});
    let table = sandbox.call("POST", "/api/v1/tables", on_disk).await.ok(201);
    let less = table["memory_bytes_per_million"].as_u64().expect("a number");
    assert!((900_000_000..1_100_000_000).contains(&(million - less)), "{million}, on disk {less}");
    let request = proto::CreateTableRequest {
        table_name: "large".to_owned(),
        dimension: DIMENSION as u32,
        expected_documents: 1 << 30,
        ..Default::default()
    };
    let mut grpc = sandbox.grpc().await.tables;
    let answer = grpc.create_table(request).await;
    refused("too many documents", answer, Code::ResourceExhausted, "memory_full", "");
    let request = proto::GetTableRequest { table_name: "fits".to_owned() };
    let told = grpc.get_table(request).await.expect("there").into_inner().memory_bytes_per_million;
    assert_eq!(told, million);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_whose_shards_hold_what_they_may_takes_deletes_only() {
    let mut sandbox = Sandbox::with(&["auto"], &[("memory_limit_bytes", "4194304")]).await;
    sandbox.table("t", DIMENSION as u32, json!({"index_type": "flat", "shards": 1, "replicas": 1})).await;
    let path = "/api/v1/tables/t/documents";
    let mut refusal = None;
    for first in (0..DOCUMENTS).step_by(100) {
        let batch: Vec<Value> = (first..first + 100).map(document).collect();
        let answer = sandbox.call("POST", path, json!({"documents": batch})).await;
        if answer.status != 200 {
            refusal = Some((first, answer));
            break;
        }
    }
    let (written, answer) = refusal.expect("6,000 KiB of rows do not fit into 4 MiB");
    answer.refused("no memory", 507, "memory_full", "");
    assert!(written >= 2_000, "{written} documents were taken");
    let detail = answer.body["detail"].as_str().expect("a text");
    assert!(detail.contains("of 4194304 that shards may hold"), "{detail}");
    // Nothing of it was written; searches go on.
    assert_eq!(sandbox.get("/api/v1/tables/t/stats").await.ok(200)["documents"], written);
    let vector = document(7)["vector"].clone();
    assert_eq!(sandbox.hits("t", json!({"vector": vector, "top_k": 1})).await[0]["document_id"], "00007");
    // What is deleted makes room when its rows are merged away; a restart does not lose anything.
    sandbox.restart().await;
    sandbox.eventually(0, "/api/v1/tables/t/stats", |stats| stats["documents"] == written).await;
    let ids: Vec<String> = (0..1_000).map(|i| format!("{i:05}")).collect();
    sandbox.call("POST", &format!("{path}:delete"), json!({"document_ids": ids})).await.ok(200);
}
