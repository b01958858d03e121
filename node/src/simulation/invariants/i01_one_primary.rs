//! I1: one primary for each reign of a shard, in one session of its node.

use super::super::ledger::Ledger;
use super::super::node::CopyId;
use crate::ids::Epoch;

impl Ledger {
    /// A copy leads from now on.
    pub(in crate::simulation) fn leads(&mut self, copy: CopyId, epoch: Epoch, process: u64) {
        let before = self.shard(copy.0).reigns.insert(epoch, (copy.1, process));
        if before.is_some_and(|before| before != (copy.1, process)) {
            self.break_with(format!("I1: {before:?} and {} of process {process} lead reign {epoch}", copy.1));
        }
    }
}
