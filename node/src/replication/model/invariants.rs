//! What must hold in every state of a world, by the names of the design.

use super::node::Node;
use super::world::World;
use crate::ids::Lsn;

impl World {
    /// A replica may apply up to here; a primary acknowledges it.
    pub(super) fn committed(&mut self, index: usize, lsn: Lsn) {
        let node = &self.nodes[index];
        let committed = &node.written.log[..lsn.0 as usize];
        let common = committed.len().min(self.acknowledged.len());
        if committed[..common] != self.acknowledged[..common] {
            self.broken.get_or_insert("I4: committed records differ");
        }
        if !self.leads(index) {
            if committed.len() > self.acknowledged.len() {
                self.broken.get_or_insert("I7: applied beyond what was committed");
            }
            return;
        }
        if committed.len() <= self.acknowledged.len() {
            return;
        }
        if committed.last().is_some_and(|entry| !entry.batch_end) {
            self.broken.get_or_insert("half a batch is visible");
        }
        let committed = committed.to_vec();
        let has_all = |node: &&Node| node.durable.log.starts_with(&committed);
        // A disk that was emptied may have had it.
        let disks = self.nodes.iter().filter(has_all).count() + usize::from(self.happened.wipes);
        if disks < self.record.min_isr {
            self.broken.get_or_insert("I6: acknowledged on too few disks");
        }
        self.acknowledged = committed;
    }

    /// Finds what is broken in this state.
    pub(super) fn check(&mut self) {
        if self.broken.is_none() {
            self.broken = self.broken_set().or_else(|| self.broken_lease());
        }
    }

    fn broken_set(&self) -> Option<&'static str> {
        let in_sync = |node: &&Node| node.has_volume && self.record.is_in_sync(node.id());
        let mut members = self.nodes.iter().filter(in_sync);
        if !members.clone().all(|node| node.durable.log.starts_with(&self.acknowledged)) {
            Some("I2: a copy in sync lacks what was acknowledged")
        } else if members.next().is_none() {
            Some("no copy in sync is left")
        } else if self.record.isr.len() < self.record.min_isr {
            Some("I13: too few copies in sync")
        } else {
            None
        }
    }

    fn broken_lease(&self) -> Option<&'static str> {
        let now = self.now();
        let mut holders = self.nodes.iter().filter(|node| node.core.grant(now).is_some());
        let is_stale = |node: &Node| (node.core.commit().0 as usize) < self.acknowledged.len();
        if holders.clone().any(is_stale) {
            Some("a read under a lease is stale")
        } else if holders.nth(1).is_some() {
            Some("I9: two hold a whole lease")
        } else {
            None
        }
    }

    /// True when a write was acknowledged.
    pub(super) fn has_acknowledged(&self, write: u8) -> bool {
        self.acknowledged.iter().any(|entry| entry.value == write)
    }
}
