//! The cluster's metadata as one immutable value, built from a listing and kept by changes. Pure.

use std::collections::BTreeMap;
use std::sync::Arc;

use prost::Message as _;
use vectorsphere_proto::keys::{Key, Keys};
use vectorsphere_proto::meta;

use super::election;
use crate::ids::{Epoch, NodeId, ReplicaId, Revision, Session, ShardId, ShardIndex, TableId, TableName};
use crate::table::{Table, TableState};

/// Everything the store says, at one revision. Cloned cheaply: the parts are shared.
#[derive(Clone, Debug, Default)]
pub struct ClusterView {
    /// Changes up to this revision are in.
    pub revision: Revision,
    /// The cluster's identity; empty until known.
    pub cluster_uid: String,
    /// The elected Master.
    pub master: Option<Master>,
    /// Candidates for mastership by the revision at which they came; the first one is the Master.
    pub candidates: BTreeMap<Revision, Candidate>,
    /// Live nodes.
    pub nodes: BTreeMap<NodeId, Arc<Node>>,
    /// Tables by name, without those that are being deleted: their names may be taken again.
    pub tables: BTreeMap<TableName, Arc<Table>>,
    /// All tables.
    pub tables_by_id: BTreeMap<TableId, Arc<Table>>,
    /// Shards of all tables.
    pub shards: BTreeMap<ShardId, Arc<Shard>>,
    /// Nodes that are to be emptied.
    pub drains: BTreeMap<NodeId, Drain>,
    /// The store was restored from an older state before this revision: shards that were changed last before it may have had
    /// other primaries since, so nobody leads them by what their records say.
    pub restored_at: Revision,
}

/// A stored record that this version cannot read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("record {key} cannot be read: {why}")]
pub struct RecordError {
    /// Its key.
    pub key: String,
    /// What is wrong.
    pub why: String,
}

/// A candidate for mastership.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// Its election key.
    pub key: String,
    /// Its node.
    pub node: NodeId,
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
    /// All copies, those that leave too.
    pub replicas: Vec<Replica>,
    /// Copies in sync.
    pub isr: Vec<ReplicaId>,
    /// Copies that a write needs.
    pub min_isr: u32,
    /// Grows when the shard was forced to go on without a copy that has everything.
    pub incarnation: u64,
    /// Revision of the record, for compare and swap.
    pub mod_revision: Revision,
}

/// One copy of a shard, as its record says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Replica {
    /// Which.
    pub id: ReplicaId,
    /// Where it is.
    pub node: NodeId,
    /// What it is there for.
    pub role: ReplicaRole,
    /// Its node says that the data is missing or cannot be read: it is never elected, and replaced.
    pub damaged: bool,
    /// The copy that leaves when this one is in sync.
    pub replaces: Option<ReplicaId>,
}

/// What a copy of a shard is there for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReplicaRole {
    /// It is or was in sync.
    Full,
    /// It catches up.
    Learner,
    /// Its node deletes it, then takes it out of the record. It counts for nothing else.
    Leaving,
}

/// A node that is to be emptied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Drain {
    /// When it was asked for, milliseconds since 1970.
    pub requested_unix_ms: u64,
    /// When it ends by itself, milliseconds since 1970.
    pub expires_unix_ms: Option<u64>,
    /// Why, in the words of who asked for it.
    pub reason: String,
    /// Revision of the record.
    pub mod_revision: Revision,
}

impl ReplicaRole {
    /// The word that users read.
    pub const fn as_str(self) -> &'static str {
        match self {
            ReplicaRole::Full => "full",
            ReplicaRole::Learner => "learner",
            ReplicaRole::Leaving => "leaving",
        }
    }
}

impl Shard {
    /// The node of the primary.
    pub fn primary_node(&self) -> Option<&NodeId> {
        self.replica(self.primary?).map(|replica| &replica.node)
    }

    /// A copy of the shard.
    pub fn replica(&self, id: ReplicaId) -> Option<&Replica> {
        self.replicas.iter().find(|replica| replica.id == id)
    }

    /// The copies that stay.
    pub fn staying(&self) -> impl Iterator<Item = &Replica> {
        self.replicas.iter().filter(|replica| replica.role != ReplicaRole::Leaving)
    }

    /// True when the copy is in sync.
    pub fn is_in_sync(&self, id: ReplicaId) -> bool {
        self.isr.contains(&id)
    }
}

