//! What holds for every spec: stages do not panic, and what was applied needs nothing more.

use std::collections::BTreeMap;

use proptest::collection::{btree_map, vec};
use proptest::option;
use proptest::prelude::*;
use proptest::sample::select;
use serde_json::Value;
use vectorsphere_crds::{
    AntiAffinity, DeletionPolicy, IngressSpec, MasterGroupSpec, NetworkSpec, ResourcesSpec, SchedulingSpec,
    ServiceType, TolerationSpec, TopologySpread, VectorSphereCluster,
};
use vectorsphere_operator::build::build;
use vectorsphere_operator::plan::{Observed, Step, plan};
use vectorsphere_operator::settings::SETTINGS;

use crate::examples::{full, small, validated};

/// Settings that a user may come up with.
fn any_settings() -> impl Strategy<Value = BTreeMap<String, String>> {
    let key = prop_oneof![
        (0..SETTINGS.len()).prop_map(|index| SETTINGS[index].key.to_owned()),
        "[a-z_.]{0,12}",
        Just("etcd".to_owned()),
        Just("auth.jwt_secret".to_owned()),
    ];
    let value =
        prop_oneof!["[0-9]{1,25}(ms|s|m|h)?", "\\PC{0,20}", Just("true".to_owned()), Just("1.5".to_owned())];
    btree_map(key, value, 0..4)
}

/// Settings that are right.
fn good_settings() -> impl Strategy<Value = BTreeMap<String, String>> {
    let pair = |(key, value): (&str, u64)| (key.to_owned(), value.to_string());
    let key = select(vec!["task_timeout", "heartbeat", "default_shards", "master.session_ttl"]);
    vec((key, 2..60u64).prop_map(pair), 0..4).prop_map(|pairs| pairs.into_iter().collect())
}

fn quantity() -> impl Strategy<Value = String> {
    prop_oneof!["[0-9]{1,20}([.][0-9]{1,5})?(m|k|M|G|T|P|Ki|Mi|Gi|Ti|Pi)?", "\\PC{0,8}"]
}

/// What a mistaken spec has beside the rest.
#[derive(Clone, Debug, Default)]
struct Mistakes {
    version: Option<String>,
    both_etcds: bool,
    toleration_of_nothing: bool,
}

fn mistakes() -> impl Strategy<Value = Mistakes> {
    (option::of("\\PC{0,12}"), any::<bool>(), any::<bool>()).prop_map(
        |(version, both_etcds, toleration_of_nothing)| Mistakes {
            version,
            both_etcds,
            toleration_of_nothing,
        },
    )
}

/// Objects that the schema lets through, and worse.
fn objects(
    settings: impl Strategy<Value = BTreeMap<String, String>>,
    mistakes: impl Strategy<Value = Mistakes>,
) -> impl Strategy<Value = VectorSphereCluster> {
    let counts = (1..8i32, 0..600i32, select(vec![1, 3, 5]));
    let network = option::of((any::<bool>(), option::of("[a-z.]{1,20}")));
    let pods = (quantity(), quantity(), vec("[a-z/]{1,10}", 0..3), any::<bool>());
    (any::<bool>(), counts, network, pods, settings, mistakes).prop_map(
        |(is_managed, (masters, slaves, members), network, pods, settings, mistakes)| {
            let change = |object: &mut VectorSphereCluster| {
                let spec = &mut object.spec;
                spec.config = settings;
                spec.slaves.replicas = Some(slaves);
                spec.masters = Some(MasterGroupSpec { replicas: Some(masters), ..spec.master_group() });
                if let Some(managed) = &mut spec.etcd.managed {
                    managed.replicas = Some(members);
                }
                spec.network = network.map(|(is_node_port, host)| NetworkSpec {
                    service_type: if is_node_port { ServiceType::NodePort } else { ServiceType::ClusterIp },
                    ingress: host.map(|host| IngressSpec { host, ..IngressSpec::default() }),
                });
                let (request, size, tolerated, is_strict) = pods;
                let requests = [("memory".to_owned(), request.as_str().into())].into();
                spec.slaves.resources = Some(ResourcesSpec { requests, limits: BTreeMap::new() });
                spec.slaves.storage.size = size.as_str().into();
                let (topology_spread, anti_affinity, deletion_policy) = match is_strict {
                    true => (TopologySpread::Host, AntiAffinity::Required, DeletionPolicy::Delete),
                    false => (TopologySpread::None, AntiAffinity::None, DeletionPolicy::Retain),
                };
                spec.deletion_policy = deletion_policy;
                let mut tolerations: Vec<_> =
                    tolerated.into_iter().map(|key| toleration(Some(key))).collect();
                if mistakes.toleration_of_nothing {
                    tolerations.push(toleration(None));
                }
                let scheduling = spec.slaves.scheduling.clone().unwrap_or_default();
                spec.slaves.scheduling =
                    Some(SchedulingSpec { topology_spread, anti_affinity, tolerations, ..scheduling });
                if let Some(version) = mistakes.version {
                    spec.version = version;
                }
                if mistakes.both_etcds {
                    spec.etcd.managed.get_or_insert_default();
                }
            };
            if is_managed { small(change) } else { full(change) }
        },
    )
}

