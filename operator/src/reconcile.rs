//! One reconcile: fetch, validate, decide, build, plan, apply, status.

use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::api::{Api, Patch, PatchParams};
use kube::runtime::controller::Action;
use kube::{Client, ResourceExt};
use serde_json::json;
use tracing::warn;
use vectorsphere_crds::{ReconcilePolicy, VectorSphereCluster, VectorSphereClusterStatus};

use crate::apply::{ApplyError, apply, label_zones};
use crate::backoff::Backoff;
use crate::build::build;
use crate::events::Events;
use crate::fetch::{Fetched, chain, fetch};
use crate::metadata_client::MetadataClient;
use crate::metrics::OperatorMetrics;
use crate::names::Role;
use crate::plan::plan;
use crate::scale::decide;
use crate::status::{Outcome, status};
use crate::validate::{Defaults, asked_replicas, validate};

/// A cluster that is as its spec says is looked at again after this: the election and the shards are no objects that
/// could be watched.
const LOOK_AGAIN: std::time::Duration = std::time::Duration::from_secs(10);
/// One that converges is looked at sooner.
const LOOK_SOON: std::time::Duration = std::time::Duration::from_secs(2);

/// What every reconcile uses.
pub struct Context {
    /// The API server.
    pub client: Client,
    /// Metadata stores.
    pub metadata: MetadataClient,
    /// What the spec leaves open.
    pub defaults: Defaults,
    /// Tells people.
    pub events: Events,
    /// Counts.
    pub metrics: OperatorMetrics,
    /// Pace of tries after failures, by object.
    pub backoff: Backoff,
}

/// Why a reconcile did not come to its end; it is tried again.
#[derive(Debug, thiserror::Error)]
pub enum ReconcileError {
    /// A read failed.
    #[error("failed to read the cluster's objects")]
    Fetch(#[source] kube::Error),
    /// A write failed.
    #[error(transparent)]
    Apply(#[from] ApplyError),
    /// The status could not be written.
    #[error("failed to write the status")]
    Status(#[source] kube::Error),
}

/// Brings one cluster closer to its spec and tells how it is.
///
/// # Errors
/// A failed call to the API server; what is wrong with the spec is a condition and no error.
pub async fn reconcile(
    object: Arc<VectorSphereCluster>,
    context: Arc<Context>,
) -> Result<Action, ReconcileError> {
    let _timer = context.metrics.begin();
    if object.metadata.deletion_timestamp.is_some() {
        // Owner references take everything along; volumes follow their retention policy.
        context.metadata.forget(object.metadata.uid.as_deref().unwrap_or_default());
        return Ok(Action::await_change());
    }
    let namespace = object.namespace().unwrap_or_default();
    let fetched = fetch(&context.client, &context.metadata, &object).await.map_err(ReconcileError::Fetch)?;
    label_zones(&context.client, &namespace, &fetched.zones).await;

    let paused = object.spec.reconcile_policy == ReconcilePolicy::Paused;
    let (mut problems, mut scale, mut failure) = (Vec::new(), None, None);
    match validate(&object, &fetched.sets, &context.defaults) {
        Ok(cluster) => {
            let slaves = fetched.groups.get(&Role::Slave).cloned().unwrap_or_default();
            let decision = decide(
                &object,
                asked_replicas(&object, Role::Slave),
                &slaves,
                fetched.metadata.as_ref().ok(),
            );
            let steps = match paused {
                true => Vec::new(),
                false => plan(&build(&cluster, decision.replicas()), &fetched.observed),
            };
            failure = apply(&context.client, &namespace, &steps).await.err();
            scale = Some(decision);
        }
        Err(found) => problems = found,
    }

    let outcome = Outcome {
        problems: &problems,
        scale: scale.as_ref(),
        failure: failure.as_ref().map(|error| chain(error)),
        paused,
    };
    let now = Time(jiff::Timestamp::now());
    let next = status(&object, &fetched, &outcome, &now);
    context.events.tell(&object, &next, scale.as_ref()).await;
    write_status(&context.client, &object, &next).await.map_err(ReconcileError::Status)?;
    if let Some(error) = failure {
        return Err(error.into());
    }
    context.backoff.forget(&key(&object));
    Ok(Action::requeue(pace(&next, &fetched)))
}

fn pace(status: &VectorSphereClusterStatus, fetched: &Fetched) -> std::time::Duration {
    let ready = status.conditions.iter().any(|one| one.type_ == "Ready" && one.status == "True");
    if ready && fetched.metadata.is_ok() { LOOK_AGAIN } else { LOOK_SOON }
}

/// Writes the status if it says something new.
async fn write_status(
    client: &Client,
    object: &VectorSphereCluster,
    status: &VectorSphereClusterStatus,
) -> Result<(), kube::Error> {
    if object.status.as_ref() == Some(status) {
        return Ok(());
    }
    let api: Api<VectorSphereCluster> =
        Api::namespaced(client.clone(), &object.namespace().unwrap_or_default());
    // A merge writes the whole of `status`; null takes away what is no longer said.
    let mut value = serde_json::to_value(status).expect("a status is plain data");
    if status.leader.is_none() {
        value["leader"] = serde_json::Value::Null;
    }
    let patch = Patch::Merge(json!({ "status": value }));
    match api.patch_status(&object.name_any(), &PatchParams::default(), &patch).await {
        Ok(_) => Ok(()),
        // Deleted meanwhile.
        Err(kube::Error::Api(status)) if status.is_not_found() => Ok(()),
        Err(error) => Err(error),
    }
}

/// How a failed reconcile is tried again: later and later.
pub fn on_error(object: Arc<VectorSphereCluster>, error: &ReconcileError, context: Arc<Context>) -> Action {
    let wait = context.backoff.next(&key(&object));
    context.metrics.failures.inc();
    warn!(cluster = %key(&object), error = chain(error), ?wait, "reconcile failed, trying again");
    Action::requeue(wait)
}

fn key(object: &VectorSphereCluster) -> String {
    format!("{}/{}", object.namespace().unwrap_or_default(), object.name_any())
}
