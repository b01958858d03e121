//! Changes of a shard's record by its replica: compare-and-swap in the metadata store, guarded by the node's session.

use std::sync::Arc;

use prost::Message as _;
use vectorsphere_proto::keys::Keys;
use vectorsphere_proto::meta::{Replica as ReplicaRecord, ReplicaRole, ShardRecord};

use crate::cluster::MetaStore;
use crate::cluster::meta_store::{Condition, MetaError, Operation, Txn, TxnOutcome};
use crate::ids::{Epoch, NodeId, ReplicaId, Revision, Session, ShardId};

/// Writes shard records on behalf of this node.
#[derive(Clone)]
pub(super) struct Leadership {
    pub(super) meta: Arc<dyn MetaStore>,
    pub(super) keys: Keys,
    pub(super) node: NodeId,
}

/// Why a record was not changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum LeadershipError {
    /// The store did not do it, or we do not know whether it did.
    #[error("shard record could not be changed: {0}")]
    Meta(#[from] MetaError),
    /// Something else changed, or the session ended: look again.
    #[error("shard record changed meanwhile")]
    Changed,
    /// The record is not there.
    #[error("shard record is absent")]
    Absent,
    /// The record cannot be read.
    #[error("shard record is malformed: {0}")]
    Malformed(String),
    /// The store shows an older state than this replica has seen.
    #[error(
        "shard record shows epoch {shown}, but this replica obeyed epoch {promised}: the metadata store was rolled back"
    )]
    Regressed {
        /// What the record says.
        shown: Epoch,
        /// What the replica knows.
        promised: Epoch,
    },
}

impl Leadership {
    /// The shard's record as it is now (linearizable).
    pub(super) async fn read(&self, shard: ShardId) -> Result<(ShardRecord, Revision), LeadershipError> {
        let key = self.keys.shard(&shard.table.to_string(), shard.index.0);
        let entry = self.meta.get(&key).await?.ok_or(LeadershipError::Absent)?;
        let record = ShardRecord::decode(entry.value)
            .map_err(|error| LeadershipError::Malformed(error.to_string()))?;
        Ok((record, entry.mod_revision))
    }

    /// Makes `replica` the primary of the next epoch, in `session`. `promised` is the last epoch that it obeyed.
    ///
    /// An epoch is never resumed: only when the store already names this very session in an epoch that the replica has
    /// not obeyed yet, an earlier claim's answer was lost, and that epoch is taken.
    pub(super) async fn claim(
        &self,
        shard: ShardId,
        replica: ReplicaId,
        session: Session,
        promised: Epoch,
    ) -> Result<Epoch, LeadershipError> {
        let (mut record, revision) = self.read(shard).await?;
        let is_primary = record.primary == replica.0;
        let is_fresh = record.epoch == 0 && record.primary.is_empty() && record.isr.is_empty();
        if !is_primary && !is_fresh {
            return Err(LeadershipError::Changed);
        }
        let shown = Epoch(record.epoch);
        if shown < promised {
            return Err(LeadershipError::Regressed { shown, promised });
        }
        if is_primary && record.primary_session == session.0 && shown > promised {
            return Ok(shown);
        }
        record.epoch += 1;
        record.primary = replica.0.to_vec();
        record.primary_session = session.0;
        if is_fresh {
            record.isr = vec![replica.0.to_vec()];
            let is_ours = |entry: &&mut ReplicaRecord| entry.replica_id == replica.0;
            if let Some(entry) = record.replicas.iter_mut().find(is_ours) {
                entry.set_role(ReplicaRole::Full);
            }
            record.reason = "claimed by its first primary".to_owned();
        } else {
            record.reason = "claimed again by a new session of its primary".to_owned();
        }
        let epoch = Epoch(record.epoch);
        self.write(shard, record, revision, session).await?;
        Ok(epoch)
    }

    /// Takes `replica` out of the record, after its data was deleted.
    pub(super) async fn withdraw(
        &self,
        shard: ShardId,
        replica: ReplicaId,
        session: Session,
    ) -> Result<(), LeadershipError> {
        let (mut record, revision) = self.read(shard).await?;
        record.replicas.retain(|entry| entry.replica_id != replica.0);
        record.isr.retain(|member| *member != replica.0);
        if record.primary == replica.0 {
            record.primary.clear();
            record.primary_session = 0;
        }
        record.reason = "deleted with its table".to_owned();
        self.write(shard, record, revision, session).await
    }

    async fn write(
        &self,
        shard: ShardId,
        record: ShardRecord,
        revision: Revision,
        session: Session,
    ) -> Result<(), LeadershipError> {
        let key = self.keys.shard(&shard.table.to_string(), shard.index.0);
        let conditions = vec![
            Condition::ModifiedAt(key.clone(), revision),
            Condition::CreatedAt(self.keys.node(self.node.as_str()), Revision(session.0)),
        ];
        let value = record.encode_to_vec().into();
        let operations = vec![Operation::Put { key, value, lease: None }];
        match self.meta.commit(Txn { conditions, operations }).await? {
            TxnOutcome::Committed(_) => Ok(()),
            TxnOutcome::ConditionFailed => Err(LeadershipError::Changed),
        }
    }
}
