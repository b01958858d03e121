//! Real processes over a real etcd: volumes that are emptied, put back to an older image, or lost for good.

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};
use vectorsphere_e2e::local_cluster::LocalCluster;
use vectorsphere_e2e::rest::RestClient;
use vectorsphere_e2e::settings::Settings;
use vectorsphere_e2e::shards::{Replica, shards};

const TABLE: &str = "/api/v1/tables/t";
/// The gateway; nodes from here on are slaves.
const GATEWAY: usize = 0;
const SLAVES: [usize; 3] = [1, 2, 3];

async fn cluster(replicas: u32, min_isr: u32, shards: u32) -> Result<(LocalCluster, RestClient)> {
    let cluster = LocalCluster::start(&Settings::from_environment()?, 1, SLAVES.len()).await?;
    let client = cluster.client(GATEWAY)?;
    let table = json!({
        "table_name": "t", "dimension": 2, "metric": "l2", "shards": shards, "replicas": replicas, "min_isr": min_isr
    });
    client.post::<Value>("/api/v1/tables", &table).await?;
    Ok((cluster, client))
}

/// Writes documents `first..first + 100`; the session's token.
async fn write(client: &RestClient, first: usize) -> Result<String> {
    let ids = first..first + 100;
    let documents: Vec<Value> =
        ids.map(|id| json!({"document_id": format!("d{id}"), "vector": [id, 1]})).collect();
    let answer: Value = client.post(&format!("{TABLE}/documents"), &json!({"documents": documents})).await?;
    Ok(answer["session_token"].as_str().context("a token")?.to_owned())
}

/// Every document below `end` is there, by a read of the primaries.
async fn check(client: &RestClient, end: usize) -> Result<()> {
    for id in 0..end {
        let path = format!("{TABLE}/documents/d{id}?consistency=strong");
        client.get::<Value>(&path).await.with_context(|| format!("document d{id}"))?;
    }
    Ok(())
}

/// Identities of the copies on a node.
async fn copies_on(client: &RestClient, node: &str) -> Result<Vec<String>> {
    let copies = shards(client, "t").await?.into_iter().flat_map(|shard| shard.replicas);
    let served = copies.filter(|copy| copy.node_id == node && copy.role == "full" && !copy.damaged);
    Ok(served.map(|copy| copy.replica_id).collect())
}

/// Steps: a slave is stopped, writes go on, its volume is emptied, it is started. Its copies are made anew under other
/// identities and nothing is missed.
#[tokio::test(flavor = "multi_thread")]
async fn an_emptied_volume_is_filled_again() -> Result<()> {
    let (mut cluster, client) = cluster(3, 2, 4).await?;
    write(&client, 0).await?;
    let before = copies_on(&client, "slave-0").await?;
    cluster.stop_node(SLAVES[0]).await?;
    write(&client, 100).await?;
    cluster.replace_data(SLAVES[0], None)?;
    cluster.start_node(SLAVES[0])?;
    cluster.wait_until_whole(&client, "t", 3).await?;
    let after = copies_on(&client, "slave-0").await?;
    ensure!(
        before.iter().all(|copy| !after.contains(copy)),
        "an identity was used again: {before:?} {after:?}"
    );
    // What is there now is enough: the two that had it all go.
    cluster.stop_node(SLAVES[1]).await?;
    check(&client, 200).await
}

/// Steps: an image of a stopped slave's volume is made; the slave runs on, is in sync, is stopped; the image is put back.
/// Its copies must not count: they lack writes that were acknowledged with their help.
#[tokio::test(flavor = "multi_thread")]
async fn a_volume_that_was_put_back_is_not_believed() -> Result<()> {
    let (mut cluster, client) = cluster(3, 2, 4).await?;
    write(&client, 0).await?;
    cluster.stop_node(SLAVES[0]).await?;
    let image = cluster.image_of_data(SLAVES[0])?;
    cluster.start_node(SLAVES[0])?;
    cluster.wait_until_whole(&client, "t", 3).await?;
    write(&client, 100).await?;
    let before = copies_on(&client, "slave-0").await?;
    for slave in SLAVES {
        cluster.kill_node(slave).await?;
    }
    cluster.replace_data(SLAVES[0], Some(&image))?;
    // Alone with one other copy, the older image would have been elected or believed.
    cluster.start_node(SLAVES[0])?;
    cluster.start_node(SLAVES[1])?;
    cluster.start_node(SLAVES[2])?;
    cluster
        .wait_for("the older image given up", async || {
            let left = copies_on(&client, "slave-0").await?;
            ensure!(before.iter().all(|copy| !left.contains(copy)), "it counts: {before:?} {left:?}");
            Ok(())
        })
        .await?;
    cluster.wait_until_whole(&client, "t", 3).await?;
    check(&client, 200).await
}

/// Steps: a copy falls out of sync and misses writes; the only other one is lost for good. A person lets the shard go on from
/// the one that is left: with a report, a new incarnation, and tokens of before refused.
#[tokio::test(flavor = "multi_thread")]
async fn a_shard_is_forced_to_go_on_from_an_old_copy() -> Result<()> {
    let (mut cluster, client) = cluster(2, 1, 1).await?;
    write(&client, 0).await?;
    let copies = &shards(&client, "t").await?[0].replicas;
    let node_of = |copy: &Replica| {
        SLAVES.into_iter().find(|slave| copy.node_id == cluster.nodes()[*slave].name).context("a node")
    };
    let [first, second] = [node_of(&copies[0])?, node_of(&copies[1])?];
    let (name, lost) = (cluster.nodes()[first].name.clone(), cluster.nodes()[second].name.clone());
    let force = ["force-primary", "t", "0", "--node", name.as_str(), "--confirm", "t/0"];
    let refused = cluster.admin(GATEWAY, &force).await.err().context("the shard is led")?;
    ensure!(format!("{refused:#}").contains("is led by the copy on node"), "{refused:#}");
    cluster.kill_node(first).await?;
    cluster
        .wait_for("the other copy alone in sync", async || {
            let shard = &shards(&client, "t").await?[0];
            let in_sync = shard.replicas.iter().filter(|copy| copy.in_sync).count();
            ensure!(in_sync == 1, "{shard:?}");
            Ok(())
        })
        .await?;
    let session = write(&client, 100).await?;
    cluster.kill_node(second).await?;
    cluster.replace_data(second, None)?;
    cluster.start_node(first)?;
    cluster
        .wait_for("the shard forced", async || match cluster.admin(GATEWAY, &force).await {
            Ok(report) if report.contains(lost.as_str()) => Ok(()),
            Ok(report) => bail!("no word of {lost} in {report}"),
            Err(error) => Err(error),
        })
        .await?;
    cluster
        .wait_for("a write", async || {
            write(&client, 200).await?;
            Ok(())
        })
        .await?;
    client.get::<Value>(&format!("{TABLE}/documents/d0?consistency=strong")).await?;
    let missed = client.get::<Value>(&format!("{TABLE}/documents/d100?consistency=strong")).await;
    ensure!(missed.is_err(), "only the lost copy had it");
    let search = json!({"vector": [1, 1], "top_k": 1, "session_token": session});
    let refused =
        client.post::<Value>(&format!("{TABLE}/search"), &search).await.err().context("an old token")?;
    ensure!(refused.code() == Some("session_expired"), "{refused:?}");
    // The lost node comes back with an empty volume: nothing of it counts, and a second copy is made.
    cluster.start_node(second)?;
    cluster.wait_until_whole(&client, "t", 2).await?;
    client.get::<Value>(&format!("{TABLE}/documents/d250?consistency=strong")).await?;
    Ok(())
}
