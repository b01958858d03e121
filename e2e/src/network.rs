//! The cluster's network: a bridge that the control plane listens on, and one network namespace per node.
//!
//! Nothing can leave the machine. The host forwards no packet of the bridge, nodes have no default route, and behind
//! the host's routes to Services and pods stand blackholes, so that a packet that lost its way is dropped here.
//! The host reaches Services through one node, the *way in*; cutting that node moves the way in to another.

use std::fs;
use std::sync::Mutex;

use anyhow::{Context, Result, bail, ensure};

use crate::command::{ip, run};

/// Address of the host on the bridge: the API server listens here.
pub const HOST: &str = "172.30.0.1";
/// Range of the Services' addresses.
pub const SERVICES: &str = "10.96.0.0/16";
/// Range of all pods; each node has a /24 of it.
pub const PODS: &str = "10.244.0.0/16";
const NODES: &str = "172.30.0.0/24";
const BRIDGE: &str = "vsbr";
/// What the names of nodes start with.
pub const NODE_PREFIX: &str = "vs-node-";

/// Name of a node, of its network namespace and of its cgroups; nodes count from 1.
#[must_use]
pub fn node_name(node: usize) -> String {
    format!("{NODE_PREFIX}{node}")
}

/// Address of a node on the bridge.
#[must_use]
pub fn node_address(node: usize) -> String {
    format!("172.30.0.{}", 10 + node)
}

/// Range of a node's pods.
#[must_use]
pub fn pod_range(node: usize) -> String {
    format!("10.244.{node}.0/24")
}

/// The network of a cluster with `nodes` nodes.
#[derive(Debug)]
pub struct Network {
    nodes: usize,
    cut: Mutex<Vec<usize>>,
}

impl Network {
    /// The network of `nodes` nodes: one to lay, or one of a running cluster with all links as they should be.
    #[must_use]
    pub fn of(nodes: usize) -> Self {
        Self { nodes, cut: Mutex::new(Vec::new()) }
    }

    /// Lays the bridge, the namespaces and the routes.
    ///
    /// # Errors
    /// When the machine already routes one of the ranges elsewhere, or a step is refused.
    pub async fn lay(&self) -> Result<()> {
        for range in [NODES, SERVICES, PODS] {
            let taken = ip(&format!("route show root {range}")).await?;
            ensure!(
                taken.trim().is_empty(),
                "this machine already routes {range}, which the cluster needs: {taken}"
            );
        }
        ip(&format!("link add {BRIDGE} type bridge")).await?;
        // Per interface, so that a host that forwards for others (a container engine) still forwards nothing of ours.
        fs::write(format!("/proc/sys/net/ipv4/conf/{BRIDGE}/forwarding"), "0")
            .context("cannot forbid forwarding")?;
        ip(&format!("addr add {HOST}/24 dev {BRIDGE}")).await?;
        ip(&format!("link set {BRIDGE} up")).await?;
        for range in [SERVICES, PODS] {
            ip(&format!("route add blackhole {range} metric 9999")).await?;
        }
        for node in 1..=self.nodes {
            self.add_node(node).await?;
        }
        self.choose_way_in().await
    }

    async fn add_node(&self, node: usize) -> Result<()> {
        let (name, address) = (node_name(node), node_address(node));
        ip(&format!("netns add {name}")).await?;
        ip(&format!("link add vsn{node} type veth peer name eth0 netns {name}")).await?;
        ip(&format!("link set vsn{node} master {BRIDGE} up")).await?;
        ip(&format!("-n {name} link set lo up")).await?;
        ip(&format!("-n {name} addr add {address}/24 dev eth0")).await?;
        ip(&format!("-n {name} link set eth0 up")).await?;
        // Never followed: kube-proxy rewrites the address first. Without a route there is nothing to rewrite.
        ip(&format!("-n {name} route add {SERVICES} dev eth0")).await?;
        for peer in (1..=self.nodes).filter(|peer| *peer != node) {
            ip(&format!("-n {name} route add {} via {}", pod_range(peer), node_address(peer))).await?;
        }
        ip(&format!("route add {} via {address} dev {BRIDGE}", pod_range(node))).await?;
        let forward = ["netns", "exec", &name, "sysctl", "-qw", "net.ipv4.ip_forward=1"];
        run("ip", &forward).await.map(drop)
    }

    /// Takes a node off the network, as a pulled cable does.
    ///
    /// # Errors
    /// When no such node is there or it is the last one on the network.
    pub async fn cut(&self, node: usize) -> Result<()> {
        ensure!((1..=self.nodes).contains(&node), "there is no node {node}");
        self.mark(node, true);
        ip(&format!("link set vsn{node} down")).await?;
        self.choose_way_in().await
    }

    /// Puts a node back on the network.
    ///
    /// # Errors
    /// When the link cannot be set.
    pub async fn heal(&self, node: usize) -> Result<()> {
        ip(&format!("link set vsn{node} up")).await?;
        self.mark(node, false);
        self.choose_way_in().await
    }

    fn mark(&self, node: usize, is_cut: bool) {
        let mut cut = self.cut.lock().expect("no holder panics");
        cut.retain(|other| *other != node);
        if is_cut {
            cut.push(node);
        }
    }

    /// Leads the host's packets to Services through the first node that is on the network.
    async fn choose_way_in(&self) -> Result<()> {
        let cut = self.cut.lock().expect("no holder panics").clone();
        let Some(node) = (1..=self.nodes).find(|node| !cut.contains(node)) else {
            bail!("every node is cut off: no way to Services is left");
        };
        ip(&format!("route replace {SERVICES} via {} dev {BRIDGE}", node_address(node))).await.map(drop)
    }
}

/// Removes whatever a cluster's network left behind, complete or not.
///
/// # Errors
/// When something is there and cannot be removed.
pub async fn remove() -> Result<()> {
    let blackholes = ip("route show type blackhole").await?;
    for range in [SERVICES, PODS].iter().filter(|range| blackholes.contains(&format!("blackhole {range} "))) {
        ip(&format!("route del blackhole {range} metric 9999")).await?;
    }
    for namespace in leftover_namespaces().await? {
        ip(&format!("netns del {namespace}")).await?;
    }
    if ip(&format!("link show {BRIDGE}")).await.is_ok() {
        ip(&format!("link del {BRIDGE}")).await?;
    }
    Ok(())
}

/// Network namespaces of nodes that are there now.
///
/// # Errors
/// When the machine has no `ip`.
pub async fn leftover_namespaces() -> Result<Vec<String>> {
    let listed = ip("netns list").await?;
    let names = listed.lines().filter_map(|line| line.split_whitespace().next());
    Ok(names.filter(|name| name.starts_with(NODE_PREFIX)).map(str::to_string).collect())
}
