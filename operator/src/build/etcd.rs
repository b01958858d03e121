//! The StatefulSet of a managed etcd: a static bootstrap of 1, 3 or 5 members, each on its own volume.

use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::{Container, EnvVar, EnvVarSource, ObjectFieldSelector, PodSpec};

use super::pods;
use crate::names::{self, Role};
use crate::validate::{Cluster, Group};

/// Mount of a member's volume; etcd makes its directory below, since the mount's own mode is not its to change.
const DATA_DIR: &str = "/var/lib/etcd";
/// Room for metadata; etcd goes read-only when it is full.
const QUOTA_BYTES: u64 = 2 << 30;

pub(super) fn member_set(cluster: &Cluster, group: &Group, image: &str) -> StatefulSet {
    let name = EnvVar {
        name: "POD_NAME".to_owned(),
        value_from: Some(EnvVarSource {
            field_ref: Some(ObjectFieldSelector {
                field_path: "metadata.name".to_owned(),
                api_version: Some("v1".to_owned()),
            }),
            ..EnvVarSource::default()
        }),
        ..EnvVar::default()
    };
    let container = Container {
        name: "etcd".to_owned(),
        image: Some(image.to_owned()),
        image_pull_policy: Some(cluster.image.pull_policy.as_str().to_owned()),
        command: Some(vec!["etcd".to_owned()]),
        args: Some(arguments(cluster, group)),
        env: Some(vec![name]),
        ports: Some(vec![
            pods::container_port("client", names::ETCD_CLIENT_PORT),
            pods::container_port("peer", names::ETCD_PEER_PORT),
            pods::container_port("metrics", names::ETCD_METRICS_PORT),
        ]),
        resources: pods::resources(&group.resources),
        volume_mounts: Some(vec![
            pods::mount(pods::DATA_VOLUME, DATA_DIR, false),
            pods::mount("tmp", "/tmp", false),
        ]),
        security_context: Some(pods::security_context()),
        startup_probe: Some(pods::probe("/livez", "metrics", 2, 150)),
        liveness_probe: Some(pods::probe("/livez", "metrics", 10, 6)),
        readiness_probe: Some(pods::probe("/readyz", "metrics", 5, 3)),
        ..Container::default()
    };
    let pod = PodSpec {
        containers: vec![container],
        volumes: Some(vec![pods::scratch_volume()]),
        ..pods::pod(cluster, group)
    };
    pods::stateful_set(cluster, group, &[], pod)
}

fn arguments(cluster: &Cluster, group: &Group) -> Vec<String> {
    let host = names::service_host(&names::group(&cluster.name, Role::Etcd), &cluster.namespace);
    let url = |pod: &str, port: i32| format!("http://{pod}.{host}:{port}");
    let members: Vec<String> = (0..group.replicas)
        .map(|ordinal| names::pod(&cluster.name, Role::Etcd, ordinal))
        .map(|pod| format!("{pod}={}", url(&pod, names::ETCD_PEER_PORT)))
        .collect();
    let any = |port: i32| format!("http://0.0.0.0:{port}");
    [
        ("name", "$(POD_NAME)".to_owned()),
        ("data-dir", format!("{DATA_DIR}/member-data")),
        ("listen-client-urls", any(names::ETCD_CLIENT_PORT)),
        ("advertise-client-urls", url("$(POD_NAME)", names::ETCD_CLIENT_PORT)),
        ("listen-peer-urls", any(names::ETCD_PEER_PORT)),
        ("initial-advertise-peer-urls", url("$(POD_NAME)", names::ETCD_PEER_PORT)),
        ("listen-metrics-urls", any(names::ETCD_METRICS_PORT)),
        ("initial-cluster", members.join(",")),
        ("initial-cluster-state", "new".to_owned()),
        ("initial-cluster-token", cluster.service_name()),
        ("auto-compaction-mode", "periodic".to_owned()),
        ("auto-compaction-retention", "1h".to_owned()),
        ("quota-backend-bytes", QUOTA_BYTES.to_string()),
    ]
    .into_iter()
    .map(|(flag, value)| format!("--{flag}={value}"))
    .collect()
}
