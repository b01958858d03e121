//! Names and labels of everything that belongs to a cluster, made in one place so that builders, selectors,
//! watches and the scale-in check cannot disagree.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;

/// Field manager of every write, and value of the managed-by label.
pub const MANAGER: &str = "vectorsphere-operator";
/// Marks what the operator owns.
pub const MANAGED_BY: &str = "app.kubernetes.io/managed-by";
/// The cluster that an object belongs to.
pub const INSTANCE: &str = "app.kubernetes.io/instance";
/// Which part of a cluster an object belongs to.
pub const COMPONENT: &str = "app.kubernetes.io/component";
/// Stands on every object that the operator makes: tells one manifest of it from another.
pub const MANIFEST_DIGEST: &str = "vectorsphere.io/manifest-digest";
/// Zone of a node; copied to its pods, because pods cannot read labels of nodes.
pub const ZONE: &str = "topology.kubernetes.io/zone";
/// Node name, for spreading pods.
pub const HOSTNAME: &str = "kubernetes.io/hostname";

/// REST, probes, metrics.
pub const HTTP_PORT: i32 = 8080;
/// Public gRPC.
pub const GRPC_PORT: i32 = 9090;
/// Node to node gRPC.
pub const INTERNAL_PORT: i32 = 9091;
/// Clients of a managed etcd.
pub const ETCD_CLIENT_PORT: i32 = 2379;
/// Members of a managed etcd among themselves.
pub const ETCD_PEER_PORT: i32 = 2380;
/// Health and metrics of a managed etcd.
pub const ETCD_METRICS_PORT: i32 = 2381;

/// A group of pods of one StatefulSet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    /// Metadata store.
    Etcd,
    /// Gateway and candidate for mastership.
    Master,
    /// Holds shards.
    Slave,
}

impl Role {
    /// The word in names, labels and the node's `-type`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Role::Etcd => "etcd",
            Role::Master => "master",
            Role::Slave => "slave",
        }
    }
}

/// StatefulSet and headless Service of a group.
pub fn group(cluster: &str, role: Role) -> String {
    format!("{cluster}-{}", role.as_str())
}

/// Pod of a group; also its node id.
pub fn pod(cluster: &str, role: Role, ordinal: i32) -> String {
    format!("{cluster}-{}-{ordinal}", role.as_str())
}

/// The Service for clients.
pub fn client_service(cluster: &str) -> String {
    format!("{cluster}-http")
}

/// ConfigMap with the nodes' `c.yaml`.
pub fn config_map(cluster: &str) -> String {
    format!("{cluster}-config")
}

/// ServiceAccount of all pods of a cluster.
pub fn service_account(cluster: &str) -> String {
    format!("{cluster}-node")
}

/// Host of a Service inside the Kubernetes cluster; the resolver's search list supplies the cluster's domain.
pub fn service_host(service: &str, namespace: &str) -> String {
    format!("{service}.{namespace}.svc")
}

/// Labels of an object that belongs to the cluster as a whole.
pub fn labels(cluster: &str) -> BTreeMap<String, String> {
    [("app.kubernetes.io/name", "vectorsphere"), (INSTANCE, cluster), (MANAGED_BY, MANAGER)]
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .into()
}

/// Labels of an object that belongs to one group.
pub fn group_labels(cluster: &str, role: Role) -> BTreeMap<String, String> {
    let mut labels = labels(cluster);
    labels.insert(COMPONENT.to_owned(), role.as_str().to_owned());
    labels
}

/// The labels that tell a group's pods from all others; they can never change.
pub fn selector_labels(cluster: &str, role: Role) -> BTreeMap<String, String> {
    let mut labels = group_labels(cluster, role);
    labels.remove(MANAGED_BY);
    labels
}

/// [`selector_labels`] as a selector.
pub fn selector(cluster: &str, role: Role) -> LabelSelector {
    LabelSelector { match_labels: Some(selector_labels(cluster, role)), match_expressions: None }
}

/// [`selector_labels`] as text, for list calls and the scale subresource.
pub fn selector_text(cluster: &str, role: Role) -> String {
    join(&selector_labels(cluster, role))
}

/// Selects everything that the operator made for a cluster.
pub fn owned_selector(cluster: &str) -> String {
    format!("{INSTANCE}={cluster},{MANAGED_BY}={MANAGER}")
}

fn join(labels: &BTreeMap<String, String>) -> String {
    labels.iter().map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>().join(",")
}
