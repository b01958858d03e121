//! Carries the planner's steps out: each is one transaction on a shard's record, on condition that the record is the one
//! that was judged, and of what the step counts on.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::future::join_all;
use prost::Message as _;
use tracing::{info, warn};
use vectorsphere_proto::internal::{DescribeRequest, HandOverRequest, ReplicaStatus, ShardRef};
use vectorsphere_proto::meta::ShardRecord;

use super::detection::Detection;
use super::plan::{Action, CandidateReport, Settings, Situation, elect, plan};
use super::{Coordinator, edits, unix_ms};
use crate::cluster::meta_store::{Condition, MetaError, Operation, Txn};
use crate::cluster::view::{ClusterView, Replica, ReplicaRole, Shard};
use crate::comm::convert::from_status;
use crate::error_code::{Error, ErrorCode};
use crate::ids::{Epoch, Lsn, NodeId, ReplicaId, Revision, Session, ShardId};

/// How long candidates have to say where they are.
const REPORT_LIMIT: Duration = Duration::from_millis(300);
/// How long a primary has to hand over.
const HAND_OVER_LIMIT: Duration = Duration::from_secs(3);

impl Coordinator {
    /// One look at all copies of all shards, and the next steps: the revision of the last one that changed something.
    pub(super) async fn settle_copies(
        &self,
        view: &ClusterView,
        detection: &Detection,
    ) -> Result<Option<Revision>, MetaError> {
        let now = Instant::now();
        let suspects: BTreeSet<NodeId> = view
            .nodes
            .values()
            .filter(|node| self.comm.is_suspect(node))
            .map(|node| node.id.clone())
            .collect();
        let (now_since_start, gone_since) = detection.clock(now);
        let situation = Situation {
            view,
            now: now_since_start,
            gone_since: &gone_since,
            suspects: &suspects,
            unfit: &self.unfit.nodes(now),
            unix_ms: unix_ms(),
        };
        let settings = Settings { rereplicate_after: (self.rereplicate_after)(), ..Settings::default() };
        let must_wait = detection.must_wait(now);
        let mut actions = plan(&situation, &settings);
        actions.retain(|action| !must_wait || !matches!(action, Action::Elect { .. }));
        let mut last = None;
        for done in join_all(actions.iter().map(|action| self.carry_out(view, action))).await {
            last = done?.max(last);
        }
        Ok(last)
    }

    async fn carry_out(&self, view: &ClusterView, action: &Action) -> Result<Option<Revision>, MetaError> {
        match action {
            Action::Elect { shard, lost } => self.elect(view, *shard, lost).await,
            Action::Add { shard, node, replaces } => {
                self.add(view, *shard, node, *replaces).await.map(|added| Some(added?.0))
            }
            Action::Retire { shard, replica } => self.retire(view, *shard, *replica).await,
            Action::HandOver { shard, to } => {
                if let Some(shard) = view.shards.get(shard) {
                    let _ = self.ask_to_hand_over(shard, Some(*to)).await;
                }
                Ok(None)
            }
            Action::Withdraw { shard, replica } => self.withdraw(view, *shard, *replica).await,
            Action::EndDrain { node } => self.end_drain(view, node).await,
        }
    }

    /// Gives a shard whose primary is lost another one, if a copy in sync is there and may lead.
    async fn elect(
        &self,
        view: &ClusterView,
        shard: ShardId,
        lost: &[ReplicaId],
    ) -> Result<Option<Revision>, MetaError> {
        let Some(shard) = view.shards.get(&shard) else { return Ok(None) };
        let present: Vec<(&Replica, Session)> = shard
            .staying()
            .filter(|replica| shard.is_in_sync(replica.id))
            .filter_map(|replica| Some((replica, view.nodes.get(&replica.node)?.session)))
            .collect();
        if view.is_out_of_date(shard) && !self.have_all_answered(shard).await {
            return Ok(None);
        }
        let asked = present.iter().map(async |(replica, _)| (*replica, self.describe(shard, replica).await));
        let mut reports = Vec::new();
        for (replica, status) in join_all(asked).await {
            match status {
                None => {
                    warn!(shard = %shard.id, node = %replica.node, "a copy in sync does not say where it is");
                }
                // It obeyed what this record does not show: whoever is elected by it may lack what was acknowledged (R3).
                Some(status) if !status.failure.is_empty() => {
                    warn!(shard = %shard.id, node = %replica.node, why = status.failure, "nobody is elected");
                    return Ok(None);
                }
                Some(status) => reports.push(candidate(view, replica, &status)),
            }
        }
        let Some(chosen) = elect(shard, &reports, lost) else { return Ok(None) };
        let (replica, session) =
            present.into_iter().find(|(replica, _)| replica.id == chosen).expect("it reported");
        let conditions = vec![self.in_session(&replica.node, session)];
        let changed =
            self.edit(shard, conditions, |record| edits::with_primary(record, chosen, session)).await?;
        if changed.is_some() {
            let epoch = Epoch(shard.epoch.0 + 1);
            info!(shard = %shard.id, %epoch, node = %replica.node, "elected a primary");
        }
        Ok(changed)
    }

