//! I3: whenever commit advances, every copy that the record says to be in sync was counted.

use std::collections::BTreeSet;

use super::super::node::CopyId;
use super::super::world::World;
use crate::ids::ReplicaId;

impl World {
    /// A primary has committed something, counting these copies.
    pub(in crate::simulation) fn check_maximal_set(&mut self, copy: CopyId, maximal: &BTreeSet<ReplicaId>) {
        let record = self.store.content().shard(copy.0).expect("it has a record");
        let missed = record.isr.iter().find(|member| !maximal.contains(member));
        if let (Some(missed), Some(primary)) = (missed, record.primary)
            && primary == copy.1
        {
            self.ledger.break_with(format!("I3: {} committed without {missed}, which is in sync", copy.1));
        }
    }
}
