//! Search: what is found, in which order, with what.

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde_json::{Value, json};
use vectorsphere_proto::v1 as proto;

use super::support::{Sandbox, refused};

const SEARCH: &str = "/api/v1/tables/t/search";

fn ids(hits: &[Value]) -> Vec<&str> {
    hits.iter().map(|hit| hit["document_id"].as_str().expect("an id")).collect()
}

fn random_vector(random: &mut ChaCha8Rng, dimension: usize) -> Vec<f32> {
    (0..dimension).map(|_| random.random_range(-1.0..1.0)).collect()
}

/// The meaning of a score, in the most obvious way.
fn reference(metric: &str, a: &[f32], b: &[f32]) -> f64 {
    let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum::<f64>();
    match metric {
        "cosine" => dot(a, b) / (dot(a, a).sqrt() * dot(b, b).sqrt()),
        "dot" => dot(a, b),
        _ => a.iter().zip(b).map(|(a, b)| (f64::from(*a) - f64::from(*b)).powi(2)).sum::<f64>().sqrt(),
    }
}

/// Every document's score, best first.
fn ranked(metric: &str, query: &[f32], vectors: &[Vec<f32>]) -> Vec<(String, f64)> {
    let score = |(index, vector): (usize, &Vec<f32>)| (index.to_string(), reference(metric, query, vector));
    let mut all: Vec<_> = vectors.iter().enumerate().map(score).collect();
    let sign = if metric == "l2" { 1.0 } else { -1.0 };
    all.sort_by(|a, b| (sign * a.1).total_cmp(&(sign * b.1)).then_with(|| a.0.cmp(&b.0)));
    all
}

