//! A node is cut off the network, with the slave on it.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;
use vectorsphere_e2e::cluster::KubeCluster;
use vectorsphere_e2e::deployment::Deployment;
use vectorsphere_e2e::kubectl::condition;
use vectorsphere_e2e::phases::say;
use vectorsphere_e2e::rest::{CallError, RestClient};
use vectorsphere_e2e::wait::until;

use crate::packages::{Packages, SHARDS};

/// `task_timeout` of the cluster under test, and a second for the way.
const DEADLINE: Duration = Duration::from_secs(6);
/// How long a live gateway may take to say that it lives.
const PROBE: Duration = Duration::from_secs(2);
/// So many answers in a row are no luck: with a lost gateway among three they come once in a thousand times.
const PROBES: usize = 17;
/// The kubelet's silence is noticed after 20 s.
const NOTICED: Duration = Duration::from_secs(60);
const HEALED: Duration = Duration::from_secs(120);
/// What a gateway may say about a shard whose node is gone.
const CLEAR: [&str; 2] = ["shard_unavailable", "deadline_exceeded"];

/// Cuts the node of a slave: searches fail clearly, or answer in part and say so; when the node is back, all is well.
pub(crate) async fn cut_a_node(
    cluster: &KubeCluster,
    deployment: &Deployment<'_>,
    packages: &Packages,
) -> Result<()> {
    let network = cluster.network().context("the network is not ours")?;
    let leader = deployment.leader().await?;
    let masters = deployment.placement("master").await?;
    // Any node but the Master's: this is about data, the election has its own step.
    let spared = masters.get(&leader.pod).context("the Master's pod is gone")?;
    let victim = cluster.nodes().iter().find(|node| node.name() != spared).context("one node only")?;
    say(&format!("           cutting {}", victim.name()));
    network.cut(victim.number()).await?;
    let missed = while_cut(cluster, deployment, packages, victim.name(), &leader.pod).await;
    network.heal(victim.number()).await?;
    missed?;
    node_is(cluster, victim.name(), "True", HEALED).await?;
    deployment.pods_ready("master", 3, HEALED).await?;
    deployment.pods_ready("slave", 3, HEALED).await?;
    deployment.condition("Ready", "True", HEALED).await?;
    packages.check().await
}

async fn while_cut(
    cluster: &KubeCluster,
    deployment: &Deployment<'_>,
    packages: &Packages,
    victim: &str,
    gateway: &str,
) -> Result<()> {
    let direct = RestClient::new(deployment.rest_of(gateway).await?, Duration::from_secs(30))?;
    refuses_clearly(packages, &direct).await.context("just after the cut")?;
    node_is(cluster, victim, "Unknown", NOTICED).await?;
    // Soon the Service no longer leads to the gateway on the lost node; until then one call in three is never answered.
    let probe = RestClient::without_reuse(packages.url(), PROBE)?;
    until("the Service leads around the lost node", Duration::from_secs(30), async || {
        for _ in 0..PROBES {
            probe.get::<Value>("/livez").await.or_else(not_json).context("no answer")?;
        }
        Ok(())
    })
    .await?;
    let through_service = RestClient::without_reuse(packages.url(), Duration::from_secs(30))?;
    refuses_clearly(packages, &through_service).await.context("through the Service")?;
    answers_in_part(packages, &through_service).await
}

/// Any whole answer will do: a probe's is not JSON.
fn not_json(error: CallError) -> Result<Value, CallError> {
    if matches!(error, CallError::Garbled(_)) { Ok(Value::Null) } else { Err(error) }
}

async fn refuses_clearly(packages: &Packages, client: &RestClient) -> Result<()> {
    let asked = Instant::now();
    match packages.search(client, 0, false).await {
        Err(CallError::Problem(problem)) if CLEAR.contains(&problem.code.as_str()) => {}
        Err(error) => bail!("not a clear error: {error:?}"),
        Ok(answer) => bail!("a search without a slave's shards succeeded, missing {:?}", answer.missing),
    }
    ensure!(asked.elapsed() <= DEADLINE, "the error took {:?}", asked.elapsed());
    Ok(())
}

/// What is there is right, and what is missing is named.
async fn answers_in_part(packages: &Packages, client: &RestClient) -> Result<()> {
    let answer = packages.search(client, 0, true).await?;
    let missing = answer.missing.len();
    ensure!((1..SHARDS as usize).contains(&missing), "{missing} of {SHARDS} shards are named as missing");
    for shard in &answer.missing {
        ensure!(
            shard["shard"].is_u64() && shard["reason"].is_string(),
            "a missing shard is named as {shard}"
        );
    }
    ensure!(!answer.hits.is_empty(), "no hit of the shards that are there");
    let exact: Vec<(&str, f32)> = packages.debian.answer(0).collect();
    for hit in answer.hits.iter().filter(|hit| exact.iter().any(|(name, _)| *name == hit.document_id)) {
        let (_, score) = exact.iter().find(|(name, _)| *name == hit.document_id).context("filtered")?;
        ensure!((hit.score - f64::from(*score)).abs() <= 1e-6, "{hit:?} instead of {score}");
    }
    Ok(())
}

async fn node_is(cluster: &KubeCluster, node: &str, status: &str, deadline: Duration) -> Result<()> {
    until(&format!("{node} is Ready={status}"), deadline, async || {
        let object = cluster.kubectl().get(&["node", node]).await?;
        let (seen, why) = condition(&object, "Ready").context("no condition yet")?;
        ensure!(seen == status, "Ready={seen}, {why}");
        Ok(())
    })
    .await
}
