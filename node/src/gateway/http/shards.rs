//! `/api/v1/tables/{table}/shards`.

use axum::Json;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use utoipa::{OpenApi, ToSchema};

use super::super::{ApiGateway, admin, json};
use super::problem::{Problem, ProblemBody};
use super::request::{Context, Names, json_body, json_body_or_empty, names};
use crate::error_code::{Error, ErrorCode};
use crate::ids::ShardId;
use crate::recovery::{ForcedPrimary, OtherCopy};
use crate::router::{CopyDescription, CopyStatus, RequestContext, ShardDescription};
use crate::table::Table;

/// The path of what can be done with one shard: the router knows no names with a word behind them.
pub(super) const ACTIONS: &str = "/api/v1/tables/{table}/shards/{action}";

/// The calls behind [`ACTIONS`], for the description alone.
#[derive(OpenApi)]
#[openapi(paths(move_replica, hand_over, force_primary))]
pub(super) struct ActionsDescription;

/// The shards of a table.
#[derive(Serialize, ToSchema)]
#[schema(as = Shards)]
pub(super) struct ShardsBody {
    /// Ascending.
    shards: Vec<ShardBody>,
}

#[derive(Serialize, ToSchema)]
#[schema(as = Shard)]
struct ShardBody {
    shard: u32,
    /// Grows with each change of primary.
    epoch: u64,
    /// Grows with each forced recovery: session tokens of earlier ones are refused.
    incarnation: u64,
    /// The primary, or null.
    primary: Option<PrimaryBody>,
    /// Copies in sync that a write needs.
    min_isr: u32,
    /// The copies that hold every acknowledged write.
    isr: Vec<String>,
    /// All copies, those that leave too.
    replicas: Vec<ReplicaBody>,
}

#[derive(Serialize, ToSchema)]
#[schema(as = Primary)]
struct PrimaryBody {
    replica_id: String,
    node_id: Option<String>,
}

#[derive(Serialize, ToSchema)]
#[schema(as = Replica)]
struct ReplicaBody {
    replica_id: String,
    node_id: String,
    /// Missing while the node is away.
    #[serde(skip_serializing_if = "Option::is_none")]
    zone: Option<String>,
    /// full, learner or leaving.
    role: &'static str,
    /// Its data is missing or cannot be read.
    damaged: bool,
    in_sync: bool,
    /// The copy that leaves when this one is in sync.
    #[serde(skip_serializing_if = "Option::is_none")]
    replaces: Option<String>,
    #[serde(flatten)]
    status: Option<ReplicaStatusBody>,
}

/// What the node of a copy says; all of it is missing when the node says nothing.
#[derive(Serialize, ToSchema)]
#[schema(as = ReplicaStatus)]
struct ReplicaStatusBody {
    /// Last durable record.
    flushed_lsn: u64,
    /// Last record that reads can see.
    applied_lsn: u64,
    /// Records behind the primary; missing when the primary says nothing.
    #[serde(skip_serializing_if = "Option::is_none")]
    lag_records: Option<u64>,
    /// Digest of the content: equal at equal positions.
    #[serde(skip_serializing_if = "Option::is_none")]
    digest: Option<DigestBody>,
    /// Why it takes no part any more.
    #[serde(skip_serializing_if = "Option::is_none")]
    failure: Option<String>,
}

#[derive(Serialize, ToSchema)]
#[schema(as = Digest)]
struct DigestBody {
    lsn: u64,
    /// Hexadecimal.
    content: String,
}

#[derive(Deserialize, ToSchema)]
#[schema(as = MoveReplica, example = json!({"from": "slave-1", "to": "slave-3"}))]
#[expect(dead_code, reason = "describes what the parser in `json` reads")]
struct MoveBody {
    /// The node that the copy is on.
    from: String,
    /// The node that it goes to.
    to: String,
}

/// A move has begun.
#[derive(Serialize, ToSchema)]
#[schema(as = MovedReplica)]
struct MovedBody {
    /// The new copy.
    replica_id: String,
}

#[derive(Deserialize, ToSchema)]
#[schema(as = HandOverShard, example = json!({"to": "slave-3"}))]
#[expect(dead_code, reason = "describes what the parser in `json` reads")]
struct HandOverBody {
    /// The node of the new primary; default: the old one chooses.
    to: Option<String>,
}

