//! What operators look at and ask for.

use serde_json::{Value, json};
use tonic::Code;
use vectorsphere_proto::v1 as proto;

use super::support::{Sandbox, refused};

const DRAIN: &str = "/api/v1/cluster/nodes/node-1/drain";

/// Table `t` with four shards on two nodes.
async fn sandbox() -> Sandbox {
    let sandbox = Sandbox::start(2).await;
    sandbox.table("t", 2, json!({"metric": "l2", "shards": 4, "replicas": 1})).await;
    sandbox
}

#[tokio::test(flavor = "multi_thread")]
async fn the_shards_of_a_table_say_where_their_copies_are() {
    let sandbox = sandbox().await;
    let listed = sandbox.get("/api/v1/tables/t/shards").await.ok(200);
    let shards = listed["shards"].as_array().expect("shards");
    assert_eq!(shards.len(), 4);
    for (index, shard) in shards.iter().enumerate() {
        assert_eq!(
            (&shard["shard"], &shard["incarnation"], &shard["min_isr"]),
            (&json!(index), &json!(0), &json!(1))
        );
        let copies = shard["replicas"].as_array().expect("replicas");
        let copy = &copies[0];
        assert_eq!(copies.len(), 1, "{shard}");
        assert_eq!((&copy["in_sync"], &copy["damaged"]), (&json!(true), &json!(false)), "{shard}");
        assert_eq!(shard["isr"], json!([copy["replica_id"]]));
        let primary = json!({"replica_id": copy["replica_id"], "node_id": copy["node_id"]});
        assert_eq!(shard["primary"], primary);
        assert!(shard["epoch"].as_u64() > Some(0), "{shard}");
    }
    let mut tables = sandbox.grpc().await.tables;
    let request = proto::ListShardsRequest { table_name: "t".to_owned() };
    let same = tables.list_shards(request).await.expect("listed").into_inner().shards;
    let nodes = |shards: &[Value]| -> Vec<String> {
        shards.iter().map(|shard| shard["primary"]["node_id"].as_str().expect("a node").to_owned()).collect()
    };
    let told: Vec<String> = same.iter().map(|shard| shard.primary_node_id.clone()).collect();
    assert_eq!(told, nodes(shards));
    assert!(same.iter().all(|shard| shard.copies[0].in_sync && shard.copies[0].node_present));
    let missing = sandbox.get("/api/v1/tables/unknown/shards").await;
    missing.refused("no table", 404, "table_not_found", "");
}

