//! The main job on a real Kubernetes: install the operator, apply a cluster, load real vectors, search them, and go on
//! searching while pods, a process, a node and at last the cluster itself go away.
//!
//! Needs root on Linux, or `KUBECONFIG`. One cluster serves the whole scenario; each step starts from where the one
//! before it ended.

mod deletion;
mod failover;
mod front_door;
mod install;
mod packages;
mod partition;
mod scaling;

use vectorsphere_e2e::deployment::Deployment;
use vectorsphere_e2e::phases::say;
use vectorsphere_e2e::scenario;

use crate::packages::Packages;

/// Kubernetes nodes, each a zone.
const NODES: usize = 3;

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_serves_real_vectors_from_installation_to_deletion() {
    scenario::run(NODES, async |cluster, phases| {
        let deployment = Deployment::new(cluster, "vectors", "packages");
        phases.run("operator installed by Helm", install::operator(cluster)).await?;
        phases.run("cluster applied and Ready", install::cluster(&deployment)).await?;

        let packages = Packages::open(cluster.settings(), deployment.rest().await?)?;
        phases.run("documents loaded through the Service", packages.load()).await?;
        phases.run("queries answered exactly", packages.check()).await?;
        phases.run("REST through the Ingress", front_door::ingress(cluster, &deployment)).await?;

        if cluster.network().is_some() {
            let graceful = failover::delete_master_pod(&deployment, &packages);
            phases.run("Master pod deleted while searching", graceful).await?;
            phases
                .run("Master killed while searching", failover::kill_master(&deployment, &packages))
                .await?;
            phases
                .run("node cut off and back", partition::cut_a_node(cluster, &deployment, &packages))
                .await?;
        } else {
            say("not run: failures of pods and nodes, which need a cluster of this harness");
        }

        phases.run("slaves scaled out", scaling::out(&deployment, &packages)).await?;
        phases.run("scale-in refused", scaling::refused_in(&deployment, &packages)).await?;
        phases.run("cluster deleted", deletion::cluster(&deployment)).await?;
        phases.run("operator uninstalled", deletion::operator(cluster)).await
    })
    .await
    .unwrap();
}
