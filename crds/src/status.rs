//! What the operator observed. Everything here can be derived again; nothing is read back to decide,
//! but `sinceTime` of the leader and `lastTransitionTime` of conditions, which only tell when.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Observed state of a cluster.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct VectorSphereClusterStatus {
    /// Generation of the spec that this status speaks of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Conditions: `Ready` sums up, the others say why.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".into()]))]
    pub conditions: Vec<Condition>,
    /// Label selector of the slave pods, for the scale subresource.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 512))]
    pub selector: Option<String>,
    /// Slave pods that exist, for the scale subresource.
    #[serde(default)]
    pub replicas: i32,
    /// Slave pods that are ready.
    #[serde(default)]
    pub ready_replicas: i32,
    /// Master pods.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub masters: Option<GroupStatus>,
    /// Slave pods.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub slaves: Option<GroupStatus>,
    /// Versions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<VersionStatus>,
    /// The elected Master, as the metadata store has it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub leader: Option<LeaderStatus>,
    /// Where clients connect.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub endpoints: Option<EndpointsStatus>,
    /// The metadata store.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub etcd: Option<EtcdStatus>,
    /// Shards of all tables.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shards: Option<ShardsStatus>,
}

/// One group of pods.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct GroupStatus {
    /// Pods that the spec asks for, its default included.
    pub desired: i32,
    /// Pods that are ready.
    pub ready: i32,
    /// Pods that run the newest revision.
    pub updated: i32,
    /// Revision that pods run which were not replaced yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub current_revision: Option<String>,
    /// Revision that new pods get.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub update_revision: Option<String>,
}

/// Versions of VectorSphere.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct VersionStatus {
    /// What all registered nodes report; absent while they differ or none is registered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub current: Option<String>,
    /// What the spec asks for.
    pub target: String,
}

/// The elected Master.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct LeaderStatus {
    /// Its pod.
    pub pod_name: String,
    /// Its epoch: the create-revision of its election key. Each new Master has a higher one.
    pub epoch: String,
    /// When the operator first saw it.
    pub since_time: Time,
}

/// Where clients connect, from inside the Kubernetes cluster.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct EndpointsStatus {
    /// REST.
    pub http: String,
    /// gRPC.
    pub grpc: String,
    /// REST through the Ingress.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ingress: Option<String>,
}

/// The metadata store.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct EtcdStatus {
    /// `External` or `Managed`.
    pub mode: String,
    /// Prefix of all keys of this cluster.
    pub prefix: String,
    /// Endpoints that nodes and operator use.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub endpoints: Vec<String>,
    /// Members of a managed etcd that are ready.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ready_members: Option<i32>,
}

/// Shards of all tables.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ShardsStatus {
    /// All of them.
    pub total: i32,
    /// Those with a copy in sync on a node that is registered.
    pub available: i32,
    /// Those with fewer copies in sync than their table asks for.
    pub under_replicated: i32,
    /// Those without a primary.
    pub unassigned: i32,
}
