//! Skeleton of `comm`.

use tonic::transport::Channel;
use vectorsphere_proto::internal::coordinator_service_client::CoordinatorServiceClient;
use vectorsphere_proto::internal::shard_service_client::ShardServiceClient;

use crate::error_code::Error;
use crate::ids::NodeId;

/// Calls other nodes.
pub struct CommunicationService {}

impl CommunicationService {
    /// The shards on a node.
    pub fn shard_client(&self, node: &NodeId) -> Result<ShardServiceClient<Channel>, Error> {
        Err(Error::new(crate::error_code::ErrorCode::NotReady, format!("{node}")))
    }
    /// The Master's tables.
    pub fn coordinator_client(&self, node: &NodeId) -> Result<CoordinatorServiceClient<Channel>, Error> {
        Err(Error::new(crate::error_code::ErrorCode::NotReady, format!("{node}")))
    }
}

/// Conversions.
pub mod convert {
    use crate::error_code::{Error, ErrorCode};

    /// Status to error.
    pub fn from_status(status: tonic::Status) -> Error {
        Error::new(ErrorCode::Internal, status.message())
    }
}
