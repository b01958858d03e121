//! I2: every copy in sync holds everything that was acknowledged, as far as its disk does what disks do.

use super::super::world::World;
use crate::cluster::view::Shard;

impl World {
    /// Looks at the copies that a record says to be in sync.
    pub(in crate::simulation) fn check_in_sync_copies(&mut self, record: &Shard) {
        let Some(shard) = self.ledger.shards.get(&record.id) else { return };
        let Some(last) = shard.committed.last() else { return };
        let end = shard.committed.len();
        for member in &record.isr {
            let Some(copy) = self.ledger.copies.get(&(record.id, *member)) else { continue };
            let has_all = copy.log.get(end - 1) == Some(last);
            if !has_all && !copy.is_bad {
                let what =
                    format!("I2: {member} is in sync and has {} of {end} committed records", copy.log.len());
                return self.ledger.break_with(what);
            }
        }
    }
}
