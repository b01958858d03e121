//! How fresh reads are, what tokens carry on, and writes that depend on a version.

use serde_json::{Value, json};
use tonic::Code;
use vectorsphere_proto::v1 as proto;

use super::support::{Sandbox, refused};

const DOCUMENTS: &str = "/api/v1/tables/t/documents";
const SEARCH: &str = "/api/v1/tables/t/search";
const DOCUMENT: &str = "/api/v1/tables/t/documents/a";

/// Every level, as the query of a URL.
const LEVELS: [&str; 5] = [
    "consistency=strong",
    "consistency=strong-noclock",
    "consistency=session",
    "consistency=bounded&max_staleness_ms=600000",
    "consistency=eventual",
];

/// Table `t`, dimension 2, four shards on two nodes.
async fn sandbox() -> Sandbox {
    let sandbox = Sandbox::start(2).await;
    sandbox.table("t", 2, json!({"metric": "l2", "shards": 4})).await;
    sandbox
}

fn token(answer: &Value) -> String {
    answer["session_token"].as_str().filter(|token| !token.is_empty()).expect("a token").to_owned()
}

/// The level of a URL's query as fields of a search.
fn fields(level: &str) -> Value {
    let mut fields = json!({"vector": [0, 0], "top_k": 100});
    for (name, value) in level.split('&').filter_map(|pair| pair.split_once('=')) {
        fields[name] = value.parse::<u64>().map_or_else(|_| json!(value), |number| json!(number));
    }
    fields
}

