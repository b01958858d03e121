//! `ClusterService`.

use std::sync::Arc;

use tonic::{Request, Response, Status};
use vectorsphere_proto::v1 as proto;
use vectorsphere_proto::v1::cluster_service_server::ClusterService;

use super::super::ApiGateway;
use super::super::admin::{self, DrainDraft, DrainStatus};
use super::super::health::{cluster_health, load_of, role_of};
use super::Api;
use crate::cluster::view::Node;
use crate::error_code::Error;
use crate::ids::NodeId;

#[tonic::async_trait]
impl ClusterService for Api {
    async fn get_cluster_status(
        &self,
        request: Request<proto::GetClusterStatusRequest>,
    ) -> Result<Response<proto::ClusterStatus>, Status> {
        self.call("ClusterService/GetClusterStatus", request, async |gateway, _, _| {
            let view = gateway.view();
            let reachable = gateway.parts().discovery.is_reachable();
            let health = cluster_health(&view, reachable);
            let master = view.master.as_ref();
            Ok(proto::ClusterStatus {
                service_name: gateway.config().service_name.clone(),
                cluster_uid: view.cluster_uid.clone(),
                status: health.status.to_owned(),
                master_node_id: master.map(|master| master.node.to_string()).unwrap_or_default(),
                master_epoch: master.map_or(0, |master| master.epoch.0),
                nodes: view.nodes.len() as u32,
                tables: view.tables.len() as u32,
                shards: health.shards as u32,
                unavailable_shards: health.unavailable as u32,
                under_replicated_shards: health.under_replicated as u32,
                shards_below_min_isr: health.below_min_isr as u32,
                meta_store_reachable: reachable,
            })
        })
        .await
    }

    async fn get_cluster_statistics(
        &self,
        request: Request<proto::GetClusterStatisticsRequest>,
    ) -> Result<Response<proto::ClusterStatistics>, Status> {
        self.call("ClusterService/GetClusterStatistics", request, async |gateway, context, _| {
            let totals = gateway.router().cluster_totals(&context).await;
            let view = gateway.view();
            Ok(proto::ClusterStatistics {
                nodes: view.nodes.len() as u32,
                tables: view.tables.len() as u32,
                shards: totals.shards as u32,
                documents: totals.documents,
                deleted_rows: totals.deleted_rows,
                vector_bytes: totals.vector_bytes,
                index_bytes: totals.index_bytes,
                indexed_rows: totals.indexed_rows,
                disk_bytes: totals.disk_bytes,
                unavailable_shards: totals.unavailable_shards as u32,
            })
        })
        .await
    }

    async fn list_nodes(
        &self,
        request: Request<proto::ListNodesRequest>,
    ) -> Result<Response<proto::ListNodesResponse>, Status> {
        self.call("ClusterService/ListNodes", request, async |gateway, _, _| {
            let view = gateway.view();
            let body = |node: &Arc<Node>| {
                let load = load_of(&view, &node.id);
                proto::Node {
                    node_id: node.id.to_string(),
                    node_type: node.node_type.clone(),
                    role: role_of(&view, node).to_owned(),
                    version: node.version.clone(),
                    zone: node.zone.clone(),
                    endpoints: node
                        .endpoints
                        .iter()
                        .map(|endpoint| proto::Endpoint {
                            kind: endpoint.kind.clone(),
                            scheme: endpoint.scheme.clone(),
                            host: endpoint.host.clone(),
                            port: u32::from(endpoint.port),
                        })
                        .collect(),
                    shards: load.shards as u32,
                    primaries: load.primaries as u32,
                    out_of_sync_shards: load.out_of_sync as u32,
                    draining: view.drains.contains_key(&node.id),
                    capacity_bytes: node.capacity_bytes,
                    suspect: gateway.router().is_suspect(node),
                }
            };
            Ok(proto::ListNodesResponse { nodes: view.nodes.values().map(body).collect() })
        })
        .await
    }

    async fn start_drain(
        &self,
        request: Request<proto::StartDrainRequest>,
    ) -> Result<Response<proto::DrainStatus>, Status> {
        self.call("ClusterService/StartDrain", request, async |gateway, context, request| {
            let node = admin::node_id("/node_id", &request.node_id)?;
            let ttl_ms = (request.ttl_ms > 0).then_some(request.ttl_ms);
            let (ttl, reason) = admin::drain(DrainDraft { ttl_ms, reason: request.reason })?;
            gateway.router().start_drain(&context, &node, ttl, reason).await?;
            drain_status(gateway, &node)
        })
        .await
    }

    async fn get_drain(
        &self,
        request: Request<proto::GetDrainRequest>,
    ) -> Result<Response<proto::DrainStatus>, Status> {
        self.call("ClusterService/GetDrain", request, async |gateway, _, request| {
            drain_status(gateway, &admin::node_id("/node_id", &request.node_id)?)
        })
        .await
    }

    async fn cancel_drain(
        &self,
        request: Request<proto::CancelDrainRequest>,
    ) -> Result<Response<proto::CancelDrainResponse>, Status> {
        self.call("ClusterService/CancelDrain", request, async |gateway, context, request| {
            let node = admin::node_id("/node_id", &request.node_id)?;
            gateway.router().cancel_drain(&context, &node).await?;
            Ok(proto::CancelDrainResponse {})
        })
        .await
    }

    async fn hand_over_mastership(
        &self,
        request: Request<proto::HandOverMastershipRequest>,
    ) -> Result<Response<proto::HandOverMastershipResponse>, Status> {
        self.call("ClusterService/HandOverMastership", request, async |gateway, context, _| {
            let master = gateway.router().hand_over_mastership(&context).await?;
            let (node_id, epoch) = (master.node.to_string(), master.epoch.0);
            Ok(proto::HandOverMastershipResponse { node_id, epoch })
        })
        .await
    }
}

fn drain_status(gateway: &ApiGateway, node: &NodeId) -> Result<proto::DrainStatus, Error> {
    let (view, DrainStatus { drain, progress }) = (gateway.view(), gateway.drain_status(node)?);
    let blocked = progress.blocked.iter().map(|(shard, reason)| proto::BlockedShard {
        table_name: admin::table_name_of(&view, *shard),
        shard: shard.index.0,
        reason: reason.clone(),
    });
    Ok(proto::DrainStatus {
        node_id: node.to_string(),
        draining: drain.is_some(),
        requested_unix_ms: drain.as_ref().map_or(0, |drain| drain.requested_unix_ms),
        expires_unix_ms: drain.as_ref().and_then(|drain| drain.expires_unix_ms).unwrap_or(0),
        replicas: progress.replicas as u32,
        primaries: progress.primaries as u32,
        leaving: progress.leaving as u32,
        blocked: blocked.collect(),
        done: progress.is_done(),
        reason: drain.map(|drain| drain.reason).unwrap_or_default(),
    })
}
