//! The nodes' own `ConfigManager` is the judge of the configuration that the operator writes for them.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::Value;
use vectorsphere::config::{Config, ConfigManager, NodeType, Overrides, Problems, reference};
use vectorsphere_crds::VectorSphereCluster;
use vectorsphere_operator::build::{build, config_yaml};
use vectorsphere_operator::etcd_secrets::CA;
use vectorsphere_operator::manifest::Kind;
use vectorsphere_operator::settings::{self, OWNED, SETTINGS, Shape, WITHHELD};
use vectorsphere_operator::validate::validate;

use crate::examples::{defaults, desired, full, secrets_with, shipped, small, validated};

/// Loads the file of `object` as the container of `role` does: with the arguments and the environment of its pods, and
/// files where Secrets are mounted.
fn load(object: &VectorSphereCluster, role: &str) -> Result<Config, Problems> {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("c.yaml");
    for secret in ["tls/ca.crt", "tls/tls.crt", "tls/tls.key", "auth/password"] {
        let path = folder.path().join(secret);
        std::fs::create_dir_all(path.parent().expect("a folder")).expect("writable");
        std::fs::write(&path, "secret\n").expect("writable");
    }
    let name = object.metadata.name.clone().expect("named");
    let desired = desired(object);
    let body = |kind, name: String| {
        let found = desired.0.iter().find(|it| it.key.kind == kind && it.key.name == name);
        &found.unwrap_or_else(|| panic!("no {kind} {name}")).body
    };
    let text = body(Kind::ConfigMap, format!("{name}-config"))["data"]["c.yaml"].as_str().expect("a file");
    let mounted = folder.path().display().to_string();
    std::fs::write(&file, text.replace("/etc/vectorsphere-etcd", &mounted)).expect("writable");

    let set = body(Kind::StatefulSet, format!("{name}-{role}"));
    let container = &set["spec"]["template"]["spec"]["containers"][0];
    assert_eq!(container["args"][0], "-c");
    assert_eq!(container["args"][2], "-type");
    let node_type = container["args"][3].as_str().expect("a type").to_owned();
    let environment = environment(container, &format!("{name}-{role}-0"));
    let overrides = Overrides {
        environment: environment.into_iter().map(|(name, value)| (name.into(), value.into())).collect(),
        flags: vec![("node_type", node_type, "-type")],
    };
    let manager = ConfigManager::load(Some(file), overrides)?;
    Ok(Config::clone(&manager.current()))
}

/// Variables as the kubelet would set them for the pod of this name.
fn environment(container: &Value, pod: &str) -> Vec<(String, String)> {
    let mut environment: Vec<(String, String)> = Vec::new();
    for variable in container["env"].as_array().expect("variables") {
        let source = &variable["valueFrom"];
        let mut value = match (variable["value"].as_str(), source["fieldRef"]["fieldPath"].as_str()) {
            (Some(text), _) => text.to_owned(),
            (None, Some("metadata.name")) => pod.to_owned(),
            (None, _) if source["secretKeyRef"].is_object() => "somebody".to_owned(),
            (None, other) => panic!("{other:?} is not known here"),
        };
        for (name, earlier) in &environment {
            value = value.replace(&format!("$({name})"), earlier);
        }
        environment.push((variable["name"].as_str().expect("a name").to_owned(), value));
    }
    environment
}

#[test]
fn every_shipped_example_gives_nodes_a_configuration_that_they_take() {
    for (name, object) in shipped() {
        for (role, node_type) in [("master", NodeType::Master), ("slave", NodeType::Slave)] {
            let config = load(&object, role).unwrap_or_else(|why| panic!("{name} {role}: {why}"));
            let cluster = validated(&object).expect("valid");
            assert_eq!(config.node_type, node_type);
            assert_eq!(config.service_name, format!("{}.{}", cluster.namespace, cluster.name));
            assert_eq!(config.etcd.prefix.as_deref(), Some(cluster.prefix.as_str()));
            let pod = format!("{}-{role}-0", cluster.name);
            assert_eq!(config.node_id.as_ref().map(ToString::to_string), Some(pod.clone()));
            let host = format!("{pod}.{}-{role}.{}.svc", cluster.name, cluster.namespace);
            assert_eq!(config.advertise_address, host);
            assert_eq!((config.http_port, config.default_port, config.internal_port), (8080, 9090, 9091));
            assert_eq!(config.data_dir.to_str(), Some("/var/lib/vectorsphere"));
            assert_eq!(config.zone_file.as_deref().and_then(|file| file.to_str()), Some("/etc/podinfo/zone"));
            assert!(config.zone.is_empty());
        }
    }
}

#[test]
fn a_managed_etcd_is_reached_at_its_members() {
    let object = small(|object| object.spec.etcd.managed.as_mut().expect("managed").replicas = Some(3));
    let config = load(&object, "slave").unwrap_or_else(|why| panic!("{why}"));
    let member = |ordinal| format!("http://small-etcd-{ordinal}.small-etcd.default.svc:2379");
    assert_eq!(config.etcd.endpoints, (0..3).map(member).collect::<Vec<_>>());
    assert!(config.etcd.ca_file.is_none() && config.etcd.username.is_empty());
}

#[test]
fn secrets_of_an_external_etcd_reach_nodes_as_files_and_variables() {
    let config = load(&full(|_| ()), "master").unwrap_or_else(|why| panic!("{why}"));
    let is_at = |path: &Option<std::path::PathBuf>, end| path.as_ref().is_some_and(|it| it.ends_with(end));
    assert!(is_at(&config.etcd.ca_file, "tls/ca.crt"));
    assert!(is_at(&config.etcd.cert_file, "tls/tls.crt"));
    assert!(is_at(&config.etcd.key_file, "tls/tls.key"));
    assert_eq!(config.etcd.username, "somebody");
    assert_eq!(config.secret_files.len(), 1, "the password comes from a file");
    let text = config_yaml(&validated(&full(|_| ())).expect("valid"));
    assert!(!text.contains("somebody") && !text.contains("secret"), "{text}");
}

