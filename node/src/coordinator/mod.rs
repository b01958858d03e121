//! Table changes. Runs in every gateway node, decides only where this node is the Master.
//!
//! A change is a record first: creating writes the table in state *creating* and its shards without a primary; deleting
//! writes the state *deleting* and frees the name. One loop ([`Coordinator::run`]) then drives every table that is in
//! between, so a new Master carries on where the old one stopped, and a request only waits for the outcome.

mod rpc;
mod settle;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use prost::Message as _;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};
use vectorsphere_proto::keys::Keys;
use vectorsphere_proto::meta;

pub use rpc::{CatalogRpc, CoordinatorRpc};

use crate::cluster::meta_store::{Condition, MetaError, MetaStore, Operation, Txn, TxnOutcome};
use crate::cluster::placement::{self, Host};
use crate::cluster::view::ClusterView;
use crate::cluster::{Role, ServiceDiscovery};
use crate::comm::CommunicationService;
use crate::error_code::{Error, ErrorCode};
use crate::ids::{NodeId, ReplicaId, Revision, TableId, TableName};
use crate::table::{Table, TableSchema, TableState};

/// Records in one transaction: etcd allows 128 comparisons and operations, and each record needs both (R14).
const RECORDS_PER_TXN: usize = 30;
/// The loop looks again after this time even if nothing changed: a failed step is tried again.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// Creates and deletes tables where this node is the Master.
pub struct Coordinator {
    meta: Arc<dyn MetaStore>,
    keys: Keys,
    discovery: Arc<ServiceDiscovery>,
    comm: Arc<CommunicationService>,
    role: watch::Receiver<Role>,
}

impl Coordinator {
    /// Decides nothing unless `role` says Master.
    pub fn new(
        meta: Arc<dyn MetaStore>,
        keys: Keys,
        discovery: Arc<ServiceDiscovery>,
        comm: Arc<CommunicationService>,
        role: watch::Receiver<Role>,
    ) -> Coordinator {
        Coordinator { meta, keys, discovery, comm, role }
    }

    /// Drives tables that are being created or deleted, until `cancel`.
    pub async fn run(&self, cancel: CancellationToken) {
        let mut view = self.discovery.subscribe();
        let mut role = self.role.clone();
        loop {
            if role.borrow_and_update().guard().is_some() {
                let now = view.borrow_and_update().clone();
                if let Err(error) = self.settle(&now).await {
                    warn!(%error, "a table change is stuck, trying again");
                }
            }
            tokio::select! {
                () = cancel.cancelled() => return,
                _ = role.changed() => {}
                _ = view.changed() => {}
                () = tokio::time::sleep(LOOK_AGAIN) => {}
            }
        }
    }

    /// Creates a table and returns when all its shards are served and every node knows it.
    ///
    /// # Errors
    /// When the name is taken, a value is out of range, there are too few slaves, or the deadline passes; in the last case
    /// the table may be finished later.
    pub async fn create_table(&self, schema: TableSchema, deadline: Instant) -> Result<Table, Error> {
        let guard = self.guard()?;
        schema.check().map_err(|why| Error::invalid("", why))?;
        if schema.replicas > 1 {
            return Err(Error::invalid(
                "/replicas",
                "this release keeps one copy of each shard: replicas must be 1",
            ));
        }
        let view = self.discovery.view();
        let placed = self.place(&view, &schema)?;
        let table = Table { id: TableId::random(), schema, state: TableState::Creating };
        self.write_table(&table, &guard).await?;
        self.write_shards(&table, &placed, &guard).await?;
        info!(table = %table.schema.name, id = %table.id, shards = table.schema.shards, "creating a table");
        self.await_active(table.id, deadline).await
    }

    /// Deletes a table: the name is free when this returns, and so is the space, unless a node that holds a part is away;
    /// that part goes when the node comes back.
    ///
    /// # Errors
    /// When there is no such table, or the store does not answer.
    pub async fn delete_table(&self, name: &TableName, deadline: Instant) -> Result<(), Error> {
        let guard = self.guard()?;
        let view = self.discovery.view();
        let missing = || Error::new(ErrorCode::TableNotFound, format!("table {name} does not exist"));
        let table = view.tables.get(name).ok_or_else(missing)?;
        let key = self.keys.table(&table.id.to_string());
        let entry = self.meta.get(&key).await.map_err(unavailable)?.ok_or_else(missing)?;
        let deleting = Table { state: TableState::Deleting, ..Table::clone(table) };
        let txn = Txn {
            conditions: vec![guard, Condition::ModifiedAt(key.clone(), entry.mod_revision)],
            operations: vec![
                Operation::Put { key, value: deleting.to_record().encode_to_vec().into(), lease: None },
                Operation::Delete(self.keys.alias(name.as_str())),
            ],
        };
        let TxnOutcome::Committed(revision) = self.meta.commit(txn).await.map_err(unavailable)? else {
            return Err(self.not_master());
        };
        info!(table = %name, id = %table.id, "deleting a table");
        self.comm.broadcast_revision(revision, deadline).await;
        self.await_gone(table.id, deadline).await;
        Ok(())
    }

    /// The condition under which this node decides.
    fn guard(&self) -> Result<Condition, Error> {
        self.role.borrow().guard().ok_or_else(|| self.not_master())
    }

    fn not_master(&self) -> Error {
        let master = self.discovery.view().master.as_ref().map(|master| master.node.to_string());
        let message =
            format!("this node is not the Master, which is {}", master.as_deref().unwrap_or("nobody"));
        Error::new(ErrorCode::NotMaster, message)
    }

