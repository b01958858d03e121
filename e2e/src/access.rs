//! The way from this machine to a Service: its address where the cluster's network is ours, else a forwarded port.

use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};

use crate::cluster::KubeCluster;

/// A way to one port of a Service; it ends when this is dropped.
pub struct Access {
    url: String,
    _forward: Option<Child>,
}

impl Access {
    /// Opens a way to a port of a Service.
    ///
    /// # Errors
    /// When the Service has no address or the port cannot be forwarded.
    pub async fn open(cluster: &KubeCluster, namespace: &str, service: &str, port: u16) -> Result<Self> {
        if cluster.network().is_none() {
            return Self::forward(cluster, namespace, service, port).await;
        }
        let object = cluster.kubectl().get(&["--namespace", namespace, "service", service]).await?;
        let address = object["spec"]["clusterIP"].as_str().context("the Service has no address")?;
        Ok(Self { url: format!("http://{address}:{port}"), _forward: None })
    }

    /// Where the port answers.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    async fn forward(cluster: &KubeCluster, namespace: &str, service: &str, port: u16) -> Result<Self> {
        let kubectl = cluster.kubectl();
        let mut child = Command::new(kubectl.program())
            .arg("--kubeconfig")
            .arg(kubectl.kubeconfig())
            .args([
                "--namespace",
                namespace,
                "port-forward",
                &format!("service/{service}"),
                &format!(":{port}"),
            ])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()?;
        let output = child.stdout.take().context("no output of kubectl")?;
        let mut lines = BufReader::new(output).lines();
        // "Forwarding from 127.0.0.1:40123 -> 8080"
        let first = tokio::time::timeout(Duration::from_secs(30), lines.next_line()).await??;
        let first = first.with_context(|| format!("cannot forward port {port} of {service}"))?;
        let address = first.split_whitespace().nth(2).context("kubectl names no address")?;
        Ok(Self { url: format!("http://{address}"), _forward: Some(child) })
    }
}
