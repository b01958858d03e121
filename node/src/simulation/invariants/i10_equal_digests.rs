//! I10: copies that applied up to the same position hold the same.

use super::super::ledger::Ledger;
use super::super::node::CopyId;
use crate::ids::Lsn;
use crate::storage::Digest;

impl Ledger {
    /// A copy has applied up to here.
    pub(in crate::simulation) fn applied(&mut self, copy: CopyId, applied: Lsn, digest: Digest) {
        let shard = self.shard(copy.0);
        let committed = shard.committed.len() as u64;
        let first = *shard.digests.entry(applied).or_insert(digest);
        if first != digest {
            self.break_with(format!(
                "I10: {} holds something else at {applied}: {digest:?}, {first:?}",
                copy.1
            ));
        }
        if applied.0 > committed {
            self.break_with(format!("I7: {} applied {applied}, {committed} is committed", copy.1));
        }
    }
}
