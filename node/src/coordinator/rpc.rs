//! Table changes and the catalog as services of other nodes.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tonic::{Request, Response, Status};
use vectorsphere_proto::internal as proto;
use vectorsphere_proto::internal::catalog_service_server::CatalogService;
use vectorsphere_proto::internal::coordinator_service_server::CoordinatorService;

use super::Coordinator;
use crate::cluster::ServiceDiscovery;
use crate::comm::convert::to_status;
use crate::comm::{CommunicationService, grpc_timeout};
use crate::error_code::{Error, ErrorCode};
use crate::ids::{NodeId, Revision, TableId, TableName};
use crate::table::TableSchema;

/// Deadline of a call that carries none.
const DEADLINE: Duration = Duration::from_secs(30);

/// Answers gateways that forward a table change.
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

fn table_id(text: &str) -> Result<TableId, Status> {
    TableId::parse(text).ok_or_else(|| to_status(&Error::invalid("/table_id", "must be a UUID")))
}

/// When the caller gives up, a little earlier, so that it gets an answer.
fn deadline<T>(request: &Request<T>) -> Instant {
    let timeout = request.metadata().get("grpc-timeout").and_then(|value| grpc_timeout(value.to_str().ok()?));
    Instant::now() + timeout.unwrap_or(DEADLINE) * 95 / 100
}
