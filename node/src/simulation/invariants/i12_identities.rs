//! I12: a directory that is made anew is another copy. One that was never in sync counts for nothing, and may begin again.

use super::super::ledger::Ledger;
use crate::ids::ReplicaId;

impl Ledger {
    /// A directory was made for a copy.
    pub(in crate::simulation) fn formatted(&mut self, replica: ReplicaId) {
        if self.were_in_sync.contains(&replica) {
            self.break_with(format!("I12: {replica} was in sync, and its directory is made anew"));
        }
    }
}
