//! What operators ask for: forwarded to the Master, and sent again only where it certainly was not carried out.

use std::time::Duration;

use vectorsphere_proto::internal as proto;

use super::attempts::with_deadline;
use super::{RequestContext, Router};
use crate::cluster::view::Master;
use crate::error_code::{Error, ErrorCode};
use crate::ids::{Epoch, Lsn, NodeId, ReplicaId, ShardId};
use crate::recovery::{ForcedPrimary, OtherCopy};

impl Router {
    /// Begins to empty a node, for as long as `ttl` (`None`: until it is cancelled).
    pub async fn start_drain(
        &self,
        context: &RequestContext,
        node: &NodeId,
        ttl: Option<Duration>,
        reason: String,
    ) -> Result<(), Error> {
        let ttl_ms = ttl.map_or(0, |ttl| ttl.as_millis() as u64);
        let message = proto::StartDrainRequest { node_id: node.to_string(), ttl_ms, reason };
        self.ask_master(context, |mut client| {
            let request = with_deadline(context, message.clone());
            async move { client.start_drain(request).await }
        })
        .await
        .map(drop)
    }

    /// Ends a drain; a node that is not drained is no error.
    pub async fn cancel_drain(&self, context: &RequestContext, node: &NodeId) -> Result<(), Error> {
        let message = proto::CancelDrainRequest { node_id: node.to_string() };
        self.ask_master(context, |mut client| {
            let request = with_deadline(context, message.clone());
            async move { client.cancel_drain(request).await }
        })
        .await
        .map(drop)
    }

    /// Lets another node become Master; returns when it is.
    pub async fn hand_over_mastership(&self, context: &RequestContext) -> Result<Master, Error> {
        let answer = self.ask_master(context, |mut client| {
            let request = with_deadline(context, proto::HandOverMastershipRequest {});
            async move { client.hand_over_mastership(request).await }
        });
        let answer = answer.await?;
        Ok(Master { node: node_id(&answer.node_id)?, epoch: Epoch(answer.epoch) })
    }

    /// Begins to move a copy of a shard; returns the new one.
    pub async fn move_replica(
        &self,
        context: &RequestContext,
        shard: ShardId,
        from: &NodeId,
        to: &NodeId,
    ) -> Result<ReplicaId, Error> {
        let message = proto::MoveReplicaRequest {
            table_id: shard.table.to_string(),
            shard: shard.index.0,
            from_node: from.to_string(),
            to_node: to.to_string(),
        };
        let answer = self.ask_master(context, |mut client| {
            let request = with_deadline(context, message.clone());
            async move { client.move_replica(request).await }
        });
        replica_id(&answer.await?.replica_id)
    }

    /// Makes the copy on `to` (`None`: one of the primary's choice) the primary; its reign and node.
    pub async fn hand_over_shard(
        &self,
        context: &RequestContext,
        shard: ShardId,
        to: Option<&NodeId>,
    ) -> Result<(Epoch, NodeId), Error> {
        let message = proto::HandOverShardRequest {
            table_id: shard.table.to_string(),
            shard: shard.index.0,
            to_node: to.map(ToString::to_string).unwrap_or_default(),
        };
        let answer = self.ask_master(context, |mut client| {
            let request = with_deadline(context, message.clone());
            async move { client.hand_over_shard(request).await }
        });
        let answer = answer.await?;
        Ok((Epoch(answer.epoch), node_id(&answer.node_id)?))
    }

    /// Lets a shard go on from the copy on `node`, though acknowledged writes may be lost; `confirmation` is
    /// `<table name>/<shard>`.
    pub async fn force_primary(
        &self,
        context: &RequestContext,
        shard: ShardId,
        node: &NodeId,
        confirmation: &str,
    ) -> Result<ForcedPrimary, Error> {
        let message = proto::ForcePrimaryRequest {
            table_id: shard.table.to_string(),
            shard: shard.index.0,
            node_id: node.to_string(),
            confirmation: confirmation.to_owned(),
        };
        let answer = self.ask_master(context, |mut client| {
            let request = with_deadline(context, message.clone());
            async move { client.force_primary(request).await }
        });
        let answer = answer.await?;
        let other = |copy: proto::CopyReport| {
            let log = copy.reachable.then_some((Lsn(copy.last_lsn), copy.lost_records));
            Ok(OtherCopy { replica: replica_id(&copy.replica_id)?, node: node_id(&copy.node_id)?, log })
        };
        Ok(ForcedPrimary {
            epoch: Epoch(answer.epoch),
            incarnation: answer.incarnation,
            last: Lsn(answer.last_lsn),
            others: answer.copies.into_iter().map(other).collect::<Result<_, Error>>()?,
        })
    }
}

fn node_id(text: &str) -> Result<NodeId, Error> {
    NodeId::parse(text).map_err(|_| broken("node id"))
}

fn replica_id(bytes: &[u8]) -> Result<ReplicaId, Error> {
    ReplicaId::from_bytes(bytes).ok_or_else(|| broken("replica id"))
}

fn broken(what: &str) -> Error {
    Error::new(ErrorCode::Internal, format!("the Master answered with a broken {what}"))
}
