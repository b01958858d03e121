//! Calls to other nodes: channels, deadlines, and errors that keep their meaning on the way.
//!
//! Knows nodes, not handlers: the services that answer stand above, in `shard` and `coordinator`.

mod communication_service;
pub mod convert;
mod deadline;
mod metrics;
mod suspicion;

pub use communication_service::{ChannelSettings, CommunicationService, MESSAGE_BYTES_MAX, ShardClient};
pub use deadline::grpc_timeout;
pub use metrics::CommMetrics;
