//! Every object of a cluster, as it should be. Pure: the same cluster gives the same objects, byte for byte, so that
//! an operator that restarts changes nothing.

mod config_map;
mod etcd;
mod node_set;
mod pods;
mod services;

use k8s_openapi::api::core::v1::ServiceAccount;
use k8s_openapi::api::policy::v1::{PodDisruptionBudget, PodDisruptionBudgetSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use crate::manifest::{Kind, Manifest};
use crate::names::{self, Role};
use crate::validate::{Cluster, Etcd, Group};

pub use config_map::{config_yaml, settings_of};
pub use pods::GRACE_SECONDS;

/// All objects of a cluster, in the order of application.
#[derive(Clone, Debug)]
pub struct Desired(pub Vec<Manifest>);

/// Builds `cluster` with this number of slaves.
pub fn build(cluster: &Cluster, slave_replicas: i32) -> Desired {
    let slaves = Group { replicas: slave_replicas, ..cluster.slaves.clone() };
    let mut manifests = vec![
        Manifest::new(Kind::ServiceAccount, &service_account(cluster)),
        Manifest::new(Kind::ConfigMap, &config_map::config_map(cluster)),
        Manifest::new(Kind::Service, &services::client(cluster)),
        Manifest::new(Kind::StatefulSet, &node_set::node_set(cluster, &cluster.masters)),
        Manifest::new(Kind::StatefulSet, &node_set::node_set(cluster, &slaves)),
    ];
    if let Etcd::Managed { group, image } = &cluster.etcd {
        manifests.push(Manifest::new(Kind::StatefulSet, &etcd::member_set(cluster, group, image)));
    }
    for group in cluster.groups() {
        let group = if group.role == Role::Slave { &slaves } else { group };
        manifests.push(Manifest::new(Kind::Service, &services::headless(cluster, group.role)));
        manifests
            .extend(budget(cluster, group).map(|budget| Manifest::new(Kind::PodDisruptionBudget, &budget)));
    }
    manifests.extend(services::ingress(cluster).map(|ingress| Manifest::new(Kind::Ingress, &ingress)));
    manifests.sort_by(|left, right| left.key.cmp(&right.key));
    Desired(manifests)
}

/// Metadata of an object that the cluster owns.
fn metadata(cluster: &Cluster, name: String, role: Option<Role>) -> ObjectMeta {
    ObjectMeta {
        name: Some(name),
        namespace: Some(cluster.namespace.clone()),
        labels: Some(match role {
            Some(role) => names::group_labels(&cluster.name, role),
            None => names::labels(&cluster.name),
        }),
        owner_references: Some(vec![cluster.owner.clone()]),
        ..ObjectMeta::default()
    }
}

/// Pods have an account of their own, without rights and without a token: election goes through etcd.
fn service_account(cluster: &Cluster) -> ServiceAccount {
    ServiceAccount {
        metadata: metadata(cluster, names::service_account(&cluster.name), None),
        automount_service_account_token: Some(false),
        ..ServiceAccount::default()
    }
}

/// One pod of a group may be away at a time. A group of one gets no budget: it would block the drain of its node for
/// ever. Pods that are not ready protect nothing, so they may always go.
fn budget(cluster: &Cluster, group: &Group) -> Option<PodDisruptionBudget> {
    if group.replicas < 2 {
        return None;
    }
    Some(PodDisruptionBudget {
        metadata: metadata(cluster, names::group(&cluster.name, group.role), Some(group.role)),
        spec: Some(PodDisruptionBudgetSpec {
            max_unavailable: Some(IntOrString::Int(1)),
            selector: Some(names::selector(&cluster.name, group.role)),
            unhealthy_pod_eviction_policy: Some("AlwaysAllow".to_owned()),
            ..PodDisruptionBudgetSpec::default()
        }),
        ..PodDisruptionBudget::default()
    })
}
