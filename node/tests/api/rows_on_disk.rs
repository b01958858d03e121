//! Tables whose vectors stay in files.

use std::fs::OpenOptions;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use tonic::Code;
use vectorsphere_proto::v1 as proto;

use super::support::{Sandbox, refused};

const DIMENSION: usize = 128;

fn vector(number: u32) -> Vec<f32> {
    (0..DIMENSION as u32).map(|i| ((number * 131 + i * 7_919) % 9_973) as f32 / 9_973.0 - 0.51).collect()
}

fn documents(range: std::ops::Range<u32>) -> Vec<Value> {
    range.map(|i| json!({"document_id": i, "vector": vector(i), "metadata": {"third": i % 3 == 0}})).collect()
}

/// Two tables with the same documents in segments of the same sizes, `m` in memory and `d` on disk.
async fn tables(sandbox: &Sandbox, more: Value) {
    for (name, rows) in [("m", "memory"), ("d", "disk")] {
        let mut more = more.clone();
        more["rows"] = json!(rows);
        sandbox.table(name, DIMENSION as u32, more).await;
        sandbox.load(name, &documents(0..3_000)).await;
        let gone: Vec<u32> = (0..3_000).filter(|number| number % 7 == 1).collect();
        for part in gone.chunks(250) {
            let body = json!({"document_ids": part});
            sandbox.call("POST", &format!("/api/v1/tables/{name}/documents:delete"), body).await.ok(200);
        }
        // Their vectors come from files.
        for number in [7, 14] {
            let path = format!("/api/v1/tables/{name}/documents/{number}");
            sandbox.call("PATCH", &path, json!({"metadata": {"third": true, "new": 1}})).await.ok(200);
        }
    }
}

/// What both tables answer is the same.
async fn compare(sandbox: &Sandbox, more: &Value) {
    for number in [3, 500, 2_999] {
        let filter = json!({"must": [{"key": "third", "match": {"value": true}}]});
        for query in [
            json!({"vector": vector(number + 10_000)}),
            json!({"vector": vector(number + 10_000), "exact": true, "top_k": 100}),
            json!({"vector": vector(number), "with_vector": true, "with_metadata": true, "filter": filter}),
            json!({"document_id": "7", "with_vector": true}),
        ] {
            let query = extended(query, more);
            let [memory, disk] = [sandbox.hits("m", query.clone()).await, sandbox.hits("d", query).await];
            assert_eq!(memory, disk);
            assert!(memory.len() >= 10);
        }
    }
    let query = |number: u32| json!({"vector": vector(number * 31), "exact": number.is_multiple_of(2)});
    let queries = (0..40).map(|number| extended(query(number), more));
    let body = json!({"queries": queries.collect::<Vec<_>>()});
    let hits = |answer: &Value| -> Vec<Value> {
        let results = answer["results"].as_array().expect("results").iter();
        results.map(|result| result["hits"].clone()).collect()
    };
    let mut batches = Vec::new();
    for name in ["m", "d"] {
        let answer = sandbox.call("POST", &format!("/api/v1/tables/{name}/search:batch"), body.clone()).await;
        batches.push(hits(&answer.ok(200)));
    }
    assert_eq!(batches[0], batches[1]);
    let vectors = |page: &Value| -> Vec<[Value; 3]> {
        let documents = page["documents"].as_array().expect("documents").iter();
        documents.map(|d| [&d["document_id"], &d["vector"], &d["metadata"]].map(Clone::clone)).collect()
    };
    let [memory, disk] = pair(sandbox, "documents?limit=1000&with_vector=true").await;
    assert_eq!(vectors(&memory), vectors(&disk));
    for number in [0, 7, 2_998] {
        let [memory, disk] = pair(sandbox, &format!("documents/{number}")).await;
        assert_eq!((&memory["vector"], &memory["metadata"]), (&disk["vector"], &disk["metadata"]));
    }
}

/// A query with more fields, which are for searches through an index.
fn extended(mut query: Value, more: &Value) -> Value {
    if query["exact"] != true {
        query.as_object_mut().expect("an object").extend(more.as_object().cloned().unwrap_or_default());
    }
    query
}

