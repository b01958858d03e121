//! The choices of a world: all of them follow from its seed.

use std::time::Duration;

use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};

/// Choices from a seed.
#[derive(Clone, Debug)]
pub(super) struct Random(SmallRng);

impl Random {
    /// From a seed.
    pub(super) fn new(seed: u64) -> Random {
        Random(SmallRng::seed_from_u64(seed))
    }

    /// Another source, whose choices do not depend on how many are taken from this one later.
    pub(super) fn fork(&mut self) -> Random {
        Random::new(self.0.random())
    }

    /// `from..to`.
    pub(super) fn below(&mut self, from: u64, to: u64) -> u64 {
        self.0.random_range(from..to)
    }

    /// An index of `length` things.
    pub(super) fn index(&mut self, length: usize) -> usize {
        self.0.random_range(0..length)
    }

    /// One of them.
    pub(super) fn pick<'t, T>(&mut self, things: &'t [T]) -> &'t T {
        &things[self.index(things.len())]
    }

    /// True once in `of` times.
    pub(super) fn one_in(&mut self, of: u32) -> bool {
        self.0.random_ratio(1, of)
    }

    /// Between two durations.
    pub(super) fn between(&mut self, from: Duration, to: Duration) -> Duration {
        Duration::from_nanos(self.0.random_range(from.as_nanos() as u64..=to.as_nanos() as u64))
    }

    /// A waiting time with this mean: mostly short, at times long.
    pub(super) fn about(&mut self, mean: Duration) -> Duration {
        let uniform: f64 = self.0.random_range(1e-6..1.0);
        mean.mul_f64(-uniform.ln())
    }

    /// Sixteen bytes.
    pub(super) fn bytes(&mut self) -> [u8; 16] {
        self.0.random()
    }

    /// A number.
    pub(super) fn number(&mut self) -> u64 {
        self.0.random()
    }
}
