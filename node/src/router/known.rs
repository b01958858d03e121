//! The last position that this gateway saw of each shard.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use super::session_token::SeenPosition;
use crate::cluster::view::ClusterView;
use crate::ids::{Lsn, ShardId};

/// Shards below this number are never looked through for ones that are gone.
const FEW: usize = 1_024;

/// Positions by shard. They tell a primary how old a write's first attempt is, so that a late repeat is known as one.
#[derive(Debug, Default)]
pub(super) struct KnownPositions(Mutex<Known>);

#[derive(Debug, Default)]
struct Known {
    positions: HashMap<ShardId, SeenPosition>,
    /// Shards that are gone are forgotten when this many are known.
    forget_at: usize,
}

impl KnownPositions {
    /// An answer of `shard` told this position.
    pub(super) fn see(&self, view: &ClusterView, shard: ShardId, position: SeenPosition) {
        // Held for short and without waits; a panic leaves the map whole.
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let seen = known.positions.entry(shard).or_default();
        *seen = position.max(*seen);
        if known.positions.len() > known.forget_at.max(FEW) {
            known.positions.retain(|shard, _| view.shards.contains_key(shard));
            known.forget_at = 2 * known.positions.len();
        }
    }

    /// The last one seen; [`Lsn::ZERO`]: none.
    pub(super) fn position(&self, shard: ShardId) -> Lsn {
        self.seen(shard).lsn
    }

    /// As [`KnownPositions::position`], with the incarnation of the shard.
    pub(super) fn seen(&self, shard: ShardId) -> SeenPosition {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.positions.get(&shard).copied().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::{ShardIndex, TableId};

    #[test]
    fn the_latest_position_is_known_and_shards_that_are_gone_are_forgotten() {
        let (known, view, table) = (KnownPositions::default(), ClusterView::default(), TableId::random());
        let shard = |index: usize| ShardId { table, index: ShardIndex(index as u32) };
        let at = |incarnation, lsn| SeenPosition { incarnation, lsn: Lsn(lsn) };
        assert_eq!(known.position(shard(0)), Lsn::ZERO);
        known.see(&view, shard(0), at(0, 7));
        known.see(&view, shard(0), at(0, 5));
        assert_eq!(known.position(shard(0)), Lsn(7));
        known.see(&view, shard(0), at(1, 2));
        assert_eq!(known.position(shard(0)), Lsn(2), "of the newer incarnation");
        for index in 0..=FEW {
            known.see(&view, shard(index), at(0, 1));
        }
        assert!(known.0.lock().expect("no panic").positions.is_empty());
    }
}
