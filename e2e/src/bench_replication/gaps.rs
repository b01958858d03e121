//! How long writes stand still when something is lost: clients write one document after the other meanwhile. On hosts of
//! their own, so that a host can go away without a word.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use crate::rest::RestClient;
use crate::settings::Settings;
use crate::shards::shards;
use crate::torture::etcd::MEMBERS;
use crate::torture::in_own_namespaces;
use crate::torture::lab::{Lab, SLAVES, nodes};
use crate::torture::network::Network;
use crate::write_gaps::{Gaps, Writers};

const TABLE: &str = "gaps";
const REPLICAS: usize = 3;
/// Writes are under way for so long before anything happens.
const BEFORE: Duration = Duration::from_millis(500);
/// And go on for so long after it.
const AFTER: Duration = Duration::from_secs(6);

/// Time that one call may take.
const PATIENCE: Duration = Duration::from_secs(60);

#[derive(Clone, Copy, Debug)]
enum Loss {
    Primary,
    Follower,
    HostOfPrimary,
    HostOfFollower,
    HandOver,
    Master,
    EtcdLeader,
}

const LOSSES: [(Loss, &str); 7] = [
    (Loss::Primary, "kill -9 of the primary"),
    (Loss::Follower, "kill -9 of a follower"),
    (Loss::HostOfPrimary, "host of the primary cut off"),
    (Loss::HostOfFollower, "host of a follower cut off"),
    (Loss::HandOver, "hand-over"),
    (Loss::Master, "kill -9 of the Master"),
    (Loss::EtcdLeader, "kill -9 of etcd's leader"),
];

pub(super) async fn run(settings: &Settings, times: usize) -> Result<String> {
    let settings = settings.clone();
    in_own_namespaces(async move |network| measure(&settings, network, times).await).await
}

async fn measure(settings: &Settings, network: Network, times: usize) -> Result<String> {
    let folder = tempfile::Builder::new().prefix("vectorsphere-gaps-").tempdir()?;
    let mut lab = Lab::start(settings, network, folder.path()).await?;
    lab.wait_until_whole(&BTreeMap::new()).await?;
    let table = json!({
        "table_name": TABLE, "dimension": 2, "metric": "l2", "shards": 1, "replicas": REPLICAS, "min_isr": 1
    });
    lab.client(lab.master().await?)?.post::<Value>("/api/v1/tables", &table).await?;
    let mut told = format!("longest time between two writes, {REPLICAS} copies, etcd of three members:\n");
    for (loss, name) in LOSSES {
        let (mut longest, mut failed) = (Vec::new(), 0);
        for _ in 0..times {
            let gaps = once(&mut lab, loss).await.context(name)?;
            longest.push(gaps.longest);
            failed += gaps.failed;
        }
        longest.sort_unstable();
        let (middle, last) = (longest[longest.len() / 2], longest[longest.len() - 1]);
        writeln!(told, "  {name}: median {middle:.2?}, worst {last:.2?} of {times}; {failed} calls failed")?;
    }
    lab.end().await?;
    folder.close().context("cannot remove the files of the measurement")?;
    Ok(told)
}

async fn once(lab: &mut Lab, loss: Loss) -> Result<Gaps> {
    lab.wait_until_whole(&BTreeMap::from([(TABLE.to_owned(), REPLICAS)])).await?;
    // As patient as a client that says nothing of deadlines: a call that waits too long shows as a gap, not as a failure.
    let client = RestClient::new(lab.url(lab.other_gateway().await?), PATIENCE)?;
    let shard = shards(&client, TABLE).await?.pop().context("a shard")?;
    let primary = shard.primary_node().context("a primary")?;
    let holds = |slave: &&str| shard.replicas.iter().any(|copy| copy.node_id == **slave);
    let of = |is_primary: bool| {
        let found = SLAVES.into_iter().filter(holds).find(|slave| (*slave == primary) == is_primary);
        found.context("a slave")
    };
    let writers = Writers::start(&client, TABLE, 2);
    tokio::time::sleep(BEFORE).await;
    match loss {
        Loss::Primary | Loss::Follower => {
            lab.node(of(matches!(loss, Loss::Primary))?).kill().await?;
        }
        Loss::HostOfPrimary | Loss::HostOfFollower => {
            let host = of(matches!(loss, Loss::HostOfPrimary))?;
            let others: Vec<&str> = nodes().chain(MEMBERS).filter(|other| *other != host).collect();
            lab.network.part(&[host], &others).await?;
        }
        Loss::HandOver => {
            let path = format!("/api/v1/tables/{TABLE}/shards/0:handover");
            client.post::<Value>(&path, &json!({})).await?;
        }
        Loss::Master => {
            let master = lab.master().await?;
            lab.node(master).kill().await?;
        }
        Loss::EtcdLeader => {
            let leader = lab.etcd.leader().await?;
            lab.etcd.member(leader).kill().await?;
        }
    }
    tokio::time::sleep(AFTER).await;
    let gaps = writers.stop().await?;
    lab.network.heal().await?;
    lab.etcd.start().await?;
    lab.start_nodes()?;
    ensure!(!gaps.acknowledged.is_empty(), "nothing was written");
    Ok(gaps)
}
