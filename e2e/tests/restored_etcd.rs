//! Real processes over a real etcd that comes back from a snapshot: what it has forgotten must not be believed (R3).

use anyhow::{Result, ensure};
use serde_json::{Value, json};
use vectorsphere_e2e::local_cluster::LocalCluster;
use vectorsphere_e2e::rest::RestClient;
use vectorsphere_e2e::settings::Settings;

const GATEWAY: usize = 0;
const SLAVES: [usize; 2] = [1, 2];

async fn write(client: &RestClient, table: &str, id: usize) -> Result<()> {
    let documents = json!({"documents": [{"document_id": format!("d{id}"), "vector": [id, 1]}]});
    client.post::<Value>(&format!("/api/v1/tables/{table}/documents"), &documents).await?;
    Ok(())
}

/// Steps: a snapshot of etcd is made while both copies of `changed` are in sync; one leaves the set, writes go on without it.
/// etcd comes back from the snapshot, which calls the one that lacks them in sync. Running nodes stop and say why, restarted ones
/// wait and say why.
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
    let old = SLAVES[1];
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
    Ok(())
}
