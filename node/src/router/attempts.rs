//! Where a call goes, how long it is tried, and what its failures mean.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::watch;
use vectorsphere_proto::internal::{self as proto};

use super::readers::{Preference, readers};
use super::{RequestContext, Router};
use crate::cluster::view::{ClusterView, Shard};
use crate::comm::{ShardClient, convert};
use crate::error_code::{Error, ErrorCode};
use crate::ids::{NodeId, Revision, ShardId};
use crate::search::Consistency;

/// How long a request keeps trying while its deadline allows more: a restarting slave is back in a few seconds.
const RETRY_BUDGET: Duration = Duration::from_secs(5);
/// Pause after the first try, unless the metadata tells of a change before: as long as a new primary may need to learn that
/// it is one. Doubled with each further try.
const RETRY_PAUSE_MIN: Duration = Duration::from_millis(10);
/// Longest pause between tries.
const RETRY_PAUSE_MAX: Duration = Duration::from_millis(100);
/// Time kept back at the end of a deadline, so that the caller gets our answer and not its own time-out.
const ANSWER_RESERVE: Duration = Duration::from_millis(200);

/// A replica to ask.
#[derive(Clone, Debug)]
pub(super) struct Target {
    /// Its node.
    pub(super) node: NodeId,
    /// The shard and the epoch that we believe in.
    pub(super) shard: proto::ShardRef,
}

/// Decides whether and when a request tries again.
pub(super) struct Attempts {
    until: Instant,
    deadline: Instant,
    pause: Duration,
    view: watch::Receiver<Arc<ClusterView>>,
}

impl Attempts {
    pub(super) fn new(router: &Router, context: &RequestContext) -> Attempts {
        let deadline = part_deadline(context);
        let until = deadline.min(Instant::now() + RETRY_BUDGET);
        Attempts { until, deadline, pause: RETRY_PAUSE_MIN, view: router.view.clone() }
    }

    /// Goes on trying until the deadline: something may have happened, and another try finds out.
    pub(super) fn insist(&mut self) {
        self.until = self.deadline;
    }

    /// Waits until another try makes sense: at once when the metadata is not what the failed try went by, which
    /// `has_changed` tells; else after a pause, in which what failed may have come back. `false`: there is no time left.
    pub(super) async fn again(&mut self, has_changed: impl Fn(&ClusterView) -> bool) -> bool {
        let pause = self.pause;
        if Instant::now() + pause >= self.until {
            return false;
        }
        self.pause = RETRY_PAUSE_MAX.min(pause * 2);
        let changed = self.view.wait_for(|view| has_changed(view));
        let _ = tokio::time::timeout(pause, changed).await;
        true
    }
}

impl Router {
    /// The primary of `shard`, from the cached map.
    pub(super) fn primary(&self, shard: ShardId) -> Result<Target, Error> {
        let view = self.view();
        let record = record(&view, shard)?;
        let node = record.primary_node().ok_or_else(|| unavailable(shard, "has no primary yet"))?;
        let Some(host) = view.nodes.get(node) else {
            return Err(unavailable(shard, &format!("is on node {node}, which is not there")));
        };
        if self.is_suspect(host) {
            return Err(unavailable(shard, &format!("is on node {node}, which does not answer")));
        }
        if !view.is_served(record) {
            return Err(unavailable(shard, &format!("is being recovered by node {node}")));
        }
        Ok(Target { node: node.clone(), shard: shard_ref(record) })
    }

    /// The replicas of `shard` that a read may ask, the best one first; at least one.
    pub(super) fn readers(&self, shard: ShardId, consistency: Consistency) -> Result<Vec<Target>, Error> {
        if consistency.needs_primary() {
            return self.primary(shard).map(|primary| vec![primary]);
        }
        let view = self.view();
        let record = record(&view, shard)?;
        let preference = Preference {
            zone: view.nodes.get(&self.node).map_or("", |node| node.zone.as_str()),
            in_flight: &|node| self.traffic.calls_to(node),
            is_suspect: &|node| self.is_suspect(node),
            turn: self.traffic.next_turn(),
        };
        let nodes = readers(&view, record, consistency, &preference).into_iter();
        let targets: Vec<Target> =
            nodes.map(|node| Target { node: node.clone(), shard: shard_ref(record) }).collect();
        match targets.is_empty() {
            true => {
                Err(self.primary(shard).err().unwrap_or_else(|| unavailable(shard, "has no copy in sync")))
            }
            false => Ok(targets),
        }
    }

    /// The revision of a shard's record, which tells whether the map has changed.
    pub(super) fn revision_of(&self, shard: ShardId) -> Option<Revision> {
        revision_of(&self.view(), shard)
    }

