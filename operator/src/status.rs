//! The status of a cluster from what was observed. Pure.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::ResourceExt;
use vectorsphere_crds::{
    EndpointsStatus, EtcdStatus, GroupStatus, LeaderStatus, ShardsStatus, VectorSphereCluster,
    VectorSphereClusterStatus, VersionStatus,
};

use crate::conditions::{Verdict, conditions};
use crate::fetch::Fetched;
use crate::group::GroupState;
use crate::metadata::{MetadataView, STORE_VERSIONS, is_supported};
use crate::names::{self, Role};
use crate::scale::ScaleDecision;
use crate::validate::{Problem, asked_replicas, etcd_endpoints, etcd_prefix};

/// What a reconcile came to, beside what it fetched.
pub struct Outcome<'o> {
    /// What is wrong with the spec.
    pub problems: &'o [Problem],
    /// What became of the wish for slaves; `None` with a spec that is wrong.
    pub scale: Option<&'o ScaleDecision>,
    /// A write that failed.
    pub failure: Option<String>,
    /// The operator only reports.
    pub paused: bool,
    /// StatefulSets were written just now: what was fetched of pods is from before.
    pub pods_touched: bool,
}

/// Reason of `ScaledAsSpecified` while pods come or go.
pub const SCALING: &str = "Scaling";
/// Reason of `UpToDate` while pods run an older revision.
const OUTDATED: &str = "PodsOutdated";

/// The new status.
pub fn status(
    object: &VectorSphereCluster,
    fetched: &Fetched,
    outcome: &Outcome<'_>,
    now: &Time,
) -> VectorSphereClusterStatus {
    let (name, namespace) = (object.name_any(), object.namespace().unwrap_or_default());
    let before = object.status.clone().unwrap_or_default();
    let metadata = fetched.metadata.as_ref().ok();
    let group = |role| fetched.groups.get(&role).cloned().unwrap_or_default();
    let slaves = group(Role::Slave);
    let generation = object.metadata.generation;
    let verdicts = verdicts(object, fetched, outcome);
    let host = names::service_host(&names::client_service(&name), &namespace);
    let ingress = object.spec.network.as_ref().and_then(|network| network.ingress.as_ref());
    VectorSphereClusterStatus {
        observed_generation: generation,
        conditions: conditions(&verdicts, &before.conditions, generation, now),
        selector: Some(names::selector_text(&name, Role::Slave)),
        replicas: slaves.pods.len() as i32,
        ready_replicas: slaves.ready.len() as i32,
        masters: Some(group_status(object, Role::Master, &group(Role::Master))),
        slaves: Some(group_status(object, Role::Slave, &slaves)),
        version: Some(VersionStatus {
            current: metadata.and_then(MetadataView::common_version),
            target: object.spec.version.clone(),
        }),
        leader: leader(&before, metadata, now),
        endpoints: Some(EndpointsStatus {
            http: format!("http://{host}:{}", names::HTTP_PORT),
            grpc: format!("{host}:{}", names::GRPC_PORT),
            ingress: ingress.map(|ingress| {
                let scheme = if ingress.tls_secret_ref.is_some() { "https" } else { "http" };
                format!("{scheme}://{}", ingress.host)
            }),
        }),
        etcd: Some(EtcdStatus {
            mode: if object.spec.etcd.managed.is_some() { "Managed" } else { "External" }.to_owned(),
            prefix: etcd_prefix(object),
            endpoints: etcd_endpoints(object),
            ready_members: object.spec.etcd.managed.as_ref().map(|_| group(Role::Etcd).ready.len() as i32),
        }),
        // While the store cannot be read the last counts stay: the condition says that they are old.
        shards: metadata.map(shards).or(before.shards),
    }
}

fn group_status(object: &VectorSphereCluster, role: Role, group: &GroupState) -> GroupStatus {
    GroupStatus {
        desired: asked_replicas(object, role),
        ready: group.ready.len() as i32,
        updated: (group.pods.len() - group.outdated.len()) as i32,
        current_revision: group.current_revision.clone(),
        update_revision: group.update_revision.clone(),
    }
}

