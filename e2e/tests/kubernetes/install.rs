//! From an empty Kubernetes to a cluster that says it is ready.

use std::time::Duration;

use anyhow::{Result, ensure};
use vectorsphere_e2e::cluster::KubeCluster;
use vectorsphere_e2e::deployment::Deployment;

/// Namespace of the operator.
pub(crate) const SYSTEM: &str = "vectorsphere-system";
/// Name of the Helm release.
pub(crate) const RELEASE: &str = "vectorsphere-operator";
const CLUSTER: &str = include_str!("cluster.yaml");

/// Installs the operator's chart as the README says, and returns when it is ready.
pub(crate) async fn operator(cluster: &KubeCluster) -> Result<()> {
    let chart = cluster.settings().checkout().join("charts/vectorsphere-operator").display().to_string();
    let install = ["install", RELEASE, &chart, "--namespace", SYSTEM, "--create-namespace"];
    let notes = cluster.kubectl().helm(&[&install[..], &["--wait", "--timeout=120s"]].concat()).await?;
    ensure!(notes.contains("STATUS: deployed"), "Helm says: {notes}");
    Ok(())
}

/// Applies the cluster and waits for its conditions, as `kubectl wait` does.
pub(crate) async fn cluster(deployment: &Deployment<'_>) -> Result<()> {
    deployment.kubectl().apply(CLUSTER).await?;
    let deadline = Duration::from_secs(180);
    for condition in ["LeaderElected", "Available", "UpToDate", "ScaledAsSpecified", "Ready"] {
        deployment.condition(condition, "True", deadline).await?;
    }
    deployment.pods_ready("master", 3, deadline).await?;
    deployment.pods_ready("slave", 3, deadline).await?;
    let leader = deployment.leader().await?;
    ensure!(leader.pod.starts_with("packages-master-"), "the Master is {leader:?}");
    for group in ["master", "slave"] {
        let mut hosts: Vec<String> = deployment.placement(group).await?.into_values().collect();
        hosts.sort();
        hosts.dedup();
        ensure!(hosts.len() == 3, "the {group} pods share nodes: {hosts:?}");
    }
    Ok(())
}
