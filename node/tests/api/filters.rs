//! Filters of searches: what passes, over REST and gRPC, and what is refused.

use serde_json::{Value, json};
use tonic_types::StatusExt as _;
use vectorsphere_proto::v1 as proto;
use vectorsphere_proto::v1::condition::Kind;

use super::support::Sandbox;

/// Metadata of the documents `0`, `1`, …: the last one has none.
fn metadata() -> Vec<Value> {
    vec![
        json!({"section": "libs", "size": 10, "free": true, "tags": ["a", "b"], "made": "2024-05-01T12:00:00Z"}),
        json!({"section": "doc", "size": 20.5, "free": false, "tags": [], "made": "2024-05-02T00:00:00+02:00"}),
        json!({"section": "libs", "size": "10", "tags": null, "a.b": {"c": 1}}),
        json!({"section": null, "size": -5, "place": {"lat": 52.52, "lon": 13.405}}),
        json!({"items": [{"color": "red", "size": 1}, {"color": "blue", "size": 2}], "place": {"lat": -18.1, "lon": 178.4}}),
        json!({"items": [{"color": "red", "size": 2}], "place": [{"lat": 48.85, "lon": 2.35}, {"lat": 0, "lon": 0}]}),
        json!({}),
    ]
}

async fn sandbox() -> Sandbox {
    let sandbox = Sandbox::start(1).await;
    sandbox.table("t", 2, json!({"metric": "l2", "shards": 2})).await;
    let document =
        |(number, metadata)| json!({"document_id": number, "vector": [number, 1], "metadata": metadata});
    let documents: Vec<Value> = metadata().into_iter().enumerate().map(document).collect();
    sandbox.load("t", &documents).await;
    sandbox
}