/// What both tables answer to the same question.
async fn pair(sandbox: &Sandbox, path: &str) -> [Value; 2] {
    let memory = sandbox.get(&format!("/api/v1/tables/m/{path}")).await.ok(200);
    [memory, sandbox.get(&format!("/api/v1/tables/d/{path}")).await.ok(200)]
}

/// Steps: checkpoints, merges, deletes, changed metadata; then a restart.
#[tokio::test(flavor = "multi_thread")]
async fn scans_answer_the_same_from_files_as_from_memory() {
    // A cache that holds some pages, so that others have to go.
    let settings = [("checkpoint_log_bytes", "262144"), ("row_cache_bytes", "65536")];
    let mut sandbox = Sandbox::with(&["auto"], &settings).await;
    tables(&sandbox, json!({"metric": "l2", "shards": 1, "index_type": "flat"})).await;
    compare(&sandbox, &json!({})).await;
    sandbox.restart().await;
    for name in ["m", "d"] {
        let path = format!("/api/v1/tables/{name}/stats");
        sandbox.eventually(0, &path, |stats| stats["documents"] == 2_571).await;
    }
    compare(&sandbox, &json!({})).await;
    let bytes = async |name: &str| {
        let stats = sandbox.get(&format!("/api/v1/tables/{name}/stats")).await.ok(200);
        stats["vector_bytes"].as_u64().expect("a count")
    };
    let (memory, disk) = (bytes("m").await, bytes("d").await);
    assert!(disk * 2 < memory && disk > 0, "{disk} bytes of {memory}");
    let metrics = sandbox.get("/metrics").await.text;
    let held = metrics.lines().find_map(|line| line.strip_prefix("vectorsphere_row_cache_held_bytes "));
    let held: u64 = held.expect("a gauge").parse().expect("a number");
    assert!((1..=65_536).contains(&held), "{held} bytes in the cache");
}