impl Node {
    /// A node with shards and without endpoints.
    #[cfg(test)]
    pub(crate) fn slave(name: &str, session: i64) -> Node {
        Node {
            id: NodeId::parse(name).expect("valid"),
            session: Session(session),
            node_type: "slave".to_owned(),
            endpoints: Vec::new(),
            version: String::new(),
            zone: String::new(),
            capacity_bytes: 0,
        }
    }

    /// The endpoint of a kind.
    pub fn endpoint(&self, kind: &str) -> Option<&Endpoint> {
        self.endpoints.iter().find(|endpoint| endpoint.kind == kind)
    }
}

impl ClusterView {
    /// Takes in a key that was written. A record that cannot be read is left out and told.
    pub fn put(
        &mut self,
        keys: &Keys,
        key: &str,
        value: &[u8],
        created: Revision,
        modified: Revision,
    ) -> Result<(), RecordError> {
        let broken = |why: String| RecordError { key: key.to_owned(), why };
        match keys.parse(key) {
            Some(Key::Meta) => {
                let record = meta::ClusterMeta::decode(value).map_err(|error| broken(error.to_string()))?;
                self.cluster_uid = record.cluster_uid;
            }
            Some(Key::Master { .. }) => {
                let record =
                    meta::MasterCandidate::decode(value).map_err(|error| broken(error.to_string()))?;
                let node = NodeId::parse(&record.node_id).map_err(|error| broken(error.to_string()))?;
                self.candidates.insert(created, Candidate { key: key.to_owned(), node });
                self.master = election::leader(&self.candidates);
            }
            Some(Key::Node { .. }) => {
                let record = meta::NodeRecord::decode(value).map_err(|error| broken(error.to_string()))?;
                let node = Node::from_record(&record, Session(created.0)).map_err(broken)?;
                self.nodes.insert(node.id.clone(), Arc::new(node));
            }
            Some(Key::Table { .. }) => {
                let record = meta::TableRecord::decode(value).map_err(|error| broken(error.to_string()))?;
                self.put_table(Arc::new(Table::from_record(&record).map_err(broken)?));
            }
            Some(Key::Shard { table_id, shard }) => {
                let record = meta::ShardRecord::decode(value).map_err(|error| broken(error.to_string()))?;
                let table = TableId::parse(table_id).ok_or_else(|| broken("no table id".to_owned()))?;
                let id = ShardId { table, index: ShardIndex(shard) };
                let mut shard = Shard::from_record(id, &record, modified).map_err(broken)?;
                if self.is_out_of_date(&shard) {
                    shard.primary = None;
                }
                self.shards.insert(id, Arc::new(shard));
            }
            Some(Key::Restored) => {
                self.restored_at = modified;
                let shards = self.shards.values_mut();
                for shard in shards.filter(|shard| shard.mod_revision < modified) {
                    Arc::make_mut(shard).primary = None;
                }
            }
            Some(Key::Drain { node_id }) => {
                let record = meta::DrainRecord::decode(value).map_err(|error| broken(error.to_string()))?;
                let node = NodeId::parse(node_id).map_err(|error| broken(error.to_string()))?;
                let drain = Drain {
                    requested_unix_ms: record.requested_unix_ms,
                    expires_unix_ms: Some(record.expires_unix_ms).filter(|expires| *expires > 0),
                    reason: record.reason,
                    mod_revision: modified,
                };
                self.drains.insert(node, drain);
            }
            Some(Key::Alias { .. } | Key::Disk { .. }) | None => {}
        }
        Ok(())
    }

    /// Takes in that a key was removed.
    pub fn delete(&mut self, keys: &Keys, key: &str) {
        match keys.parse(key) {
            Some(Key::Master { .. }) => {
                self.candidates.retain(|_, candidate| candidate.key != key);
                self.master = election::leader(&self.candidates);
            }
            Some(Key::Node { node_id }) => self.nodes.retain(|id, _| id.as_str() != node_id),
            Some(Key::Table { table_id }) => {
                if let Some(table) = TableId::parse(table_id).and_then(|id| self.tables_by_id.remove(&id)) {
                    self.forget_name(&table);
                }
            }
            Some(Key::Shard { table_id, shard }) => {
                if let Some(table) = TableId::parse(table_id) {
                    self.shards.remove(&ShardId { table, index: ShardIndex(shard) });
                }
            }
            Some(Key::Drain { node_id }) => self.drains.retain(|id, _| id.as_str() != node_id),
            Some(Key::Meta | Key::Restored | Key::Alias { .. } | Key::Disk { .. }) | None => {}
        }
    }

