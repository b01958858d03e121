//! A lease that is kept alive, and what its holder may believe of it.

use std::time::Duration;

use super::meta_store::{LeaseId, MetaError, MetaStore};
use crate::runtime::clock::boot_time;

/// Part of the TTL that the holder trusts, and what it takes off for the way to the store (`replication.md` 2.5: clock
/// rates differ by at most 1 %).
const TRUSTED_PERCENT: u32 = 99;
const SAFETY_MARGIN: Duration = Duration::from_millis(500);

/// A lease of this node.
#[derive(Clone, Copy, Debug)]
pub(super) struct KeptLease {
    pub(super) id: LeaseId,
    ttl: Duration,
    /// On the boot-time clock, which goes on while the machine is suspended.
    valid_until: Duration,
}

/// What a keep-alive brought.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Beat {
    /// Prolonged.
    Alive,
    /// No answer; the lease may still be there.
    Silent(MetaError),
    /// The store does not know the lease any more.
    Gone,
}

impl KeptLease {
    pub(super) async fn grant(meta: &dyn MetaStore, ttl: Duration) -> Result<KeptLease, MetaError> {
        let asked = boot_time();
        let id = meta.grant_lease(ttl).await?;
        Ok(KeptLease { id, ttl, valid_until: asked + trusted(ttl) })
    }

    /// Prolongs the lease once; waits no longer than the lease may be believed in, so that its end is noticed in time.
    pub(super) async fn beat(&mut self, meta: &dyn MetaStore) -> Beat {
        let sent = boot_time();
        let left = self.valid_until.saturating_sub(sent).max(SAFETY_MARGIN);
        match tokio::time::timeout(left, meta.keep_alive(self.id)).await {
            Ok(Ok(true)) => {
                self.valid_until = sent + trusted(self.ttl);
                Beat::Alive
            }
            Ok(Ok(false)) => Beat::Gone,
            Ok(Err(error)) => Beat::Silent(error),
            Err(_) => Beat::Silent(MetaError::Unavailable(format!("no answer within {left:?}"))),
        }
    }

    /// True while nobody else can hold what this lease protects.
    pub(super) fn is_valid(&self) -> bool {
        boot_time() < self.valid_until
    }
}

/// Counted from the sending of the request: the store starts its own count later.
fn trusted(ttl: Duration) -> Duration {
    (ttl * TRUSTED_PERCENT / 100).saturating_sub(SAFETY_MARGIN)
}
