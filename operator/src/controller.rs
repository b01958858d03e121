//! Watches clusters and everything made for them, while this operator leads.

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::{ConfigMap, Pod, Service, ServiceAccount};
use k8s_openapi::api::networking::v1::Ingress;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use kube::api::ListParams;
use kube::runtime::controller::{self, Config, Controller};
use kube::runtime::reflector::ObjectRef;
use kube::runtime::watcher;
use kube::{Api, Client, ResourceExt};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info};
use vectorsphere_crds::VectorSphereCluster;

use crate::names::{INSTANCE, MANAGED_BY, MANAGER};
use crate::reconcile::{Context, on_error, reconcile};

/// Clusters that are reconciled at once.
///
/// Some wait for an etcd that does not answer; the others must not wait with them.
const CONCURRENCY: u16 = 16;
/// Bursts of changes are one reconcile.
const DEBOUNCE: Duration = Duration::from_millis(100);

/// The custom resource is not installed, or this operator may not read it.
#[derive(Debug, thiserror::Error)]
#[error(
    "cannot list VectorSphereClusters: install the custom resource definition and the operator's roles first"
)]
pub struct NotInstalled(#[source] kube::Error);

/// An API over the watched namespace, or all.
pub fn scoped<K>(client: Client, namespace: Option<&str>) -> Api<K>
where
    K: kube::Resource<Scope = k8s_openapi::NamespaceResourceScope, DynamicType = ()>,
{
    match namespace {
        Some(namespace) => Api::namespaced(client, namespace),
        None => Api::all(client),
    }
}

/// Fails early and clearly: a watch on a missing resource would only be quiet.
///
/// # Errors
/// When clusters cannot be listed.
pub async fn check_installed(client: &Client, namespace: Option<&str>) -> Result<(), NotInstalled> {
    let clusters: Api<VectorSphereCluster> = scoped(client.clone(), namespace);
    clusters.list(&ListParams::default().limit(1)).await.map(|_| ()).map_err(NotInstalled)
}

/// Reconciles until `cancel`; those under way are finished.
pub async fn run(context: Arc<Context>, namespace: Option<&str>, cancel: CancellationToken) {
    let client = context.client.clone();
    let ours = watcher::Config::default().labels(&format!("{MANAGED_BY}={MANAGER}"));
    let clusters: Api<VectorSphereCluster> = scoped(client.clone(), namespace);
    let pods: Api<Pod> = scoped(client.clone(), namespace);
    let with_instance =
        watcher::Config::default().labels(&format!("{INSTANCE},app.kubernetes.io/name=vectorsphere"));
    Controller::new(clusters, watcher::Config::default())
        .with_config(Config::default().concurrency(CONCURRENCY).debounce(DEBOUNCE))
        .owns(scoped::<StatefulSet>(client.clone(), namespace), ours.clone())
        .owns(scoped::<Service>(client.clone(), namespace), ours.clone())
        .owns(scoped::<ConfigMap>(client.clone(), namespace), ours.clone())
        .owns(scoped::<ServiceAccount>(client.clone(), namespace), ours.clone())
        .owns(scoped::<Ingress>(client.clone(), namespace), ours.clone())
        .owns(scoped::<PodDisruptionBudget>(client, namespace), ours)
        .watches(pods, with_instance, cluster_of_pod)
        .graceful_shutdown_on(cancel.cancelled_owned())
        .run(reconcile, on_error, context.clone())
        .for_each(async |done| match done {
            Ok((cluster, _)) => debug!(cluster = %cluster.name, "reconciled"),
            // Its objects go after it, so that each deleted cluster comes by here.
            Err(controller::Error::ObjectNotFound(cluster)) => {
                context.forget(&format!("{}/{}", cluster.namespace.unwrap_or_default(), cluster.name));
            }
            Err(error) => debug!(%error, "a reconcile did not end well"),
        })
        .await;
    info!("the controller has stopped");
}

/// Pods belong to StatefulSets; the label names the cluster.
fn cluster_of_pod(pod: Pod) -> Option<ObjectRef<VectorSphereCluster>> {
    let cluster = pod.labels().get(INSTANCE)?;
    Some(ObjectRef::new(cluster).within(&pod.namespace()?))
}