    /// Whether every copy says where it stands: after a restore the record may not know who was in sync since (R3).
    async fn have_all_answered(&self, shard: &Shard) -> bool {
        let asked = shard.staying().filter(|copy| !copy.damaged);
        let asked = asked.map(async |copy| (copy, self.describe(shard, copy).await));
        let all = join_all(asked).await;
        let is_open = |status: &ReplicaStatus| status.failure.is_empty();
        let other = all.iter().find(|(_, status)| !status.as_ref().is_some_and(is_open));
        if let Some((copy, status)) = other {
            let silent = "the metadata store was restored, and this copy does not say what it has seen since";
            let why = status.as_ref().map_or(silent, |status| &status.failure);
            warn!(shard = %shard.id, node = %copy.node, why, "nobody is elected");
        }
        other.is_none()
    }

    /// Where a copy stands, as its node says.
    pub(super) async fn describe(&self, shard: &Shard, replica: &Replica) -> Option<ReplicaStatus> {
        let call = async {
            let mut client = self.comm.replication_client(&replica.node).ok()?;
            let wanted = DescribeRequest { shards: vec![shard_ref(shard)] };
            let answer = client.describe(wanted).await.ok()?.into_inner();
            answer.replicas.into_iter().find(|status| status.replica_id == replica.id.0.as_slice())
        };
        tokio::time::timeout(REPORT_LIMIT, call).await.ok().flatten()
    }

    /// Whether the data volume of a node has no room for another copy, as it says. One that does not answer says nothing.
    pub(super) async fn is_full(&self, node: &NodeId, shard: &Shard) -> bool {
        let call = async {
            let mut client = self.comm.replication_client(node).ok()?;
            let wanted = DescribeRequest { shards: vec![shard_ref(shard)] };
            Some(client.describe(wanted).await.ok()?.into_inner().is_full)
        };
        tokio::time::timeout(REPORT_LIMIT, call).await.ok().flatten().unwrap_or_default()
    }

    /// Begins a new copy on a node; its identity. A node that is too full gets none, nor the next ones.
    pub(super) async fn add(
        &self,
        view: &ClusterView,
        shard: ShardId,
        node: &NodeId,
        replaces: Option<ReplicaId>,
    ) -> Result<Option<(Revision, ReplicaId)>, MetaError> {
        let (Some(shard), Some(host)) = (view.shards.get(&shard), view.nodes.get(node)) else {
            return Ok(None);
        };
        // What is damaged there goes when the new copy is there, so its node is asked for no more room.
        let makes_anew = shard.replicas.iter().any(|copy| copy.node == *node && copy.damaged);
        if !makes_anew && self.is_full(node, shard).await {
            warn!(shard = %shard.id, %node, "the data volume is too full for another copy");
            self.unfit.note(node, Instant::now());
            return Ok(None);
        }
        let learner = ReplicaId::random();
        let conditions =
            vec![self.in_session(node, host.session), Condition::Absent(self.keys.drain(node.as_str()))];
        let changed = self
            .edit(shard, conditions, |record| edits::with_learner(record, learner, node, replaces))
            .await?;
        if changed.is_some() {
            info!(shard = %shard.id, %node, replica = %learner, "a new copy is to be made");
        }
        Ok(changed.map(|revision| (revision, learner)))
    }

    async fn retire(
        &self,
        view: &ClusterView,
        shard: ShardId,
        leaving: ReplicaId,
    ) -> Result<Option<Revision>, MetaError> {
        let Some(shard) = view.shards.get(&shard) else { return Ok(None) };
        let others = shard.staying().filter(|other| other.id != leaving && shard.is_in_sync(other.id));
        let conditions = others
            .filter_map(|other| Some(self.in_session(&other.node, view.nodes.get(&other.node)?.session)))
            .collect();
        let changed = self.edit(shard, conditions, |record| edits::with_leaving(record, leaving)).await?;
        if changed.is_some() {
            info!(shard = %shard.id, replica = %leaving, "a copy is to leave");
            let never_came = |copy: &&Replica| copy.role == ReplicaRole::Learner && copy.damaged;
            if let Some(copy) = shard.replica(leaving).filter(never_came) {
                warn!(shard = %shard.id, node = %copy.node, "a new copy could not be made there");
                self.unfit.note(&copy.node, Instant::now());
            }
        }
        Ok(changed)
    }

