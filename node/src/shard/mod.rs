//! The shards of this node: [`IndexService`] opens a [`Replica`] for each shard that the cluster placed here.
//!
//! Each replica has one owner task, which alone writes; requests reach it through a bounded mailbox. Reads and searches
//! never pass the mailbox: they take the newest immutable snapshot. Knows the metadata store and the storage, but no
//! routes and no formats of the public API.

mod checkpointing;
mod decide;
pub mod disk_stage;
pub mod index_service;
mod keeper;
mod leadership;
pub mod metrics;
mod owner;
mod parse;
pub mod replica;
pub mod rpc;
pub mod search;
mod step;
mod write_room;

pub use disk_stage::{DiskStage, DiskThresholds};
pub use index_service::{IndexService, IndexServiceParts, ShardSettings};
pub use metrics::ShardMetrics;
pub use replica::Replica;

#[cfg(test)]
mod limit_tests;
#[cfg(test)]
mod tests;
