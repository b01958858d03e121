//! REST through the Ingress that the operator made.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use vectorsphere_e2e::cluster::KubeCluster;
use vectorsphere_e2e::deployment::Deployment;
use vectorsphere_e2e::http;
use vectorsphere_e2e::ingress::IngressProxy;

use crate::packages::TABLE;

const HOST: &str = "packages.example.org";

/// Serves the Ingress as its controller would, and asks for the table by the Ingress's host name.
pub(crate) async fn ingress(cluster: &KubeCluster, deployment: &Deployment<'_>) -> Result<()> {
    let names = deployment.list("ingress").await?;
    let [name] = &names[..] else { anyhow::bail!("one Ingress is expected, there are {names:?}") };
    if cluster.network().is_none() {
        // The pods of a foreign cluster cannot be reached from here; its own controller serves its Ingresses.
        return Ok(());
    }
    let proxy = IngressProxy::start(cluster, deployment.namespace(), name).await?;
    let asked = ask(&proxy.url()).await;
    proxy.stop().await?;
    asked
}

async fn ask(url: &str) -> Result<()> {
    let http = http::client(Duration::from_secs(10))?;
    let path = format!("{url}/api/v1/tables/{TABLE}");
    let answer = http.get(&path).header("host", HOST).send().await?.error_for_status()?;
    let table: Value =
        serde_json::from_str(&answer.text().await?).context("the Ingress answers with no JSON")?;
    ensure!(table["table_name"] == TABLE, "the Ingress answers {table}");
    // Another host name is not this cluster's.
    let other = http.get(&path).header("host", "elsewhere.example.org").send().await?;
    ensure!(other.status() == 404, "another host is answered {}", other.status());
    Ok(())
}
