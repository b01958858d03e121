//! What is known about the pods of one StatefulSet. Pure.

use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;

use crate::names::{COMPONENT, Role};

/// Label of a pod that names the revision of its template.
const REVISION: &str = "controller-revision-hash";

/// Pods of one StatefulSet as they are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GroupState {
    /// Replicas of the StatefulSet; `None` when it does not exist.
    pub set_replicas: Option<i32>,
    /// Whether the StatefulSet's controller has seen the newest spec, so that revisions can be compared.
    pub settled: bool,
    /// Names of pods that exist and are not on their way out.
    pub pods: Vec<String>,
    /// Those that are ready.
    pub ready: Vec<String>,
    /// Those that do not run the newest revision.
    pub outdated: Vec<String>,
    /// Revision of pods that were not replaced yet.
    pub current_revision: Option<String>,
    /// Revision that new pods get.
    pub update_revision: Option<String>,
}

impl GroupState {
    /// Looks at a group.
    pub fn of(role: Role, set: Option<&StatefulSet>, pods: &[Pod]) -> GroupState {
        let Some(set) = set else { return GroupState::default() };
        let status = set.status.as_ref();
        let settled = status.and_then(|it| it.observed_generation) >= set.metadata.generation
            && status.is_some_and(|it| it.update_revision.is_some());
        let update_revision = status.and_then(|it| it.update_revision.clone());
        let mut live: Vec<&Pod> = pods
            .iter()
            .filter(|pod| pod.labels().get(COMPONENT).is_some_and(|it| it == role.as_str()))
            .filter(|pod| pod.metadata.deletion_timestamp.is_none())
            .collect();
        live.sort_by_key(|pod| ordinal(&pod.name_any()));
        let names = |keep: &dyn Fn(&Pod) -> bool| {
            live.iter().filter(|pod| keep(pod)).map(|pod| pod.name_any()).collect::<Vec<_>>()
        };
        let outdated = match settled {
            true => names(&|pod| pod.labels().get(REVISION) != update_revision.as_ref()),
            false => Vec::new(),
        };
        // With `OnDelete` the StatefulSet's controller keeps the first revision here for ever.
        let current_revision = match settled && outdated.is_empty() {
            true => update_revision.clone(),
            false => status.and_then(|it| it.current_revision.clone()),
        };
        GroupState {
            set_replicas: set.spec.as_ref().and_then(|spec| spec.replicas),
            settled,
            pods: names(&|_| true),
            ready: names(&is_ready),
            outdated,
            current_revision,
            update_revision,
        }
    }
}

fn is_ready(pod: &Pod) -> bool {
    let conditions = pod.status.as_ref().and_then(|status| status.conditions.as_ref());
    conditions.is_some_and(|all| all.iter().any(|one| one.type_ == "Ready" && one.status == "True"))
}

fn ordinal(pod: &str) -> Option<u32> {
    pod.rsplit_once('-').and_then(|(_, ordinal)| ordinal.parse().ok())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn set(generation: i64, observed: i64) -> StatefulSet {
        serde_json::from_value(json!({
            "metadata": {"name": "a-slave", "generation": generation},
            "spec": {"replicas": 2, "serviceName": "a", "selector": {}, "template": {}},
            "status": {"replicas": 2, "observedGeneration": observed, "currentRevision": "old", "updateRevision": "new"},
        }))
        .expect("a StatefulSet")
    }

    fn pod(name: &str, revision: &str, ready: &str) -> Pod {
        serde_json::from_value(json!({
            "metadata": {"name": name, "labels": {COMPONENT: "slave", REVISION: revision}},
            "status": {"conditions": [{"type": "Ready", "status": ready}]},
        }))
        .expect("a Pod")
    }

    #[test]
    fn pods_are_told_by_ordinal_readiness_and_revision() {
        let mut leaving = pod("a-slave-3", "new", "True");
        leaving.metadata.deletion_timestamp =
            Some(serde_json::from_value(json!("2026-01-01T00:00:00Z")).expect("a time"));
        let pods = [pod("a-slave-10", "new", "False"), pod("a-slave-2", "old", "True"), leaving];
        let state = GroupState::of(Role::Slave, Some(&set(2, 2)), &pods);
        assert_eq!(state.pods, ["a-slave-2", "a-slave-10"]);
        assert_eq!(state.ready, ["a-slave-2"]);
        assert_eq!(state.outdated, ["a-slave-2"]);
        assert!(GroupState::of(Role::Master, Some(&set(2, 2)), &pods).pods.is_empty());
    }

    #[test]
    fn revisions_are_not_compared_before_the_set_is_observed() {
        let state = GroupState::of(Role::Slave, Some(&set(3, 2)), &[pod("a-slave-0", "old", "True")]);
        assert!(!state.settled && state.outdated.is_empty());
    }
}
