//! Which vertices a walk has seen: one bit each, so that the set of a million vertices stays in the second cache.

/// A set of numbers below a bound. Emptying costs what was put in.
#[derive(Debug, Default)]
pub(super) struct Visited {
    words: Vec<u64>,
    /// Numbers of words that may have bits.
    touched: Vec<u32>,
}

impl Visited {
    /// Empties the set, for numbers below `bound`.
    pub(super) fn reset(&mut self, bound: usize) {
        let words = bound.div_ceil(64);
        if self.words.len() == words && self.touched.len() < words / 4 {
            for word in self.touched.drain(..) {
                self.words[word as usize] = 0;
            }
        } else {
            self.touched.clear();
            self.words.clear();
            self.words.resize(words, 0);
        }
    }

    /// Adds a number; true when it was not there.
    #[inline(always)]
    pub(super) fn insert(&mut self, number: u32) -> bool {
        let (index, bit) = (number / 64, 1 << (number % 64));
        let word = &mut self.words[index as usize];
        if *word & bit != 0 {
            return false;
        }
        *word |= bit;
        self.touched.push(index);
        true
    }

    /// How many numbers it holds.
    pub(super) fn len(&self) -> usize {
        self.touched.len()
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
}