fn toleration(key: Option<String>) -> TolerationSpec {
    TolerationSpec { key, operator: None, value: None, effect: None, toleration_seconds: None }
}

/// What the API server has after `steps`: it keeps what is applied and adds words of its own.
fn carried_out(mut observed: Observed, steps: &[Step]) -> Observed {
    for step in steps {
        match step {
            Step::Create(manifest) | Step::Update(manifest) => {
                let mut body = manifest.body.clone();
                body["metadata"]["uid"] = "u".into();
                body["spec"]["added"] = "by the server".into();
                observed.insert(manifest.key.clone(), without_empty(body));
            }
            Step::Delete { key, .. } => drop(observed.remove(key)),
        }
    }
    observed
}

/// The server leaves out empty maps.
fn without_empty(value: Value) -> Value {
    match value {
        Value::Object(map) => map
            .into_iter()
            .map(|(key, value)| (key, without_empty(value)))
            .filter(|(_, value)| value.as_object().is_none_or(|map| !map.is_empty()))
            .collect(),
        Value::Array(items) => items.into_iter().map(without_empty).collect(),
        other => other,
    }
}

proptest! {
    #[test]
    fn stages_take_every_object(object in objects(any_settings(), mistakes())) {
        match validated(&object) {
            Ok(cluster) => prop_assert!(!build(&cluster, cluster.slaves.replicas).0.is_empty()),
            Err(problems) => {
                prop_assert!(problems.iter().all(|it| it.field.starts_with("spec.")), "{problems:?}");
            }
        }
    }

    #[test]
    fn what_was_applied_needs_nothing_more_and_an_edit_leads_where_a_new_cluster_would(
        first in objects(good_settings(), Just(Mistakes::default())),
        second in objects(good_settings(), Just(Mistakes::default())),
    ) {
        let [first, second] = [first, second].map(|object| {
            let mut cluster = validated(&object).expect("there is no mistake in it");
            // Two versions of one object.
            (cluster.name, cluster.namespace) = ("a".into(), "n".into());
            build(&cluster, cluster.slaves.replicas)
        });
        let before = carried_out(Observed::new(), &plan(&first, &Observed::new()));
        prop_assert_eq!(plan(&first, &before), []);
        let edited = carried_out(before.clone(), &plan(&second, &before));
        prop_assert_eq!(plan(&second, &edited), []);
        let new = carried_out(Observed::new(), &plan(&second, &Observed::new()));
        for (key, body) in &new {
            prop_assert_eq!(Some(body), edited.get(key));
        }
        for key in edited.keys().filter(|key| !new.contains_key(*key)) {
            prop_assert!(!key.kind.is_disposable(), "{} is no longer wanted", key);
        }
    }
}
