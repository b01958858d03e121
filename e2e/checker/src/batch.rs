//! Whether batches happen as a whole or not at all.

use std::collections::BTreeSet;
use std::fmt;

use crate::history::Fate;

/// Documents that were inserted by one request, in one shard. No other batch has any of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Batch {
    /// Their ids, at least one.
    pub documents: Vec<String>,
    /// When it was sent.
    pub invoked: u64,
    /// What became of it.
    pub fate: Fate,
    /// When that was known; of no meaning when it is unknown.
    pub returned: u64,
}

/// A complete strong read at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Read {
    /// When it was sent.
    pub invoked: u64,
    /// When its answer came.
    pub returned: u64,
    /// The ids that it found.
    pub found: BTreeSet<String>,
}

/// A read that shows a batch as it never was.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// Which batch, from 0 on.
    pub batch: usize,
    /// Which read, from 0 on.
    pub read: usize,
    /// Ids of the batch that were found.
    pub found: Vec<String>,
    /// Ids of the batch that were not.
    pub missing: Vec<String>,
}

/// Checks that each read shows all of a batch or nothing of it: all when it was acknowledged before the read was sent,
/// nothing when it failed, or was sent after the read's answer.
///
/// # Errors
/// The first read that shows something else.
pub fn check(batches: &[Batch], reads: &[Read]) -> Result<(), Violation> {
    for (read_index, read) in reads.iter().enumerate() {
        for (batch_index, batch) in batches.iter().enumerate() {
            let (found, missing): (Vec<_>, Vec<_>) =
                batch.documents.iter().cloned().partition(|id| read.found.contains(id));
            let must_be_there = batch.fate == Fate::Acknowledged && batch.returned < read.invoked;
            let may_be_there = batch.fate != Fate::Failed && batch.invoked <= read.returned;
            let is_right = missing.is_empty() && may_be_there || found.is_empty() && !must_be_there;
            if !is_right {
                return Err(Violation { batch: batch_index, read: read_index, found, missing });
            }
        }
    }
    Ok(())
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Violation { batch, read, found, missing } = self;
        write!(f, "read {read} shows of batch {batch} the documents {found:?} and not {missing:?}")
    }
}

impl std::error::Error for Violation {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_is_there_as_a_whole_or_not_at_all() {
        use Fate::{Acknowledged, Failed, Unknown};
        let ids = ["a".to_owned(), "b".to_owned()];
        let batch = |fate| Batch { documents: ids.to_vec(), invoked: 10, fate, returned: 20 };
        let read = |invoked, found: usize| Read {
            invoked,
            returned: invoked + 2,
            found: ids.iter().take(found).cloned().collect(),
        };
        // Which numbers of documents may be found before, while and after the batch was on its way.
        for (fate, before, meanwhile, after) in [
            (Acknowledged, [true, false, false], [true, false, true], [false, false, true]),
            (Unknown, [true, false, false], [true, false, true], [true, false, true]),
            (Failed, [true, false, false], [true, false, false], [true, false, false]),
        ] {
            for (sent, right) in [(7, before), (8, meanwhile), (20, meanwhile), (21, after)] {
                for (found, right) in right.into_iter().enumerate() {
                    let verdict = check(&[batch(fate)], &[read(sent, found)]);
                    assert_eq!(verdict.is_ok(), right, "{fate:?}, {found} found by a read at {sent}");
                }
            }
        }
    }

    #[test]
    fn the_torn_batch_is_named() {
        let whole =
            Batch { documents: vec!["a".to_owned()], invoked: 1, fate: Fate::Acknowledged, returned: 2 };
        let torn = Batch { documents: vec!["b".to_owned(), "c".to_owned()], ..whole.clone() };
        let found = ["a", "c"].map(str::to_owned).into();
        let violation = check(&[whole, torn], &[Read { invoked: 5, returned: 6, found }]).expect_err("torn");
        let expected =
            Violation { batch: 1, read: 0, found: vec!["c".to_owned()], missing: vec!["b".to_owned()] };
        assert_eq!(violation, expected);
    }
}
