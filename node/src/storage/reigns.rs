//! The history of reigns of a log: which primary's epoch wrote which positions. Two logs with the same epoch at a
//! position are equal up to there, so comparing histories finds the last position that two replicas have in common.

use crate::ids::{Epoch, Lsn};

/// One primary's time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reign {
    /// Its number.
    pub epoch: Epoch,
    /// Position of its first record.
    pub first: Lsn,
}

/// Reigns in order: epochs ascend, and so do positions. The oldest may have been forgotten.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reigns(Vec<Reign>);

impl Reigns {
    /// A history from outside; `None` unless epochs and positions ascend.
    pub fn from_ordered(reigns: Vec<Reign>) -> Option<Reigns> {
        let ascends = |pair: &[Reign]| pair[0].epoch < pair[1].epoch && pair[0].first < pair[1].first;
        reigns.windows(2).all(ascends).then_some(Reigns(reigns))
    }

    /// All that are remembered, ascending.
    pub fn as_slice(&self) -> &[Reign] {
        &self.0
    }

    /// The reign that wrote the record at `lsn`; epoch 0 when there was none, or it is forgotten.
    pub fn epoch_at(&self, lsn: Lsn) -> Epoch {
        let begun = self.0.partition_point(|reign| reign.first <= lsn);
        begun.checked_sub(1).map_or(Epoch::default(), |index| self.0[index].epoch)
    }

    /// Adds the newest.
    ///
    /// # Panics
    /// When it does not follow the others.
    pub(super) fn begin(&mut self, reign: Reign) {
        let follows = |last: &Reign| last.epoch < reign.epoch && last.first < reign.first;
        assert!(self.0.last().is_none_or(follows), "{reign:?} does not follow {:?}", self.0);
        self.0.push(reign);
    }

    /// Forgets the reigns that began behind `lsn`.
    pub(super) fn cut(&mut self, lsn: Lsn) {
        self.0.retain(|reign| reign.first <= lsn);
    }

    /// Forgets the reigns that ended before `lsn`: what stays still knows that position and all behind it.
    pub(super) fn forget_before(&mut self, lsn: Lsn) {
        let begun = self.0.partition_point(|reign| reign.first <= lsn);
        self.0.drain(..begun.saturating_sub(1));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reigns(list: &[(u64, u64)]) -> Reigns {
        let reign = |(epoch, first): &(u64, u64)| Reign { epoch: Epoch(*epoch), first: Lsn(*first) };
        Reigns::from_ordered(list.iter().map(reign).collect()).expect("ordered")
    }

    #[test]
    fn the_epoch_of_every_position_is_known() {
        let history = reigns(&[(1, 1), (2, 5), (4, 9)]);
        let epochs: Vec<u64> = (0..11).map(|lsn| history.epoch_at(Lsn(lsn)).0).collect();
        assert_eq!(epochs, [0, 1, 1, 1, 1, 2, 2, 2, 2, 4, 4]);
    }

    #[test]
    fn what_is_forgotten_does_not_change_what_is_remembered() {
        let history = reigns(&[(1, 1), (2, 5), (4, 9)]);
        for from in 0..12 {
            let mut shorter = history.clone();
            shorter.forget_before(Lsn(from));
            for lsn in from..12 {
                assert_eq!(shorter.epoch_at(Lsn(lsn)), history.epoch_at(Lsn(lsn)), "{lsn} from {from}");
            }
            assert_eq!(
                shorter.as_slice().len(),
                if from < 5 {
                    3
                } else if from < 9 {
                    2
                } else {
                    1
                }
            );
        }
    }

    #[test]
    fn a_cut_takes_the_reigns_behind_it() {
        let after = |lsn| {
            let mut history = reigns(&[(1, 1), (2, 5), (4, 9)]);
            history.cut(Lsn(lsn));
            history
        };
        assert_eq!([0, 1, 4, 5, 8, 9].map(|lsn| after(lsn).as_slice().len()), [0, 1, 1, 2, 2, 3]);
    }

    #[test]
    fn histories_that_do_not_ascend_are_refused() {
        let of = |list: &[(u64, u64)]| {
            Reigns::from_ordered(
                list.iter()
                    .map(|(epoch, first)| Reign { epoch: Epoch(*epoch), first: Lsn(*first) })
                    .collect(),
            )
        };
        assert!(of(&[]).is_some() && of(&[(3, 7)]).is_some());
        assert!(of(&[(1, 1), (1, 5)]).is_none());
        assert!(of(&[(1, 5), (2, 5)]).is_none());
    }
}
