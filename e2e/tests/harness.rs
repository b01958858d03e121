//! The harness itself, without VectorSphere: what the scenarios rely on is there, and nothing of it stays behind.
//!
//! Needs root on Linux; with `KUBECONFIG` there is no harness to test.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use vectorsphere_e2e::access::Access;
use vectorsphere_e2e::cluster::KubeCluster;
use vectorsphere_e2e::deployment::Deployment;
use vectorsphere_e2e::ingress::IngressProxy;
use vectorsphere_e2e::network::{self, NODE_PREFIX};
use vectorsphere_e2e::phases::{Phases, say};
use vectorsphere_e2e::settings::Settings;
use vectorsphere_e2e::wait::until;
use vectorsphere_e2e::{cgroups, scenario};

const WEB: &str = include_str!("harness/web.yaml");
const SOON: Duration = Duration::from_secs(60);

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_has_volumes_names_services_and_leaves_nothing_behind() -> Result<()> {
    let settings = Settings::from_environment()?;
    if settings.kubeconfig.is_some() {
        say("not run: KUBECONFIG names a cluster that is not the harness's");
        return Ok(());
    }
    scenario::run(2, works).await?;
    ensure!(network::leftover_namespaces().await?.is_empty(), "network namespaces are left");
    ensure!(cgroups::leftover(NODE_PREFIX)?.is_empty(), "cgroups are left");
    ensure!(!settings.state().exists(), "{} is left", settings.state().display());
    Ok(())
}

async fn works(cluster: &KubeCluster, phases: &mut Phases) -> Result<()> {
    let web = Deployment::new(cluster, "default", "web");
    cluster.kubectl().apply(WEB).await?;
    phases.run("pods that need volumes", web.pods_ready("server", 2, SOON)).await?;
    phases.run("Service from outside", service(cluster)).await?;
    phases.run("names from inside", names(cluster)).await?;
    phases.run("no way out", no_way_out(cluster)).await?;
    phases.run("Ingress", ingress(cluster)).await?;
    phases.run("a killed process restarts on its volume", killed(&web)).await
}

/// Every node's pods answer behind one address.
async fn service(cluster: &KubeCluster) -> Result<()> {
    let access = Access::open(cluster, "default", "web", 80).await?;
    for pod in ["web-server-0", "web-server-1"] {
        until(&format!("{pod} answers behind the Service"), SOON, async || {
            let said = fetch(access.url()).await?;
            ensure!(said.trim() == pod, "{said} answered");
            Ok(())
        })
        .await?;
    }
    Ok(())
}

async fn names(cluster: &KubeCluster) -> Result<()> {
    for url in ["http://web.default.svc.cluster.local/", "http://web-server-1.web-pods:8080/"] {
        let said = inside(cluster, &["timeout", "5", "wget", "-q", "-O", "-", url]).await?;
        ensure!(said.starts_with("web-server-"), "{url} answered {said}");
    }
    Ok(())
}

/// An address outside of every range of the cluster: unreachable from a pod.
async fn no_way_out(cluster: &KubeCluster) -> Result<()> {
    let error =
        inside(cluster, &["timeout", "3", "wget", "-q", "-O", "-", "http://127.1.1.1.invalid/"]).await;
    ensure!(error.is_err(), "a name outside of the cluster resolved");
    let routes = inside(cluster, &["cat", "/proc/net/route"]).await?;
    ensure!(!routes.is_empty(), "a pod without routes");
    let node = vectorsphere_e2e::command::ip(&format!("-n {NODE_PREFIX}1 route show default")).await?;
    ensure!(node.trim().is_empty(), "a node has a default route: {node}");
    Ok(())
}

async fn ingress(cluster: &KubeCluster) -> Result<()> {
    let proxy = IngressProxy::start(cluster, "default", "web").await?;
    let said = fetch(&proxy.url()).await;
    proxy.stop().await?;
    let said = said.context("through the Ingress")?;
    ensure!(said.starts_with("web-server-"), "the Ingress answered {said}");
    Ok(())
}

async fn killed(web: &Deployment<'_>) -> Result<()> {
    web.sigkill("web-server-0").await?;
    until("the container has restarted", SOON, async || {
        let restarts =
            web.get("pod", "web-server-0").await?["status"]["containerStatuses"][0]["restartCount"].take();
        ensure!(restarts == 1, "{restarts} restarts");
        Ok(())
    })
    .await?;
    web.pods_ready("server", 2, SOON).await?;
    // The second start found what the first had written to the volume.
    let pod: Value = web.get("pod", "web-server-0").await?;
    ensure!(pod["status"]["phase"] == "Running", "{pod}");
    let starts = web.kubectl().run(&["exec", "web-server-0", "--", "/bin/cat", "/data/starts"]).await?;
    ensure!(starts.lines().count() == 2, "the volume remembers {starts:?}");
    Ok(())
}

async fn inside(cluster: &KubeCluster, command: &[&str]) -> Result<String> {
    cluster.kubectl().run(&[&["exec", "web-server-0", "--"], command].concat()).await
}

async fn fetch(url: &str) -> Result<String> {
    let http = vectorsphere_e2e::http::client(Duration::from_secs(5))?;
    Ok(http.get(url).header("host", "web.example.org").send().await?.error_for_status()?.text().await?)
}
