//! What the protocol knows of a log: which positions there are, and in which reign each was written.

use crate::ids::{Epoch, Lsn};

/// A record's identity: equal positions of two logs are the same record, with the same records before it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Position {
    /// Reign in which it was written.
    pub epoch: Epoch,
    /// Place in the log.
    pub lsn: Lsn,
}

/// The reigns of a log, each with its first position; ascending in both.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct EpochHistory(pub Vec<(Epoch, Lsn)>);

/// A log without its records.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct LogShape {
    /// Reigns of the records that are there, and of the one before.
    pub epochs: EpochHistory,
    /// The oldest record that is there; `end + 1` when there is none.
    pub first: Lsn,
    /// The last record.
    pub end: Lsn,
    /// The last durable record.
    pub durable: Lsn,
}

impl EpochHistory {
    /// The reign of a position; `None` before the first one that is known.
    pub fn epoch_at(&self, lsn: Lsn) -> Option<Epoch> {
        let begun = self.0.partition_point(|(_, first)| *first <= lsn);
        begun.checked_sub(1).map(|index| self.0[index].0)
    }

    /// The last reign.
    pub fn last(&self) -> Option<(Epoch, Lsn)> {
        self.0.last().copied()
    }

    /// Reigns that begin in `first..=last`.
    pub fn starts_within(&self, first: Lsn, last: Lsn) -> Vec<(Epoch, Lsn)> {
        self.0.iter().filter(|(_, start)| (first..=last).contains(start)).copied().collect()
    }

    /// Begins a reign.
    ///
    /// # Panics
    /// When it does not follow the last one.
    pub fn begin(&mut self, epoch: Epoch, first: Lsn) {
        let follows = self.last().is_none_or(|(last, start)| last < epoch && start < first);
        assert!(follows, "reign {epoch} at {first} does not follow {:?}", self.last());
        self.0.push((epoch, first));
    }

    /// Forgets what lies behind `to`.
    pub fn cut(&mut self, to: Lsn) {
        self.0.retain(|(_, first)| *first <= to);
    }
}

impl LogShape {
    /// The last record's position.
    pub fn last(&self) -> Position {
        Position { epoch: self.epochs.epoch_at(self.end).unwrap_or_default(), lsn: self.end }
    }

    /// The position of a record, as far as its reign is known. The one before the first record is `(0, 0)`.
    pub fn position(&self, lsn: Lsn) -> Option<Position> {
        if lsn == Lsn::ZERO {
            return Some(Position::default());
        }
        let epoch = self.epochs.epoch_at(lsn).filter(|_| lsn <= self.end)?;
        Some(Position { epoch, lsn })
    }

    /// True when a record is there, or was there before the log was shortened at its beginning. What is committed is the
    /// same everywhere.
    pub fn has(&self, position: Position, commit: Lsn) -> bool {
        position.lsn <= commit || self.position(position.lsn) == Some(position)
    }

    /// The first position in `prev.lsn + 1 ..= last`, of those that are there, that was written in another reign than
    /// `starts` (the reigns that begin in that range) say.
    pub fn first_difference(
        &self,
        prev: Position,
        starts: &[(Epoch, Lsn)],
        last: Lsn,
        commit: Lsn,
    ) -> Option<Lsn> {
        let theirs = |lsn: Lsn| {
            starts.iter().rev().find(|(_, first)| *first <= lsn).map_or(prev.epoch, |(epoch, _)| *epoch)
        };
        let overlap_end = last.min(self.end);
        let from = prev.lsn.max(commit).next();
        // Reigns change at the beginning of one of either side: nowhere else can a difference begin.
        let ours = self.epochs.0.iter().map(|(_, first)| *first);
        let mut candidates: Vec<Lsn> = starts.iter().map(|(_, first)| *first).chain(ours).collect();
        candidates.push(from);
        candidates.retain(|lsn| (from..=overlap_end).contains(lsn));
        candidates.sort_unstable();
        candidates.into_iter().find(|lsn| self.epochs.epoch_at(*lsn) != Some(theirs(*lsn)))
    }

