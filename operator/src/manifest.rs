//! One object that the operator owns: which kind it is, and its content as the API server sees it.

use std::fmt;

use k8s_openapi::api::{
    apps::v1::StatefulSet, core::v1::ConfigMap, core::v1::Service, core::v1::ServiceAccount,
    networking::v1::Ingress, policy::v1::PodDisruptionBudget,
};
use kube::Resource;
use kube::api::ApiResource;
use serde::Serialize;
use serde_json::Value;
use sha2::{Digest, Sha256};
use vectorsphere_crds::quantity_milli;

use crate::names;

/// Kinds that the operator owns, in the order in which they are applied: what pods refer to comes before the pods.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[expect(missing_docs, reason = "the variants are Kubernetes' own names")]
pub enum Kind {
    ServiceAccount,
    ConfigMap,
    Service,
    PodDisruptionBudget,
    StatefulSet,
    Ingress,
}

impl Kind {
    /// All kinds, in order.
    pub const ALL: [Kind; 6] = [
        Kind::ServiceAccount,
        Kind::ConfigMap,
        Kind::Service,
        Kind::PodDisruptionBudget,
        Kind::StatefulSet,
        Kind::Ingress,
    ];

    /// How the API serves it.
    pub fn api_resource(self) -> ApiResource {
        match self {
            Kind::ServiceAccount => ApiResource::erase::<ServiceAccount>(&()),
            Kind::ConfigMap => ApiResource::erase::<ConfigMap>(&()),
            Kind::Service => ApiResource::erase::<Service>(&()),
            Kind::PodDisruptionBudget => ApiResource::erase::<PodDisruptionBudget>(&()),
            Kind::StatefulSet => ApiResource::erase::<StatefulSet>(&()),
            Kind::Ingress => ApiResource::erase::<Ingress>(&()),
        }
    }

    /// Whether an object that is no longer wanted may be deleted. A StatefulSet may not: its pods hold data, and
    /// losing them is never the answer to an edit.
    pub const fn is_disposable(self) -> bool {
        match self {
            Kind::Ingress | Kind::PodDisruptionBudget => true,
            Kind::ServiceAccount | Kind::ConfigMap | Kind::Service | Kind::StatefulSet => false,
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, formatter)
    }
}

/// Names one object of a namespace.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ObjectKey {
    /// Its kind; first, so that maps are in the order of application.
    pub kind: Kind,
    /// Its name.
    pub name: String,
}

impl ObjectKey {
    /// Names an object.
    pub fn new(kind: Kind, name: impl Into<String>) -> ObjectKey {
        ObjectKey { kind, name: name.into() }
    }
}

impl fmt::Display for ObjectKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} {}", self.kind, self.name)
    }
}

/// An object as it should be.
#[derive(Clone, Debug, PartialEq)]
pub struct Manifest {
    /// Which object.
    pub key: ObjectKey,
    /// Its content, `apiVersion` and `kind` included.
    pub body: Value,
}

impl Manifest {
    /// Takes a typed object.
    pub fn new<K: Resource<DynamicType = ()> + Serialize>(kind: Kind, object: &K) -> Manifest {
        let name = object.meta().name.clone().expect("builders name their objects");
        let mut body = serde_json::to_value(object).expect("typed objects are plain data");
        let digest = short_digest(&body.to_string());
        body["metadata"]["annotations"][names::MANIFEST_DIGEST] = digest.into();
        Manifest { key: ObjectKey::new(kind, name), body }
    }

    /// Whether `observed` already says all that this manifest says, so that there is nothing to write. What others added
    /// does not count, as server-side apply would leave it too; what an earlier manifest said and this one does not
    /// shows in the digest.
    pub fn is_met_by(&self, observed: &Value) -> bool {
        covers(observed, &self.body)
    }
}

/// Eight bytes of SHA-256 in hex: tells contents apart, guards nothing.
pub fn short_digest(text: &str) -> String {
    Sha256::digest(text.as_bytes()).iter().take(8).map(|byte| format!("{byte:02x}")).collect()
}

fn covers(observed: &Value, wanted: &Value) -> bool {
    match (observed, wanted) {
        (Value::Object(observed), Value::Object(wanted)) => wanted.iter().all(|(key, value)| {
            observed.get(key).map_or_else(
                || is_empty(value),
                |other| match key.as_str() {
                    "requests" | "limits" => covers_quantities(other, value),
                    _ => covers(other, value),
                },
            )
        }),
        (Value::Array(observed), Value::Array(wanted)) => match identity(wanted) {
            Some(key) => wanted.iter().all(|item| {
                observed.iter().any(|other| other.get(key) == item.get(key) && covers(other, item))
            }),
            None => {
                observed.len() == wanted.len()
                    && observed.iter().zip(wanted).all(|(left, right)| covers(left, right))
            }
        },
        (observed, wanted) => observed == wanted,
    }
}

