//! Events on the cluster's object: each change of a condition that a person should see, once.
//!
//! kube's recorder takes events of equal type, action, reason and object for one for six minutes and keeps the first
//! note; so what differs goes into the action.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::runtime::events::{Event, EventType, Recorder, Reporter};
use kube::{Client, Resource};
use tracing::debug;
use vectorsphere_crds::{VectorSphereCluster, VectorSphereClusterStatus};

use crate::conditions::cut;
use crate::names::MANAGER;
use crate::status::SCALING;

/// Longest note that the API server takes.
const NOTE_BYTES_MAX: usize = 1024;

/// Tells people.
pub struct Events {
    recorder: Recorder,
}

/// Something to tell.
#[derive(Clone, Debug, PartialEq, Eq)]
struct News {
    warning: bool,
    action: String,
    reason: String,
    note: String,
}

impl Events {
    /// Reports as the operator in pod `instance`.
    pub fn new(client: Client, instance: Option<String>) -> Events {
        let reporter = Reporter { controller: MANAGER.to_owned(), instance };
        Events { recorder: Recorder::new(client, reporter) }
    }

    /// Tells what is new in `next`. An event that cannot be written is no reason to fail.
    pub async fn tell(&self, object: &VectorSphereCluster, next: &VectorSphereClusterStatus) {
        let before = object.status.clone().unwrap_or_default();
        for news in news(&before, next) {
            let event = Event {
                type_: if news.warning { EventType::Warning } else { EventType::Normal },
                reason: news.reason,
                note: Some(news.note),
                action: news.action,
                secondary: None,
            };
            if let Err(error) = self.recorder.publish(&event, &object.object_ref(&())).await {
                debug!(%error, "an event could not be written");
            }
        }
    }
}

fn news(before: &VectorSphereClusterStatus, next: &VectorSphereClusterStatus) -> Vec<News> {
    let mut all = Vec::new();
    if let Some(leader) = &next.leader
        && before.leader.as_ref().is_none_or(|old| old.epoch != leader.epoch)
    {
        all.push(News {
            warning: false,
            action: format!("Elect{}", leader.epoch),
            reason: "LeaderElected".to_owned(),
            note: format!("{} is Master with epoch {}", leader.pod_name, leader.epoch),
        });
    }
    for condition in &next.conditions {
        let old = before.conditions.iter().find(|old| old.type_ == condition.type_);
        all.extend(of_condition(old, condition));
    }
    all
}

/// Only what somebody should look at, and that it is over; once, and once more when an edit changes what is wrong.
fn of_condition(old: Option<&Condition>, new: &Condition) -> Option<News> {
    let edited =
        |old: &Condition| old.observed_generation != new.observed_generation && old.message != new.message;
    if old.is_some_and(|old| old.status == new.status && old.reason == new.reason && !edited(old)) {
        return None;
    }
    let warning = is_bad(new);
    // A first look that finds all well is no news, but for being ready.
    let over = new.status == good_word(new) && old.is_some_and(|old| old.status == bad_word(new));
    let became_ready = new.type_ == "Ready" && new.status == "True";
    if !(warning || over || became_ready) {
        return None;
    }
    Some(News {
        warning,
        action: format!("{}{}{}", new.type_, new.status, new.observed_generation.unwrap_or_default()),
        reason: new.reason.clone(),
        note: cut(new.message.clone(), NOTE_BYTES_MAX),
    })
}

fn is_bad(condition: &Condition) -> bool {
    let is_of_interest = match condition.type_.as_str() {
        "SpecValid"
        | "Available"
        | "UpToDate"
        | "MetadataStoreReachable"
        | "MetadataStoreSupported"
        | "Stalled" => true,
        // Pods that come and go are the answer to an edit; a refusal is not.
        "ScaledAsSpecified" => condition.reason != SCALING,
        _ => false,
    };
    is_of_interest && condition.status == bad_word(condition)
}

fn bad_word(condition: &Condition) -> &'static str {
    match condition.type_.as_str() {
        "Stalled" => "True",
        // Both go with others that say why.
        "Ready" | "Reconciling" | "LeaderElected" => "-",
        _ => "False",
    }
}