    fn place(&self, view: &ClusterView, schema: &TableSchema) -> Result<Vec<Vec<NodeId>>, Error> {
        let hosts = hosts(view);
        placement::place(schema.shards, schema.replicas, &hosts).ok_or_else(|| {
            let (there, needed) = (hosts.len(), schema.replicas);
            let message = format!("table {} needs {needed} slaves, {there} are there", schema.name);
            Error::new(ErrorCode::NotEnoughSlaves, message)
        })
    }

    /// The table's record and its name, in one step: of two creates of one name one wins.
    async fn write_table(&self, table: &Table, guard: &Condition) -> Result<(), Error> {
        let (id, name) = (table.id.to_string(), table.schema.name.as_str());
        let alias = meta::AliasRecord { table_id: id.clone() };
        let txn = Txn {
            conditions: vec![guard.clone(), Condition::Absent(self.keys.alias(name))],
            operations: vec![
                Operation::Put {
                    key: self.keys.alias(name),
                    value: alias.encode_to_vec().into(),
                    lease: None,
                },
                Operation::Put {
                    key: self.keys.table(&id),
                    value: table.to_record().encode_to_vec().into(),
                    lease: None,
                },
            ],
        };
        match self.meta.commit(txn).await.map_err(unavailable)? {
            TxnOutcome::Committed(_) => Ok(()),
            TxnOutcome::ConditionFailed => {
                match self.meta.get(&self.keys.alias(name)).await.map_err(unavailable)? {
                    Some(_) => {
                        Err(Error::new(ErrorCode::TableAlreadyExists, format!("table {name} exists already")))
                    }
                    None => Err(self.not_master()),
                }
            }
        }
    }

    /// Records of shards that have none yet; a batch that is there already is left alone.
    async fn write_shards(
        &self,
        table: &Table,
        placed: &[Vec<NodeId>],
        guard: &Condition,
    ) -> Result<(), Error> {
        let records: Vec<_> = placed
            .iter()
            .enumerate()
            .map(|(index, nodes)| {
                let key = self.keys.shard(&table.id.to_string(), index as u32);
                (key, fresh_record(nodes, table.schema.min_isr))
            })
            .collect();
        for batch in records.chunks(RECORDS_PER_TXN) {
            let mut txn = Txn { conditions: vec![guard.clone()], operations: Vec::new() };
            for (key, record) in batch {
                txn.conditions.push(Condition::Absent(key.clone()));
                let value = record.encode_to_vec().into();
                txn.operations.push(Operation::Put { key: key.clone(), value, lease: None });
            }
            if self.meta.commit(txn).await.map_err(unavailable)? == TxnOutcome::ConditionFailed {
                self.guard()?;
            }
        }
        Ok(())
    }

    async fn await_active(&self, id: TableId, deadline: Instant) -> Result<Table, Error> {
        let mut view = self.discovery.subscribe();
        let active = view.wait_for(|view| match view.tables_by_id.get(&id) {
            Some(table) => table.state != TableState::Creating,
            None => false,
        });
        let seen = match tokio::time::timeout_at(deadline.into(), active).await {
            Ok(Ok(view)) => view.clone(),
            Ok(Err(_)) => return Err(Error::new(ErrorCode::NotReady, "this node is stopping")),
            Err(_) => {
                let message =
                    "the table is being created, but its shards were not all ready before the deadline";
                return Err(Error::new(ErrorCode::DeadlineExceeded, message));
            }
        };
        self.comm.broadcast_revision(seen.revision, deadline).await;
        let table = seen.tables_by_id.get(&id).expect("seen above");
        match table.state {
            TableState::Deleting => {
                Err(Error::new(ErrorCode::TableNotFound, "the table was deleted meanwhile"))
            }
            TableState::Creating | TableState::Active => Ok(Table::clone(table)),
        }
    }

    /// Waits until no live node holds a part of the table.
    async fn await_gone(&self, id: TableId, deadline: Instant) {
        let mut view = self.discovery.subscribe();
        let gone = view.wait_for(|view| {
            let mut holders = view.shards_of(id).flat_map(|shard| &shard.replicas);
            !holders.any(|(_, node)| view.nodes.contains_key(node))
        });
        let _ = tokio::time::timeout_at(deadline.into(), gone).await;
    }

    /// Commits a step of the loop. `false`: somebody else changed the record first, the next look decides anew.
    async fn step(&self, txn: Txn) -> Result<Option<Revision>, MetaError> {
        match self.meta.commit(txn).await? {
            TxnOutcome::Committed(revision) => Ok(Some(revision)),
            TxnOutcome::ConditionFailed => Ok(None),
        }
    }
}

/// The record of a shard that nobody has formatted yet.
fn fresh_record(nodes: &[NodeId], min_isr: u32) -> meta::ShardRecord {
    let replica = |node: &NodeId| meta::Replica {
        replica_id: ReplicaId::random().0.to_vec(),
        node_id: node.to_string(),
        role: meta::ReplicaRole::Learner.into(),
    };
    meta::ShardRecord {
        epoch: 0,
        replicas: nodes.iter().map(replica).collect(),
        min_isr,
        reason: "created".to_owned(),
        ..meta::ShardRecord::default()
    }
}

/// Live nodes that hold shards, with what they hold.
fn hosts(view: &ClusterView) -> Vec<Host> {
    let mut held: BTreeMap<&NodeId, u32> = BTreeMap::new();
    for (_, node) in view.shards.values().flat_map(|shard| &shard.replicas) {
        *held.entry(node).or_default() += 1;
    }
    let hosts = view.nodes.values().filter(|node| node.holds_shards());
    hosts
        .map(|node| Host {
            node: node.id.clone(),
            zone: node.zone.clone(),
            replicas: held.get(&node.id).copied().unwrap_or(0),
        })
        .collect()
}

fn unavailable(error: MetaError) -> Error {
    Error::new(ErrorCode::MetaStoreUnavailable, error.to_string())
}
