//! More slaves, which new tables use; and fewer, which is refused while they hold shards.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use vectorsphere_e2e::deployment::Deployment;
use vectorsphere_e2e::wait::until;

use crate::packages::Packages;

const SCALED: Duration = Duration::from_secs(120);
/// Lives on all four slaves.
const WIDE_TABLE: &str = "wide";
const WIDE_SHARDS: u32 = 8;

/// Scales to four slaves with the scale subresource; a new table has shards on the new one.
pub(crate) async fn out(deployment: &Deployment<'_>, packages: &Packages) -> Result<()> {
    scale(deployment, 4).await?;
    deployment.pods_ready("slave", 4, SCALED).await?;
    deployment.condition("ScaledAsSpecified", "True", SCALED).await?;
    until("the new slave is registered", SCALED, async || {
        shards_of(packages, "packages-slave-3").await.map(drop)
    })
    .await?;
    packages.client.create_table(WIDE_TABLE, packages.debian.dimension(), WIDE_SHARDS).await?;
    packages.client.upsert(WIDE_TABLE, &packages.debian, 0..200).await?;
    let shards = shards_of(packages, "packages-slave-3").await?;
    ensure!(shards > 0, "the new slave holds no shard of the new table");
    packages.check().await
}

/// Scaling back is refused with a reason while the last slave holds shards, and happens when it is drained: every shard has
/// moved to another one.
pub(crate) async fn refused_in(deployment: &Deployment<'_>, packages: &Packages) -> Result<()> {
    scale(deployment, 3).await?;
    let why = deployment.condition("ScaledAsSpecified", "False", SCALED).await?;
    ensure!(why.contains("packages-slave-3"), "the condition does not name the pod: {why}");
    deployment.pods_ready("slave", 4, Duration::from_secs(10)).await?;
    packages.check().await?;
    let dropped: Value =
        packages.client.call(reqwest::Method::DELETE, &format!("/api/v1/tables/{WIDE_TABLE}"), None).await?;
    let drain = drain_of(packages, "packages-slave-3").await?;
    packages.client.post::<Value>(&drain, &json!({"reason": "scaled in"})).await?;
    deployment
        .condition("ScaledAsSpecified", "True", SCALED)
        .await
        .with_context(|| format!("after {dropped}"))?;
    deployment.pods_ready("slave", 3, SCALED).await?;
    // Nobody is in the way when a pod of this name comes again.
    packages.client.call::<Value>(reqwest::Method::DELETE, &drain, None).await?;
    packages.check().await
}

async fn scale(deployment: &Deployment<'_>, slaves: u32) -> Result<()> {
    let replicas = format!("--replicas={slaves}");
    let scale = ["--namespace", deployment.namespace(), "scale", "vectorspherecluster/packages", &replicas];
    deployment.kubectl().run(&scale).await.map(drop)
}

/// Shards on the node of a pod, as the cluster tells it.
async fn shards_of(packages: &Packages, pod: &str) -> Result<u64> {
    let node = node_of(packages, pod).await?;
    node["shards"].as_u64().with_context(|| format!("no number of shards: {node}"))
}

/// Path of the drain of a pod's node.
async fn drain_of(packages: &Packages, pod: &str) -> Result<String> {
    let node = node_of(packages, pod).await?;
    let id = node["node_id"].as_str().with_context(|| format!("no name: {node}"))?;
    Ok(format!("/api/v1/cluster/nodes/{id}/drain"))
}

async fn node_of(packages: &Packages, pod: &str) -> Result<Value> {
    let answer: Value = packages.client.get("/api/v1/cluster/nodes").await?;
    let nodes = answer["nodes"].as_array().context("no list of nodes")?;
    let is_pod = |node: &&Value| node["node_id"].as_str().is_some_and(|id| id.contains(pod));
    nodes.iter().find(is_pod).cloned().with_context(|| format!("{pod} is not registered: {answer}"))
}
