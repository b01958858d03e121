//! Tables whose values have two bytes.

use serde_json::{Value, json};
use tonic::Code;
use vectorsphere_index::{Metric, StorageType, norm, score};
use vectorsphere_proto::v1 as proto;

use super::support::{Sandbox, refused};

const DIMENSION: usize = 128;
const HALVES: [StorageType; 2] = [StorageType::F16, StorageType::Bf16];

/// Not one of its values is one that two bytes hold.
fn given(number: u32) -> Vec<f32> {
    let values = (0..DIMENSION as u32).map(|i| ((number * 131 + i * 7_919) % 9_973) as f32 / 9_973.0 - 0.51);
    values.collect()
}

fn stored(storage_type: StorageType, number: u32) -> Vec<f32> {
    let mut vector = given(number);
    storage_type.round(&mut vector).expect("small values");
    vector
}

fn documents(range: std::ops::Range<u32>) -> Vec<Value> {
    range.map(|i| json!({"document_id": i, "vector": given(i), "metadata": {"third": i % 3 == 0}})).collect()
}

fn floats(vector: &Value) -> Vec<f32> {
    let values = vector.as_array().expect("a vector").iter();
    values.map(|value| value.as_f64().expect("a number") as f32).collect()
}

/// Ids and scores of the best ten of `documents`.
fn best(query: &[f32], storage_type: StorageType, documents: impl Iterator<Item = u32>) -> Vec<Value> {
    let score_of = |number| {
        let vector = stored(storage_type, number);
        (score(Metric::L2, query, norm(query), &vector, norm(&vector)), number.to_string())
    };
    let mut all: Vec<(f64, String)> = documents.map(score_of).collect();
    all.sort_by(|a, b| a.0.total_cmp(&b.0).then_with(|| a.1.cmp(&b.1)));
    all[..10].iter().map(|(score, id)| json!({"document_id": id, "score": score})).collect()
}

/// Checks what every node returns and finds when `documents` are there.
async fn check(sandbox: &Sandbox, storage_type: StorageType, documents: &[u32]) {
    for node in 0..sandbox.nodes.len() {
        for number in documents.iter().step_by(97) {
            let path = format!("/api/v1/tables/t/documents/{number}");
            let got = sandbox.send(sandbox.request(node, "GET", &path)).await.ok(200);
            assert_eq!(floats(&got["vector"]), stored(storage_type, *number), "{storage_type:?} {number}");
        }
    }
    for number in [3, 500] {
        let query = given(number + 10_000);
        let hits = sandbox.hits("t", json!({"vector": query, "exact": true})).await;
        assert_eq!(hits, best(&query, storage_type, documents.iter().copied()), "{storage_type:?}");
        let filter = json!({"must": [{"key": "third", "match": {"value": true}}]});
        let hits = sandbox.hits("t", json!({"vector": query, "filter": filter, "with_vector": true})).await;
        let thirds = documents.iter().copied().filter(|number| number % 3 == 0);
        let expected = best(&query, storage_type, thirds);
        for (hit, expected) in hits.iter().zip(&expected) {
            assert_eq!((&hit["document_id"], &hit["score"]), (&expected["document_id"], &expected["score"]));
            let number = hit["document_id"].as_str().expect("text").parse().expect("a number");
            assert_eq!(floats(&hit["vector"]), stored(storage_type, number));
        }
        assert_eq!(hits.len(), 10);
    }
}

