//! What happened in a world: a number that two runs of a seed must agree on, and a text for people.

/// A trace.
#[derive(Debug, Default)]
pub(super) struct Trace {
    hash: u64,
    is_told: bool,
}

impl Trace {
    /// `is_told`: as text too.
    pub(super) fn new(is_told: bool) -> Trace {
        Trace { hash: 0, is_told }
    }

    /// Takes in a number.
    pub(super) fn mix(&mut self, number: u64) {
        self.hash = (self.hash.rotate_left(5) ^ number).wrapping_mul(0x517c_c1b7_2722_0a95);
    }

    /// Of everything that was taken in.
    pub(super) fn hash(&self) -> u64 {
        self.hash
    }

    /// True when a text is wanted.
    pub(super) fn is_told(&self) -> bool {
        self.is_told
    }
}