#[tokio::test(flavor = "multi_thread")]
async fn at_every_level_a_read_with_a_token_sees_what_the_token_names() {
    let sandbox = sandbox().await;
    for (round, level) in LEVELS.into_iter().enumerate() {
        let body = json!({"document_id": "a", "vector": [round, 1]});
        let written = token(&sandbox.call("POST", DOCUMENTS, body).await.ok(200));
        for node in 0..2 {
            let read = async |path: &str| sandbox.send(sandbox.request(node, "GET", path)).await.ok(200);
            let got = read(&format!("{DOCUMENT}?{level}&session_token={written}")).await;
            assert_eq!(got["vector"], json!([round as f64, 1.0]), "{level}");
            let page = read(&format!("{DOCUMENTS}?{level}&with_vector=true&session_token={written}")).await;
            assert_eq!(page["documents"][0]["vector"], json!([round as f64, 1.0]), "{level}");
            // Tokens of answers are taken by every other call.
            let mut search = fields(level);
            search["session_token"] = json!(token(&page));
            let found = sandbox.call("POST", SEARCH, search).await.ok(200);
            assert_eq!(found["hits"][0]["document_id"], "a", "{level}");
            let again = read(&format!("{DOCUMENT}?{level}&session_token={}", token(&found))).await;
            assert_eq!(again["version"], got["version"], "{level}");
            assert!(token(&again).len() >= token(&found).len(), "a token never forgets a shard");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn reads_say_how_fresh_they_must_be_over_grpc() {
    let sandbox = sandbox().await;
    sandbox.load("t", &[json!({"document_id": "a", "vector": [1, 1]})]).await;
    let mut grpc = sandbox.grpc().await;
    let get = |consistency: i32, max_staleness_ms: u32, session_token: &str| proto::GetDocumentRequest {
        table_name: "t".to_owned(),
        document_id: "a".to_owned(),
        read: Some(proto::ReadOptions {
            consistency,
            max_staleness_ms,
            session_token: session_token.to_owned(),
        }),
        ..Default::default()
    };
    let bounded = proto::Consistency::Bounded.into();
    for (level, staleness) in [(0, 0), (1, 0), (2, 0), (3, 0), (4, 600_000), (5, 0)] {
        let answer = grpc.documents.get_document(get(level, staleness, "")).await;
        let first = answer.expect("there").into_inner();
        let again = grpc.documents.get_document(get(level, staleness, &first.session_token)).await;
        assert_eq!(again.expect("there").into_inner(), first, "level {level}");
    }
    for (request, field) in [
        (get(99, 0, ""), "/consistency"),
        (get(bounded, 0, ""), "/max_staleness_ms"),
        (get(bounded, 600_001, ""), "/max_staleness_ms"),
        (get(0, 5, ""), "/max_staleness_ms"),
        (get(0, 0, "!"), "/session_token"),
    ] {
        let what = format!("{request:?}");
        let answer = grpc.documents.get_document(request).await;
        refused(&what, answer, Code::InvalidArgument, "invalid_argument", field);
    }
    let list = proto::ListDocumentsRequest { table_name: "t".to_owned(), ..Default::default() };
    let page = grpc.documents.list_documents(list).await.expect("a page").into_inner();
    let search = proto::SearchRequest {
        table_name: "t".to_owned(),
        query: Some(proto::search_request::Query::DocumentId("a".to_owned())),
        read: Some(proto::ReadOptions { session_token: page.session_token, ..Default::default() }),
        ..Default::default()
    };
    let found = grpc.search.search(search).await.expect("found").into_inner();
    assert!(!found.session_token.is_empty());
}

/// Steps: a document is inserted where none may be, replaced and changed at its version, refused at another one, and
/// deleted at its version.
#[tokio::test(flavor = "multi_thread")]
async fn a_write_with_a_version_happens_at_that_version_alone() {
    let sandbox = sandbox().await;
    let put = async |version: u64, value: u32| {
        sandbox.call("PUT", DOCUMENT, json!({"vector": [value, 0], "if_version": version})).await
    };
    let version = async || sandbox.get(DOCUMENT).await.ok(200)["version"].as_u64().expect("a version");
    put(7, 1).await.refused("no document", 409, "version_mismatch", "");
    put(0, 1).await.ok(200);
    put(0, 2).await.refused("a document is there", 409, "version_mismatch", "");
    let first = version().await;
    put(first, 3).await.ok(200);
    let told = put(first, 4).await;
    told.refused("an older version", 409, "version_mismatch", "");
    let second = version().await;
    let detail = told.body["detail"].as_str().expect("text");
    assert!(detail.contains("\"a\"") && detail.contains(&second.to_string()), "{detail}");
    let patch = json!({"metadata": {"n": 1}, "if_version": first});
    sandbox.call("PATCH", DOCUMENT, patch).await.refused("older", 409, "version_mismatch", "");
    sandbox.call("PATCH", DOCUMENT, json!({"metadata": {"n": 1}, "if_version": second})).await.ok(200);
    let third = version().await;
    let delete = async |version: u64| {
        sandbox.call("DELETE", &format!("{DOCUMENT}?if_version={version}"), Value::Null).await
    };
    delete(second).await.refused("older", 409, "version_mismatch", "");
    assert_eq!(sandbox.get(DOCUMENT).await.ok(200)["vector"], json!([3.0, 0.0]));
    assert_eq!(delete(third).await.ok(200)["count"], 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn versions_are_whole_numbers_and_go_with_one_document() {
    let sandbox = sandbox().await;
    for (method, path, body, pointer) in [
        ("PUT", DOCUMENT, json!({"vector": [1, 1], "if_version": -1}), "/if_version"),
        ("PUT", DOCUMENT, json!({"vector": [1, 1], "if_version": "1"}), "/if_version"),
        ("PATCH", DOCUMENT, json!({"metadata": {}, "if_version": 1.5}), "/if_version"),
        ("POST", DOCUMENTS, json!({"documents": [], "if_version": 1}), "/documents"),
        (
            "POST",
            DOCUMENTS,
            json!({"documents": [{"document_id": "a", "vector": [1, 1], "if_version": []}]}),
            "/documents/0/if_version",
        ),
        (
            "POST",
            "/api/v1/tables/t/documents:delete",
            json!({"document_ids": ["a"], "if_version": 1}),
            "/if_version",
        ),
    ] {
        let answer = sandbox.call(method, path, body.clone()).await;
        answer.refused(&format!("{method} {body}"), 400, "invalid_argument", pointer);
    }
    let answer = sandbox.call("DELETE", &format!("{DOCUMENT}?if_version=x"), Value::Null).await;
    answer.refused("no number", 400, "invalid_argument", "");
    let many = proto::DeleteDocumentsRequest {
        table_name: "t".to_owned(),
        document_ids: vec!["a".to_owned(), "b".to_owned()],
        if_version: Some(1),
        ..Default::default()
    };
    let answer = sandbox.grpc().await.documents.delete_documents(many).await;
    refused("two documents", answer, Code::InvalidArgument, "invalid_argument", "/if_version");
}
