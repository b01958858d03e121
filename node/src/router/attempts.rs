//! Calls to a shard's primary, tried again while the shard map may be stale or the primary restarts.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::watch;
use tonic::transport::Channel;
use vectorsphere_proto::internal::shard_service_client::ShardServiceClient;
use vectorsphere_proto::internal::{self as proto};

use super::{RequestContext, Router};
use crate::cluster::view::{ClusterView, Shard};
use crate::comm::convert;
use crate::error_code::{Error, ErrorCode};
use crate::ids::{NodeId, ShardId};

/// A client of the shards on one node.
pub(super) type ShardClient = ShardServiceClient<Channel>;

/// How long a request keeps trying while its deadline allows more: a restarting slave is back in a few seconds.
const RETRY_BUDGET: Duration = Duration::from_secs(5);
/// Pause between tries, unless the shard map changes first.
const RETRY_PAUSE: Duration = Duration::from_millis(100);
/// Time kept back at the end of a deadline, so that the caller gets our answer and not its own time-out.
const ANSWER_RESERVE: Duration = Duration::from_millis(200);

/// Where a shard is served at the moment.
pub(super) struct Route {
    /// The primary's node.
    pub(super) node: NodeId,
    /// The shard and the epoch that we believe in.
    pub(super) shard: proto::ShardRef,
}

/// Decides whether and when a request tries again.
pub(super) struct Attempts {
    until: Instant,
    view: watch::Receiver<Arc<ClusterView>>,
}

impl Attempts {
    pub(super) fn new(router: &Router, context: &RequestContext) -> Attempts {
        let mut view = router.view.clone();
        view.mark_unchanged();
        Attempts { until: part_deadline(context).min(Instant::now() + RETRY_BUDGET), view }
    }

    /// Waits until another try makes sense; `false`: it does not, the error is final.
    pub(super) async fn again(&mut self, error: &Error) -> bool {
        if !error.code.is_transient() || Instant::now() + RETRY_PAUSE >= self.until {
            return false;
        }
        // Either way is fine: the map changed, or the primary may be back at the same place.
        let _ = tokio::time::timeout(RETRY_PAUSE, self.view.changed()).await;
        self.view.mark_unchanged();
        true
    }
}

impl Router {
    /// Where `shard` is served, from the cached map.
    pub(super) fn route(&self, shard: ShardId) -> Result<Route, Error> {
        let view = self.view();
        let record = view.shards.get(&shard).ok_or_else(|| unavailable(shard, "has no record yet"))?;
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
        Ok(Route { node: node.clone(), shard: shard_ref(record) })
    }

    /// A client of the shards on `node`.
    pub(super) fn shard_client(&self, node: &NodeId) -> Result<ShardClient, Error> {
        self.comm.shard_client(node)
    }

    /// Calls the primary of `shard` until it answers, fails for good, or the time is up.
    ///
    /// If the connection broke in any of the tries, the error is that one, whatever came later: the call may have been
    /// carried out.
    pub(super) async fn on_primary<T, F>(
        &self,
        context: &RequestContext,
        shard: ShardId,
        call: impl Fn(ShardClient, proto::ShardRef) -> F,
    ) -> Result<T, Error>
    where
        F: Future<Output = Result<tonic::Response<T>, tonic::Status>>,
    {
        let mut attempts = Attempts::new(self, context);
        let mut broken = None;
        loop {
            let error = match self.try_primary(context, shard, &call).await {
                Ok(answer) => return Ok(answer),
                Err(error) => error,
            };
            if error.code == ErrorCode::NodeUnreachable {
                broken = Some(error.clone());
            }
            if !attempts.again(&error).await {
                return Err(broken.unwrap_or(error));
            }
        }
    }

    async fn try_primary<T, F>(
        &self,
        context: &RequestContext,
        shard: ShardId,
        call: &impl Fn(ShardClient, proto::ShardRef) -> F,
    ) -> Result<T, Error>
    where
        F: Future<Output = Result<tonic::Response<T>, tonic::Status>>,
    {
        let route = self.route(shard)?;
        let client = self.shard_client(&route.node)?;
        let answer = before(context, call(client, route.shard)).await;
        answer.map_err(|error| at(&route.node, shard, error))
    }
}

/// Runs one call within the request's deadline.
pub(super) async fn before<T>(
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

fn unavailable(shard: ShardId, why: &str) -> Error {
    Error::new(ErrorCode::ShardUnavailable, format!("shard {} {why}", shard.index))
}

/// Adds to a failed call where it failed.
fn at(node: &NodeId, shard: ShardId, mut error: Error) -> Error {
    error.message = format!("shard {} on node {node}: {}", shard.index, error.message);
    error
}
