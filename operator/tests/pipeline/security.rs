//! Every pod meets the Pod Security Standard `restricted` (kubernetes.io/docs/concepts/security/pod-security-standards),
//! control by control, and has what the design asks of every pod.

use serde_json::{Value, json};
use vectorsphere_operator::manifest::Kind;

use crate::examples::{desired, full, shipped, small};

/// Volumes that the standard allows.
const VOLUMES: [&str; 8] = [
    "configMap",
    "csi",
    "downwardAPI",
    "emptyDir",
    "ephemeral",
    "persistentVolumeClaim",
    "projected",
    "secret",
];

/// Name and pod of every StatefulSet of both examples, and of a cluster whose managed etcd has three members.
fn pods() -> Vec<(String, Value)> {
    let many = small(|object| object.spec.etcd.managed.as_mut().expect("managed").replicas = Some(3));
    let objects = shipped().map(|(_, object)| object).into_iter().chain([many]);
    let sets: Vec<_> = objects
        .flat_map(|object| desired(&object).0)
        .filter(|manifest| manifest.key.kind == Kind::StatefulSet)
        .map(|manifest| (manifest.key.name, manifest.body["spec"]["template"]["spec"].clone()))
        .collect();
    assert_eq!(sets.len(), 3 + 2 + 3);
    sets
}

fn containers(pod: &Value) -> Vec<&Value> {
    ["initContainers", "containers", "ephemeralContainers"]
        .into_iter()
        .filter_map(|kind| pod[kind].as_array())
        .flatten()
        .collect()
}

#[test]
fn pods_meet_the_restricted_profile() {
    for (name, pod) in pods() {
        for shared in ["hostNetwork", "hostPID", "hostIPC", "shareProcessNamespace"] {
            assert!(pod[shared].is_null(), "{name}: {shared}");
        }
        let context = &pod["securityContext"];
        assert_eq!(context["runAsNonRoot"], true, "{name}");
        assert!(context["runAsUser"].as_i64().is_some_and(|user| user > 0), "{name}");
        assert_eq!(context["seccompProfile"]["type"], "RuntimeDefault", "{name}");
        for forbidden in ["sysctls", "seLinuxOptions", "appArmorProfile", "windowsOptions"] {
            assert!(context[forbidden].is_null(), "{name}: {forbidden}");
        }
        for volume in pod["volumes"].as_array().expect("volumes") {
            let kinds: Vec<_> =
                volume.as_object().expect("a volume").keys().filter(|key| *key != "name").collect();
            assert!(kinds.len() == 1 && VOLUMES.contains(&kinds[0].as_str()), "{name}: {kinds:?}");
        }
        for container in containers(&pod) {
            let context = &container["securityContext"];
            assert_eq!(context["allowPrivilegeEscalation"], false, "{name}");
            assert_eq!(context["capabilities"], json!({"drop": ["ALL"]}), "{name}");
            assert_eq!(context["readOnlyRootFilesystem"], true, "{name}: beyond the standard, our own rule");
            for overriding in ["privileged", "runAsUser", "seccompProfile", "procMount", "seLinuxOptions"] {
                assert!(context[overriding].is_null(), "{name}: {overriding}");
            }
            for port in container["ports"].as_array().expect("ports") {
                assert!(port["hostPort"].is_null(), "{name}");
            }
        }
    }
}

#[test]
fn pods_have_probes_no_service_variables_no_token_and_are_spread() {
    for (name, pod) in pods() {
        assert_eq!(pod["enableServiceLinks"], false, "{name}");
        assert_eq!(pod["automountServiceAccountToken"], false, "{name}");
        assert!(pod["serviceAccountName"].is_string(), "{name}");
        let spread = &pod["topologySpreadConstraints"][0];
        assert_eq!(spread["topologyKey"], "topology.kubernetes.io/zone", "{name}");
        assert!(pod["affinity"]["podAntiAffinity"].is_object(), "{name}");
        for container in containers(&pod) {
            for probe in ["startupProbe", "livenessProbe", "readinessProbe"] {
                let port = container[probe]["httpGet"]["port"].as_str().expect("a port by name");
                let ports = container["ports"].as_array().expect("ports");
                assert!(ports.iter().any(|it| it["name"] == port), "{name}: {probe} asks {port}");
            }
        }
    }
}

#[test]
fn nodes_serve_on_until_services_have_taken_them_off() {
    for (name, pod) in pods().into_iter().filter(|(name, _)| !name.ends_with("-etcd")) {
        let pre_stop = pod["containers"][0]["lifecycle"]["preStop"]["sleep"]["seconds"].as_i64();
        let grace = pod["terminationGracePeriodSeconds"].as_i64();
        assert!(pre_stop.zip(grace).is_some_and(|(pause, grace)| pause > 0 && pause < grace), "{name}");
    }
}

#[test]
fn volumes_follow_the_groups_policy_and_else_the_clusters() {
    let policy = |manifests: &[vectorsphere_operator::manifest::Manifest], name: &str| {
        let set = manifests.iter().find(|it| it.key.kind == Kind::StatefulSet && it.key.name == name);
        let policy = &set.expect("there").body["spec"]["persistentVolumeClaimRetentionPolicy"];
        [&policy["whenDeleted"], &policy["whenScaled"]].map(|it| it.as_str().expect("said").to_owned())
    };
    let kept = desired(&small(|_| ())).0;
    let deleted = desired(&small(|object| {
        object.spec.deletion_policy = vectorsphere_crds::DeletionPolicy::Delete;
    }));
    for group in ["etcd", "master", "slave"] {
        assert_eq!(policy(&kept, &format!("small-{group}")), ["Retain", "Retain"]);
        assert_eq!(policy(&deleted.0, &format!("small-{group}")), ["Delete", "Retain"]);
    }
    let own = desired(&full(|object| {
        object.spec.deletion_policy = vectorsphere_crds::DeletionPolicy::Delete;
    }));
    assert_eq!(policy(&own.0, "search-slave"), ["Retain", "Retain"], "the group says so itself");
}
