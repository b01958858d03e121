//! Tables.

use serde_json::json;
use tonic::Code;
use vectorsphere_proto::v1 as proto;

use super::support::{Sandbox, refused};

#[tokio::test(flavor = "multi_thread")]
async fn a_table_lives_from_create_to_delete_on_every_node() {
    let sandbox = Sandbox::start(2).await;
    assert_eq!(sandbox.get("/api/v1/tables").await.ok(200), json!({"tables": []}));
    sandbox.table("b", 3, json!({"metric": "l2", "shards": 5})).await;
    sandbox.table("a", 65_536, json!({"metric": "dot", "shards": 1, "replicas": 1, "min_isr": 1})).await;
    let listed = sandbox.get("/api/v1/tables").await.ok(200);
    let names: Vec<_> =
        listed["tables"].as_array().expect("tables").iter().map(|t| &t["table_name"]).collect();
    assert_eq!(names, ["a", "b"]);
    // An acknowledged table is known to every node.
    let got = sandbox.send(sandbox.request(1, "GET", "/api/v1/tables/b")).await.ok(200);
    assert_eq!(got, listed["tables"][1]);
    assert_eq!((&got["metric"], &got["shards"], &got["state"]), (&json!("l2"), &json!(5), &json!("active")));
    let again = sandbox.call("POST", "/api/v1/tables", json!({"table_name": "b", "dimension": 3})).await;
    again.refused("a name that is taken", 409, "table_already_exists", "");

    let deleted = sandbox.send(sandbox.request(1, "DELETE", "/api/v1/tables/b")).await;
    assert_eq!((deleted.status, deleted.text.as_str()), (204, ""));
    for (method, path) in
        [("GET", "/api/v1/tables/b"), ("DELETE", "/api/v1/tables/b"), ("GET", "/api/v1/tables/b/stats")]
    {
        let gone = sandbox.send(sandbox.request(1, method, path)).await;
        gone.refused("a table that is gone", 404, "table_not_found", "");
    }
    // The name is free again, and nothing of the old table is left.
    sandbox.table("b", 2, json!({})).await;
    assert_eq!(sandbox.get("/api/v1/tables/b/documents").await.ok(200)["documents"], json!([]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_lives_from_create_to_delete_over_grpc() {
    let sandbox = Sandbox::start(1).await;
    let mut grpc = sandbox.grpc().await;
    let request = proto::CreateTableRequest {
        table_name: "t".to_owned(),
        dimension: 4,
        metric: proto::Metric::L2.into(),
        shards: 2,
        ..Default::default()
    };
    let created = grpc.tables.create_table(request.clone()).await.expect("created").into_inner();
    assert_eq!((created.dimension, created.metric(), created.shards), (4, proto::Metric::L2, 2));
    assert_eq!((created.index_type.as_str(), created.state.as_str()), ("auto", "active"));
    let again = grpc.tables.create_table(request).await;
    refused("a name that is taken", again, Code::AlreadyExists, "table_already_exists", "");
    let get = proto::GetTableRequest { table_name: "t".to_owned() };
    assert_eq!(grpc.tables.get_table(get.clone()).await.expect("there").into_inner(), created);
    let listed = grpc.tables.list_tables(proto::ListTablesRequest {}).await.expect("listed").into_inner();
    assert_eq!(listed.tables, [created]);
    let delete = proto::DeleteTableRequest { table_name: "t".to_owned() };
    grpc.tables.delete_table(delete.clone()).await.expect("deleted");
    refused("gone", grpc.tables.get_table(get).await, Code::NotFound, "table_not_found", "");
    refused("gone", grpc.tables.delete_table(delete).await, Code::NotFound, "table_not_found", "");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_table_is_refused_with_a_pointer_to_the_field() {
    let sandbox = Sandbox::start(1).await;
    let long = "a".repeat(64);
    let longer = "a".repeat(300);
    let names = [
        "",
        "_a",
        "-a",
        "A",
        "CON",
        "a.b",
        "../x",
        "..%2fx",
        "%2e%2e",
        "a b",
        "a\u{0}",
        "ä",
        "\u{202e}abc",
        "аdmin",
    ];
    let mut rows = vec![
        (json!({"dimension": 3}), "/table_name"),
        (json!({"table_name": 7, "dimension": 3}), "/table_name"),
        (json!({"table_name": "t"}), "/dimension"),
        (json!({"table_name": "t", "dimension": 3, "metric": "euclid"}), "/metric"),
        (json!({"table_name": "t", "dimension": 3, "index_type": "hnsw9"}), "/index_type"),
        (json!({"table_name": "t", "dimension": 3, "replicas": 0}), "/replicas"),
        (json!({"table_name": "t", "dimension": 3, "replicas": 8}), "/replicas"),
        (json!({"table_name": "t", "dimension": 3, "min_isr": 0}), "/min_isr"),
        (json!({"table_name": "t", "dimension": 3, "min_isr": 2}), "/min_isr"),
        (json!({"table_name": "t", "dimension": 3, "replicas": 3, "min_isr": 4}), "/min_isr"),
        (json!({"table_name": "t", "dimension": 3, "shard": 1}), "/shard"),
    ];
    for name in names.into_iter().chain([long.as_str(), longer.as_str()]) {
        rows.push((json!({"table_name": name, "dimension": 3}), "/table_name"));
    }
    for dimension in
        [json!(0), json!(65_537), json!(1u64 << 59), json!(1u64 << 63), json!(u64::MAX), json!(1e30)]
    {
        rows.push((json!({"table_name": "t", "dimension": dimension}), "/dimension"));
    }
    for dimension in [json!(-1), json!(1.5), json!("128"), json!([3]), json!(true)] {
        rows.push((json!({"table_name": "t", "dimension": dimension}), "/dimension"));
    }
    for shards in [0, 1_025, u64::MAX] {
        rows.push((json!({"table_name": "t", "dimension": 3, "shards": shards}), "/shards"));
    }
    for (body, pointer) in rows {
        let answer = sandbox.call("POST", "/api/v1/tables", body.clone()).await;
        answer.refused(&body.to_string(), 400, "invalid_argument", pointer);
    }
    let all = json!({"table_name": "T", "dimension": 0, "metric": "x", "shards": 0});
    let answer = sandbox.call("POST", "/api/v1/tables", all).await.ok(400);
    assert_eq!(answer["errors"].as_array().map(Vec::len), Some(4), "{answer}");
    let hint =
        sandbox.call("POST", "/api/v1/tables", json!({"table_name": "t", "dimensions": 3})).await.ok(400);
    assert!(
        hint["errors"][0]["message"].as_str().expect("text").contains("did you mean dimension?"),
        "{hint}"
    );

    let mut grpc = sandbox.grpc().await;
    let good = proto::CreateTableRequest { table_name: "t".to_owned(), dimension: 3, ..Default::default() };
    let rows = [
        (proto::CreateTableRequest { table_name: "../x".to_owned(), ..good.clone() }, "/table_name"),
        (proto::CreateTableRequest { dimension: 0, ..good.clone() }, "/dimension"),
        (proto::CreateTableRequest { dimension: u32::MAX, ..good.clone() }, "/dimension"),
        (proto::CreateTableRequest { metric: 99, ..good.clone() }, "/metric"),
        (proto::CreateTableRequest { index_type: "x".to_owned(), ..good.clone() }, "/index_type"),
        (proto::CreateTableRequest { shards: 1_025, ..good.clone() }, "/shards"),
        (proto::CreateTableRequest { replicas: 8, ..good }, "/replicas"),
    ];
    for (request, field) in rows {
        let what = format!("{request:?}");
        refused(
            &what,
            grpc.tables.create_table(request).await,
            Code::InvalidArgument,
            "invalid_argument",
            field,
        );
    }
    assert_eq!(sandbox.get("/api/v1/tables").await.ok(200), json!({"tables": []}));
}
