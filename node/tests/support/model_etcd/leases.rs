//! Leases: when they end, and what ends with them. Pure, the time is given.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use tokio::time::Instant;

/// etcd grants no shorter ones.
const TTL_MIN: i64 = 2;
/// What a new leader adds to every lease: the time of an election.
const EXTENSION: Duration = Duration::from_secs(1);

/// All leases.
#[derive(Default)]
pub(super) struct Leases {
    leases: BTreeMap<i64, Lease>,
    last: i64,
}

struct Lease {
    ttl: i64,
    ends: Instant,
    keys: BTreeSet<Vec<u8>>,
}

impl Leases {
    /// A lease of at least `ttl` seconds; its number and its real TTL.
    pub(super) fn grant(&mut self, ttl: i64, now: Instant) -> (i64, i64) {
        self.last += 1;
        let ttl = ttl.max(TTL_MIN);
        self.leases.insert(self.last, Lease { ttl, ends: now + seconds(ttl), keys: BTreeSet::new() });
        (self.last, ttl)
    }

    /// The TTL that the lease has again; `None`: it is gone.
    pub(super) fn keep_alive(&mut self, lease: i64, now: Instant) -> Option<i64> {
        let lease = self.leases.get_mut(&lease)?;
        lease.ends = now + seconds(lease.ttl);
        Some(lease.ttl)
    }

    pub(super) fn contains(&self, lease: i64) -> bool {
        self.leases.contains_key(&lease)
    }

    /// All leases, ascending.
    pub(super) fn ids(&self) -> Vec<i64> {
        self.leases.keys().copied().collect()
    }

    /// Binds a key to a lease; 0: to none.
    pub(super) fn bind(&mut self, key: &[u8], before: i64, lease: i64) {
        if let Some(before) = self.leases.get_mut(&before) {
            before.keys.remove(key);
        }
        if let Some(lease) = self.leases.get_mut(&lease) {
            lease.keys.insert(key.to_vec());
        }
    }

    /// Leases that have run out at `now`, when they do so late by `late`.
    pub(super) fn ended(&self, now: Instant, late: Duration) -> Vec<i64> {
        let ended = self.leases.iter().filter(|(_, lease)| lease.ends + late <= now);
        ended.map(|(id, _)| *id).collect()
    }

    /// The lease is no more; the keys that were bound to it.
    pub(super) fn remove(&mut self, lease: i64) -> Option<BTreeSet<Vec<u8>>> {
        self.leases.remove(&lease).map(|lease| lease.keys)
    }

    /// A new leader, who leads from `from` on, knows no ends: it gives every lease its whole time again.
    pub(super) fn begin_again(&mut self, from: Instant) {
        for lease in self.leases.values_mut() {
            lease.ends = from + seconds(lease.ttl) + EXTENSION;
        }
    }
}

fn seconds(ttl: i64) -> Duration {
    Duration::from_secs(ttl.unsigned_abs())
}