    /// A client of the shards on `node`.
    pub(super) fn shard_client(&self, node: &NodeId) -> Result<ShardClient, Error> {
        self.comm.shard_client(node)
    }

    /// What a node answers before the deadline, and before the node is lost: then nothing may come for long.
    pub(super) async fn answer_of<T>(
        &self,
        context: &RequestContext,
        node: &NodeId,
        call: impl Future<Output = Result<tonic::Response<T>, tonic::Status>>,
    ) -> Result<T, Error> {
        tokio::select! {
            answer = before(context, call) => answer,
            () = self.comm.lost(node) => {
                Err(Error::new(ErrorCode::NodeUnreachable, "no answer, and the node does not answer probes either"))
            }
        }
    }

    /// Asks one replica once.
    pub(super) async fn ask<T, F>(
        &self,
        context: &RequestContext,
        target: &Target,
        call: &impl Fn(ShardClient, proto::ShardRef) -> F,
    ) -> Result<T, Error>
    where
        F: Future<Output = Result<tonic::Response<T>, tonic::Status>>,
    {
        let client = self.shard_client(&target.node)?;
        let _flight = self.traffic.begin(&target.node);
        let answer = self.answer_of(context, &target.node, call(client, target.shard.clone())).await;
        answer.map_err(|mut error| {
            let (shard, node) = (target.shard.shard, &target.node);
            error.message = format!("shard {shard} on node {node}: {}", error.message);
            error
        })
    }
}

/// Of two failures the graver one: what certainly failed and stays so speaks before what time may heal, and a connection
/// that broke before a node that could say why.
pub(super) fn graver(one: Error, other: Error) -> Error {
    let gravity = |error: &Error| match error.code {
        ErrorCode::NodeUnreachable => 1,
        code if code.is_transient() => 0,
        _ => 2,
    };
    if gravity(&other) > gravity(&one) { other } else { one }
}

/// True when another replica may answer what one failed to.
pub(super) fn may_help_elsewhere(code: ErrorCode) -> bool {
    code.is_transient() || code == ErrorCode::ShardDamaged
}

pub(super) fn revision_of(view: &ClusterView, shard: ShardId) -> Option<Revision> {
    view.shards.get(&shard).map(|record| record.mod_revision)
}

/// Runs one call within the request's deadline.
async fn before<T>(
    context: &RequestContext,
    call: impl Future<Output = Result<tonic::Response<T>, tonic::Status>>,
) -> Result<T, Error> {
    match tokio::time::timeout_at(part_deadline(context).into(), call).await {
        Ok(Ok(answer)) => Ok(answer.into_inner()),
        Ok(Err(status)) => Err(convert::from_status(&status)),
        Err(_) => Err(Error::new(ErrorCode::DeadlineExceeded, "no answer before the deadline")),
    }
}

/// A request to another node that carries the deadline on.
pub(super) fn with_deadline<T>(context: &RequestContext, message: T) -> tonic::Request<T> {
    let mut request = tonic::Request::new(message);
    request.set_timeout(part_deadline(context).saturating_duration_since(Instant::now()));
    request
}

/// When the parts of a request must have answered: a little before the whole.
fn part_deadline(context: &RequestContext) -> Instant {
    let left = context.deadline.saturating_duration_since(Instant::now());
    context.deadline - ANSWER_RESERVE.min(left / 10)
}

fn shard_ref(shard: &Shard) -> proto::ShardRef {
    proto::ShardRef { table_id: shard.id.table.to_string(), shard: shard.id.index.0, epoch: shard.epoch.0 }
}

fn record(view: &ClusterView, shard: ShardId) -> Result<&Arc<Shard>, Error> {
    view.shards.get(&shard).ok_or_else(|| unavailable(shard, "has no record yet"))
}

fn unavailable(shard: ShardId, why: &str) -> Error {
    Error::new(ErrorCode::ShardUnavailable, format!("shard {} {why}", shard.index))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_graver_failure_is_told_and_of_equals_the_first() {
        use ErrorCode::{NodeUnreachable, NotPrimary, ShardDamaged, ShardUnavailable};
        let graver = |one, other| graver(Error::new(one, ""), Error::new(other, "")).code;
        assert_eq!(graver(ShardUnavailable, NotPrimary), ShardUnavailable);
        assert_eq!(graver(ShardUnavailable, NodeUnreachable), NodeUnreachable);
        assert_eq!(graver(NodeUnreachable, ShardUnavailable), NodeUnreachable);
        assert_eq!(graver(NodeUnreachable, ShardDamaged), ShardDamaged);
    }
}