#[test]
fn nodes_are_told_of_no_file_that_the_secret_lacks() {
    let object = full(|object| object.spec.etcd.external.as_mut().expect("external").auth_secret_ref = None);
    let secrets = secrets_with(&object, &[CA]);
    let cluster = validate(&object, &BTreeMap::new(), &secrets, &defaults()).expect("valid");
    let text = config_yaml(&cluster);
    assert!(text.contains("ca_file") && !text.contains("cert_file") && !text.contains("key_file"), "{text}");
}

#[test]
fn endpoints_over_tls_need_roots() {
    let object = full(|object| object.spec.etcd.external.as_mut().expect("external").tls_secret_ref = None);
    let problems = validated(&object).expect_err("nodes would not take it");
    assert_eq!(
        problems.iter().map(|it| it.field.as_str()).collect::<Vec<_>>(),
        ["spec.etcd.external.tlsSecretRef"]
    );
}

/// Texts at both bounds, and those right outside of them.
fn bounds(shape: Shape) -> (Vec<String>, Vec<String>) {
    let (inside, outside) = match shape {
        Shape::Duration(min, max) => {
            let outside = [min.checked_sub(1), Some(max + 1)];
            (vec![min, max], outside.into_iter().flatten().collect::<Vec<_>>())
        }
        Shape::WholeSeconds(min, max) => (vec![min, max], vec![min - 1, min + 1, min - 1000, max + 1000]),
        Shape::Count(min, max) => {
            let outside = [min.checked_sub(1), Some(max + 1)];
            let text = |numbers: Vec<u64>| numbers.iter().map(ToString::to_string).collect();
            return (text(vec![min, max]), text(outside.into_iter().flatten().collect()));
        }
        Shape::Flag => return (vec!["true".into(), "false".into()], vec!["1".into()]),
        Shape::Word(words) => return (words.iter().map(ToString::to_string).collect(), vec!["odd".into()]),
        Shape::LogFilter => {
            let inside = vec!["off".into(), "debug".into(), "info,vectorsphere::cluster=debug".into()];
            return (inside, vec!["loud".into(), "a=b=c".into(), String::new()]);
        }
    };
    let text = |all: Vec<u64>| all.iter().map(|ms| format!("{ms}ms")).collect();
    (text(inside), text(outside))
}

#[test]
fn nodes_take_every_setting_at_both_of_its_bounds() {
    for setting in SETTINGS {
        let (inside, outside) = bounds(setting.shape);
        for text in inside {
            let object = small(|object| drop(object.spec.config.insert(setting.key.into(), text.clone())));
            if let Err(why) = load(&object, "slave") {
                panic!("{} = {text}: {why}", setting.key);
            }
        }
        for text in outside {
            assert!(settings::parse(setting.key, &text).is_err(), "{} = {text}", setting.key);
        }
    }
}

#[test]
fn settings_reach_nodes_with_their_values() {
    let object = small(|object| {
        for (key, value) in [
            ("task_timeout", "0.5"),
            ("master.session_ttl", "7"),
            ("log_level", "debug"),
            ("rate_limit.enabled", "true"),
            ("default_shards", "3"),
        ] {
            object.spec.config.insert(key.into(), value.into());
        }
    });
    let config = load(&object, "master").unwrap_or_else(|why| panic!("{why}"));
    assert_eq!(config.task_timeout, Duration::from_millis(500));
    assert_eq!(config.master.session_ttl, Duration::from_secs(7));
    assert_eq!((config.log_level.as_str(), config.default_shards), ("debug", 3));
    assert!(config.rate_limit.enabled);
}

/// `| key | allowed | default | a reload changes it | meaning |`
#[test]
fn every_key_of_nodes_is_settable_owned_or_withheld_and_hot_where_nodes_say_so() {
    let page = reference();
    let rows: BTreeMap<&str, &str> = page
        .lines()
        .filter(|line| line.starts_with("| `"))
        .map(|line| line.split('|').map(str::trim).collect::<Vec<_>>())
        .map(|cells| (cells[1].trim_matches('`'), cells[4]))
        .collect();
    let mut known: Vec<&str> = SETTINGS.iter().map(|setting| setting.key).collect();
    // The type comes by argument, and belongs to nobody's file.
    known.extend(OWNED.iter().map(|(key, _)| *key).chain(WITHHELD.iter().copied()));
    known.sort_unstable();
    assert_eq!(known, rows.keys().copied().collect::<Vec<_>>());
    for setting in SETTINGS {
        assert_eq!(rows[setting.key] == "yes", setting.hot, "{}", setting.key);
    }
}

#[test]
fn only_settings_that_nodes_do_not_take_over_change_pods() {
    let template = |object: &VectorSphereCluster| {
        let cluster = validated(object).expect("valid");
        let sets = build(&cluster, 2).0.into_iter().filter(|it| it.key.kind == Kind::StatefulSet);
        sets.map(|set| set.body["spec"]["template"].clone()).collect::<Vec<_>>()
    };
    let with = |key: &str, value: &str| {
        small(|object| drop(object.spec.config.insert(key.to_owned(), value.to_owned())))
    };
    let before = template(&small(|_| ()));
    assert_eq!(template(&with("log_level", "debug")), before);
    assert_ne!(template(&with("heartbeat", "1")), before);
}
