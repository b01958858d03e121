//! A lease that is kept alive, and what its holder may believe of it.

use std::time::Duration;

use tokio::time::{Instant, timeout, timeout_at};
use tokio_util::sync::CancellationToken;
use tracing::debug;

use super::meta_store::{LeaseId, MetaError, MetaStore, Txn, TxnOutcome};
use crate::ids::Revision;
use crate::runtime::clock::boot_time;

/// Part of the TTL that the holder trusts, and what it takes off for the way to the store (`replication.md` 2.5: clock
/// rates differ by at most 1 %).
const TRUSTED_PERCENT: u32 = 99;
const SAFETY_MARGIN: Duration = Duration::from_millis(500);
/// A lease that is given up would expire by itself, so nobody waits long for its end.
const REVOKE_LIMIT: Duration = Duration::from_secs(2);

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
    /// A new lease and the keys that `txn` writes under it; `None` when a condition of `txn` does not hold. Whatever else
    /// comes in between (an error, `limit`, `cancel`), the lease is given up, and the keys with it.
    pub(super) async fn with_keys(
        meta: &dyn MetaStore,
        ttl: Duration,
        limit: Duration,
        cancel: &CancellationToken,
        txn: impl FnOnce(LeaseId) -> Txn,
    ) -> Result<Option<(KeptLease, Revision)>, MetaError> {
        let until = Instant::now() + limit;
        let lease = in_time(until, cancel, KeptLease::grant(meta, ttl)).await?;
        let written = in_time(until, cancel, meta.commit(txn(lease.id))).await;
        if let Ok(TxnOutcome::Committed(revision)) = written {
            return Ok(Some((lease, revision)));
        }
        if let Err(error) = lease.give_up(meta).await {
            debug!(%error, "a lease that is not needed will expire");
        }
        written.map(|_| None)
    }

    async fn grant(meta: &dyn MetaStore, ttl: Duration) -> Result<KeptLease, MetaError> {
        let asked = boot_time();
        let id = meta.grant_lease(ttl).await?;
        Ok(KeptLease { id, ttl, valid_until: asked + trusted(ttl) })
    }

    /// Prolongs the lease once; waits no longer than the lease may be believed in, so that its end is noticed in time.
    pub(super) async fn beat(&mut self, meta: &dyn MetaStore) -> Beat {
        let sent = boot_time();
        let left = self.left().max(SAFETY_MARGIN);
        match timeout(left, meta.keep_alive(self.id)).await {
            Ok(Ok(true)) => {
                self.valid_until = sent + trusted(self.ttl);
                Beat::Alive
            }
            Ok(Ok(false)) => Beat::Gone,
            Ok(Err(error)) => Beat::Silent(error),
            Err(_) => Beat::Silent(no_answer()),
        }
    }

    /// Ends the lease, which removes its keys.
    pub(super) async fn give_up(self, meta: &dyn MetaStore) -> Result<(), MetaError> {
        timeout(REVOKE_LIMIT, meta.revoke_lease(self.id)).await.unwrap_or_else(|_| Err(no_answer()))
    }

    /// True while nobody else can hold what this lease protects.
    pub(super) fn is_valid(&self) -> bool {
        boot_time() < self.valid_until
    }

    /// Until when that is true, on the boot-time clock.
    pub(super) fn valid_until(&self) -> Duration {
        self.valid_until
    }

    /// How long that stays true without a keep-alive.
    pub(super) fn left(&self) -> Duration {
        self.valid_until.saturating_sub(boot_time())
    }
}

async fn in_time<T>(
    until: Instant,
    cancel: &CancellationToken,
    call: impl Future<Output = Result<T, MetaError>>,
) -> Result<T, MetaError> {
    match cancel.run_until_cancelled(timeout_at(until, call)).await {
        Some(answer) => answer.unwrap_or_else(|_| Err(no_answer())),
        None => Err(MetaError::Unavailable("this node is stopping".to_owned())),
    }
}

fn no_answer() -> MetaError {
    MetaError::Unavailable("no answer in time".to_owned())
}

/// Counted from the sending of the request: the store starts its own count later.
fn trusted(ttl: Duration) -> Duration {
    (ttl * TRUSTED_PERCENT / 100).saturating_sub(SAFETY_MARGIN)
}
