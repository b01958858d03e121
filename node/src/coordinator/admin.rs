//! What operators ask of the Master: to empty a node, to move copies and primaries, to step back.

use std::sync::Arc;
use std::time::{Duration, Instant};

use prost::Message as _;
use tracing::info;
use vectorsphere_proto::meta;

use super::{Coordinator, unavailable, unix_ms};
use crate::cluster::Role;
use crate::cluster::meta_store::{Operation, Txn, TxnOutcome};
use crate::cluster::view::{ClusterView, Master, ReplicaRole, Shard};
use crate::error_code::{Error, ErrorCode};
use crate::ids::{Epoch, NodeId, ReplicaId, ShardId};

/// Pause before a primary is asked again that was about to change.
const HAND_OVER_PAUSE: Duration = Duration::from_millis(50);

impl Coordinator {
    /// Begins to empty `node`; the drain ends by itself after `ttl` (`None`: never). One that is under way gets the new time
    /// limit and reason. Returns when every node knows, with the record that was written.
    ///
    /// # Errors
    /// When nothing is known of such a node, this node is not the Master, or the store does not answer.
    pub async fn start_drain(
        &self,
        node: &NodeId,
        ttl: Option<Duration>,
        reason: String,
        deadline: Instant,
    ) -> Result<meta::DrainRecord, Error> {
        let is_known = is_known(&self.discovery.view(), node);
        if !is_known {
            return Err(no_such_node(node));
        }
        let now = unix_ms();
        let record = meta::DrainRecord {
            node_id: node.to_string(),
            requested_unix_ms: now,
            expires_unix_ms: ttl.map_or(0, |ttl| now.saturating_add(ttl.as_millis() as u64)),
            reason,
        };
        let (key, value) = (self.keys.drain(node.as_str()), record.encode_to_vec().into());
        self.decide(Operation::Put { key, value, lease: None }, deadline).await?;
        info!(%node, reason = record.reason, "draining a node");
        Ok(record)
    }

    /// Ends a drain. What has moved stays where it is until the Master spreads copies evenly again. A node that is not drained
    /// is no error.
    ///
    /// # Errors
    /// When nothing is known of such a node, this node is not the Master, or the store does not answer.
    pub async fn cancel_drain(&self, node: &NodeId, deadline: Instant) -> Result<(), Error> {
        let view = self.discovery.view();
        if !is_known(&view, node) && !view.drains.contains_key(node) {
            return Err(no_such_node(node));
        }
        self.decide(Operation::Delete(self.keys.drain(node.as_str())), deadline).await?;
        info!(%node, "a node is no longer drained");
        Ok(())
    }

    /// Steps back in favour of the next candidate; returns when it leads.
    ///
    /// # Errors
    /// When this node is not the Master, nobody else stands for election, or nobody leads before the deadline.
    pub async fn hand_over_mastership(&self, deadline: Instant) -> Result<Master, Error> {
        let Role::Master { epoch, .. } = *self.role.borrow() else { return Err(self.not_master()) };
        let mut view = self.discovery.subscribe();
        if view.borrow().candidates.len() < 2 {
            let message = "no other node stands for election, so this one stays the Master";
            return Err(Error::new(ErrorCode::NotReady, message));
        }
        self.step_back.end_reign(epoch);
        let led = view.wait_for(|view| view.master.as_ref().is_some_and(|master| master.epoch > epoch));
        match tokio::time::timeout_at(deadline.into(), led).await {
            Ok(Ok(view)) => Ok(view.master.clone().expect("seen just now")),
            Ok(Err(_)) => Err(Error::new(ErrorCode::NotReady, "this node is stopping")),
            Err(_) => {
                let message = "this node has stepped back, but no other one leads yet";
                Err(Error::new(ErrorCode::DeadlineExceeded, message))
            }
        }
    }

    /// Begins to move the copy of `shard` on `from` to `to`: a new copy there, which replaces the old one when it is in sync.
    /// Returns the new copy when the record holds it; a move that is under way already is the same one.
    ///
    /// # Errors
    /// When there is no such shard, `from` holds no copy of it, or `to` holds one, is away, or is drained.
    pub async fn move_replica(&self, shard: ShardId, from: &NodeId, to: &NodeId) -> Result<ReplicaId, Error> {
        self.guard()?;
        let view = self.discovery.view();
        let record = self.shard(shard)?;
        let moved = record.staying().find(|replica| replica.node == *from);
        let moved = moved.ok_or_else(|| {
            Error::new(
                ErrorCode::InvalidArgument,
                format!("node {from} holds no copy of shard {}", shard.index),
            )
        })?;
        if let Some(under_way) = record.staying().find(|replica| replica.replaces == Some(moved.id)) {
            if under_way.node == *to {
                return Ok(under_way.id);
            }
            let message = format!("the copy is being moved to node {} already", under_way.node);
            return Err(Error::new(ErrorCode::InvalidArgument, message));
        }
        if !is_known(&view, to) {
            return Err(no_such_node(to));
        }
        if let Some(why) = self.cannot_take(&view, &record, to) {
            return Err(Error::new(ErrorCode::InvalidArgument, format!("node {to} {why}")));
        }
        if self.is_full(to, &record).await {
            let message = format!("the data volume of node {to} is too full to take another copy");
            return Err(Error::new(ErrorCode::InvalidArgument, message));
        }
        match self.add(&view, shard, to, Some(moved.id)).await.map_err(unavailable)? {
            Some((_, learner)) => Ok(learner),
            None => Err(Error::new(ErrorCode::NotReady, "the shard's record changed meanwhile, ask again")),
        }
    }

