//! The only reads of a reconcile: the cluster's objects, its pods, and its metadata.

use std::collections::BTreeMap;

use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::{Pod, Secret};
use kube::api::{Api, DynamicObject, ListParams, TypeMeta};
use kube::{Client, ResourceExt};
use vectorsphere_crds::{SecretRef, VectorSphereCluster};
use vectorsphere_proto::keys::Keys;

use crate::etcd_secrets::{Data, EtcdSecrets};
use crate::group::GroupState;
use crate::manifest::{Kind, ObjectKey};
use crate::metadata::MetadataView;
use crate::metadata_client::{Connection, MetadataClient};
use crate::names::{self, Role};
use crate::plan::Observed;
use crate::validate::{Problem, etcd_endpoints, etcd_prefix};
use crate::zones::Zones;

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
    /// What the Secrets say that the spec refers to, or what is wrong with them.
    pub secrets: Result<EtcdSecrets, Vec<Problem>>,
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
    zones: &Zones,
    object: &VectorSphereCluster,
) -> Result<Fetched, kube::Error> {
    let (name, namespace) = (object.name_any(), object.namespace().unwrap_or_default());
    let observed = owned_objects(client, &namespace, &name, object.metadata.uid.as_deref()).await?;
    let mut sets = BTreeMap::new();
    for role in [Role::Etcd, Role::Master, Role::Slave] {
        // One that is not understood must not pass for one that does not exist: slaves would be scaled in unasked.
        if let Some(body) = observed.get(&ObjectKey::new(Kind::StatefulSet, names::group(&name, role))) {
            sets.insert(role, serde_json::from_value(body.clone()).map_err(kube::Error::SerdeError)?);
        }
    }
    let pods = Api::<Pod>::namespaced(client.clone(), &namespace);
    let of_cluster = ListParams::default().labels(&format!("{}={name}", names::INSTANCE));
    let pods = pods.list(&of_cluster).await?.items;
    let groups = [Role::Etcd, Role::Master, Role::Slave]
        .into_iter()
        .map(|role| (role, GroupState::of(role, sets.get(&role), &pods)))
        .collect();
    let secrets = etcd_secrets(client, object).await?;
    Ok(Fetched {
        zones: zones.missing(client, &pods).await,
        metadata: read_metadata(metadata, object, &secrets).await,
        secrets,
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
        let resource = kind.api_resource();
        let api: Api<DynamicObject> = Api::namespaced_with(client.clone(), namespace, &resource);
        for mut object in api.list(&selector).await?.items {
            if is_of_cluster(&object, uid) {
                // The API server leaves out of the items of a list what the list says already.
                object.types =
                    Some(TypeMeta { api_version: resource.api_version.clone(), kind: resource.kind.clone() });
                let body = serde_json::to_value(&object).map_err(kube::Error::SerdeError)?;
                observed.insert(ObjectKey::new(kind, object.name_any()), body);
            }
        }
    }
    Ok(observed)
}

/// Whether a labelled object is this cluster's: made for it, or left behind by one that was deleted without its
/// dependents. What still belongs to an earlier cluster of the same name is about to go.
fn is_of_cluster(object: &DynamicObject, uid: Option<&str>) -> bool {
    let controller = object.owner_references().iter().find(|owner| owner.controller == Some(true));
    controller.is_none_or(|owner| Some(owner.uid.as_str()) == uid)
}

/// Secrets that the spec refers to. One that is missing or may not be read is a mistake of the spec, told as such.
async fn etcd_secrets(
    client: &Client,
    object: &VectorSphereCluster,
) -> Result<Result<EtcdSecrets, Vec<Problem>>, kube::Error> {
    let Some(external) = &object.spec.etcd.external else { return Ok(Ok(EtcdSecrets::default())) };
    let secrets = Api::<Secret>::namespaced(client.clone(), &object.namespace().unwrap_or_default());
    let mut read: BTreeMap<&str, Data> = BTreeMap::new();
    for SecretRef { name } in external.tls_secret_ref.iter().chain(&external.auth_secret_ref) {
        let data = match secrets.get(name).await {
            Ok(secret) => Ok(secret.data.unwrap_or_default()),
            Err(kube::Error::Api(why)) if why.is_not_found() => {
                Err("does not exist in this namespace".to_owned())
            }
            Err(kube::Error::Api(why)) if why.is_forbidden() => {
                Err("may not be read by the operator".to_owned())
            }
            Err(error) => return Err(error),
        };
        read.insert(name, data);
    }
    Ok(EtcdSecrets::of(external, |name| read[name].clone()))
}

async fn read_metadata(
    metadata: &MetadataClient,
    object: &VectorSphereCluster,
    secrets: &Result<EtcdSecrets, Vec<Problem>>,
) -> Result<MetadataView, String> {
    let EtcdSecrets { tls, user } = match secrets {
        Ok(secrets) => secrets.clone(),
        Err(problems) => {
            let messages: Vec<_> = problems.iter().map(|problem| problem.message.as_str()).collect();
            return Err(messages.join("; "));
        }
    };
    let connection = Connection { endpoints: etcd_endpoints(object), tls, user };
    let keys = Keys::with_prefix(&etcd_prefix(object));
    metadata.read(&object_key(object), connection, &keys).await.map_err(|error| chain(&error))
}

/// `<namespace>/<name>`.
pub fn object_key(object: &VectorSphereCluster) -> String {
    format!("{}/{}", object.namespace().unwrap_or_default(), object.name_any())
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
