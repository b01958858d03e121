//! The candidates of a walk: the nearest that were seen, which of them were expanded already.

/// Set in a vertex' number once its neighbours were looked at.
const EXPANDED: u32 = 1 << 31;

/// A vertex and its estimated cost: the smaller the nearer.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Candidate {
    pub(super) cost: f32,
    vertex: u32,
}

/// Up to `width` candidates, ascending by cost. A sorted array: at the usual widths, moving a few cache lines is cheaper
/// than the branches of a heap.
#[derive(Debug, Default)]
pub(super) struct Pool {
    candidates: Vec<Candidate>,
    width: usize,
    /// All candidates before this one are expanded.
    next: usize,
}

impl Candidate {
    pub(super) fn new(vertex: u32, cost: f32) -> Candidate {
        debug_assert!(vertex & EXPANDED == 0, "fewer than 2^31 vertices");
        Candidate { cost, vertex }
    }

    pub(super) fn vertex(self) -> u32 {
        self.vertex & !EXPANDED
    }
}

impl Pool {
    /// Empties the pool for a walk of `width`, 1 or more.
    pub(super) fn reset(&mut self, width: usize) {
        self.candidates.clear();
        self.candidates.reserve(width + 1);
        (self.width, self.next) = (width, 0);
    }

    /// Takes a candidate in if it is among the nearest. Returns how many are expanded before it, as it looks now; a large
    /// number where it was not taken in.
    #[inline(always)]
    pub(super) fn insert(&mut self, candidate: Candidate) -> usize {
        let len = self.candidates.len();
        let full = len == self.width;
        if full && self.candidates.last().is_some_and(|last| candidate.cost >= last.cost) {
            return usize::MAX;
        }
        let at = self.candidates.partition_point(|other| other.cost <= candidate.cost);
        if full {
            self.candidates.copy_within(at..len - 1, at + 1);
            self.candidates[at] = candidate;
        } else {
            self.candidates.insert(at, candidate);
        }
        let before = at.saturating_sub(self.next);
        self.next = self.next.min(at);
        before
    }

    /// The cost from which on nothing is taken in.
    #[inline(always)]
    pub(super) fn bar(&self) -> f32 {
        match self.candidates.last() {
            Some(last) if self.candidates.len() == self.width => last.cost,
            _ => f32::INFINITY,
        }
    }

    /// Marks the nearest candidate that was not expanded and returns it.
    #[inline(always)]
    pub(super) fn expand(&mut self) -> Option<u32> {
        while let Some(candidate) = self.candidates.get_mut(self.next) {
            self.next += 1;
            if candidate.vertex & EXPANDED == 0 {
                candidate.vertex |= EXPANDED;
                return Some(candidate.vertex());
            }
        }
        None
    }

    /// Ascending by cost.
    pub(super) fn candidates(&self) -> &[Candidate] {
        &self.candidates
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn the_nearest_are_kept_in_order(costs in prop::collection::vec(0u32..50, 0..100), width in 1usize..20) {
            let mut pool = Pool::default();
            pool.reset(width);
            for (vertex, cost) in costs.iter().enumerate() {
                pool.insert(Candidate::new(vertex as u32, *cost as f32));
            }
            let mut expected: Vec<(u32, u32)> =
                costs.iter().enumerate().map(|(vertex, cost)| (*cost, vertex as u32)).collect();
            expected.sort_unstable();
            expected.truncate(width);
            let kept: Vec<(u32, u32)> =
                pool.candidates().iter().map(|kept| (kept.cost as u32, kept.vertex())).collect();
            prop_assert_eq!(&kept, &expected);
            let expanded: Vec<u32> = std::iter::from_fn(|| pool.expand()).collect();
            prop_assert_eq!(expanded, expected.iter().map(|(_, vertex)| *vertex).collect::<Vec<_>>());
        }
    }

    #[test]
    fn a_nearer_candidate_is_expanded_before_those_that_wait() {
        let mut pool = Pool::default();
        pool.reset(3);
        for (vertex, cost) in [(0, 5.0), (1, 7.0)] {
            pool.insert(Candidate::new(vertex, cost));
        }
        assert_eq!(pool.expand(), Some(0));
        let inserted =
            [(2, 1.0), (3, 6.0), (4, 9.0)].map(|(vertex, cost)| pool.insert(Candidate::new(vertex, cost)));
        assert_eq!(inserted, [0, 2, usize::MAX]);
        assert_eq!([pool.expand(), pool.expand(), pool.expand()], [Some(2), Some(3), None]);
    }
}
