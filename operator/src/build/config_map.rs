//! The nodes' configuration file. One file serves both groups: what differs between pods (type, name, address, zone)
//! comes by argument, environment and downward API.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::ConfigMap;
use serde_yaml::Value;

use super::{metadata, pods};
use crate::etcd_secrets::{CA, CERTIFICATE, KEY, PASSWORD};
use crate::manifest::short_digest;
use crate::names::{self, Role};
use crate::settings;
use crate::validate::{Cluster, Etcd};

/// Name of the file.
pub(super) const FILE: &str = "c.yaml";

pub(super) fn config_map(cluster: &Cluster) -> ConfigMap {
    ConfigMap {
        metadata: metadata(cluster, names::config_map(&cluster.name), None),
        data: Some([(FILE.to_owned(), config_yaml(cluster))].into()),
        ..ConfigMap::default()
    }
}

/// Tells settings apart that running nodes do not take over; stands on the pods, so that such an edit shows as outdated
/// pods, and one of the others does not.
pub(super) fn digest(cluster: &Cluster) -> String {
    let cold: BTreeMap<_, _> =
        settings_of(cluster).into_iter().filter(|(key, _)| !settings::is_hot(key)).collect();
    short_digest(&to_yaml(&cold))
}

/// The content of the file.
pub fn config_yaml(cluster: &Cluster) -> String {
    to_yaml(&settings_of(cluster))
}

fn to_yaml(flat: &BTreeMap<String, Value>) -> String {
    serde_yaml::to_string(&settings::nest(flat)).expect("settings are plain data")
}

/// Every setting of the file by dotted key: the user's and the operator's.
pub fn settings_of(cluster: &Cluster) -> BTreeMap<String, Value> {
    let mut all = cluster.settings.clone();
    let mut set = |key: &str, value: Value| drop(all.insert(key.to_owned(), value));
    set("service_name", cluster.service_name().into());
    set("bind_address", "0.0.0.0".into());
    set("http_port", names::HTTP_PORT.into());
    set("default_port", names::GRPC_PORT.into());
    set("internal_port", names::INTERNAL_PORT.into());
    set("data_dir", pods::DATA_DIR.into());
    set("etcd.prefix", cluster.prefix.clone().into());
    set("etcd.endpoints", endpoints(cluster).into_iter().map(Value::from).collect::<Vec<_>>().into());
    if let Etcd::External { spec, tls } = &cluster.etcd {
        // A Secret with the root alone is common, and nodes end over a file that is not there.
        if tls.has_ca {
            set("etcd.ca_file", format!("{}/{CA}", pods::ETCD_TLS_DIR).into());
        }
        if tls.has_client_certificate {
            set("etcd.cert_file", format!("{}/{CERTIFICATE}", pods::ETCD_TLS_DIR).into());
            set("etcd.key_file", format!("{}/{KEY}", pods::ETCD_TLS_DIR).into());
        }
        if spec.auth_secret_ref.is_some() {
            set("etcd.password_file", format!("{}/{PASSWORD}", pods::ETCD_AUTH_DIR).into());
        }
    }
    all
}

fn endpoints(cluster: &Cluster) -> Vec<String> {
    match &cluster.etcd {
        Etcd::External { spec, .. } => spec.endpoints.clone(),
        Etcd::Managed { group, .. } => {
            let host = names::service_host(&names::group(&cluster.name, Role::Etcd), &cluster.namespace);
            let pod = |ordinal| names::pod(&cluster.name, Role::Etcd, ordinal);
            (0..group.replicas)
                .map(|ordinal| format!("http://{}.{host}:{}", pod(ordinal), names::ETCD_CLIENT_PORT))
                .collect()
        }
    }
}
