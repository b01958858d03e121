//! Real processes on this machine, over a real etcd: what survives a kill, and what an orderly stop is.

use anyhow::{Context, Result, ensure};
use futures::StreamExt;
use serde_json::{Value, json};
use vectorsphere_e2e::debian::Debian;
use vectorsphere_e2e::load::{BATCH, check_queries};
use vectorsphere_e2e::local_cluster::LocalCluster;
use vectorsphere_e2e::settings::Settings;

const SLAVE: usize = 2;

/// Steps: two masters, two slaves; load the sample, kill a slave with SIGKILL in the middle and start it again, go on;
/// batches that were not acknowledged are sent again. Every document is there and every answer is exact.
#[tokio::test(flavor = "multi_thread")]
async fn every_acknowledged_document_survives_the_kill_of_a_slave() -> Result<()> {
    let mut cluster = LocalCluster::start(&Settings::from_environment()?, 2, 2).await?;
    let client = cluster.client(0)?;
    let debian = Debian::sample()?;
    client.create_table("packages", debian.dimension(), 4).await?;

    let batches: Vec<_> = (0..debian.len()).step_by(BATCH).map(|first| first..first + BATCH).collect();
    let half = batches.len() / 2;
    let loading = async |batches: &[std::ops::Range<usize>]| -> Vec<std::ops::Range<usize>> {
        let sent = futures::stream::iter(batches.iter().cloned())
            .map(async |range| client.upsert("packages", &debian, range.clone()).await.err().map(|_| range));
        sent.buffer_unordered(4).filter_map(async |failed| failed).collect().await
    };
    ensure!(loading(&batches[..half]).await.is_empty(), "no batch fails before the kill");
    let (failed, killed) = tokio::join!(loading(&batches[half..]), async {
        cluster.kill_node(SLAVE).await?;
        cluster.start_node(SLAVE)
    });
    killed?;
    cluster.wait_until_ready().await?;
    ensure!(loading(&failed).await.is_empty(), "what failed is taken when the slave is back");

    let statistics: Value = client.get("/api/v1/tables/packages/stats").await?;
    ensure!(statistics["documents"] == json!(debian.len()), "{statistics}");
    check_queries(&client, "packages", &debian, 2).await?;
    Ok(())
}

/// Steps: SIGTERM to the elected Master; it ends with status 0, its successor has a higher epoch and serves at once.
#[tokio::test(flavor = "multi_thread")]
async fn an_orderly_stop_hands_mastership_over() -> Result<()> {
    let mut cluster = LocalCluster::start(&Settings::from_environment()?, 2, 1).await?;
    let before = master(&cluster, 0).await?;
    let elected = usize::from(before.0 != "master-0");
    cluster.stop_node(elected).await?;
    let other = 1 - elected;
    cluster
        .wait_for("a new Master", async || {
            let now = master(&cluster, other).await?;
            ensure!(now.0 != before.0 && now.1 > before.1, "still {now:?}, before {before:?}");
            Ok(())
        })
        .await?;
    cluster.client(other)?.create_table("after", 4, 2).await?;
    Ok(())
}

/// Steps: kill etcd; searches and writes go on while the node sessions live, no process ends; start etcd again; table
/// changes work again.
#[tokio::test(flavor = "multi_thread")]
async fn losing_etcd_ends_no_process() -> Result<()> {
    let mut cluster = LocalCluster::start(&Settings::from_environment()?, 1, 1).await?;
    let client = cluster.client(0)?;
    client.create_table("t", 2, 1).await?;
    let document = json!({"document_id": "a", "vector": [1.0, 0.0]});
    client.post::<Value>("/api/v1/tables/t/documents", &document).await?;
    cluster.kill_etcd().await?;
    let found = client.search("t", &[1.0, 0.0], 1).await?;
    ensure!(found.hits.len() == 1, "a search needs no etcd: {found:?}");
    cluster
        .wait_for("etcd's loss to be told", async || {
            let status: Value = client.get("/api/v1/cluster/status").await?;
            ensure!(status["meta_store_reachable"] == json!(false), "{status}");
            Ok(())
        })
        .await?;
    let found = client.search("t", &[1.0, 0.0], 1).await?;
    ensure!(found.hits.len() == 1, "a search still needs no etcd: {found:?}");
    cluster.start_etcd()?;
    cluster.wait_until_ready().await?;
    client.create_table("after", 2, 1).await?;
    client.post::<Value>("/api/v1/tables/t/documents", &document).await?;
    Ok(())
}

async fn master(cluster: &LocalCluster, gateway: usize) -> Result<(String, u64)> {
    let status: Value = cluster.client(gateway)?.get("/api/v1/cluster/status").await?;
    let name = status["master"]["node_id"].as_str().with_context(|| status.to_string())?;
    let epoch = status["master"]["epoch"].as_u64().with_context(|| status.to_string())?;
    Ok((name.to_owned(), epoch))
}
