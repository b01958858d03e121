//! How often one caller may call: a token bucket for each subject, or for each address without one.

use std::net::IpAddr;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use governor::clock::{Clock as _, DefaultClock};
use governor::{DefaultKeyedRateLimiter, Quota, RateLimiter as Limiter};

use crate::config::RateLimitConfig;
use crate::error_code::{Error, ErrorCode};

/// Callers that are remembered; beyond it those that were quiet for a while are forgotten.
const CALLERS_MAX: usize = 100_000;

/// Who is counted.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum CountedAs {
    /// The subject of a token.
    Subject(Arc<str>),
    /// A client's address.
    Address(IpAddr),
}

/// Limits callers by the current configuration.
pub(super) struct RateLimiter {
    current: ArcSwap<Limits>,
}

struct Limits {
    config: (u32, u32),
    buckets: DefaultKeyedRateLimiter<CountedAs>,
}

impl RateLimiter {
    pub(super) fn new(config: &RateLimitConfig) -> RateLimiter {
        RateLimiter { current: ArcSwap::from_pointee(Limits::new(config)) }
    }

    /// Counts one call.
    ///
    /// # Errors
    /// [`ErrorCode::RateLimited`] with the time after which a call has a chance.
    pub(super) fn check(&self, config: &RateLimitConfig, caller: CountedAs) -> Result<(), Error> {
        if !config.enabled {
            return Ok(());
        }
        let mut limits = self.current.load_full();
        if limits.config != (config.requests_per_second, config.burst_size) {
            // New numbers: everybody starts with a full bucket.
            limits = Arc::new(Limits::new(config));
            self.current.store(limits.clone());
        }
        if limits.buckets.len() > CALLERS_MAX {
            limits.buckets.retain_recent();
        }
        limits.buckets.check_key(&caller).map_err(|not_until| {
            let wait = not_until.wait_time_from(DefaultClock::default().now()).max(Duration::from_millis(1));
            let (rate, burst) = limits.config;
            let message = format!("more than {rate} calls a second (at once: {burst}), try again later");
            Error::new(ErrorCode::RateLimited, message).retry_after(wait)
        })
    }
}

impl Limits {
    fn new(config: &RateLimitConfig) -> Limits {
        let rate = NonZeroU32::new(config.requests_per_second).unwrap_or(NonZeroU32::MIN);
        let burst = NonZeroU32::new(config.burst_size).unwrap_or(NonZeroU32::MIN);
        let quota = Quota::per_second(rate).allow_burst(burst);
        Limits { config: (config.requests_per_second, config.burst_size), buckets: Limiter::keyed(quota) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(requests_per_second: u32, burst_size: u32) -> RateLimitConfig {
        RateLimitConfig { enabled: true, requests_per_second, burst_size }
    }

    #[test]
    fn a_burst_passes_and_then_the_rate_counts_for_each_caller() {
        let (config, ann) = (config(1, 3), CountedAs::Subject("ann".into()));
        let limiter = RateLimiter::new(&config);
        for _ in 0..3 {
            assert!(limiter.check(&config, ann.clone()).is_ok());
        }
        let error = limiter.check(&config, ann.clone()).expect_err("the bucket is empty");
        assert_eq!(error.code, ErrorCode::RateLimited);
        assert!(error.retry_after.is_some_and(|after| after <= Duration::from_secs(1)));
        assert!(limiter.check(&config, CountedAs::Address([127, 0, 0, 1].into())).is_ok());
    }

    #[test]
    fn new_numbers_count_at_once() {
        let caller = CountedAs::Subject("ann".into());
        let limiter = RateLimiter::new(&config(1, 1));
        assert!(limiter.check(&config(1, 1), caller.clone()).is_ok());
        assert!(limiter.check(&config(1, 1), caller.clone()).is_err());
        assert!(limiter.check(&config(1, 2), caller.clone()).is_ok());
        assert!(limiter.check(&RateLimitConfig { enabled: false, ..config(1, 1) }, caller).is_ok());
    }
}
