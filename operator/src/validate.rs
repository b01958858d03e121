//! From the object as a user wrote it to a [`Cluster`] that builders can trust. Pure; reports every problem at once.
//!
//! The schema has refused what can be seen from the object alone. Here stands what needs a table of keys, or the
//! objects that exist already.

use std::collections::BTreeMap;

use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::{Resource, ResourceExt};
use serde_yaml::Value;
use vectorsphere_crds::{
    DEFAULT_ETCD_MEMBERS, DEFAULT_MASTERS, DEFAULT_SLAVES, DeletionPolicy, EtcdSpec, ExternalEtcdSpec,
    ImageSpec, ManagedEtcdSpec, NetworkSpec, PullPolicy, QuantityText, ResourcesSpec, SchedulingSpec,
    StorageSpec, TolerationOperator, VectorSphereCluster, quantity_milli,
};

use crate::etcd_secrets::{EtcdSecrets, TlsFiles};
use crate::names::{self, Role};
use crate::settings;

/// What the operator puts in where the spec says nothing.
#[derive(Clone, Debug)]
pub struct Defaults {
    /// Image of the nodes, without tag.
    pub image_repository: String,
    /// Image of a managed etcd.
    pub etcd_image: String,
}

/// A checked cluster with every default filled in.
#[derive(Clone, Debug)]
pub struct Cluster {
    /// Name of the object.
    pub name: String,
    /// Its namespace.
    pub namespace: String,
    /// Makes everything that is built go with the object.
    pub owner: OwnerReference,
    /// Version of the nodes.
    pub version: String,
    /// Image of the nodes.
    pub image: Image,
    /// Master pods.
    pub masters: Group,
    /// Slave pods.
    pub slaves: Group,
    /// Settings that the user gave, by dotted key.
    pub settings: BTreeMap<String, Value>,
    /// The metadata store.
    pub etcd: Etcd,
    /// Prefix of all keys, with slashes around it.
    pub prefix: String,
    /// How clients reach the cluster.
    pub network: NetworkSpec,
}

/// An image and how it is pulled.
#[derive(Clone, Debug)]
pub struct Image {
    /// Repository with tag or digest.
    pub reference: String,
    /// When it is pulled.
    pub pull_policy: PullPolicy,
    /// Names of Secrets to pull with.
    pub pull_secrets: Vec<String>,
}

/// Pods of one StatefulSet.
#[derive(Clone, Debug)]
pub struct Group {
    /// Which.
    pub role: Role,
    /// How many.
    pub replicas: i32,
    /// How large.
    pub resources: ResourcesSpec,
    /// On which volume.
    pub volume: Volume,
    /// Where.
    pub scheduling: SchedulingSpec,
}

/// The volume of each pod of a group.
#[derive(Clone, Debug)]
pub struct Volume {
    /// Its size.
    pub size: QuantityText,
    /// Its storage class; the cluster's default when `None`.
    pub class: Option<String>,
    /// What becomes of it with the cluster.
    pub when_deleted: DeletionPolicy,
    /// What becomes of it when the group shrinks.
    pub when_scaled: DeletionPolicy,
}

/// The metadata store.
#[derive(Clone, Debug)]
pub enum Etcd {
    /// One that exists already.
    External {
        /// Where.
        spec: ExternalEtcdSpec,
        /// Certificates that nodes find.
        tls: TlsFiles,
    },
    /// One that the operator runs.
    Managed {
        /// Its pods.
        group: Group,
        /// Its image.
        image: String,
    },
}

/// Something that is wrong with a spec.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Path of the field.
    pub field: String,
    /// What is wrong and what is allowed.
    pub message: String,
}

impl Cluster {
    /// Name of the cluster in the metadata store: unique in a Kubernetes cluster.
    pub fn service_name(&self) -> String {
        format!("{}.{}", self.namespace, self.name)
    }

    /// The groups that this operator runs as StatefulSets.
    pub fn groups(&self) -> Vec<&Group> {
        let managed = match &self.etcd {
            Etcd::Managed { group, .. } => Some(group),
            Etcd::External { .. } => None,
        };
        managed.into_iter().chain([&self.masters, &self.slaves]).collect()
    }
}

/// URLs at which nodes and operator reach the metadata store; needs no validation, so that the status of a cluster
/// with a mistaken edit goes on.
pub fn etcd_endpoints(object: &VectorSphereCluster) -> Vec<String> {
    if let Some(external) = &object.spec.etcd.external {
        return external.endpoints.clone();
    }
    let (name, namespace) = (object.name_any(), object.namespace().unwrap_or_default());
    let members = etcd_members(&object.spec.etcd);
    (0..members)
        .map(|ordinal| {
            let host = names::service_host(&names::group(&name, Role::Etcd), &namespace);
            format!("http://{}.{host}:{}", names::pod(&name, Role::Etcd, ordinal), names::ETCD_CLIENT_PORT)
        })
        .collect()
}

