//! `/api/v1/cluster`.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use serde::Serialize;
use utoipa::ToSchema;

use super::super::ApiGateway;
use super::super::health::{cluster_health, load_of, role_of};
use super::answers::Totals;
use super::request::Context;
use crate::cluster::view::{ClusterView, Node};

/// The cluster as this node sees it.
#[derive(Serialize, ToSchema)]
#[schema(as = ClusterStatus)]
pub(super) struct StatusBody {
    service_name: String,
    /// The cluster's identity.
    cluster_uid: String,
    /// green: every shard has all its copies; yellow: one lacks a copy, or there is no Master, or the metadata store is away;
    /// red: a shard is not served.
    status: &'static str,
    /// The elected Master, or null.
    master: Option<MasterBody>,
    /// Live nodes.
    nodes: usize,
    tables: usize,
    shards: usize,
    unavailable_shards: usize,
    /// Shards with fewer copies in sync than their table asks for.
    under_replicated_shards: usize,
    /// Shards with fewer copies in sync than a write needs: they take none.
    shards_below_min_isr: usize,
    meta_store_reachable: bool,
}

#[derive(Serialize, ToSchema)]
#[schema(as = Master)]
struct MasterBody {
    node_id: String,
    /// Grows with each election.
    epoch: u64,
}

/// Live nodes.
#[derive(Serialize, ToSchema)]
#[schema(as = Nodes)]
pub(super) struct NodesBody {
    nodes: Vec<NodeBody>,
}

#[derive(Serialize, ToSchema)]
#[schema(as = Node)]
struct NodeBody {
    node_id: String,
    /// master, slave or auto.
    node_type: String,
    /// Master, candidate or slave.
    role: &'static str,
    /// True while it does not answer the probes of the node that answers this request: its shards count as unavailable.
    suspect: bool,
    version: String,
    zone: String,
    endpoints: Vec<EndpointBody>,
    /// Copies of shards on this node.
    shards: usize,
    /// Those of them that are primaries.
    primaries: usize,
    /// Those of them that are not in sync.
    out_of_sync_shards: usize,
    /// True while it is to be emptied.
    draining: bool,
    capacity_bytes: u64,
}

#[derive(Serialize, ToSchema)]
#[schema(as = Endpoint)]
struct EndpointBody {
    /// http, grpc or internal.
    kind: String,
    scheme: String,
    host: String,
    port: u16,
}

/// Counts and sizes of all tables.
#[derive(Serialize, ToSchema)]
#[schema(as = ClusterStatistics)]
pub(super) struct StatisticsBody {
    nodes: usize,
    tables: usize,
    shards: u64,
    #[serde(flatten)]
    totals: Totals,
}

/// How the cluster is.
#[utoipa::path(get, path = "/api/v1/cluster/status", tag = "cluster", responses((status = 200, body = StatusBody)))]
pub(super) async fn status(State(gateway): State<ApiGateway>) -> Json<StatusBody> {
    let view = gateway.view();
    let reachable = gateway.parts().discovery.is_reachable();
    let health = cluster_health(&view, reachable);
    let master = view.master.as_ref();
    Json(StatusBody {
        service_name: gateway.config().service_name.clone(),
        cluster_uid: view.cluster_uid.clone(),
        status: health.status,
        master: master.map(|m| MasterBody { node_id: m.node.to_string(), epoch: m.epoch.0 }),
        nodes: view.nodes.len(),
        tables: view.tables.len(),
        shards: health.shards,
        unavailable_shards: health.unavailable,
        under_replicated_shards: health.under_replicated,
        shards_below_min_isr: health.below_min_isr,
        meta_store_reachable: reachable,
    })
}

/// The live nodes.
#[utoipa::path(get, path = "/api/v1/cluster/nodes", tag = "cluster", responses((status = 200, body = NodesBody)))]
pub(super) async fn nodes(State(gateway): State<ApiGateway>) -> Json<NodesBody> {
    let view = gateway.view();
    let body = |node: &Arc<Node>| node_body(&gateway, &view, node);
    Json(NodesBody { nodes: view.nodes.values().map(body).collect() })
}

fn node_body(gateway: &ApiGateway, view: &ClusterView, node: &Node) -> NodeBody {
    let load = load_of(view, &node.id);
    NodeBody {
        node_id: node.id.to_string(),
        node_type: node.node_type.clone(),
        role: role_of(view, node),
        suspect: gateway.router().is_suspect(node),
        version: node.version.clone(),
        zone: node.zone.clone(),
        endpoints: node
            .endpoints
            .iter()
            .map(|endpoint| EndpointBody {
                kind: endpoint.kind.clone(),
                scheme: endpoint.scheme.clone(),
                host: endpoint.host.clone(),
                port: endpoint.port,
            })
            .collect(),
        shards: load.shards,
        primaries: load.primaries,
        out_of_sync_shards: load.out_of_sync,
        draining: view.drains.contains_key(&node.id),
        capacity_bytes: node.capacity_bytes,
    }
}

/// Counts and sizes, gathered from all shards now.
#[utoipa::path(get, path = "/api/v1/cluster/stats", tag = "cluster", responses((status = 200, body = StatisticsBody)))]
pub(super) async fn statistics(
    State(gateway): State<ApiGateway>,
    Context(context): Context,
) -> Json<StatisticsBody> {
    let totals = gateway.router().cluster_totals(&context).await;
    let (view, shards) = (gateway.view(), totals.shards);
    let (nodes, tables) = (view.nodes.len(), view.tables.len());
    Json(StatisticsBody { nodes, tables, shards, totals: totals.into() })
}
