//! How the cluster is, in one word and the numbers behind it. Pure.

use crate::cluster::view::{ClusterView, Node, Shard};
use crate::ids::NodeId;
use crate::table::{Table, TableState};

/// Numbers of shards of tables that are ready.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ClusterHealth {
    /// `green`, `yellow` or `red`.
    pub(super) status: &'static str,
    pub(super) shards: usize,
    /// Without a primary that serves them.
    pub(super) unavailable: usize,
    /// With fewer copies in sync, on nodes that are there, than the table asks for.
    pub(super) under_replicated: usize,
    /// With fewer than a write needs.
    pub(super) below_min_isr: usize,
}

/// What a node holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct NodeLoad {
    /// Copies that stay.
    pub(super) shards: usize,
    /// Those of them that are primaries.
    pub(super) primaries: usize,
    /// Those that are not in sync.
    pub(super) out_of_sync: usize,
}

/// Red: a shard is not served. Yellow: all are, but one has not all its copies, or there is no Master, or the metadata store
/// cannot be reached.
pub(super) fn cluster_health(view: &ClusterView, reachable: bool) -> ClusterHealth {
    let mut health =
        ClusterHealth { status: "green", shards: 0, unavailable: 0, under_replicated: 0, below_min_isr: 0 };
    for (shard, table) in ready_shards(view) {
        let in_sync = live_in_sync(view, shard);
        health.shards += 1;
        health.unavailable += usize::from(!view.is_served(shard));
        health.under_replicated += usize::from(in_sync < table.schema.replicas as usize);
        health.below_min_isr += usize::from(in_sync < shard.min_isr as usize);
    }
    let is_whole = health.under_replicated == 0 && view.master.is_some() && reachable;
    health.status = match (health.unavailable, is_whole) {
        (0, true) => "green",
        (0, false) => "yellow",
        _ => "red",
    };
    health
}

/// What a node is in the cluster.
pub(super) fn role_of(view: &ClusterView, node: &Node) -> &'static str {
    match &view.master {
        Some(master) if master.node == node.id => "Master",
        _ if node.node_type == "slave" => "slave",
        _ => "candidate",
    }
}

/// What a node holds.
pub(super) fn load_of(view: &ClusterView, node: &NodeId) -> NodeLoad {
    let mut load = NodeLoad::default();
    for shard in view.shards.values() {
        for replica in shard.staying().filter(|replica| replica.node == *node) {
            load.shards += 1;
            load.primaries += usize::from(shard.primary == Some(replica.id));
            load.out_of_sync += usize::from(!shard.is_in_sync(replica.id));
        }
    }
    load
}

fn ready_shards(view: &ClusterView) -> impl Iterator<Item = (&Shard, &Table)> {
    view.shards.values().filter_map(|shard| {
        let table = view.tables_by_id.get(&shard.id.table)?;
        (table.state == TableState::Active).then_some((&**shard, &**table))
    })
}

fn live_in_sync(view: &ClusterView, shard: &Shard) -> usize {
    let copies = shard.staying().filter(|replica| shard.is_in_sync(replica.id) && !replica.damaged);
    copies.filter(|replica| view.nodes.contains_key(&replica.node)).count()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::cluster::view::{Master, Replica, ReplicaRole};
    use crate::ids::{Epoch, ReplicaId, Revision, Session, ShardId, ShardIndex, TableId, TableName};
    use crate::table::{IndexKind, Metric, TableSchema};

    fn id(name: &str) -> NodeId {
        NodeId::parse(name).expect("valid")
    }

    /// A table of two copies with one shard on `a` (primary) and `b`, both in sync, and both nodes with a Master.
    fn view() -> ClusterView {
        let node = |name: &str| Node {
            id: id(name),
            session: Session(1),
            node_type: "auto".to_owned(),
            endpoints: Vec::new(),
            version: String::new(),
            zone: String::new(),
            capacity_bytes: 0,
        };
        let schema = TableSchema {
            name: TableName::parse("t").expect("valid"),
            dimension: 1,
            metric: Metric::L2,
            storage_type: Default::default(),
            rows: Default::default(),
            index: IndexKind::Flat,
            shards: 1,
            replicas: 2,
            min_isr: 2,
            metadata_indexes: Default::default(),
            unknown_indexes: Default::default(),
            tenant_key: None,
        };
        let table = Table { id: TableId::random(), schema, state: TableState::Active };
        let replica = |number: u8, name: &str| Replica {
            id: ReplicaId([number; 16]),
            node: id(name),
            role: ReplicaRole::Full,
            damaged: false,
            replaces: None,
        };
        let shard = Shard {
            id: ShardId { table: table.id, index: ShardIndex(0) },
            epoch: Epoch(1),
            primary: Some(ReplicaId([1; 16])),
            primary_session: Session(1),
            replicas: vec![replica(1, "a"), replica(2, "b")],
            isr: vec![ReplicaId([1; 16]), ReplicaId([2; 16])],
            min_isr: 2,
            incarnation: 0,
            mod_revision: Revision(1),
        };
        ClusterView {
            master: Some(Master { node: id("a"), epoch: Epoch(1) }),
            nodes: ["a", "b"].map(|name| (id(name), Arc::new(node(name)))).into(),
            tables_by_id: [(table.id, Arc::new(table))].into(),
            shards: [(shard.id, Arc::new(shard))].into(),
            ..ClusterView::default()
        }
    }

    fn told(health: ClusterHealth) -> (&'static str, usize, usize, usize) {
        (health.status, health.unavailable, health.under_replicated, health.below_min_isr)
    }

    #[test]
    fn a_missing_copy_is_yellow_and_a_missing_primary_red() {
        let whole = view();
        assert_eq!(told(cluster_health(&whole, true)), ("green", 0, 0, 0));
        assert_eq!(told(cluster_health(&whole, false)), ("yellow", 0, 0, 0));
        let mut without_follower = whole.clone();
        without_follower.nodes.remove(&id("b"));
        assert_eq!(told(cluster_health(&without_follower, true)), ("yellow", 0, 1, 1));
        let mut without_primary = whole;
        without_primary.nodes.remove(&id("a"));
        assert_eq!(told(cluster_health(&without_primary, true)), ("red", 1, 1, 1));
    }

    #[test]
    fn a_node_is_told_by_what_it_holds() {
        let mut view = view();
        assert_eq!(load_of(&view, &id("a")), NodeLoad { shards: 1, primaries: 1, out_of_sync: 0 });
        let shard = view.shards.values_mut().next().expect("one");
        Arc::make_mut(shard).isr.pop();
        assert_eq!(load_of(&view, &id("b")), NodeLoad { shards: 1, primaries: 0, out_of_sync: 1 });
        assert_eq!(load_of(&view, &id("c")), NodeLoad::default());
    }
}
