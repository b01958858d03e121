//! Which nodes are lost. A node that does not answer the Master, nor another node, loses its registration, so that others
//! lead its shards; a wrong suspicion costs a change of primaries, never data. The end of a node's lease is the backstop.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use futures::future::join_all;
use tracing::{info, warn};

use super::Coordinator;
use crate::cluster::meta_store::{Condition, Operation, Txn};
use crate::cluster::node_session::NODE_TTL;
use crate::cluster::view::{ClusterView, Node};
use crate::ids::{NodeId, Revision, Session};

/// Nodes that are asked whether they reach a suspect.
const WITNESSES: usize = 2;
/// Share of all nodes that may be lost within one life of a session before anybody becomes suspicious of the network.
const LOST_PERCENT_MAX: usize = 30;

/// What the Master remembers of nodes that are lost. A new Master begins anew.
#[derive(Debug, Default)]
pub(super) struct Detection {
    /// Since when nodes of the records are not registered.
    gone: BTreeMap<NodeId, Instant>,
    /// Nodes that were registered at the last look, with their sessions.
    present: BTreeMap<NodeId, Session>,
}

impl Detection {
    /// Takes in who is there.
    pub(super) fn look(&mut self, view: &ClusterView, now: Instant) {
        for id in self.present.keys().filter(|id| !view.nodes.contains_key(*id)) {
            self.gone.entry(id.clone()).or_insert(now);
        }
        for replica in view.shards.values().flat_map(|shard| shard.staying()) {
            if !view.nodes.contains_key(&replica.node) {
                self.gone.entry(replica.node.clone()).or_insert(now);
            }
        }
        self.gone.retain(|id, _| !view.nodes.contains_key(id));
        self.present = view.nodes.values().map(|node| (node.id.clone(), node.session)).collect();
    }

    /// Now, and since when each node of the records is not registered, on one clock.
    pub(super) fn clock(&self, now: Instant) -> (Duration, BTreeMap<NodeId, Duration>) {
        let begin = self.gone.values().min().copied().unwrap_or(now);
        let at = |time: Instant| time.saturating_duration_since(begin);
        (at(now), self.gone.iter().map(|(id, since)| (id.clone(), at(*since))).collect())
    }

    /// True while so many nodes have vanished at once that something between them and the metadata store is the likelier
    /// reason (an etcd that had stood still revokes many leases that live). One more life of a session tells.
    pub(super) fn must_wait(&self, now: Instant) -> bool {
        let ages = self.gone.values().map(|since| now.saturating_duration_since(*since));
        let recent = ages.filter(|age| *age < 2 * NODE_TTL).collect::<Vec<_>>();
        let all = self.present.len() + self.gone.len();
        let many = recent.len() >= 2 && recent.len() * 100 > all * LOST_PERCENT_MAX;
        many && recent.iter().any(|age| *age < NODE_TTL)
    }
}

impl Coordinator {
    /// Takes the registration of nodes that neither the Master nor a witness reaches.
    pub(super) async fn detect(&self, view: &ClusterView, detection: &mut Detection) {
        detection.look(view, Instant::now());
        let suspects: Vec<&Node> =
            view.nodes.values().map(AsRef::as_ref).filter(|node| self.comm.is_suspect(node)).collect();
        join_all(suspects.iter().map(|node| self.take_registration_if_lost(view, node))).await;
    }

    async fn take_registration_if_lost(&self, view: &ClusterView, suspect: &Node) {
        let Some(guard) = self.role.borrow().guard() else { return };
        let own = view.master.as_ref().map(|master| &master.node);
        let is_witness =
            |node: &&Node| node.id != suspect.id && Some(&node.id) != own && !self.comm.is_suspect(node);
        let witnesses = view.nodes.values().map(AsRef::as_ref).filter(is_witness).take(WITNESSES);
        let heard = join_all(witnesses.map(|witness| self.comm.ask_witness(&witness.id, &suspect.id))).await;
        let (reached, silent) = (heard.contains(&Some(true)), heard.contains(&Some(false)));
        if reached || !silent {
            info!(node = %suspect.id, reached, "a suspect node keeps its registration");
            return;
        }
        let key = self.keys.node(suspect.id.as_str());
        let txn = Txn {
            conditions: vec![guard, Condition::CreatedAt(key.clone(), Revision(suspect.session.0))],
            operations: vec![Operation::Delete(key)],
        };
        match self.step(txn).await {
            Ok(Some(_)) => warn!(node = %suspect.id, "node is lost: nobody reaches it"),
            Ok(None) => {}
            Err(error) => warn!(node = %suspect.id, %error, "could not take the registration of a lost node"),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    fn view(nodes: &[&str]) -> ClusterView {
        let nodes =
            nodes.iter().map(|name| (NodeId::parse(name).expect("valid"), Arc::new(Node::slave(name, 1))));
        ClusterView { nodes: nodes.collect(), ..ClusterView::default() }
    }

    #[test]
    fn one_lost_node_is_replaced_at_once_and_many_after_a_second_look() {
        let start = Instant::now();
        let mut detection = Detection::default();
        detection.look(&view(&["a", "b", "c", "d", "e"]), start);
        detection.look(&view(&["a", "b", "c", "d"]), start);
        assert!(!detection.must_wait(start));
        detection.look(&view(&["a", "b", "c"]), start + Duration::from_secs(1));
        assert!(detection.must_wait(start + Duration::from_secs(1)));
        assert!(!detection.must_wait(start + Duration::from_secs(1) + NODE_TTL));
        detection.look(&view(&["a", "b", "c", "d", "e"]), start + Duration::from_secs(2));
        assert!(!detection.must_wait(start + Duration::from_secs(2)) && detection.gone.is_empty());
    }
}