/// Prefix of all keys of a cluster.
pub fn etcd_prefix(object: &VectorSphereCluster) -> String {
    let default =
        || format!("/vectorsphere/{}.{}/", object.namespace().unwrap_or_default(), object.name_any());
    object.spec.etcd.prefix.clone().unwrap_or_else(default)
}

/// Replicas that the spec asks for, defaults included.
pub fn asked_replicas(object: &VectorSphereCluster, role: Role) -> i32 {
    match role {
        Role::Master => object.spec.master_group().replicas.unwrap_or(DEFAULT_MASTERS),
        Role::Slave => object.spec.slaves.replicas.unwrap_or(DEFAULT_SLAVES),
        Role::Etcd => etcd_members(&object.spec.etcd),
    }
}

fn etcd_members(etcd: &EtcdSpec) -> i32 {
    etcd.managed.as_ref().map_or(0, |managed| managed.replicas.unwrap_or(DEFAULT_ETCD_MEMBERS))
}

/// Checks `object` beside the StatefulSets that exist already and the Secrets that it refers to.
///
/// # Errors
/// Everything that is wrong.
pub fn validate(
    object: &VectorSphereCluster,
    existing: &BTreeMap<Role, StatefulSet>,
    secrets: &Result<EtcdSecrets, Vec<Problem>>,
    defaults: &Defaults,
) -> Result<Cluster, Vec<Problem>> {
    let mut problems = Problems::default();
    let spec = &object.spec;
    if let Err(error) = semver::Version::parse(&spec.version) {
        problems.add("spec.version", format!("must be a version such as `0.1.0`: {error}"));
    }
    let settings = check_settings(&spec.config, &mut problems);
    let tls = match secrets {
        Ok(secrets) => secrets.tls_files(),
        Err(found) => {
            problems.0.extend(found.iter().cloned());
            TlsFiles::default()
        }
    };
    let masters = spec.master_group();
    let group =
        |role, resources: &Option<ResourcesSpec>, volume, scheduling: &Option<SchedulingSpec>| Group {
            role,
            replicas: asked_replicas(object, role),
            resources: resources.clone().unwrap_or_default(),
            volume,
            scheduling: scheduling.clone().unwrap_or_default(),
        };
    let volume = |storage: Option<&StorageSpec>, default| volume(storage, default, spec.deletion_policy);
    let cluster = Cluster {
        name: object.name_any(),
        namespace: object.namespace().unwrap_or_default(),
        owner: object.controller_owner_ref(&()).unwrap_or_default(),
        version: spec.version.clone(),
        image: image(spec.image.as_ref(), &spec.version, defaults),
        masters: group(
            Role::Master,
            &masters.resources,
            volume(masters.storage.as_ref(), MASTER_VOLUME),
            &masters.scheduling,
        ),
        slaves: group(
            Role::Slave,
            &spec.slaves.resources,
            volume(Some(&spec.slaves.storage), ""),
            &spec.slaves.scheduling,
        ),
        settings,
        etcd: match (&spec.etcd.external, &spec.etcd.managed) {
            (Some(external), None) => Etcd::External { spec: external.clone(), tls },
            (None, Some(managed)) => Etcd::Managed {
                group: group(
                    Role::Etcd,
                    &Some(etcd_resources(managed)),
                    volume(managed.storage.as_ref(), ETCD_VOLUME),
                    &None,
                ),
                image: managed.image.clone().unwrap_or_else(|| defaults.etcd_image.clone()),
            },
            (Some(_), Some(_)) | (None, None) => {
                problems.add("spec.etcd", "must have exactly one of `external` and `managed`");
                Etcd::External { spec: ExternalEtcdSpec::default(), tls }
            }
        },
        prefix: etcd_prefix(object),
        network: spec.network.clone().unwrap_or_default(),
    };
    for group in cluster.groups() {
        check_scheduling(group, &mut problems);
        if let Some(set) = existing.get(&group.role) {
            check_volume(group, set, &mut problems);
        }
    }
    check_etcd(&cluster, existing.get(&Role::Etcd), &mut problems);
    check_endpoints(&cluster, &mut problems);
    problems.or(cluster)
}

/// Masters hold no vectors, only what identifies the node.
const MASTER_VOLUME: &str = "1Gi";
/// Room for the quota of the metadata store and its log.
const ETCD_VOLUME: &str = "4Gi";

fn etcd_resources(managed: &ManagedEtcdSpec) -> ResourcesSpec {
    managed.resources.clone().unwrap_or_default()
}

