//! Real processes over a real etcd that comes back from a snapshot: what it has forgotten must not be believed (R3).

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use vectorsphere_e2e::local_cluster::LocalCluster;
use vectorsphere_e2e::rest::RestClient;
use vectorsphere_e2e::settings::Settings;
use vectorsphere_e2e::shards::{Shard, shards};

const GATEWAY: usize = 0;
const SLAVES: [usize; 2] = [1, 2];

async fn write(client: &RestClient, table: &str, id: usize) -> Result<()> {
    let documents = json!({"documents": [{"document_id": format!("d{id}"), "vector": [id, 1]}]});
    client.post::<Value>(&format!("/api/v1/tables/{table}/documents"), &documents).await?;
    Ok(())
}

async fn read(client: &RestClient, table: &str, id: usize) -> Result<()> {
    let path = format!("/api/v1/tables/{table}/documents/d{id}?consistency=strong");
    client.get::<Value>(&path).await.with_context(|| format!("document d{id} of {table}"))?;
    Ok(())
}

/// The only shard of a table.
async fn shard(client: &RestClient, table: &str) -> Result<Shard> {
    shards(client, table).await?.pop().context("a shard")
}

/// Steps: a snapshot of etcd is made while both copies of `changed` are in sync; one leaves the set, writes go on without it.
/// etcd comes back from the snapshot, which calls the one that lacks them in sync. Running nodes stop and say why, restarted ones
/// wait and say why. The snapshot is restored once more as the documents say, with a higher revision: nobody leads before the copy
/// with the last write is there, nothing that was acknowledged is missing, also when the other one has to serve alone.
#[tokio::test(flavor = "multi_thread")]
async fn an_etcd_that_went_back_is_not_believed() -> Result<()> {
    let mut cluster = LocalCluster::start(&Settings::from_environment()?, 1, SLAVES.len()).await?;
    let client = cluster.client(GATEWAY)?;
    for table in ["changed", "same"] {
        let body = json!({"table_name": table, "dimension": 2, "metric": "l2", "shards": 1, "replicas": 2, "min_isr": 1});
        client.post::<Value>("/api/v1/tables", &body).await?;
        cluster.wait_until_whole(&client, table, 2).await?;
        write(&client, table, 0).await?;
    }
    let (old, name) = (SLAVES[1], cluster.nodes()[SLAVES[0]].name.clone());
    write(&client, "same", 1).await?;
    write(&client, "changed", 1).await?;
    let snapshot = cluster.snapshot_etcd().await?;
    cluster.kill_node(old).await?;
    write(&client, "changed", 2).await?;

    cluster.kill_etcd().await?;
    cluster.restore_etcd(&snapshot, &[]).await?;
    cluster.start_etcd()?;
    for node in [GATEWAY, SLAVES[0]] {
        let status = cluster.await_end(node).await?;
        ensure!(!status.success(), "{status}");
        let log = cluster.logged(node)?;
        ensure!(log.contains("metadata store went back to revision"), "{log}");
    }
    cluster.start_node(GATEWAY)?;
    cluster
        .wait_for("the restarted node to say why it waits", async || {
            let log = cluster.logged(GATEWAY)?;
            ensure!(log.contains("compare the metadata store with what was seen of it"), "{log}");
            Ok(())
        })
        .await?;
    ensure!(client.get::<Value>("/health").await.is_err(), "it must not be ready");

    cluster.kill_node(GATEWAY).await?;
    cluster.kill_etcd().await?;
    cluster.restore_etcd(&snapshot, &["--bump-revision", "1000000000", "--mark-compacted"]).await?;
    cluster.start_etcd()?;
    // The one that lacks the last write comes first, and must not take the lead, not even when it is asked for.
    for node in [old, GATEWAY] {
        cluster.start_node(node)?;
    }
    cluster
        .wait_for("the Master and the node without the last write", async || {
            let status: Value = client.get("/api/v1/cluster/status").await?;
            ensure!(status["nodes"] == json!(2) && !status["master"].is_null(), "{status}");
            Ok(())
        })
        .await?;
    // The gateway tries until the deadline.
    let patient = client.clone().with_deadline(Duration::from_secs(8));
    ensure!(read(&patient, "changed", 0).await.is_err(), "the shard is served by who may lack writes");
    cluster.start_node(SLAVES[0])?;
    for (table, last) in [("same", 1), ("changed", 2)] {
        let confirmed = format!("{table}/0");
        let force = ["force-primary", table, "0", "--node", &name, "--confirm", &confirmed];
        cluster
            .wait_for("the last document", async || {
                let Err(error) = read(&client, table, last).await else { return Ok(()) };
                // Its copies may have obeyed what the restored record does not show: then a person says that it goes on.
                let is_closed = |failure: &String| failure.contains("the store was rolled back");
                let shard = shard(&client, table).await?;
                if shard.replicas.iter().filter_map(|copy| copy.failure.as_ref()).any(is_closed) {
                    cluster.admin(GATEWAY, &force).await?;
                }
                Err(error)
            })
            .await?;
        for id in 0..last {
            read(&client, table, id).await?;
        }
    }
    // The copy that lacked a write, and that the restored record called in sync, was found out.
    cluster.wait_until_whole(&client, "changed", 2).await?;
    cluster.stop_node(SLAVES[0]).await?;
    cluster.wait_for("the other copy", async || read(&client, "changed", 2).await).await
}
