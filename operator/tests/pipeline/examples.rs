//! Objects as users write them, and the way through the pure stages.

use std::collections::BTreeMap;

use k8s_openapi::ByteString;
use vectorsphere_crds::VectorSphereCluster;
use vectorsphere_operator::build::{Desired, build};
use vectorsphere_operator::etcd_secrets::{CA, CERTIFICATE, EtcdSecrets, KEY, PASSWORD, USERNAME};
use vectorsphere_operator::validate::{Cluster, Defaults, Problem, validate};

/// The examples that ship with the definition, by name.
pub(crate) fn shipped() -> [(&'static str, VectorSphereCluster); 2] {
    [
        ("small", parse(include_str!("../../../crds/examples/small.yaml"))),
        ("full", parse(include_str!("../../../crds/examples/full.yaml"))),
    ]
}

/// The smallest example, changed.
pub(crate) fn small(change: impl FnOnce(&mut VectorSphereCluster)) -> VectorSphereCluster {
    let [(_, mut object), _] = shipped();
    change(&mut object);
    object
}

/// The largest example, changed.
pub(crate) fn full(change: impl FnOnce(&mut VectorSphereCluster)) -> VectorSphereCluster {
    let [_, (_, mut object)] = shipped();
    change(&mut object);
    object
}

fn parse(yaml: &str) -> VectorSphereCluster {
    let mut object: VectorSphereCluster = serde_yaml::from_str(yaml).expect("examples are objects");
    object.metadata.namespace.get_or_insert_with(|| "default".into());
    object.metadata.uid = Some("00000000-0000-0000-0000-000000000001".into());
    object.metadata.generation = Some(1);
    object
}

pub(crate) fn defaults() -> Defaults {
    Defaults {
        image_repository: "vectorsphere.io/vectorsphere".into(),
        etcd_image: "vectorsphere.io/etcd:3.6.14".into(),
    }
}

/// Secrets that hold everything that a spec can refer to.
pub(crate) fn secrets(object: &VectorSphereCluster) -> Result<EtcdSecrets, Vec<Problem>> {
    secrets_with(object, &[CA, CERTIFICATE, KEY, USERNAME, PASSWORD])
}

/// Secrets that hold `keys`.
pub(crate) fn secrets_with(object: &VectorSphereCluster, keys: &[&str]) -> Result<EtcdSecrets, Vec<Problem>> {
    let data = |key: &&str| ((*key).to_owned(), ByteString(key.as_bytes().to_vec()));
    let Some(external) = &object.spec.etcd.external else { return Ok(EtcdSecrets::default()) };
    EtcdSecrets::of(external, |_| Ok(keys.iter().map(data).collect()))
}

pub(crate) fn validated(object: &VectorSphereCluster) -> Result<Cluster, Vec<Problem>> {
    validate(object, &BTreeMap::new(), &secrets(object), &defaults())
}

pub(crate) fn desired(object: &VectorSphereCluster) -> Desired {
    let cluster = validated(object).unwrap_or_else(|problems| panic!("{problems:?}"));
    build(&cluster, cluster.slaves.replicas)
}