/// Steps: a node is drained, which every node tells; the time limit is taken away; the drain is cancelled, twice.
#[tokio::test(flavor = "multi_thread")]
async fn a_node_is_drained_until_that_is_cancelled() {
    let sandbox = sandbox().await;
    let before = sandbox.get(DRAIN).await.ok(200);
    let counts = json!([before["draining"], before["replicas"], before["primaries"], before["leaving"]]);
    assert_eq!(counts, json!([false, 2, 2, 0]));
    let started =
        sandbox.call("POST", DRAIN, json!({"ttl_ms": 3_600_000, "reason": "new disks"})).await.ok(200);
    assert_eq!(
        (&started["draining"], &started["reason"], &started["done"]),
        (&json!(true), &json!("new disks"), &json!(false))
    );
    let (requested, expires) = (started["requested_unix_ms"].as_u64(), started["expires_unix_ms"].as_u64());
    assert_eq!(expires, requested.map(|ms| ms + 3_600_000));
    for node in 0..2 {
        let told = sandbox.send(sandbox.request(node, "GET", DRAIN)).await.ok(200);
        // What is on the node moves away meanwhile.
        for field in ["draining", "reason", "requested_unix_ms", "expires_unix_ms"] {
            assert_eq!(told[field], started[field], "node {node}");
        }
        let nodes = sandbox.send(sandbox.request(node, "GET", "/api/v1/cluster/nodes")).await.ok(200);
        let draining: Vec<&Value> =
            nodes["nodes"].as_array().expect("nodes").iter().map(|node| &node["draining"]).collect();
        assert_eq!(draining, [false, true]);
    }
    // Without a body: no time limit.
    let endless = sandbox.send(sandbox.request(0, "POST", DRAIN)).await.ok(200);
    assert_eq!((endless.get("expires_unix_ms"), &endless["reason"]), (None, &json!("")));
    for _ in 0..2 {
        let cancelled = sandbox.send(sandbox.request(1, "DELETE", DRAIN)).await;
        assert_eq!((cancelled.status, cancelled.text.as_str()), (204, ""));
        assert_eq!(sandbox.get(DRAIN).await.ok(200)["draining"], false);
    }

    let mut cluster = sandbox.grpc().await.cluster;
    let node_id = "node-0".to_owned();
    let start =
        proto::StartDrainRequest { node_id: node_id.clone(), ttl_ms: 60_000, reason: "grpc".to_owned() };
    let started = cluster.start_drain(start).await.expect("started").into_inner();
    assert_eq!(started.expires_unix_ms, started.requested_unix_ms + 60_000);
    let told = cluster.get_drain(proto::GetDrainRequest { node_id: node_id.clone() }).await;
    let told = told.expect("told").into_inner();
    assert_eq!((told.draining, told.expires_unix_ms), (true, started.expires_unix_ms));
    cluster.cancel_drain(proto::CancelDrainRequest { node_id }).await.expect("cancelled");
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_of_operators_are_checked_before_anything_happens() {
    let sandbox = sandbox().await;
    let shard = |verb: &str| format!("/api/v1/tables/t/shards/0:{verb}");
    let unknown = "/api/v1/cluster/nodes/unknown/drain".to_owned();
    let force = |confirmation: &str| json!({"node": "node-1", "confirmation": confirmation});
    let shards = sandbox.get("/api/v1/tables/t/shards").await.ok(200);
    let (holder, epoch) = (&shards["shards"][0]["primary"]["node_id"], &shards["shards"][0]["epoch"]);
    let same = sandbox.call("POST", &shard("handover"), json!({"to": holder})).await.ok(200);
    assert_eq!((&same["node_id"], &same["epoch"]), (holder, epoch), "it leads already");
    let rows = [
        ("POST", DRAIN.to_owned(), json!({"ttl_ms": 0}), 400, "invalid_argument", "/ttl_ms"),
        ("POST", DRAIN.to_owned(), json!({"ttl_ms": 2_592_000_001u64}), 400, "invalid_argument", "/ttl_ms"),
        ("POST", DRAIN.to_owned(), json!({"reason": "x".repeat(513)}), 400, "invalid_argument", "/reason"),
        ("POST", DRAIN.to_owned(), json!({"ttl": 5}), 400, "invalid_argument", "/ttl"),
        ("POST", "/api/v1/cluster/nodes/a%20b/drain".to_owned(), json!({}), 400, "invalid_argument", "/node"),
        ("POST", unknown.clone(), json!({}), 404, "node_not_found", ""),
        ("GET", unknown.clone(), Value::Null, 404, "node_not_found", ""),
        ("DELETE", unknown, Value::Null, 404, "node_not_found", ""),
        ("POST", shard("move"), json!({"to": "node-1"}), 400, "invalid_argument", "/from"),
        ("POST", shard("move"), json!({"from": holder, "to": "unknown"}), 404, "node_not_found", ""),
        ("POST", shard("move"), json!({"from": "node-1", "to": "node-1"}), 400, "invalid_argument", "/to"),
        ("POST", shard("handover"), json!({"to": "a b"}), 400, "invalid_argument", "/to"),
        ("POST", shard("force-primary"), force(""), 400, "invalid_argument", "/confirmation"),
        ("POST", shard("force-primary"), force("t/1"), 400, "invalid_argument", "/confirmation"),
        ("POST", shard("split"), json!({}), 404, "route_not_found", ""),
        ("POST", "/api/v1/tables/t/shards/0".to_owned(), json!({}), 404, "route_not_found", ""),
        ("POST", "/api/v1/tables/t/shards/4:move".to_owned(), json!({}), 404, "shard_not_found", ""),
        ("POST", "/api/v1/tables/t/shards/x:move".to_owned(), json!({}), 400, "invalid_argument", "/shard"),
        ("POST", "/api/v1/tables/u/shards/0:move".to_owned(), json!({}), 404, "table_not_found", ""),
        // The shard is led: nothing is to be forced.
        ("POST", shard("force-primary"), force("t/0"), 400, "invalid_argument", ""),
    ];
    for (method, path, body, status, code, pointer) in rows {
        let answer = sandbox.call(method, &path, body.clone()).await;
        answer.refused(&format!("{method} {path} {body}"), status, code, pointer);
    }
    let mut grpc = sandbox.grpc().await;
    let request = proto::StartDrainRequest { node_id: "unknown".to_owned(), ..Default::default() };
    refused("no node", grpc.cluster.start_drain(request).await, Code::NotFound, "node_not_found", "");
    let request = proto::ForcePrimaryRequest {
        table_name: "t".to_owned(),
        shard: 0,
        node_id: "node-1".to_owned(),
        confirmation: "yes".to_owned(),
    };
    let answer = grpc.tables.force_primary(request).await;
    refused("no confirmation", answer, Code::InvalidArgument, "invalid_argument", "/confirmation");
}

/// Steps: the Master of three is told to step back, by another node: a third one leads. One node alone stays the Master.
#[tokio::test(flavor = "multi_thread")]
async fn mastership_is_handed_over() {
    const HAND_OVER: &str = "/api/v1/cluster/master:handover";
    let sandbox = Sandbox::start(3).await;
    let master = sandbox.get("/api/v1/cluster/status").await.ok(200)["master"].clone();
    let new = sandbox.send(sandbox.request(1, "POST", HAND_OVER)).await.ok(200);
    assert_ne!(new["node_id"], master["node_id"]);
    assert!(new["epoch"].as_u64() > master["epoch"].as_u64(), "{new} after {master}");
    for node in 0..3 {
        sandbox.eventually(node, "/api/v1/cluster/status", |status| status["master"] == new).await;
    }
    sandbox.table("t", 2, json!({})).await;
    let alone = Sandbox::start(1).await;
    alone.send(alone.request(0, "POST", HAND_OVER)).await.refused("nobody else", 503, "not_ready", "");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_status_counts_shards_that_lack_copies() {
    let mut sandbox = sandbox().await;
    let status = sandbox.get("/api/v1/cluster/status").await.ok(200);
    let counts = |status: &Value| json!([status["under_replicated_shards"], status["shards_below_min_isr"]]);
    assert_eq!((&status["status"], counts(&status)), (&json!("green"), json!([0, 0])));
    let nodes = sandbox.get("/api/v1/cluster/nodes").await.ok(200);
    for node in nodes["nodes"].as_array().expect("nodes") {
        assert_eq!(json!([node["shards"], node["primaries"], node["out_of_sync_shards"]]), json!([2, 2, 0]));
    }
    assert!(sandbox.nodes.remove(1).stop().await);
    let status =
        sandbox.eventually(0, "/api/v1/cluster/status", |status| status["unavailable_shards"] == 2).await;
    assert_eq!((&status["status"], counts(&status)), (&json!("red"), json!([2, 2])));
}
