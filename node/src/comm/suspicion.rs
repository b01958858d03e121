//! Which nodes have not answered lately.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;
use tracing::{info, warn};

use crate::cluster::view::{ClusterView, Node};
use crate::ids::{NodeId, Session};

/// Probes missed in a row after which a node is suspect.
const MISSED_MAX: u32 = 4;

/// Missed probes in a row, by node. A node in a new session is a new process: nothing is held against it.
#[derive(Debug, Default)]
pub(super) struct Suspicion {
    missed: Mutex<HashMap<NodeId, (Session, u32)>>,
    news: watch::Sender<()>,
}

impl Suspicion {
    pub(super) fn answered(&self, node: &Node) {
        let missed = self.lock().remove(&node.id);
        if missed.is_some_and(|(_, missed)| missed >= MISSED_MAX) {
            info!(node = %node.id, "node answers again");
        }
    }

    pub(super) fn missed(&self, node: &Node, why: &str) {
        let mut nodes = self.lock();
        let (session, missed) = nodes.entry(node.id.clone()).or_insert((node.session, 0));
        if *session != node.session {
            (*session, *missed) = (node.session, 0);
        }
        *missed = missed.saturating_add(1);
        if *missed == MISSED_MAX {
            warn!(node = %node.id, why, "node does not answer probes, its shards count as unavailable");
            self.news.send_replace(());
        }
    }

    /// Changes when a node becomes suspect.
    pub(super) fn news(&self) -> watch::Receiver<()> {
        self.news.subscribe()
    }

    /// Nobody listens where the node was: it is suspect at once.
    pub(super) fn refused(&self, node: &Node, why: &str) {
        while !self.is_suspect(node) {
            self.missed(node, why);
        }
    }

    pub(super) fn is_suspect(&self, node: &Node) -> bool {
        let nodes = self.lock();
        let missed = nodes.get(&node.id).filter(|(session, _)| *session == node.session);
        missed.is_some_and(|(_, missed)| *missed >= MISSED_MAX)
    }

    /// Forgets nodes that have left; the number of suspects among the others.
    pub(super) fn keep_only(&self, view: &ClusterView) -> usize {
        let mut nodes = self.lock();
        nodes.retain(|node, _| view.nodes.contains_key(node));
        nodes.values().filter(|(_, missed)| *missed >= MISSED_MAX).count()
    }

    /// A panic under the lock leaves the map whole.
    fn lock(&self) -> MutexGuard<'_, HashMap<NodeId, (Session, u32)>> {
        self.missed.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(session: i64) -> Node {
        Node::slave("a", session)
    }

    #[test]
    fn misses_in_a_row_make_a_suspect_and_one_answer_clears_it() {
        let suspicion = Suspicion::default();
        for _ in 1..MISSED_MAX {
            suspicion.missed(&node(1), "silent");
        }
        assert!(!suspicion.is_suspect(&node(1)));
        suspicion.answered(&node(1));
        for _ in 0..MISSED_MAX {
            assert!(!suspicion.is_suspect(&node(1)));
            suspicion.missed(&node(1), "silent");
        }
        assert!(suspicion.is_suspect(&node(1)));
        assert!(!suspicion.is_suspect(&node(2)), "a new session is a new process");
        suspicion.answered(&node(1));
        assert!(!suspicion.is_suspect(&node(1)));
    }

    #[test]
    fn a_node_that_nobody_listens_for_is_suspect_at_once() {
        let suspicion = Suspicion::default();
        suspicion.refused(&node(1), "connection refused");
        assert!(suspicion.is_suspect(&node(1)));
        suspicion.answered(&node(1));
        assert!(!suspicion.is_suspect(&node(1)));
    }

    #[test]
    fn a_node_that_left_is_forgotten() {
        let suspicion = Suspicion::default();
        for _ in 0..MISSED_MAX {
            suspicion.missed(&node(1), "silent");
        }
        assert_eq!(suspicion.keep_only(&ClusterView::default()), 0);
        assert!(!suspicion.is_suspect(&node(1)));
    }
}
