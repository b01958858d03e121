//! What every cluster offers beside the control plane: names (CoreDNS) and volumes (a default StorageClass).

use anyhow::Result;
use futures::future::try_join_all;
use serde_json::json;

use crate::images::BOX;
use crate::kubectl::Kubectl;
use crate::node::Node;

const COREDNS: &str = include_str!("../manifests/coredns.yaml");
const LOCAL_PATH: &str = include_str!("../manifests/local-path.yaml");

/// Applies the manifests; their pods start as soon as a node is ready.
///
/// # Errors
/// When the API server refuses one.
pub async fn apply(kubectl: &Kubectl, nodes: &[Node]) -> Result<()> {
    kubectl.apply(COREDNS).await?;
    kubectl.apply(LOCAL_PATH).await?;
    kubectl.apply(&volume_configuration(nodes)?).await
}

/// Returns when names resolve and volumes can be made.
///
/// # Errors
/// When that takes more than two minutes.
pub async fn ready(kubectl: &Kubectl) -> Result<()> {
    let rollouts =
        [("kube-system", "daemonset/coredns"), ("local-path-storage", "deployment/local-path-provisioner")];
    let waits = rollouts.map(|(namespace, workload)| async move {
        kubectl.run(&["--namespace", namespace, "rollout", "status", workload, "--timeout=120s"]).await
    });
    try_join_all(waits).await.map(drop)
}

/// The provisioner's configuration: which folder of which node holds volumes, and the pod that makes and removes them
/// (as root, since the images run as nobody).
fn volume_configuration(nodes: &[Node]) -> Result<String> {
    let folders: Vec<_> =
        nodes.iter().map(|node| json!({"node": node.name(), "paths": [node.volumes()]})).collect();
    let helper = json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "helper-pod"},
        "spec": {
            "priorityClassName": "system-node-critical",
            "tolerations": [{"operator": "Exists"}],
            "containers": [{
                "name": "helper-pod", "image": BOX, "imagePullPolicy": "Never",
                "securityContext": {"runAsUser": 0, "runAsGroup": 0}}]}});
    let configuration = json!({
        "apiVersion": "v1", "kind": "ConfigMap",
        "metadata": {"name": "local-path-config", "namespace": "local-path-storage"},
        "data": {
            "config.json": json!({"nodePathMap": folders}).to_string(),
            "setup": "#!/bin/sh\nset -eu\nmkdir -p \"$VOL_DIR\"\nchmod 0777 \"$VOL_DIR\"\n",
            "teardown": "#!/bin/sh\nset -eu\nrm -rf \"$VOL_DIR\"\n",
            "helperPod.yaml": serde_yaml::to_string(&helper)?}});
    Ok(serde_yaml::to_string(&configuration)?)
}
