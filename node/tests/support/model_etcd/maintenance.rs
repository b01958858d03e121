//! The service of maintenance: what version this is.

use etcd_client::proto::{
    PbAlarmRequest, PbAlarmResponse, PbDefragmentRequest, PbDefragmentResponse, PbDowngradeRequest,
    PbDowngradeResponse, PbHashKvRequest, PbHashKvResponse, PbHashRequest, PbHashResponse,
    PbMaintenanceService, PbMoveLeaderRequest, PbMoveLeaderResponse, PbSnapshotRequest, PbSnapshotResponse,
    PbStatusRequest, PbStatusResponse,
};
use futures::stream::BoxStream;
use tonic::{Request, Response, Status};

use super::{ModelEtcd, unimplemented};

/// One that the client knows no bugs of.
const VERSION: &str = "3.6.14";

/// Answers that there is no such call.
macro_rules! absent {
    ($($name:ident($request:ty) -> $response:ty),* $(,)?) => {
        #[tonic::async_trait]
        impl PbMaintenanceService for ModelEtcd {
            type SnapshotStream = BoxStream<'static, Result<PbSnapshotResponse, Status>>;

            async fn status(
                &self,
                _request: Request<PbStatusRequest>,
            ) -> Result<Response<PbStatusResponse>, Status> {
                self.call(|state| {
                    let version = VERSION.to_owned();
                    Ok(PbStatusResponse { header: state.header(), version, ..PbStatusResponse::default() })
                })
                .await
            }

            $(async fn $name(&self, _request: Request<$request>) -> Result<Response<$response>, Status> {
                Err(unimplemented(stringify!($name)))
            })*
        }
    };
}

absent!(
    alarm(PbAlarmRequest) -> PbAlarmResponse,
    defragment(PbDefragmentRequest) -> PbDefragmentResponse,
    hash(PbHashRequest) -> PbHashResponse,
    hash_kv(PbHashKvRequest) -> PbHashKvResponse,
    snapshot(PbSnapshotRequest) -> Self::SnapshotStream,
    move_leader(PbMoveLeaderRequest) -> PbMoveLeaderResponse,
    downgrade(PbDowngradeRequest) -> PbDowngradeResponse,
);
