//! I12: a directory that is made anew is another copy.

use super::super::ledger::Ledger;
use crate::ids::ReplicaId;

impl Ledger {
    /// A directory was made for a copy.
    pub(in crate::simulation) fn formatted(&mut self, replica: ReplicaId) {
        if !self.formatted.insert(replica) {
            self.break_with(format!("I12: {replica} is made twice"));
        }
    }
}
