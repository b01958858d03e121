//! The steps that bring a table from *creating* to *active*, and from *deleting* to gone. Nobody else takes them.

use prost::Message as _;
use tracing::info;

use super::detection::Detection;
use super::{Coordinator, RECORDS_PER_TXN, fresh_record, hosts};
use crate::cluster::meta_store::{Condition, MetaError, Operation, Txn};
use crate::cluster::placement;
use crate::cluster::view::{ClusterView, Shard};
use crate::ids::{Epoch, Revision, ShardId, ShardIndex};
use crate::table::{Table, TableState};

impl Coordinator {
    /// One look at every table, up to the first step that changes something: its revision. The view is old after it. Each
    /// step is guarded and may be repeated.
    pub(super) async fn settle(
        &self,
        view: &ClusterView,
        detection: &Detection,
    ) -> Result<Option<Revision>, MetaError> {
        for table in view.tables_by_id.values() {
            let changed = match table.state {
                TableState::Creating => self.settle_creation(view, table).await?,
                TableState::Deleting => self.settle_deletion(view, table).await?,
                TableState::Active => None,
            };
            if changed.is_some() {
                return Ok(changed);
            }
        }
        self.settle_copies(view, detection).await
    }

    async fn settle_creation(
        &self,
        view: &ClusterView,
        table: &Table,
    ) -> Result<Option<Revision>, MetaError> {
        let Some(guard) = self.role.borrow().guard() else { return Ok(None) };
        let all = (0..table.schema.shards).map(|index| ShardId { table: table.id, index: ShardIndex(index) });
        let is_served = |id: &ShardId| view.shards.get(id).is_some_and(|shard| is_whole(view, shard));
        let waiting: Vec<_> = all.filter(|id| !is_served(id)).collect();
        let homeless: Vec<_> = waiting.iter().filter(|id| is_homeless(view, **id)).copied().collect();
        if homeless.is_empty() && !waiting.is_empty() {
            return Ok(None);
        }
        // The view may be older than a deletion: steps count only for the record that was read now.
        let Some((stored, modified)) = self.stored_table(table.id).await? else { return Ok(None) };
        if stored.state != TableState::Creating {
            return Ok(None);
        }
        let key = self.keys.table(&table.id.to_string());
        let conditions = vec![guard, Condition::ModifiedAt(key.clone(), modified)];
        if !homeless.is_empty() {
            return self.place(view, table, &homeless, conditions).await;
        }
        let active = Table { state: TableState::Active, ..stored };
        let put = Operation::Put { key, value: active.to_record().encode_to_vec().into(), lease: None };
        let changed = self.step(Txn { conditions, operations: vec![put] }).await?;
        if changed.is_some() {
            info!(table = %table.schema.name, id = %table.id, "the table is ready");
        }
        Ok(changed)
    }

    /// Gives shards that hold nothing their nodes, all of them by one placement. A batch whose records changed meanwhile
    /// is left to the next look.
    async fn place(
        &self,
        view: &ClusterView,
        table: &Table,
        shards: &[ShardId],
        conditions: Vec<Condition>,
    ) -> Result<Option<Revision>, MetaError> {
        let schema = &table.schema;
        let placed = placement::place(shards.len() as u32, schema.replicas, &hosts(view));
        let Some(placed) = placed else { return Ok(None) };
        let homes: Vec<_> = shards.iter().zip(placed).collect();
        let mut last = None;
        for batch in homes.chunks(RECORDS_PER_TXN) {
            let mut txn = Txn { conditions: conditions.clone(), operations: Vec::new() };
            for (shard, nodes) in batch {
                let key = self.keys.shard(&table.id.to_string(), shard.index.0);
                txn.conditions.push(match view.shards.get(shard) {
                    Some(record) => Condition::ModifiedAt(key.clone(), record.mod_revision),
                    None => Condition::Absent(key.clone()),
                });
                let value = fresh_record(nodes, schema.min_isr).encode_to_vec().into();
                txn.operations.push(Operation::Put { key, value, lease: None });
            }
            last = self.step(txn).await?.or(last);
        }
        info!(table = %schema.name, id = %table.id, shards = shards.len(), "placed shards");
        Ok(last)
    }

    /// Removes the records when no node holds a part any more.
    async fn settle_deletion(
        &self,
        view: &ClusterView,
        table: &Table,
    ) -> Result<Option<Revision>, MetaError> {
        let Some(guard) = self.role.borrow().guard() else { return Ok(None) };
        if view.shards_of(table.id).any(|shard| !shard.replicas.is_empty()) {
            return Ok(None);
        }
        let id = table.id.to_string();
        let operations =
            vec![Operation::DeletePrefix(self.keys.shards_of(&id)), Operation::Delete(self.keys.table(&id))];
        let changed = self.step(Txn { conditions: vec![guard], operations }).await?;
        if changed.is_some() {
            info!(table = %table.schema.name, id = %table.id, "the table is gone");
        }
        Ok(changed)
    }
}

/// True when the shard is led, and every copy whose node is there is in sync.
fn is_whole(view: &ClusterView, shard: &Shard) -> bool {
    let mut present = shard.staying().filter(|replica| view.nodes.contains_key(&replica.node));
    shard.primary.is_some()
        && shard.isr.len() >= shard.min_isr as usize
        && present.all(|replica| shard.is_in_sync(replica.id))
}

/// True for a shard without a record, and for one whose nodes left before they made it: neither holds anything.
fn is_homeless(view: &ClusterView, shard: ShardId) -> bool {
    let Some(record) = view.shards.get(&shard) else { return true };
    let left = |record: &Shard| record.replicas.iter().any(|replica| !view.nodes.contains_key(&replica.node));
    record.epoch == Epoch(0) && left(record)
}
