//! How fast a node sends what copies lack that are behind: they must not take the disk and the network from those that serve.

use std::num::NonZeroU32;
use std::sync::Arc;

use governor::clock::Clock as _;
use governor::{DefaultDirectRateLimiter, Quota, RateLimiter};

/// What is counted: so the largest rate fits the limiter's numbers.
const UNIT: u64 = 1 << 10;
/// Smallest rate, bytes a second: the largest part that is sent at once.
const BYTES_PER_SECOND_MIN: u64 = 1 << 20;

/// The rate of a node, shared by all its shards.
#[derive(Clone)]
pub(super) struct Pace(Arc<DefaultDirectRateLimiter>);

impl Pace {
    /// `bytes_per_second` is at least [`BYTES_PER_SECOND_MIN`].
    pub(super) fn new(bytes_per_second: u64) -> Pace {
        let units = u32::try_from(bytes_per_second.max(BYTES_PER_SECOND_MIN) / UNIT).unwrap_or(u32::MAX);
        let units = NonZeroU32::new(units).expect("the smallest rate has some");
        Pace(Arc::new(RateLimiter::direct(Quota::per_second(units))))
    }

    /// Returns when `bytes` more, at most [`BYTES_PER_SECOND_MIN`], may be sent.
    pub(super) async fn take(&self, bytes: usize) {
        let Some(units) = NonZeroU32::new((bytes as u64).div_ceil(UNIT) as u32) else { return };
        while let Ok(Err(not_yet)) = self.0.check_n(units) {
            tokio::time::sleep(not_yet.wait_time_from(self.0.clock().now())).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::*;

    /// A second's worth is there at first; what goes beyond it waits.
    #[tokio::test]
    async fn what_goes_beyond_the_rate_waits() {
        let pace = Pace::new(2 << 20);
        let started = Instant::now();
        for _ in 0..3 {
            pace.take(1 << 20).await;
        }
        assert!(started.elapsed() >= Duration::from_millis(400), "{:?}", started.elapsed());
        pace.take(0).await;
    }
}
