//! StatefulSets of master and slave nodes.

use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::{
    ConfigMapVolumeSource, Container, DownwardAPIVolumeFile, DownwardAPIVolumeSource, EnvVar, EnvVarSource,
    ObjectFieldSelector, PodSpec, SecretKeySelector, SecretVolumeSource, Volume,
};

use super::config_map::{FILE, digest};
use super::pods;
use crate::etcd_secrets::USERNAME;
use crate::names::{self, Role};
use crate::validate::{Cluster, Etcd, Group};

/// Directory of the configuration file.
const CONFIG_DIR: &str = "/etc/vectorsphere";
/// Directory of what the pod knows about itself.
const PODINFO_DIR: &str = "/etc/podinfo";
/// Stands on pods; differs when a setting does that needs new pods.
const CONFIG_DIGEST: &str = "vectorsphere.io/config-digest";

pub(super) fn node_set(cluster: &Cluster, group: &Group) -> StatefulSet {
    let pod = PodSpec {
        containers: vec![container(cluster, group)],
        volumes: Some(volumes(cluster)),
        ..pods::pod(cluster, group)
    };
    pods::stateful_set(cluster, group, &[(CONFIG_DIGEST, digest(cluster))], pod)
}

fn container(cluster: &Cluster, group: &Group) -> Container {
    let mut ports = vec![
        pods::container_port("http", names::HTTP_PORT),
        pods::container_port("internal", names::INTERNAL_PORT),
    ];
    if group.role == Role::Master {
        ports.insert(1, pods::container_port("grpc", names::GRPC_PORT));
    }
    let mut mounts = vec![
        pods::mount(pods::DATA_VOLUME, pods::DATA_DIR, false),
        pods::mount("config", CONFIG_DIR, true),
        pods::mount("podinfo", PODINFO_DIR, true),
        pods::mount("tmp", "/tmp", false),
    ];
    mounts.extend(
        secrets(cluster).into_iter().map(|(volume, directory, _)| pods::mount(volume, directory, true)),
    );
    let arguments = ["-c", &format!("{CONFIG_DIR}/{FILE}"), "-type", group.role.as_str()];
    Container {
        name: "vectorsphere".to_owned(),
        image: Some(cluster.image.reference.clone()),
        image_pull_policy: Some(cluster.image.pull_policy.as_str().to_owned()),
        args: Some(arguments.map(str::to_owned).to_vec()),
        env: Some(environment(cluster, group)),
        ports: Some(ports),
        resources: pods::resources(&group.resources),
        volume_mounts: Some(mounts),
        security_context: Some(pods::security_context()),
        lifecycle: Some(pods::lifecycle()),
        // Recovery of a long log takes its time: 10 minutes before a start counts as failed. None of the probes asks
        // about etcd, or one hiccup of etcd would restart or empty the whole cluster.
        startup_probe: Some(pods::probe("/livez", "http", 2, 300)),
        liveness_probe: Some(pods::probe("/livez", "http", 10, 6)),
        readiness_probe: Some(pods::probe("/readyz", "http", 2, 2)),
        ..Container::default()
    }
}

/// What differs between the pods of a group. The address is the pod's name in DNS, which survives a restart; it may
/// appear some seconds after the pod, and nodes retry.
fn environment(cluster: &Cluster, group: &Group) -> Vec<EnvVar> {
    let host = names::service_host(&names::group(&cluster.name, group.role), &cluster.namespace);
    let mut environment = vec![
        EnvVar {
            name: "VECTORSPHERE_NODE_ID".to_owned(),
            value_from: Some(EnvVarSource {
                field_ref: Some(field("metadata.name")),
                ..EnvVarSource::default()
            }),
            ..EnvVar::default()
        },
        value("VECTORSPHERE_ADVERTISE_ADDRESS", format!("$(VECTORSPHERE_NODE_ID).{host}")),
        value("VECTORSPHERE_ZONE_FILE", format!("{PODINFO_DIR}/zone")),
    ];
    if let Etcd::External { spec, .. } = &cluster.etcd
        && let Some(secret) = &spec.auth_secret_ref
    {
        let username =
            SecretKeySelector { name: secret.name.clone(), key: USERNAME.to_owned(), optional: Some(false) };
        environment.push(EnvVar {
            name: "VECTORSPHERE_ETCD__USERNAME".to_owned(),
            value_from: Some(EnvVarSource { secret_key_ref: Some(username), ..EnvVarSource::default() }),
            ..EnvVar::default()
        });
    }
    environment
}

fn volumes(cluster: &Cluster) -> Vec<Volume> {
    let zone = DownwardAPIVolumeFile {
        path: "zone".to_owned(),
        field_ref: Some(field(&format!("metadata.labels['{}']", names::ZONE))),
        ..DownwardAPIVolumeFile::default()
    };
    let mut volumes = vec![
        Volume {
            name: "config".to_owned(),
            config_map: Some(ConfigMapVolumeSource {
                name: names::config_map(&cluster.name),
                ..ConfigMapVolumeSource::default()
            }),
            ..Volume::default()
        },
        Volume {
            name: "podinfo".to_owned(),
            downward_api: Some(DownwardAPIVolumeSource {
                items: Some(vec![zone]),
                ..DownwardAPIVolumeSource::default()
            }),
            ..Volume::default()
        },
        pods::scratch_volume(),
    ];
    volumes.extend(secrets(cluster).into_iter().map(|(volume, _, secret)| Volume {
        name: volume.to_owned(),
        secret: Some(SecretVolumeSource {
            secret_name: Some(secret),
            default_mode: Some(0o440),
            ..SecretVolumeSource::default()
        }),
        ..Volume::default()
    }));
    volumes
}

/// Secrets that pods mount: name of the volume, directory, name of the Secret.
fn secrets(cluster: &Cluster) -> Vec<(&'static str, &'static str, String)> {
    let Etcd::External { spec, .. } = &cluster.etcd else { return Vec::new() };
    let tls = spec.tls_secret_ref.as_ref().map(|it| ("etcd-tls", pods::ETCD_TLS_DIR, it.name.clone()));
    let auth = spec.auth_secret_ref.as_ref().map(|it| ("etcd-auth", pods::ETCD_AUTH_DIR, it.name.clone()));
    tls.into_iter().chain(auth).collect()
}

fn field(path: &str) -> ObjectFieldSelector {
    ObjectFieldSelector { field_path: path.to_owned(), api_version: Some("v1".to_owned()) }
}

fn value(name: &str, value: String) -> EnvVar {
    EnvVar { name: name.to_owned(), value: Some(value), ..EnvVar::default() }
}
