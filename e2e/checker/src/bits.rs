//! Small sets of small numbers.

use std::ops::Range;

/// A set of numbers.
#[derive(Clone)]
pub(crate) struct Bits(Vec<u64>);

impl Bits {
    /// The empty set, for numbers below `size`.
    pub(crate) fn new(size: usize) -> Bits {
        Bits(vec![0; size.div_ceil(64)])
    }

    /// Takes the number in, or out when it is in.
    pub(crate) fn flip(&mut self, number: usize) {
        self.0[number / 64] ^= 1 << (number % 64);
    }
    /// For sets of the same size.
    pub(crate) fn is_subset(&self, of: &Bits) -> bool {
        self.0.iter().zip(&of.0).all(|(own, other)| own & !other == 0)
    }

    /// The numbers of these groups of 64.
    pub(crate) fn words(&self, range: Range<usize>) -> &[u64] {
        &self.0[range]
    }
}