/// The Master; since when, as far as the operator has seen it.
fn leader(
    before: &VectorSphereClusterStatus,
    metadata: Option<&MetadataView>,
    now: &Time,
) -> Option<LeaderStatus> {
    // Without a look at the store the last one is what is known.
    let Some(metadata) = metadata else { return before.leader.clone() };
    let leader = metadata.leader.as_ref()?;
    let epoch = leader.epoch.to_string();
    let same = before.leader.as_ref().filter(|old| old.epoch == epoch && old.pod_name == leader.node_id);
    Some(LeaderStatus {
        pod_name: leader.node_id.clone(),
        since_time: same.map_or_else(|| now.clone(), |old| old.since_time.clone()),
        epoch,
    })
}

fn shards(metadata: &MetadataView) -> ShardsStatus {
    let count = |keep: &dyn Fn(&crate::metadata::Shard) -> bool| {
        metadata.shards.iter().filter(|shard| keep(shard)).count() as i32
    };
    ShardsStatus {
        total: metadata.shards.len() as i32,
        available: metadata.available_shards() as i32,
        under_replicated: count(&|shard| (shard.in_sync.len() as u32) < shard.wanted),
        unassigned: count(&|shard| !shard.has_primary),
    }
}

fn verdicts(object: &VectorSphereCluster, fetched: &Fetched, outcome: &Outcome<'_>) -> Vec<Verdict> {
    let mut all = vec![
        spec_valid(outcome),
        metadata_reachable(fetched),
        metadata_supported(fetched),
        leader_elected(fetched),
        available(fetched),
        up_to_date(object, fetched, outcome),
        scaled(object, fetched, outcome),
        stalled(outcome),
    ];
    all.push(reconciling(&all));
    all.push(ready(object, fetched, outcome, &all));
    all
}

fn spec_valid(outcome: &Outcome<'_>) -> Verdict {
    if outcome.problems.is_empty() {
        return Verdict::yes("SpecValid", "Valid", "the spec can be carried out");
    }
    let problems: Vec<_> =
        outcome.problems.iter().map(|problem| format!("`{}` {}", problem.field, problem.message)).collect();
    let message = format!("what was running goes on unchanged; {}", problems.join("; "));
    Verdict::no("SpecValid", "Invalid", message)
}

fn metadata_reachable(fetched: &Fetched) -> Verdict {
    match &fetched.metadata {
        Ok(_) => {
            Verdict::yes("MetadataStoreReachable", "Reachable", "the operator can read the metadata store")
        }
        Err(why) => Verdict::no("MetadataStoreReachable", "Unreachable", why.clone()),
    }
}

/// An old etcd is a warning, not a refusal: the user runs it, and it works for most.
fn metadata_supported(fetched: &Fetched) -> Verdict {
    const TYPE: &str = "MetadataStoreSupported";
    let Ok(metadata) = &fetched.metadata else { return unread(TYPE) };
    let version = metadata.store_version.as_deref().unwrap_or_default();
    let allowed: Vec<_> = STORE_VERSIONS.iter().map(ToString::to_string).collect();
    match is_supported(version) {
        Some(true) => Verdict::yes(TYPE, "Supported", format!("etcd is of version {version}")),
        Some(false) => Verdict::no(
            TYPE,
            "OldVersion",
            format!(
                "etcd {version} has known faults; use one of {}, or a newer patch of the same line",
                allowed.join(", ")
            ),
        ),
        None => Verdict::unknown(TYPE, "VersionNotTold", "etcd does not tell the operator its version"),
    }
}

fn leader_elected(fetched: &Fetched) -> Verdict {
    match fetched.metadata.as_ref().map(|metadata| &metadata.leader) {
        Ok(Some(leader)) => Verdict::yes(
            "LeaderElected",
            "Elected",
            format!("{} is Master with epoch {}", leader.node_id, leader.epoch),
        ),
        Ok(None) => Verdict::no("LeaderElected", "NoCandidate", "no master is registered for election"),
        Err(_) => unread("LeaderElected"),
    }
}

