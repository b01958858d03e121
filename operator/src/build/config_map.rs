//! The nodes' configuration file. One file serves both groups: what differs between pods (type, name, address, zone)
//! comes by argument, environment and downward API.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::ConfigMap;
use serde_yaml::Value;
use sha2::{Digest, Sha256};

use super::{metadata, pods};
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

/// Tells one content of the file from another; stands on the pods, so that an edit shows as outdated pods.
pub(super) fn digest(config: &ConfigMap) -> String {
    let text = config.data.as_ref().and_then(|data| data.get(FILE)).map_or("", String::as_str);
    Sha256::digest(text.as_bytes()).iter().take(8).map(|byte| format!("{byte:02x}")).collect()
}

/// The content of the file.
pub fn config_yaml(cluster: &Cluster) -> String {
    serde_yaml::to_string(&settings::nest(&settings_of(cluster))).expect("settings are plain data")
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
    if let Etcd::External(external) = &cluster.etcd {
        if external.tls_secret_ref.is_some() {
            set("etcd.ca_file", format!("{}/ca.crt", pods::ETCD_TLS_DIR).into());
            // A Secret with the root alone is common; the node takes client certificates when the files are there.
            set("etcd.cert_file", format!("{}/tls.crt", pods::ETCD_TLS_DIR).into());
            set("etcd.key_file", format!("{}/tls.key", pods::ETCD_TLS_DIR).into());
        }
        if external.auth_secret_ref.is_some() {
            set("etcd.password_file", format!("{}/password", pods::ETCD_AUTH_DIR).into());
        }
    }
    all
}

fn endpoints(cluster: &Cluster) -> Vec<String> {
    match &cluster.etcd {
        Etcd::External(external) => external.endpoints.clone(),
        Etcd::Managed { group, .. } => {
            let host = names::service_host(&names::group(&cluster.name, Role::Etcd), &cluster.namespace);
            let pod = |ordinal| names::pod(&cluster.name, Role::Etcd, ordinal);
            (0..group.replicas)
                .map(|ordinal| format!("http://{}.{host}:{}", pod(ordinal), names::ETCD_CLIENT_PORT))
                .collect()
        }
    }
}