/// Steps: a node stops, others take writes and deletes until the log behind their checkpoints is gone, it comes back by a snapshot
/// and leads; then all nodes restart. After each step every node returns the rounded values, and searches score those.
#[tokio::test(flavor = "multi_thread")]
async fn rounded_values_are_returned_and_scored_on_every_copy_and_after_restarts() {
    for storage_type in HALVES {
        let settings = [("checkpoint_log_bytes", "65536")];
        let mut sandbox = Sandbox::with(&["auto", "auto"], &settings).await;
        let more = json!({"storage_type": storage_type.as_str(), "metric": "l2", "shards": 1,
            "replicas": 2, "min_isr": 1});
        sandbox.table("t", DIMENSION as u32, more).await;
        let table = sandbox.send(sandbox.request(1, "GET", "/api/v1/tables/t")).await.ok(200);
        assert_eq!(table["storage_type"], storage_type.as_str());
        sandbox.load("t", &documents(0..800)).await;
        let mut there: Vec<u32> = (0..800).collect();
        check(&sandbox, storage_type, &there).await;

        assert!(sandbox.nodes.pop().expect("two nodes").stop().await, "in time");
        sandbox.load("t", &documents(800..2_000)).await;
        let gone: Vec<u32> = (0..2_000).filter(|number| number % 5 == 1).collect();
        for part in gone.chunks(500) {
            let body = json!({"document_ids": part});
            sandbox.call("POST", "/api/v1/tables/t/documents:delete", body).await.ok(200);
        }
        sandbox.call("PATCH", "/api/v1/tables/t/documents/7", json!({"metadata": {"new": 1}})).await.ok(200);
        there = (0..2_000).filter(|number| number % 5 != 1).collect();
        sandbox.restart_missing().await;
        let is_whole = |shards: &Value| {
            let copies = shards["shards"][0]["replicas"].as_array().cloned().unwrap_or_default();
            copies.len() == 2 && copies.iter().all(|copy| copy["in_sync"] == true)
        };
        sandbox.eventually(0, "/api/v1/tables/t/shards", is_whole).await;
        check(&sandbox, storage_type, &there).await;

        sandbox.restart().await;
        let is_there = |stats: &Value| stats["documents"] == there.len();
        let stats = sandbox.eventually(0, "/api/v1/tables/t/stats", is_there).await;
        check(&sandbox, storage_type, &there).await;
        let rows = there.len() as u64 + stats["deleted_rows"].as_u64().expect("a count");
        let of_f32 = rows * DIMENSION as u64 * 4;
        let bytes = stats["vector_bytes"].as_u64().expect("a count");
        assert!(bytes * 10 < of_f32 * 7, "{storage_type:?}: {bytes} bytes where f32 has {of_f32}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn graphs_over_rounded_values_find_what_scans_find() {
    let mut found = 0;
    let sandbox = Sandbox::start(1).await;
    let more = json!({"storage_type": "f16", "metric": "l2", "shards": 1, "index_type": "hnsw"});
    sandbox.table("t", DIMENSION as u32, more).await;
    sandbox.load("t", &documents(0..4_000)).await;
    sandbox
        .eventually(0, "/api/v1/tables/t/stats", |stats| stats["indexed_rows"].as_u64() >= Some(2_000))
        .await;
    for number in 0..20 {
        let query = given(number * 31 + 10_000);
        let exact = sandbox.hits("t", json!({"vector": query, "exact": true})).await;
        let near = sandbox.hits("t", json!({"vector": query})).await;
        found += near.iter().filter(|hit| exact.contains(hit)).count();
    }
    assert!(found >= 190, "{found} of 200");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_two_bytes_do_not_hold_is_refused_before_anything_is_written() {
    let sandbox = Sandbox::start(1).await;
    let path = "/api/v1/tables/t/documents";
    sandbox.table("t", 2, json!({"storage_type": "f16"})).await;
    for (vector, words) in [
        (json!([1, 65_520]), ["value 1 of vector is 65520", "65504"]),
        (json!([-1e18, 1]), ["value 0 of vector is -1000000000000000000", "65504"]),
        (json!([1e-9, -1e-8]), ["f16", "zeros"]),
    ] {
        let good = json!({"document_id": "good", "vector": [1, 2]});
        let body = json!({"documents": [good, {"document_id": "bad", "vector": vector}]});
        let answer = sandbox.call("POST", path, body).await;
        let message = answer.text.clone();
        answer.refused("a value that f16 does not hold", 400, "invalid_argument", "/documents/1/vector");
        assert!(words.iter().all(|word| message.contains(word)), "{message}");
    }
    assert_eq!(sandbox.get(path).await.ok(200)["documents"], json!([]));
    // What rounds to the largest value fits; bf16 holds all that a table takes.
    sandbox.call("POST", path, json!({"document_id": "a", "vector": [65_519, -65_504]})).await.ok(200);
    let got = sandbox.get("/api/v1/tables/t/documents/a").await.ok(200);
    assert_eq!(got["vector"], json!([65_504.0, -65_504.0]));
    sandbox.table("b", 2, json!({"storage_type": "bf16"})).await;
    let large = json!({"document_id": "a", "vector": [1e18, 1e-30]});
    sandbox.call("POST", "/api/v1/tables/b/documents", large).await.ok(200);
    // A query is not rounded, nor bound by what rows can hold.
    let hits = sandbox.hits("t", json!({"vector": [1e10, -1e10]})).await;
    assert!(hits[0]["score"].as_f64() > Some(0.999_999), "{hits:?}");

    let body = json!({"table_name": "u", "dimension": 2, "storage_type": "f64"});
    let answer = sandbox.call("POST", "/api/v1/tables", body).await;
    assert!(answer.text.contains("f32, f16, bf16"), "{}", answer.text);
    answer.refused("an unknown type", 400, "invalid_argument", "/storage_type");
    let mut grpc = sandbox.grpc().await;
    let request = proto::CreateTableRequest {
        table_name: "g".to_owned(),
        dimension: 2,
        storage_type: "bf16".to_owned(),
        ..Default::default()
    };
    let unknown = proto::CreateTableRequest { storage_type: "int8".to_owned(), ..request.clone() };
    let answer = grpc.tables.create_table(unknown).await;
    refused("an unknown type", answer, Code::InvalidArgument, "invalid_argument", "/storage_type");
    let created = grpc.tables.create_table(request).await.expect("created").into_inner();
    assert_eq!(created.storage_type, "bf16");
}