/// The new primary.
#[derive(Serialize, ToSchema)]
#[schema(as = NewPrimary)]
struct NewPrimaryBody {
    node_id: String,
    epoch: u64,
}

#[derive(Deserialize, ToSchema)]
#[schema(as = ForcePrimary, example = json!({"node": "slave-3", "confirmation": "my_vectors/0"}))]
#[expect(dead_code, reason = "describes what the parser in `json` reads")]
struct ForceBody {
    /// The node whose copy the shard goes on from.
    node: String,
    /// `<table>/<shard>`, typed by a person.
    confirmation: String,
}

/// What is lost, as far as the other copies can say.
#[derive(Serialize, ToSchema)]
#[schema(as = LossReport)]
struct LossBody {
    epoch: u64,
    incarnation: u64,
    /// Last record of the copy that the shard goes on from.
    last_lsn: u64,
    others: Vec<OtherCopyBody>,
}

#[derive(Serialize, ToSchema)]
#[schema(as = OtherCopy)]
struct OtherCopyBody {
    replica_id: String,
    node_id: String,
    /// False: what it has is not known.
    reachable: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    last_lsn: Option<u64>,
    /// Records that only it has.
    #[serde(skip_serializing_if = "Option::is_none")]
    lost_records: Option<u64>,
}

/// The shards of a table and where each copy of them stands.
#[utoipa::path(get, path = "/api/v1/tables/{table}/shards", tag = "tables",
    params(("table" = String, Path, description = "name of the table")),
    responses((status = 200, body = ShardsBody), (status = 404, body = ProblemBody<'_>)))]
pub(super) async fn list_shards(
    State(gateway): State<ApiGateway>,
    Context(context): Context,
    table: Names<String>,
) -> Result<Json<ShardsBody>, Problem> {
    let table = gateway.table(&names(table)?)?;
    let shards = gateway.router().shards(&context, &table).await;
    Ok(Json(ShardsBody { shards: shards.iter().map(ShardBody::from).collect() }))
}

/// One of the calls below, by the word behind the shard's number.
pub(super) async fn act(
    State(gateway): State<ApiGateway>,
    Context(context): Context,
    path: Names<(String, String)>,
    request: Request,
) -> Result<Response, Problem> {
    let (table, action) = names(path)?;
    let (shard, verb) = action.split_once(':').unwrap_or((&action, ""));
    if !["move", "handover", "force-primary"].contains(&verb) {
        let message = "there is no such path; a shard can be moved with :move, :handover and :force-primary";
        return Err(Error::new(ErrorCode::RouteNotFound, message).into());
    }
    let table = gateway.table(&table)?;
    let number = shard.parse().map_err(|_| Error::invalid("/shard", "the shard must be a whole number"))?;
    let call = Call { shard: admin::shard(&table, number)?, table: &table, gateway: &gateway, context };
    match verb {
        "move" => move_replica(call, request).await,
        "handover" => hand_over(call, request).await,
        _ => force_primary(call, request).await,
    }
}

/// A call for one shard.
struct Call<'c> {
    gateway: &'c ApiGateway,
    context: RequestContext,
    table: &'c Table,
    shard: ShardId,
}

/// Begins to move a copy of a shard to another node; the list of shards tells when it is there.
#[utoipa::path(post, path = "/api/v1/tables/{table}/shards/{shard}:move", tag = "tables", request_body = MoveBody,
    params(("table" = String, Path, description = "name of the table"), ("shard" = u32, Path, description = "its number")),
    responses((status = 200, body = MovedBody), (status = 400, body = ProblemBody<'_>),
        (status = 404, body = ProblemBody<'_>), (status = 503, body = ProblemBody<'_>)))]
async fn move_replica(call: Call<'_>, request: Request) -> Result<Response, Problem> {
    let (parts, body) = request.into_parts();
    let (from, to) = admin::move_between(&json::move_replica(&json_body(&parts, body).await?)?)?;
    let router = call.gateway.router();
    let replica = router.move_replica(&call.context, call.shard, &from, &to).await?;
    Ok(Json(MovedBody { replica_id: replica.to_string() }).into_response())
}

