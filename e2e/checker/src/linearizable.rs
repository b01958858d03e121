//! Whether each document gave answers that one document in one place could have given.

use std::fmt;

use crate::history::{Entry, History, Outcome};
use crate::problem::Problem;
use crate::search::Search;

/// What a check went through.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Documents.
    pub documents: usize,
    /// Operations.
    pub operations: usize,
    /// Operations of unknown outcome among them.
    pub unknown: usize,
    /// Places that the searches came to; not much more than `operations` when it was easy.
    pub places: usize,
}

/// A document whose answers no order of its operations explains. Displays as what happened to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// The document.
    pub key: String,
    /// The shortest beginning of its history that nothing explains, in the order in which operations were sent: the last
    /// answer is the one too much. What was not answered by then is of unknown outcome.
    pub entries: Vec<Entry>,
}

/// Checks that every document's operations are linearizable: each seems to happen at one moment between its sending and
/// its answer, the document is absent at first, and versions grow with each change.
///
/// Every check of one document is exact. It takes time in proportion to the history where answers name versions; without
/// versions it may take time that is exponential in the number of operations that overlap.
///
/// # Errors
/// The first document, by key, for which there is no such order.
pub fn check(history: &History) -> Result<Stats, Violation> {
    let mut stats = Stats::default();
    for (key, entries) in history.documents() {
        let mut search = Search::new(Problem::new(entries, u64::MAX));
        if !search.run() {
            return Err(Violation { key: key.to_owned(), entries: shortest_beginning(entries) });
        }
        stats.documents += 1;
        stats.operations += entries.len();
        stats.unknown += entries.iter().filter(|entry| entry.outcome == Outcome::Unknown).count();
        stats.places += search.places();
    }
    Ok(stats)
}

/// Every beginning of a linearizable history is linearizable, so the first one that is not can be found by halving.
fn shortest_beginning(entries: &[Entry]) -> Vec<Entry> {
    let mut answers: Vec<u64> = entries.iter().filter_map(|entry| entry.returned).collect();
    answers.sort_unstable();
    answers.dedup();
    let is_legal = |until: &u64| Search::new(Problem::new(entries, *until)).run();
    let until = answers[answers.partition_point(is_legal)];
    let mut sent: Vec<Entry> = entries.iter().filter_map(|entry| entry.known_at(until)).collect();
    sent.sort_by_key(|entry| entry.invoked);
    sent
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "no order of these operations on document {:?} explains the last answer:", self.key)?;
        for entry in &self.entries {
            writeln!(f, "  {entry}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Violation {}
