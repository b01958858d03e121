//! What the Master decides, and the catalog, as services of other nodes.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tonic::{Request, Response, Status};
use vectorsphere_proto::internal as proto;
use vectorsphere_proto::internal::catalog_service_server::CatalogService;
use vectorsphere_proto::internal::coordinator_service_server::CoordinatorService;
use vectorsphere_proto::meta;

use super::Coordinator;
use crate::cluster::ServiceDiscovery;
use crate::cluster::view::Master;
use crate::comm::convert::to_status;
use crate::comm::{CommunicationService, grpc_timeout};
use crate::error_code::{Error, ErrorCode};
use crate::filter::KeyPath;
use crate::filter::index::FieldKind;
use crate::ids::{NodeId, Revision, ShardId, ShardIndex, TableId, TableName};
use crate::recovery::OtherCopy;
use crate::table::TableSchema;

/// Deadline of a call that carries none.
const DEADLINE: Duration = Duration::from_secs(30);

/// Answers gateways that forward a change.
pub struct CoordinatorRpc(pub Arc<Coordinator>);

/// Answers the Master's broadcast, and its questions about other nodes.
pub struct CatalogRpc {
    /// This node's view.
    pub discovery: Arc<ServiceDiscovery>,
    /// The way to other nodes.
    pub comm: Arc<CommunicationService>,
}

#[tonic::async_trait]
impl CoordinatorService for CoordinatorRpc {
    async fn create_table(
        &self,
        request: Request<proto::CreateTableRequest>,
    ) -> Result<Response<proto::CreateTableResponse>, Status> {
        let deadline = deadline(&request);
        let record = request.into_inner().table.unwrap_or_default();
        let schema = TableSchema::from_record(&record).map_err(|why| to_status(&Error::invalid("", why)))?;
        let id = table_id(&record.table_id)?;
        let table = self.0.create_table(id, schema, deadline).await.map_err(|error| to_status(&error))?;
        Ok(Response::new(proto::CreateTableResponse { table: Some(table.to_record()) }))
    }

    async fn delete_table(
        &self,
        request: Request<proto::DeleteTableRequest>,
    ) -> Result<Response<proto::DeleteTableResponse>, Status> {
        let deadline = deadline(&request);
        let request = request.into_inner();
        let name = TableName::parse(&request.name)
            .map_err(|error| to_status(&Error::invalid("/name", error.to_string())))?;
        let id = match request.table_id.as_str() {
            "" => None,
            id => Some(table_id(id)?),
        };
        self.0.delete_table(&name, id, deadline).await.map_err(|error| to_status(&error))?;
        Ok(Response::new(proto::DeleteTableResponse {}))
    }