#[tokio::test(flavor = "multi_thread")]
async fn a_search_over_several_shards_equals_brute_force_in_f64() {
    let sandbox = Sandbox::start(3).await;
    let mut random = ChaCha8Rng::seed_from_u64(20_261_127);
    let vectors: Vec<Vec<f32>> = (0..1_500).map(|_| random_vector(&mut random, 37)).collect();
    let documents: Vec<Value> =
        vectors.iter().enumerate().map(|(i, vector)| json!({"document_id": i, "vector": vector})).collect();
    let mut grpc = sandbox.grpc().await.search;
    for metric in ["cosine", "l2", "dot"] {
        sandbox.table(metric, 37, json!({"metric": metric, "shards": 7})).await;
        sandbox.load(metric, &documents).await;
        for _ in 0..10 {
            let query = random_vector(&mut random, 37);
            let expected = ranked(metric, &query, &vectors);
            let hits = sandbox.hits(metric, json!({"vector": query, "top_k": 100})).await;
            let expected_ids: Vec<&str> = expected[..100].iter().map(|(id, _)| id.as_str()).collect();
            assert_eq!(ids(&hits), expected_ids, "{metric}");
            for (hit, (id, score)) in hits.iter().zip(&expected) {
                let found = hit["score"].as_f64().expect("a score");
                assert!(
                    (found - score).abs() <= 1e-12 * score.abs().max(1.0),
                    "{metric} {id}: {found} {score}"
                );
            }
            // A threshold between two neighbours keeps exactly the better ones, here and over gRPC.
            let threshold = (expected[29].1 + expected[30].1) / 2.0;
            let body = json!({"vector": query, "top_k": 100, "threshold": threshold});
            assert_eq!(sandbox.hits(metric, body).await, hits[..30]);
            let floats = proto::FloatArray { values: query };
            let vector = proto::Vector { data: Some(proto::vector::Data::Floats(floats)) };
            let request = proto::SearchRequest {
                table_name: metric.to_owned(),
                query: Some(proto::search_request::Query::Vector(vector)),
                top_k: 100,
                threshold: Some(threshold),
                ..Default::default()
            };
            let found = grpc.search(request).await.expect("found").into_inner().hits;
            let found: Vec<Value> =
                found.iter().map(|hit| json!({"document_id": hit.document_id, "score": hit.score})).collect();
            assert_eq!(found, hits[..30], "bit for bit the same as REST");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_threshold_includes_its_own_value_under_each_metric() {
    let sandbox = Sandbox::start(1).await;
    // (metric, query, document's vector, its exact score, a bar just beyond it)
    let rows = [
        ("cosine", [3.0, 4.0], [4.0, 3.0], 0.96, 0.960_000_1),
        ("dot", [3.0, 4.0], [4.0, 3.0], 24.0, 24.000_001),
        ("dot", [3.0, 4.0], [-4.0, -3.0], -24.0, -23.999_999),
        ("l2", [0.0, 0.0], [3.0, 4.0], 5.0, 4.999_999),
    ];
    for (index, (metric, query, vector, score, beyond)) in rows.into_iter().enumerate() {
        let table = format!("{metric}{index}");
        sandbox.table(&table, 2, json!({"metric": metric})).await;
        sandbox.load(&table, &[json!({"document_id": "a", "vector": vector})]).await;
        let at = sandbox.hits(&table, json!({"vector": query, "threshold": score})).await;
        assert_eq!(at, [json!({"document_id": "a", "score": score})], "{metric}");
        assert!(
            sandbox.hits(&table, json!({"vector": query, "threshold": beyond})).await.is_empty(),
            "{metric}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn equal_scores_are_ordered_by_id_bytes_across_shards() {
    let sandbox = Sandbox::start(2).await;
    for metric in ["cosine", "l2", "dot"] {
        sandbox.table(metric, 2, json!({"metric": metric, "shards": 8})).await;
        let mut names: Vec<String> = (0..60).map(|i| format!("{}{i}", ["", "a", "É", "~"][i % 4])).collect();
        let documents: Vec<Value> =
            names.iter().map(|name| json!({"document_id": name, "vector": [1, 1]})).collect();
        sandbox.load(metric, &documents).await;
        names.sort_unstable();
        for top_k in [1, 7, 60] {
            let hits = sandbox.hits(metric, json!({"vector": [1, 1], "top_k": top_k})).await;
            assert_eq!(ids(&hits), names[..top_k], "{metric}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_search_by_document_leaves_the_document_itself_out() {
    let sandbox = Sandbox::start(2).await;
    sandbox.table("t", 2, json!({"metric": "l2", "shards": 4})).await;
    let documents: Vec<Value> = (0..20).map(|i| json!({"document_id": i, "vector": [i, 0]})).collect();
    sandbox.load("t", &documents).await;
    // A twin in the same place stays.
    sandbox.load("t", &[json!({"document_id": "twin", "vector": [5, 0]})]).await;
    for id in [json!(5), json!("5")] {
        let hits = sandbox.hits("t", json!({"document_id": id, "top_k": 3})).await;
        assert_eq!(ids(&hits), ["twin", "4", "6"]);
    }
    let all = sandbox.hits("t", json!({"document_id": 5, "top_k": 10_000})).await;
    assert_eq!(all.len(), 20);
    let absent = sandbox.call("POST", SEARCH, json!({"document_id": "absent"})).await;
    absent.refused("a document that is not there", 404, "document_not_found", "");
    let request = proto::SearchRequest {
        table_name: "t".to_owned(),
        query: Some(proto::search_request::Query::DocumentId("5".to_owned())),
        top_k: 1,
        ..Default::default()
    };
    let found = sandbox.grpc().await.search.search(request).await.expect("found").into_inner();
    assert_eq!((found.hits.len(), found.hits[0].document_id.as_str()), (1, "twin"));
}

#[tokio::test(flavor = "multi_thread")]
async fn hits_carry_metadata_and_vectors_when_asked() {
    let sandbox = Sandbox::start(1).await;
    sandbox.table("t", 2, json!({})).await;
    let stored = json!({"document_id": "a", "vector": [0.1, 0.7], "metadata": {"k": [1, null]}});
    sandbox.load("t", std::slice::from_ref(&stored)).await;
    for (metadata, vector) in [(false, false), (true, false), (false, true), (true, true)] {
        let body = json!({"vector": [0.1, 0.7], "with_metadata": metadata, "with_vector": vector});
        let hit = &sandbox.hits("t", body).await[0];
        assert_eq!(hit.get("metadata"), metadata.then(|| &stored["metadata"]));
        // As stored: what the client wrote, not its normalised form.
        assert_eq!(hit.get("vector").is_some(), vector);
        assert_eq!(hit.get("vector").unwrap_or(&stored["vector"]), &stored["vector"]);
    }
    assert_eq!(sandbox.hits("t", json!({"vector": [1, 1]})).await.len(), 1);
    sandbox.table("empty", 2, json!({})).await;
    assert!(sandbox.hits("empty", json!({"vector": [1, 1], "top_k": 10_000})).await.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_node_is_an_error_or_a_named_partial_answer() {
    let mut sandbox = Sandbox::start(2).await;
    sandbox.table("t", 2, json!({"metric": "l2", "shards": 4, "replicas": 1})).await;
    let documents: Vec<Value> = (0..40).map(|i| json!({"document_id": i, "vector": [i, 0]})).collect();
    sandbox.load("t", &documents).await;
    let gone = sandbox.nodes.remove(1);
    assert!(gone.stop().await);
    sandbox.eventually(0, "/api/v1/cluster/status", |status| status["unavailable_shards"] == 2).await;
    let ask = async |allow_partial: bool| {
        let body = json!({"vector": [0, 0], "top_k": 40, "allow_partial": allow_partial}).to_string();
        let request = sandbox.request(0, "POST", SEARCH).header("content-type", "application/json");
        sandbox.send(request.header("x-request-timeout", "2").body(body)).await
    };
    ask(false).await.refused("a search that needs a node that is gone", 503, "shard_unavailable", "");
    let partial = ask(true).await.ok(200);
    let missing = partial["missing"].as_array().expect("missing shards");
    assert_eq!(missing.len(), 2);
    assert!(
        missing.iter().all(|shard| shard["node_id"] == "node-1" && shard["reason"].is_string()),
        "{partial}"
    );
    let found = partial["hits"].as_array().map_or(0, Vec::len);
    assert!((1..40).contains(&found), "{found} hits of one node");
    let status = sandbox.get("/api/v1/cluster/status").await.ok(200);
    assert_eq!(status["status"], "red");
    let statistics = sandbox.get("/api/v1/tables/t/stats").await.ok(200);
    assert_eq!((&statistics["unavailable_shards"], &statistics["documents"]), (&json!(2), &json!(found)));
}

const BATCH: &str = "/api/v1/tables/t/search:batch";

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_answers_each_query_as_if_it_were_alone_over_rest_and_grpc() {
    let sandbox = Sandbox::start(2).await;
    sandbox.table("t", 2, json!({"metric": "l2", "shards": 5})).await;
    let document =
        |i: u32| json!({"document_id": i, "vector": [i, 0], "metadata": {"even": i.is_multiple_of(2)}});
    sandbox.load("t", &(0..200).map(document).collect::<Vec<_>>()).await;
    let even = json!({"must": [{"key": "even", "match": {"value": true}}]});
    let mut queries: Vec<Value> =
        (0..40).map(|i| json!({"vector": [i * 5, 1], "top_k": 1 + i % 4})).collect();
    queries.extend([
        json!({"document_id": 7, "top_k": 3}),
        json!({"vector": [3, 0], "filter": even, "with_metadata": true, "offset": 1, "top_k": 2}),
        json!({"vector": [3, 0], "threshold": 0.5, "with_vector": true, "exact": true}),
        json!({"vector": [1e6, 0], "threshold": 1.0}),
    ]);
    let answer = sandbox.call("POST", BATCH, json!({"queries": queries})).await.ok(200);
    let results = answer["results"].as_array().expect("results");
    assert_eq!(results.len(), queries.len());
    for (query, result) in queries.iter().zip(results) {
        assert_eq!(*result, json!({"hits": sandbox.hits("t", query.clone()).await}), "{query}");
    }
    assert_eq!(ids(results[40]["hits"].as_array().expect("hits")), ["6", "8", "5"]);
    assert_eq!(results[43], json!({"hits": []}));
    // The answer's token is one that later reads take.
    let token = &answer["session_token"];
    sandbox.call("POST", BATCH, json!({"queries": [queries[0]], "session_token": token})).await.ok(200);

    let vector = |x: f32| {
        let floats = proto::FloatArray { values: vec![x, 1.0] };
        let data = Some(proto::vector::Data::Floats(floats));
        Some(proto::search_request::Query::Vector(proto::Vector { data }))
    };
    let query =
        |x: f32| proto::SearchRequest { query: vector(x), top_k: 2, explain: x > 2.0, ..Default::default() };
    let request = proto::SearchBatchRequest {
        table_name: "t".to_owned(),
        queries: vec![query(2.0), query(9.0)],
        ..Default::default()
    };
    let mut grpc = sandbox.grpc().await.search;
    let found = grpc.search_batch(request.clone()).await.expect("found").into_inner();
    let found_ids = |result: &proto::QueryResult| -> Vec<String> {
        result.hits.iter().map(|hit| hit.document_id.clone()).collect()
    };
    assert_eq!(found.results.iter().map(found_ids).collect::<Vec<_>>(), [["2", "1"], ["9", "10"]]);
    let explained: Vec<usize> = found.results.iter().map(|result| result.explanation.len()).collect();
    assert_eq!(explained, [0, 5], "each shard, where it was asked for");
    let mut named = request;
    named.queries[1].table_name = "t".to_owned();
    let (answer, code) = (grpc.search_batch(named).await, tonic::Code::InvalidArgument);
    refused("a table in a query", answer, code, "invalid_argument", "/queries/1/table_name");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_with_bad_queries_is_refused_whole_with_a_pointer_for_each() {
    let sandbox = Sandbox::start(1).await;
    sandbox.table("t", 2, json!({"metric": "l2"})).await;
    let bad = json!({"queries": [
        {"vector": [1, 1]},
        {"vector": [1], "top_k": 0},
        {"vector": [1, 1], "topk": 3},
        {"vector": [1, 1], "filter": {"must": [{"key": "", "exists": true}]}},
        {"vector": [1, 1], "filter": {"must": [{"key": "a", "exist": true}]}},
        {"vector": [1, 1], "consistency": "strong"},
    ]});
    let answer = sandbox.call("POST", BATCH, bad).await;
    // What the parser finds comes first and alone.
    let pointers = |answer: &Value| -> Vec<String> {
        let violations = answer["errors"].as_array().expect("errors").iter();
        violations.map(|violation| violation["pointer"].as_str().expect("a pointer").to_owned()).collect()
    };
    let expected = ["/queries/2/topk", "/queries/4/filter/must/0/exist", "/queries/5/consistency"];
    assert_eq!(pointers(&answer.ok(400)), expected);
    let bad = json!({"max_staleness_ms": 1, "queries": [
        {"vector": [1, 1]},
        {"vector": [1], "top_k": 0},
        {"vector": [1, 1], "filter": {"must": [{"key": "", "exists": true}]}},
        {},
    ]});
    let expected = [
        "/max_staleness_ms",
        "/queries/1/vector",
        "/queries/1/top_k",
        "/queries/2/filter/must/0/key",
        "/queries/3/vector",
    ];
    assert_eq!(pointers(&sandbox.call("POST", BATCH, bad).await.ok(400)), expected);
    // A document that is not there shows when it is looked up, after everything else; the answer says whose it is.
    let absent = json!({"queries": [{"vector": [1, 1]}, {"document_id": "nope"}]});
    let answer = sandbox.call("POST", BATCH, absent).await.ok(404);
    assert_eq!(answer["code"], "document_not_found");
    let detail = answer["detail"].as_str().expect("a detail");
    assert!(detail.contains("document nope, which queries/1 names,"), "{detail}");
    for (body, pointer) in [
        (json!({}), "/queries"),
        (json!({"queries": []}), "/queries"),
        (json!({"queries": {}}), "/queries"),
        (json!({"queries": [[1]]}), "/queries/0"),
        (json!({"queries": [{"vector": [1, "1"]}]}), "/queries/0/vector/1"),
        (json!({"queries": [{"vector": [1, 1]}], "vector": [1, 1]}), "/vector"),
        (json!({"queries": vec![json!({"vector": [1, 1], "top_k": 10_000}); 11]}), "/queries"),
    ] {
        let answer = sandbox.call("POST", BATCH, body.clone()).await;
        answer.refused(&body.to_string()[..body.to_string().len().min(80)], 400, "invalid_argument", pointer);
    }
    let query = json!({"vector": [1, 1], "top_k": 100});
    let most = sandbox.call("POST", BATCH, json!({"queries": vec![query.clone(); 1_000]})).await.ok(200);
    assert_eq!(most["results"].as_array().map(Vec::len), Some(1_000));
    let more = sandbox.call("POST", BATCH, json!({"queries": vec![query; 1_001]})).await;
    more.refused("too many queries", 413, "payload_too_large", "");
    let absent =
        sandbox.call("POST", BATCH, json!({"queries": [{"vector": [1, 1]}, {"document_id": "no"}]})).await;
    absent.refused("a document that is not there", 404, "document_not_found", "");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_search_returns_the_chosen_fields_of_metadata() {
    let sandbox = Sandbox::start(2).await;
    sandbox.table("t", 1, json!({"metric": "l2", "shards": 2})).await;
    let metadata =
        json!({"a": {"b": 1, "c": 2}, "items": [{"n": 1, "s": "x"}, {"s": "y"}], "long": "x".repeat(1_000)});
    let documents = [
        json!({"document_id": "full", "vector": [1], "metadata": metadata}),
        json!({"document_id": "none", "vector": [2]}),
    ];
    sandbox.load("t", &documents).await;
    for (wanted, expected) in [
        (json!(true), [metadata.clone(), json!({})]),
        (json!(["a.b"]), [json!({"a": {"b": 1}}), json!({})]),
        (json!(["items[].n", "a.c"]), [json!({"a": {"c": 2}, "items": [{"n": 1}]}), json!({})]),
        (json!(["nowhere"]), [json!({}), json!({})]),
        (json!(false), [Value::Null, Value::Null]),
        (Value::Null, [Value::Null, Value::Null]),
    ] {
        let hits = sandbox.hits("t", json!({"vector": [1], "with_metadata": wanted})).await;
        let found: Vec<Value> = hits.iter().map(|hit| hit["metadata"].clone()).collect();
        assert_eq!(found, expected, "{wanted}");
    }
    let vector =
        proto::Vector { data: Some(proto::vector::Data::LittleEndianF32(1f32.to_le_bytes().to_vec())) };
    let request = proto::SearchRequest {
        table_name: "t".to_owned(),
        query: Some(proto::search_request::Query::Vector(vector)),
        metadata_fields: vec!["a.b".to_owned()],
        ..Default::default()
    };
    let mut grpc = sandbox.grpc().await.search;
    let hits = grpc.search(request.clone()).await.expect("found").into_inner().hits;
    let fields = |hit: &proto::Hit| hit.metadata.as_ref().expect("metadata").fields.keys().cloned().collect();
    let keys: Vec<Vec<String>> = hits.iter().map(fields).collect();
    assert_eq!(keys, [vec!["a".to_owned()], vec![]]);
    let broken = proto::SearchRequest { metadata_fields: vec!["a".to_owned(), "a..b".to_owned()], ..request };
    let (answer, code) = (grpc.search(broken).await, tonic::Code::InvalidArgument);
    refused("a broken path", answer, code, "invalid_argument", "/metadata_fields/1");
    for (wanted, pointer) in [
        (json!([]), "/with_metadata"),
        (json!(vec!["a"; 65]), "/with_metadata"),
        (json!(["a", "b[0]"]), "/with_metadata/1"),
        (json!(["a", 1]), "/with_metadata/1"),
        (json!("a"), "/with_metadata"),
        (json!(1), "/with_metadata"),
    ] {
        let answer = sandbox.call("POST", SEARCH, json!({"vector": [1], "with_metadata": wanted})).await;
        answer.refused(&wanted.to_string(), 400, "invalid_argument", pointer);
    }
}