fn available(fetched: &Fetched) -> Verdict {
    let Ok(metadata) = &fetched.metadata else { return unread("Available") };
    let (total, available) = (metadata.shards.len(), metadata.available_shards());
    if metadata.leader.is_none() {
        return Verdict::no("Available", "NoLeader", "no Master is elected");
    }
    match total - available {
        0 => Verdict::yes("Available", "Available", format!("{total} of {total} shards are available")),
        missing => Verdict::no(
            "Available",
            "ShardsUnavailable",
            format!("{missing} of {total} shards have no copy in sync on a live node"),
        ),
    }
}

fn unread(type_: &'static str) -> Verdict {
    Verdict::unknown(type_, "MetadataStoreUnreachable", "the metadata store cannot be read")
}

/// Rolling upgrades come with a later version; until then a person deletes the pods that this names.
fn up_to_date(object: &VectorSphereCluster, fetched: &Fetched, outcome: &Outcome<'_>) -> Verdict {
    let settled = |role: &Role| fetched.groups.get(role).is_some_and(|group| group.settled);
    if outcome.pods_touched || !groups_of(object).iter().all(settled) {
        return Verdict::unknown(
            "UpToDate",
            "NotObserved",
            "Kubernetes has not seen the newest revision yet",
        );
    }
    let outdated: Vec<_> = fetched.groups.values().flat_map(|group| &group.outdated).cloned().collect();
    if outdated.is_empty() {
        return Verdict::yes("UpToDate", "UpToDate", "every pod runs the newest revision");
    }
    let message =
        format!("these pods run an older revision and change when they are deleted: {}", outdated.join(", "));
    Verdict::no("UpToDate", OUTDATED, message)
}

/// The groups that the spec asks for.
fn groups_of(object: &VectorSphereCluster) -> Vec<Role> {
    let managed = object.spec.etcd.managed.is_some().then_some(Role::Etcd);
    managed.into_iter().chain([Role::Master, Role::Slave]).collect()
}

fn scaled(object: &VectorSphereCluster, fetched: &Fetched, outcome: &Outcome<'_>) -> Verdict {
    match outcome.scale {
        Some(ScaleDecision::Refused { reason, message, .. }) => {
            Verdict::no("ScaledAsSpecified", reason, message.clone())
        }
        Some(ScaleDecision::Granted { .. }) | None => {
            let differing: Vec<_> = groups_of(object)
                .into_iter()
                .filter_map(|role| {
                    let pods = fetched.groups.get(&role).map_or(0, |group| group.pods.len() as i32);
                    let asked = asked_replicas(object, role);
                    (pods != asked).then(|| format!("{pods} of {asked} {} pods exist", role.as_str()))
                })
                .collect();
            match differing.is_empty() {
                true => {
                    Verdict::yes("ScaledAsSpecified", "AsSpecified", "every group has its number of pods")
                }
                false => Verdict::no("ScaledAsSpecified", SCALING, differing.join(", ")),
            }
        }
    }
}

fn stalled(outcome: &Outcome<'_>) -> Verdict {
    match &outcome.failure {
        Some(failure) => Verdict::yes("Stalled", "WriteFailed", failure.clone()),
        None if !outcome.problems.is_empty() => {
            Verdict::yes("Stalled", "SpecInvalid", "waits for an edit of the spec")
        }
        None => Verdict::no("Stalled", "Progressing", "nothing is in the way"),
    }
}

fn holds(verdicts: &[Verdict], type_: &str) -> bool {
    verdicts.iter().any(|verdict| verdict.type_ == type_ && verdict.holds == Some(true))
}

