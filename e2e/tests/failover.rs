//! Real processes over a real etcd: shards with several copies go on when one of them is lost.

use std::time::Duration;

use anyhow::{Result, ensure};
use serde_json::{Value, json};
use vectorsphere_e2e::local_cluster::LocalCluster;
use vectorsphere_e2e::settings::Settings;
use vectorsphere_e2e::write_gaps::{Writers, check_all};

const WRITERS: usize = 8;
const SHARDS: usize = 6;

async fn cluster(replicas: u32, min_isr: u32) -> Result<LocalCluster> {
    let cluster = LocalCluster::start(&Settings::from_environment()?, 2, 3).await?;
    let table = json!({
        "table_name": "t", "dimension": 2, "metric": "l2", "shards": SHARDS, "replicas": replicas, "min_isr": min_isr
    });
    cluster.client(0)?.post::<Value>("/api/v1/tables", &table).await?;
    Ok(cluster)
}

/// Steps: eight clients write to six shards with two copies each; a slave is killed with SIGKILL, and started again.
#[tokio::test(flavor = "multi_thread")]
async fn the_kill_of_a_slave_loses_nothing_and_interrupts_briefly() -> Result<()> {
    let mut cluster = cluster(2, 1).await?;
    let writers = Writers::start(&cluster.client(0)?, "t", WRITERS);
    tokio::time::sleep(Duration::from_secs(1)).await;
    cluster.kill_node(2).await?;
    tokio::time::sleep(Duration::from_secs(6)).await;
    cluster.start_node(2)?;
    cluster.wait_until_ready().await?;
    tokio::time::sleep(Duration::from_secs(3)).await;
    let gaps = writers.stop().await?;
    println!(
        "kill: {} acknowledged, {} failed calls, longest gap {:?}",
        gaps.acknowledged.len(),
        gaps.failed,
        gaps.longest
    );
    check_all(&cluster.client(0)?, "t", &gaps).await?;
    ensure!(gaps.acknowledged.len() > 100, "too little was written");
    Ok(())
}

/// Steps: the same, with an orderly stop (SIGTERM).
#[tokio::test(flavor = "multi_thread")]
async fn an_orderly_stop_of_a_slave_interrupts_hardly() -> Result<()> {
    let mut cluster = cluster(2, 1).await?;
    let writers = Writers::start(&cluster.client(0)?, "t", WRITERS);
    tokio::time::sleep(Duration::from_secs(1)).await;
    cluster.stop_node(2).await?;
    tokio::time::sleep(Duration::from_secs(2)).await;
    cluster.start_node(2)?;
    cluster.wait_until_ready().await?;
    let gaps = writers.stop().await?;
    println!(
        "stop: {} acknowledged, {} failed calls, longest gap {:?}",
        gaps.acknowledged.len(),
        gaps.failed,
        gaps.longest
    );
    check_all(&cluster.client(0)?, "t", &gaps).await?;
    Ok(())
}

/// Steps: the same, but the Master is killed: no call through another gateway fails.
#[tokio::test(flavor = "multi_thread")]
async fn the_kill_of_the_master_fails_no_call_of_another_gateway() -> Result<()> {
    let mut cluster = cluster(2, 1).await?;
    let status: Value = cluster.client(0)?.get("/api/v1/cluster/status").await?;
    let master = usize::from(status["master"]["node_id"] != json!("master-0"));
    let writers = Writers::start(&cluster.client(1 - master)?, "t", WRITERS);
    tokio::time::sleep(Duration::from_secs(1)).await;
    cluster.kill_node(master).await?;
    tokio::time::sleep(Duration::from_secs(8)).await;
    let gaps = writers.stop().await?;
    println!(
        "Master: {} acknowledged, {} failed calls, longest gap {:?}",
        gaps.acknowledged.len(),
        gaps.failed,
        gaps.longest
    );
    ensure!(gaps.failed == 0, "{gaps:?}");
    check_all(&cluster.client(1 - master)?, "t", &gaps).await?;
    Ok(())
}
