//! I14: what a Master writes is written by the one whose key is the oldest.
//!
//! The store compares the key in each write ([`super::super::meta_store`]); here it is shown that epochs of Masters rise.

use super::super::world::World;
use crate::ids::Revision;

impl World {
    /// A Master's decision was carried out under this key.
    pub(in crate::simulation) fn check_master(&mut self, guard: Revision) {
        let before = self.ledger.master;
        self.ledger.master = before.max(guard);
        if guard < before {
            self.ledger.break_with(format!("I14: Master {} decided after Master {}", guard.0, before.0));
        }
    }
}
