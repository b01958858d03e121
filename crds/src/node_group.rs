//! What masters and slaves have in common: how many, how large, where, and on which volumes.
//!
//! A StatefulSet's volume templates cannot change, and the operator does not resize volumes yet, so what was
//! once said about a volume stays: the rules here refuse the edit instead of letting it have no effect.

use std::collections::BTreeMap;

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{DeletionPolicy, QuantityText};

/// The master nodes.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[x_kube(
    cel,
    validation = Rule::new("has(self.storage) == has(oldSelf.storage)")
        .message("`storage` may not be added or removed: volumes cannot be changed in this version"),
)]
#[serde(rename_all = "camelCase")]
pub struct MasterGroupSpec {
    /// How many, 1 to 7; 3 when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 7))]
    pub replicas: Option<i32>,
    /// Processor and memory.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resources: Option<ResourcesSpec>,
    /// Volume of each node; 1Gi when left out. Masters hold no vectors.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub storage: Option<StorageSpec>,
    /// Where the pods may run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scheduling: Option<SchedulingSpec>,
}

/// The slave nodes.
#[derive(KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SlaveGroupSpec {
    /// How many, 0 to 500; 3 when left out. A smaller number is refused while a pod that would go holds shards.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 500))]
    pub replicas: Option<i32>,
    /// Processor and memory.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resources: Option<ResourcesSpec>,
    /// Volume of each node.
    pub storage: StorageSpec,
    /// Where the pods may run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scheduling: Option<SchedulingSpec>,
}

/// The volume of each node of a group.
#[derive(KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[x_kube(
    cel,
    validation = Rule::new("quantity(self.size).isGreaterThan(quantity('0'))").message("`size` must be more than 0").field_path(".size"),
    validation = Rule::new("quantity(self.size).compareTo(quantity(oldSelf.size)) == 0")
        .message("`size` may not change: volumes cannot be resized in this version").field_path(".size"),
    validation = Rule::new("has(self.storageClassName) == has(oldSelf.storageClassName) && (!has(self.storageClassName) || self.storageClassName == oldSelf.storageClassName)")
        .message("`storageClassName` may not change"),
)]
#[serde(rename_all = "camelCase")]
pub struct StorageSpec {
    /// Size of the volume, such as `20Gi`.
    pub size: QuantityText,
    /// Storage class; the cluster's default when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253), regex(pattern = r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$"))]
    pub storage_class_name: Option<String>,
    /// When volumes are deleted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retention: Option<RetentionSpec>,
}

/// When the volumes of a group are deleted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RetentionSpec {
    /// When the cluster is deleted; `spec.deletionPolicy` when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "crate::schema::plain_enum::<DeletionPolicy>")]
    pub when_deleted: Option<DeletionPolicy>,
    /// When the group shrinks; `Retain` when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "crate::schema::plain_enum::<DeletionPolicy>")]
    pub when_scaled: Option<DeletionPolicy>,
}

/// Processor and memory of a pod, as in `resources` of a container.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[x_kube(
    cel,
    validation = Rule::new("!has(self.requests) || !has(self.limits) || !('memory' in self.requests) || !('memory' in self.limits) || quantity(self.limits['memory']).compareTo(quantity(self.requests['memory'])) >= 0")
        .message("`limits.memory` must be at least `requests.memory`"),
    validation = Rule::new("!has(self.requests) || !has(self.limits) || !('cpu' in self.requests) || !('cpu' in self.limits) || quantity(self.limits['cpu']).compareTo(quantity(self.requests['cpu'])) >= 0")
        .message("`limits.cpu` must be at least `requests.cpu`"),
)]
#[serde(rename_all = "camelCase")]
pub struct ResourcesSpec {
    /// What the scheduler sets aside.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 16))]
    pub requests: BTreeMap<String, QuantityText>,
    /// What the pod may use at most.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 16))]
    pub limits: BTreeMap<String, QuantityText>,
}

/// Where pods may run.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SchedulingSpec {
    /// What the pods are spread over, evenly and as far as it is possible.
    #[serde(default)]
    pub topology_spread: TopologySpread,
    /// Whether two pods of the group may share a node.
    #[serde(default)]
    pub anti_affinity: AntiAffinity,
    /// Labels that a node must have.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 32), schema_with = "crate::schema::label_map_schema")]
    pub node_selector: BTreeMap<String, String>,
    /// Taints that the pods tolerate.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    #[x_kube(merge_strategy = ListMerge::Atomic)]
    pub tolerations: Vec<TolerationSpec>,
    /// Priority class of the pods.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253), regex(pattern = r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$"))]
    pub priority_class_name: Option<String>,
}

/// What pods are spread over.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum TopologySpread {
    /// Zones, label `topology.kubernetes.io/zone`.
    #[default]
    Zone,
    /// Nodes, label `kubernetes.io/hostname`.
    Host,
    /// Nothing.
    None,
}

/// Whether two pods of a group may share a node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum AntiAffinity {
    /// They may not.
    Required,
    /// Only when there is no other place.
    #[default]
    Preferred,
    /// They may.
    None,
}

/// A taint that pods tolerate.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct TolerationSpec {
    /// Key of the taint; every key when left out (then `operator` must be `Exists`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 317))]
    pub key: Option<String>,
    /// How `value` is compared; `Equal` when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "crate::schema::plain_enum::<TolerationOperator>")]
    pub operator: Option<TolerationOperator>,
    /// Value of the taint.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 63))]
    pub value: Option<String>,
    /// Effect of the taint; every effect when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "crate::schema::plain_enum::<TaintEffect>")]
    pub effect: Option<TaintEffect>,
    /// How long a pod stays on a node that got the taint `NoExecute`, in seconds; for ever when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 604800))]
    pub toleration_seconds: Option<i64>,
}

/// How a toleration compares.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum TolerationOperator {
    /// The key is there.
    Exists,
    /// The key has the value.
    Equal,
}

/// What a taint does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum TaintEffect {
    /// No new pods.
    NoSchedule,
    /// No new pods if there is another place.
    PreferNoSchedule,
    /// No pods.
    NoExecute,
}
