//! Whether what was inserted is there, and nothing else.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use crate::history::Fate;

/// What a check went through.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Elements that were inserted.
    pub acknowledged: usize,
    /// Elements whose insert has an unknown outcome.
    pub unknown: usize,
    /// Those of them that are there.
    pub unknown_found: usize,
}

/// How a set differs from what was inserted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Violation {
    /// Acknowledged, but not there.
    pub lost: Vec<String>,
    /// There, but never inserted, or refused each time.
    pub phantoms: Vec<String>,
    /// There more than once.
    pub repeated: Vec<String>,
}

/// Checks the elements that a complete read found after all inserts had ended. An element may be inserted more than once:
/// one acknowledged insert is enough.
///
/// # Errors
/// Every element that is lost, should not be there, or is there twice.
pub fn check<'a>(
    inserts: impl IntoIterator<Item = (&'a str, Fate)>,
    found: impl IntoIterator<Item = &'a str>,
) -> Result<Stats, Violation> {
    let mut fates: BTreeMap<&str, Fate> = BTreeMap::new();
    for (element, fate) in inserts {
        let best = fates.entry(element).or_insert(fate);
        *best = fate.max(*best);
    }
    let mut violation = Violation::default();
    let mut there = BTreeSet::new();
    for element in found {
        if !there.insert(element) {
            violation.repeated.push(element.to_owned());
        } else if fates.get(element).is_none_or(|fate| *fate == Fate::Failed) {
            violation.phantoms.push(element.to_owned());
        }
    }
    let mut stats = Stats::default();
    for (element, fate) in fates {
        let is_there = there.contains(element);
        match fate {
            Fate::Failed => {}
            Fate::Unknown => {
                stats.unknown += 1;
                stats.unknown_found += usize::from(is_there);
            }
            Fate::Acknowledged => {
                stats.acknowledged += 1;
                if !is_there {
                    violation.lost.push(element.to_owned());
                }
            }
        }
    }
    if violation == Violation::default() { Ok(stats) } else { Err(violation) }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Violation { lost, phantoms, repeated } = self;
        write!(f, "lost: {lost:?}, never inserted: {phantoms:?}, there more than once: {repeated:?}")
    }
}

impl std::error::Error for Violation {}

#[cfg(test)]
mod tests {
    use super::*;
    use Fate::{Acknowledged, Failed, Unknown};

    #[test]
    fn unknown_inserts_may_be_there_or_not() {
        let inserts = [("a", Acknowledged), ("b", Unknown), ("c", Unknown), ("d", Failed)];
        let stats = check(inserts, ["b", "a"]).expect("as it should be");
        assert_eq!(stats, Stats { acknowledged: 1, unknown: 2, unknown_found: 1 });
    }

    #[test]
    fn an_insert_that_was_tried_again_counts_by_its_best_outcome() {
        let inserts = [("a", Unknown), ("a", Acknowledged), ("b", Failed), ("b", Unknown)];
        assert!(check(inserts, ["a"]).is_ok() && check(inserts, ["a", "b"]).is_ok());
        assert_eq!(check(inserts, ["b"]).expect_err("a is lost").lost, ["a"]);
    }

    #[test]
    fn whatever_differs_is_told() {
        let inserts = [("a", Acknowledged), ("b", Acknowledged), ("c", Failed)];
        let violation = check(inserts, ["b", "c", "d", "b"]).expect_err("not the same");
        assert_eq!(
            (violation.lost, violation.phantoms, violation.repeated),
            (vec!["a".to_owned()], vec!["c".to_owned(), "d".to_owned()], vec!["b".to_owned()])
        );
    }
}
