//! The cluster's metadata as one immutable value, built from a listing and kept by changes. Pure.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::ids::{Epoch, NodeId, ReplicaId, Revision, Session, ShardId, TableName};
use crate::table::Table;

/// Everything the store says, at one revision. Cloned cheaply: the parts are shared.
#[derive(Clone, Debug, Default)]
pub struct ClusterView {
    /// Changes up to this revision are in.
    pub revision: Revision,
    /// The cluster's identity; empty until known.
    pub cluster_uid: String,
    /// The elected Master.
    pub master: Option<Master>,
    /// Live nodes.
    pub nodes: BTreeMap<NodeId, Arc<Node>>,
    /// Tables by name, in every state.
    pub tables: BTreeMap<TableName, Arc<Table>>,
    /// Shards of all tables.
    pub shards: BTreeMap<ShardId, Arc<Shard>>,
}

/// The elected Master.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Master {
    /// Its node.
    pub node: NodeId,
    /// Create-revision of its election key.
    pub epoch: Epoch,
}

/// A live node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// Its name.
    pub id: NodeId,
    /// Its session.
    pub session: Session,
    /// `master`, `slave` or `auto`.
    pub node_type: String,
    /// Where it listens.
    pub endpoints: Vec<Endpoint>,
    /// Version of its program.
    pub version: String,
    /// Its zone; may be empty.
    pub zone: String,
    /// Size of its data volume, bytes.
    pub capacity_bytes: u64,
}

/// Where a node listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// `http`, `grpc` or `internal`.
    pub kind: String,
    /// `http` or `https`.
    pub scheme: String,
    /// Host name or address.
    pub host: String,
    /// Port.
    pub port: u16,
}

/// A shard's record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shard {
    /// Which shard.
    pub id: ShardId,
    /// Current reign; 0: no primary yet.
    pub epoch: Epoch,
    /// Its primary.
    pub primary: Option<ReplicaId>,
    /// Node session that serves this epoch.
    pub primary_session: Session,
    /// All copies and the nodes they are on.
    pub replicas: Vec<(ReplicaId, NodeId)>,
    /// Copies in sync.
    pub isr: Vec<ReplicaId>,
    /// Copies that a write needs.
    pub min_isr: u32,
    /// Revision of the record, for compare and swap.
    pub mod_revision: Revision,
}

impl Shard {
    /// The node of the primary.
    pub fn primary_node(&self) -> Option<&NodeId> {
        let primary = self.primary?;
        self.replicas.iter().find(|(replica, _)| *replica == primary).map(|(_, node)| node)
    }
}

impl Node {
    /// The endpoint of a kind.
    pub fn endpoint(&self, kind: &str) -> Option<&Endpoint> {
        self.endpoints.iter().find(|endpoint| endpoint.kind == kind)
    }
}
