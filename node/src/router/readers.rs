//! Which replicas may answer a read, and in which order they are asked. Pure.

use crate::cluster::view::{ClusterView, Node, Replica, ReplicaRole, Shard};
use crate::ids::NodeId;
use crate::search::Consistency;

/// What decides between replicas that may all answer.
pub struct Preference<'p> {
    /// The zone of this gateway; empty: it has none.
    pub zone: &'p str,
    /// Calls of this gateway that are under way to a node.
    pub in_flight: &'p dyn Fn(&NodeId) -> usize,
    /// Nodes that do not answer this gateway's probes.
    pub is_suspect: &'p dyn Fn(&Node) -> bool,
    /// Grows with each read: of equals each comes first in turn.
    pub turn: usize,
}

/// The nodes of the replicas that may answer a read which does not need the primary, the best one first.
///
/// A session read goes to a copy in sync; reads with weaker demands also to one that was in sync once. Copies that are
/// damaged, leaving or still learning answer nobody, and nodes that are away or suspect are not asked. The order: this
/// gateway's zone before others, the least busy node before others, equals in turn. Where the first one fails, the primary
/// comes last: it has the most to do, and it is the one that surely has what the others lack.
pub fn readers<'v>(
    view: &'v ClusterView,
    shard: &'v Shard,
    consistency: Consistency,
    preference: &Preference<'_>,
) -> Vec<&'v NodeId> {
    assert!(!consistency.needs_primary(), "the primary is found by its epoch");
    let may_answer = |replica: &&Replica| {
        let is_whole = replica.role == ReplicaRole::Full && !replica.damaged;
        let is_fresh = consistency != Consistency::Session || shard.is_in_sync(replica.id);
        let node = view.nodes.get(&replica.node);
        is_whole && is_fresh && node.is_some_and(|node| !(preference.is_suspect)(node))
    };
    let mut able: Vec<&Replica> = shard.replicas.iter().filter(may_answer).collect();
    let Some(shift) = preference.turn.checked_rem(able.len()) else { return Vec::new() };
    able.rotate_left(shift);
    // A stable sort keeps the turn of equals.
    able.sort_by_key(|replica| {
        let is_elsewhere = view.nodes.get(&replica.node).is_none_or(|node| node.zone != preference.zone);
        (is_elsewhere, (preference.in_flight)(&replica.node))
    });
    able[1..].sort_by_key(|replica| shard.primary == Some(replica.id));
    able.into_iter().map(|replica| &replica.node).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::Arc;
    use std::time::Duration;

    use super::*;
    use crate::ids::{Epoch, ReplicaId, Revision, Session, ShardId, ShardIndex, TableId};

    const BOUNDED: Consistency = Consistency::Bounded(Duration::from_secs(1));

    fn id(name: &str) -> NodeId {
        NodeId::parse(name).expect("valid")
    }

    /// Nodes `a` to `e`, each with the zone given.
    fn view(zones: &[&str]) -> ClusterView {
        let node = |(index, zone): (usize, &&str)| {
            let name = id(&char::from(b'a' + index as u8).to_string());
            let node = Node {
                id: name.clone(),
                session: Session(1),
                node_type: "slave".to_owned(),
                endpoints: Vec::new(),
                version: String::new(),
                zone: (*zone).to_owned(),
                capacity_bytes: 0,
            };
            (name, Arc::new(node))
        };
        ClusterView { nodes: zones.iter().enumerate().map(node).collect(), ..ClusterView::default() }
    }

    /// A shard with a copy on each node named; the first one is the primary, those in capitals are in sync.
    fn shard(copies: &[(&str, ReplicaRole)]) -> Shard {
        let replica = |(index, (name, role)): (usize, &(&str, ReplicaRole))| Replica {
            id: ReplicaId([index as u8; 16]),
            node: id(&name.to_lowercase()),
            role: *role,
            damaged: false,
            replaces: None,
        };
        let in_sync = copies.iter().enumerate().filter(|(_, (name, _))| *name == name.to_uppercase());
        Shard {
            id: ShardId { table: TableId::random(), index: ShardIndex(0) },
            epoch: Epoch(1),
            primary: Some(ReplicaId([0; 16])),
            primary_session: Session(1),
            replicas: copies.iter().enumerate().map(replica).collect(),
            isr: in_sync.map(|(index, _)| ReplicaId([index as u8; 16])).collect(),
            min_isr: 1,
            incarnation: 0,
            mod_revision: Revision(1),
        }
    }

    struct Gateway {
        zone: &'static str,
        busy: BTreeMap<NodeId, usize>,
        suspect: Vec<NodeId>,
        turn: usize,
    }

    impl Gateway {
        fn of_zone(zone: &'static str) -> Gateway {
            Gateway { zone, busy: BTreeMap::new(), suspect: Vec::new(), turn: 0 }
        }

        fn asks(&self, view: &ClusterView, shard: &Shard, consistency: Consistency) -> String {
            let preference = Preference {
                zone: self.zone,
                in_flight: &|node| self.busy.get(node).copied().unwrap_or(0),
                is_suspect: &|node| self.suspect.contains(&node.id),
                turn: self.turn,
            };
            readers(view, shard, consistency, &preference).into_iter().map(NodeId::as_str).collect()
        }
    }

    #[test]
    fn a_session_read_asks_copies_in_sync_and_weaker_ones_every_full_copy() {
        use ReplicaRole::{Full, Learner, Leaving};
        let view = view(&["", "", "", "", ""]);
        let mut shard = shard(&[("A", Full), ("B", Full), ("c", Full), ("d", Learner), ("e", Leaving)]);
        let gateway = Gateway::of_zone("");
        assert_eq!(gateway.asks(&view, &shard, Consistency::Session), "ab");
        // The primary was the first choice, so it is the first one asked.
        assert_eq!(gateway.asks(&view, &shard, Consistency::Eventual), "abc");
        assert_eq!(gateway.asks(&view, &shard, BOUNDED), "abc");
        shard.replicas[1].damaged = true;
        assert_eq!(gateway.asks(&view, &shard, Consistency::Session), "a");
        assert_eq!(gateway.asks(&view, &shard, Consistency::Eventual), "ac");
    }

    #[test]
    fn nodes_that_are_away_or_suspect_are_not_asked() {
        use ReplicaRole::Full;
        let mut view = view(&["", "", ""]);
        let shard = shard(&[("A", Full), ("B", Full), ("C", Full)]);
        let mut gateway = Gateway::of_zone("");
        gateway.suspect = vec![id("a")];
        assert_eq!(gateway.asks(&view, &shard, Consistency::Session), "bc");
        view.nodes.remove(&id("b"));
        assert_eq!(gateway.asks(&view, &shard, Consistency::Session), "c");
        gateway.suspect.push(id("c"));
        assert_eq!(gateway.asks(&view, &shard, Consistency::Session), "");
    }

    #[test]
    fn the_own_zone_comes_first_then_the_least_busy_then_each_in_turn_and_the_primary_last() {
        use ReplicaRole::Full;
        let view = view(&["1", "1", "2", "2"]);
        let shard = shard(&[("A", Full), ("B", Full), ("C", Full), ("D", Full)]);
        let mut gateway = Gateway::of_zone("2");
        let asks = |gateway: &Gateway| gateway.asks(&view, &shard, Consistency::Session);
        assert_eq!(asks(&gateway), "cdba");
        gateway.turn = 3;
        assert_eq!(asks(&gateway), "dcba");
        gateway.busy = BTreeMap::from([(id("d"), 2), (id("c"), 1)]);
        assert_eq!(asks(&gateway), "cdba");
        // A gateway of no zone has no preference, and the primary may come first in its turn.
        let mut gateway = Gateway::of_zone("");
        let firsts: Vec<String> = (0..4)
            .map(|turn| {
                gateway.turn = turn;
                asks(&gateway)
            })
            .collect();
        assert_eq!(firsts, ["abcd", "bcda", "cdba", "dbca"]);
    }
}