/// The field by which server-side apply tells the items of a list apart; `None` for lists that it replaces as a whole.
fn identity(items: &[Value]) -> Option<&'static str> {
    ["name", "uid"]
        .into_iter()
        .find(|key| !items.is_empty() && items.iter().all(|item| item.get(key).is_some_and(Value::is_string)))
}

/// The server keeps quantities in words of its own: `1024Mi` comes back as `1Gi`. One that cannot be counted (it may
/// keep a finer unit than ours) is taken for equal; an edit of it shows in the digest.
fn covers_quantities(observed: &Value, wanted: &Value) -> bool {
    let amount = |value: &Value| value.as_str().and_then(quantity_milli);
    let (Value::Object(observed), Value::Object(wanted)) = (observed, wanted) else {
        return observed == wanted;
    };
    wanted.iter().all(|(name, wanted)| {
        observed.get(name).is_some_and(|other| match (amount(other), amount(wanted)) {
            (Some(other), Some(wanted)) => other == wanted,
            _ => true,
        })
    })
}

/// The server leaves out what is empty.
fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Object(map) => map.values().all(is_empty),
        Value::Array(items) => items.is_empty(),
        Value::Bool(_) | Value::Number(_) | Value::String(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn manifest(body: Value) -> Manifest {
        Manifest { key: ObjectKey::new(Kind::Service, "a"), body }
    }

    #[test]
    fn additions_of_the_server_are_no_difference() {
        let wanted = manifest(json!({"spec": {"ports": [{"port": 1}], "selector": {}}}));
        assert!(wanted.is_met_by(
            &json!({"spec": {"ports": [{"port": 1, "protocol": "TCP"}], "clusterIP": "10.0.0.1"}})
        ));
    }

    #[test]
    fn a_changed_value_a_missing_key_and_another_length_are_differences() {
        let wanted = manifest(json!({"spec": {"ports": [{"port": 1}]}}));
        for other in [json!({}), json!({"spec": {"ports": [{"port": 2}]}}), json!({"spec": {"ports": []}})] {
            assert!(!wanted.is_met_by(&other), "{other}");
        }
    }

    #[test]
    fn quantities_in_other_words_are_no_difference() {
        let wanted = manifest(json!({"resources": {"requests": {"memory": "1024Mi", "cpu": "0.0001"}}}));
        let kept = |memory: &str| json!({"resources": {"requests": {"memory": memory, "cpu": "100u"}}});
        assert!(wanted.is_met_by(&kept("1Gi")));
        assert!(!wanted.is_met_by(&kept("1G")));
        let elsewhere = manifest(json!({"image": "1024Mi"}));
        assert!(!elsewhere.is_met_by(&json!({"image": "1Gi"})), "only quantities have other words");
    }

    #[test]
    fn items_that_others_added_to_a_list_are_no_difference() {
        let wanted = manifest(json!({"env": [{"name": "A", "value": "1"}], "args": ["a"]}));
        let observed = |env: Value, args: Value| json!({"env": env, "args": args});
        let sidecar = json!([{"name": "Z"}, {"name": "A", "value": "1", "more": true}]);
        assert!(wanted.is_met_by(&observed(sidecar.clone(), json!(["a"]))));
        assert!(!wanted.is_met_by(&observed(json!([{"name": "A", "value": "2"}]), json!(["a"]))));
        assert!(!wanted.is_met_by(&observed(json!([]), json!(["a"]))));
        assert!(!wanted.is_met_by(&observed(sidecar, json!(["a", "b"]))), "these are replaced as a whole");
    }

    #[test]
    fn what_a_later_manifest_no_longer_says_is_a_difference() {
        let mut service = Service::default();
        service.metadata.name = Some("a".into());
        let bare = Manifest::new(Kind::Service, &service);
        service.metadata.labels = Some([("team".to_owned(), "b".to_owned())].into());
        let labelled = Manifest::new(Kind::Service, &service);
        assert!(bare.is_met_by(&bare.body) && labelled.is_met_by(&labelled.body));
        assert!(!bare.is_met_by(&labelled.body), "the label must go");
    }

    #[test]
    fn kinds_are_applied_before_what_refers_to_them() {
        assert!(Kind::ALL.is_sorted());
        assert!(Kind::ConfigMap < Kind::StatefulSet && Kind::Service < Kind::StatefulSet);
        assert!(Kind::ALL.iter().all(|kind| !kind.api_resource().plural.is_empty()));
    }
}