/// Ids of the documents that pass, ascending.
async fn found(sandbox: &Sandbox, filter: Value) -> Vec<String> {
    let hits = sandbox.hits("t", json!({"vector": [0, 0], "top_k": 100, "filter": filter})).await;
    hits.iter().map(|hit| hit["document_id"].as_str().expect("an id").to_owned()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_search_finds_only_what_passes() {
    let sandbox = sandbox().await;
    let field = |key: &str, name: &str, test: Value| json!({"key": key, name: test});
    let cases: Vec<(Value, &[&str])> = vec![
        (field("section", "match", json!({"value": "libs"})), &["0", "2"]),
        (field("section", "match", json!({"any": ["doc", "x"]})), &["1"]),
        (field("section", "match", json!({"except": ["doc"]})), &["0", "2"]),
        (field("size", "match", json!({"value": 10})), &["0"]),
        (field("size", "match", json!({"any": ["10", 20.5]})), &["1", "2"]),
        (field("free", "match", json!({"value": false})), &["1"]),
        (field("tags", "match", json!({"value": "b"})), &["0"]),
        (field("tags[]", "match", json!({"value": "b"})), &["0"]),
        (field("size", "range", json!({"gt": -5, "lte": 20.5})), &["0", "1"]),
        (field("made", "range", json!({"gte": "2024-05-01T22:00:00Z"})), &["1"]),
        (field("made", "range", json!({"lt": "2024-05-02"})), &["0", "1"]),
        (field("tags", "exists", json!(true)), &["0"]),
        (field("tags", "exists", json!(false)), &["1", "2", "3", "4", "5", "6"]),
        (field("tags", "is_null", json!(true)), &["2"]),
        (field("section", "is_null", json!(false)), &["0", "1", "2", "4", "5", "6"]),
        (field("\"a.b\".c", "exists", json!(true)), &["2"]),
        (field("a.b.c", "exists", json!(true)), &[]),
        (field("items[].color", "match", json!({"value": "blue"})), &["4"]),
        (field("items.color", "match", json!({"value": "blue"})), &[]),
        (
            field("place", "geo_radius", json!({"center": {"lat": 52.5, "lon": 13.4}, "radius_m": 10_000})),
            &["3"],
        ),
        (
            field(
                "place",
                "geo_box",
                json!({"top_left": {"lat": 1, "lon": 177}, "bottom_right": {"lat": -20, "lon": 1}}),
            ),
            &["4", "5"],
        ),
        (
            json!({"nested": {"key": "items", "filter": {"must": [
                field("color", "match", json!({"value": "red"})), field("size", "match", json!({"value": 2}))]}}}),
            &["5"],
        ),
        (
            json!({"should": [field("size", "match", json!({"value": 10})), {"must_not": [field("items", "exists", json!(false))]}]}),
            &["0", "4", "5"],
        ),
    ];
    for (condition, expected) in cases {
        assert_eq!(found(&sandbox, json!({"must": [condition]})).await, expected, "{condition}");
        let opposite: Vec<String> =
            (0..7).map(|id: usize| id.to_string()).filter(|id| !expected.contains(&id.as_str())).collect();
        assert_eq!(found(&sandbox, json!({"must_not": [condition]})).await, opposite, "not {condition}");
    }
    assert_eq!(found(&sandbox, json!({})).await.len(), 7);
    assert_eq!(found(&sandbox, Value::Null).await.len(), 7);
    assert_eq!(found(&sandbox, json!({"should": []})).await.len(), 7);
    // Metadata that changed is what counts, and the filter with the threshold and the page of hits.
    sandbox
        .call("PATCH", "/api/v1/tables/t/documents/6", json!({"metadata": {"section": "libs"}}))
        .await
        .ok(200);
    let libs = json!({"must": [field("section", "match", json!({"value": "libs"}))]});
    assert_eq!(found(&sandbox, libs.clone()).await, ["0", "2", "6"]);
    let near = json!({"vector": [6, 1], "top_k": 1, "threshold": 5, "filter": libs, "with_metadata": true});
    let hits = sandbox.hits("t", near).await;
    assert_eq!(hits, [json!({"document_id": "6", "score": 0.0, "metadata": {"section": "libs"}})]);
    let by_document = json!({"document_id": "0", "filter": libs});
    let hits = sandbox.hits("t", by_document).await;
    assert_eq!(hits.iter().map(|hit| &hit["document_id"]).collect::<Vec<_>>(), ["2", "6"]);
}

fn scalar(kind: proto::scalar::Kind) -> proto::Scalar {
    proto::Scalar { kind: Some(kind) }
}

fn text(text: &str) -> proto::Scalar {
    scalar(proto::scalar::Kind::StringValue(text.to_owned()))
}

fn whole(number: i64) -> proto::Scalar {
    scalar(proto::scalar::Kind::IntValue(number))
}

fn condition(key: &str, kind: Kind) -> proto::Condition {
    proto::Condition { key: key.to_owned(), kind: Some(kind) }
}

fn any(values: Vec<proto::Scalar>) -> Kind {
    let any = proto::r#match::Kind::Any(proto::Scalars { values });
    Kind::Match(proto::Match { kind: Some(any) })
}

fn search(filter: proto::Filter) -> proto::SearchRequest {
    let floats = proto::FloatArray { values: vec![0.0, 0.0] };
    let vector = proto::Vector { data: Some(proto::vector::Data::Floats(floats)) };
    proto::SearchRequest {
        table_name: "t".to_owned(),
        query: Some(proto::search_request::Query::Vector(vector)),
        filter: Some(filter),
        ..Default::default()
    }
}

fn must(must: Vec<proto::Condition>) -> proto::Filter {
    proto::Filter { must, ..Default::default() }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn grpc_takes_the_same_filters() {
    let sandbox = sandbox().await;
    let mut grpc = sandbox.grpc().await;
    let place = |lat, lon| Some(proto::GeoPoint { lat, lon });
    let cases = [
        (condition("section", any(vec![text("libs")])), vec!["0", "2"]),
        (
            condition("size", any(vec![whole(10), scalar(proto::scalar::Kind::DoubleValue(20.5))])),
            vec!["0", "1"],
        ),
        (condition("size", any(vec![scalar(proto::scalar::Kind::UintValue(10))])), vec!["0"]),
        (condition("free", any(vec![scalar(proto::scalar::Kind::BoolValue(true))])), vec!["0"]),
        (
            condition("size", Kind::Range(proto::Range { lt: Some(whole(0)), ..Default::default() })),
            vec!["3"],
        ),
        (
            condition(
                "made",
                Kind::Range(proto::Range { gt: Some(text("2024-05-01T12:00:00Z")), ..Default::default() }),
            ),
            vec!["1"],
        ),
        (condition("items", Kind::Exists(true)), vec!["4", "5"]),
        (condition("tags", Kind::IsNull(true)), vec!["2"]),
        (
            condition("place", Kind::GeoRadius(proto::GeoRadius { center: place(48.8, 2.3), radius_m: 1e5 })),
            vec!["5"],
        ),
        (
            condition(
                "place",
                Kind::GeoBox(proto::GeoBox { top_left: place(60.0, 10.0), bottom_right: place(50.0, 20.0) }),
            ),
            vec!["3"],
        ),
        (
            condition(
                "",
                Kind::Nested(proto::Nested {
                    key: "items".to_owned(),
                    filter: Some(must(vec![
                        condition("color", any(vec![text("red")])),
                        condition("size", any(vec![whole(1)])),
                    ])),
                }),
            ),
            vec!["4"],
        ),
        (condition("", Kind::Filter(must(vec![condition("section", any(vec![text("doc")]))]))), vec!["1"]),
    ];
    for (condition, expected) in cases {
        let what = format!("{condition:?}");
        let answer = grpc.search.search(search(must(vec![condition]))).await.expect("found").into_inner();
        let found: Vec<&str> = answer.hits.iter().map(|hit| hit.document_id.as_str()).collect();
        assert_eq!(found, expected, "{what}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rest_and_grpc_refuse_filters_in_the_same_words() {
    let sandbox = sandbox().await;
    let mut grpc = sandbox.grpc().await;
    let range = |range: proto::Range| Kind::Range(range);
    let point = |lat, lon| Some(proto::GeoPoint { lat, lon });
    let deep = |levels: usize| {
        (0..levels).fold((json!({"must": []}), proto::Filter::default()), |(json, message), _| {
            (json!({"must": [json]}), must(vec![condition("", Kind::Filter(message))]))
        })
    };
    let one = |json: Value, condition: proto::Condition| (json!({"must": [json]}), must(vec![condition]));
    let numbers = 0..10_001;
    let cases: Vec<(Value, proto::Filter)> = vec![
        one(json!({"key": "a"}), proto::Condition { key: "a".to_owned(), kind: None }),
        one(json!({"exists": true}), condition("", Kind::Exists(true))),
        one(json!({"key": "a[", "exists": true}), condition("a[", Kind::Exists(true))),
        one(
            json!({"key": "x".repeat(2_000), "is_null": true}),
            condition(&"x".repeat(2_000), Kind::IsNull(true)),
        ),
        one(json!({"key": "a", "match": {}}), condition("a", Kind::Match(proto::Match { kind: None }))),
        one(json!({"key": "a", "range": {}}), condition("a", range(proto::Range::default()))),
        one(
            json!({"key": "a", "range": {"gt": "soon", "lte": true}}),
            condition(
                "a",
                range(proto::Range {
                    gt: Some(text("soon")),
                    lte: Some(scalar(proto::scalar::Kind::BoolValue(true))),
                    ..Default::default()
                }),
            ),
        ),
        one(
            json!({"key": "a", "range": {"gt": 1, "gte": 1, "lt": "2024-05-01"}}),
            condition(
                "a",
                range(proto::Range {
                    gt: Some(whole(1)),
                    gte: Some(whole(1)),
                    lt: Some(text("2024-05-01")),
                    ..Default::default()
                }),
            ),
        ),
        one(
            json!({"key": "a", "geo_radius": {"center": {"lat": 91, "lon": 1e300}, "radius_m": -1}}),
            condition("a", Kind::GeoRadius(proto::GeoRadius { center: point(91.0, 1e300), radius_m: -1.0 })),
        ),
        one(
            json!({"key": "a", "geo_box": {"top_left": {"lat": 0, "lon": 0}}}),
            condition("a", Kind::GeoBox(proto::GeoBox { top_left: point(0.0, 0.0), bottom_right: None })),
        ),
        one(
            json!({"nested": {"filter": {"must_not": [{"key": "..", "exists": true}]}}}),
            condition(
                "",
                Kind::Nested(proto::Nested {
                    key: String::new(),
                    filter: Some(proto::Filter {
                        must_not: vec![condition("..", Kind::Exists(true))],
                        ..Default::default()
                    }),
                }),
            ),
        ),
        one(
            json!({"key": "a", "match": {"any": numbers.clone().collect::<Vec<_>>()}}),
            condition("a", any(numbers.map(whole).collect())),
        ),
        (
            json!({"should": vec![json!({"key": "a", "exists": true}); 1_001]}),
            proto::Filter { should: vec![condition("a", Kind::Exists(true)); 1_001], ..Default::default() },
        ),
        deep(32),
    ];
    for (json, message) in cases {
        let body = json!({"vector": [0, 0], "filter": json});
        let answer = sandbox.call("POST", "/api/v1/tables/t/search", body).await;
        assert_eq!((answer.status, &answer.body["code"]), (400, &json!("invalid_argument")), "{json}");
        let errors = answer.body["errors"].as_array().expect("errors").clone();
        let status = grpc.search.search(search(message)).await.expect_err("refused");
        assert_eq!(status.code(), tonic::Code::InvalidArgument);
        let details = status.get_error_details();
        let fields = details.bad_request().expect("fields").field_violations.iter();
        let fields: Vec<Value> =
            fields.map(|field| json!({"pointer": field.field, "message": field.description})).collect();
        assert_eq!(errors, fields, "{json}");
    }
    // What only one of them can say.
    let refused = [
        (json!([]), "/filter"),
        (json!({"must": [{"key": "a", "exists": 1}]}), "/filter/must/0/exists"),
        (json!({"must": [{"key": "a", "mach": {"value": 1}}]}), "/filter/must/0/mach"),
        (json!({"must": [{"key": "a", "match": {"any": ["x", null]}}]}), "/filter/must/0/match/any/1"),
    ];
    for (filter, pointer) in refused {
        let body = json!({"vector": [0, 0], "filter": filter});
        let answer = sandbox.call("POST", "/api/v1/tables/t/search", body).await;
        answer.refused(&filter.to_string(), 400, "invalid_argument", pointer);
    }
    let nan = scalar(proto::scalar::Kind::DoubleValue(f64::NAN));
    let refused = grpc.search.search(search(must(vec![condition("a", any(vec![nan]))]))).await;
    super::support::refused(
        "NaN",
        refused,
        tonic::Code::InvalidArgument,
        "invalid_argument",
        "/filter/must/0/match/any/0",
    );
    let abyss =
        format!(r#"{{"vector":[0,0],"filter":{}{}}}"#, r#"{"must":["#.repeat(50_000), "]}".repeat(50_000));
    let answer = sandbox.raw("POST", "/api/v1/tables/t/search", abyss).await;
    assert_eq!(answer.status, 400, "{}", answer.text);
    assert_eq!(found(&sandbox, json!({})).await.len(), 7, "and the node is still there");
}
