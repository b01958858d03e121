//! `VectorSphereCluster`: one vector database, its nodes, its metadata store and how clients reach it.
//!
//! Replica counts have no default in the schema, because their default may change with a later version:
//! the operator writes what it uses into `status.masters.desired` and `status.slaves.desired`.

use std::collections::BTreeMap;

use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{EtcdSpec, ImageSpec, MasterGroupSpec, NetworkSpec, SlaveGroupSpec, VectorSphereClusterStatus};

/// A distributed vector database. The operator keeps the described master and slave nodes running.
#[derive(CustomResource, KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "vectorsphere.io",
    version = "v1alpha1",
    kind = "VectorSphereCluster",
    doc = "A distributed vector database: master nodes that serve clients, slave nodes that hold the vectors.",
    namespaced,
    cel,
    derive = "PartialEq",
    status = "VectorSphereClusterStatus",
    shortname = "vsc",
    category = "vectorsphere",
    scale(
        spec_replicas_path = ".spec.slaves.replicas",
        status_replicas_path = ".status.replicas",
        label_selector_path = ".status.selector"
    ),
    printcolumn(
        name = "Ready",
        type_ = "string",
        json_path = r#".status.conditions[?(@.type=="Ready")].status"#,
        description = "Whether the cluster is as its spec says and serves"
    ),
    printcolumn(
        name = "Reason",
        type_ = "string",
        json_path = r#".status.conditions[?(@.type=="Ready")].reason"#,
        description = "Why, in one word"
    ),
    printcolumn(
        name = "Version",
        type_ = "string",
        json_path = ".status.version.current",
        description = "Version that the nodes report"
    ),
    printcolumn(
        name = "Leader",
        type_ = "string",
        json_path = ".status.leader.podName",
        description = "Pod of the elected Master"
    ),
    printcolumn(
        name = "Masters",
        type_ = "integer",
        json_path = ".status.masters.ready",
        description = "Ready master pods"
    ),
    printcolumn(
        name = "Slaves",
        type_ = "integer",
        json_path = ".status.slaves.ready",
        description = "Ready slave pods"
    ),
    printcolumn(
        name = "Shards",
        type_ = "integer",
        json_path = ".status.shards.total",
        priority = 1,
        description = "Shards of all tables"
    ),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    validation = Rule::new("size(self.metadata.name) <= 40")
        .message("`metadata.name` must have at most 40 characters, so that the names of its pods fit into labels"),
    validation = Rule::new("self.metadata.name.matches('^[a-z]([-a-z0-9]*[a-z0-9])?$')")
        .message("`metadata.name` must start with a letter and may hold `a-z`, `0-9` and `-`, since Services are named after it")
)]
#[x_kube(
    validation = Rule::new("!has(self.config) || self.config.all(k, size(k) <= 128 && k.matches('^[a-z][a-z0-9_]*([.][a-z][a-z0-9_]*)*$'))")
        .message("keys of `config` must look like `task_timeout` or `master.session_ttl`")
        .field_path(".config"),
)]
#[serde(rename_all = "camelCase")]
pub struct VectorSphereClusterSpec {
    /// Version of VectorSphere that all nodes run, such as `0.1.0`.
    #[schemars(
        length(min = 5, max = 63),
        regex(pattern = r"^(0|[1-9][0-9]*)\.(0|[1-9][0-9]*)\.(0|[1-9][0-9]*)(-[0-9A-Za-z][0-9A-Za-z.-]*)?$")
    )]
    pub version: String,
    /// Container image of the nodes. When left out: `vectorsphere.io/vectorsphere:<version>`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<ImageSpec>,
    /// Master nodes: they serve REST and gRPC, and one of them is elected to administer the cluster.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub masters: Option<MasterGroupSpec>,
    /// Slave nodes: they hold the vectors.
    pub slaves: SlaveGroupSpec,
    /// Settings of the nodes by key, such as `task_timeout: "30"`. The operator says which keys exist when one
    /// is wrong, and refuses those that it sets itself.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 128), schema_with = "crate::schema::config_map_schema")]
    pub config: BTreeMap<String, String>,
    /// The metadata store: an etcd that exists already, or one that the operator runs.
    pub etcd: EtcdSpec,
    /// How clients reach the cluster.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub network: Option<NetworkSpec>,
    /// `Managed`: the operator acts on this object. `Paused`: it only reports.
    #[serde(default)]
    pub reconcile_policy: ReconcilePolicy,
    /// What becomes of volumes when this object is deleted, for groups that do not say it themselves.
    #[serde(default)]
    pub deletion_policy: DeletionPolicy,
}

/// Whether the operator acts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum ReconcilePolicy {
    /// The operator acts.
    #[default]
    Managed,
    /// The operator only reports.
    Paused,
}

/// What becomes of volumes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum DeletionPolicy {
    /// Volumes stay.
    #[default]
    Retain,
    /// Volumes are deleted.
    Delete,
}

/// Replicas of the masters when the spec says nothing.
pub const DEFAULT_MASTERS: i32 = 3;
/// Replicas of the slaves when the spec says nothing.
pub const DEFAULT_SLAVES: i32 = 3;

impl VectorSphereClusterSpec {
    /// The masters' group; an empty one when the spec says nothing.
    pub fn master_group(&self) -> MasterGroupSpec {
        self.masters.clone().unwrap_or_default()
    }
}