/// Something is under way that comes to its end without help.
fn reconciling(verdicts: &[Verdict]) -> Verdict {
    let of = |type_: &str| verdicts.iter().find(|verdict| verdict.type_ == type_);
    let waits = |type_| {
        of(type_).is_some_and(|it| it.holds == Some(false) && it.reason != SCALING)
            && matches!(type_, "ScaledAsSpecified" | "UpToDate")
    };
    let open = ["ScaledAsSpecified", "UpToDate", "Available"];
    let mut open = open.into_iter().filter(|type_| !holds(verdicts, type_));
    match open.next() {
        None => Verdict::no("Reconciling", "AtRest", "nothing is under way"),
        Some(_) if holds(verdicts, "Stalled") => {
            Verdict::no("Reconciling", "Stalled", "something is in the way, see `Stalled`")
        }
        Some(first) if waits(first) && open.all(waits) => {
            Verdict::no("Reconciling", "WaitsForUser", "what is left to do needs a person")
        }
        Some(_) => Verdict::yes("Reconciling", "Converging", "the cluster is not yet as its spec says"),
    }
}

/// Ready: valid, elected, available, every pod there, of the newest revision and ready.
fn ready(
    object: &VectorSphereCluster,
    fetched: &Fetched,
    outcome: &Outcome<'_>,
    verdicts: &[Verdict],
) -> Verdict {
    if outcome.paused {
        return Verdict::unknown(
            "Ready",
            "Paused",
            "`reconcilePolicy` is `Paused`: the operator only reports",
        );
    }
    if let Some(failure) = &outcome.failure {
        return Verdict::no("Ready", "WriteFailed", failure.clone());
    }
    for type_ in
        ["SpecValid", "MetadataStoreReachable", "LeaderElected", "Available", "ScaledAsSpecified", "UpToDate"]
    {
        if let Some(verdict) = verdicts.iter().find(|one| one.type_ == type_ && one.holds != Some(true)) {
            return Verdict::no("Ready", verdict.reason, verdict.message.clone());
        }
    }
    for role in groups_of(object) {
        let (ready, asked) = (
            fetched.groups.get(&role).map_or(0, |group| group.ready.len() as i32),
            asked_replicas(object, role),
        );
        if ready < asked {
            let message = format!("{ready} of {asked} {} pods are ready", role.as_str());
            return Verdict::no("Ready", "PodsNotReady", message);
        }
    }
    Verdict::yes("Ready", "Ready", "the cluster is as its spec says and serves")
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::etcd_secrets::EtcdSecrets;
    use crate::metadata::{Leader, Shard};

    fn object() -> VectorSphereCluster {
        let mut object: VectorSphereCluster =
            serde_yaml::from_str(include_str!("../../crds/examples/small.yaml")).expect("an example");
        object.metadata.name = Some("a".into());
        object.metadata.namespace = Some("n".into());
        object.metadata.generation = Some(4);
        object
    }

    fn group(role: Role, count: i32, ready: i32) -> GroupState {
        let pods: Vec<_> = (0..count).map(|ordinal| names::pod("a", role, ordinal)).collect();
        GroupState {
            ready: pods[..ready as usize].to_vec(),
            pods,
            settled: true,
            set_replicas: Some(count),
            ..GroupState::default()
        }
    }

    fn fetched(object: &VectorSphereCluster) -> Fetched {
        let groups = [Role::Etcd, Role::Master, Role::Slave].map(|role| {
            let asked = asked_replicas(object, role);
            (role, group(role, asked, asked))
        });
        let leader = Some(Leader { node_id: "a-master-1".into(), epoch: 7 });
        let view = MetadataView { leader, ..MetadataView::default() };
        Fetched {
            observed: BTreeMap::new(),
            sets: BTreeMap::new(),
            groups: groups.into(),
            zones: Vec::new(),
            secrets: Ok(EtcdSecrets::default()),
            metadata: Ok(view),
        }
    }

    fn outcome() -> Outcome<'static> {
        Outcome { problems: &[], scale: None, failure: None, paused: false, pods_touched: false }
    }

    fn now(day: u32) -> Time {
        serde_json::from_value(format!("2026-01-{day:02}T00:00:00Z").into()).expect("a time")
    }

    fn said(status: &VectorSphereClusterStatus, type_: &str) -> (String, String) {
        let one = status.conditions.iter().find(|one| one.type_ == type_).expect("every type is there");
        (one.status.clone(), one.reason.clone())
    }

    #[test]
    fn a_whole_cluster_is_ready_and_names_its_master() {
        let object = object();
        let status = status(&object, &fetched(&object), &outcome(), &now(1));
        assert_eq!(said(&status, "Ready"), ("True".into(), "Ready".into()));
        assert_eq!(said(&status, "Reconciling"), ("False".into(), "AtRest".into()));
        assert_eq!(status.observed_generation, Some(4));
        let leader = status.leader.expect("elected");
        assert_eq!((leader.pod_name.as_str(), leader.epoch.as_str()), ("a-master-1", "7"));
    }

    #[test]
    fn a_leader_is_since_the_operator_first_saw_its_epoch() {
        let mut object = object();
        let mut fetched = fetched(&object);
        object.status = Some(status(&object, &fetched, &outcome(), &now(1)));
        let again = status(&object, &fetched, &outcome(), &now(2));
        assert_eq!(
            again,
            object.status.clone().expect("set above"),
            "nothing changed, so nothing is written"
        );
        fetched.metadata.as_mut().expect("readable").leader =
            Some(Leader { node_id: "a-master-1".into(), epoch: 9 });
        let next = status(&object, &fetched, &outcome(), &now(3));
        assert_eq!(next.leader.expect("elected").since_time, now(3));
    }

    #[test]
    fn what_is_wrong_first_is_the_reason_of_not_being_ready() {
        let object = object();
        let mut all = fetched(&object);
        all.groups.insert(Role::Slave, group(Role::Slave, 2, 1));
        assert_eq!(said(&status(&object, &all, &outcome(), &now(1)), "Ready").1, "PodsNotReady");
        let lost = Shard { holders: ["gone".to_owned()].into(), wanted: 1, ..Shard::default() };
        all.metadata.as_mut().expect("readable").shards.push(lost);
        assert_eq!(said(&status(&object, &all, &outcome(), &now(1)), "Ready").1, "ShardsUnavailable");
        all.metadata = Err("no route".into());
        let unread = status(&object, &all, &outcome(), &now(1));
        assert_eq!(said(&unread, "Ready").1, "Unreachable");
        assert_eq!(said(&unread, "Available").0, "Unknown");
        let problems = [Problem { field: "spec.version".into(), message: "must be a version".into() }];
        let invalid = Outcome { problems: &problems, ..outcome() };
        let invalid = status(&object, &all, &invalid, &now(1));
        assert_eq!(
            (said(&invalid, "Ready").1, said(&invalid, "Stalled").0),
            ("Invalid".into(), "True".into())
        );
    }

    #[test]
    fn outdated_pods_and_a_refused_scale_in_are_told() {
        let object = object();
        let mut all = fetched(&object);
        all.groups.get_mut(&Role::Master).expect("there").outdated = vec!["a-master-0".into()];
        let refused = ScaleDecision::Refused {
            replicas: 3,
            reason: "ShardsWouldBeLost",
            message: "a-slave-2 holds 1".into(),
        };
        let outcome = Outcome { scale: Some(&refused), ..outcome() };
        let status = status(&object, &all, &outcome, &now(1));
        assert_eq!(said(&status, "UpToDate"), ("False".into(), "PodsOutdated".into()));
        assert_eq!(said(&status, "ScaledAsSpecified"), ("False".into(), "ShardsWouldBeLost".into()));
        let message = &status.conditions.iter().find(|one| one.type_ == "UpToDate").expect("there").message;
        assert!(message.contains("a-master-0"), "{message}");
    }
    #[test]
    fn nothing_is_up_to_date_before_kubernetes_has_seen_the_newest_revision() {
        let object = object();
        let mut all = fetched(&object);
        let touched = Outcome { pods_touched: true, ..outcome() };
        let next = status(&object, &all, &touched, &now(1));
        assert_eq!(said(&next, "UpToDate").0, "Unknown");
        assert_eq!(said(&next, "Ready"), ("False".into(), "NotObserved".into()));
        all.groups.get_mut(&Role::Etcd).expect("there").settled = false;
        assert_eq!(said(&status(&object, &all, &outcome(), &now(1)), "UpToDate").0, "Unknown");
        all.groups.remove(&Role::Etcd);
        assert_eq!(said(&status(&object, &all, &outcome(), &now(1)), "UpToDate").0, "Unknown");
    }

    #[test]
    fn a_failed_write_is_told_with_its_reason() {
        let object = object();
        let failed = Outcome { failure: Some("failed to apply Service a".into()), ..outcome() };
        let next = status(&object, &fetched(&object), &failed, &now(1));
        assert_eq!(said(&next, "Stalled"), ("True".into(), "WriteFailed".into()));
        assert_eq!(said(&next, "Ready"), ("False".into(), "WriteFailed".into()));
    }

    #[test]
    fn a_paused_cluster_is_neither_ready_nor_not() {
        let object = object();
        let paused = Outcome { paused: true, ..outcome() };
        let next = status(&object, &fetched(&object), &paused, &now(1));
        assert_eq!(said(&next, "Ready"), ("Unknown".into(), "Paused".into()));
        assert_eq!(said(&next, "LeaderElected").0, "True", "what can be seen is told");
    }

    #[test]
    fn reconciling_means_that_no_person_is_needed() {
        let object = object();
        let refused =
            ScaleDecision::Refused { replicas: 3, reason: "ShardsWouldBeLost", message: String::new() };
        let outdated = |all: &mut Fetched| {
            all.groups.get_mut(&Role::Master).expect("there").outdated = vec!["a-master-0".into()];
        };
        let too_few = |all: &mut Fetched| drop(all.groups.insert(Role::Slave, group(Role::Slave, 1, 1)));
        let no_leader = |all: &mut Fetched| all.metadata.as_mut().expect("readable").leader = None;
        type Change<'c> = &'c dyn Fn(&mut Fetched);
        let cases: [(&[Change<'_>], bool, &str); 7] = [
            (&[], false, "AtRest"),
            (&[&outdated], false, "WaitsForUser"),
            (&[], true, "WaitsForUser"),
            (&[&outdated], true, "WaitsForUser"),
            (&[&too_few], false, "Converging"),
            (&[&too_few, &outdated], false, "Converging"),
            (&[&no_leader], true, "Converging"),
        ];
        for (number, (changes, is_refused, expected)) in cases.into_iter().enumerate() {
            let mut all = fetched(&object);
            changes.iter().for_each(|change| change(&mut all));
            let outcome = Outcome { scale: is_refused.then_some(&refused), ..outcome() };
            let next = status(&object, &all, &outcome, &now(1));
            assert_eq!(said(&next, "Reconciling").1, expected, "case {number}");
        }
    }

    #[test]
    fn an_old_etcd_is_a_warning_beside_a_ready_cluster() {
        let object = object();
        let mut all = fetched(&object);
        for (version, expected) in [(None, "Unknown"), (Some("3.6.1"), "False"), (Some("3.6.14"), "True")] {
            all.metadata.as_mut().expect("readable").store_version = version.map(str::to_owned);
            let next = status(&object, &all, &outcome(), &now(1));
            assert_eq!(said(&next, "MetadataStoreSupported").0, expected);
            assert_eq!(said(&next, "Ready").0, "True");
        }
    }

    #[test]
    fn counts_of_shards_stay_while_the_store_cannot_be_read() {
        let mut object = object();
        let mut all = fetched(&object);
        let on = |node: &str| Shard { in_sync: [node.to_owned()].into(), wanted: 1, ..Shard::default() };
        let view = all.metadata.as_mut().expect("readable");
        view.nodes.insert("a-slave-0".into(), "0.1.0".into());
        view.shards = vec![on("a-slave-0"), on("a-slave-9")];
        object.status = Some(status(&object, &all, &outcome(), &now(1)));
        let shards = object.status.as_ref().and_then(|it| it.shards.clone()).expect("told");
        let expected = ShardsStatus { total: 2, available: 1, under_replicated: 0, unassigned: 2 };
        assert_eq!(shards, expected);
        all.metadata = Err("no route".into());
        let unread = status(&object, &all, &outcome(), &now(2));
        assert_eq!((unread.shards, unread.leader.map(|it| it.epoch)), (Some(expected), Some("7".into())));
    }
}
