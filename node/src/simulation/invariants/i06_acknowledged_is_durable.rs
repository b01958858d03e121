//! I6: what is acknowledged is on as many disks as the table demands.

use super::super::node::CopyId;
use super::super::world::World;
use crate::ids::Lsn;

impl World {
    /// A primary has committed up to here.
    pub(in crate::simulation) fn check_acknowledged_is_durable(&mut self, copy: CopyId, commit: Lsn) {
        let Some(index) = (commit.0 as usize).checked_sub(1) else { return };
        let Some(last) = self.ledger.shards.get(&copy.0).and_then(|shard| shard.committed.get(index)) else {
            return;
        };
        let copies = self.ledger.copies.iter().filter(|(id, _)| id.0 == copy.0);
        // A disk that lost it may have had it when it said so.
        let disks = copies.filter(|(_, state)| state.is_bad || state.log.get(index) == Some(last)).count();
        let needed = self.store.content().shard(copy.0).map_or(0, |record| record.min_isr as usize);
        if disks < needed {
            self.ledger
                .break_with(format!("I6: {commit} is committed on {disks} disks, {needed} are needed"));
        }
    }
}
