//! What this machine must offer to carry a cluster, told in one go when something is missing.

use std::path::Path;

use anyhow::{Result, bail};
use nix::unistd::Uid;

use crate::settings::Settings;

const TOOLS: [&str; 12] = [
    "etcd",
    "kube-apiserver",
    "kube-controller-manager",
    "kube-scheduler",
    "kubelet",
    "kube-proxy",
    "kubectl",
    "helm",
    "coredns",
    "local-path-provisioner",
    "pause",
    "etcdctl",
];
const PROGRAMS: [&str; 11] = [
    "containerd",
    "ctr",
    "runc",
    "ip",
    "iptables",
    "conntrack",
    "setsid",
    "sysctl",
    "ldd",
    "busybox",
    "nginx",
];
/// Longest path of a Unix socket that the kernel takes, with room for the node's folder and the socket's name.
const LONGEST_STATE_PATH: usize = 108 - 40;

/// Checks that a cluster can be started here.
///
/// # Errors
/// When something is missing; the message lists all of it and says what to do.
pub fn check(settings: &Settings) -> Result<()> {
    let instead = "set KUBECONFIG to use a cluster that is there already";
    if !cfg!(target_os = "linux") {
        bail!("a cluster of its own needs Linux (namespaces, cgroups): {instead}");
    }
    if !Uid::effective().is_root() {
        bail!("a cluster of its own needs root (namespaces, cgroups): run as root, or {instead}");
    }
    let mut problems = Vec::new();
    let tools = missing(&TOOLS, |name| settings.tool(name).is_file());
    if !tools.is_empty() {
        problems.push(format!("not built: {tools}; run `scripts/build-tools all` (about 15 minutes, once)"));
    }
    let programs = missing(&PROGRAMS, |name| settings.find_program(name).is_some());
    if !programs.is_empty() {
        problems.push(format!("not installed: {programs}; run `scripts/install-deps kube`"));
    }
    if !Path::new("/usr/lib/cni/ptp").exists() {
        problems
            .push("not installed: network plugins in /usr/lib/cni; run `scripts/install-deps kube`".into());
    }
    let state = settings.state();
    if state.as_os_str().len() > LONGEST_STATE_PATH {
        problems.push(format!(
            "{} is too long for sockets; set VECTORSPHERE_CACHE to a shorter one",
            state.display()
        ));
    }
    if !problems.is_empty() {
        bail!("this machine cannot carry a cluster yet:\n  {}", problems.join("\n  "));
    }
    Ok(())
}

fn missing(names: &[&str], is_there: impl Fn(&str) -> bool) -> String {
    names.iter().filter(|name| !is_there(name)).copied().collect::<Vec<_>>().join(", ")
}
