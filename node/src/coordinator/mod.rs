//! Table changes and what operators ask of the Master. Runs in every gateway node, decides only where this node is the
//! Master.
//!
//! A change is a record first: creating writes the table in state *creating* and its shards without a primary; deleting
//! writes the state *deleting* and frees the name. One loop ([`Coordinator::run`]) then drives every table that is in
//! between, so a new Master carries on where the old one stopped, and a request only waits for the outcome.

mod admin;
mod carry_out;
mod detection;
pub mod edits;
mod force;
mod metadata_indexes;
pub mod plan;
mod rpc;
mod settle;
mod unfit;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use prost::Message as _;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};
use vectorsphere_proto::keys::Keys;
use vectorsphere_proto::meta;

pub use rpc::{CatalogRpc, CoordinatorRpc};

use crate::cluster::meta_store::{Condition, MetaError, MetaStore, Operation, Txn, TxnOutcome};
use crate::cluster::placement::Host;
use crate::cluster::view::{ClusterView, Node};
use crate::cluster::{Role, ServiceDiscovery, StepBack};
use crate::comm::CommunicationService;
use crate::error_code::{Error, ErrorCode};
use crate::ids::{NodeId, ReplicaId, Revision, TableId, TableName};
use crate::table::{Table, TableSchema, TableState};
use detection::Detection;
use unfit::Unfit;

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
    step_back: StepBack,
    /// After how long without its node a copy is made anew elsewhere; asked at each use.
    rereplicate_after: Box<dyn Fn() -> Duration + Send + Sync>,
    unfit: Unfit,
}

impl Coordinator {
    /// Decides nothing unless `role` says Master; `step_back` ends that.
    pub fn new(
        meta: Arc<dyn MetaStore>,
        keys: Keys,
        discovery: Arc<ServiceDiscovery>,
        comm: Arc<CommunicationService>,
        role: watch::Receiver<Role>,
        step_back: StepBack,
        rereplicate_after: impl Fn() -> Duration + Send + Sync + 'static,
    ) -> Coordinator {
        let rereplicate_after = Box::new(rereplicate_after);
        let unfit = Unfit::default();
        Coordinator { meta, keys, discovery, comm, role, step_back, rereplicate_after, unfit }
    }

    /// Drives tables that are being created or deleted, until `cancel`.
    pub async fn run(&self, cancel: CancellationToken) {
        let mut view = self.discovery.subscribe();
        let mut role = self.role.clone();
        let mut detection = Detection::default();
        let mut suspects = self.comm.new_suspects();
        loop {
            if role.borrow_and_update().guard().is_some() {
                let now = view.borrow_and_update().clone();
                self.detect(&now, &mut detection).await;
                match self.settle(&now, &detection).await {
                    // The next step is decided on a view that holds this one.
                    Ok(Some(revision)) => {
                        let limit = Instant::now() + LOOK_AGAIN;
                        let seen = self.discovery.await_revision(revision, limit);
                        if cancel.run_until_cancelled(seen).await == Some(true) {
                            continue;
                        }
                    }
                    Ok(None) => {}
                    Err(error) => warn!(%error, "a table change is stuck, trying again"),
                }
            }
            tokio::select! {
                () = cancel.cancelled() => return,
                _ = role.changed() => {}
                _ = view.changed() => {}
                _ = suspects.changed() => {}
                () = tokio::time::sleep(LOOK_AGAIN) => {}
            }
        }
    }

    /// Creates a table and returns when all its shards are served and every node knows it. May be repeated with the same
    /// `id`: then it waits for the table that was begun before.
    ///
    /// # Errors
    /// When the name is taken, a value is out of range, there are too few slaves, or the deadline passes; in the last case
    /// the table may be finished later.
    pub async fn create_table(
        &self,
        id: TableId,
        schema: TableSchema,
        deadline: Instant,
    ) -> Result<Table, Error> {
        let guard = self.guard()?;
        schema.check().map_err(|why| Error::invalid("", why))?;
        let index = &schema.index;
        index.check(schema.dimension, schema.metric).map_err(|why| Error::invalid("/index_type", why))?;
        let (there, needed) = (hosts(&self.discovery.view()).len(), schema.replicas);
        if there < needed as usize {
            let message = format!("table {} needs {needed} slaves, {there} are there", schema.name);
            return Err(Error::new(ErrorCode::NotEnoughSlaves, message));
        }
        let table = Table { id, schema, state: TableState::Creating };
        self.write_table(&table, &guard).await?;
        self.await_active(table.id, deadline).await
    }

