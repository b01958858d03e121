//! How long writes stand still when a copy is lost or hands over: clients write one document after the other meanwhile.

use std::fmt::Write as _;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::{GATEWAY, SLAVES, cluster, create};
use crate::local_cluster::LocalCluster;
use crate::rest::RestClient;
use crate::settings::Settings;
use crate::shards::shards;
use crate::write_gaps::Writers;

const TABLE: &str = "gaps";

#[derive(Clone, Copy)]
enum Loss {
    /// The primary's process is killed.
    Primary,
    /// The process of another copy is killed.
    Follower,
    /// The primary is told to let another copy lead.
    HandOver,
}

pub(super) async fn run(settings: &Settings, times: usize) -> Result<String> {
    let (mut cluster, client) = cluster(settings).await?;
    create((&cluster, &client), TABLE, 2, (1, SLAVES)).await?;
    let mut told = String::new();
    for (what, loss) in [
        ("kill -9 of the primary", Loss::Primary),
        ("kill -9 of a follower", Loss::Follower),
        ("hand-over", Loss::HandOver),
    ] {
        let (mut longest, mut failed) = (Vec::new(), 0);
        for _ in 0..times {
            let gaps = once(&mut cluster, &client, loss).await.context(what)?;
            longest.push(gaps.0);
            failed += gaps.1;
        }
        longest.sort_unstable();
        let (middle, last) = (longest[longest.len() / 2], longest[longest.len() - 1]);
        writeln!(
            told,
            "longest gap between two writes, {what}: median {middle:.2?}, worst {last:.2?} of {times}; {failed} calls failed"
        )?;
    }
    Ok(told)
}

/// The longest gap, and the calls that failed.
async fn once(cluster: &mut LocalCluster, client: &RestClient, loss: Loss) -> Result<(Duration, usize)> {
    cluster.wait_until_whole(client, TABLE, SLAVES).await?;
    let shard = shards(client, TABLE).await?.pop().context("a shard")?;
    let primary = shard.primary_node().context("a primary")?.to_owned();
    let node = |is_primary: bool| {
        let found = (1..=SLAVES).find(|slave| (cluster.nodes()[*slave].name == primary) == is_primary);
        found.context("a node")
    };
    let writers = Writers::start(cluster, GATEWAY, TABLE, 2)?;
    // Writes are under way before anything happens, and go on for a while after it.
    tokio::time::sleep(Duration::from_millis(500)).await;
    let lost = match loss {
        Loss::Primary => Some(node(true)?),
        Loss::Follower => Some(node(false)?),
        Loss::HandOver => None,
    };
    match lost {
        Some(node) => cluster.kill_node(node).await?,
        None => drop(cluster.admin(GATEWAY, &["hand-over", TABLE, "0"]).await?),
    }
    tokio::time::sleep(Duration::from_secs(4)).await;
    let gaps = writers.stop().await?;
    ensure!(!gaps.acknowledged.is_empty(), "nothing was written");
    if let Some(node) = lost {
        cluster.start_node(node)?;
    }
    Ok((gaps.longest, gaps.failed))
}