    /// True when a shard's record is from before a restore of the store.
    pub fn is_out_of_date(&self, shard: &Shard) -> bool {
        shard.mod_revision < self.restored_at
    }

    /// False until the records were read for the first time.
    pub fn is_known(&self) -> bool {
        self.revision > Revision(0)
    }

    /// True when the shard's primary is there in the very session that serves the shard.
    pub fn is_served(&self, shard: &Shard) -> bool {
        let node = shard.primary_node().and_then(|node| self.nodes.get(node));
        node.is_some_and(|node| node.session == shard.primary_session)
    }

    /// The shards of a table, ascending.
    pub fn shards_of(&self, table: TableId) -> impl Iterator<Item = &Arc<Shard>> {
        let bound = |index| ShardId { table, index: ShardIndex(index) };
        self.shards.range(bound(0)..=bound(u32::MAX)).map(|(_, shard)| shard)
    }

    fn put_table(&mut self, table: Arc<Table>) {
        if table.state == TableState::Deleting {
            self.forget_name(&table);
        } else {
            self.tables.insert(table.schema.name.clone(), table.clone());
        }
        self.tables_by_id.insert(table.id, table);
    }

    /// The name may belong to a newer table already.
    fn forget_name(&mut self, table: &Table) {
        if self.tables.get(&table.schema.name).is_some_and(|named| named.id == table.id) {
            self.tables.remove(&table.schema.name);
        }
    }
}

impl Node {
    fn from_record(record: &meta::NodeRecord, session: Session) -> Result<Node, String> {
        let endpoint = |endpoint: &meta::Endpoint| {
            Ok(Endpoint {
                kind: endpoint.kind.clone(),
                scheme: endpoint.scheme.clone(),
                host: endpoint.host.clone(),
                port: u16::try_from(endpoint.port).map_err(|_| format!("port {}", endpoint.port))?,
            })
        };
        Ok(Node {
            id: NodeId::parse(&record.node_id).map_err(|error| error.to_string())?,
            session,
            node_type: record.node_type.clone(),
            endpoints: record.endpoints.iter().map(endpoint).collect::<Result<_, String>>()?,
            version: record.version.clone(),
            zone: record.zone.clone(),
            capacity_bytes: record.capacity_bytes,
        })
    }

    /// True when shards may be placed here.
    pub fn holds_shards(&self) -> bool {
        matches!(self.node_type.as_str(), "slave" | "auto")
    }
}

