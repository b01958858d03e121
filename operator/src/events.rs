//! Events on the cluster's object: each change of a condition that a person should see, once.
//!
//! kube's recorder takes events of equal type, action, reason and object for one for six minutes and keeps the first
//! note; so what differs goes into the action.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::runtime::events::{Event, EventType, Recorder, Reporter};
use kube::{Client, Resource};
use tracing::debug;
use vectorsphere_crds::{VectorSphereCluster, VectorSphereClusterStatus};

use crate::names::MANAGER;
use crate::scale::ScaleDecision;

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
    pub async fn tell(
        &self,
        object: &VectorSphereCluster,
        next: &VectorSphereClusterStatus,
        scale: Option<&ScaleDecision>,
    ) {
        let before = object.status.clone().unwrap_or_default();
        for news in news(&before, next, scale) {
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

fn news(
    before: &VectorSphereClusterStatus,
    next: &VectorSphereClusterStatus,
    scale: Option<&ScaleDecision>,
) -> Vec<News> {
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
    if let Some(ScaleDecision::Refused { reason, message, .. }) = scale {
        all.push(News {
            warning: true,
            action: "RefuseScaleIn".to_owned(),
            reason: (*reason).to_owned(),
            note: message.clone(),
        });
    }
    all
}

/// Only what somebody should look at, and that it is over.
fn of_condition(old: Option<&Condition>, new: &Condition) -> Option<News> {
    let bad_when = match new.type_.as_str() {
        "SpecValid" | "Available" | "UpToDate" | "MetadataStoreReachable" => "False",
        "Stalled" => "True",
        "Ready" if new.status == "True" => "-",
        _ => return None,
    };
    let old_status = old.map_or("Unknown", |old| old.status.as_str());
    let same = old.is_some_and(|old| old.status == new.status && old.reason == new.reason);
    let warning = new.status == bad_when;
    // A first look that finds all well is no news, but for being ready.
    let over = !warning && old_status == bad_when;
    if same || !(warning || over || new.type_ == "Ready") {
        return None;
    }
    Some(News {
        warning,
        action: format!("{}{}", new.type_, new.status),
        reason: new.reason.clone(),
        note: new.message.clone(),
    })
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
        news(before, next, None).into_iter().map(|news| (news.warning, news.reason)).collect()
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
    fn becoming_ready_is_told() {
        let ready = status(&[Verdict::yes("Ready", "Ready", "")]);
        assert_eq!(reasons(&Default::default(), &ready), [(false, "Ready".to_owned())]);
    }
}
