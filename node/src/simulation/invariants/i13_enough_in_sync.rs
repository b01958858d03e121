//! I13: a set of copies in sync that was large enough never becomes too small.

use super::super::trace::text_of;
use super::super::world::World;
use crate::cluster::view::Shard;

impl World {
    /// Looks at the records that have changed.
    pub(in crate::simulation) fn check_records(&mut self) {
        let revision = self.store.content().revision();
        if revision == self.checked {
            return;
        }
        let before = std::mem::replace(&mut self.checked, revision);
        let shards = self.store.content().shards();
        let changed: Vec<_> = shards.filter(|shard| shard.mod_revision > before).cloned().collect();
        for record in changed {
            self.tell(|| text_of(&record));
            self.ledger.were_in_sync.extend(&record.isr);
            self.check_size(&record);
            self.check_in_sync_copies(&record);
        }
    }

    fn check_size(&mut self, record: &Shard) {
        let (size, needed) = (record.isr.len(), record.min_isr as usize);
        let was_enough = self.ledger.shard(record.id).was_enough;
        self.ledger.shard(record.id).was_enough |= size >= needed;
        if was_enough && size < needed {
            self.ledger
                .break_with(format!("I13: {size} copies of {} are in sync, {needed} are needed", record.id));
        }
    }
}