impl Shard {
    /// From the stored form; the error says what this version cannot read.
    pub(crate) fn from_record(
        id: ShardId,
        record: &meta::ShardRecord,
        modified: Revision,
    ) -> Result<Shard, String> {
        let replica_id = |bytes: &[u8]| {
            ReplicaId::from_bytes(bytes).ok_or_else(|| "a replica id has not 16 bytes".to_owned())
        };
        let replica = |replica: &meta::Replica| {
            let role = match replica.role() {
                meta::ReplicaRole::Full => ReplicaRole::Full,
                meta::ReplicaRole::Learner => ReplicaRole::Learner,
                meta::ReplicaRole::Leaving => ReplicaRole::Leaving,
                meta::ReplicaRole::Unspecified => return Err("a replica has no role".to_owned()),
            };
            let replaces = Some(&replica.replaces).filter(|bytes| !bytes.is_empty());
            Ok(Replica {
                id: replica_id(&replica.replica_id)?,
                node: NodeId::parse(&replica.node_id).map_err(|error| error.to_string())?,
                role,
                damaged: replica.damaged,
                replaces: replaces.map(|bytes| replica_id(bytes)).transpose()?,
            })
        };
        Ok(Shard {
            id,
            epoch: Epoch(record.epoch),
            primary: (!record.primary.is_empty()).then(|| replica_id(&record.primary)).transpose()?,
            primary_session: Session(record.primary_session),
            replicas: record.replicas.iter().map(replica).collect::<Result<_, String>>()?,
            isr: record.isr.iter().map(|bytes| replica_id(bytes)).collect::<Result<_, String>>()?,
            min_isr: record.min_isr,
            incarnation: record.incarnation,
            mod_revision: modified,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &str = "7f2c1c6e-6d5b-4b7e-9a53-0f6d4a3a2b1c";

    fn table_record(id: &str, state: meta::TableState) -> Vec<u8> {
        let record = meta::TableRecord {
            table_id: id.to_owned(),
            name: "docs".to_owned(),
            dimension: 4,
            metric: meta::Metric::L2.into(),
            index_type: "flat".to_owned(),
            shards: 1,
            replicas: 1,
            min_isr: 1,
            state: state.into(),
            shard_hash: 1,
            vector_type: "f32".to_owned(),
            rows: String::new(),
            metadata_indexes: Vec::new(),
            index_options: None,
            tenant_key: String::new(),
        };
        record.encode_to_vec()
    }

    fn candidate(node: &str) -> Vec<u8> {
        meta::MasterCandidate { node_id: node.to_owned(), ..Default::default() }.encode_to_vec()
    }

    #[test]
    fn the_oldest_candidate_is_master_until_it_goes() {
        let keys = Keys::of_service("s");
        let mut view = ClusterView::default();
        view.put(&keys, &keys.master(9), &candidate("b"), Revision(7), Revision(7)).expect("readable");
        view.put(&keys, &keys.master(3), &candidate("a"), Revision(5), Revision(5)).expect("readable");
        let epoch =
            |view: &ClusterView| view.master.as_ref().map(|master| (master.node.to_string(), master.epoch.0));
        assert_eq!(epoch(&view), Some(("a".to_owned(), 5)));
        view.delete(&keys, &keys.master(3));
        assert_eq!(epoch(&view), Some(("b".to_owned(), 7)));
        view.delete(&keys, &keys.master(9));
        assert_eq!(epoch(&view), None);
    }

    #[test]
    fn nobody_leads_by_a_record_from_before_a_restore() {
        let keys = Keys::of_service("s");
        let replica = meta::Replica {
            replica_id: vec![1; 16],
            node_id: "a".to_owned(),
            role: meta::ReplicaRole::Full.into(),
            ..meta::Replica::default()
        };
        let record = meta::ShardRecord {
            epoch: 3,
            primary: replica.replica_id.clone(),
            isr: vec![replica.replica_id.clone()],
            replicas: vec![replica],
            min_isr: 1,
            ..meta::ShardRecord::default()
        };
        let record = record.encode_to_vec();
        let put = |view: &mut ClusterView, shard, modified| {
            view.put(&keys, &keys.shard(TABLE, shard), &record, Revision(1), Revision(modified))
                .expect("readable");
        };
        let mut view = ClusterView::default();
        put(&mut view, 0, 5);
        view.put(&keys, &keys.restored(), &[], Revision(9), Revision(9)).expect("readable");
        put(&mut view, 1, 6);
        put(&mut view, 2, 10);
        let led: Vec<bool> = view.shards.values().map(|shard| shard.primary.is_some()).collect();
        assert_eq!(led, [false, false, true]);
    }

    #[test]
    fn a_name_outlives_the_deletion_of_an_older_table() {
        let keys = Keys::of_service("s");
        let mut view = ClusterView::default();
        let newer = "00000000-0000-4000-8000-000000000001";
        let put = |view: &mut ClusterView, id: &str, state| {
            view.put(&keys, &keys.table(id), &table_record(id, state), Revision(1), Revision(1))
                .expect("readable");
        };
        put(&mut view, TABLE, meta::TableState::Active);
        put(&mut view, TABLE, meta::TableState::Deleting);
        assert!(view.tables.is_empty() && view.tables_by_id.len() == 1);
        put(&mut view, newer, meta::TableState::Creating);
        view.delete(&keys, &keys.table(TABLE));
        assert_eq!(view.tables.values().map(|table| table.id.to_string()).collect::<Vec<_>>(), [newer]);
    }

    #[test]
    fn a_record_of_a_newer_version_is_told_and_left_out() {
        let keys = Keys::of_service("s");
        let mut view = ClusterView::default();
        let error = view.put(&keys, &keys.table(TABLE), b"\xff\xff", Revision(1), Revision(1));
        assert!(error.is_err() && view.tables.is_empty());
        let error = view.put(&keys, &keys.shard(TABLE, 0), &[0x12, 1, 9], Revision(1), Revision(1));
        assert!(error.expect_err("short replica id").to_string().contains("16 bytes"));
    }
}
