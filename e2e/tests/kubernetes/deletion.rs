//! The cluster goes, and leaves the volumes that its policy keeps.

use std::time::Duration;

use anyhow::{Result, ensure};
use vectorsphere_e2e::cluster::KubeCluster;
use vectorsphere_e2e::deployment::Deployment;
use vectorsphere_e2e::wait::until;

use crate::install::{RELEASE, SYSTEM};

const GONE: Duration = Duration::from_secs(120);
/// Every kind that the operator makes.
const KINDS: [&str; 10] = [
    "vectorspherecluster",
    "statefulset",
    "pod",
    "service",
    "endpointslice",
    "configmap",
    "secret",
    "serviceaccount",
    "poddisruptionbudget",
    "ingress",
];
/// What Kubernetes itself puts into every namespace.
const OF_KUBERNETES: [&str; 2] = ["kube-root-ca.crt", "default"];

/// Deletes the object: all that was made for it goes, but for the slaves' volumes.
pub(crate) async fn cluster(deployment: &Deployment<'_>) -> Result<()> {
    let delete = [
        "--namespace",
        deployment.namespace(),
        "delete",
        "vectorspherecluster",
        "packages",
        "--timeout=120s",
    ];
    deployment.kubectl().run(&delete).await?;
    until("all that the operator made is gone", GONE, async || {
        for kind in KINDS {
            let mut left = deployment.list(kind).await?;
            left.retain(|name| !OF_KUBERNETES.contains(&name.as_str()));
            ensure!(left.is_empty(), "{kind}: {left:?}");
        }
        Ok(())
    })
    .await?;
    until("only the volumes that the policy keeps are left", GONE, async || {
        let volumes = deployment.list("persistentvolumeclaim").await?;
        let (kept, stray): (Vec<_>, Vec<_>) =
            volumes.iter().partition(|name| name.contains("packages-slave-"));
        ensure!(stray.is_empty(), "left: {stray:?}");
        ensure!(kept.len() >= 3, "kept: {kept:?}");
        Ok(())
    })
    .await
}

/// Uninstalls the operator; the definition of the custom resource stays, since other clusters may exist.
pub(crate) async fn operator(cluster: &KubeCluster) -> Result<()> {
    let kubectl = cluster.kubectl();
    kubectl.helm(&["uninstall", RELEASE, "--namespace", SYSTEM, "--wait", "--timeout=120s"]).await?;
    kubectl.run(&["get", "crd", "vectorsphereclusters.vectorsphere.io"]).await?;
    kubectl.run(&["delete", "namespace", SYSTEM, "vectors", "--timeout=120s"]).await.map(drop)
}