    async fn set_metadata_index(
        &self,
        request: Request<proto::SetMetadataIndexRequest>,
    ) -> Result<Response<proto::SetMetadataIndexResponse>, Status> {
        let deadline = deadline(&request);
        let proto::SetMetadataIndexRequest { table_id: table, index } = request.into_inner();
        let index = index.unwrap_or_default();
        let broken = |pointer: &str, why: String| to_status(&Error::invalid(pointer, why));
        let field = KeyPath::parse(&index.field).map_err(|why| broken("/index/field", why))?;
        let kind = match index.r#type.as_str() {
            "" => None,
            word => Some(
                FieldKind::parse(word)
                    .ok_or_else(|| broken("/index/type", format!("type {word:?} is not known")))?,
            ),
        };
        let table = answered(self.0.set_metadata_index(table_id(&table)?, &field, kind, deadline)).await?;
        Ok(Response::new(proto::SetMetadataIndexResponse { table: Some(table.to_record()) }))
    }

    async fn start_drain(
        &self,
        request: Request<proto::StartDrainRequest>,
    ) -> Result<Response<proto::StartDrainResponse>, Status> {
        let deadline = deadline(&request);
        let proto::StartDrainRequest { node_id: node, ttl_ms, reason } = request.into_inner();
        let ttl = (ttl_ms > 0).then_some(Duration::from_millis(ttl_ms));
        let node = node_id("/node_id", &node)?;
        let started = answered(self.0.start_drain(&node, ttl, reason, deadline)).await?;
        let meta::DrainRecord { requested_unix_ms, expires_unix_ms, .. } = started;
        Ok(Response::new(proto::StartDrainResponse { requested_unix_ms, expires_unix_ms }))
    }

    async fn cancel_drain(
        &self,
        request: Request<proto::CancelDrainRequest>,
    ) -> Result<Response<proto::CancelDrainResponse>, Status> {
        let deadline = deadline(&request);
        let node = node_id("/node_id", &request.into_inner().node_id)?;
        answered(self.0.cancel_drain(&node, deadline)).await?;
        Ok(Response::new(proto::CancelDrainResponse {}))
    }

    async fn move_replica(
        &self,
        request: Request<proto::MoveReplicaRequest>,
    ) -> Result<Response<proto::MoveReplicaResponse>, Status> {
        let proto::MoveReplicaRequest { table_id: table, shard, from_node, to_node } = request.into_inner();
        let shard = ShardId { table: table_id(&table)?, index: ShardIndex(shard) };
        let (from, to) = (node_id("/from_node", &from_node)?, node_id("/to_node", &to_node)?);
        let replica = answered(self.0.move_replica(shard, &from, &to)).await?;
        Ok(Response::new(proto::MoveReplicaResponse { replica_id: replica.0.to_vec().into() }))
    }

    async fn hand_over_shard(
        &self,
        request: Request<proto::HandOverShardRequest>,
    ) -> Result<Response<proto::HandOverShardResponse>, Status> {
        let deadline = deadline(&request);
        let proto::HandOverShardRequest { table_id: table, shard, to_node } = request.into_inner();
        let shard = ShardId { table: table_id(&table)?, index: ShardIndex(shard) };
        let to = (!to_node.is_empty()).then(|| node_id("/to_node", &to_node)).transpose()?;
        let (epoch, node) = answered(self.0.hand_over_shard(shard, to.as_ref(), deadline)).await?;
        Ok(Response::new(proto::HandOverShardResponse { epoch: epoch.0, node_id: node.to_string() }))
    }

    async fn hand_over_mastership(
        &self,
        request: Request<proto::HandOverMastershipRequest>,
    ) -> Result<Response<proto::HandOverMastershipResponse>, Status> {
        let Master { node, epoch } = answered(self.0.hand_over_mastership(deadline(&request))).await?;
        let answer = proto::HandOverMastershipResponse { node_id: node.to_string(), epoch: epoch.0 };
        Ok(Response::new(answer))
    }

    async fn force_primary(
        &self,
        request: Request<proto::ForcePrimaryRequest>,
    ) -> Result<Response<proto::ForcePrimaryResponse>, Status> {
        let deadline = deadline(&request);
        let request = request.into_inner();
        let shard = ShardId { table: table_id(&request.table_id)?, index: ShardIndex(request.shard) };
        let node = node_id("/node_id", &request.node_id)?;
        let forced = answered(self.0.force_primary(shard, &node, &request.confirmation, deadline)).await?;
        let copy = |OtherCopy { replica, node, log }: OtherCopy| proto::CopyReport {
            replica_id: replica.0.to_vec().into(),
            node_id: node.to_string(),
            reachable: log.is_some(),
            last_lsn: log.map_or(0, |(last, _)| last.0),
            lost_records: log.map_or(0, |(_, lost)| lost),
        };
        Ok(Response::new(proto::ForcePrimaryResponse {
            epoch: forced.epoch.0,
            incarnation: forced.incarnation,
            last_lsn: forced.last.0,
            copies: forced.others.into_iter().map(copy).collect(),
        }))
    }
}

#[tonic::async_trait]
impl CatalogService for CatalogRpc {
    async fn await_revision(
        &self,
        request: Request<proto::AwaitRevisionRequest>,
    ) -> Result<Response<proto::AwaitRevisionResponse>, Status> {
        let deadline = deadline(&request);
        let revision = Revision(request.into_inner().revision);
        if self.discovery.await_revision(revision, deadline).await {
            let revision = self.discovery.view().revision.0;
            return Ok(Response::new(proto::AwaitRevisionResponse { revision }));
        }
        let error =
            Error::new(ErrorCode::DeadlineExceeded, format!("revision {revision} was not seen in time"));
        Err(to_status(&error))
    }

    async fn reaches(
        &self,
        request: Request<proto::ReachesRequest>,
    ) -> Result<Response<proto::ReachesResponse>, Status> {
        let node = NodeId::parse(&request.into_inner().node_id);
        let node = node.map_err(|error| to_status(&Error::invalid("/node_id", error.to_string())))?;
        let reached = self.comm.reaches(&node).await;
        Ok(Response::new(proto::ReachesResponse { reached }))
    }
}

/// The outcome of a call as another node reads it.
async fn answered<T>(call: impl Future<Output = Result<T, Error>>) -> Result<T, Status> {
    call.await.map_err(|error| to_status(&error))
}

fn node_id(pointer: &str, text: &str) -> Result<NodeId, Status> {
    NodeId::parse(text).map_err(|error| to_status(&Error::invalid(pointer, error.to_string())))
}

fn table_id(text: &str) -> Result<TableId, Status> {
    TableId::parse(text).ok_or_else(|| to_status(&Error::invalid("/table_id", "must be a UUID")))
}

/// When the caller gives up, a little earlier, so that it gets an answer.
fn deadline<T>(request: &Request<T>) -> Instant {
    let timeout = request.metadata().get("grpc-timeout").and_then(|value| grpc_timeout(value.to_str().ok()?));
    Instant::now() + timeout.unwrap_or(DEADLINE) * 95 / 100
}
