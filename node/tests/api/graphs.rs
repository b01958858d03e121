//! Tables whose segments get graphs.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::support::Sandbox;

const DIMENSION: usize = 64;
const DOCUMENTS: usize = 6_000;
/// How long a plan may take to appear.
const PATIENCE: Duration = Duration::from_secs(30);

/// Around one of sixty centres.
fn vector(number: usize) -> Vec<f64> {
    let wave = |a: usize, b: usize| ((a * 37 + b * 101) % 211) as f64 / 105.5 - 1.0;
    (0..DIMENSION).map(|i| wave(number % 60, i) + 0.4 * wave(number + 7 * i, i * number % 97)).collect()
}

fn ids(hits: &[Value]) -> HashSet<String> {
    hits.iter().map(|hit| hit["document_id"].as_str().expect("text").to_owned()).collect()
}

/// Share of the true best that a search of an effort finds, whose scores are the same.
async fn recall(sandbox: &Sandbox, effort: Value) -> f64 {
    let mut found = 0;
    for query in 0..20 {
        let vector = vector(query * 311 + 5);
        let exact = sandbox.hits("t", json!({"vector": vector, "exact": true})).await;
        let mut search = effort.clone();
        search["vector"] = json!(vector);
        let near = sandbox.hits("t", search).await;
        assert_eq!(near.len(), 10);
        found += ids(&exact).intersection(&ids(&near)).count();
        for hit in &near {
            if let Some(same) = exact.iter().find(|same| same["document_id"] == hit["document_id"]) {
                assert_eq!(hit["score"], same["score"]);
            }
        }
    }
    found as f64 / 200.0
}