    /// The last position that this log and another one have in common, as far as reigns are known.
    pub fn last_common(&self, theirs: &EpochHistory, their_end: Lsn) -> Option<Lsn> {
        // Reign by reign from the end: the last one that both know, up to where the first of them leaves it.
        let reign_end = |history: &EpochHistory, index: usize, end: Lsn| match history.0.get(index + 1) {
            Some((_, next)) => Lsn(next.0 - 1),
            None => end,
        };
        for (index, (epoch, first)) in self.epochs.0.iter().enumerate().rev() {
            let Some(other) = theirs.0.iter().position(|(other, _)| other == epoch) else { continue };
            let their_first = theirs.0[other].1;
            let end = reign_end(&self.epochs, index, self.end).min(reign_end(theirs, other, their_end));
            if end >= *first && end >= their_first {
                return Some(end);
            }
        }
        let knows_all = |history: &EpochHistory| history.0.first().is_none_or(|(_, first)| *first == Lsn(1));
        (knows_all(&self.epochs) && knows_all(theirs)).then_some(Lsn::ZERO)
    }

    /// Adds records up to `last`, in the last reign.
    pub(super) fn extend(&mut self, last: Lsn) {
        assert!(last >= self.end, "a log only grows, or is cut");
        self.end = last;
    }

    /// Removes what lies behind `to`. Of a batch that this divides nothing stays durable, and where batches end is the
    /// store's to know: for sure durable is only what is committed.
    pub(super) fn cut(&mut self, to: Lsn, commit: Lsn) {
        self.epochs.cut(to);
        self.end = self.end.min(to);
        if to < self.durable {
            self.durable = commit;
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A log as the reign of each of its records, from position 1 on.
    fn shape(epochs: &[u64]) -> LogShape {
        let mut history = EpochHistory::default();
        for (index, epoch) in epochs.iter().enumerate() {
            if history.last().is_none_or(|(last, _)| last.0 != *epoch) {
                history.begin(Epoch(*epoch), Lsn(index as u64 + 1));
            }
        }
        let end = Lsn(epochs.len() as u64);
        LogShape { epochs: history, first: Lsn(1), end, durable: end }
    }

    fn ascending() -> impl Strategy<Value = Vec<u64>> {
        prop::collection::vec(1u64..6, 0..12).prop_map(|mut epochs| {
            epochs.sort_unstable();
            epochs
        })
    }

    proptest! {
        #[test]
        fn common_ends_and_differences_are_those_of_the_records(ours in ascending(), theirs in ascending()) {
            // Real logs agree before the last position that they share, so equal reigns mean equal records there.
            let shared = (0..ours.len().min(theirs.len())).rev().find(|at| ours[*at] == theirs[*at]).map_or(0, |at| at + 1);
            let mut ours = ours;
            ours[..shared].copy_from_slice(&theirs[..shared]);
            ours.sort_unstable();
            let (a, b) = (shape(&ours), shape(&theirs));
            let common = (0..ours.len().min(theirs.len())).take_while(|at| ours[*at] == theirs[*at]).count() as u64;
            prop_assume!(ours.iter().skip(common as usize).zip(theirs.iter().skip(common as usize)).all(|(a, b)| a != b));
            prop_assert_eq!(a.last_common(&b.epochs, b.end), Some(Lsn(common)));
            let starts = b.epochs.starts_within(Lsn(1), b.end);
            let difference = a.first_difference(Position::default(), &starts, b.end, Lsn::ZERO);
            let expected = (common < ours.len().min(theirs.len()) as u64).then_some(Lsn(common + 1));
            prop_assert_eq!(difference, expected);
        }
    }

    #[test]
    fn a_shortened_log_knows_no_common_end_before_its_beginning() {
        let mut log = shape(&[1, 1, 2, 2, 3]);
        log.epochs.0.remove(0);
        log.first = Lsn(4);
        assert_eq!(log.last_common(&shape(&[1]).epochs, Lsn(1)), None);
        assert_eq!(log.last_common(&shape(&[1, 1, 2]).epochs, Lsn(3)), Some(Lsn(3)));
        assert_eq!(log.position(Lsn(2)), None);
        assert!(
            log.has(Position { epoch: Epoch(9), lsn: Lsn(2) }, Lsn(2)),
            "what is committed is the same everywhere"
        );
    }
}
