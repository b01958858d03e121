//! `/api/v1/cluster/nodes/{node}/drain` and `/api/v1/cluster/master:handover`.

use axum::Json;
use axum::extract::{Request, State};
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::super::admin::{self, DrainStatus};
use super::super::{ApiGateway, json};
use super::problem::{Problem, ProblemBody};
use super::request::{Context, Names, json_body_or_empty, names};
use crate::error_code::Error;
use crate::ids::NodeId;

/// How to empty a node.
#[derive(Deserialize, ToSchema)]
#[schema(as = StartDrain, example = json!({"ttl_ms": 3600000, "reason": "new disks"}))]
#[expect(dead_code, reason = "describes what the parser in `json` reads")]
struct StartDrainBody {
    /// The drain ends by itself after this time, 1 to 2,592,000,000; default: never.
    ttl_ms: Option<u64>,
    /// At most 512 bytes.
    reason: Option<String>,
}

/// How far a node is emptied.
#[derive(Serialize, ToSchema)]
#[schema(as = DrainStatus)]
pub(super) struct DrainBody {
    node_id: String,
    draining: bool,
    /// Milliseconds since 1970.
    #[serde(skip_serializing_if = "Option::is_none")]
    requested_unix_ms: Option<u64>,
    /// Milliseconds since 1970; missing: it does not end by itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    expires_unix_ms: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
    /// Copies that have to move.
    replicas: usize,
    /// Those of them that are primaries.
    primaries: usize,
    /// Copies that have moved, whose data is not deleted yet.
    leaving: usize,
    /// Copies that cannot move at present.
    blocked: Vec<BlockedBody>,
    /// Nothing has to move any more: the node may go.
    done: bool,
}

#[derive(Serialize, ToSchema)]
#[schema(as = BlockedShard)]
struct BlockedBody {
    table_name: String,
    shard: u32,
    reason: String,
}

/// The new Master.
#[derive(Serialize, ToSchema)]
#[schema(as = NewMaster)]
pub(super) struct MasterBody {
    node_id: String,
    /// Grows with each election.
    epoch: u64,
}

/// How far a node is emptied, or would have to be.
#[utoipa::path(get, path = "/api/v1/cluster/nodes/{node}/drain", tag = "cluster",
    params(("node" = String, Path, description = "name of the node")),
    responses((status = 200, body = DrainBody), (status = 404, body = ProblemBody<'_>)))]
pub(super) async fn drain(
    State(gateway): State<ApiGateway>,
    node: Names<String>,
) -> Result<Json<DrainBody>, Problem> {
    let node = admin::node_id("/node", &names(node)?)?;
    Ok(Json(drain_body(&gateway, &node)?))
}

/// Begins to empty a node, or gives a drain that is under way a new time limit and reason.
#[utoipa::path(post, path = "/api/v1/cluster/nodes/{node}/drain", tag = "cluster", request_body = Option<StartDrainBody>,
    params(("node" = String, Path, description = "name of the node")),
    responses((status = 200, body = DrainBody), (status = 400, body = ProblemBody<'_>),
        (status = 404, body = ProblemBody<'_>), (status = 503, description = "no Master", body = ProblemBody<'_>)))]
pub(super) async fn start_drain(
    State(gateway): State<ApiGateway>,
    Context(context): Context,
    node: Names<String>,
    request: Request,
) -> Result<Json<DrainBody>, Problem> {
    let node = admin::node_id("/node", &names(node)?)?;
    let (parts, body) = request.into_parts();
    let (ttl, reason) = admin::drain(json::drain(&json_body_or_empty(&parts, body).await?)?)?;
    gateway.router().start_drain(&context, &node, ttl, reason).await?;
    Ok(Json(drain_body(&gateway, &node)?))
}

/// Ends a drain. What has moved stays where it is until the Master spreads copies evenly again. A node that is not drained is no error.
#[utoipa::path(delete, path = "/api/v1/cluster/nodes/{node}/drain", tag = "cluster",
    params(("node" = String, Path, description = "name of the node")),
    responses((status = 204, description = "ended"), (status = 503, description = "no Master", body = ProblemBody<'_>)))]
pub(super) async fn cancel_drain(
    State(gateway): State<ApiGateway>,
    Context(context): Context,
    node: Names<String>,
) -> Result<StatusCode, Problem> {
    let node = admin::node_id("/node", &names(node)?)?;
    gateway.router().cancel_drain(&context, &node).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Lets another node become Master; answers when it is.
#[utoipa::path(post, path = "/api/v1/cluster/master:handover", tag = "cluster",
    responses((status = 200, body = MasterBody),
        (status = 503, description = "no Master, or nobody else stands for election", body = ProblemBody<'_>)))]
pub(super) async fn hand_over_master(
    State(gateway): State<ApiGateway>,
    Context(context): Context,
) -> Result<Json<MasterBody>, Problem> {
    let master = gateway.router().hand_over_mastership(&context).await?;
    Ok(Json(MasterBody { node_id: master.node.to_string(), epoch: master.epoch.0 }))
}

fn drain_body(gateway: &ApiGateway, node: &NodeId) -> Result<DrainBody, Error> {
    let (view, DrainStatus { drain, progress }) = (gateway.view(), gateway.drain_status(node)?);
    let done = progress.is_done();
    let blocked = progress.blocked.into_iter().map(|(shard, reason)| BlockedBody {
        table_name: admin::table_name_of(&view, shard),
        shard: shard.index.0,
        reason,
    });
    Ok(DrainBody {
        node_id: node.to_string(),
        draining: drain.is_some(),
        requested_unix_ms: drain.as_ref().map(|drain| drain.requested_unix_ms),
        expires_unix_ms: drain.as_ref().and_then(|drain| drain.expires_unix_ms),
        reason: drain.map(|drain| drain.reason),
        replicas: progress.replicas,
        primaries: progress.primaries,
        leaving: progress.leaving,
        blocked: blocked.collect(),
        done,
    })
}
