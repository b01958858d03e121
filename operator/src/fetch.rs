//! The only reads of a reconcile: the cluster's objects, its pods, and its metadata.

use std::collections::BTreeMap;

use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::{Node, Pod, Secret};
use kube::api::{Api, DynamicObject, ListParams};
use kube::{Client, ResourceExt};
use tracing::debug;
use vectorsphere_crds::VectorSphereCluster;
use vectorsphere_proto::keys::Keys;

use crate::group::GroupState;
use crate::manifest::{Kind, ObjectKey};
use crate::metadata::MetadataView;
use crate::metadata_client::{Connection, MetadataClient, TlsMaterial};
use crate::names::{self, Role};
use crate::plan::Observed;
use crate::validate::{etcd_endpoints, etcd_prefix};

/// Everything that a reconcile looks at.
pub struct Fetched {
    /// Objects that the operator made.
    pub observed: Observed,
    /// Its StatefulSets, typed.
    pub sets: BTreeMap<Role, StatefulSet>,
    /// Pods by group.
    pub groups: BTreeMap<Role, GroupState>,
    /// Pods whose zone label is missing, and the zone of their node.
    pub zones: Vec<(String, String)>,
    /// The metadata, or why it could not be read.
    pub metadata: Result<MetadataView, String>,
}

/// Reads all of it.
///
/// # Errors
/// When the API server cannot be asked; an unreachable metadata store is part of the answer.
pub async fn fetch(
    client: &Client,
    metadata: &MetadataClient,
    object: &VectorSphereCluster,
) -> Result<Fetched, kube::Error> {
    let (name, namespace) = (object.name_any(), object.namespace().unwrap_or_default());
    let observed = owned_objects(client, &namespace, &name, object.metadata.uid.as_deref()).await?;
    let mut sets = BTreeMap::new();
    for role in [Role::Etcd, Role::Master, Role::Slave] {
        let body = observed.get(&ObjectKey::new(Kind::StatefulSet, names::group(&name, role)));
        if let Some(set) = body.and_then(|body| serde_json::from_value(body.clone()).ok()) {
            sets.insert(role, set);
        }
    }
    let pods = Api::<Pod>::namespaced(client.clone(), &namespace);
    let of_cluster = ListParams::default().labels(&format!("{}={name}", names::INSTANCE));
    let pods = pods.list(&of_cluster).await?.items;
    let groups = [Role::Etcd, Role::Master, Role::Slave]
        .into_iter()
        .map(|role| (role, GroupState::of(role, sets.get(&role), &pods)))
        .collect();
    Ok(Fetched {
        zones: missing_zones(client, &pods).await,
        metadata: read_metadata(client, metadata, object).await,
        observed,
        sets,
        groups,
    })
}

async fn owned_objects(
    client: &Client,
    namespace: &str,
    name: &str,
    uid: Option<&str>,
) -> Result<Observed, kube::Error> {
    let selector = ListParams::default().labels(&names::owned_selector(name));
    let mut observed = Observed::new();
    for kind in Kind::ALL {
        let api: Api<DynamicObject> = Api::namespaced_with(client.clone(), namespace, &kind.api_resource());
        for object in api.list(&selector).await?.items {
            let ours = object.owner_references().iter().any(|owner| Some(owner.uid.as_str()) == uid);
            if ours && let Ok(body) = serde_json::to_value(&object) {
                observed.insert(ObjectKey::new(kind, object.name_any()), body);
            }
        }
    }
    Ok(observed)
}

/// Reading nodes needs a permission that an installation may withhold; pods then have no zone.
async fn missing_zones(client: &Client, pods: &[Pod]) -> Vec<(String, String)> {
    let nodes = Api::<Node>::all(client.clone());
    let mut zones = Vec::new();
    for pod in pods.iter().filter(|pod| !pod.labels().contains_key(names::ZONE)) {
        let Some(node) = pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref()) else { continue };
        match nodes.get_metadata(node).await {
            Ok(node) => {
                zones.extend(node.labels().get(names::ZONE).map(|zone| (pod.name_any(), zone.clone())));
            }
            Err(error) => debug!(%error, node, "the zone of a node cannot be read"),
        }
    }
    zones
}

async fn read_metadata(
    client: &Client,
    metadata: &MetadataClient,
    object: &VectorSphereCluster,
) -> Result<MetadataView, String> {
    let connection = connection(client, object).await?;
    let keys = Keys::with_prefix(&etcd_prefix(object));
    let uid = object.metadata.uid.as_deref().unwrap_or_default();
    metadata.read(uid, connection, &keys).await.map_err(|error| chain(&error))
}

async fn connection(client: &Client, object: &VectorSphereCluster) -> Result<Connection, String> {
    let endpoints = etcd_endpoints(object);
    let Some(external) = &object.spec.etcd.external else {
        return Ok(Connection { endpoints, tls: None, user: None });
    };
    let secrets = Api::<Secret>::namespaced(client.clone(), &object.namespace().unwrap_or_default());
    let read = async |name: &str| {
        let secret =
            secrets.get(name).await.map_err(|error| format!("secret {name} cannot be read: {error}"))?;
        Ok::<_, String>(secret.data.unwrap_or_default())
    };
    let tls = match &external.tls_secret_ref {
        Some(secret) => {
            let mut data = read(&secret.name).await?;
            let certificate = data.remove("tls.crt").zip(data.remove("tls.key"));
            Some(TlsMaterial {
                ca: data.remove("ca.crt").map(|pem| pem.0),
                identity: certificate.map(|(certificate, key)| (certificate.0, key.0)),
            })
        }
        None => None,
    };
    let user = match &external.auth_secret_ref {
        Some(secret) => {
            let mut data = read(&secret.name).await?;
            let mut text = |key: &str| {
                let value = data.remove(key).and_then(|value| String::from_utf8(value.0).ok());
                value.ok_or_else(|| format!("secret {} has no text `{key}`", secret.name))
            };
            Some((text("username")?, text("password")?))
        }
        None => None,
    };
    Ok(Connection { endpoints, tls, user })
}

/// An error with its causes, once.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}