    /// Deletes the table of this name, if it is `id` (`None`: whichever it is): the name is free when this returns, and so is the space, unless a node that holds a part is away;
    /// that part goes when the node comes back.
    ///
    /// # Errors
    /// When there is no such table, or the store does not answer.
    pub async fn delete_table(
        &self,
        name: &TableName,
        id: Option<TableId>,
        deadline: Instant,
    ) -> Result<(), Error> {
        let guard = self.guard()?;
        let missing = || Error::new(ErrorCode::TableNotFound, format!("table {name} does not exist"));
        let view = self.discovery.view();
        let named = view.tables.get(name).filter(|table| id.is_none_or(|id| id == table.id));
        let id = named.ok_or_else(missing)?.id;
        // The name may have gone to another table since the view: then this one is being deleted already.
        let (table, modified) = self.stored_table(id).await.map_err(unavailable)?.ok_or_else(missing)?;
        if table.state == TableState::Deleting {
            return Err(missing());
        }
        let key = self.keys.table(&id.to_string());
        let deleting = Table { state: TableState::Deleting, ..table };
        let txn = Txn {
            conditions: vec![guard, Condition::ModifiedAt(key.clone(), modified)],
            operations: vec![
                Operation::Put { key, value: deleting.to_record().encode_to_vec().into(), lease: None },
                Operation::Delete(self.keys.alias(name.as_str())),
            ],
        };
        let TxnOutcome::Committed(revision) = self.meta.commit(txn).await.map_err(unavailable)? else {
            return Err(self.not_master());
        };
        info!(table = %name, %id, "deleting a table");
        self.comm.broadcast_revision(revision, deadline).await;
        self.await_gone(id, deadline).await;
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

    /// A table as the store has it, and the revision of its record.
    async fn stored_table(&self, id: TableId) -> Result<Option<(Table, Revision)>, MetaError> {
        let key = self.keys.table(&id.to_string());
        let Some(entry) = self.meta.get(&key).await? else { return Ok(None) };
        let broken = |why: String| MetaError::Refused(format!("record {key} cannot be read: {why}"));
        let record = meta::TableRecord::decode(entry.value).map_err(|error| broken(error.to_string()))?;
        Ok(Some((Table::from_record(&record).map_err(broken)?, entry.mod_revision)))
    }

    /// The table's record and its name, in one step: of two creates of one name one wins. A name that the same create
    /// took before is no error: its answer was lost.
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
        if let TxnOutcome::Committed(_) = self.meta.commit(txn).await.map_err(unavailable)? {
            info!(table = name, id, shards = table.schema.shards, "creating a table");
            return Ok(());
        }
        let taken = self.meta.get(&self.keys.alias(name)).await.map_err(unavailable)?;
        let taken_by = taken.map(|entry| meta::AliasRecord::decode(entry.value));
        match taken_by {
            Some(Ok(alias)) if alias.table_id == id => Ok(()),
            Some(_) => Err(Error::new(ErrorCode::TableAlreadyExists, format!("table {name} exists already"))),
            None => Err(self.not_master()),
        }
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
            !holders.any(|replica| view.nodes.contains_key(&replica.node))
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
        ..meta::Replica::default()
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
    for replica in view.shards.values().flat_map(|shard| shard.staying()) {
        *held.entry(&replica.node).or_default() += 1;
    }
    // Who is being emptied takes nothing on.
    let is_host = |node: &&Arc<Node>| node.holds_shards() && !view.drains.contains_key(&node.id);
    let hosts = view.nodes.values().filter(is_host);
    hosts
        .map(|node| Host {
            node: node.id.clone(),
            zone: node.zone.clone(),
            replicas: held.get(&node.id).copied().unwrap_or(0),
        })
        .collect()
}

/// Milliseconds since 1970.
fn unix_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).expect("the clock is past 1970");
    since.as_millis() as u64
}

fn unavailable(error: MetaError) -> Error {
    Error::new(ErrorCode::MetaStoreUnavailable, error.to_string())
}

#[cfg(test)]
mod tests;
