//! I5: commit never falls while a copy is open.

use super::super::node::CopyId;
use super::super::world::World;
use crate::ids::Lsn;

impl World {
    /// What a copy knows to be committed has changed.
    pub(in crate::simulation) fn check_commit_grows(&mut self, copy: CopyId, before: Lsn, after: Lsn) {
        if after < before {
            self.ledger.break_with(format!("I5: commit of {} fell from {before} to {after}", copy.1));
        }
    }
}
