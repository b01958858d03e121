//! The steps that bring a table from *creating* to *active*, and from *deleting* to gone.

use prost::Message as _;
use tracing::info;

use super::{Coordinator, fresh_record, hosts};
use crate::cluster::meta_store::{Condition, MetaError, Operation, Txn};
use crate::cluster::placement;
use crate::cluster::view::{ClusterView, Shard};
use crate::ids::{Epoch, ShardId, ShardIndex};
use crate::table::{Table, TableState};

impl Coordinator {
    /// One look at every table; each step is guarded and may be repeated.
    pub(super) async fn settle(&self, view: &ClusterView) -> Result<(), MetaError> {
        for table in view.tables_by_id.values() {
            match table.state {
                TableState::Creating => self.settle_creation(view, table).await?,
                TableState::Deleting => self.settle_deletion(view, table).await?,
                TableState::Active => {}
            }
        }
        Ok(())
    }

    async fn settle_creation(&self, view: &ClusterView, table: &Table) -> Result<(), MetaError> {
        let Some(guard) = self.role.borrow().guard() else { return Ok(()) };
        let mut served = 0;
        for index in (0..table.schema.shards).map(ShardIndex) {
            match view.shards.get(&ShardId { table: table.id, index }) {
                Some(shard) if shard.primary.is_some() => served += 1,
                Some(shard) => self.move_if_its_node_left(view, shard, &guard).await?,
                None => self.place_missing(view, table, index, &guard).await?,
            }
        }
        if served < table.schema.shards {
            return Ok(());
        }
        let key = self.keys.table(&table.id.to_string());
        let Some(entry) = self.meta.get(&key).await? else { return Ok(()) };
        let active = Table { state: TableState::Active, ..table.clone() };
        let put = Operation::Put {
            key: key.clone(),
            value: active.to_record().encode_to_vec().into(),
            lease: None,
        };
        let unchanged = Condition::ModifiedAt(key, entry.mod_revision);
        if self.step(Txn { conditions: vec![guard, unchanged], operations: vec![put] }).await?.is_some() {
            info!(table = %table.schema.name, id = %table.id, "the table is ready");
        }
        Ok(())
    }

    /// A shard that was never formatted holds nothing, so it may go to another node.
    async fn move_if_its_node_left(
        &self,
        view: &ClusterView,
        shard: &Shard,
        guard: &Condition,
    ) -> Result<(), MetaError> {
        let all_there = shard.replicas.iter().all(|(_, node)| view.nodes.contains_key(node));
        if all_there || shard.epoch != Epoch(0) {
            return Ok(());
        }
        let Some(placed) = placement::place(1, 1, &hosts(view)) else { return Ok(()) };
        info!(shard = %shard.id, to = %placed[0][0], "a node left before it made its shard, another one takes it");
        let key = self.keys.shard(&shard.id.table.to_string(), shard.id.index.0);
        let value = fresh_record(&placed[0], shard.min_isr).encode_to_vec().into();
        let put = Operation::Put { key: key.clone(), value, lease: None };
        let unchanged = Condition::ModifiedAt(key, shard.mod_revision);
        self.step(Txn { conditions: vec![guard.clone(), unchanged], operations: vec![put] }).await?;
        Ok(())
    }

    /// A Master that ended between two transactions left shards without a record.
    async fn place_missing(
        &self,
        view: &ClusterView,
        table: &Table,
        index: ShardIndex,
        guard: &Condition,
    ) -> Result<(), MetaError> {
        let Some(placed) = placement::place(1, table.schema.replicas, &hosts(view)) else { return Ok(()) };
        let key = self.keys.shard(&table.id.to_string(), index.0);
        let value = fresh_record(&placed[0], table.schema.min_isr).encode_to_vec().into();
        let put = Operation::Put { key: key.clone(), value, lease: None };
        self.step(Txn { conditions: vec![guard.clone(), Condition::Absent(key)], operations: vec![put] })
            .await?;
        Ok(())
    }

    /// Removes the records when no node holds a part any more.
    async fn settle_deletion(&self, view: &ClusterView, table: &Table) -> Result<(), MetaError> {
        let Some(guard) = self.role.borrow().guard() else { return Ok(()) };
        if view.shards_of(table.id).any(|shard| !shard.replicas.is_empty()) {
            return Ok(());
        }
        let id = table.id.to_string();
        let operations =
            vec![Operation::DeletePrefix(self.keys.shards_of(&id)), Operation::Delete(self.keys.table(&id))];
        if self.step(Txn { conditions: vec![guard], operations }).await?.is_some() {
            info!(table = %table.schema.name, id = %table.id, "the table is gone");
        }
        Ok(())
    }
}
