//! Documents: ids, writes, reads, pages.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use tonic::Code;
use vectorsphere_proto::v1 as proto;
use vectorsphere_proto::v1::value::Kind;

use super::support::{Sandbox, refused};

const DOCUMENTS: &str = "/api/v1/tables/t/documents";

async fn sandbox_with_table(nodes: usize) -> Sandbox {
    let sandbox = Sandbox::start(nodes).await;
    sandbox.table("t", 2, json!({"metric": "l2", "shards": 4})).await;
    sandbox
}

/// A path to a document; everything but letters and digits is percent-encoded.
fn path_of(id: &str) -> String {
    let encode = |byte: u8| match byte.is_ascii_alphanumeric() {
        true => char::from(byte).to_string(),
        false => format!("%{byte:02X}"),
    };
    format!("{DOCUMENTS}/{}", id.bytes().map(encode).collect::<String>())
}

fn message(id: &str, vector: &[f32], metadata: Option<proto::Metadata>) -> proto::Document {
    let floats = proto::FloatArray { values: vector.to_vec() };
    let vector = proto::Vector { data: Some(proto::vector::Data::Floats(floats)) };
    proto::Document { document_id: id.to_owned(), vector: Some(vector), metadata, if_version: None }
}

fn integer(number: i64) -> proto::Metadata {
    let value = proto::Value { kind: Some(Kind::IntValue(number)) };
    proto::Metadata { fields: [("n".to_owned(), value)].into() }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_document_is_written_replaced_changed_read_and_deleted() {
    let sandbox = sandbox_with_table(2).await;
    let path = path_of("a");
    let one = json!({"document_id": "a", "vector": [1, 2], "metadata": {"v": 1}});
    sandbox.call("POST", DOCUMENTS, one).await.ok(200);
    let got = sandbox.get(&path).await.ok(200);
    let first = got["version"].as_u64().expect("a version");
    assert_eq!(
        got,
        json!({
            "document_id": "a", "vector": [1.0, 2.0], "metadata": {"v": 1}, "version": first,
            "session_token": got["session_token"],
        })
    );

    // The metadata alone: the vector stays.
    let changed = sandbox.call("PATCH", &path, json!({"metadata": {"v": 2}})).await.ok(200);
    assert_eq!((&changed["document_ids"], &changed["count"]), (&json!(["a"]), &json!(1)));
    let got = sandbox.get(&path).await.ok(200);
    assert_eq!((&got["vector"], &got["metadata"]), (&json!([1.0, 2.0]), &json!({"v": 2})));
    assert!(got["version"].as_u64().expect("a version") > first);

    // A whole document, by either route, replaces everything.
    sandbox.call("PUT", &path, json!({"vector": [3, 4]})).await.ok(200);
    let got = sandbox.get(&path).await.ok(200);
    assert_eq!((&got["vector"], &got["metadata"]), (&json!([3.0, 4.0]), &json!({})));
    let base64 = STANDARD.encode([5f32, 6.0].map(f32::to_le_bytes).concat());
    let batch = json!({"documents": [{"document_id": "a", "vector": base64}]});
    sandbox.call("POST", DOCUMENTS, batch).await.ok(200);
    // Every node answers the same.
    let got = sandbox.send(sandbox.request(1, "GET", &path)).await.ok(200);
    assert_eq!(got["vector"], json!([5.0, 6.0]));
    let short = sandbox.get(&format!("{path}?with_vector=false")).await.ok(200);
    assert!(short.get("vector").is_none(), "{short}");

    let deleted = sandbox.send(sandbox.request(1, "DELETE", &path)).await.ok(200);
    assert_eq!(deleted["count"], 1);
    assert_eq!(sandbox.call("DELETE", &path, Value::Null).await.ok(200)["count"], 0);
    sandbox.get(&path).await.refused("a deleted document", 404, "document_not_found", "");
    let change = sandbox.call("PATCH", &path, json!({"metadata": {}})).await;
    change.refused("metadata of a deleted document", 404, "document_not_found", "");
    let other = sandbox.call("PUT", &path, json!({"document_id": "b", "vector": [3, 4]})).await;
    other.refused("two ids", 400, "invalid_argument", "/document_id");
}

#[tokio::test(flavor = "multi_thread")]
async fn ids_are_kept_as_given_and_numbers_mean_their_decimal_text() {
    let sandbox = sandbox_with_table(1).await;
    let longest = "é".repeat(256);
    let ids = [
        json!("doc1"),
        json!("6f9619ff-8b86-d011-b42d-00c04fc964ff"),
        json!(1),
        json!(-7),
        json!(u64::MAX),
        json!(" a/b?c#d%2F..\n"),
        json!("delete"),
        json!("é"),
        json!("e\u{301}"),
        json!("👩‍👩‍👧"),
        json!(longest),
    ];
    for (index, id) in ids.iter().enumerate() {
        let document = json!({"document_id": id, "vector": [index, 1]});
        let answer = sandbox.call("POST", DOCUMENTS, document).await.ok(200);
        let text = id.as_str().map_or_else(|| id.to_string(), str::to_owned);
        assert_eq!(answer["document_ids"], json!([text]));
        let got = sandbox.get(&path_of(&text)).await.ok(200);
        assert_eq!(got["document_id"], *text);
        assert_eq!(got["vector"][0], index as f64, "{text}");
    }
    // `1` and `"1"` are the same document; two forms of é are two.
    let same = sandbox.call("POST", DOCUMENTS, json!({"document_id": "1", "vector": [9, 9]})).await;
    same.ok(200);
    assert_eq!(sandbox.get(&path_of("1")).await.ok(200)["vector"], json!([9.0, 9.0]));
    let listed = sandbox.get(&format!("{DOCUMENTS}?limit=1000")).await.ok(200);
    assert_eq!(listed["documents"].as_array().map(Vec::len), Some(ids.len()));
    let numbers = json!({"document_ids": [1, -7, "delete", "absent"]});
    let deleted = sandbox.call("POST", "/api/v1/tables/t/documents:delete", numbers).await.ok(200);
    assert_eq!(deleted["count"], 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn metadata_comes_back_exactly() {
    let sandbox = sandbox_with_table(1).await;
    // In the order of the keys, which is not kept.
    let text = r#"{"":"\u0000é\"","$serde_json::private::RawValue":"1","above":9007199254740993,"double":0.1,"inner":{"$serde_json::private::RawValue":"[2]"},"least":-9223372036854775808,"list":[true,{"a":[]}],"most":18446744073709551615,"null":null,"whole":1.0,"zero":-0.0}"#;
    let body = format!(r#"{{"document_id":"m","vector":[1,2],"metadata":{text}}}"#);
    sandbox.raw("POST", DOCUMENTS, body).await.ok(200);
    let got = sandbox.get(&path_of("m")).await;
    assert!(got.text.contains(text), "{}", got.text);
    let search = json!({"vector": [1, 2], "with_metadata": true});
    let found = sandbox.call("POST", "/api/v1/tables/t/search", search).await;
    assert!(found.text.contains(text), "{}", found.text);

    // Over gRPC too, and back.
    let mut grpc = sandbox.grpc().await;
    let get = proto::GetDocumentRequest {
        table_name: "t".to_owned(),
        document_id: "m".to_owned(),
        ..Default::default()
    };
    let document =
        grpc.documents.get_document(get).await.expect("there").into_inner().document.expect("a document");
    let fields = &document.metadata.as_ref().expect("metadata").fields;
    assert_eq!(fields["above"].kind, Some(Kind::IntValue(9_007_199_254_740_993)));
    assert_eq!(fields["most"].kind, Some(Kind::UintValue(u64::MAX)));
    assert_eq!(fields["whole"].kind, Some(Kind::DoubleValue(1.0)));
    let copy = proto::Document { document_id: "copy".to_owned(), ..document };
    let upsert = proto::UpsertDocumentsRequest {
        table_name: "t".to_owned(),
        documents: vec![copy],
        ..Default::default()
    };
    grpc.documents.upsert_documents(upsert).await.expect("written");
    let (original, copy) = (got.body, sandbox.get(&path_of("copy")).await.ok(200));
    assert_eq!((&copy["metadata"], &copy["vector"]), (&original["metadata"], &original["vector"]));
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_hold_every_document_once() {
    let sandbox = sandbox_with_table(2).await;
    let documents: Vec<Value> =
        (0..257).map(|i| json!({"document_id": i, "vector": [i, 0], "metadata": {"i": i}})).collect();
    sandbox.load("t", &documents).await;
    for limit in [1usize, 50, 64, 256, 257, 1000] {
        let (mut seen, mut cursor) = (Vec::new(), String::new());
        loop {
            let page = sandbox.get(&format!("{DOCUMENTS}?limit={limit}&cursor={cursor}")).await.ok(200);
            let documents = page["documents"].as_array().expect("documents");
            assert!(documents.len() <= limit);
            seen.extend(documents.iter().map(|document| {
                assert_eq!(document["document_id"], document["metadata"]["i"].to_string());
                document["metadata"]["i"].as_u64().expect("a number")
            }));
            match page["next_cursor"].as_str() {
                Some(next) => cursor = next.to_owned(),
                None => break,
            }
        }
        seen.sort_unstable();
        assert_eq!(seen, (0..257).collect::<Vec<_>>(), "pages of {limit}");
    }
    let page = sandbox.get(&format!("{DOCUMENTS}?limit=1&with_vector=true")).await.ok(200);
    let first = &page["documents"][0];
    assert_eq!(first["vector"], json!([first["metadata"]["i"].as_f64(), 0.0]));
    assert_eq!(sandbox.get(DOCUMENTS).await.ok(200)["documents"].as_array().map(Vec::len), Some(100));

    let mut grpc = sandbox.grpc().await;
    let (mut seen, mut cursor) = (0, String::new());
    loop {
        let request = proto::ListDocumentsRequest {
            table_name: "t".to_owned(),
            limit: 100,
            cursor,
            ..Default::default()
        };
        let page = grpc.documents.list_documents(request).await.expect("a page").into_inner();
        seen += page.documents.len();
        cursor = page.next_cursor;
        if cursor.is_empty() {
            break;
        }
    }
    assert_eq!(seen, 257);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_write_is_seen_by_its_session_and_carried_out_once() {
    let sandbox = sandbox_with_table(2).await;
    let key = "6f9619ff-8b86-d011-b42d-00c04fc964ff";
    let write = |value: u32| {
        let body = json!({"document_id": "a", "vector": [value, 0]}).to_string();
        let request = sandbox.request(0, "POST", DOCUMENTS).header("content-type", "application/json");
        sandbox.send(request.header("idempotency-key", key).body(body))
    };
    let first = write(1).await.ok(200);
    sandbox.call("PUT", &path_of("a"), json!({"vector": [2, 0]})).await.ok(200);
    // The retry of the first write answers as it did and undoes nothing.
    assert_eq!(write(1).await.ok(200), first);
    let token = first["session_token"].as_str().expect("a token");
    let got =
        sandbox.send(sandbox.request(1, "GET", &format!("{}?session_token={token}", path_of("a")))).await;
    assert_eq!(got.ok(200)["vector"], json!([2.0, 0.0]));
    let search = json!({"vector": [2, 0], "session_token": token, "consistency": "session"});
    assert_eq!(sandbox.hits("t", search).await[0]["score"], 0.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn of_equal_ids_in_a_batch_the_last_wins() {
    let sandbox = sandbox_with_table(1).await;
    let batch = json!({"documents": [
        {"document_id": "a", "vector": [1, 1]}, {"document_id": "b", "vector": [2, 2]},
        {"document_id": "a", "vector": [3, 3]},
    ]});
    let written = sandbox.call("POST", DOCUMENTS, batch).await.ok(200);
    assert_eq!((&written["document_ids"], &written["count"]), (&json!(["a", "b", "a"]), &json!(2)));
    assert_eq!(sandbox.get(&path_of("a")).await.ok(200)["vector"], json!([3.0, 3.0]));
}

#[tokio::test(flavor = "multi_thread")]
async fn large_metadata_ends_a_page_early_and_refuses_a_search_that_would_return_it_all() {
    let sandbox = sandbox_with_table(1).await;
    let filler = "x".repeat(1_000_000);
    for first in (0..100).step_by(20) {
        let documents: Vec<Value> = (first..first + 20)
            .map(|i| json!({"document_id": i, "vector": [i, 0], "metadata": {"filler": filler}}))
            .collect();
        sandbox.call("POST", DOCUMENTS, json!({"documents": documents})).await.ok(200);
    }
    let (mut seen, mut cursor, mut pages) = (0, String::new(), 0);
    loop {
        let page = sandbox.get(&format!("{DOCUMENTS}?limit=1000&cursor={cursor}")).await.ok(200);
        seen += page["documents"].as_array().expect("documents").len();
        pages += 1;
        match page["next_cursor"].as_str() {
            Some(next) => cursor = next.to_owned(),
            None => break,
        }
    }
    assert_eq!(seen, 100);
    assert!(pages >= 2, "{pages} pages of 100 MB");
    let search = |top_k: u32, with_metadata: bool, allow_partial: bool| json!({"vector": [0, 0], "top_k": top_k, "with_metadata": with_metadata, "allow_partial": allow_partial});
    assert_eq!(sandbox.hits("t", search(100, false, false)).await.len(), 100);
    assert_eq!(sandbox.hits("t", search(10, true, false)).await.len(), 10);
    for allow_partial in [false, true] {
        let answer = sandbox.call("POST", "/api/v1/tables/t/search", search(100, true, allow_partial)).await;
        answer.refused("100 MB of hits", 413, "payload_too_large", "");
        assert!(answer.body["detail"].as_str().expect("text").contains("ask for fewer"), "{}", answer.text);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn documents_live_from_upsert_to_delete_over_grpc() {
    let sandbox = sandbox_with_table(1).await;
    let mut documents = sandbox.grpc().await.documents;
    let table_name = "t".to_owned();
    let upsert = proto::UpsertDocumentsRequest {
        table_name: table_name.clone(),
        documents: vec![message("a", &[1.0, 2.0], Some(integer(i64::MAX))), message("b", &[3.0, 4.0], None)],
        ..Default::default()
    };
    let written = documents.upsert_documents(upsert).await.expect("written").into_inner();
    assert_eq!(
        (written.document_ids, written.count, written.durable_copies),
        (vec!["a".into(), "b".into()], 2, 1)
    );
    let change = proto::UpdateMetadataRequest {
        table_name: table_name.clone(),
        document_id: "b".to_owned(),
        metadata: Some(integer(-5)),
        ..Default::default()
    };
    documents.update_metadata(change.clone()).await.expect("changed");
    // Without metadata there is nothing to replace it with; it must not be taken for an empty one.
    let nothing = documents.update_metadata(proto::UpdateMetadataRequest { metadata: None, ..change }).await;
    refused("no metadata", nothing, Code::InvalidArgument, "invalid_argument", "/metadata");
    let get = |id: &str, without_vector: bool| proto::GetDocumentRequest {
        table_name: table_name.clone(),
        document_id: id.to_owned(),
        without_vector,
        ..Default::default()
    };
    let got =
        documents.get_document(get("b", false)).await.expect("there").into_inner().document.expect("one");
    assert_eq!(got.metadata, Some(integer(-5)));
    let bytes = [3f32, 4.0].map(f32::to_le_bytes).concat();
    assert_eq!(got.vector.and_then(|v| v.data), Some(proto::vector::Data::LittleEndianF32(bytes)));
    let short =
        documents.get_document(get("b", true)).await.expect("there").into_inner().document.expect("one");
    assert_eq!(short.vector, None);
    let delete = proto::DeleteDocumentsRequest {
        table_name: table_name.clone(),
        document_ids: vec!["a".to_owned(), "b".to_owned(), "c".to_owned()],
        ..Default::default()
    };
    assert_eq!(documents.delete_documents(delete).await.expect("deleted").into_inner().count, 2);
    let gone = documents.get_document(get("b", false)).await;
    refused("a deleted document", gone, Code::NotFound, "document_not_found", "");
}
