//! Nodes that could not take a copy in lately: their volume is too full, or what they wrote failed. They get no other one for a
//! while, so that a copy which cannot be made there is made elsewhere.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::ids::NodeId;

/// After this time a node is tried again.
const PAUSE: Duration = Duration::from_secs(60);

/// Which nodes, and since when.
#[derive(Debug, Default)]
pub(super) struct Unfit(Mutex<BTreeMap<NodeId, Instant>>);

impl Unfit {
    pub(super) fn note(&self, node: &NodeId, now: Instant) {
        self.lock().insert(node.clone(), now);
    }

    /// Those of the last minute.
    pub(super) fn nodes(&self, now: Instant) -> BTreeSet<NodeId> {
        let mut nodes = self.lock();
        nodes.retain(|_, since| now.saturating_duration_since(*since) < PAUSE);
        nodes.keys().cloned().collect()
    }

    /// A panic under the lock leaves the map whole.
    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<NodeId, Instant>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_is_tried_again_after_a_while() {
        let (unfit, start) = (Unfit::default(), Instant::now());
        let node = NodeId::parse("a").expect("valid");
        unfit.note(&node, start);
        assert_eq!(unfit.nodes(start + PAUSE / 2), BTreeSet::from([node]));
        assert_eq!(unfit.nodes(start + PAUSE), BTreeSet::new());
    }
}
