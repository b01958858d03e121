//! The metadata store: an etcd that exists already, or one that the operator runs.

use kube::KubeSchema;
use serde::{Deserialize, Serialize};

use crate::{ResourcesSpec, SecretRef, StorageSpec};

/// Exactly one of `external` and `managed`.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[x_kube(
    cel,
    validation = Rule::new("[has(self.external), has(self.managed)].filter(x, x).size() == 1")
        .message("set exactly one of `external` and `managed`"),
    validation = Rule::new("has(self.managed) == has(oldSelf.managed)")
        .message("`external` and `managed` may not be exchanged: the metadata would be lost"),
    validation = Rule::new("has(self.prefix) == has(oldSelf.prefix) && (!has(self.prefix) || self.prefix == oldSelf.prefix)")
        .message("`prefix` may not change: the metadata would be lost"),
)]
#[serde(rename_all = "camelCase")]
pub struct EtcdSpec {
    /// An etcd that exists already.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub external: Option<ExternalEtcdSpec>,
    /// An etcd that the operator runs, for small clusters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub managed: Option<ManagedEtcdSpec>,
    /// Prefix of all keys; `/vectorsphere/<namespace>.<name>/` when left out. `status.etcd.prefix` tells which.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 3, max = 255), regex(pattern = r"^/[A-Za-z0-9._-]+(/[A-Za-z0-9._-]+)*/$"))]
    pub prefix: Option<String>,
}

/// An etcd that exists already, 3.5.33, 3.6.14, 3.7.1 or newer of the same line.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[x_kube(
    cel,
    validation = Rule::new("self.endpoints.all(e, e.startsWith('https://')) || !has(self.tlsSecretRef)")
        .message("every one of `endpoints` must start with `https://` when `tlsSecretRef` is set"),
)]
#[serde(rename_all = "camelCase")]
pub struct ExternalEtcdSpec {
    /// URLs such as `http://etcd-0.etcd.data.svc:2379`.
    #[schemars(
        length(min = 1, max = 9),
        inner(length(min = 8, max = 512), regex(pattern = r"^https?://[A-Za-z0-9._\[\]:-]+$"))
    )]
    #[x_kube(merge_strategy = ListMerge::Set)]
    pub endpoints: Vec<String>,
    /// Secret with `ca.crt` and, for client certificates, `tls.crt` and `tls.key`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls_secret_ref: Option<SecretRef>,
    /// Secret with `username` and `password`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub auth_secret_ref: Option<SecretRef>,
}

/// An etcd that the operator runs.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[x_kube(
    cel,
    validation = Rule::new("!has(self.replicas) || self.replicas in [1, 3, 5]")
        .message("`replicas` must be 1, 3 or 5").field_path(".replicas"),
    validation = Rule::new("has(self.replicas) == has(oldSelf.replicas) && (!has(self.replicas) || self.replicas == oldSelf.replicas)")
        .message("`replicas` may not change: members cannot be added or removed in this version"),
    validation = Rule::new("has(self.storage) == has(oldSelf.storage)")
        .message("`storage` may not be added or removed: volumes cannot be changed in this version"),
)]
#[serde(rename_all = "camelCase")]
pub struct ManagedEtcdSpec {
    /// Members: 1, 3 or 5; 3 when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 5))]
    pub replicas: Option<i32>,
    /// Image; `vectorsphere.io/etcd:3.6.14` when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 511), regex(pattern = r"^[A-Za-z0-9][A-Za-z0-9._:/@-]*$"))]
    pub image: Option<String>,
    /// Processor and memory.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resources: Option<ResourcesSpec>,
    /// Volume of each member; 4Gi when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub storage: Option<StorageSpec>,
}

/// Members of a managed etcd when the spec says nothing.
pub const DEFAULT_ETCD_MEMBERS: i32 = 3;
