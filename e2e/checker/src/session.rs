//! Whether each client saw its own writes and never went back, document by document.
//!
//! A session is a client that passes its token from one operation to the next; it may read from any replica. Only answers
//! that name versions can be judged, and answers that there is no document.

use std::fmt;

use crate::history::{Client, Entry, History, Operation, Outcome, Version};

/// What a check went through.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Reads that could be judged.
    pub reads: usize,
}

/// A client that was shown something older than what it knew.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// The document.
    pub key: String,
    /// What the client knew the document by: an earlier operation of its own.
    pub knew: Box<Entry>,
    /// What it was shown afterwards.
    pub shown: Box<Entry>,
}

/// How far a client knows a document.
#[derive(Clone, Copy)]
struct Known {
    version: Version,
    /// The operation that told it; `None`: nothing yet.
    by: Option<Entry>,
}

/// Checks that no answer is older than one that the same client got before it asked: a version does not fall, and a
/// document that the client knew is gone only if somebody may have deleted it since.
///
/// # Errors
/// The first such answer, by document and client.
pub fn check(history: &History) -> Result<Stats, Violation> {
    let mut stats = Stats::default();
    for (key, entries) in history.documents() {
        let mut clients: Vec<Client> = entries.iter().map(|entry| entry.client).collect();
        clients.sort_unstable();
        clients.dedup();
        for client in clients {
            let own = entries.iter().filter(|entry| entry.client == client);
            stats.reads += check_client(own, key, entries)?;
        }
    }
    Ok(stats)
}

/// Checks the operations of one client on one document; returns how many reads could be judged.
fn check_client<'a>(
    own: impl Iterator<Item = &'a Entry>,
    key: &str,
    all: &[Entry],
) -> Result<usize, Violation> {
    let fail = |knew: Entry, shown: &Entry| Violation {
        key: key.to_owned(),
        knew: Box::new(knew),
        shown: Box::new(*shown),
    };
    let mut answered: Vec<(u64, &Entry)> = own.filter_map(|entry| Some((entry.returned?, entry))).collect();
    answered.sort_by_key(|(returned, _)| *returned);
    // What the client knew after each answer.
    let mut known: Vec<(u64, Known)> = Vec::new();
    let mut reads = 0;
    for (returned, entry) in answered {
        let before = known.partition_point(|(at, _)| *at < entry.invoked);
        let knew = known[..before].last().map_or(Known { version: Version::ABSENT, by: None }, |last| last.1);
        let told = match (entry.operation, entry.outcome) {
            (_, Outcome::Found(Some(seen))) => seen.version,
            (_, Outcome::Found(None) | Outcome::Mismatch(Version::ABSENT)) => {
                match absent_since(knew.version, returned, all) {
                    Some(version) => Some(version),
                    None => return Err(fail(knew.by.expect("nobody misses what it never knew"), entry)),
                }
            }
            (_, Outcome::Mismatch(found)) => Some(found),
            (_, Outcome::Done(version)) => version,
            (_, Outcome::Failed | Outcome::Unknown) => None,
        };
        let Some(version) = told else { continue };
        reads += usize::from(entry.operation == Operation::Read);
        if let Some(by) = knew.by.filter(|_| version < knew.version) {
            return Err(fail(by, entry));
        }
        let last = known.last().map(|last| last.1);
        let newest = last.filter(|last| last.version > version);
        known.push((returned, newest.unwrap_or(Known { version, by: Some(*entry) })));
    }
    Ok(reads)
}

/// The smallest version that a document without content may have, when `floor` was known before and the answer came at
/// `returned`; `None` when nobody can have deleted it.
fn absent_since(floor: Version, returned: u64, all: &[Entry]) -> Option<Version> {
    if floor == Version::ABSENT {
        return Some(floor);
    }
    let deletes = all.iter().filter(|entry| {
        matches!(entry.operation, Operation::Delete { .. }) && entry.may_have_happened_by(returned)
    });
    let versions = deletes.map(|delete| match delete.outcome {
        Outcome::Done(Some(version)) => version,
        _ => Version(floor.0 + 1),
    });
    versions.filter(|version| *version >= floor).min()
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Violation { key, knew, shown } = self;
        write!(f, "client {} went back on document {key:?}: from [{knew}] to [{shown}]", shown.client.0)
    }
}