    async fn withdraw(
        &self,
        view: &ClusterView,
        shard: ShardId,
        gone: ReplicaId,
    ) -> Result<Option<Revision>, MetaError> {
        let Some(shard) = view.shards.get(&shard) else { return Ok(None) };
        let Some(replica) = shard.replica(gone) else { return Ok(None) };
        let conditions = vec![Condition::Absent(self.keys.node(replica.node.as_str()))];
        self.edit(shard, conditions, |record| edits::without(record, gone)).await
    }

    async fn end_drain(&self, view: &ClusterView, node: &NodeId) -> Result<Option<Revision>, MetaError> {
        let (Some(guard), Some(drain)) = (self.role.borrow().guard(), view.drains.get(node)) else {
            return Ok(None);
        };
        let key = self.keys.drain(node.as_str());
        let conditions = vec![guard, Condition::ModifiedAt(key.clone(), drain.mod_revision)];
        let changed = self.step(Txn { conditions, operations: vec![Operation::Delete(key)] }).await?;
        if changed.is_some() {
            info!(%node, "the time of a drain is over");
        }
        Ok(changed)
    }

    /// Asks a primary to let another copy lead; the reign that follows.
    pub(super) async fn ask_to_hand_over(
        &self,
        shard: &Shard,
        to: Option<ReplicaId>,
    ) -> Result<Epoch, Error> {
        let nobody =
            || Error::new(ErrorCode::ShardUnavailable, format!("shard {} has no primary", shard.id.index));
        let node = shard.primary_node().ok_or_else(nobody)?;
        let mut client = self.comm.replication_client(node)?;
        let to = to.map(|to| to.0.to_vec().into()).unwrap_or_default();
        let call = client.hand_over(HandOverRequest { shard: Some(shard_ref(shard)), to });
        let late =
            |_| Error::new(ErrorCode::DeadlineExceeded, format!("node {node} did not hand over in time"));
        let answer = tokio::time::timeout(HAND_OVER_LIMIT, call).await.map_err(late)?;
        answer.map(|answer| Epoch(answer.into_inner().epoch)).map_err(|status| from_status(&status))
    }

    /// Writes a shard's record anew, if it is the one that was judged and all conditions hold.
    pub(super) async fn edit(
        &self,
        shard: &Shard,
        mut conditions: Vec<Condition>,
        edit: impl FnOnce(&ShardRecord) -> ShardRecord,
    ) -> Result<Option<Revision>, MetaError> {
        let Some(guard) = self.role.borrow().guard() else { return Ok(None) };
        let key = self.keys.shard(&shard.id.table.to_string(), shard.id.index.0);
        let Some(entry) = self.meta.get(&key).await? else { return Ok(None) };
        if entry.mod_revision != shard.mod_revision {
            return Ok(None);
        }
        let broken = |error| MetaError::Refused(format!("record {key} cannot be read: {error}"));
        let record = ShardRecord::decode(entry.value).map_err(broken)?;
        let value = edit(&record).encode_to_vec().into();
        conditions.extend([guard, Condition::ModifiedAt(key.clone(), shard.mod_revision)]);
        self.step(Txn { conditions, operations: vec![Operation::Put { key, value, lease: None }] }).await
    }

    pub(super) fn in_session(&self, node: &NodeId, session: Session) -> Condition {
        Condition::CreatedAt(self.keys.node(node.as_str()), Revision(session.0))
    }
}

/// What the choice of a primary goes by.
pub(super) fn candidate(view: &ClusterView, replica: &Replica, status: &ReplicaStatus) -> CandidateReport {
    let last = status.last.unwrap_or_default();
    let leads = |other: &&Arc<Shard>| other.primary_node() == Some(&replica.node);
    CandidateReport {
        replica: replica.id,
        last_epoch: Epoch(last.epoch),
        flushed: Lsn(last.lsn),
        commit: Lsn(status.commit_lsn),
        is_damaged: status.damaged,
        tail_was_cut: status.tail_was_cut,
        is_proven: status.proven,
        primaries: view.shards.values().filter(leads).count(),
    }
}

fn shard_ref(shard: &Shard) -> ShardRef {
    ShardRef { table_id: shard.id.table.to_string(), shard: shard.id.index.0, epoch: shard.epoch.0 }
}
