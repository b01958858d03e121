//! Copies the zones of nodes to labels of their pods, where the pods can read them.
//!
//! Reading nodes needs a permission that an installation may withhold; pods then have no zone.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::{Node, Pod};
use kube::api::{Api, Patch, PatchParams};
use kube::{Client, ResourceExt};
use serde_json::json;
use tracing::debug;

use crate::names;

/// A node without a zone, or one that may not be read, is asked again after this.
const ASK_AGAIN: Duration = Duration::from_secs(60);

/// Zones by node, as they were read last.
#[derive(Debug, Default)]
pub struct Zones {
    known: Mutex<HashMap<String, (Instant, Option<String>)>>,
}

impl Zones {
    /// Pods that lack the label, and the zone of their node.
    pub async fn missing(&self, client: &Client, pods: &[Pod]) -> Vec<(String, String)> {
        let mut missing = Vec::new();
        for pod in pods.iter().filter(|pod| !pod.labels().contains_key(names::ZONE)) {
            let Some(node) = pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref()) else { continue };
            if let Some(zone) = self.of(client, node).await {
                missing.push((pod.name_any(), zone));
            }
        }
        missing
    }

    async fn of(&self, client: &Client, node: &str) -> Option<String> {
        let known = self.lock().get(node).filter(|(read, _)| read.elapsed() < ASK_AGAIN).cloned();
        if let Some((_, zone)) = known {
            return zone;
        }
        let zone = match Api::<Node>::all(client.clone()).get_metadata(node).await {
            Ok(found) => found.labels().get(names::ZONE).cloned(),
            Err(error) => {
                debug!(%error, node, "the zone of a node cannot be read");
                None
            }
        };
        let mut known = self.lock();
        known.retain(|_, (read, _)| read.elapsed() < ASK_AGAIN);
        known.insert(node.to_owned(), (Instant::now(), zone.clone()));
        zone
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, (Instant, Option<String>)>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Labels pods with their zones. A pod that is gone is no error.
pub async fn label(client: &Client, namespace: &str, zones: &[(String, String)]) {
    let pods = Api::<Pod>::namespaced(client.clone(), namespace);
    for (pod, zone) in zones {
        let labels = json!({"metadata": {"labels": {names::ZONE: zone}}});
        if let Err(error) = pods.patch_metadata(pod, &PatchParams::default(), &Patch::Merge(&labels)).await {
            debug!(%error, pod, "a zone could not be told");
        }
    }
}
