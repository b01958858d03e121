//! Whether exact searches showed what was there when they began, and nothing that had gone by then.
//!
//! Every version of a document has a vector, and so a [`Value`], of its own. A search is one that finds every document, as
//! an exact one with room for all. What happened while it ran may show or not, document by document.

use std::collections::BTreeMap;
use std::fmt;

use crate::history::{Entry, History, Operation, Outcome, Value};

/// An exact search that finds every document of the history.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Search {
    /// When it was sent.
    pub invoked: u64,
    /// When its answer came.
    pub returned: u64,
    /// The documents that it showed, and what they held.
    pub shown: Vec<(String, Value)>,
}

/// A search that showed what was not there, or did not show what was.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// Which search, from 0 on.
    pub search: usize,
    /// The document.
    pub key: String,
    /// What is wrong.
    pub fault: Fault,
}

/// What is wrong with a document in a search.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// It is shown more than once.
    Repeated,
    /// Nobody had asked to write what is shown.
    NeverWritten(Value),
    /// This acknowledged change had replaced what is shown before the search began.
    Gone(Value, Entry),
    /// This acknowledged write is not shown, though nothing can have touched it.
    Missed(Entry),
}

/// Checks each search against the changes of the history.
///
/// # Errors
/// The first search, and in it the first document by key, that shows a version that was deleted or replaced by a change
/// acknowledged before the search began, or does not show one acknowledged before it began and not touched after.
pub fn check(history: &History, searches: &[Search]) -> Result<(), Violation> {
    for (index, search) in searches.iter().enumerate() {
        let fail = |key: &str, fault| Violation { search: index, key: key.to_owned(), fault };
        let mut shown: BTreeMap<&str, Value> = BTreeMap::new();
        for (key, value) in &search.shown {
            if shown.insert(key, *value).is_some() {
                return Err(fail(key, Fault::Repeated));
            }
        }
        for (key, value) in &shown {
            check_shown(*value, history.entries(key), search).map_err(|fault| fail(key, fault))?;
        }
        for (key, entries) in history.documents() {
            check_missed(shown.get(key).copied(), entries, search).map_err(|fault| fail(key, fault))?;
        }
    }
    Ok(())
}

/// Checks that what is shown may still have been there.
fn check_shown(value: Value, entries: &[Entry], search: &Search) -> Result<(), Fault> {
    let mut fault = Fault::NeverWritten(value);
    for write in changes(entries, search).filter(|change| written(change) == Some(value)) {
        let replaces = |change: &&Entry| change.is_over_before(search.invoked) && is_before(write, change);
        match changes(entries, search).find(replaces) {
            None => return Ok(()),
            Some(change) => fault = Fault::Gone(value, *change),
        }
    }
    Err(fault)
}

/// Checks that a write that is certainly the last one is shown.
fn check_missed(shown: Option<Value>, entries: &[Entry], search: &Search) -> Result<(), Fault> {
    let over = changes(entries, search).filter(|change| change.is_over_before(search.invoked));
    for write in over.filter(|change| written(change).is_some()) {
        let is_last = || changes(entries, search).all(|other| other == write || is_before(other, write));
        if written(write) != shown && is_last() {
            return Err(Fault::Missed(*write));
        }
    }
    Ok(())
}

/// The changes that the search may have seen.
fn changes<'a>(entries: &'a [Entry], search: &Search) -> impl Iterator<Item = &'a Entry> {
    entries.iter().filter(|entry| entry.fate().is_some() && entry.may_have_happened_by(search.returned))
}

/// What a change wrote; `None` for a delete.
fn written(change: &Entry) -> Option<Value> {
    match change.operation {
        Operation::Write { value, .. } => Some(value),
        Operation::Read | Operation::Delete { .. } => None,
    }
}

/// True when the first change certainly happened before the second one: by time, or by the versions that they made.
fn is_before(first: &Entry, second: &Entry) -> bool {
    match (first.outcome, second.outcome) {
        (Outcome::Done(Some(first)), Outcome::Done(Some(second))) => first < second,
        _ => first.is_over_before(second.invoked),
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Violation { search, key, fault } = self;
        write!(f, "search {search}, document {key:?}: ")?;
        match fault {
            Fault::Repeated => f.write_str("shown more than once"),
            Fault::NeverWritten(value) => write!(f, "shown as {}, which nobody wrote", value.0),
            Fault::Gone(value, change) => write!(f, "shown as {}, which was gone since [{change}]", value.0),
            Fault::Missed(write) => write!(f, "not shown as [{write}] left it"),
        }
    }
}

