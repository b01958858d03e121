//! The only writes of a reconcile, but for the status: steps of a plan, and zones of pods.

use k8s_openapi::api::core::v1::Pod;
use kube::Client;
use kube::api::{Api, DeleteParams, DynamicObject, Patch, PatchParams, Preconditions};
use serde_json::json;
use tracing::{debug, info};

use crate::manifest::ObjectKey;
use crate::names;
use crate::plan::Step;

/// A write that failed; those before it were done.
#[derive(Debug, thiserror::Error)]
#[error("failed to {action} {key}")]
pub struct ApplyError {
    /// `apply` or `delete`.
    pub action: &'static str,
    /// Which object.
    pub key: ObjectKey,
    /// The API server's word.
    #[source]
    pub source: kube::Error,
}

/// Carries `steps` out, in order, and stops at the first that fails. Safe to repeat after a crash at any point.
///
/// # Errors
/// The first write that fails.
pub async fn apply(client: &Client, namespace: &str, steps: &[Step]) -> Result<(), ApplyError> {
    for step in steps {
        match step {
            Step::Apply(manifest) => {
                let key = &manifest.key;
                let api: Api<DynamicObject> =
                    Api::namespaced_with(client.clone(), namespace, &key.kind.api_resource());
                let parameters = PatchParams::apply(names::MANAGER).force();
                let patched = api.patch(&key.name, &parameters, &Patch::Apply(&manifest.body)).await;
                patched.map_err(|source| ApplyError { action: "apply", key: key.clone(), source })?;
                info!(object = %key, "applied");
            }
            Step::Delete { key, uid } => delete(client, namespace, key, uid).await?,
        }
    }
    Ok(())
}

async fn delete(client: &Client, namespace: &str, key: &ObjectKey, uid: &str) -> Result<(), ApplyError> {
    let api: Api<DynamicObject> = Api::namespaced_with(client.clone(), namespace, &key.kind.api_resource());
    let only_this = Preconditions { uid: Some(uid.to_owned()), ..Preconditions::default() };
    let parameters = DeleteParams { preconditions: Some(only_this), ..DeleteParams::default() };
    match api.delete(&key.name, &parameters).await {
        Ok(_) => {
            info!(object = %key, "deleted what is no longer wanted");
            Ok(())
        }
        // Somebody else was faster.
        Err(kube::Error::Api(status)) if status.is_not_found() || status.is_conflict() => Ok(()),
        Err(source) => Err(ApplyError { action: "delete", key: key.clone(), source }),
    }
}

/// Copies the zones of nodes to labels of their pods, where the pods can read them. A pod that is gone is no error.
pub async fn label_zones(client: &Client, namespace: &str, zones: &[(String, String)]) {
    let pods = Api::<Pod>::namespaced(client.clone(), namespace);
    for (pod, zone) in zones {
        let labels = json!({"metadata": {"labels": {names::ZONE: zone}}});
        if let Err(error) = pods.patch_metadata(pod, &PatchParams::default(), &Patch::Merge(&labels)).await {
            debug!(%error, pod, "a zone could not be told");
        }
    }
}
