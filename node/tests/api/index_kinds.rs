//! Tables whose segments get indexes of FAISS, and options of graphs.

use std::collections::HashSet;

#[cfg(feature = "faiss")]
use futures::future::join_all;
use serde_json::{Value, json};
use tonic::Code;
use vectorsphere_proto::v1 as proto;

use crate::support::{Sandbox, refused};

const DIMENSION: usize = 32;
const DOCUMENTS: usize = 4_000;

/// Around one of sixty centres.
fn vector(number: usize) -> Vec<f64> {
    let wave = |a: usize, b: usize| ((a * 37 + b * 101) % 211) as f64 / 105.5 - 1.0;
    (0..DIMENSION).map(|i| wave(number % 60, i) + 0.4 * wave(number + 7 * i, i * number % 97)).collect()
}

fn ids(hits: &[Value]) -> HashSet<String> {
    hits.iter().map(|hit| hit["document_id"].as_str().expect("text").to_owned()).collect()
}

/// Share of the true best that a search finds, whose scores are the same. `more`: fields of both searches.
#[cfg(feature = "faiss")]
async fn recall(sandbox: &Sandbox, ef: Option<u32>, more: &Value) -> f64 {
    let mut found = 0;
    for query in 0..20 {
        let mut body = json!({"vector": vector(query * 311 + 5)});
        body.as_object_mut().expect("an object").extend(more.as_object().cloned().unwrap_or_default());
        let (mut exact, mut near) = (body.clone(), body);
        (exact["exact"], near["ef"]) = (json!(true), json!(ef));
        let (exact, near) = (sandbox.hits("t", exact).await, sandbox.hits("t", near).await);
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

/// Loads a table, waits for its index, and looks at it from all sides, before and after a restart. All rows are in one segment:
/// what is not in the index yet would be scanned, and hide what the index does not find.
#[cfg(feature = "faiss")]
async fn a_table_of_kind(index_type: &str, metric: &str) {
    let mut sandbox = Sandbox::start(1).await;
    let options = json!({"index_type": index_type, "metric": metric, "shards": 1});
    sandbox.table("t", DIMENSION as u32, options).await;
    assert_eq!(sandbox.get("/api/v1/tables/t").await.ok(200)["index_type"], index_type);
    let documents: Vec<Value> = (0..DOCUMENTS)
        .map(|number| {
            let metadata = json!({"n": number, "fifth": number % 5 == 0, "rare": number % 200 == 3});
            json!({"document_id": number, "vector": vector(number), "metadata": metadata})
        })
        .collect();
    // All at once: a pause between them would begin a segment of its own.
    let batches = documents.chunks(1_000).map(|batch| json!({"documents": batch}));
    let written =
        join_all(batches.map(|batch| sandbox.call("POST", "/api/v1/tables/t/documents", batch))).await;
    written.into_iter().for_each(|answer| drop(answer.ok(200)));
    let is_indexed = |stats: &Value| stats["indexed_rows"] == DOCUMENTS;
    let stats = sandbox.eventually(0, "/api/v1/tables/t/stats", is_indexed).await;
    assert_eq!(stats["index_type"], index_type);
    assert!(stats["index_bytes"].as_u64() > Some(0), "{stats}");

    let everything = json!({});
    let (little, usual) = (
        recall(&sandbox, Some(1), &everything).await,
        recall(&sandbox, Some(DOCUMENTS as u32), &everything).await,
    );
    assert!(usual > 0.97 && usual >= little, "recall {usual}, with little effort {little}");
    for field in ["fifth", "rare"] {
        let filter = json!({"filter": {"must": [{"key": field, "match": {"value": true}}]}});
        let filtered = recall(&sandbox, Some(DOCUMENTS as u32), &filter).await;
        assert!(filtered > 0.97, "recall {filtered} of {field}");
    }
    // A filter that only the nearest do not pass leaves others to find.
    let vector = vector(3);
    let nearest = json!({"vector": vector, "top_k": 60, "with_metadata": true, "exact": true});
    let nearest = sandbox.hits("t", nearest).await;
    let numbers: Vec<Value> = nearest.iter().map(|hit| hit["metadata"]["n"].clone()).collect();
    let filter = json!({"must_not": [{"key": "n", "match": {"any": numbers}}]});
    let others = sandbox.hits("t", json!({"vector": vector, "ef": 1, "filter": filter})).await;
    assert_eq!(others.len(), 10);
    assert!(ids(&others).is_disjoint(&ids(&nearest)));
    // All that there are, and no more.
    let rare = json!({"must": [{"key": "rare", "match": {"value": true}}]});
    let rare = sandbox.hits("t", json!({"vector": vector, "top_k": 100, "filter": rare})).await;
    assert_eq!(rare.len(), DOCUMENTS / 200);

    // What is deleted is never found again, whatever the index says.
    let gone: Vec<&Value> = nearest.iter().take(25).map(|hit| &hit["document_id"]).collect();
    sandbox.call("POST", "/api/v1/tables/t/documents:delete", json!({"document_ids": gone})).await.ok(200);
    let search = json!({"vector": vector, "top_k": 30, "ef": 1_000});
    let after = sandbox.hits("t", search.clone()).await;
    assert_eq!(after.len(), 30);
    assert!(after.iter().all(|hit| !gone.contains(&&hit["document_id"])));
    let itself = nearest[27]["document_id"].clone();
    let by_document = sandbox.hits("t", json!({"document_id": itself})).await;
    assert!(by_document.len() == 10 && by_document.iter().all(|hit| hit["document_id"] != itself));

    sandbox.restart().await;
    sandbox.eventually(0, "/api/v1/tables/t/stats", is_indexed).await;
    assert_eq!(sandbox.hits("t", search).await, after);
}

#[cfg(feature = "faiss")]
#[tokio::test(flavor = "multi_thread")]
async fn lists_find_what_a_scan_finds() {
    a_table_of_kind("ivf", "cosine").await;
}

#[cfg(feature = "faiss")]
#[tokio::test(flavor = "multi_thread")]
async fn factory_strings_of_lists_find_what_a_scan_finds() {
    a_table_of_kind("faiss:IVF16,PQ16x4fs", "l2").await;
}

#[cfg(feature = "faiss")]
#[tokio::test(flavor = "multi_thread")]
async fn factory_strings_of_graphs_find_what_a_scan_finds() {
    a_table_of_kind("faiss:HNSW32,SQ8", "dot").await;
}

#[cfg(feature = "faiss")]
#[tokio::test(flavor = "multi_thread")]
async fn factory_strings_of_codes_find_what_a_scan_finds() {
    a_table_of_kind("faiss:PQ16x4fs,RFlat", "cosine").await;
}

#[cfg(feature = "faiss")]
#[tokio::test(flavor = "multi_thread")]
async fn factory_strings_that_no_table_can_have_are_told() {
    let sandbox = Sandbox::start(1).await;
    for (factory, metric, says) in [
        ("", "l2", "is unknown"),
        ("PQ0", "l2", "PQ0"),
        ("IVF0,Flat", "l2", "IVF0"),
        ("PQ7", "l2", "7"),
        ("IVF16,PQ16x4fsr", "l2", "use PQ<blocks>x4fs"),
        ("HNSW16,PQ16", "dot", "not by dot product"),
        ("LSH", "cosine", "allowed are"),
        ("Flat'; DROP TABLE", "cosine", "allowed are"),
        ("IVF99999999999999999999,Flat", "l2", "IVF99999999999999999999"),
    ] {
        let body = json!({"table_name": "x", "dimension": 32, "metric": metric, "index_type": format!("faiss:{factory}")});
        let answer = sandbox.call("POST", "/api/v1/tables", body).await;
        answer.refused(factory, 400, "invalid_argument", "/index_type");
        assert!(answer.text.contains(says), "{factory}: {}", answer.text);
    }
    let long = format!("faiss:{}Flat", "RR32,".repeat(1_000));
    let body = json!({"table_name": "x", "dimension": 32, "index_type": long});
    let answer = sandbox.call("POST", "/api/v1/tables", body).await;
    answer.refused("long", 400, "invalid_argument", "/index_type");
    assert!(answer.text.len() < 1_000, "{}", answer.text);
    assert_eq!(sandbox.get("/api/v1/tables").await.ok(200), json!({"tables": []}));
}

#[cfg(not(feature = "faiss"))]
#[tokio::test(flavor = "multi_thread")]
async fn a_build_without_faiss_refuses_its_kinds() {
    let sandbox = Sandbox::start(1).await;
    for kind in ["ivf", "faiss:Flat"] {
        let body = json!({"table_name": "x", "dimension": 32, "index_type": kind});
        let answer = sandbox.call("POST", "/api/v1/tables", body).await;
        answer.refused(kind, 400, "invalid_argument", "/index_type");
        assert!(answer.text.contains("FAISS library"), "{}", answer.text);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn graphs_are_built_as_the_options_of_their_table_say() {
    let mut sandbox = Sandbox::with(&["auto"], &[("checkpoint_log_bytes", "524288")]).await;
    let documents: Vec<Value> =
        (0..DOCUMENTS).map(|number| json!({"document_id": number, "vector": vector(number)})).collect();
    let small = json!({"m": 4, "ef_construction": 32, "code_bits": 1, "alpha": 1.25});
    let large = json!({"m": 32, "ef_construction": 64, "code_bits": 8});
    let mut bytes = Vec::new();
    for (name, options) in [("small", &small), ("large", &large)] {
        let table = json!({"index_type": "hnsw", "shards": 1, "index_options": options});
        sandbox.table(name, DIMENSION as u32, table).await;
        assert_eq!(sandbox.get(&format!("/api/v1/tables/{name}")).await.ok(200)["index_options"], *options);
        sandbox.load(name, &documents).await;
        // Whatever the last rows are in may be too small.
        let is_indexed = |stats: &Value| stats["indexed_rows"].as_u64() >= Some(DOCUMENTS as u64 / 2);
        let stats = sandbox.eventually(0, &format!("/api/v1/tables/{name}/stats"), is_indexed).await;
        assert_eq!(stats["index_type"], "hnsw");
        let number = |name: &str| stats[name].as_u64().expect("a number");
        bytes.push(number("index_bytes") / number("indexed_rows"));
    }
    // 8 links of a vector and 64; codes of one bit and of eight take a cache line each.
    assert!(bytes[0] * 2 < bytes[1], "{bytes:?}");
    let hits = sandbox.hits("small", json!({"vector": vector(7), "ef": 200})).await;
    assert_eq!(ids(&hits), ids(&sandbox.hits("small", json!({"vector": vector(7), "exact": true})).await));

    sandbox.restart().await;
    assert_eq!(sandbox.get("/api/v1/tables/small").await.ok(200)["index_options"], small);
    let mut grpc = sandbox.grpc().await;
    let get = proto::GetTableRequest { table_name: "small".to_owned() };
    let table = grpc.tables.get_table(get).await.expect("there").into_inner();
    let options = proto::IndexOptions { m: 4, ef_construction: 32, code_bits: 1, alpha: 1.25 };
    assert_eq!(table.index_options, Some(options));
    let good = proto::CreateTableRequest { table_name: "g".to_owned(), dimension: 3, ..Default::default() };
    let with = |options| proto::CreateTableRequest { index_options: Some(options), ..good.clone() };
    for (wrong, field) in [
        (proto::IndexOptions { m: 33, ..options }, "/index_options/m"),
        (proto::IndexOptions { code_bits: 2, ..options }, "/index_options/code_bits"),
        (proto::IndexOptions { alpha: f32::NAN, ..options }, "/index_options/alpha"),
        (proto::IndexOptions { alpha: -1.0, ..options }, "/index_options/alpha"),
    ] {
        let answer = grpc.tables.create_table(with(wrong)).await;
        refused(field, answer, Code::InvalidArgument, "invalid_argument", field);
    }
    let created = grpc.tables.create_table(with(options)).await.expect("created").into_inner();
    assert_eq!((created.index_options, created.index_type.as_str()), (Some(options), "auto"));
}

#[tokio::test(flavor = "multi_thread")]
async fn options_that_an_index_does_not_have_are_told() {
    let sandbox = Sandbox::start(1).await;
    for (kind, options, pointer) in [
        ("hnsw", json!({"m": 1}), "/index_options/m"),
        ("hnsw", json!({"m": 33}), "/index_options/m"),
        ("hnsw", json!({"m": u64::MAX}), "/index_options/m"),
        ("hnsw", json!({"m": 16.5}), "/index_options/m"),
        ("hnsw", json!({"m": "16"}), "/index_options/m"),
        ("auto", json!({"ef_construction": 7}), "/index_options/ef_construction"),
        ("auto", json!({"ef_construction": 2_049}), "/index_options/ef_construction"),
        ("auto", json!({"code_bits": 5}), "/index_options/code_bits"),
        ("auto", json!({"code_bits": "four"}), "/index_options/code_bits"),
        ("auto", json!({"code_bits": [4]}), "/index_options/code_bits"),
        ("auto", json!({"alpha": 0.999}), "/index_options/alpha"),
        ("auto", json!({"alpha": 2.000_000_001}), "/index_options/alpha"),
        ("auto", json!({"alpha": "1"}), "/index_options/alpha"),
        ("auto", json!({"degree": 32}), "/index_options/degree"),
        ("auto", json!([]), "/index_options"),
        ("auto", json!("m=16"), "/index_options"),
        ("flat", json!({"m": 16}), "/index_options/m"),
        ("flat", json!({"code_bits": "auto"}), "/index_options/code_bits"),
    ] {
        let what = format!("{kind} {options}");
        let body = json!({"table_name": "x", "dimension": 32, "index_type": kind, "index_options": options});
        let answer = sandbox.call("POST", "/api/v1/tables", body).await;
        answer.refused(&what, 400, "invalid_argument", pointer);
    }
    for options in [Value::Null, json!({}), json!({"m": null, "code_bits": "auto"})] {
        let body = json!({"table_name": "x", "dimension": 32, "index_options": options});
        let created = sandbox.call("POST", "/api/v1/tables", body).await.ok(201);
        assert!(created.get("index_options").is_none(), "{created}");
        sandbox.call("DELETE", "/api/v1/tables/x", Value::Null).await.ok(204);
    }
}
