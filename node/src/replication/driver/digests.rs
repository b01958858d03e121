//! Digests of a replica's content, to be compared with other copies of the shard.

use std::time::Duration;

use crate::ids::Lsn;
use crate::replication::Now;
use crate::storage::digest::DIGEST_INTERVAL;
use crate::storage::{Digest, Store};

/// How often the digest at the last position is told, beside those at round positions.
const TELL_INTERVAL: Duration = Duration::from_secs(60);
/// Digests that are remembered.
const REMEMBERED: usize = 16;

/// Digests at positions that were applied.
#[derive(Debug, Default)]
pub(crate) struct Digests {
    /// Ascending.
    known: Vec<Digest>,
    /// What to tell next.
    untold: Option<Digest>,
    /// When one was told last, on the monotonic clock.
    told: Option<Duration>,
}

impl Digests {
    /// Takes in where the store is: its digest now, and those at round positions.
    pub(super) fn note(&mut self, store: &Store, now: Now) {
        let last = store.digest();
        let round = Lsn(last.lsn.0 - last.lsn.0 % DIGEST_INTERVAL);
        self.remember(store.digest_at(round), last, now);
    }

    /// A round position is passed once: when it has been forgotten, it is not the last one again.
    fn remember(&mut self, round: Option<Digest>, last: Digest, now: Now) {
        for digest in round.into_iter().chain([last]) {
            if self.known.last().is_some_and(|known| known.lsn >= digest.lsn) {
                continue;
            }
            let is_due = self.told.is_none_or(|told| now.monotonic >= told + TELL_INTERVAL);
            if round == Some(digest) || is_due {
                self.untold = Some(digest);
            }
            if self.known.len() == REMEMBERED {
                self.known.remove(0);
            }
            self.known.push(digest);
        }
    }

    /// The digest to send along, once.
    pub(super) fn take_untold(&mut self, now: Now) -> Option<Digest> {
        let digest = self.untold.take()?;
        self.told = Some(now.monotonic);
        Some(digest)
    }

    /// The digest of the last position that is known.
    pub(crate) fn last(&self) -> Option<Digest> {
        self.known.last().copied()
    }

    /// True when another copy says something else of a position that is known here.
    pub(super) fn differ(&self, theirs: &Digest) -> bool {
        self.known.iter().any(|ours| ours.lsn == theirs.lsn && ours != theirs)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Found by torture: at rest a copy said the digest of a round position for ever, which it had passed long before.
    #[test]
    fn the_last_digest_is_that_of_the_last_position() {
        let digest = |lsn| Digest { lsn: Lsn(lsn), ..Digest::default() };
        let now = Now { monotonic: Duration::from_secs(1), boot: Duration::from_secs(1) };
        let mut digests = Digests::default();
        for lsn in 990..=1_050 {
            let round = (lsn >= 1_000).then(|| digest(1_000));
            digests.remember(round, digest(lsn), now);
            assert_eq!(digests.last(), Some(digest(lsn)));
            digests.remember(round, digest(lsn), now);
            assert_eq!(digests.last(), Some(digest(lsn)), "told again");
        }
    }
}