impl std::error::Error for Violation {}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdict(text: &str) -> Result<Stats, Violation> {
        let mut history = History::default();
        history.parse("d", text).expect("operations");
        check(&history)
    }

    #[test]
    fn sessions_that_go_forward_are_accepted() {
        for text in [
            // Another client may lag behind.
            "c1 0-1 write 1 ok@1; c1 2-3 write 2 ok@2; c1 4-5 read 2@2; c2 6-7 read 1@1; c2 8-9 read 2@2",
            // What is newer than one's own write is fine.
            "c1 0-1 write 1 ok@1; c2 0-9 write 2 ok@5; c1 2-3 read 2@5",
            // Operations that overlap are in no order.
            "c1 0-9 read 2@2; c1 1-5 read 1@1; c1 4-9 read 2@2",
            // Somebody deleted it: known, of unknown outcome, or of unknown version.
            "c1 0-1 write 1 ok@1; c2 2-3 delete ok@2; c1 4-5 read none; c1 6-7 read 3@3",
            "c1 0-1 write 1 ok@1; c2 2- delete unknown; c1 4-5 read none; c1 6-7 read 3@2",
            "c1 0-1 write 1 ok@1; c2 2-3 delete ok; c1 4-5 read none",
            "c1 0-1 write 1 ok@1; c1 2-3 delete ok@2; c1 4-5 read none; c1 6-7 read none",
            // Answers that name nothing cannot be judged.
            "c1 0-1 write 1 ok; c1 2-3 read 7; c1 2-3 read none; c1 4- write 2 unknown; c1 6-7 read failed",
        ] {
            assert!(verdict(text).is_ok(), "{text}: {}", verdict(text).expect_err("not accepted"));
        }
    }

    #[test]
    fn sessions_that_go_back_are_refused() {
        for text in [
            "c1 0-1 write 2 ok@2; c1 2-3 read 1@1",
            "c1 0-1 read 2@2; c1 2-3 read 1@1",
            "c1 0-1 read 2@2; c1 2-3 write 1 ok@1",
            "c1 0-1 read 2@2; c1 2-3 write 1 if@2 mismatch@1",
            "c1 0-1 write 1 if@1 mismatch@2; c1 2-3 read 1@1",
            "c1 0-1 write 1 ok@1; c1 2-3 read none",
            "c1 0-1 write 1 ok@1; c1 2-3 write 2 if@1 mismatch@0",
            // The delete that could explain it was older, refused, or not sent yet.
            "c2 0-1 delete ok@1; c1 0-1 write 1 ok@2; c1 2-3 read none",
            "c2 0-1 delete failed; c1 0-1 write 1 ok@2; c1 2-3 read none",
            "c1 0-1 write 1 ok@2; c1 2-3 read none; c2 4-5 delete ok@3",
            // A document that was gone comes back as it was.
            "c1 0-1 write 1 ok@1; c2 2- delete unknown; c1 4-5 read none; c1 6-7 read 1@1",
            "c1 0-1 write 1 ok@1; c2 2-3 delete ok@2; c1 4-5 read none; c1 6-7 read 1@1",
        ] {
            assert!(verdict(text).is_err(), "{text}");
        }
    }

    #[test]
    fn the_violation_names_both_operations() {
        let violation = verdict("c1 0-1 write 2 ok@2; c2 2-3 read 1@1; c1 2-3 read 2@2; c1 4-5 read 1@1")
            .expect_err("it goes back");
        let text = "client 1 went back on document \"d\": from [c1 2-3 read 2@2] to [c1 4-5 read 1@1]";
        assert_eq!(violation.to_string(), text);
    }
}
