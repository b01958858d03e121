//! Nodes that could not take a copy in lately: their volume is too full, or what they wrote failed. They get no other one for a
//! while, so that a copy which cannot be made there is made elsewhere. What each try leaves is kept for some time, so tries
//! become rarer.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::ids::NodeId;

/// After this time a node is tried again, doubled each time that fails.
const PAUSE_MIN: Duration = Duration::from_secs(60);
/// Longest such time.
const PAUSE_MAX: Duration = Duration::from_secs(16 * 60);
/// After this time nothing is held against a node.
const FORGET: Duration = Duration::from_secs(60 * 60);

/// Which nodes, since when, and for how long.
#[derive(Debug, Default)]
pub(super) struct Unfit(Mutex<BTreeMap<NodeId, (Instant, Duration)>>);

impl Unfit {
    /// The node could not take a copy in.
    pub(super) fn note(&self, node: &NodeId, now: Instant) {
        let mut nodes = self.lock();
        let pause = nodes.get(node).map_or(PAUSE_MIN, |(_, pause)| PAUSE_MAX.min(*pause * 2));
        nodes.insert(node.clone(), (now, pause));
    }

    /// Those that get nothing now.
    pub(super) fn nodes(&self, now: Instant) -> BTreeSet<NodeId> {
        let mut nodes = self.lock();
        nodes.retain(|_, (since, _)| now.saturating_duration_since(*since) < FORGET);
        let rest = nodes.iter().filter(|(_, (since, pause))| now.saturating_duration_since(*since) < *pause);
        rest.map(|(node, _)| node.clone()).collect()
    }

    /// A panic under the lock leaves the map whole.
    fn lock(&self) -> MutexGuard<'_, BTreeMap<NodeId, (Instant, Duration)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_is_tried_again_after_a_while_that_grows() {
        let (unfit, start) = (Unfit::default(), Instant::now());
        let node = NodeId::parse("a").expect("valid");
        unfit.note(&node, start);
        let some = BTreeSet::from([node.clone()]);
        assert_eq!(unfit.nodes(start + PAUSE_MIN / 2), some);
        assert_eq!(unfit.nodes(start + PAUSE_MIN), BTreeSet::new());
        unfit.note(&node, start + PAUSE_MIN);
        assert_eq!(unfit.nodes(start + PAUSE_MIN * 2), some);
        assert_eq!(unfit.nodes(start + PAUSE_MIN * 3), BTreeSet::new());
        assert_eq!(unfit.nodes(start + PAUSE_MIN + FORGET), BTreeSet::new());
        unfit.note(&node, start + PAUSE_MIN + FORGET);
        assert_eq!(unfit.nodes(start + PAUSE_MIN * 2 + FORGET), BTreeSet::new(), "it was forgotten");
    }
}
