//! Indexes of metadata: named by the table, followed by its shards, and of no influence on what a search finds.

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde_json::{Value, json};
use tonic::Code;
use vectorsphere_proto::v1 as proto;

use super::support::{Sandbox, refused};

/// Bytes of metadata indexes on the first node.
async fn index_bytes(sandbox: &Sandbox) -> u64 {
    let text = sandbox.get("/metrics").await.text;
    let value = text.lines().find_map(|line| line.strip_prefix("vectorsphere_shard_metadata_index_bytes "));
    value.and_then(|value| value.parse().ok()).expect("the metric is there")
}

async fn until_bytes(sandbox: &Sandbox, what: &str, is_so: impl Fn(u64) -> bool) -> u64 {
    let wait = async {
        loop {
            let bytes = index_bytes(sandbox).await;
            if is_so(bytes) {
                return bytes;
            }
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(30), wait)
        .await
        .unwrap_or_else(|_| panic!("not {what}"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_table_names_its_indexes_on_every_node() {
    let sandbox = Sandbox::start(2).await;
    let indexes = json!({"section": "keyword", "size_kib": "integer", "a[].\"b.c\"": "datetime"});
    sandbox.table("t", 2, json!({"metadata_indexes": indexes})).await;
    let of = async |node: usize| {
        let table = sandbox.send(sandbox.request(node, "GET", "/api/v1/tables/t")).await.ok(200);
        table["metadata_indexes"].clone()
    };
    assert_eq!((of(0).await, of(1).await), (indexes.clone(), indexes));
    let path = |field: &str| format!("/api/v1/tables/t/metadata_indexes/{field}");
    // Twice: a repeated call is the same one. The field's quotes and brackets may be percent-encoded.
    for _ in 0..2 {
        let put = sandbox.call("PUT", &path("size_kib"), json!({"type": "float"})).await.ok(200);
        assert_eq!(put["metadata_indexes"]["size_kib"], "float");
        sandbox.call("PUT", &path("free"), json!({"type": "bool"})).await.ok(200);
        let gone = sandbox.send(sandbox.request(1, "DELETE", &path("a%5B%5D.%22b.c%22"))).await.ok(200);
        assert_eq!(
            gone["metadata_indexes"],
            json!({"free": "bool", "section": "keyword", "size_kib": "float"})
        );
    }
    assert_eq!(of(1).await, of(0).await);

    let mut grpc = sandbox.grpc().await;
    let put = proto::PutMetadataIndexRequest {
        table_name: "t".to_owned(),
        field: "place".to_owned(),
        r#type: "geo".to_owned(),
    };
    let table = grpc.tables.put_metadata_index(put.clone()).await.expect("put").into_inner();
    assert_eq!(table.metadata_indexes["place"], "geo");
    let delete =
        proto::DeleteMetadataIndexRequest { table_name: "t".to_owned(), field: "section".to_owned() };
    for _ in 0..2 {
        let table = grpc.tables.delete_metadata_index(delete.clone()).await.expect("gone").into_inner();
        assert_eq!(table.metadata_indexes.len(), 3);
    }
    let create = proto::CreateTableRequest {
        table_name: "u".to_owned(),
        dimension: 1,
        metadata_indexes: [("a".to_owned(), "keyword".to_owned())].into(),
        ..Default::default()
    };
    let created = grpc.tables.create_table(create.clone()).await.expect("created").into_inner();
    assert_eq!(created.metadata_indexes, create.metadata_indexes);

    let answer = sandbox.call("PUT", &path("a..b"), json!({"type": "int"})).await;
    answer.refused("a broken field", 400, "invalid_argument", "/field");
    assert_eq!(answer.body["errors"][1]["pointer"], "/type", "all at once");
    sandbox.call("PUT", &path("a"), json!({})).await.refused("no type", 400, "invalid_argument", "/type");
    sandbox.call("PUT", &path("a"), json!({"kind": 1})).await.refused(
        "a typo",
        400,
        "invalid_argument",
        "/kind",
    );
    let nowhere = sandbox.call("PUT", "/api/v1/tables/v/metadata_indexes/a", json!({"type": "bool"})).await;
    nowhere.refused("no table", 404, "table_not_found", "");
    let bad =
        grpc.tables.put_metadata_index(proto::PutMetadataIndexRequest { r#type: String::new(), ..put }).await;
    refused("no type", bad, Code::InvalidArgument, "invalid_argument", "/type");
    let bad = [("x/y.".to_owned(), "keyword".to_owned()), ("z".to_owned(), "text".to_owned())].into();
    let bad = proto::CreateTableRequest { table_name: "v".to_owned(), metadata_indexes: bad, ..create };
    let bad = grpc.tables.create_table(bad).await;
    refused("broken indexes", bad, Code::InvalidArgument, "invalid_argument", "/metadata_indexes/x~1y.");
    let body = |indexes: Value| json!({"table_name": "v", "dimension": 1, "metadata_indexes": indexes});
    for (indexes, pointer) in [
        (json!({"x/y.": "keyword"}), "/metadata_indexes/x~1y."),
        (json!({"z": "text"}), "/metadata_indexes/z"),
        (json!({"z": 1}), "/metadata_indexes/z"),
        (json!(["z"]), "/metadata_indexes"),
        ((0..65).map(|field| (field.to_string(), json!("bool"))).collect(), "/metadata_indexes"),
    ] {
        let answer = sandbox.call("POST", "/api/v1/tables", body(indexes.clone())).await;
        answer.refused(&indexes.to_string(), 400, "invalid_argument", pointer);
    }
    let twice = r#"{"table_name":"v","dimension":1,"metadata_indexes":{"a":"bool","b":"bool","a":"bool"}}"#;
    let answer = sandbox.raw("POST", "/api/v1/tables", twice).await;
    answer.refused("a field twice", 400, "invalid_argument", "/metadata_indexes/a");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_table_has_so_many_indexes_and_no_more() {
    let sandbox = Sandbox::start(1).await;
    let indexes: Value = (0..64).map(|field| (field.to_string(), json!("bool"))).collect();
    sandbox.table("t", 1, json!({"metadata_indexes": indexes})).await;
    let put = async |field: &str| {
        sandbox
            .call("PUT", &format!("/api/v1/tables/t/metadata_indexes/{field}"), json!({"type": "geo"}))
            .await
    };
    put("more").await.refused("one too many", 400, "invalid_argument", "/field");
    put("63").await.ok(200);
    sandbox.call("DELETE", "/api/v1/tables/t/metadata_indexes/0", json!({})).await.ok(200);
    put("more").await.ok(200);
}

/// Of document `number`; now and then of another type, or missing.
fn metadata(number: usize) -> Value {
    let section = ["libs", "doc", "net", "games"][number % 4];
    let mut metadata = json!({
        "section": section,
        "size": number,
        "score": number as f64 / 8.0,
        "free": number.is_multiple_of(3),
        "made": format!("20{:02}-05-01T12:00:00Z", number % 50),
        "tags": [format!("t{}", number % 7), format!("t{}", number % 5)],
        "place": {"lat": (number % 90) as f64, "lon": (number % 180) as f64},
        "filler": "x".repeat(100),
    });
    let object = metadata.as_object_mut().expect("an object");
    match number % 10 {
        7 => drop(object.insert("section".to_owned(), Value::Null)),
        8 => drop(object.insert("size".to_owned(), json!(format!("{number}")))),
        9 => drop(object.remove("score")),
        _ => {}
    }
    metadata
}

fn filters() -> Vec<Value> {
    let field = |key: &str, name: &str, test: Value| json!({"key": key, name: test});
    vec![
        json!({"must": [field("section", "match", json!({"any": ["libs", "net"]}))]}),
        json!({"must": [field("section", "match", json!({"except": ["libs"]}))]}),
        json!({"must": [field("section", "is_null", json!(true))], "must_not": [field("size", "range", json!({"gt": 700}))]}),
        json!({"must": [field("size", "range", json!({"gte": 100, "lt": 400})), field("free", "match", json!({"value": true}))]}),
        json!({"should": [field("size", "match", json!({"any": [3, "8", 11.0]})), field("score", "range", json!({"gt": 70}))]}),
        json!({"must": [field("made", "range", json!({"gt": "2024-05-01", "lte": "2030-05-01T12:00:00Z"}))]}),
        json!({"must": [field("tags", "match", json!({"value": "t3"}))], "must_not": [field("tags[]", "match", json!({"any": ["t1"]}))]}),
        json!({"must": [field("place", "geo_radius", json!({"center": {"lat": 10, "lon": 10}, "radius_m": 500_000}))]}),
        json!({"must": [field("unindexed", "exists", json!(false)), field("section", "match", json!({"value": "doc"}))]}),
    ]
}

async fn answers(sandbox: &Sandbox) -> Vec<Vec<Value>> {
    let mut answers = Vec::new();
    for filter in filters() {
        answers.push(sandbox.hits("t", json!({"vector": [0, 0], "top_k": 10_000, "filter": filter})).await);
    }
    answers
}

/// How each segment of the only shard is searched; gRPC says the same.
async fn explanation(sandbox: &Sandbox, filter: &Value) -> Vec<Value> {
    let body = json!({"vector": [0, 0], "filter": filter, "explain": true});
    let answer = sandbox.call("POST", "/api/v1/tables/t/search", body).await.ok(200);
    assert_eq!(answer["explanation"].as_array().map(Vec::len), Some(1), "{answer}");
    let segments = answer["explanation"][0]["segments"].as_array().expect("segments").clone();
    let mut grpc = sandbox.grpc().await;
    let vector = proto::vector::Data::Floats(proto::FloatArray { values: vec![0.0; 2] });
    let query = Some(proto::search_request::Query::Vector(proto::Vector { data: Some(vector) }));
    let request =
        proto::SearchRequest { table_name: "t".to_owned(), query, explain: true, ..Default::default() };
    let shards = grpc.search.search(request).await.expect("found").into_inner().explanation;
    let rows: Vec<u64> = shards[0].segments.iter().map(|segment| segment.rows).collect();
    assert_eq!(rows, segments.iter().filter_map(|segment| segment["rows"].as_u64()).collect::<Vec<_>>());
    segments
}

/// Steps: many documents, some of them changed and deleted; filters without an index; indexes, built in the background while
/// more is changed; the same filters; a new index for one; none any more.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn filters_find_the_same_with_indexes_and_without() {
    let sandbox = Sandbox::with(&["auto"], &[("checkpoint_log_bytes", "65536")]).await;
    sandbox.table("t", 2, json!({"metric": "l2", "shards": 1})).await;
    let document =
        |number: usize| json!({"document_id": number, "vector": [number, 1], "metadata": metadata(number)});
    let load = async |numbers: Vec<usize>| {
        sandbox.load("t", &numbers.into_iter().map(document).collect::<Vec<_>>()).await;
    };
    load((0..900).collect()).await;
    load((0..900).step_by(11).collect()).await;
    let ids: Vec<usize> = (5..900).step_by(13).collect();
    sandbox.call("POST", "/api/v1/tables/t/documents:delete", json!({"document_ids": ids})).await.ok(200);
    let expected = answers(&sandbox).await;
    for (filter, hits) in filters().iter().zip(&expected) {
        assert!((3..800).contains(&hits.len()), "{} hits are no test of {filter}", hits.len());
    }
    assert_eq!(index_bytes(&sandbox).await, 0);
    for segment in explanation(&sandbox, &filters()[0]).await {
        let filter = &segment["filter"];
        assert_eq!(
            (&filter["applied"], &filter["unindexed_keys"]),
            (&json!("metadata"), &json!(["section"]))
        );
        assert!(
            filter["passing"].as_u64() <= segment["rows"].as_u64() && filter["elapsed_us"].is_u64(),
            "{segment}"
        );
    }
    let plain = sandbox
        .call("POST", "/api/v1/tables/t/search", json!({"vector": [0, 0], "explain": true}))
        .await
        .ok(200);
    assert!(plain["explanation"][0]["segments"][0].get("filter").is_none(), "{plain}");

    let put = async |field: &str, kind: &str| {
        let path = format!("/api/v1/tables/t/metadata_indexes/{field}");
        sandbox.call("PUT", &path, json!({"type": kind})).await.ok(200);
    };
    let fields = [
        ("section", "keyword"),
        ("size", "integer"),
        ("score", "float"),
        ("free", "bool"),
        ("made", "datetime"),
    ];
    for (field, kind) in fields.into_iter().chain([("tags", "keyword"), ("place", "geo")]) {
        put(field, kind).await;
        assert_eq!(answers(&sandbox).await, expected, "while {field} is being indexed");
    }
    let full = until_bytes(&sandbox, "indexed", |bytes| bytes > 10_000).await;
    assert_eq!(answers(&sandbox).await, expected);
    let explained = explanation(&sandbox, &filters()[0]).await;
    let by_index = explained.iter().filter(|segment| segment["filter"]["applied"] == "index");
    assert!(
        by_index.count() > 0 && explained.iter().all(|segment| segment["rows"].as_u64() > Some(0)),
        "{explained:?}"
    );
    // Rows that are replaced by themselves lie elsewhere, in part in a segment that is not sealed.
    load((0..900).filter(|number| number % 13 != 5).step_by(5).collect()).await;
    assert_eq!(answers(&sandbox).await, expected);
    put("size", "keyword").await;
    assert_eq!(answers(&sandbox).await, expected, "another type is no other answer");
    for (field, _) in fields.into_iter().chain([("tags", ""), ("place", "")]) {
        let path = format!("/api/v1/tables/t/metadata_indexes/{field}");
        sandbox.send(sandbox.request(0, "DELETE", &path)).await.ok(200);
    }
    until_bytes(&sandbox, &format!("without indexes any more, of {full} bytes"), |bytes| bytes == 0).await;
    assert_eq!(answers(&sandbox).await, expected);
}

/// Steps: many documents with vectors of some length, indexes of their metadata, and a graph; every filter with a walk of the graph,
/// and with a comparison of all rows.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn graphs_are_searched_by_what_indexes_know() {
    let sandbox = Sandbox::with(&["auto"], &[("checkpoint_log_bytes", "65536")]).await;
    let fields =
        json!({"section": "keyword", "size": "integer", "tags": "keyword", "place": "geo", "free": "bool"});
    let more = json!({"metric": "l2", "shards": 1, "index_type": "hnsw", "metadata_indexes": fields});
    sandbox.table("t", 64, more).await;
    let mut random = ChaCha8Rng::seed_from_u64(7);
    let mut vector = || (0..64).map(|_| random.random_range(-1.0..1.0)).collect::<Vec<f32>>();
    let document =
        |number: usize| json!({"document_id": number, "vector": vector(), "metadata": metadata(number)});
    let documents: Vec<Value> = (0..3_000).map(document).collect();
    sandbox.load("t", &documents).await;
    sandbox
        .eventually(0, "/api/v1/tables/t/stats", |stats| stats["indexed_rows"].as_u64() >= Some(1_000))
        .await;
    until_bytes(&sandbox, "indexed", |bytes| bytes > 10_000).await;
    let ids = |hits: Vec<Value>| -> Vec<String> {
        hits.iter().map(|hit| hit["document_id"].as_str().expect("an id").to_owned()).collect()
    };
    let (mut found_both, mut found_exactly) = (0, 0);
    for filter in filters() {
        for query in documents.iter().take(5) {
            let body = |exact: bool| json!({"vector": query["vector"], "top_k": 10, "filter": filter, "exact": exact});
            let exact = ids(sandbox.hits("t", body(true)).await);
            let walked = ids(sandbox.hits("t", body(false)).await);
            assert_eq!(walked.len(), exact.len(), "as many hits as there are: {filter}");
            found_exactly += exact.len();
            found_both += walked.iter().filter(|id| exact.contains(id)).count();
        }
    }
    assert!(found_both * 100 >= found_exactly * 95, "{found_both} of {found_exactly}");
}
