//! What every call passes, whatever its format: who calls, how often, and whether there is room.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::watch;

use super::auth::{Authenticator, Caller};
use super::metrics::GatewayMetrics;
use super::rate_limit::{CountedAs, RateLimiter};
use crate::config::Config;
use crate::error_code::{Error, ErrorCode};
use crate::telemetry::Metrics;

/// When a full node is worth another try.
const RETRY_AFTER: Duration = Duration::from_millis(100);

/// The one door.
pub(super) struct Door {
    config: watch::Receiver<Arc<Config>>,
    authenticator: Authenticator,
    limiter: RateLimiter,
    inside: Arc<AtomicUsize>,
    pub(super) metrics: GatewayMetrics,
}

/// A call that is inside; leaves when dropped.
pub(super) struct Inside(Arc<AtomicUsize>);

impl Door {
    pub(super) fn new(config: watch::Receiver<Arc<Config>>, metrics: &Metrics) -> Door {
        let now = config.borrow().clone();
        Door {
            config,
            authenticator: Authenticator::new(&now.auth),
            limiter: RateLimiter::new(&now.rate_limit),
            inside: Arc::default(),
            metrics: GatewayMetrics::new(metrics),
        }
    }

    /// Checks a call and lets it in.
    ///
    /// # Errors
    /// Unauthenticated, rate limited, or overloaded.
    pub(super) fn enter(
        &self,
        authorization: Option<&str>,
        peer: Option<IpAddr>,
    ) -> Result<(Caller, Inside), Error> {
        let config = self.config.borrow().clone();
        let caller = self.authenticator.authenticate(authorization, config.auth.token_expiry)?;
        let counted_as = match &caller {
            Caller::Subject(subject) => CountedAs::Subject(subject.clone()),
            Caller::Anonymous => CountedAs::Address(peer.unwrap_or(IpAddr::from([0, 0, 0, 0]))),
        };
        self.limiter.check(&config.rate_limit, counted_as)?;
        let inside = Inside(self.inside.clone());
        if self.inside.fetch_add(1, Ordering::Relaxed) >= config.max_concurrent_requests {
            let most = config.max_concurrent_requests;
            let message = format!("{most} requests are under way in this node, try again or elsewhere");
            return Err(Error::new(ErrorCode::Overloaded, message).retry_after(RETRY_AFTER));
        }
        Ok((caller, inside))
    }
}

impl Drop for Inside {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}
