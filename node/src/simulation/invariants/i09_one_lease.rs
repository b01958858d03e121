//! I9: at any time one copy of a shard at most may serve strong reads without asking the others.

use std::collections::BTreeMap;

use super::super::world::World;
use crate::ids::{ReplicaId, ShardId};

impl World {
    /// Looks at who may.
    pub(in crate::simulation) fn check_leases(&mut self) {
        let mut holders: BTreeMap<ShardId, (ReplicaId, usize)> = BTreeMap::new();
        let mut broken = None;
        for (index, node) in self.nodes.iter().enumerate() {
            let slots = node.process.iter().flat_map(|process| &process.slots);
            for (copy, slot) in slots {
                let Some(open) = &slot.open else { continue };
                let core = open.driver.core();
                if !matches!(core.standing(), crate::replication::Standing::Primary(_)) {
                    continue;
                }
                // One that stands still serves nobody, and looks at its clock first when it goes on.
                if node.stands_still || core.grant(node.now(self.time)).is_none() {
                    continue;
                }
                if let Some(other) = holders.insert(copy.0, (copy.1, index)) {
                    broken = Some(format!("I9: {other:?} and {:?} both hold a lease", (copy.1, index)));
                }
            }
        }
        if let Some(broken) = broken {
            self.ledger.break_with(broken);
        }
    }
}
