//! How far a node that is to be emptied is. Pure.

use crate::cluster::view::{ClusterView, Replica, ReplicaRole, Shard};
use crate::ids::{NodeId, ShardId};

/// What a node still holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DrainProgress {
    /// Copies that have to move.
    pub replicas: usize,
    /// Those of them that are primaries.
    pub primaries: usize,
    /// Copies that have moved, whose data the node has not deleted yet.
    pub leaving: usize,
    /// Copies that cannot move at present, and why.
    pub blocked: Vec<(ShardId, String)>,
}

impl DrainProgress {
    /// True when nothing has to move any more: the node may go. What is leaving needs it no longer.
    pub fn is_done(&self) -> bool {
        self.replicas == 0
    }
}

/// What `node` still holds, and which of it no other node can take.
pub fn drain_progress(view: &ClusterView, node: &NodeId) -> DrainProgress {
    let mut progress = DrainProgress::default();
    for shard in view.shards.values() {
        for replica in shard.replicas.iter().filter(|replica| replica.node == *node) {
            if replica.role == ReplicaRole::Leaving {
                progress.leaving += 1;
                continue;
            }
            progress.replicas += 1;
            progress.primaries += usize::from(shard.primary == Some(replica.id));
            if let Some(why) = obstacle(view, shard, replica) {
                progress.blocked.push((shard.id, why.to_owned()));
            }
        }
    }
    progress
}

/// Why a copy cannot move; `None`: it can, or it does.
fn obstacle(view: &ClusterView, shard: &Shard, replica: &Replica) -> Option<&'static str> {
    let is_replaced = shard.replicas.iter().any(|other| other.replaces == Some(replica.id));
    let may_take = |node: &NodeId| !shard.replicas.iter().any(|replica| replica.node == *node);
    let mut takers = view.nodes.values().filter(|node| node.holds_shards() && may_take(&node.id));
    if is_replaced || takers.any(|node| !view.drains.contains_key(&node.id)) {
        return None;
    }
    Some("no other node can take it: each of them has a copy, or is drained")
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::cluster::view::{Drain, Node};
    use crate::ids::{Epoch, ReplicaId, Revision, Session, ShardIndex, TableId};

    fn id(name: &str) -> NodeId {
        NodeId::parse(name).expect("valid")
    }

    fn node(name: &str) -> (NodeId, Arc<Node>) {
        let node = Node {
            id: id(name),
            session: Session(1),
            node_type: "slave".to_owned(),
            endpoints: Vec::new(),
            version: String::new(),
            zone: String::new(),
            capacity_bytes: 0,
        };
        (id(name), Arc::new(node))
    }

    /// A shard with these copies; the first one is the primary.
    fn shard(table: TableId, index: u32, copies: &[(&str, ReplicaRole)]) -> (ShardId, Arc<Shard>) {
        let replica = |(number, (name, role)): (usize, &(&str, ReplicaRole))| Replica {
            id: ReplicaId([number as u8; 16]),
            node: id(name),
            role: *role,
            damaged: false,
            replaces: None,
        };
        let shard = Shard {
            id: ShardId { table, index: ShardIndex(index) },
            epoch: Epoch(1),
            primary: Some(ReplicaId([0; 16])),
            primary_session: Session(1),
            replicas: copies.iter().enumerate().map(replica).collect(),
            isr: vec![ReplicaId([0; 16])],
            min_isr: 1,
            incarnation: 0,
            mod_revision: Revision(1),
        };
        (shard.id, Arc::new(shard))
    }

    #[test]
    fn what_is_left_is_counted_and_what_cannot_move_says_why() {
        use ReplicaRole::{Full, Learner, Leaving};
        let table = TableId::random();
        let mut view = ClusterView {
            nodes: [node("a"), node("b"), node("c")].into(),
            shards: [
                shard(table, 0, &[("a", Full), ("b", Full)]),
                shard(table, 1, &[("b", Full), ("a", Learner), ("c", Full)]),
                shard(table, 2, &[("c", Full), ("a", Leaving)]),
            ]
            .into(),
            ..ClusterView::default()
        };
        let progress = drain_progress(&view, &id("a"));
        assert_eq!((progress.replicas, progress.primaries, progress.leaving), (2, 1, 1));
        let blocked = |progress: &DrainProgress| -> Vec<u32> {
            progress.blocked.iter().map(|(shard, _)| shard.index.0).collect()
        };
        assert_eq!(blocked(&progress), [1], "each node has a copy of it");
        assert!(!progress.is_done());
        let drain = Drain {
            requested_unix_ms: 0,
            expires_unix_ms: None,
            reason: String::new(),
            mod_revision: Revision(1),
        };
        view.drains.insert(id("c"), drain);
        assert_eq!(blocked(&drain_progress(&view, &id("a"))), [0, 1]);
        let empty = drain_progress(&view, &id("d"));
        assert!(empty.is_done() && empty.blocked.is_empty());
    }
}
