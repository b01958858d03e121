//! I7: nothing is applied, or believed to be committed, that no primary has committed.

use super::super::node::CopyId;
use super::super::world::World;
use crate::ids::Lsn;

impl World {
    /// A copy that does not lead knows this to be committed.
    pub(in crate::simulation) fn check_known_commit(&mut self, copy: CopyId, commit: Lsn) {
        let committed = self.ledger.shard(copy.0).committed.len() as u64;
        if commit.0 > committed {
            let what = format!("I7: {} believes {commit} to be committed, {committed} is", copy.1);
            self.ledger.break_with(what);
        }
    }
}