#[tokio::test(flavor = "multi_thread")]
async fn a_large_table_is_walked_and_finds_what_a_scan_finds() {
    let mut sandbox = Sandbox::with(&["auto"], &[("checkpoint_log_bytes", "524288")]).await;
    sandbox.table("t", DIMENSION as u32, json!({"index_type": "hnsw", "shards": 1})).await;
    assert_eq!(sandbox.get("/api/v1/tables/t").await.ok(200)["index_type"], "hnsw");
    let documents: Vec<Value> = (0..DOCUMENTS)
        .map(|number| json!({"document_id": number, "vector": vector(number), "metadata": {"n": number}}))
        .collect();
    sandbox.load("t", &documents).await;
    let is_indexed = |stats: &Value| stats["indexed_rows"].as_u64() >= Some(DOCUMENTS as u64 / 2);
    let stats = sandbox.eventually(0, "/api/v1/tables/t/stats", is_indexed).await;
    assert!(stats["index_bytes"].as_u64() > Some(0), "{stats}");
    let (narrow, usual) = (recall(&sandbox, json!({"ef": 10})).await, recall(&sandbox, json!({})).await);
    assert!(usual > 0.97 && usual >= narrow, "recall {usual}, with few candidates {narrow}");
    let asked = recall(&sandbox, json!({"target_recall": 0.95})).await;
    assert!(asked > 0.9, "recall {asked} of 200 hits, 0.95 was asked for");
    let estimate = stats["recall_estimate"].as_f64().expect("there are rows");
    assert!((0.95..=1.0).contains(&estimate), "{stats}");

    // An explanation tells walks from scans, and what they touched.
    let explained = async |body: Value| {
        let answer = sandbox.call("POST", "/api/v1/tables/t/search", body).await.ok(200);
        answer["explanation"][0]["segments"].as_array().expect("segments").clone()
    };
    let plans = |segments: &[Value], plan: &str| {
        segments.iter().filter(|segment| segment["search"]["plan"] == plan).cloned().collect::<Vec<_>>()
    };
    // A merge may be about to replace the segments that have graphs.
    let until = Instant::now() + PATIENCE;
    let explained_with = async |plan: &str, body: Value| loop {
        let segments = explained(body.clone()).await;
        if !plans(&segments, plan).is_empty() {
            return segments;
        }
        assert!(Instant::now() < until, "no {plan} in {segments:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    };
    // So few candidates that a walk pays in the smallest segment with a graph.
    let segments = explained_with("walk", json!({"vector": vector(5), "ef": 10, "explain": true})).await;
    for segment in plans(&segments, "walk") {
        let search = &segment["search"];
        assert_eq!(search["width"], 10, "{segment}");
        let [hops, vertices] = ["hops", "vertices"].map(|name| search[name].as_u64().expect("a count"));
        assert!(0 < hops && hops <= vertices && search["elapsed_us"].is_u64(), "{segment}");
    }
    // Of one segment alone it may be fewer: another one's hits are better.
    let rows: u64 = segments.iter().filter_map(|segment| segment["search"]["rows"].as_u64()).sum();
    assert!(rows >= 10, "{segments:?}");
    let exact = explained(json!({"vector": vector(5), "exact": true, "explain": true})).await;
    assert_eq!(plans(&exact, "scan").len(), exact.len());
    let is_whole = |segment: &Value| segment["search"]["rows"] == segment["rows"];
    assert!(exact.iter().all(is_whole), "{exact:?}");
    let few = json!({"must": [{"key": "n", "range": {"lt": 40}}]});
    let few = json!({"vector": vector(5), "filter": few, "explain": true});
    let few = explained_with("scan_codes", few).await;
    assert!(plans(&few, "walk").is_empty(), "{few:?}");

    let target = json!({"vector": vector(5), "top_k": 30, "exact": true});
    let best = sandbox.hits("t", target).await;
    let page =
        sandbox.hits("t", json!({"vector": vector(5), "top_k": 10, "offset": 20, "exact": true})).await;
    assert_eq!(page, best[20..]);

    // A filter that only the nearest do not pass leaves others to find.
    for query in 0..8 {
        let vector = vector(query * 577 + 3);
        let nearest =
            sandbox.hits("t", json!({"vector": vector, "top_k": 15, "with_metadata": true, "exact": true}));
        let numbers: Vec<Value> = nearest.await.iter().map(|hit| hit["metadata"]["n"].clone()).collect();
        let filter = json!({"must_not": [{"key": "n", "match": {"any": numbers}}]});
        let others = sandbox.hits("t", json!({"vector": vector, "ef": 12, "filter": filter})).await;
        assert_eq!(others.len(), 10, "query {query}");
    }

    // What is deleted or replaced is never found again, whatever the graph says.
    let gone: Vec<&Value> = best.iter().take(25).map(|hit| &hit["document_id"]).collect();
    sandbox.call("POST", "/api/v1/tables/t/documents:delete", json!({"document_ids": gone})).await.ok(200);
    let after = sandbox.hits("t", json!({"vector": vector(5), "top_k": 30})).await;
    assert_eq!(after.len(), 30);
    assert!(after.iter().all(|hit| !gone.contains(&&hit["document_id"])));
    let by_document = sandbox.hits("t", json!({"document_id": best[27]["document_id"]})).await;
    assert!(
        by_document.len() == 10
            && by_document.iter().all(|hit| hit["document_id"] != best[27]["document_id"])
    );

    sandbox.restart().await;
    sandbox.eventually(0, "/api/v1/tables/t/stats", is_indexed).await;
    let usual = recall(&sandbox, json!({})).await;
    assert!(usual > 0.97, "recall {usual} after a restart");
    assert_eq!(sandbox.hits("t", json!({"vector": vector(5), "top_k": 30})).await, after);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_search_may_not_ask_is_told() {
    let sandbox = Sandbox::start(1).await;
    sandbox.table("t", 2, json!({})).await;
    for (body, pointer) in [
        (json!({"vector": [1, 1], "ef": 0}), "/ef"),
        (json!({"vector": [1, 1], "ef": 10_001}), "/ef"),
        (json!({"vector": [1, 1], "ef": 10, "exact": true}), "/ef"),
        (json!({"vector": [1, 1], "target_recall": 0.4}), "/target_recall"),
        (json!({"vector": [1, 1], "target_recall": 1}), "/target_recall"),
        (json!({"vector": [1, 1], "target_recall": 0.9, "ef": 10}), "/target_recall"),
        (json!({"vector": [1, 1], "target_recall": 0.9, "exact": true}), "/target_recall"),
        (json!({"vector": [1, 1], "top_k": 9_999, "offset": 2}), "/offset"),
        (json!({"vector": [1, 1], "offset": u64::MAX}), "/offset"),
    ] {
        let answer = sandbox.call("POST", "/api/v1/tables/t/search", body.clone()).await;
        answer.refused(&body.to_string(), 400, "invalid_argument", pointer);
    }
    sandbox.table("lists", 2, json!({"index_type": "ivf"})).await;
    let body = json!({"vector": [1, 1], "target_recall": 0.9});
    let answer = sandbox.call("POST", "/api/v1/tables/lists/search", body).await;
    answer.refused("lists", 400, "invalid_argument", "/target_recall");
    let body = json!({"table_name": "x", "dimension": 2, "index_type": "tree"});
    let answer = sandbox.call("POST", "/api/v1/tables", body).await;
    answer.refused("tree", 400, "invalid_argument", "/index_type");
    assert!(answer.text.contains("auto, flat, hnsw"), "{}", answer.text);
}
