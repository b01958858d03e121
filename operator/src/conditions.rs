//! Conditions of a cluster: built from what was observed, with the time of their last flip kept. Pure.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};

/// Every type of condition, in the order in which status shows them.
pub const TYPES: [&str; 10] = [
    "Ready",
    "Reconciling",
    "Stalled",
    "Available",
    "LeaderElected",
    "MetadataStoreReachable",
    "MetadataStoreSupported",
    "UpToDate",
    "ScaledAsSpecified",
    "SpecValid",
];

/// Longest message; longer ones are cut.
const MESSAGE_BYTES_MAX: usize = 4096;

/// What is said about one type.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// One of [`TYPES`].
    pub type_: &'static str,
    /// `None`: not known.
    pub holds: Option<bool>,
    /// One word in CamelCase.
    pub reason: &'static str,
    /// For people.
    pub message: String,
}

impl Verdict {
    /// It is so.
    pub fn yes(type_: &'static str, reason: &'static str, message: impl Into<String>) -> Verdict {
        Verdict { type_, holds: Some(true), reason, message: message.into() }
    }

    /// It is not so.
    pub fn no(type_: &'static str, reason: &'static str, message: impl Into<String>) -> Verdict {
        Verdict { type_, holds: Some(false), reason, message: message.into() }
    }

    /// Nobody knows.
    pub fn unknown(type_: &'static str, reason: &'static str, message: impl Into<String>) -> Verdict {
        Verdict { type_, holds: None, reason, message: message.into() }
    }
}

/// The conditions of `verdicts`, every type of [`TYPES`] among them. A condition whose status is as in `before` keeps
/// the time of its last transition.
pub fn conditions(
    verdicts: &[Verdict],
    before: &[Condition],
    generation: Option<i64>,
    now: &Time,
) -> Vec<Condition> {
    let missing = |type_| Verdict::unknown(type_, "NotObserved", "not observed yet");
    TYPES
        .into_iter()
        .map(|type_| {
            let verdict = verdicts.iter().find(|verdict| verdict.type_ == type_);
            let verdict = verdict.cloned().unwrap_or_else(|| missing(type_));
            condition(verdict, before.iter().find(|old| old.type_ == type_), generation, now)
        })
        .collect()
}

fn condition(verdict: Verdict, before: Option<&Condition>, generation: Option<i64>, now: &Time) -> Condition {
    let status = match verdict.holds {
        Some(true) => "True",
        Some(false) => "False",
        None => "Unknown",
    };
    let kept = before.filter(|old| old.status == status).map(|old| old.last_transition_time.clone());
    Condition {
        type_: verdict.type_.to_owned(),
        status: status.to_owned(),
        reason: verdict.reason.to_owned(),
        message: cut(verdict.message, MESSAGE_BYTES_MAX),
        last_transition_time: kept.unwrap_or_else(|| now.clone()),
        observed_generation: generation,
    }
}

/// At most `bytes_max` bytes of `message`; what is cut off shows as `…`.
pub(crate) fn cut(message: String, bytes_max: usize) -> String {
    const MARK: &str = "…";
    if message.len() <= bytes_max {
        return message;
    }
    let end = message.floor_char_boundary(bytes_max - MARK.len());
    format!("{}{MARK}", &message[..end])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn time(text: &str) -> Time {
        serde_json::from_value(text.into()).expect("a time")
    }

    #[test]
    fn every_type_is_there_and_unknown_at_first() {
        let all = conditions(&[], &[], Some(1), &time("2026-01-01T00:00:00Z"));
        assert_eq!(all.iter().map(|one| one.type_.as_str()).collect::<Vec<_>>(), TYPES);
        assert!(all.iter().all(|one| one.status == "Unknown" && !one.reason.is_empty()));
    }

    #[test]
    fn long_messages_are_cut_between_characters() {
        assert_eq!(cut("ää".into(), 4), "ää");
        assert_eq!(cut("äää".into(), 5), "ä…");
        assert_eq!(cut("äääa".into(), 6), "ä…");
    }

    #[test]
    fn only_a_flip_moves_the_time_of_transition() {
        let (first, later) = (time("2026-01-01T00:00:00Z"), time("2026-01-02T00:00:00Z"));
        let before = conditions(&[Verdict::yes("Ready", "A", "a")], &[], Some(1), &first);
        let same = conditions(&[Verdict::yes("Ready", "B", "b")], &before, Some(2), &later);
        assert_eq!((&same[0].last_transition_time, same[0].reason.as_str()), (&first, "B"));
        assert_eq!(same[0].observed_generation, Some(2));
        let flipped = conditions(&[Verdict::no("Ready", "C", "c")], &before, Some(2), &later);
        assert_eq!(flipped[0].last_transition_time, later);
    }
}