fn good_word(condition: &Condition) -> &'static str {
    if condition.type_ == "Stalled" { "False" } else { "True" }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

    use super::*;
    use crate::conditions::{Verdict, conditions};

    fn status(verdicts: &[Verdict]) -> VectorSphereClusterStatus {
        let now: Time = serde_json::from_value("2026-01-01T00:00:00Z".into()).expect("a time");
        VectorSphereClusterStatus {
            conditions: conditions(verdicts, &[], Some(1), &now),
            ..Default::default()
        }
    }

    fn reasons(before: &VectorSphereClusterStatus, next: &VectorSphereClusterStatus) -> Vec<(bool, String)> {
        news(before, next).into_iter().map(|news| (news.warning, news.reason)).collect()
    }

    #[test]
    fn trouble_is_told_once_and_so_is_its_end() {
        let fine = status(&[Verdict::yes("Available", "Available", "")]);
        let lost = status(&[Verdict::no("Available", "ShardsUnavailable", "")]);
        assert_eq!(reasons(&Default::default(), &fine), []);
        assert_eq!(reasons(&fine, &lost), [(true, "ShardsUnavailable".to_owned())]);
        assert_eq!(reasons(&lost, &lost), []);
        assert_eq!(reasons(&lost, &fine), [(false, "Available".to_owned())]);
    }

    #[test]
    fn an_edit_that_leaves_another_mistake_is_told_and_so_is_each_refusal() {
        let invalid = status(&[Verdict::no("SpecValid", "Invalid", "a")]);
        let mut other = status(&[Verdict::no("SpecValid", "Invalid", "b")]);
        assert_eq!(reasons(&invalid, &other), [], "the same spec, seen twice");
        other.conditions.iter_mut().for_each(|one| one.observed_generation = Some(2));
        assert_eq!(reasons(&invalid, &other), [(true, "Invalid".to_owned())]);
        let [first, second] = [&invalid, &other].map(|it| news(&Default::default(), it).remove(0).action);
        assert_ne!(first, second, "the recorder would keep the first note");

        let refused = status(&[Verdict::no("ScaledAsSpecified", "ShardsWouldBeLost", "")]);
        let scaling = status(&[Verdict::no("ScaledAsSpecified", SCALING, "")]);
        let fine = status(&[Verdict::yes("ScaledAsSpecified", "AsSpecified", "")]);
        assert_eq!(reasons(&fine, &refused), [(true, "ShardsWouldBeLost".to_owned())]);
        assert_eq!(reasons(&refused, &refused), []);
        assert_eq!(reasons(&refused, &scaling), []);
        assert_eq!(reasons(&scaling, &fine), [(false, "AsSpecified".to_owned())]);
    }

    #[test]
    fn notes_fit_into_an_event() {
        let long = status(&[Verdict::no("SpecValid", "Invalid", "x".repeat(3000))]);
        assert_eq!(news(&Default::default(), &long)[0].note.len(), NOTE_BYTES_MAX);
    }

    #[test]
    fn each_master_is_told() {
        let led = |epoch: &str| VectorSphereClusterStatus {
            leader: Some(vectorsphere_crds::LeaderStatus {
                pod_name: "a-master-0".into(),
                epoch: epoch.into(),
                since_time: serde_json::from_value("2026-01-01T00:00:00Z".into()).expect("a time"),
            }),
            ..Default::default()
        };
        assert_eq!(reasons(&Default::default(), &led("7")), [(false, "LeaderElected".to_owned())]);
        assert_eq!(reasons(&led("7"), &led("7")), []);
        assert_eq!(reasons(&led("7"), &led("9")), [(false, "LeaderElected".to_owned())]);
    }

    #[test]
    fn becoming_ready_is_told() {
        let ready = status(&[Verdict::yes("Ready", "Ready", "")]);
        assert_eq!(reasons(&Default::default(), &ready), [(false, "Ready".to_owned())]);
    }
}
