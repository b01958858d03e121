//! What clients did to documents, and what they were told.

use std::collections::BTreeMap;

/// A client; it tells operations apart in what people read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Client(pub u32);

/// What a document holds. The more writes have values of their own, the more a check can tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Value(pub u64);

/// A version of a document. Each change of the document gives it a larger one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Version(pub u64);

impl Version {
    /// Of a document that does not exist.
    pub const ABSENT: Version = Version(0);
}

/// What a client asks of one document.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// A read that claims to see the newest state.
    Read,
    /// Inserts or replaces the document.
    Write {
        /// What it holds afterwards.
        value: Value,
        /// The version that the document must have; [`Version::ABSENT`]: it must not exist.
        condition: Option<Version>,
    },
    /// Deletes the document; an absent one is no error.
    Delete {
        /// The version that the document must have.
        condition: Option<Version>,
    },
}

/// What a client knows of an operation afterwards.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The read saw this; `None`: no document.
    Found(Option<Seen>),
    /// The change happened and made this version, when the answer said which. A position in the log that is merely
    /// behind the change, as of a batch, is no version. A delete that found nothing has a version of its own or none.
    Done(Option<Version>),
    /// The change did not happen: its condition did not hold, because the document had this version.
    Mismatch(Version),
    /// It did not happen and never will.
    Failed,
    /// It may take effect at any time after it was sent, or never.
    Unknown,
}

/// What a read saw.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seen {
    /// What the document held.
    pub value: Value,
    /// Its version, when the answer said it; never [`Version::ABSENT`].
    pub version: Option<Version>,
}

/// What became of a change, as far as its client knows; of several tries the largest counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fate {
    /// It did not happen and never will.
    Failed,
    /// It may have happened, or happen later.
    Unknown,
    /// It happened.
    Acknowledged,
}

/// One operation of a history.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Who.
    pub client: Client,
    /// What was asked.
    pub operation: Operation,
    /// When it was sent.
    pub invoked: u64,
    /// What is known of it.
    pub outcome: Outcome,
    /// When the answer came; `None` exactly when the outcome is unknown.
    pub returned: Option<u64>,
}

/// What clients did to documents, each with a key, and what they were told.
///
/// Times are ticks of one clock that all clients read, of any unit. An operation came before another one when its answer
/// came at an earlier tick than the other one was sent; at the same tick they overlap.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct History {
    documents: BTreeMap<String, Vec<Entry>>,
}

/// An operation that is on its way. Dropped, its outcome stays unknown.
#[derive(Debug)]
#[must_use = "an operation without an outcome counts as unknown"]
pub struct OpRef {
    key: String,
    index: usize,
}

impl History {
    /// Records that `client` sends `operation` on document `key` at tick `at`.
    pub fn invoke(&mut self, client: Client, key: &str, operation: Operation, at: u64) -> OpRef {
        let entries = self.documents.entry(key.to_owned()).or_default();
        entries.push(Entry { client, operation, invoked: at, outcome: Outcome::Unknown, returned: None });
        OpRef { key: key.to_owned(), index: entries.len() - 1 }
    }

    /// Records what became of the operation, known at tick `at`.
    ///
    /// # Panics
    /// When the outcome does not fit the operation, or comes before it: the record is wrong then.
    pub fn complete(&mut self, op: OpRef, outcome: Outcome, at: u64) {
        let entries = self.documents.get_mut(&op.key).expect("it was invoked in this history");
        let entry = &mut entries[op.index];
        assert!(outcome.fits(entry.operation), "{outcome:?} is no outcome of {:?}", entry.operation);
        assert!(entry.invoked <= at, "an answer at {at} to what was sent at {}", entry.invoked);
        entry.outcome = outcome;
        entry.returned = (outcome != Outcome::Unknown).then_some(at);
    }

    /// The operations by document, each document's in the order in which they were recorded.
    pub fn documents(&self) -> impl Iterator<Item = (&str, &[Entry])> {
        self.documents.iter().map(|(key, entries)| (key.as_str(), entries.as_slice()))
    }

    /// The operations on one document.
    pub fn entries(&self, key: &str) -> &[Entry] {
        self.documents.get(key).map_or(&[], Vec::as_slice)
    }
}