    /// Asks the primary of `shard` to hand over to the copy on `to` (`None`: it chooses), again while another hand-over is
    /// under way. Returns the new primary's reign and node when the record says so; at once when `to` leads.
    ///
    /// # Errors
    /// When there is no such shard, it has no primary, or no other copy that is in sync.
    pub async fn hand_over_shard(
        &self,
        shard: ShardId,
        to: Option<&NodeId>,
        deadline: Instant,
    ) -> Result<(Epoch, NodeId), Error> {
        loop {
            self.guard()?;
            let record = self.shard(shard)?;
            if let Some(to) = to.filter(|to| record.primary_node() == Some(*to)) {
                return Ok((record.epoch, to.clone()));
            }
            match self.hand_over_once(&record, to, deadline).await {
                Err(error)
                    if error.code == ErrorCode::NotPrimary && Instant::now() + HAND_OVER_PAUSE < deadline =>
                {
                    tokio::time::sleep(HAND_OVER_PAUSE).await;
                }
                outcome => return outcome,
            }
        }
    }

    async fn hand_over_once(
        &self,
        record: &Shard,
        to: Option<&NodeId>,
        deadline: Instant,
    ) -> Result<(Epoch, NodeId), Error> {
        let shard = record.id;
        let wanted = to.map(|to| {
            let copy = record.staying().find(|replica| replica.node == *to && record.is_in_sync(replica.id));
            let missing = format!("node {to} holds no copy of shard {} that is in sync", shard.index);
            copy.map(|copy| copy.id).ok_or_else(|| Error::new(ErrorCode::InvalidArgument, missing))
        });
        let epoch = self.ask_to_hand_over(record, wanted.transpose()?).await?;
        let mut view = self.discovery.subscribe();
        let led = view.wait_for(|view| view.shards.get(&shard).is_none_or(|now| now.epoch >= epoch));
        let seen = tokio::time::timeout_at(deadline.into(), led).await;
        let node = match &seen {
            Ok(Ok(view)) => view.shards.get(&shard).and_then(|now| now.primary_node().cloned()),
            _ => None,
        };
        let late = "the shard was handed over, but this node has not seen it before the deadline";
        Ok((epoch, node.ok_or_else(|| Error::new(ErrorCode::DeadlineExceeded, late))?))
    }

    /// Why a node cannot take a copy of a shard; `None`: it can.
    fn cannot_take(&self, view: &ClusterView, record: &Shard, node: &NodeId) -> Option<&'static str> {
        let host = view.nodes.get(node);
        if host.is_none_or(|host| self.comm.is_suspect(host)) {
            return Some("is away");
        }
        if !host.is_some_and(|host| host.holds_shards()) {
            return Some("holds no shards");
        }
        if view.drains.contains_key(node) {
            return Some("is being drained");
        }
        if record.staying().any(|replica| replica.node == *node) {
            return Some("holds a copy of the shard");
        }
        let is_moving = record.staying().any(|replica| replica.role == ReplicaRole::Learner);
        is_moving.then_some("cannot take it while another copy of the shard is catching up")
    }

    pub(super) fn shard(&self, id: ShardId) -> Result<Arc<Shard>, Error> {
        let missing = || Error::new(ErrorCode::ShardNotFound, format!("there is no shard {id}"));
        self.discovery.view().shards.get(&id).cloned().ok_or_else(missing)
    }

    /// Writes one decision of the Master; returns when every node knows.
    async fn decide(&self, operation: Operation, deadline: Instant) -> Result<(), Error> {
        let txn = Txn { conditions: vec![self.guard()?], operations: vec![operation] };
        match self.meta.commit(txn).await.map_err(unavailable)? {
            TxnOutcome::Committed(revision) => {
                self.comm.broadcast_revision(revision, deadline).await;
                Ok(())
            }
            TxnOutcome::ConditionFailed => Err(self.not_master()),
        }
    }
}

fn no_such_node(node: &NodeId) -> Error {
    Error::new(ErrorCode::NodeNotFound, format!("there is no node {node}"))
}

/// True for a node that is there, and for one that still holds copies.
fn is_known(view: &ClusterView, node: &NodeId) -> bool {
    let mut copies = view.shards.values().flat_map(|shard| &shard.replicas);
    view.nodes.contains_key(node) || copies.any(|replica| replica.node == *node)
}