fn volume(storage: Option<&StorageSpec>, default_size: &str, policy: DeletionPolicy) -> Volume {
    let retention = storage.and_then(|storage| storage.retention).unwrap_or_default();
    Volume {
        size: storage.map_or_else(|| default_size.into(), |storage| storage.size.clone()),
        class: storage.and_then(|storage| storage.storage_class_name.clone()),
        when_deleted: retention.when_deleted.unwrap_or(policy),
        when_scaled: retention.when_scaled.unwrap_or(DeletionPolicy::Retain),
    }
}

fn image(spec: Option<&ImageSpec>, version: &str, defaults: &Defaults) -> Image {
    let spec = spec.cloned().unwrap_or_default();
    let repository = spec.repository.unwrap_or_else(|| defaults.image_repository.clone());
    Image {
        reference: match spec.digest {
            Some(digest) => format!("{repository}@{digest}"),
            None => format!("{repository}:{}", spec.tag.as_deref().unwrap_or(version)),
        },
        pull_policy: spec.pull_policy.unwrap_or(PullPolicy::IfNotPresent),
        pull_secrets: spec.pull_secrets.into_iter().map(|secret| secret.name).collect(),
    }
}

fn check_settings(config: &BTreeMap<String, String>, problems: &mut Problems) -> BTreeMap<String, Value> {
    let mut settings = BTreeMap::new();
    for (key, text) in config {
        match settings::parse(key, text) {
            Ok(value) => drop(settings.insert(key.clone(), value)),
            Err(message) => problems.add(format!("spec.config[{key}]"), message),
        }
    }
    settings
}

fn check_scheduling(group: &Group, problems: &mut Problems) {
    for (index, toleration) in group.scheduling.tolerations.iter().enumerate() {
        let everything = toleration.key.as_deref().is_none_or(str::is_empty);
        if everything && toleration.operator != Some(TolerationOperator::Exists) {
            let field = format!("spec.{}s.scheduling.tolerations[{index}].operator", group.role.as_str());
            problems.add(field, "must be `Exists` when `key` is left out");
        }
    }
}

/// The API server refuses any change of volume templates; told here, it names the field that the user edited.
fn check_volume(group: &Group, set: &StatefulSet, problems: &mut Problems) {
    let Some(template) = set.spec.as_ref().and_then(|spec| spec.volume_claim_templates.as_ref()?.first())
    else {
        return;
    };
    let Some(claim) = &template.spec else { return };
    let field = match group.role {
        Role::Etcd => "spec.etcd.managed.storage".to_owned(),
        Role::Master | Role::Slave => format!("spec.{}s.storage", group.role.as_str()),
    };
    let size = claim.resources.as_ref().and_then(|it| it.requests.as_ref()?.get("storage"));
    if let Some(size) = size
        && quantity_milli(&size.0) != group.volume.size.milli()
    {
        let message = format!(
            "may not change from `{}` to `{}`: volumes cannot be resized in this version",
            size.0, group.volume.size
        );
        problems.add(format!("{field}.size"), message);
    }
    let (current, wanted) = (&claim.storage_class_name, &group.volume.class);
    if current != wanted {
        let word = |class: &Option<String>| {
            class.as_ref().map_or_else(|| "the default class".to_owned(), |class| format!("`{class}`"))
        };
        let message = format!("may not change from {} to {}", word(current), word(wanted));
        problems.add(format!("{field}.storageClassName"), message);
    }
}

/// Members that exist have a list of their peers which no template can change.
fn check_etcd(cluster: &Cluster, existing: Option<&StatefulSet>, problems: &mut Problems) {
    let Some(members) = existing.and_then(|set| set.spec.as_ref()?.replicas) else { return };
    match &cluster.etcd {
        Etcd::External { .. } => problems
            .add("spec.etcd", "may not change from `managed` to `external`: the metadata would be lost"),
        Etcd::Managed { group, .. } if group.replicas != members => problems.add(
            "spec.etcd.managed.replicas",
            format!(
                "may not change from {members} to {}: members cannot be added or removed in this version",
                group.replicas
            ),
        ),
        Etcd::Managed { .. } => {}
    }
}

/// Nodes know no roots but those that they are given. (The schema refuses the reverse.)
fn check_endpoints(cluster: &Cluster, problems: &mut Problems) {
    let Etcd::External { spec, .. } = &cluster.etcd else { return };
    if spec.tls_secret_ref.is_none() && spec.endpoints.iter().any(|url| url.starts_with("https://")) {
        problems
            .add("spec.etcd.external.tlsSecretRef", "must be set when an endpoint starts with `https://`");
    }
}

#[derive(Default)]
struct Problems(Vec<Problem>);

impl Problems {
    fn add(&mut self, field: impl Into<String>, message: impl Into<String>) {
        self.0.push(Problem { field: field.into(), message: message.into() });
    }

    fn or<T>(self, value: T) -> Result<T, Vec<Problem>> {
        if self.0.is_empty() { Ok(value) } else { Err(self.0) }
    }
}
