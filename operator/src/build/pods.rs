//! What pods of every group share: the restricted security profile, placement, volumes, probes, the StatefulSet
//! around them.

use k8s_openapi::api::apps::v1::{
    StatefulSet, StatefulSetPersistentVolumeClaimRetentionPolicy, StatefulSetSpec, StatefulSetUpdateStrategy,
};
use k8s_openapi::api::core::v1::{
    Affinity, Capabilities, ContainerPort, EmptyDirVolumeSource, HTTPGetAction, Lifecycle, LifecycleHandler,
    LocalObjectReference, PersistentVolumeClaim, PersistentVolumeClaimSpec, PodAffinityTerm, PodAntiAffinity,
    PodSecurityContext, PodSpec, PodTemplateSpec, Probe, ResourceRequirements, SeccompProfile,
    SecurityContext, SleepAction, Toleration, TopologySpreadConstraint, Volume, VolumeMount,
    VolumeResourceRequirements, WeightedPodAffinityTerm,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use vectorsphere_crds::{
    AntiAffinity, DeletionPolicy, ResourcesSpec, SchedulingSpec, TaintEffect, TolerationOperator,
    TolerationSpec, TopologySpread,
};

use super::metadata;
use crate::names::{self, Role};
use crate::settings::SHUTDOWN_GRACE_MAX_MS;
use crate::validate::{Cluster, Group};

/// Time that a pod gets to end: requests finish, mastership is resigned, logs are flushed.
pub const GRACE_SECONDS: i64 = 60;
/// A pod that is asked to end serves on for this long, until no Service sends it anything.
const PRE_STOP_SECONDS: i64 = 5;
/// What a node does after its last request: resign, flush, exit.
const EPILOGUE_SECONDS: i64 = 10;
const _: () = assert!(
    PRE_STOP_SECONDS + SHUTDOWN_GRACE_MAX_MS as i64 / 1000 + EPILOGUE_SECONDS <= GRACE_SECONDS,
    "a node that takes all its time must end before it is killed"
);
/// User and group of all processes.
const USER: i64 = 65532;

/// Data of a node.
pub(super) const DATA_DIR: &str = "/var/lib/vectorsphere";
/// Certificates for an external etcd.
pub(super) const ETCD_TLS_DIR: &str = "/etc/vectorsphere-etcd/tls";
/// Password for an external etcd.
pub(super) const ETCD_AUTH_DIR: &str = "/etc/vectorsphere-etcd/auth";
/// Name of the volume claim of each pod.
pub(super) const DATA_VOLUME: &str = "data";

/// The StatefulSet of a group around its pods. `OnDelete`: the operator decides which pod goes when, never the
/// StatefulSet's controller. `Parallel`: a cluster that lost all its pods starts although none is ready alone.
pub(super) fn stateful_set(
    cluster: &Cluster,
    group: &Group,
    annotations: &[(&str, String)],
    pod: PodSpec,
) -> StatefulSet {
    let name = names::group(&cluster.name, group.role);
    let annotations = annotations.iter().map(|(key, value)| ((*key).to_owned(), value.clone())).collect();
    StatefulSet {
        metadata: metadata(cluster, name.clone(), Some(group.role)),
        spec: Some(StatefulSetSpec {
            service_name: Some(name),
            replicas: Some(group.replicas),
            selector: names::selector(&cluster.name, group.role),
            pod_management_policy: Some("Parallel".to_owned()),
            update_strategy: Some(StatefulSetUpdateStrategy {
                type_: Some("OnDelete".to_owned()),
                rolling_update: None,
            }),
            revision_history_limit: Some(5),
            persistent_volume_claim_retention_policy: Some(StatefulSetPersistentVolumeClaimRetentionPolicy {
                when_deleted: Some(retention(group.volume.when_deleted)),
                when_scaled: Some(retention(group.volume.when_scaled)),
            }),
            volume_claim_templates: Some(vec![claim(group)]),
            template: PodTemplateSpec {
                metadata: Some(ObjectMeta {
                    labels: Some(names::group_labels(&cluster.name, group.role)),
                    annotations: Some(annotations),
                    ..ObjectMeta::default()
                }),
                spec: Some(pod),
            },
            ..StatefulSetSpec::default()
        }),
        status: None,
    }
}

/// The pod of a group before its containers: placement, identity and the restricted profile.
pub(super) fn pod(cluster: &Cluster, group: &Group) -> PodSpec {
    PodSpec {
        service_account_name: Some(names::service_account(&cluster.name)),
        automount_service_account_token: Some(false),
        // A Service named `vectorsphere-http` would otherwise put `VECTORSPHERE_HTTP_PORT=tcp://…` into the
        // environment, which is where nodes read settings from.
        enable_service_links: Some(false),
        termination_grace_period_seconds: Some(GRACE_SECONDS),
        image_pull_secrets: Some(
            cluster
                .image
                .pull_secrets
                .iter()
                .map(|name| LocalObjectReference { name: name.clone() })
                .collect(),
        )
        .filter(|secrets: &Vec<_>| !secrets.is_empty()),
        security_context: Some(PodSecurityContext {
            run_as_non_root: Some(true),
            run_as_user: Some(USER),
            run_as_group: Some(USER),
            fs_group: Some(USER),
            fs_group_change_policy: Some("OnRootMismatch".to_owned()),
            seccomp_profile: Some(SeccompProfile {
                type_: "RuntimeDefault".to_owned(),
                localhost_profile: None,
            }),
            ..PodSecurityContext::default()
        }),
        node_selector: Some(group.scheduling.node_selector.clone()).filter(|labels| !labels.is_empty()),
        tolerations: Some(group.scheduling.tolerations.iter().map(toleration).collect::<Vec<_>>())
            .filter(|all| !all.is_empty()),
        priority_class_name: group.scheduling.priority_class_name.clone(),
        affinity: affinity(cluster, group.role, &group.scheduling),
        topology_spread_constraints: spread(cluster, group.role, &group.scheduling),
        ..PodSpec::default()
    }
}

/// The restricted profile of a container.
pub(super) fn security_context() -> SecurityContext {
    SecurityContext {
        allow_privilege_escalation: Some(false),
        read_only_root_filesystem: Some(true),
        run_as_non_root: Some(true),
        capabilities: Some(Capabilities { drop: Some(vec!["ALL".to_owned()]), add: None }),
        ..SecurityContext::default()
    }
}

/// Lets a pod serve on until Services have taken it off their lists.
pub(super) fn lifecycle() -> Lifecycle {
    let sleep = LifecycleHandler {
        sleep: Some(SleepAction { seconds: PRE_STOP_SECONDS }),
        ..LifecycleHandler::default()
    };
    Lifecycle { pre_stop: Some(sleep), ..Lifecycle::default() }
}

/// A probe over HTTP: asked each `period_seconds`, lost after `failures` in a row.
pub(super) fn probe(path: &str, port: &str, period_seconds: i32, failures: i32) -> Probe {
    Probe {
        http_get: Some(HTTPGetAction {
            path: Some(path.to_owned()),
            port: IntOrString::String(port.to_owned()),
            scheme: Some("HTTP".to_owned()),
            ..HTTPGetAction::default()
        }),
        period_seconds: Some(period_seconds),
        timeout_seconds: Some(5.min(period_seconds)),
        failure_threshold: Some(failures),
        ..Probe::default()
    }
}

pub(super) fn container_port(name: &str, number: i32) -> ContainerPort {
    ContainerPort {
        name: Some(name.to_owned()),
        container_port: number,
        protocol: Some("TCP".to_owned()),
        ..ContainerPort::default()
    }
}

pub(super) fn mount(name: &str, path: &str, read_only: bool) -> VolumeMount {
    VolumeMount {
        name: name.to_owned(),
        mount_path: path.to_owned(),
        read_only: read_only.then_some(true),
        ..VolumeMount::default()
    }
}

/// The only place outside the data that a process can write to.
pub(super) fn scratch_volume() -> Volume {
    Volume { name: "tmp".to_owned(), empty_dir: Some(EmptyDirVolumeSource::default()), ..Volume::default() }
}

pub(super) fn resources(spec: &ResourcesSpec) -> Option<ResourceRequirements> {
    let quantities = |map: &std::collections::BTreeMap<String, vectorsphere_crds::QuantityText>| {
        let map = map.iter().map(|(name, amount)| (name.clone(), amount.clone().into())).collect();
        Some(map).filter(|map: &std::collections::BTreeMap<_, _>| !map.is_empty())
    };
    let (requests, limits) = (quantities(&spec.requests), quantities(&spec.limits));
    let any = requests.is_some() || limits.is_some();
    any.then_some(ResourceRequirements { requests, limits, claims: None })
}

fn retention(policy: DeletionPolicy) -> String {
    match policy {
        DeletionPolicy::Retain => "Retain".to_owned(),
        DeletionPolicy::Delete => "Delete".to_owned(),
    }
}

/// Has no labels: a template can never change, and labels of a later version would be a change.
fn claim(group: &Group) -> PersistentVolumeClaim {
    PersistentVolumeClaim {
        metadata: ObjectMeta { name: Some(DATA_VOLUME.to_owned()), ..ObjectMeta::default() },
        spec: Some(PersistentVolumeClaimSpec {
            access_modes: Some(vec!["ReadWriteOnce".to_owned()]),
            storage_class_name: group.volume.class.clone(),
            resources: Some(VolumeResourceRequirements {
                requests: Some([("storage".to_owned(), group.volume.size.clone().into())].into()),
                limits: None,
            }),
            ..PersistentVolumeClaimSpec::default()
        }),
        status: None,
    }
}

fn affinity(cluster: &Cluster, role: Role, scheduling: &SchedulingSpec) -> Option<Affinity> {
    let term = PodAffinityTerm {
        topology_key: names::HOSTNAME.to_owned(),
        label_selector: Some(names::selector(&cluster.name, role)),
        ..PodAffinityTerm::default()
    };
    let anti = match scheduling.anti_affinity {
        AntiAffinity::None => return None,
        AntiAffinity::Required => PodAntiAffinity {
            required_during_scheduling_ignored_during_execution: Some(vec![term]),
            ..PodAntiAffinity::default()
        },
        AntiAffinity::Preferred => PodAntiAffinity {
            preferred_during_scheduling_ignored_during_execution: Some(vec![WeightedPodAffinityTerm {
                weight: 100,
                pod_affinity_term: term,
            }]),
            ..PodAntiAffinity::default()
        },
    };
    Some(Affinity { pod_anti_affinity: Some(anti), ..Affinity::default() })
}

fn spread(
    cluster: &Cluster,
    role: Role,
    scheduling: &SchedulingSpec,
) -> Option<Vec<TopologySpreadConstraint>> {
    let key = match scheduling.topology_spread {
        TopologySpread::Zone => names::ZONE,
        TopologySpread::Host => names::HOSTNAME,
        TopologySpread::None => return None,
    };
    Some(vec![TopologySpreadConstraint {
        max_skew: 1,
        topology_key: key.to_owned(),
        // A pod in a crowded zone serves; a pod that waits for ever does not.
        when_unsatisfiable: "ScheduleAnyway".to_owned(),
        label_selector: Some(names::selector(&cluster.name, role)),
        ..TopologySpreadConstraint::default()
    }])
}

fn toleration(spec: &TolerationSpec) -> Toleration {
    Toleration {
        key: spec.key.clone(),
        operator: spec.operator.map(|operator| match operator {
            TolerationOperator::Exists => "Exists".to_owned(),
            TolerationOperator::Equal => "Equal".to_owned(),
        }),
        value: spec.value.clone(),
        effect: spec.effect.map(|effect| match effect {
            TaintEffect::NoSchedule => "NoSchedule".to_owned(),
            TaintEffect::PreferNoSchedule => "PreferNoSchedule".to_owned(),
            TaintEffect::NoExecute => "NoExecute".to_owned(),
        }),
        toleration_seconds: spec.toleration_seconds,
    }
}
