//! One reconcile: fetch, validate, decide, build, plan, apply, status.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::api::{Api, Patch, PatchParams};
use kube::runtime::controller::Action;
use kube::{Client, Resource, ResourceExt};
use serde_json::json;
use tracing::warn;
use vectorsphere_crds::{ReconcilePolicy, VectorSphereCluster, VectorSphereClusterStatus};

use crate::apply::{ApplyError, apply};
use crate::backoff::Backoff;
use crate::build::build;
use crate::events::Events;
use crate::fetch::{chain, fetch, object_key};
use crate::metadata_client::MetadataClient;
use crate::metrics::OperatorMetrics;
use crate::names::{MANAGER, Role};
use crate::plan::{plan, touches_pods};
use crate::scale::decide;
use crate::status::{Outcome, status};
use crate::validate::{Defaults, asked_replicas, validate};
use crate::zones::{self, Zones};

/// A cluster is looked at again after this: election and shards are no objects that could be watched.
const LOOK_AGAIN: Duration = Duration::from_secs(10);
/// One that was ready a moment ago, or was made a moment ago, is looked at sooner.
const LOOK_SOON: Duration = Duration::from_secs(1);

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
    /// Zones of nodes.
    pub zones: Zones,
    /// Pace of tries after failures, by object.
    pub backoff: Backoff,
}

impl Context {
    /// Drops what is kept for the cluster `<namespace>/<name>`, which is gone.
    pub fn forget(&self, cluster: &str) {
        self.metadata.forget(cluster);
        self.backoff.forget(cluster);
    }
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
        context.forget(&object_key(&object));
        return Ok(Action::await_change());
    }
    let namespace = object.namespace().unwrap_or_default();
    let fetched = fetch(&context.client, &context.metadata, &context.zones, &object)
        .await
        .map_err(ReconcileError::Fetch)?;

    let paused = object.spec.reconcile_policy == ReconcilePolicy::Paused;
    let (mut problems, mut scale, mut failure, mut pods_touched) = (Vec::new(), None, None, false);
    match validate(&object, &fetched.sets, &fetched.secrets, &context.defaults) {
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
            pods_touched = touches_pods(&steps);
            failure = apply(&context.client, &namespace, &steps).await.err();
            scale = Some(decision);
        }
        Err(found) => problems = found,
    }
    if !paused {
        zones::label(&context.client, &namespace, &fetched.zones).await;
    }

    let outcome = Outcome {
        problems: &problems,
        scale: scale.as_ref(),
        failure: failure.as_ref().map(|error| chain(error)),
        paused,
        pods_touched,
    };
    let now = Time(jiff::Timestamp::now());
    let next = status(&object, &fetched, &outcome, &now);
    write_status(&context.client, &object, &next).await.map_err(ReconcileError::Status)?;
    // After the status: a write that failed is tried again, and would be told twice.
    context.events.tell(&object, &next).await;
    if let Some(error) = failure {
        return Err(error.into());
    }
    context.backoff.forget(&object_key(&object));
    Ok(Action::requeue(pace(&next, &now)))
}

/// When to look again: soon after something changed, and ever less often while nothing comes of it. What a person must
/// mend may last for days.
fn pace(status: &VectorSphereClusterStatus, now: &Time) -> Duration {
    let Some(ready) = status.conditions.iter().find(|one| one.type_ == "Ready") else { return LOOK_SOON };
    if ready.status == "True" {
        return LOOK_AGAIN;
    }
    let age = now.0.duration_since(ready.last_transition_time.0);
    (age.unsigned_abs() / 10).clamp(LOOK_SOON, LOOK_AGAIN)
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
    // Server-side apply takes away what is no longer said; a merge would keep it. An object of the same name that was
    // made meanwhile (the API server checks no UID here) has this status until its own reconcile writes another.
    let patch = Patch::Apply(json!({
        "apiVersion": VectorSphereCluster::api_version(&()),
        "kind": VectorSphereCluster::kind(&()),
        "status": status,
    }));
    match api.patch_status(&object.name_any(), &PatchParams::apply(MANAGER).force(), &patch).await {
        Ok(_) => Ok(()),
        // Deleted meanwhile.
        Err(kube::Error::Api(why)) if why.is_not_found() => Ok(()),
        Err(error) => Err(error),
    }
}

/// How a failed reconcile is tried again: later and later.
pub fn on_error(object: Arc<VectorSphereCluster>, error: &ReconcileError, context: Arc<Context>) -> Action {
    let wait = context.backoff.next(&object_key(&object));
    context.metrics.failures.inc();
    warn!(cluster = %object_key(&object), error = chain(error), ?wait, "reconcile failed, trying again");
    Action::requeue(wait)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::conditions::{Verdict, conditions};

    fn at(second: u32) -> Time {
        serde_json::from_value(format!("2026-01-01T00:{:02}:{:02}Z", second / 60, second % 60).into())
            .expect("a time")
    }

    #[test]
    fn a_cluster_is_looked_at_sooner_the_fresher_its_trouble_is() {
        let after = |verdict: &Verdict, seconds: u32| {
            let conditions = conditions(std::slice::from_ref(verdict), &[], Some(1), &at(0));
            pace(&VectorSphereClusterStatus { conditions, ..Default::default() }, &at(seconds)).as_millis()
        };
        let ready = Verdict::yes("Ready", "Ready", "");
        let not = Verdict::no("Ready", "PodsNotReady", "");
        assert_eq!([0, 1000].map(|seconds| after(&ready, seconds)), [10_000, 10_000]);
        assert_eq!(
            [0, 10, 50, 100, 3000].map(|seconds| after(&not, seconds)),
            [1000, 1000, 5000, 10_000, 10_000]
        );
    }
}