/// Makes another in-sync copy the primary; answers when it is.
#[utoipa::path(post, path = "/api/v1/tables/{table}/shards/{shard}:handover", tag = "tables", request_body = Option<HandOverBody>,
    params(("table" = String, Path, description = "name of the table"), ("shard" = u32, Path, description = "its number")),
    responses((status = 200, body = NewPrimaryBody), (status = 400, body = ProblemBody<'_>),
        (status = 404, body = ProblemBody<'_>), (status = 503, body = ProblemBody<'_>)))]
async fn hand_over(call: Call<'_>, request: Request) -> Result<Response, Problem> {
    let (parts, body) = request.into_parts();
    let to = admin::hand_over(&json::hand_over(&json_body_or_empty(&parts, body).await?)?)?;
    let router = call.gateway.router();
    let (epoch, node) = router.hand_over_shard(&call.context, call.shard, to.as_ref()).await?;
    Ok(Json(NewPrimaryBody { node_id: node.to_string(), epoch: epoch.0 }).into_response())
}

/// Lets a shard go on from a copy that may lack acknowledged writes: the last resort when the others are lost.
#[utoipa::path(post, path = "/api/v1/tables/{table}/shards/{shard}:force-primary", tag = "tables", request_body = ForceBody,
    params(("table" = String, Path, description = "name of the table"), ("shard" = u32, Path, description = "its number")),
    responses((status = 200, body = LossBody), (status = 400, body = ProblemBody<'_>),
        (status = 404, body = ProblemBody<'_>), (status = 503, body = ProblemBody<'_>)))]
async fn force_primary(call: Call<'_>, request: Request) -> Result<Response, Problem> {
    let (parts, body) = request.into_parts();
    let draft = json::force_primary(&json_body(&parts, body).await?)?;
    let node = admin::force(&draft, call.table, call.shard)?;
    let router = call.gateway.router();
    let forced = router.force_primary(&call.context, call.shard, &node, &draft.confirmation).await?;
    Ok(Json(LossBody::from(&forced)).into_response())
}

impl From<&ShardDescription> for ShardBody {
    fn from(shard: &ShardDescription) -> ShardBody {
        let primary = |primary: crate::ids::ReplicaId| PrimaryBody {
            replica_id: primary.to_string(),
            node_id: shard.primary_node().map(ToString::to_string),
        };
        let in_sync = shard.copies.iter().filter(|copy| copy.in_sync);
        ShardBody {
            shard: shard.shard.0,
            epoch: shard.epoch.0,
            incarnation: shard.incarnation,
            primary: shard.primary.map(primary),
            min_isr: shard.min_isr,
            isr: in_sync.map(|copy| copy.replica.to_string()).collect(),
            replicas: shard.copies.iter().map(ReplicaBody::from).collect(),
        }
    }
}

impl From<&CopyDescription> for ReplicaBody {
    fn from(copy: &CopyDescription) -> ReplicaBody {
        let CopyDescription { replica, node, zone, role, damaged, in_sync, replaces, status } = copy;
        ReplicaBody {
            replica_id: replica.to_string(),
            node_id: node.to_string(),
            zone: zone.clone(),
            role: role.as_str(),
            damaged: *damaged,
            in_sync: *in_sync,
            replaces: replaces.as_ref().map(ToString::to_string),
            status: status.as_ref().map(ReplicaStatusBody::from),
        }
    }
}

impl From<&CopyStatus> for ReplicaStatusBody {
    fn from(status: &CopyStatus) -> ReplicaStatusBody {
        let digest = |(lsn, content): (crate::ids::Lsn, String)| DigestBody { lsn: lsn.0, content };
        ReplicaStatusBody {
            flushed_lsn: status.flushed.0,
            applied_lsn: status.applied.0,
            lag_records: status.lag_records,
            digest: status.digest_text().map(digest),
            failure: status.failure.clone(),
        }
    }
}

impl From<&ForcedPrimary> for LossBody {
    fn from(forced: &ForcedPrimary) -> LossBody {
        let other = |OtherCopy { replica, node, log }: &OtherCopy| OtherCopyBody {
            replica_id: replica.to_string(),
            node_id: node.to_string(),
            reachable: log.is_some(),
            last_lsn: log.map(|(last, _)| last.0),
            lost_records: log.map(|(_, lost)| lost),
        };
        LossBody {
            epoch: forced.epoch.0,
            incarnation: forced.incarnation,
            last_lsn: forced.last.0,
            others: forced.others.iter().map(other).collect(),
        }
    }
}