impl Outcome {
    pub(crate) fn fits(self, operation: Operation) -> bool {
        let condition = match operation {
            Operation::Read => None,
            Operation::Write { condition, .. } | Operation::Delete { condition } => condition,
        };
        match self {
            Outcome::Found(None) => operation == Operation::Read,
            Outcome::Found(Some(seen)) => {
                operation == Operation::Read && seen.version != Some(Version::ABSENT)
            }
            Outcome::Done(version) => operation != Operation::Read && version != Some(Version::ABSENT),
            Outcome::Mismatch(found) => condition.is_some_and(|condition| condition != found),
            Outcome::Failed | Outcome::Unknown => true,
        }
    }
}

impl Entry {
    /// What became of a change; `None` for a read.
    pub fn fate(&self) -> Option<Fate> {
        match (self.operation, self.outcome) {
            (Operation::Read, _) => None,
            (_, Outcome::Failed | Outcome::Mismatch(_)) => Some(Fate::Failed),
            (_, Outcome::Unknown) => Some(Fate::Unknown),
            (_, Outcome::Done(_) | Outcome::Found(_)) => Some(Fate::Acknowledged),
        }
    }

    /// The entry as it was known right after tick `until`; `None` when it was not sent by then, or will not happen.
    pub(crate) fn known_at(&self, until: u64) -> Option<Entry> {
        if self.returned.is_none_or(|returned| returned <= until) {
            return (self.invoked <= until).then_some(*self);
        }
        let is_void = matches!(self.outcome, Outcome::Failed | Outcome::Mismatch(_));
        let open = Entry { outcome: Outcome::Unknown, returned: None, ..*self };
        (self.invoked <= until && !is_void).then_some(open)
    }

    /// True unless it certainly had not happened at `at`.
    pub(crate) fn may_have_happened_by(&self, at: u64) -> bool {
        self.invoked <= at && self.fate() != Some(Fate::Failed)
    }

    /// True when its answer came before `at`.
    pub(crate) fn is_over_before(&self, at: u64) -> bool {
        self.returned.is_some_and(|returned| returned < at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WRITE: Operation = Operation::Write { value: Value(1), condition: None };
    const GUARDED: Operation = Operation::Write { value: Value(1), condition: Some(Version(4)) };

    #[test]
    fn outcomes_fit_their_operations() {
        let seen = |version| Outcome::Found(Some(Seen { value: Value(1), version }));
        for (outcome, operation, fits) in [
            (seen(None), Operation::Read, true),
            (seen(Some(Version::ABSENT)), Operation::Read, false),
            (seen(None), WRITE, false),
            (Outcome::Found(None), Operation::Delete { condition: None }, false),
            (Outcome::Done(Some(Version(1))), WRITE, true),
            (Outcome::Done(Some(Version::ABSENT)), WRITE, false),
            (Outcome::Done(None), Operation::Read, false),
            (Outcome::Mismatch(Version(3)), WRITE, false),
            (Outcome::Mismatch(Version(3)), GUARDED, true),
            (Outcome::Mismatch(Version(4)), GUARDED, false),
            (Outcome::Failed, Operation::Read, true),
            (Outcome::Unknown, GUARDED, true),
        ] {
            assert_eq!(outcome.fits(operation), fits, "{outcome:?} of {operation:?}");
        }
    }

    #[test]
    fn an_operation_without_an_answer_stays_open() {
        let mut history = History::default();
        let lost = history.invoke(Client(1), "a", WRITE, 3);
        let _ = history.invoke(Client(2), "a", Operation::Read, 4);
        history.complete(lost, Outcome::Unknown, 9);
        for entry in history.entries("a") {
            assert_eq!((entry.outcome, entry.returned), (Outcome::Unknown, None));
        }
        assert!(history.entries("b").is_empty());
    }

    #[test]
    #[should_panic(expected = "an answer at 2")]
    fn an_answer_before_the_question_is_refused() {
        let mut history = History::default();
        let op = history.invoke(Client(1), "a", WRITE, 3);
        history.complete(op, Outcome::Done(None), 2);
    }
}
