//! Changes of a shard's record by its replicas: compare-and-swap in the metadata store, guarded by node sessions.

use std::sync::Arc;
use std::time::Duration;

use prost::Message as _;
use tokio::sync::watch;
use vectorsphere_proto::keys::Keys;
use vectorsphere_proto::meta::ShardRecord;

use super::configuration::{configuration_of, write_configuration};
use crate::cluster::MetaStore;
use crate::cluster::meta_store::{Condition, MetaError, Operation, Txn, TxnOutcome};
use crate::cluster::view::{ClusterView, Shard};
use crate::ids::{NodeId, ReplicaId, Revision, Session, ShardId};
use crate::replication::{Change, Outcome};

/// A change that takes longer has an unknown outcome.
const ANSWER_LIMIT: Duration = Duration::from_secs(2);

/// Reads and changes shard records on behalf of this node.
#[derive(Clone)]
pub(super) struct Records {
    pub(super) meta: Arc<dyn MetaStore>,
    pub(super) keys: Keys,
    pub(super) node: NodeId,
    pub(super) view: watch::Receiver<Arc<ClusterView>>,
}

/// Why a record was not read or changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum RecordFailure {
    /// The store did not do it, or we do not know whether it did.
    #[error("shard record could not be changed: {0}")]
    Meta(#[from] MetaError),
    /// Something else changed, or a session ended: look again.
    #[error("shard record changed meanwhile")]
    Changed,
    /// The record is not there.
    #[error("shard record is absent")]
    Absent,
    /// The record cannot be read.
    #[error("shard record is malformed: {0}")]
    Malformed(String),
}

/// A change that a replica asks for.
pub(super) struct Asked {
    pub(super) compared: Revision,
    pub(super) change: Change,
    /// Replicas that the change counts on, with their nodes' sessions.
    pub(super) guards: Vec<(ReplicaId, Session)>,
    /// Session of this node.
    pub(super) session: Session,
}

impl Records {
    /// The shard's record as it is now (linearizable).
    pub(super) async fn read(&self, shard: ShardId) -> Result<Shard, RecordFailure> {
        let (record, revision) = self.read_raw(shard).await?;
        let mut shard = Shard::from_record(shard, &record, revision).map_err(RecordFailure::Malformed)?;
        if self.view.borrow().is_out_of_date(&shard) {
            shard.primary = None;
        }
        Ok(shard)
    }

    /// Makes a change that a replica asks for, if the record is the one that it saw.
    pub(super) async fn change(&self, shard: ShardId, asked: Asked) -> Outcome {
        match tokio::time::timeout(ANSWER_LIMIT, self.try_change(shard, asked)).await {
            Ok(Ok(revision)) => Outcome::Made(revision),
            Ok(Err(RecordFailure::Meta(MetaError::Unavailable(_)))) | Err(_) => Outcome::Unknown,
            Ok(Err(_)) => Outcome::NotMade,
        }
    }

    async fn try_change(&self, shard: ShardId, asked: Asked) -> Result<Revision, RecordFailure> {
        let (record, revision) = self.read_to_change(shard, asked.session).await?;
        if revision != asked.compared {
            return Err(RecordFailure::Changed);
        }
        let seen = Shard::from_record(shard, &record, revision).map_err(RecordFailure::Malformed)?;
        let after = configuration_of(&seen).with(&asked.change, Revision(revision.0 + 1));
        let mut conditions = Vec::new();
        for (replica, session) in &asked.guards {
            let node = &seen.replica(*replica).ok_or(RecordFailure::Changed)?.node;
            conditions.push(Condition::CreatedAt(self.keys.node(node.as_str()), Revision(session.0)));
            // Who is being emptied takes nothing on.
            conditions.push(Condition::Absent(self.keys.drain(node.as_str())));
        }
        let after = write_configuration(record, &after, &asked.change);
        self.write(shard, after, revision, asked.session, conditions).await
    }

