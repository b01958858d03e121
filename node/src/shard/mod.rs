//! The shards of this node: [`IndexService`] opens a [`Replica`] for each shard that the cluster placed here.
//!
//! Each replica has one owner task, which alone writes; requests reach it through a bounded mailbox. Reads and searches
//! never pass the mailbox: they take the newest immutable snapshot. Knows the metadata store and the storage, but no
//! routes and no formats of the public API.

mod answers;
mod catch_up;
mod checkpointing;
pub(crate) mod configuration;
pub(crate) mod decide;
mod describing;

pub mod disk_stage;
mod effects;
mod fetch;
pub mod index_service;
mod indexing;
mod memory;

mod keeper;
mod links;
mod marks;
pub mod metrics;
mod owner;
mod pace;
mod parse;

mod records;
pub mod replica;
pub mod replication_rpc;
pub mod rpc;
pub mod search;
pub mod segment_indexes;
mod slot;
mod slow_disk;
pub mod snapshot_filter;
mod step;

mod turn;
mod wire;
mod write_room;

pub use disk_stage::{DiskStage, DiskThresholds};
pub use index_service::{IndexService, IndexServiceParts, ShardSettings};
pub use memory::{MemoryLedger, NodeMemory};
pub use metrics::ShardMetrics;
pub use replica::{ReadRule, Replica};
pub use replication_rpc::ReplicationRpc;

#[cfg(test)]
mod group_commit;
#[cfg(test)]
mod interleavings;
#[cfg(test)]
mod limit_tests;
#[cfg(test)]
mod tests;