impl std::error::Error for Violation {}

#[cfg(test)]
mod tests {
    use super::*;

    /// A search between ticks 10 and 20 that shows these values of document `d`.
    fn verdict(changes: &str, shown: &[u64]) -> Result<(), String> {
        let mut history = History::default();
        history.parse("d", changes).expect("operations");
        let shown = shown.iter().map(|value| ("d".to_owned(), Value(*value))).collect();
        let search = Search { invoked: 10, returned: 20, shown };
        check(&history, &[search]).map_err(|violation| violation.to_string())
    }

    #[test]
    fn what_happened_meanwhile_may_show_or_not() {
        for (changes, shown) in [
            ("c1 0-5 write 1 ok@1", [1].as_slice()),
            ("c1 0-10 write 1 ok@1", &[]),
            ("c1 0-10 write 1 ok@1", &[1]),
            ("c1 20-25 write 1 ok@1", &[1]),
            ("c1 0- write 1 unknown", &[1]),
            ("c1 0- write 1 unknown", &[]),
            ("c1 0-1 write 1 ok@1; c1 5-12 write 2 ok@2", &[1]),
            ("c1 0-1 write 1 ok@1; c1 5-12 write 2 ok@2", &[2]),
            ("c1 0-1 write 1 ok@1; c2 2- delete unknown", &[]),
            ("c1 0-1 write 1 ok@1; c2 2- delete unknown", &[1]),
            // Two writes that overlap: either may be the last one, unless versions tell.
            ("c1 0-5 write 1 ok; c2 1-6 write 2 ok", &[1]),
            ("c1 0-5 write 1 ok; c2 1-6 write 2 ok", &[2]),
            ("c1 0-5 write 1 ok@2; c2 1-6 write 2 ok@1", &[1]),
            // Not deleted, whatever the time.
            ("c1 0-5 write 1 ok@2; c2 6-7 delete failed", &[1]),
            ("c1 0-5 write 1 ok@1; c2 6-7 delete if@3 mismatch@1", &[1]),
            // Written again after the delete.
            ("c1 0-1 write 1 ok; c1 2-3 delete ok; c1 4-5 write 1 ok", &[1]),
        ] {
            assert_eq!(verdict(changes, shown), Ok(()), "{changes} {shown:?}");
        }
    }

    #[test]
    fn what_was_gone_or_there_before_is_told() {
        for (changes, shown, why) in [
            ("c1 0-5 write 1 ok@1", [].as_slice(), "not shown as [c1 0-5 write 1 ok@1] left it"),
            ("c1 0-5 write 1 ok@1", &[1, 1], "shown more than once"),
            ("c1 0-5 write 1 ok@1", &[2], "shown as 2, which nobody wrote"),
            ("c1 0-5 write 1 failed", &[1], "shown as 1, which nobody wrote"),
            ("c1 21-25 write 1 ok@1", &[1], "shown as 1, which nobody wrote"),
            (
                "c1 0-1 write 1 ok; c1 2-3 delete ok",
                &[1],
                "shown as 1, which was gone since [c1 2-3 delete ok]",
            ),
            (
                "c1 0-5 write 1 ok@2; c2 1-6 write 2 ok@1",
                &[2],
                "shown as 2, which was gone since [c1 0-5 write 1 ok@2]",
            ),
            ("c1 0-5 write 1 ok@2; c2 1-6 write 2 ok@1", &[], "not shown as [c1 0-5 write 1 ok@2] left it"),
            (
                "c1 0-1 write 1 ok; c2 2-3 write 2 ok; c3 0- write 3 unknown",
                &[1],
                "shown as 1, which was gone since [c2 2-3 write 2 ok]",
            ),
            ("c1 0-1 write 1 ok; c1 2-3 write 2 ok", &[], "not shown as [c1 2-3 write 2 ok] left it"),
        ] {
            assert_eq!(verdict(changes, shown), Err(format!("search 0, document \"d\": {why}")), "{changes}");
        }
    }
}