    /// Says that this node's copy is lost: it is never elected any more, and replaced.
    pub(super) async fn mark_damaged(
        &self,
        shard: ShardId,
        replica: ReplicaId,
        session: Session,
    ) -> Result<(), RecordFailure> {
        let (mut record, revision) = self.read_to_change(shard, session).await?;
        let entry = record.replicas.iter_mut().find(|entry| entry.replica_id == replica.0);
        let entry = entry.ok_or(RecordFailure::Changed)?;
        if std::mem::replace(&mut entry.damaged, true) {
            return Ok(());
        }
        record.reason = format!("replica on {} is damaged", self.node);
        self.write(shard, record, revision, session, Vec::new()).await.map(drop)
    }

    /// Gives the lead of a copy up that cannot be opened: the Master is to choose another one.
    pub(super) async fn abdicate(
        &self,
        shard: ShardId,
        replica: ReplicaId,
        session: Session,
    ) -> Result<(), RecordFailure> {
        let (record, revision) = self.read_to_change(shard, session).await?;
        let seen = Shard::from_record(shard, &record, revision).map_err(RecordFailure::Malformed)?;
        if seen.primary != Some(replica) || seen.primary_session != session {
            return Ok(());
        }
        let after = configuration_of(&seen).with(&Change::Abdicate, Revision(revision.0 + 1));
        let after = write_configuration(record, &after, &Change::Abdicate);
        self.write(shard, after, revision, session, Vec::new()).await.map(drop)
    }

    /// Takes `replica` out of the record, after its data was deleted.
    pub(super) async fn withdraw(
        &self,
        shard: ShardId,
        replica: ReplicaId,
        session: Session,
    ) -> Result<(), RecordFailure> {
        let (mut record, revision) = self.read_to_change(shard, session).await?;
        record.replicas.retain(|entry| entry.replica_id != replica.0);
        record.isr.retain(|member| *member != replica.0);
        if record.primary == replica.0 {
            record.primary.clear();
            record.primary_session = 0;
        }
        record.reason = format!("data on {} was deleted", self.node);
        self.write(shard, record, revision, session, Vec::new()).await.map(drop)
    }

    /// Only the Master, or a person, says how a shard goes on whose record is from before a restore. Whether there was one is
    /// known when the view has come to this node's session: it was written down before that began.
    async fn read_to_change(
        &self,
        shard: ShardId,
        session: Session,
    ) -> Result<(ShardRecord, Revision), RecordFailure> {
        let (record, revision) = self.read_raw(shard).await?;
        let view = self.view.borrow();
        let may_be_out_of_date = view.revision.0 < session.0 || revision < view.restored_at;
        if may_be_out_of_date && record.epoch > 0 {
            return Err(RecordFailure::Changed);
        }
        Ok((record, revision))
    }

    async fn read_raw(&self, shard: ShardId) -> Result<(ShardRecord, Revision), RecordFailure> {
        let key = self.keys.shard(&shard.table.to_string(), shard.index.0);
        let entry = self.meta.get(&key).await?.ok_or(RecordFailure::Absent)?;
        let record =
            ShardRecord::decode(entry.value).map_err(|error| RecordFailure::Malformed(error.to_string()))?;
        Ok((record, entry.mod_revision))
    }

    async fn write(
        &self,
        shard: ShardId,
        record: ShardRecord,
        revision: Revision,
        session: Session,
        mut conditions: Vec<Condition>,
    ) -> Result<Revision, RecordFailure> {
        let key = self.keys.shard(&shard.table.to_string(), shard.index.0);
        conditions.push(Condition::ModifiedAt(key.clone(), revision));
        conditions.push(Condition::CreatedAt(self.keys.node(self.node.as_str()), Revision(session.0)));
        let value = record.encode_to_vec().into();
        let operations = vec![Operation::Put { key, value, lease: None }];
        match self.meta.commit(Txn { conditions, operations }).await? {
            TxnOutcome::Committed(revision) => Ok(revision),
            TxnOutcome::ConditionFailed => Err(RecordFailure::Changed),
        }
    }
}
