//! Which vertices a walk has seen: one bit each, so that the set of a million vertices stays in the second cache.

use super::walk::LIST_MAX;

/// A set of numbers below a bound. Emptying costs what was put in.
#[derive(Debug, Default)]
pub(super) struct Visited {
    words: Vec<u64>,
    /// Numbers of words that may have bits: the first `len`.
    touched: Vec<u32>,
    len: usize,
}

impl Visited {
    /// Empties the set, for numbers below `bound`.
    pub(super) fn reset(&mut self, bound: usize) {
        let words = bound.div_ceil(64);
        if self.words.len() == words && self.len < words / 4 {
            self.touched[..self.len].iter().for_each(|word| self.words[*word as usize] = 0);
        } else {
            self.words.clear();
            self.words.resize(words, 0);
        }
        self.len = 0;
    }

    /// Adds a number; true when it was not there.
    #[inline(always)]
    pub(super) fn insert(&mut self, number: u32) -> bool {
        self.insert_all(std::iter::once(number), &mut [0], 0) > 0
    }

    /// True when a number was added.
    #[inline(always)]
    pub(super) fn contains(&self, number: u32) -> bool {
        self.words[number as usize / 64] >> (number % 64) & 1 == 1
    }

    /// Adds numbers, up to [`LIST_MAX`], and writes those that were not there to `fresh`, from `count` on. Returns where
    /// they end. Which are new cannot be foreseen, so nothing branches on it.
    #[inline(always)]
    pub(super) fn insert_all(
        &mut self,
        numbers: impl Iterator<Item = u32>,
        fresh: &mut [u32],
        mut count: usize,
    ) -> usize {
        if self.touched.len() < self.len + LIST_MAX {
            self.touched.resize(2 * (self.len + LIST_MAX), 0);
        }
        let mut len = self.len;
        for number in numbers {
            let (index, bit) = (number / 64, number % 64);
            let word = &mut self.words[index as usize];
            let is_new = usize::from(*word >> bit & 1 == 0);
            *word |= 1 << bit;
            self.touched[len] = index;
            len += is_new;
            fresh[count] = number;
            count += is_new;
        }
        self.len = len;
        count
    }

    /// How many numbers it holds.
    pub(super) fn len(&self) -> usize {
        self.len
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_new_once_until_the_set_is_emptied() {
        let mut visited = Visited::default();
        for bound in [10, 1_000, 1_000, 100] {
            visited.reset(bound);
            for number in [0, bound as u32 - 1, 7] {
                assert!(visited.insert(number));
                assert!(!visited.insert(number));
            }
            assert_eq!(visited.len(), 3);
        }
    }

    #[test]
    fn of_many_the_new_ones_are_told_in_order() {
        let mut visited = Visited::default();
        visited.reset(1_000);
        let mut fresh = [0; LIST_MAX + 2];
        assert_eq!(visited.insert_all([5, 900, 5, 64].into_iter(), &mut fresh, 2), 5);
        assert_eq!(fresh[..5], [0, 0, 5, 900, 64]);
        assert_eq!(visited.insert_all([64, 63, 5].into_iter(), &mut fresh, 0), 1);
        assert_eq!((fresh[0], visited.len()), (63, 4));
        assert!(visited.contains(63) && visited.contains(900) && !visited.contains(62));
        // As many as there can be, several times.
        for first in [100, 200, 300, 400] {
            assert_eq!(visited.insert_all(first..first + LIST_MAX as u32, &mut fresh, 0), LIST_MAX);
        }
        assert!((5..LIST_MAX as u32).filter(|number| visited.insert(*number)).count() == LIST_MAX - 5 - 3);
    }
}
