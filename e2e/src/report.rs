//! What a failed run leaves for a person: events, descriptions, logs of all pods and of the control plane.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result};

use crate::cluster::KubeCluster;
use crate::kubectl::Kubectl;
use crate::phases::say;

/// What is asked of the API server: file name and arguments.
const QUESTIONS: [(&str, &[&str]); 5] = [
    ("events.txt", &["get", "events", "--all-namespaces", "--sort-by=.lastTimestamp", "--output=wide"]),
    ("pods.txt", &["describe", "pods", "--all-namespaces"]),
    ("nodes.txt", &["describe", "nodes"]),
    (
        "workloads.txt",
        &["get", "all,pvc,configmaps,ingresses,endpointslices", "--all-namespaces", "--output=wide"],
    ),
    ("clusters.yaml", &["get", "vectorsphereclusters", "--all-namespaces", "--output=yaml"]),
];

/// Saves a report on `error` and says on standard error where it lies.
pub async fn save_and_tell(cluster: &KubeCluster, error: &anyhow::Error) {
    say(&format!("FAILED: {error:#}"));
    let saved = save(cluster, &format!("{error:#}\n")).await;
    let told = saved.map(|folder| format!("events, descriptions and logs: {}", folder.display()));
    say(&told.unwrap_or_else(|error| format!("no report could be saved: {error:#}")));
}

/// Saves what can be had, and returns the folder. A question without an answer leaves the error in the answer's place.
///
/// # Errors
/// When nothing can be written at all.
pub async fn save(cluster: &KubeCluster, failure: &str) -> Result<PathBuf> {
    let seconds = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs();
    let folder = cluster.settings().cache().join("e2e-report").join(seconds.to_string());
    fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
    fs::write(folder.join("failure.txt"), failure)?;
    for (file, question) in QUESTIONS {
        let question = [&["--request-timeout=10s"], question].concat();
        let answer = cluster.kubectl().run(&question).await.unwrap_or_else(|error| format!("{error:#}\n"));
        fs::write(folder.join(file), answer)?;
    }
    if cluster.nodes().is_empty() {
        ask_for_logs(cluster.kubectl(), &folder.join("pod-logs")).await?;
    } else {
        // The files outlive their containers; the API server shows only the last two.
        for node in cluster.nodes() {
            copy_logs(&node.pod_logs(), &folder.join("pod-logs"))?;
        }
        copy_logs(&cluster.settings().state().join("log"), &folder.join("cluster"))?;
    }
    Ok(folder)
}

async fn ask_for_logs(kubectl: &Kubectl, folder: &Path) -> Result<()> {
    fs::create_dir_all(folder)?;
    let pods = kubectl.get(&["pods", "--all-namespaces"]).await.unwrap_or_default();
    for pod in pods["items"].as_array().map(Vec::as_slice).unwrap_or_default() {
        let text = |field: &str| pod["metadata"][field].as_str().unwrap_or_default().to_string();
        let (namespace, name) = (text("namespace"), text("name"));
        let arguments = ["--namespace", &namespace, "logs", &name, "--all-containers", "--prefix"];
        let log = kubectl.run(&arguments).await.unwrap_or_else(|error| format!("{error:#}\n"));
        fs::write(folder.join(format!("{namespace}_{name}.log")), log)?;
    }
    Ok(())
}

/// Copies a folder of logs with its structure. One that is removed meanwhile is left out.
fn copy_logs(from: &Path, to: &Path) -> Result<()> {
    let Ok(entries) = fs::read_dir(from) else { return Ok(()) };
    fs::create_dir_all(to)?;
    for path in entries.filter_map(|entry| Some(entry.ok()?.path())) {
        let target = to.join(path.file_name().context("a folder's entry has a name")?);
        if path.is_dir() {
            copy_logs(&path, &target)?;
        } else {
            let _ = fs::copy(&path, &target);
        }
    }
    Ok(())
}