#[tokio::test(flavor = "multi_thread")]
async fn graphs_answer_the_same_over_files_as_over_memory() {
    let mut sandbox = Sandbox::with(&["auto"], &[("checkpoint_log_bytes", "67108864")]).await;
    // Segments may be cut differently, and then graphs are: only a wide walk is sure to find the same.
    let wide = json!({"ef": 3_000});
    tables(&sandbox, json!({"metric": "cosine", "shards": 1, "index_type": "hnsw"})).await;
    for round in 0..2 {
        for name in ["m", "d"] {
            let path = format!("/api/v1/tables/{name}/stats");
            sandbox.eventually(0, &path, |stats| stats["indexed_rows"].as_u64() >= Some(2_000)).await;
        }
        compare(&sandbox, &wide).await;
        if round == 0 {
            sandbox.restart().await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn other_words_are_refused_and_the_default_is_memory() {
    let sandbox = Sandbox::start(1).await;
    let body = json!({"table_name": "u", "dimension": 2, "rows": "tape"});
    let answer = sandbox.call("POST", "/api/v1/tables", body).await;
    assert!(answer.text.contains("memory, disk"), "{}", answer.text);
    answer.refused("an unknown place", 400, "invalid_argument", "/rows");
    sandbox.table("m", 2, json!({})).await;
    sandbox.table("d", 2, json!({"rows": "disk"})).await;
    assert_eq!(sandbox.get("/api/v1/tables/m").await.ok(200)["rows"], "memory");
    assert_eq!(sandbox.get("/api/v1/tables/d").await.ok(200)["rows"], "disk");
    let mut grpc = sandbox.grpc().await;
    let request = proto::CreateTableRequest {
        table_name: "g".to_owned(),
        dimension: 2,
        rows: "disk".to_owned(),
        ..Default::default()
    };
    let unknown = proto::CreateTableRequest { rows: "tape".to_owned(), ..request.clone() };
    let answer = grpc.tables.create_table(unknown).await;
    refused("an unknown place", answer, Code::InvalidArgument, "invalid_argument", "/rows");
    assert_eq!(grpc.tables.create_table(request).await.expect("created").into_inner().rows, "disk");
}

/// Files of rows below a folder.
fn row_files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).expect("a folder").flatten() {
        let path = entry.path();
        if path.is_dir() {
            found.extend(row_files(&path));
        } else if path.extension().is_some_and(|extension| extension == "rows") {
            found.push(path);
        }
    }
    found
}

/// Changes a vector in each of a node's files of rows, below the running node.
fn damage(sandbox: &Sandbox, node: usize) {
    let files = row_files(&sandbox.data_folder(node));
    assert!(!files.is_empty(), "a checkpoint was written");
    for path in files {
        let file = OpenOptions::new().read(true).write(true).open(path).expect("there");
        // Behind the header of the file and of its first block.
        let mut byte = [0];
        file.read_exact_at(&mut byte, 57).expect("a vector");
        file.write_all_at(&[byte[0] ^ 1], 57).expect("written");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_search_that_meets_a_damaged_page_fails_and_the_copy_is_given_up() {
    let settings = [("checkpoint_log_bytes", "65536"), ("row_cache_bytes", "0")];
    let sandbox = Sandbox::with(&["auto"], &settings).await;
    let more = json!({"metric": "l2", "shards": 1, "index_type": "flat", "rows": "disk"});
    sandbox.table("t", DIMENSION as u32, more).await;
    sandbox.load("t", &documents(0..1_000)).await;
    let body = json!({"vector": vector(0), "top_k": 1_000});
    assert_eq!(sandbox.hits("t", body.clone()).await.len(), 1_000);
    damage(&sandbox, 0);
    let answer = sandbox.call("POST", "/api/v1/tables/t/search", body.clone()).await;
    assert!(answer.status >= 500 && answer.text.contains("checksum does not fit"), "{}", answer.text);
    assert_eq!(answer.body["code"], "shard_damaged", "{}", answer.text);
    sandbox
        .eventually(0, "/api/v1/tables/t/shards", |shards| {
            shards["shards"][0]["replicas"][0]["damaged"] == true
        })
        .await;
    let answer = sandbox.call("POST", "/api/v1/tables/t/search", body).await;
    assert!(answer.status >= 500, "{}", answer.text);
}

/// Steps: a page of the copy that leads is damaged. Answers are right or errors; another copy leads, and the damaged one is made
/// anew.
#[tokio::test(flavor = "multi_thread")]
async fn other_copies_answer_when_one_is_damaged() {
    let settings = [("checkpoint_log_bytes", "65536"), ("row_cache_bytes", "0")];
    let sandbox = Sandbox::with(&["auto", "auto", "auto"], &settings).await;
    let more = json!({"metric": "l2", "shards": 1, "replicas": 2, "min_isr": 1, "index_type": "flat",
        "rows": "disk"});
    sandbox.table("t", DIMENSION as u32, more).await;
    sandbox.load("t", &documents(0..1_000)).await;
    let body = json!({"vector": vector(0), "top_k": 500});
    let expected = sandbox.hits("t", body.clone()).await;
    let shards = sandbox.get("/api/v1/tables/t/shards").await.ok(200);
    let leader = shards["shards"][0]["primary"]["node_id"].as_str().expect("a primary");
    let node: usize = leader.strip_prefix("node-").expect("a name").parse().expect("a number");
    damage(&sandbox, node);
    let until = std::time::Instant::now() + std::time::Duration::from_secs(30);
    let mut right = 0;
    while right < 20 {
        let answer = sandbox.call("POST", "/api/v1/tables/t/search", body.clone()).await;
        if answer.status == 200 {
            assert_eq!(answer.body["hits"].as_array(), Some(&expected), "a wrong answer");
            right += 1;
        } else {
            assert!(answer.status >= 500, "{}", answer.text);
        }
        assert!(std::time::Instant::now() < until, "no copy answers: {}", answer.text);
    }
    let is_whole = |shards: &Value| {
        let copies = shards["shards"][0]["replicas"].as_array().cloned().unwrap_or_default();
        copies.len() == 2 && copies.iter().all(|copy| copy["in_sync"] == true && copy["damaged"] != true)
    };
    sandbox.eventually(0, "/api/v1/tables/t/shards", is_whole).await;
    assert_eq!(sandbox.hits("t", body).await, expected);
}
