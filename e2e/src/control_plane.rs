//! etcd, API server, controller manager and scheduler, in the host's network namespace.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};

use crate::command::run;
use crate::network::{HOST, PODS, SERVICES};
use crate::pki::Pki;
use crate::process::{Daemon, Daemons};
use crate::settings::Settings;
use crate::wait::until;

/// Where everybody, on the host and on the nodes, finds the API server.
pub const SERVER: &str = "https://172.30.0.1:6443";
/// First address of the Services' range: the API server's own Service.
const SERVER_SERVICE: &str = "10.96.0.1";
const ETCD_CLIENT: &str = "http://127.0.0.1:23790";
const ETCD_PEER: &str = "http://127.0.0.1:23800";
/// After so long without a heartbeat a node is `NotReady` (the default of 50 s would only stretch the tests).
const NODE_GRACE: &str = "20s";

/// Writes the certificates and kubeconfigs of the control plane; `nodes` get theirs when they are started.
///
/// # Errors
/// When a file cannot be written.
pub fn issue_certificates(pki: &Pki) -> Result<()> {
    let mut hosts: Vec<String> =
        ["localhost", "127.0.0.1", HOST, SERVER_SERVICE].map(str::to_string).to_vec();
    hosts.extend(
        [
            "kubernetes",
            "kubernetes.default",
            "kubernetes.default.svc",
            "kubernetes.default.svc.cluster.local",
        ]
        .map(str::to_string),
    );
    pki.issue("apiserver", "kube-apiserver", "vectorsphere", &hosts)?;
    pki.issue("kubelet-client", "kube-apiserver-kubelet-client", "system:masters", &[])?;
    pki.issue("front-proxy", "front-proxy-client", "vectorsphere", &[])?;
    for (name, user, group) in [
        ("admin", "admin", "system:masters"),
        ("controller-manager", "system:kube-controller-manager", "vectorsphere"),
        ("scheduler", "system:kube-scheduler", "vectorsphere"),
        ("kube-proxy", "system:kube-proxy", "vectorsphere"),
    ] {
        pki.issue(name, user, group, &[])?;
        pki.kubeconfig(name, SERVER)?;
    }
    Ok(())
}

/// Starts the four programs and returns when the API server is ready.
///
/// # Errors
/// When one of them ends, or is not ready within a minute; the message quotes its log.
pub async fn start(settings: &Settings, daemons: &Daemons, pki: &Pki) -> Result<()> {
    let etcd = daemons.spawn("etcd", &settings.tool("etcd"), &etcd_flags(&settings.state().join("etcd")))?;
    let server = daemons.spawn("apiserver", &settings.tool("kube-apiserver"), &server_flags(pki))?;
    ready(settings, daemons, pki, &[etcd, server]).await?;
    let manager = settings.tool("kube-controller-manager");
    daemons.spawn("controller-manager", &manager, &manager_flags(pki))?;
    daemons.spawn("scheduler", &settings.tool("kube-scheduler"), &scheduler_flags(pki))?;
    Ok(())
}

async fn ready(settings: &Settings, daemons: &Daemons, pki: &Pki, needed: &[Daemon]) -> Result<()> {
    let kubeconfig = pki.path("admin.kubeconfig");
    let arguments =
        ["--kubeconfig", &kubeconfig.to_string_lossy(), "get", "--raw", "/readyz"].map(str::to_string);
    until("the API server is ready", Duration::from_secs(60), async || {
        needed.iter().try_for_each(|daemon| daemons.check(daemon))?;
        run(settings.tool("kubectl"), &arguments).await.context("no answer yet").map(drop)
    })
    .await
}

fn etcd_flags(data: &Path) -> Vec<String> {
    vec![
        format!("--data-dir={}", data.display()),
        format!("--listen-client-urls={ETCD_CLIENT}"),
        format!("--advertise-client-urls={ETCD_CLIENT}"),
        format!("--listen-peer-urls={ETCD_PEER}"),
        format!("--initial-advertise-peer-urls={ETCD_PEER}"),
        format!("--initial-cluster=default={ETCD_PEER}"),
        // The cluster's own state does not outlive a power loss, so it need not wait for the disk.
        "--unsafe-no-fsync".into(),
    ]
}

fn server_flags(pki: &Pki) -> Vec<String> {
    let file = |name: &str| pki.path(name).display().to_string();
    vec![
        format!("--etcd-servers={ETCD_CLIENT}"),
        format!("--bind-address={HOST}"),
        format!("--advertise-address={HOST}"),
        "--secure-port=6443".into(),
        "--authorization-mode=Node,RBAC".into(),
        "--enable-admission-plugins=NodeRestriction".into(),
        "--allow-privileged=true".into(),
        format!("--service-cluster-ip-range={SERVICES}"),
        format!("--tls-cert-file={}", file("apiserver.crt")),
        format!("--tls-private-key-file={}", file("apiserver.key")),
        format!("--client-ca-file={}", file("ca.crt")),
        format!("--service-account-key-file={}", file("service-accounts.pub")),
        format!("--service-account-signing-key-file={}", file("service-accounts.key")),
        "--service-account-issuer=https://kubernetes.default.svc".into(),
        // Node names are not in DNS.
        "--kubelet-preferred-address-types=InternalIP".into(),
        format!("--kubelet-certificate-authority={}", file("ca.crt")),
        format!("--kubelet-client-certificate={}", file("kubelet-client.crt")),
        format!("--kubelet-client-key={}", file("kubelet-client.key")),
        "--enable-aggregator-routing=true".into(),
        format!("--proxy-client-cert-file={}", file("front-proxy.crt")),
        format!("--proxy-client-key-file={}", file("front-proxy.key")),
        format!("--requestheader-client-ca-file={}", file("ca.crt")),
        "--requestheader-allowed-names=front-proxy-client".into(),
        "--requestheader-username-headers=X-Remote-User".into(),
        "--requestheader-group-headers=X-Remote-Group".into(),
        "--requestheader-extra-headers-prefix=X-Remote-Extra-".into(),
    ]
}

fn manager_flags(pki: &Pki) -> Vec<String> {
    vec![
        format!("--kubeconfig={}", pki.path("controller-manager.kubeconfig").display()),
        "--bind-address=127.0.0.1".into(),
        "--leader-elect=false".into(),
        "--use-service-account-credentials=true".into(),
        format!("--service-account-private-key-file={}", pki.path("service-accounts.key").display()),
        format!("--root-ca-file={}", pki.path("ca.crt").display()),
        format!("--cluster-cidr={PODS}"),
        // The ranges are laid out by the network, node by node.
        "--allocate-node-cidrs=false".into(),
        format!("--node-monitor-grace-period={NODE_GRACE}"),
    ]
}

fn scheduler_flags(pki: &Pki) -> Vec<String> {
    vec![
        format!("--kubeconfig={}", pki.path("scheduler.kubeconfig").display()),
        "--bind-address=127.0.0.1".into(),
        "--leader-elect=false".into(),
    ]
}
