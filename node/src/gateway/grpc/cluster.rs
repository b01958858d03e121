//! `ClusterService`.

use tonic::{Request, Response, Status};
use vectorsphere_proto::v1 as proto;
use vectorsphere_proto::v1::cluster_service_server::ClusterService;

use super::super::{cluster_health, role_of, shards_on};
use super::Api;

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
            let nodes = view.nodes.values().map(|node| proto::Node {
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
                shards: shards_on(&view, &node.id) as u32,
                capacity_bytes: node.capacity_bytes,
                suspect: gateway.router().is_suspect(node),
            });
            Ok(proto::ListNodesResponse { nodes: nodes.collect() })
        })
        .await
    }
}
