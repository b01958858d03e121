//! How many slaves there shall be now. Pure.
//!
//! More is always granted. Fewer is granted only when no shard has a copy on a pod that would go; the drain that
//! moves shards away first belongs in front of this decision, not into it.

use vectorsphere_crds::VectorSphereCluster;

use crate::group::GroupState;
use crate::metadata::MetadataView;
use crate::names::{self, Role};

/// What becomes of the wish for a number of slaves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ScaleDecision {
    /// As the spec says.
    Granted {
        /// Replicas of the StatefulSet.
        replicas: i32,
    },
    /// The StatefulSet keeps its replicas.
    Refused {
        /// Replicas of the StatefulSet.
        replicas: i32,
        /// Why, in one word.
        reason: &'static str,
        /// Why, and what to do.
        message: String,
    },
}

impl ScaleDecision {
    /// Replicas of the StatefulSet.
    pub fn replicas(&self) -> i32 {
        match self {
            ScaleDecision::Granted { replicas } | ScaleDecision::Refused { replicas, .. } => *replicas,
        }
    }
}

/// Pods named in a message.
const NAMED_MAX: usize = 10;

/// Decides on the slaves of `object`, which are as `slaves` says, in the light of the metadata, if it could be read.
pub fn decide(
    object: &VectorSphereCluster,
    asked: i32,
    slaves: &GroupState,
    metadata: Option<&MetadataView>,
) -> ScaleDecision {
    let current = slaves.set_replicas.unwrap_or(0);
    if asked >= current {
        return ScaleDecision::Granted { replicas: asked };
    }
    let refuse = |reason, message| ScaleDecision::Refused { replicas: current, reason, message };
    let Some(metadata) = metadata else {
        let message = format!(
            "{current} slaves stay, not {asked}: which shards they hold is not known while the metadata store cannot be read"
        );
        return refuse("MetadataStoreUnreachable", message);
    };
    let name = object.metadata.name.as_deref().unwrap_or_default();
    let holders: Vec<(String, usize)> = (asked..current)
        .map(|ordinal| names::pod(name, Role::Slave, ordinal))
        .map(|pod| (metadata.shards_on(&pod), pod))
        .filter(|(shards, _)| *shards > 0)
        .map(|(shards, pod)| (pod, shards))
        .collect();
    if holders.is_empty() {
        return ScaleDecision::Granted { replicas: asked };
    }
    let mut named: Vec<String> =
        holders.iter().take(NAMED_MAX).map(|(pod, shards)| format!("{pod} holds {shards}")).collect();
    if holders.len() > NAMED_MAX {
        named.push(format!("{} more pods hold some", holders.len() - NAMED_MAX));
    }
    refuse(
        "ShardsWouldBeLost",
        format!(
            "{current} slaves stay, not {asked}: copies of shards would be lost ({}). Delete the tables or set `spec.slaves.replicas` back to {current}",
            named.join(", ")
        ),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metadata::Shard;

    fn object() -> VectorSphereCluster {
        let mut object: VectorSphereCluster =
            serde_yaml::from_str(include_str!("../../crds/examples/small.yaml")).expect("an example");
        object.metadata.name = Some("a".into());
        object
    }

    fn slaves(replicas: Option<i32>) -> GroupState {
        GroupState { set_replicas: replicas, ..GroupState::default() }
    }

    fn shards(holders: &[&str]) -> MetadataView {
        let shard = |holder: &&str| Shard { holders: [(*holder).to_owned()].into(), ..Shard::default() };
        MetadataView { shards: holders.iter().map(shard).collect(), ..MetadataView::default() }
    }

    #[test]
    fn more_or_the_same_needs_no_metadata() {
        for current in [None, Some(0), Some(3)] {
            assert_eq!(decide(&object(), 3, &slaves(current), None), ScaleDecision::Granted { replicas: 3 });
        }
    }

    #[test]
    fn fewer_is_refused_while_a_pod_that_would_go_holds_shards() {
        let metadata = shards(&["a-slave-0", "a-slave-2", "a-slave-2"]);
        let ScaleDecision::Refused { replicas, reason, message } =
            decide(&object(), 1, &slaves(Some(3)), Some(&metadata))
        else {
            panic!("a-slave-2 holds shards");
        };
        assert_eq!((replicas, reason), (3, "ShardsWouldBeLost"));
        assert!(message.contains("a-slave-2 holds 2") && !message.contains("a-slave-1"), "{message}");
    }

    #[test]
    fn fewer_is_granted_when_the_shards_are_on_pods_that_stay() {
        let metadata = shards(&["a-slave-0", "b-slave-2"]);
        assert_eq!(
            decide(&object(), 1, &slaves(Some(3)), Some(&metadata)),
            ScaleDecision::Granted { replicas: 1 }
        );
    }

    #[test]
    fn fewer_is_refused_when_nobody_knows() {
        let decision = decide(&object(), 1, &slaves(Some(3)), None);
        assert!(matches!(
            decision,
            ScaleDecision::Refused { replicas: 3, reason: "MetadataStoreUnreachable", .. }
        ));
    }
}
