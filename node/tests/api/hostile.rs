//! Input that broke other servers: each row of the security page's table of inputs, over REST and gRPC.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tonic::Code;
use vectorsphere_proto::v1 as proto;
use vectorsphere_proto::v1::search_request::Query;
use vectorsphere_proto::v1::value::Kind;
use vectorsphere_proto::v1::vector::Data;

use super::support::{Sandbox, refused};

const DOCUMENTS: &str = "/api/v1/tables/t/documents";
const SEARCH: &str = "/api/v1/tables/t/search";
const MIB: usize = 1 << 20;

/// Table `t`, dimension 3, cosine, with nothing in it.
async fn sandbox() -> Sandbox {
    let sandbox = Sandbox::start(1).await;
    sandbox.table("t", 3, json!({"shards": 2})).await;
    sandbox
}

/// Nothing that was refused was written.
async fn assert_empty(sandbox: &Sandbox) {
    assert_eq!(sandbox.get(DOCUMENTS).await.ok(200)["documents"], json!([]));
}

fn document(id: &str, vector: &str, metadata: &str) -> String {
    format!(r#"{{"document_id":{id},"vector":{vector},"metadata":{metadata}}}"#)
}

fn nested(open: &str, close: &str, depth: usize) -> String {
    format!("{}1{}", open.repeat(depth), close.repeat(depth))
}

#[tokio::test(flavor = "multi_thread")]
async fn hostile_documents_are_refused_with_a_pointer_and_nothing_is_written() {
    let sandbox = sandbox().await;
    let good = "[1,2,3]";
    let vector = |vector: &str, pointer: &'static str| (document("\"a\"", vector, "{}"), pointer);
    let id = |id: &str| (document(id, good, "{}"), "/document_id");
    let metadata = |metadata: &str| (document("\"a\"", good, metadata), "/metadata");
    let rows = [
        vector("[NaN,1,1]", "/vector/0"),
        vector("[1,Infinity,1]", "/vector/1"),
        vector("[1,1,1e999]", "/vector/2"),
        vector("[1,1e39,1]", "/vector/1"),
        vector("[1,-1.1e18,1]", "/vector"),
        vector("[0,0.0,-0.0]", "/vector"),
        vector("[]", "/vector"),
        vector("[1,2]", "/vector"),
        vector("[1,2,3,4]", "/vector"),
        vector("[1,null,3]", "/vector/1"),
        vector("[1,\"2\",3]", "/vector/1"),
        vector("[[1],2,3]", "/vector/0"),
        vector("null", "/vector"),
        vector("{}", "/vector"),
        vector("\"AAAA*\"", "/vector"),
        vector("\"AACAPw==\"", "/vector"),
        vector("\"AAAA\"", "/vector"),
        // Three quiet NaN.
        vector("\"AADAfwAAwH8AAMB/\"", "/vector"),
        vector(&nested("[", "]", 100_000), "/vector/0"),
        id("\"\""),
        id("null"),
        id("1.5"),
        id("true"),
        id("[1]"),
        id("18446744073709551616"),
        id("\"a\\u0000b\""),
        id("\"\\ud800\""),
        id(&format!("\"{}\"", "a".repeat(513))),
        metadata("[]"),
        metadata("1"),
        metadata(r#"{"a":1e999}"#),
        metadata(r#"{"a":18446744073709551616}"#),
        metadata(&nested(r#"{"a":"#, "}", 33)),
        metadata(&format!(r#"{{"a":{}}}"#, nested("[", "]", 50_000))),
        metadata(&format!(r#"{{"a":"{}"}}"#, "x".repeat(MIB))),
        (r#"{"vector":[1,2,3]}"#.to_owned(), "/document_id"),
        (r#"{"document_id":"a"}"#.to_owned(), "/vector"),
        (r#"{"document_id":"a","vector":[1,2,3],"vector":[1,2,3]}"#.to_owned(), "/vector"),
        (
            format!(r#"{{"document_id":"a","vector":[1,2,3],"x~/y":{}}}"#, nested("[", "]", 100_000)),
            "/x~0~1y",
        ),
        (r#"{"documents":[]}"#.to_owned(), "/documents"),
        (r#"{"documents":{}}"#.to_owned(), "/documents"),
        (r#"{"documents":[],"document_id":"a"}"#.to_owned(), "/documents"),
        (r#"{"documents":[7]}"#.to_owned(), "/documents/0"),
        ("{}".to_owned(), "/document_id"),
        (String::new(), ""),
        ("[]".to_owned(), ""),
        ("null".to_owned(), ""),
        (document("\"a\"", good, "{}") + "x", ""),
        ("{\"document_id\"".to_owned(), "/document_id"),
        (nested("[", "]", 1_000_000), ""),
    ];
    for (body, pointer) in rows {
        let what: String = body.chars().take(120).collect();
        let answer = sandbox.raw("POST", DOCUMENTS, body).await;
        answer.refused(&what, 400, "invalid_argument", pointer);
    }
    let invalid_utf8 = sandbox.raw("POST", DOCUMENTS, b"{\"document_id\":\"\xff\xfe\"".to_vec()).await;
    invalid_utf8.refused("invalid UTF-8", 400, "invalid_argument", "/document_id");
    assert_empty(&sandbox).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_with_bad_items_is_refused_whole_with_a_pointer_for_each() {
    let sandbox = sandbox().await;
    let batch = json!({"documents": [
        {"document_id": "good", "vector": [1, 2, 3]},
        {"document_id": "short", "vector": [1, 2]},
        {"document_id": "also good", "vector": [1, 2, 3]},
        {"document_id": "zero", "vector": [0, 0, 0]},
        {"document_id": "", "vector": [1, 2, 3], "metadata": [1]},
    ]});
    let answer = sandbox.call("POST", DOCUMENTS, batch).await;
    answer.refused("three bad items", 400, "invalid_argument", "/documents/1/vector");
    let pointers: Vec<&str> = answer.body["errors"]
        .as_array()
        .expect("errors")
        .iter()
        .map(|error| error["pointer"].as_str().expect("a pointer"))
        .collect();
    let expected =
        ["/documents/1/vector", "/documents/3/vector", "/documents/4/document_id", "/documents/4/metadata"];
    assert_eq!(pointers, expected);
    let ids = json!({"document_ids": ["a", "", 1.5]});
    let answer = sandbox.call("POST", "/api/v1/tables/t/documents:delete", ids).await;
    answer.refused("ids", 400, "invalid_argument", "/document_ids/2");

    let item = |id: &str, values: &[f32]| {
        let floats = proto::FloatArray { values: values.to_vec() };
        let vector = Some(proto::Vector { data: Some(Data::Floats(floats)) });
        proto::Document { document_id: id.to_owned(), vector, ..proto::Document::default() }
    };
    let documents = vec![item("good", &[1.0, 2.0, 3.0]), item("bad", &[1.0, f32::NAN, 3.0])];
    let request =
        proto::UpsertDocumentsRequest { table_name: "t".to_owned(), documents, ..Default::default() };
    let answer = sandbox.grpc().await.documents.upsert_documents(request).await;
    refused("a bad item", answer, Code::InvalidArgument, "invalid_argument", "/documents/1/vector");
    assert_empty(&sandbox).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn hostile_searches_and_pages_are_refused() {
    let sandbox = sandbox().await;
    sandbox.table("wide", 65_536, json!({"shards": 1})).await;
    let rows: [(Value, &str); 23] = [
        (json!({}), "/vector"),
        (json!({"vector": [1, 2, 3], "document_id": "a"}), "/document_id"),
        (json!({"vector": [1, 2]}), "/vector"),
        (json!({"vector": [0, 0, 0]}), "/vector"),
        (json!({"vector": [1, 2, 1e19]}), "/vector"),
        (json!({"document_id": ""}), "/document_id"),
        (json!({"vector": [1, 2, 3], "top_k": 0}), "/top_k"),
        (json!({"vector": [1, 2, 3], "top_k": -1}), "/top_k"),
        (json!({"vector": [1, 2, 3], "top_k": 10_001}), "/top_k"),
        (json!({"vector": [1, 2, 3], "top_k": u64::MAX}), "/top_k"),
        (json!({"vector": [1, 2, 3], "top_k": 1e30}), "/top_k"),
        (json!({"vector": [1, 2, 3], "top_k": "10"}), "/top_k"),
        (json!({"vector": [1, 2, 3], "threshold": "0.8"}), "/threshold"),
        (json!({"vector": [1, 2, 3], "with_vector": 1}), "/with_vector"),
        (json!({"vector": [1, 2, 3], "consistency": "linear"}), "/consistency"),
        (json!({"vector": [1, 2, 3], "consistency": "strong_noclock"}), "/consistency"),
        (json!({"vector": [1, 2, 3], "max_staleness_ms": 5}), "/max_staleness_ms"),
        (json!({"vector": [1, 2, 3], "consistency": "bounded"}), "/max_staleness_ms"),
        (json!({"vector": [1, 2, 3], "consistency": "bounded", "max_staleness_ms": 0}), "/max_staleness_ms"),
        (
            json!({"vector": [1, 2, 3], "consistency": "bounded", "max_staleness_ms": 600_001}),
            "/max_staleness_ms",
        ),
        (json!({"vector": [1, 2, 3], "session_token": "!"}), "/session_token"),
        (json!({"vector": [1, 2, 3], "session_token": "A".repeat(20_000)}), "/session_token"),
        (json!({"vector": [1, 2, 3], "topk": 3}), "/topk"),
    ];
    for (body, pointer) in rows {
        let answer = sandbox.call("POST", SEARCH, body.clone()).await;
        answer.refused(&body.to_string()[..body.to_string().len().min(80)], 400, "invalid_argument", pointer);
    }
    // 10,000 vectors of 256 KiB are not an answer.
    let wide = json!({"document_id": "a", "top_k": 10_000, "with_vector": true});
    let wide = sandbox.call("POST", "/api/v1/tables/wide/search", wide).await;
    wide.refused("too many wide vectors", 400, "invalid_argument", "/top_k");
    for (query, pointer) in [
        ("limit=0", "/limit"),
        ("limit=1001", "/limit"),
        ("limit=18446744073709551615", "/limit"),
        ("limit=18446744073709551616", ""),
        ("limit=-1", ""),
        ("cursor=!", "/cursor"),
        ("cursor=OTk6YQ", "/cursor"),
        ("session_token=!", "/session_token"),
        ("consistency=linear", "/consistency"),
        ("consistency=bounded", "/max_staleness_ms"),
        ("consistency=session&max_staleness_ms=5", "/max_staleness_ms"),
        ("with_vector=maybe", ""),
        ("page=2", ""),
    ] {
        let answer = sandbox.get(&format!("{DOCUMENTS}?{query}")).await;
        answer.refused(query, 400, "invalid_argument", pointer);
    }
    let mut search = sandbox.grpc().await.search;
    let vector = |data: Data| Some(Query::Vector(proto::Vector { data: Some(data) }));
    let floats = |values: &[f32]| vector(Data::Floats(proto::FloatArray { values: values.to_vec() }));
    let good = proto::SearchRequest {
        table_name: "t".to_owned(),
        query: floats(&[1.0, 2.0, 3.0]),
        ..Default::default()
    };
    let with = |query| proto::SearchRequest { query, ..good.clone() };
    for (request, field) in [
        (with(None), "/vector"),
        (with(floats(&[])), "/vector"),
        (with(floats(&[1.0, 2.0])), "/vector"),
        (with(floats(&[0.0; 3])), "/vector"),
        (with(floats(&[1.0, f32::INFINITY, 1.0])), "/vector"),
        (with(floats(&[1.0, 1.1e18, 1.0])), "/vector"),
        (with(vector(Data::LittleEndianF32(vec![0; 11]))), "/vector"),
        (with(Some(Query::DocumentId("a\0".to_owned()))), "/document_id"),
        (proto::SearchRequest { top_k: 10_001, ..good.clone() }, "/top_k"),
        (proto::SearchRequest { top_k: u32::MAX, ..good.clone() }, "/top_k"),
        (proto::SearchRequest { threshold: Some(f64::NAN), ..good.clone() }, "/threshold"),
    ] {
        let what = format!("{request:?}");
        refused(&what, search.search(request).await, Code::InvalidArgument, "invalid_argument", field);
    }
    let elsewhere = proto::SearchRequest { table_name: "nowhere".to_owned(), ..good.clone() };
    refused("no table", search.search(elsewhere).await, Code::NotFound, "table_not_found", "");
    let path = proto::SearchRequest { table_name: "../t".to_owned(), ..good };
    refused("a path", search.search(path).await, Code::InvalidArgument, "invalid_argument", "/table_name");
}

#[tokio::test(flavor = "multi_thread")]
async fn bodies_batches_and_nesting_have_limits() {
    let sandbox = sandbox().await;
    let item = json!({"document_id": "a", "vector": [1, 2, 3]});
    let batch = json!({"documents": vec![item.clone(); 1_001]});
    sandbox.call("POST", DOCUMENTS, batch).await.refused("1,001 documents", 413, "payload_too_large", "");
    let ids = json!({"document_ids": vec!["a"; 1_001]});
    let ids = sandbox.call("POST", "/api/v1/tables/t/documents:delete", ids).await;
    ids.refused("1,001 ids", 413, "payload_too_large", "");
    // With a length, and without one.
    let announced = sandbox.raw("POST", DOCUMENTS, " ".repeat(32 * MIB + 1)).await;
    announced.refused("33 MiB", 413, "payload_too_large", "");
    let chunks = futures::stream::iter((0..33).map(|_| Ok::<_, std::io::Error>(vec![b' '; MIB])));
    let streamed = sandbox.raw("POST", DOCUMENTS, reqwest::Body::wrap_stream(chunks)).await;
    streamed.refused("33 MiB in chunks", 413, "payload_too_large", "");
    let padded = item.to_string() + &" ".repeat(31 * MIB);
    sandbox.raw("POST", DOCUMENTS, padded).await.ok(200);
    let deep = document("\"deep\"", "[1,2,3]", &nested(r#"{"a":"#, "}", 32));
    sandbox.raw("POST", DOCUMENTS, deep).await.ok(200);

    let mut documents = sandbox.grpc().await.documents.max_encoding_message_size(64 * MIB);
    let upsert = |items: Vec<proto::Document>| proto::UpsertDocumentsRequest {
        table_name: "t".to_owned(),
        documents: items,
        ..Default::default()
    };
    let with = |metadata: proto::Metadata| proto::Document {
        document_id: "deep".to_owned(),
        vector: Some(proto::Vector { data: Some(Data::Floats(proto::FloatArray { values: vec![1.0; 3] })) }),
        metadata: Some(metadata),
        if_version: None,
    };
    let deep = |depth: usize| {
        let mut object = proto::Metadata::default();
        for _ in 1..depth {
            let kind = Some(Kind::ObjectValue(std::mem::take(&mut object)));
            object.fields.insert("a".to_owned(), proto::Value { kind });
        }
        with(object)
    };
    documents.upsert_documents(upsert(vec![deep(32)])).await.expect("32 levels are allowed");
    let answer = documents.upsert_documents(upsert(vec![deep(33)])).await;
    refused("33 levels", answer, Code::InvalidArgument, "invalid_argument", "/documents/0/metadata");
    // The decoder of protobuf has a limit of its own.
    let status = documents.upsert_documents(upsert(vec![deep(1_000)])).await.expect_err("1,000 levels");
    assert!(matches!(status.code(), Code::InvalidArgument | Code::Internal), "{status:?}");
    let many = documents.upsert_documents(upsert(vec![deep(1); 1_001])).await;
    refused("1,001 documents", many, Code::OutOfRange, "payload_too_large", "");
    let none = documents.upsert_documents(upsert(Vec::new())).await;
    refused("no documents", none, Code::InvalidArgument, "invalid_argument", "/documents");
    let text = proto::Value { kind: Some(Kind::StringValue("x".repeat(33 * MIB))) };
    let huge = with(proto::Metadata { fields: [("a".to_owned(), text)].into() });
    let status = documents.upsert_documents(upsert(vec![huge])).await.expect_err("33 MiB");
    assert_eq!(status.code(), Code::OutOfRange, "{status:?}");
    let infinite = proto::Value { kind: Some(Kind::DoubleValue(f64::NAN)) };
    let infinite = with(proto::Metadata { fields: [("a".to_owned(), infinite)].into() });
    let answer = documents.upsert_documents(upsert(vec![infinite])).await;
    refused("NaN in metadata", answer, Code::InvalidArgument, "invalid_argument", "/documents/0/metadata");
}

#[tokio::test(flavor = "multi_thread")]
async fn paths_methods_headers_and_types_are_checked() {
    let sandbox = sandbox().await;
    let rows = [
        ("GET", "/api/v1/tables/..%2F..%2Fetc%2Fpasswd", 400, "invalid_argument", "/table_name"),
        ("GET", "/api/v1/tables/%2e%2e%2fx", 400, "invalid_argument", "/table_name"),
        ("GET", "/api/v1/tables/t%00", 400, "invalid_argument", "/table_name"),
        ("GET", "/api/v1/tables/T", 400, "invalid_argument", "/table_name"),
        ("GET", "/api/v1/tables/CON", 400, "invalid_argument", "/table_name"),
        ("GET", "/api/v1/tables/%ff", 400, "invalid_argument", ""),
        ("DELETE", "/api/v1/tables/..%2F", 400, "invalid_argument", "/table_name"),
        ("GET", "/api/v1/tables/t/documents/%ff", 400, "invalid_argument", ""),
        ("GET", "/api/v1/tables/t/documents/a%00b", 400, "invalid_argument", "/document_id"),
        ("GET", "/api/v1/tables/nowhere", 404, "table_not_found", ""),
        ("GET", "/api/v1/tables/nowhere/documents", 404, "table_not_found", ""),
        ("GET", "/", 404, "route_not_found", ""),
        ("GET", "/api/v2/tables", 404, "route_not_found", ""),
        ("GET", "/debug/pprof", 404, "route_not_found", ""),
        ("POST", "/health", 405, "method_not_allowed", ""),
        ("TRACE", "/api/v1/tables", 405, "method_not_allowed", ""),
        ("GET", "/api/v1/tables/t/search", 405, "method_not_allowed", ""),
    ];
    for (method, path, status, code, pointer) in rows {
        let answer = sandbox.send(sandbox.request(0, method, path)).await;
        answer.refused(&format!("{method} {path}"), status, code, pointer);
        assert_eq!(answer.headers.contains_key("allow"), status == 405, "{method} {path}");
    }
    let body = r#"{"vector":[1,2,3]}"#;
    let untyped = sandbox.send(sandbox.request(0, "POST", SEARCH).body(body)).await;
    untyped.refused("no type", 415, "unsupported_media_type", "");
    let xml = sandbox.request(0, "POST", SEARCH).header("content-type", "text/xml").body(body);
    sandbox.send(xml).await.refused("another type", 415, "unsupported_media_type", "");
    for typed in ["application/json; charset=utf-8", "Application/JSON", "application/vnd.x+json"] {
        sandbox
            .send(sandbox.request(0, "POST", SEARCH).header("content-type", typed).body(body))
            .await
            .ok(200);
    }
    for (header, value, pointer) in [
        ("x-request-timeout", "soon", "/X-Request-Timeout"),
        ("x-request-timeout", "NaN", "/X-Request-Timeout"),
        ("x-request-timeout", "-1", "/X-Request-Timeout"),
        ("x-request-timeout", "0", "/X-Request-Timeout"),
        ("idempotency-key", "not a UUID", "/Idempotency-Key"),
    ] {
        let body = r#"{"document_id":"a","vector":[1,2,3]}"#;
        let request = sandbox.request(0, "POST", DOCUMENTS).header("content-type", "application/json");
        let answer = sandbox.send(request.header(header, value).body(body)).await;
        answer.refused(&format!("{header}: {value}"), 400, "invalid_argument", pointer);
    }
    // An id of the caller comes back when it is plain, and is replaced when it is not.
    for (given, kept) in [("trace-7:a.b/c", true), ("a b", false), (&*"x".repeat(129), false)] {
        let request = sandbox.request(0, "GET", "/api/v1/tables").header("x-request-id", given);
        let answer = sandbox.send(request).await;
        assert_eq!(answer.headers["x-request-id"] == given, kept, "{given}");
    }
    assert_empty(&sandbox).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_never_comes_ends_with_the_deadline() {
    let sandbox = Sandbox::with(&["auto"], &[("task_timeout", "1")]).await;
    sandbox.table("t", 3, json!({})).await;
    let address = ("127.0.0.1", sandbox.nodes[0].http_port);
    let mut stream = TcpStream::connect(address).await.expect("connected");
    let head = "POST /api/v1/tables/t/documents HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: 100\r\nconnection: close\r\n\r\n{";
    stream.write_all(head.as_bytes()).await.expect("sent");
    let mut answer = String::new();
    let read = tokio::time::timeout(Duration::from_secs(20), stream.read_to_string(&mut answer)).await;
    read.expect("the server does not wait for ever").expect("an answer");
    assert!(answer.starts_with("HTTP/1.1 504") && answer.contains("deadline_exceeded"), "{answer}");
}
