//! A VectorSphereCluster as its user sees it: the object, its pods, and the Service in front of them.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use nix::sys::signal::Signal;
use serde_json::Value;

use crate::access::Access;
use crate::cluster::KubeCluster;
use crate::kubectl::{Kubectl, condition, names};
use crate::process::Daemon;
use crate::wait::until;

/// Port of REST at the client Service.
const HTTP_PORT: u16 = 8080;

/// One VectorSphereCluster object.
pub struct Deployment<'a> {
    cluster: &'a KubeCluster,
    namespace: &'a str,
    name: &'a str,
}

/// The elected Master, as the object's status tells it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Leader {
    /// Its pod.
    pub pod: String,
    /// Grows with each election.
    pub epoch: u64,
}

impl<'a> Deployment<'a> {
    /// The object `name` in `namespace`.
    #[must_use]
    pub fn new(cluster: &'a KubeCluster, namespace: &'a str, name: &'a str) -> Self {
        Self { cluster, namespace, name }
    }

    /// `kubectl` on the Kubernetes that the object is in.
    #[must_use]
    pub fn kubectl(&self) -> &Kubectl {
        self.cluster.kubectl()
    }

    /// Where the object is.
    #[must_use]
    pub fn namespace(&self) -> &str {
        self.namespace
    }

    /// The object.
    ///
    /// # Errors
    /// When it is not there.
    pub async fn object(&self) -> Result<Value> {
        self.kubectl().get(&["--namespace", self.namespace, "vectorspherecluster", self.name]).await
    }

    /// An object of the same namespace.
    ///
    /// # Errors
    /// When it is not there.
    pub async fn get(&self, kind: &str, name: &str) -> Result<Value> {
        self.kubectl().get(&["--namespace", self.namespace, kind, name]).await
    }

    /// Names of all objects of a kind in the namespace.
    ///
    /// # Errors
    /// When the API server does not answer.
    pub async fn list(&self, kind: &str) -> Result<Vec<String>> {
        Ok(names(&self.kubectl().get(&["--namespace", self.namespace, kind]).await?))
    }

    /// Waits until the condition `kind` of the newest generation has `status`; returns its reason and message.
    ///
    /// # Errors
    /// After `deadline`, with the condition as it was last seen.
    pub async fn condition(&self, kind: &str, status: &str, deadline: Duration) -> Result<String> {
        until(&format!("{kind} is {status}"), deadline, async || {
            let object = self.object().await?;
            let (seen, why) = condition(&object, kind).with_context(|| format!("no condition {kind}"))?;
            ensure!(
                object["status"]["observedGeneration"] == object["metadata"]["generation"],
                "an old generation"
            );
            ensure!(seen == status, "{kind} is {seen}, {why}");
            Ok(why)
        })
        .await
    }

    /// The Master that the status names.
    ///
    /// # Errors
    /// When it names none.
    pub async fn leader(&self) -> Result<Leader> {
        let object = self.object().await?;
        let leader = &object["status"]["leader"];
        let text = |field: &str| leader[field].as_str().context("the status names no Master");
        Ok(Leader { pod: text("podName")?.to_string(), epoch: text("epoch")?.parse()? })
    }

    /// Waits until the status names a Master with a higher epoch than `before`.
    ///
    /// # Errors
    /// After `deadline`.
    pub async fn leader_after(&self, before: &Leader, deadline: Duration) -> Result<Leader> {
        until("a new Master is elected", deadline, async || {
            let leader = self.leader().await?;
            ensure!(leader.epoch > before.epoch, "{leader:?}");
            Ok(leader)
        })
        .await
    }

    /// Waits until `count` pods of the group (`master`, `slave`) are ready.
    ///
    /// # Errors
    /// After `deadline`.
    pub async fn pods_ready(&self, group: &str, count: i64, deadline: Duration) -> Result<()> {
        let set = format!("{}-{group}", self.name);
        until(&format!("{count} pods of {set} are ready"), deadline, async || {
            let status = self.get("statefulset", &set).await?["status"].take();
            let number = |field: &str| status[field].as_i64().unwrap_or(0);
            let (ready, all) = (number("readyReplicas"), number("replicas"));
            ensure!(ready == count && all == count, "{ready} of {all} are ready");
            Ok(())
        })
        .await
    }

    /// Node of each running pod of the group.
    ///
    /// # Errors
    /// When the API server does not answer.
    pub async fn placement(&self, group: &str) -> Result<BTreeMap<String, String>> {
        let prefix = format!("{}-{group}-", self.name);
        let list = self.kubectl().get(&["--namespace", self.namespace, "pods"]).await?;
        let pods = list["items"].as_array().map(Vec::as_slice).unwrap_or_default();
        let placed = pods.iter().filter_map(|pod| {
            let name = pod["metadata"]["name"].as_str().filter(|name| name.starts_with(&prefix))?;
            Some((name.to_string(), pod["spec"]["nodeName"].as_str()?.to_string()))
        });
        Ok(placed.collect())
    }

    /// The way to REST, through the client Service.
    ///
    /// # Errors
    /// When there is none.
    pub async fn rest(&self) -> Result<Access> {
        Access::open(self.cluster, self.namespace, &format!("{}-http", self.name), HTTP_PORT).await
    }

    /// REST of one pod, past the Service.
    ///
    /// # Errors
    /// When the pod has no address.
    pub async fn rest_of(&self, pod: &str) -> Result<String> {
        let object = self.get("pod", pod).await?;
        let address = object["status"]["podIP"].as_str().with_context(|| format!("{pod} has no address"))?;
        Ok(format!("http://{address}:{HTTP_PORT}"))
    }

    /// Kills the first process of a pod's container with SIGKILL, as the kernel does when memory runs out.
    ///
    /// # Errors
    /// When the pod does not run on a node of this harness.
    pub async fn sigkill(&self, pod: &str) -> Result<()> {
        let object = self.get("pod", pod).await?;
        let host = object["spec"]["nodeName"].as_str().unwrap_or_default();
        let id = object["status"]["containerStatuses"][0]["containerID"].as_str().unwrap_or_default();
        let Some(node) = self.cluster.nodes().iter().find(|node| node.name() == host) else {
            bail!("{pod} runs on {host:?}, which is not a node of this harness");
        };
        let pid = node.container_pid(id.trim_start_matches("containerd://")).await?;
        Daemon::running(pod, pid)?.signal(Signal::SIGKILL)
    }
}
