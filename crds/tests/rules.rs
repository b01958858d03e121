//! The CEL rules of the schema, evaluated without a server: each has an object that passes and one that fails.

use vectorsphere_crds::{
    EtcdSpec, ExternalEtcdSpec, ImageSpec, ManagedEtcdSpec, ResourcesSpec, SecretRef, StorageSpec,
    VectorSphereCluster,
};

fn example(yaml: &str) -> VectorSphereCluster {
    serde_yaml::from_str(yaml).expect("examples are valid objects")
}

fn small() -> VectorSphereCluster {
    example(include_str!("../examples/small.yaml"))
}

fn full() -> VectorSphereCluster {
    example(include_str!("../examples/full.yaml"))
}

fn created(change: impl FnOnce(&mut VectorSphereCluster)) -> Result<(), String> {
    let mut cluster = small();
    change(&mut cluster);
    cluster.validate_cel().map_err(|error| format!("{error:?}"))
}

fn edited(old: VectorSphereCluster, change: impl FnOnce(&mut VectorSphereCluster)) -> Result<(), String> {
    let mut new = old.clone();
    change(&mut new);
    new.validate_cel_update(&old).map_err(|error| format!("{error:?}"))
}

#[track_caller]
fn refused(result: Result<(), String>, message: &str) {
    let error = result.expect_err("the rule must refuse this");
    assert!(error.contains(message), "expected `{message}` in: {error}");
}

#[test]
fn the_examples_pass() {
    for cluster in [small(), full()] {
        assert_eq!(cluster.validate_cel().map_err(|error| format!("{error:?}")), Ok(()));
        assert_eq!(edited(cluster, |_| ()), Ok(()));
    }
}

#[test]
fn names_fit_services_and_labels() {
    assert_eq!(created(|cluster| cluster.metadata.name = Some("a".repeat(40))), Ok(()));
    refused(created(|cluster| cluster.metadata.name = Some("a".repeat(41))), "at most 40 characters");
    refused(created(|cluster| cluster.metadata.name = Some("1st".into())), "must start with a letter");
    refused(created(|cluster| cluster.metadata.name = Some("a.b".into())), "must start with a letter");
}

#[test]
fn configuration_keys_have_a_shape() {
    assert_eq!(
        created(|cluster| drop(cluster.spec.config.insert("master.session_ttl".into(), "5".into()))),
        Ok(())
    );
    for key in ["", "A", "a..b", ".a", "a b", "a-b", &"a".repeat(129)] {
        refused(
            created(|cluster| drop(cluster.spec.config.insert(key.to_owned(), "5".into()))),
            "keys of `config` must look like",
        );
    }
}

#[test]
fn an_image_has_a_tag_or_a_digest() {
    let image = |tag: Option<&str>, digest: Option<&str>| ImageSpec {
        tag: tag.map(str::to_owned),
        digest: digest.map(str::to_owned),
        ..ImageSpec::default()
    };
    for good in [image(None, None), image(Some("1"), None), image(None, Some("sha256:0"))] {
        assert_eq!(created(|cluster| cluster.spec.image = Some(good)), Ok(()));
    }
    refused(
        created(|cluster| cluster.spec.image = Some(image(Some("1"), Some("sha256:0")))),
        "set `tag` or `digest`, not both",
    );
}

#[test]
fn limits_are_at_least_requests() {
    let resources = |request: &str, limit: &str| ResourcesSpec {
        requests: [("memory".to_owned(), request.into())].into(),
        limits: [("memory".to_owned(), limit.into())].into(),
    };
    assert_eq!(created(|cluster| cluster.spec.slaves.resources = Some(resources("1Gi", "1024Mi"))), Ok(()));
    refused(
        created(|cluster| cluster.spec.slaves.resources = Some(resources("1Gi", "1G"))),
        "`limits.memory` must be at least `requests.memory`",
    );
}

#[test]
fn exactly_one_etcd() {
    refused(
        created(|cluster| cluster.spec.etcd = EtcdSpec::default()),
        "exactly one of `external` and `managed`",
    );
    refused(
        created(|cluster| cluster.spec.etcd.external = full().spec.etcd.external),
        "exactly one of `external` and `managed`",
    );
    refused(
        edited(small(), |cluster| cluster.spec.etcd = EtcdSpec { prefix: None, ..full().spec.etcd }),
        "may not be exchanged",
    );
}

#[test]
fn a_managed_etcd_has_an_odd_number_of_members_for_life() {
    let managed = |replicas| Some(ManagedEtcdSpec { replicas, ..ManagedEtcdSpec::default() });
    for good in [None, Some(1), Some(3), Some(5)] {
        assert_eq!(created(|cluster| cluster.spec.etcd.managed = managed(good)), Ok(()));
    }
    refused(created(|cluster| cluster.spec.etcd.managed = managed(Some(2))), "`replicas` must be 1, 3 or 5");
    refused(
        edited(small(), |cluster| cluster.spec.etcd.managed = managed(Some(3))),
        "`replicas` may not change",
    );
    refused(
        edited(small(), |cluster| cluster.spec.etcd.managed = managed(None)),
        "`replicas` may not change",
    );
}

#[test]
fn certificates_need_https() {
    let external = |endpoint: &str| ExternalEtcdSpec {
        endpoints: vec![endpoint.to_owned()],
        tls_secret_ref: Some(SecretRef { name: "etcd".into() }),
        auth_secret_ref: None,
    };
    let etcd = |endpoint| EtcdSpec { external: Some(external(endpoint)), managed: None, prefix: None };
    assert_eq!(created(|cluster| cluster.spec.etcd = etcd("https://etcd:2379")), Ok(()));
    refused(created(|cluster| cluster.spec.etcd = etcd("http://etcd:2379")), "must start with `https://`");
}

#[test]
fn the_prefix_stays() {
    refused(edited(full(), |cluster| cluster.spec.etcd.prefix = None), "`prefix` may not change");
    refused(
        edited(full(), |cluster| cluster.spec.etcd.prefix = Some("/other/".into())),
        "`prefix` may not change",
    );
}

#[test]
fn volumes_stay_as_they_are() {
    let equal = edited(small(), |cluster| cluster.spec.slaves.storage.size = "5120Mi".into());
    assert_eq!(equal, Ok(()), "the same amount in other words");
    refused(
        edited(small(), |cluster| cluster.spec.slaves.storage.size = "6Gi".into()),
        "`size` may not change",
    );
    refused(created(|cluster| cluster.spec.slaves.storage.size = "0".into()), "`size` must be more than 0");
    refused(
        edited(full(), |cluster| cluster.spec.slaves.storage.storage_class_name = None),
        "`storageClassName` may not change",
    );
    let storage = StorageSpec { size: "1Gi".into(), storage_class_name: None, retention: None };
    refused(
        edited(small(), |cluster| {
            cluster.spec.masters.as_mut().expect("the example has masters").storage = Some(storage);
        }),
        "`storage` may not be added or removed",
    );
}

#[test]
fn slaves_may_grow_and_shrink_in_the_schema() {
    for replicas in [None, Some(0), Some(9)] {
        assert_eq!(edited(small(), |cluster| cluster.spec.slaves.replicas = replicas), Ok(()));
    }
}
