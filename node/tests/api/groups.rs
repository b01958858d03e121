//! Groups: the best few hits of each value of a field.

use std::collections::HashMap;

use serde_json::{Value, json};
use tonic::Code;
use vectorsphere_proto::v1 as proto;

use super::support::{Sandbox, refused};

const SEARCH: &str = "/api/v1/tables/t/search";

/// Document `i` lies at distance `i` from the origin.
fn document(i: u32) -> Value {
    let metadata = match i {
        // Most of the nearest are of one group.
        0..400 => json!({"source": "a"}),
        400..450 => json!({"source": {"name": "an object names no group"}}),
        _ => json!({"source": format!("g{}", i % 40)}),
    };
    json!({"document_id": format!("{i:03}"), "vector": [i, 0], "metadata": metadata})
}

/// Hits as they are to be: of all documents, those that pass, nearest first.
fn expected(limit: u32, passes: impl Fn(u32) -> bool) -> Vec<(String, Option<String>)> {
    let mut seen: HashMap<String, u32> = HashMap::new();
    let mut hits = Vec::new();
    for i in (0..600).filter(|i| passes(*i)) {
        let group = document(i)["metadata"]["source"].as_str().map(str::to_owned);
        let count = group.as_ref().map_or(1, |group| {
            let count = seen.entry(group.clone()).or_default();
            *count += 1;
            *count
        });
        if count <= limit {
            hits.push((format!("{i:03}"), group));
        }
    }
    hits
}

fn told(hits: &[Value]) -> Vec<(String, Option<String>)> {
    let text = |value: &Value| value.as_str().map(str::to_owned);
    hits.iter().map(|hit| (text(&hit["document_id"]).expect("an id"), text(&hit["group"]))).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_search_returns_the_best_few_of_each_group_of_all_shards() {
    let sandbox = Sandbox::start(2).await;
    sandbox.table("t", 2, json!({"metric": "l2", "shards": 5})).await;
    sandbox.load("t", &(0..600).map(document).collect::<Vec<_>>()).await;
    let origin = json!({"vector": [0, 0]});
    let with = |options: Value| {
        let mut body = origin.clone();
        body.as_object_mut().expect("an object").extend(options.as_object().expect("an object").clone());
        body
    };
    for (top_k, offset, limit) in [(1, 0, 1), (10, 0, 1), (10, 3, 2), (95, 0, 1), (300, 40, 3), (1_000, 0, 1)]
    {
        let by = json!({"key": "source", "limit": limit});
        let hits = sandbox.hits("t", with(json!({"top_k": top_k, "offset": offset, "group_by": by}))).await;
        let all = expected(limit, |_| true);
        let page = all.iter().skip(offset).take(top_k);
        assert_eq!(told(&hits), page.cloned().collect::<Vec<_>>(), "{top_k} from {offset}, {limit} of each");
    }
    // One of each, unless it is said how many, and only of what passes the filter.
    let except = json!({"must_not": [{"key": "source", "match": {"any": ["a", "g7"]}}]});
    let hits =
        sandbox.hits("t", with(json!({"top_k": 95, "group_by": {"key": "source"}, "filter": except}))).await;
    let passes = |i: u32| i >= 400 && document(i)["metadata"]["source"] != "g7";
    assert_eq!(told(&hits), expected(1, passes));
    // As a query of a batch, beside one that is not grouped.
    let queries = json!({"queries": [with(json!({"top_k": 3})), with(json!({"top_k": 3, "group_by": {"key": "source"}}))]});
    let answer = sandbox.call("POST", "/api/v1/tables/t/search:batch", queries).await.ok(200);
    let hits = |query: usize| told(answer["results"][query]["hits"].as_array().expect("hits"));
    assert_eq!(hits(0), [("000".to_owned(), None), ("001".to_owned(), None), ("002".to_owned(), None)]);
    assert_eq!(hits(1), expected(1, |_| true)[..3]);
    // Over gRPC.
    let data = Some(proto::vector::Data::Floats(proto::FloatArray { values: vec![0.0, 0.0] }));
    let mut request = proto::SearchRequest {
        table_name: "t".to_owned(),
        query: Some(proto::search_request::Query::Vector(proto::Vector { data })),
        top_k: 60,
        group_by: Some(proto::GroupBy { key: "source".to_owned(), limit: 0 }),
        ..Default::default()
    };
    let mut grpc = sandbox.grpc().await.search;
    let found = grpc.search(request.clone()).await.expect("found").into_inner().hits;
    let group = |hit: &proto::Hit| match hit.group.clone()?.kind? {
        proto::value::Kind::StringValue(text) => Some(text),
        other => panic!("{other:?}"),
    };
    let found: Vec<_> = found.iter().map(|hit| (hit.document_id.clone(), group(hit))).collect();
    assert_eq!(found, expected(1, |_| true)[..60]);
    request.group_by = Some(proto::GroupBy { key: String::new(), limit: 1_001 });
    refused(
        "bad groups",
        grpc.search(request).await,
        Code::InvalidArgument,
        "invalid_argument",
        "/group_by/limit",
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_group_by_that_breaks_a_rule_is_refused_with_a_pointer() {
    let sandbox = Sandbox::start(1).await;
    sandbox.table("t", 2, json!({"metric": "l2"})).await;
    for (by, pointer) in [
        (json!({"key": ""}), "/group_by/key"),
        (json!({}), "/group_by/key"),
        (json!({"key": "a", "limit": 0}), "/group_by/limit"),
        (json!({"key": "a", "limit": 1_001}), "/group_by/limit"),
        (json!({"key": "a", "size": 1}), "/group_by/size"),
        (json!("a"), "/group_by"),
    ] {
        let answer = sandbox.call("POST", SEARCH, json!({"vector": [0, 0], "group_by": by})).await;
        answer.refused(&by.to_string(), 400, "invalid_argument", pointer);
        let queries = json!({"queries": [{"vector": [0, 0]}, {"vector": [0, 0], "group_by": by}]});
        let answer = sandbox.call("POST", "/api/v1/tables/t/search:batch", queries).await;
        answer.refused(&by.to_string(), 400, "invalid_argument", &format!("/queries/1{pointer}"));
    }
    let answer = sandbox.call("POST", SEARCH, json!({"vector": [0, 0], "group_by": {"limit": 1}})).await;
    let message = answer.ok(400)["errors"][0]["message"].to_string();
    assert!(message.contains("key is missing"), "{message}");
    sandbox.call("POST", SEARCH, json!({"vector": [0, 0], "group_by": null})).await.ok(200);
}
