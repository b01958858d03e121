//! I11: the data of a copy is deleted only when it counts for nothing any more.

use super::super::ledger::Ledger;
use super::super::meta_store::Content;
use super::super::node::CopyId;

impl Ledger {
    /// A node deletes a copy.
    pub(in crate::simulation) fn deleted(&mut self, copy: CopyId, content: &Content) {
        self.copy(copy).is_deleted = true;
        let counts = content.shard(copy.0).is_some_and(|record| record.is_in_sync(copy.1));
        if counts {
            self.break_with(format!("I11: {} is deleted and in sync", copy.1));
        }
    }
}
