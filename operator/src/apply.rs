//! Carries a plan out.

use kube::Client;
use kube::api::{Api, DeleteParams, DynamicObject, Patch, PatchParams, Preconditions};
use tracing::info;

use crate::manifest::{Manifest, ObjectKey};
use crate::names;
use crate::plan::Step;

/// A step that failed; those before it were done.
#[derive(Debug, thiserror::Error)]
pub enum ApplyError {
    /// The API server refused or did not answer.
    #[error("failed to {action} {key}")]
    Call {
        /// `look for`, `apply` or `delete`.
        action: &'static str,
        /// Which object.
        key: ObjectKey,
        /// The API server's word.
        #[source]
        source: kube::Error,
    },
    /// Somebody else's object has the name. It is left alone: it would be overwritten now and deleted with the cluster.
    #[error("{key} exists and belongs to somebody else: delete it, or give the cluster another name")]
    Taken {
        /// Which object.
        key: ObjectKey,
    },
}

/// Carries `steps` out, in order, and stops at the first that fails. Safe to repeat after a crash at any point.
///
/// # Errors
/// The first step that fails.
pub async fn apply(client: &Client, namespace: &str, steps: &[Step]) -> Result<(), ApplyError> {
    for step in steps {
        match step {
            Step::Create(manifest) => {
                refuse_taken(client, namespace, &manifest.key).await?;
                server_side_apply(client, namespace, manifest).await?;
            }
            Step::Update(manifest) => server_side_apply(client, namespace, manifest).await?,
            Step::Delete { key, uid } => delete(client, namespace, key, uid).await?,
        }
    }
    Ok(())
}

/// The plan knows every object of the cluster by its labels: another one of the same name is not the cluster's. (A plain
/// `create` would tell as much, but what it wrote could not be taken back by a later server-side apply.)
async fn refuse_taken(client: &Client, namespace: &str, key: &ObjectKey) -> Result<(), ApplyError> {
    match api(client, namespace, key).get_metadata_opt(&key.name).await {
        Ok(None) => Ok(()),
        Ok(Some(_)) => Err(ApplyError::Taken { key: key.clone() }),
        Err(source) => Err(ApplyError::Call { action: "look for", key: key.clone(), source }),
    }
}

async fn server_side_apply(client: &Client, namespace: &str, manifest: &Manifest) -> Result<(), ApplyError> {
    let key = &manifest.key;
    let parameters = PatchParams::apply(names::MANAGER).force();
    let patched =
        api(client, namespace, key).patch(&key.name, &parameters, &Patch::Apply(&manifest.body)).await;
    patched.map_err(|source| ApplyError::Call { action: "apply", key: key.clone(), source })?;
    info!(object = %key, "applied");
    Ok(())
}

fn api(client: &Client, namespace: &str, key: &ObjectKey) -> Api<DynamicObject> {
    Api::namespaced_with(client.clone(), namespace, &key.kind.api_resource())
}

async fn delete(client: &Client, namespace: &str, key: &ObjectKey, uid: &str) -> Result<(), ApplyError> {
    let only_this = Preconditions { uid: Some(uid.to_owned()), ..Preconditions::default() };
    let parameters = DeleteParams { preconditions: Some(only_this), ..DeleteParams::default() };
    match api(client, namespace, key).delete(&key.name, &parameters).await {
        Ok(_) => {
            info!(object = %key, "deleted what is no longer wanted");
            Ok(())
        }
        // Somebody else was faster.
        Err(kube::Error::Api(status)) if status.is_not_found() || status.is_conflict() => Ok(()),
        Err(source) => Err(ApplyError::Call { action: "delete", key: key.clone(), source }),
    }
}
