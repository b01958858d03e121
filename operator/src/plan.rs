//! What to write, in which order. Pure: compares what shall be with what is.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::build::Desired;
use crate::manifest::{Kind, Manifest, ObjectKey};

/// Objects of a cluster as they are, by key.
pub type Observed = BTreeMap<ObjectKey, Value>;

/// One write.
#[derive(Clone, Debug, PartialEq)]
pub enum Step {
    /// Server-side apply of an object that does not exist yet.
    Create(Manifest),
    /// Server-side apply of one that differs.
    Update(Manifest),
    /// Delete what is no longer wanted, if it still has this UID.
    Delete {
        /// Which.
        key: ObjectKey,
        /// Its UID.
        uid: String,
    },
}

/// The writes that turn `observed` into `desired`: what pods refer to first, deletions last. Empty when all is as it
/// shall be.
pub fn plan(desired: &Desired, observed: &Observed) -> Vec<Step> {
    let applies = desired.0.iter().filter_map(|manifest| match observed.get(&manifest.key) {
        None => Some(Step::Create(manifest.clone())),
        Some(existing) => (!manifest.is_met_by(existing)).then(|| Step::Update(manifest.clone())),
    });
    let unwanted = observed.iter().filter(|(key, _)| {
        key.kind.is_disposable() && !desired.0.iter().any(|manifest| manifest.key == **key)
    });
    let deletes = unwanted.filter_map(|(key, body)| {
        let uid = body["metadata"]["uid"].as_str()?.to_owned();
        Some(Step::Delete { key: key.clone(), uid })
    });
    applies.chain(deletes).collect()
}

/// Whether `steps` write a StatefulSet: its status then speaks of what was before.
pub fn touches_pods(steps: &[Step]) -> bool {
    steps.iter().any(|step| match step {
        Step::Create(manifest) | Step::Update(manifest) => manifest.key.kind == Kind::StatefulSet,
        Step::Delete { .. } => false,
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn manifest(kind: Kind, name: &str, size: i32) -> Manifest {
        Manifest { key: ObjectKey::new(kind, name), body: json!({"spec": {"size": size}}) }
    }

    fn existing(kind: Kind, name: &str, size: i32) -> (ObjectKey, Value) {
        (ObjectKey::new(kind, name), json!({"metadata": {"uid": "u"}, "spec": {"size": size, "more": true}}))
    }

    #[test]
    fn what_is_as_it_shall_be_is_left_alone() {
        let desired = Desired(vec![manifest(Kind::Service, "a", 1), manifest(Kind::StatefulSet, "a", 1)]);
        let observed = [existing(Kind::Service, "a", 1), existing(Kind::StatefulSet, "a", 1)].into();
        assert_eq!(plan(&desired, &observed), []);
    }

    #[test]
    fn differences_are_applied_in_order_and_orphans_deleted_last() {
        let desired = Desired(vec![manifest(Kind::Service, "a", 2), manifest(Kind::StatefulSet, "a", 1)]);
        let observed = [existing(Kind::Service, "a", 1), existing(Kind::Ingress, "a", 1)].into();
        let steps = plan(&desired, &observed);
        assert_eq!(
            steps,
            [
                Step::Update(manifest(Kind::Service, "a", 2)),
                Step::Create(manifest(Kind::StatefulSet, "a", 1)),
                Step::Delete { key: ObjectKey::new(Kind::Ingress, "a"), uid: "u".into() },
            ]
        );
    }

    #[test]
    fn a_stateful_set_is_never_deleted_by_an_edit() {
        let observed = [existing(Kind::StatefulSet, "a", 1), existing(Kind::Service, "a", 1)].into();
        assert_eq!(plan(&Desired(vec![]), &observed), []);
    }
}
