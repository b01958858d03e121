//! Indexes of metadata: named by the table, followed by its shards, and of no influence on what a search finds.

use std::time::{Duration, Instant};

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde_json::{Value, json};
use tonic::Code;
use vectorsphere_proto::v1 as proto;

use super::support::{Sandbox, refused};

const PATIENCE: Duration = Duration::from_secs(30);
const PAUSE: Duration = Duration::from_millis(20);

/// Bytes of metadata indexes on the first node.
async fn index_bytes(sandbox: &Sandbox) -> u64 {
    index_bytes_on(sandbox, 0).await
}

async fn index_bytes_on(sandbox: &Sandbox, node: usize) -> u64 {
    let text = sandbox.send(sandbox.request(node, "GET", "/metrics")).await.text;
    let value = text.lines().find_map(|line| line.strip_prefix("vectorsphere_shard_metadata_index_bytes "));
    value.and_then(|value| value.parse().ok()).expect("the metric is there")
}

async fn until(what: &str, is_so: impl AsyncFn() -> bool) {
    let until = Instant::now() + PATIENCE;
    while !is_so().await {
        assert!(Instant::now() < until, "not so: {what}");
        tokio::time::sleep(PAUSE).await;
    }
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

/// A filter of `must` alone with conditions of a few kinds, as gRPC has it.
fn message(filter: &Value) -> proto::Filter {
    use proto::condition::Kind;
    let scalar = |value: &Value| {
        let kind = match value {
            Value::String(text) => proto::scalar::Kind::StringValue(text.clone()),
            value => proto::scalar::Kind::IntValue(value.as_i64().expect("a text or a whole number")),
        };
        proto::Scalar { kind: Some(kind) }
    };
    let condition = |condition: &Value| {
        let key = condition["key"].as_str().expect("a key").to_owned();
        let (exists, range) = (condition["exists"].as_bool(), condition["range"].as_object());
        let kind = match (exists, range) {
            (Some(exists), _) => Kind::Exists(exists),
            (None, Some(range)) => {
                assert!(range.keys().all(|key| ["gte", "lt"].contains(&key.as_str())), "{condition}");
                let (gte, lt) = (range.get("gte").map(scalar), range.get("lt").map(scalar));
                Kind::Range(proto::Range { gte, lt, ..Default::default() })
            }
            (None, None) => {
                let any = condition["match"]["any"].as_array().expect("a list of values");
                let values = any.iter().map(scalar).collect();
                let any = proto::r#match::Kind::Any(proto::Scalars { values });
                Kind::Match(proto::Match { kind: Some(any) })
            }
        };
        proto::Condition { key, kind: Some(kind) }
    };
    let must = filter["must"].as_array().expect("conditions").iter().map(condition);
    proto::Filter { must: must.collect(), ..Default::default() }
}

/// How each segment of the only shard is searched.
async fn explanation(sandbox: &Sandbox, dimension: usize, filter: &Value) -> Vec<Value> {
    let body = json!({"vector": vec![0; dimension], "filter": filter, "explain": true});
    let answer = sandbox.call("POST", "/api/v1/tables/t/search", body).await.ok(200);
    assert_eq!(answer["explanation"].as_array().map(Vec::len), Some(1), "{answer}");
    answer["explanation"][0]["segments"].as_array().expect("segments").clone()
}

/// The same by gRPC, without the time that it took.
async fn explanation_by_grpc(sandbox: &Sandbox, dimension: usize, filter: &Value) -> Vec<Value> {
    let mut grpc = sandbox.grpc().await;
    let floats = proto::FloatArray { values: vec![0.0; dimension] };
    let vector = proto::Vector { data: Some(proto::vector::Data::Floats(floats)) };
    let request = proto::SearchRequest {
        table_name: "t".to_owned(),
        query: Some(proto::search_request::Query::Vector(vector)),
        filter: Some(message(filter)),
        explain: true,
        ..Default::default()
    };
    let shards = grpc.search.search(request).await.expect("found").into_inner().explanation;
    let segment = |segment: &proto::SegmentExplanation| {
        let filter = segment.filter.as_ref().expect("there was a filter");
        json!({"rows": segment.rows, "filter": {
            "passing": filter.passing, "applied": filter.applied, "unindexed_keys": filter.unindexed_keys}})
    };
    shards[0].segments.iter().map(segment).collect()
}

/// As [`explanation`], and gRPC says the same.
async fn explanation_everywhere(sandbox: &Sandbox, dimension: usize, filter: &Value) -> Vec<Value> {
    let timeless = |segments: &[Value]| {
        let mut segments = segments.to_vec();
        for segment in &mut segments {
            let took = segment["filter"].as_object_mut().and_then(|filter| filter.remove("elapsed_us"));
            assert!(took.is_some_and(|took| took.is_u64()), "{segment}");
            // How it was searched is no matter of filters.
            assert!(
                segment.as_object_mut().is_some_and(|parts| parts.remove("search").is_some()),
                "{segment}"
            );
        }
        segments
    };
    for _ in 0..100 {
        let before = explanation(sandbox, dimension, filter).await;
        let by_grpc = explanation_by_grpc(sandbox, dimension, filter).await;
        let after = explanation(sandbox, dimension, filter).await;
        // Segments come and go in the background.
        if timeless(&before) == timeless(&after) {
            assert_eq!(by_grpc, timeless(&after), "{filter}");
            return after;
        }
    }
    panic!("segments never stay the same");
}

fn exist(fields: &[&str]) -> Value {
    let condition = |field: &&str| json!({"key": field, "exists": true});
    json!({"must": fields.iter().map(condition).collect::<Vec<_>>()})
}

/// Waits until the segments are searched as wanted; each is given as its rows and how the filter is applied.
async fn until_applied(
    sandbox: &Sandbox,
    dimension: usize,
    filter: &Value,
    is_so: impl Fn(&[(u64, &str)]) -> bool,
) {
    let until = Instant::now() + PATIENCE;
    loop {
        let segments = explanation(sandbox, dimension, filter).await;
        let applied = segments.iter().map(|segment| {
            let applied = segment["filter"]["applied"].as_str().expect("a word");
            (segment["rows"].as_u64().expect("a number"), applied)
        });
        if is_so(&applied.collect::<Vec<_>>()) {
            return;
        }
        assert!(Instant::now() < until, "{filter} is still applied so: {segments:?}");
        tokio::time::sleep(PAUSE).await;
    }
}

/// Waits until the indexes of all large segments, of which there are some, have all of these fields.
async fn until_indexed(sandbox: &Sandbox, dimension: usize, rows_min: u64, fields: &[&str]) {
    until_applied(sandbox, dimension, &exist(fields), |segments| {
        let mut large = segments.iter().filter(|(rows, _)| *rows >= rows_min).peekable();
        large.peek().is_some() && large.all(|(_, applied)| *applied == "index")
    })
    .await;
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
    for segment in explanation_everywhere(&sandbox, 2, &filters()[0]).await {
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
    let is_indexed = |segments: &[(u64, &str)]| segments.iter().any(|(_, applied)| *applied == "index");
    let names = ["section", "size", "score", "free", "made", "tags", "place"];
    until_applied(&sandbox, 2, &exist(&names), is_indexed).await;
    assert!(index_bytes(&sandbox).await > 0);
    assert_eq!(answers(&sandbox).await, expected);
    for filter in [&filters()[0], &exist(&["section", "other"])] {
        let explained = explanation_everywhere(&sandbox, 2, filter).await;
        assert!(explained.iter().all(|segment| segment["rows"].as_u64() > Some(0)), "{explained:?}");
    }
    // Rows that are replaced by themselves lie elsewhere, in part in a segment that is not sealed.
    load((0..900).filter(|number| number % 13 != 5).step_by(5).collect()).await;
    assert_eq!(answers(&sandbox).await, expected);
    let sizes = json!({"must": [{"key": "size", "range": {"gte": 100, "lt": 400}}]});
    until_applied(&sandbox, 2, &sizes, is_indexed).await;
    put("size", "keyword").await;
    assert_eq!(answers(&sandbox).await, expected, "another type is no other answer");
    until_applied(&sandbox, 2, &sizes, |segments| {
        let is_narrowed = |(_, applied): &(u64, &str)| *applied == "index_and_metadata";
        !is_indexed(segments) && segments.iter().any(is_narrowed)
    })
    .await;
    assert_eq!(answers(&sandbox).await, expected, "nor when it is there");
    let explained = explanation_everywhere(&sandbox, 2, &sizes).await;
    assert!(explained.iter().all(|segment| segment["filter"]["unindexed_keys"] == json!(["size"])));
    for (field, _) in fields.into_iter().chain([("tags", ""), ("place", "")]) {
        let path = format!("/api/v1/tables/t/metadata_indexes/{field}");
        sandbox.send(sandbox.request(0, "DELETE", &path)).await.ok(200);
    }
    until("no index is left", async || index_bytes(&sandbox).await == 0).await;
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
    until_indexed(&sandbox, 64, 1_024, &["section", "size", "tags", "place", "free"]).await;
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

/// Steps: a table with two copies and indexes, one of which comes, goes and changes its type while documents are written and
/// segments merged; a restart of all nodes; then both nodes have indexes again, and whichever copy answers finds what passes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn indexes_of_every_copy_follow_changes_merges_and_restarts() {
    let mut sandbox = Sandbox::with(&["auto", "auto"], &[("checkpoint_log_bytes", "65536")]).await;
    let indexes = json!({"section": "keyword", "size": "integer", "tags": "keyword", "place": "geo"});
    let more = json!({"metric": "l2", "shards": 1, "replicas": 2, "metadata_indexes": indexes});
    sandbox.table("t", 2, more).await;
    let document =
        |number: usize| json!({"document_id": number, "vector": [number, 1], "metadata": metadata(number)});
    for (part, kind) in
        [Some("integer"), None, Some("float"), Some("keyword"), Some("integer")].iter().enumerate()
    {
        let path = "/api/v1/tables/t/metadata_indexes/size";
        match kind {
            Some(kind) => sandbox.call("PUT", path, json!({"type": kind})).await.ok(200),
            None => sandbox.send(sandbox.request(0, "DELETE", path)).await.ok(200),
        };
        // Every part replaces some of the one before.
        let first = (part * 200).saturating_sub(50);
        let part: Vec<Value> = (first..part * 200 + 200).map(document).collect();
        sandbox.load("t", &part).await;
    }
    let mut expected = Vec::new();
    for filter in filters() {
        let passing = json!({"vector": [0, 0], "top_k": 10_000, "filter": filter});
        expected.push(sandbox.hits("t", passing).await);
    }
    sandbox.restart().await;
    for node in 0..2 {
        until(&format!("node {node} has indexes"), async || index_bytes_on(&sandbox, node).await > 0).await;
    }
    until_applied(&sandbox, 2, &exist(&["section", "size", "tags", "place"]), |segments| {
        segments.iter().any(|(_, applied)| *applied == "index")
    })
    .await;
    for (filter, expected) in filters().iter().zip(&expected) {
        for node in 0..2 {
            let body =
                json!({"vector": [0, 0], "top_k": 10_000, "filter": filter, "consistency": "eventual"});
            // A copy may be behind for a while.
            until(&format!("node {node} finds what passes {filter}"), async || {
                let request = sandbox.request(node, "POST", "/api/v1/tables/t/search").json(&body);
                sandbox.send(request).await.body["hits"] == json!(expected)
            })
            .await;
        }
    }
}

/// Steps: documents in one segment with a graph, and an index of a field that all of them have; the documents nearest to a query
/// are deleted, more of them than a walk keeps candidates; the query asks for documents with the field.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_walk_goes_beyond_deleted_rows_that_the_index_knows() {
    let sandbox = Sandbox::start(1).await;
    let more =
        json!({"metric": "l2", "shards": 1, "index_type": "hnsw", "metadata_indexes": {"free": "bool"}});
    sandbox.table("t", 64, more).await;
    let mut random = ChaCha8Rng::seed_from_u64(7);
    let mut vector = || (0..64).map(|_| random.random_range(-1.0..1.0)).collect::<Vec<f32>>();
    let document =
        |number: usize| json!({"document_id": number, "vector": vector(), "metadata": {"free": true}});
    let documents: Vec<Value> = (0..3_000).map(document).collect();
    sandbox.load("t", &documents).await;
    sandbox
        .eventually(0, "/api/v1/tables/t/stats", |stats| stats["indexed_rows"].as_u64() == Some(3_000))
        .await;
    let filter = exist(&["free"]);
    until_indexed(&sandbox, 64, 1, &["free"]).await;
    let ids =
        |hits: Vec<Value>| -> Vec<Value> { hits.iter().map(|hit| hit["document_id"].clone()).collect() };
    let query = &documents[0]["vector"];
    let nearest = ids(sandbox.hits("t", json!({"vector": query, "top_k": 150, "exact": true})).await);
    sandbox.call("POST", "/api/v1/tables/t/documents:delete", json!({"document_ids": nearest})).await.ok(200);
    let body = |exact: bool| json!({"vector": query, "top_k": 10, "filter": filter, "exact": exact});
    let exact = ids(sandbox.hits("t", body(true)).await);
    let walked = ids(sandbox.hits("t", body(false)).await);
    assert_eq!(walked.len(), 10);
    assert!(walked.iter().filter(|id| exact.contains(id)).count() >= 8, "{walked:?}, not {exact:?}");
    let segments = explanation(&sandbox, 64, &filter).await;
    assert_eq!((segments.len(), &segments[0]["filter"]["passing"]), (1, &json!(3_000)), "no test any more");
}
