//! One replica's data: its log, its documents in memory, its segments on disk.
//!
//! A write becomes records of the [`log`]; when they are durable they are applied to the [`documents`]. A
//! [`checkpoint`] writes the documents' rows to immutable [`segment`] files under a versioned [`manifest`], and the log
//! before it goes. [`Store`] is all of that for one replica.
//!
//! Everything here blocks and has one owner; readers get immutable [`Snapshot`]s. Knows a
//! [`Disk`](crate::runtime::disk::Disk) and vectors, but no cluster, no network and no clock.

pub mod checkpoint;
pub mod commit;
pub mod data_dir;
pub mod documents;
pub mod effect;
pub mod error;
pub mod log;
pub mod manifest;
mod merge_plan;
pub mod op_window;
mod opening;
pub mod reigns;
pub mod replica_meta;
pub mod segment;
pub mod snapshot;
pub mod store;
mod whole_file;

pub use commit::{Batch, Operation, Refusal};
pub use error::StorageError;
pub use op_window::Receipt;
pub use replica_meta::{ReplicaIdentity, ReplicaMeta};
pub use snapshot::Snapshot;
pub use store::{OpenReport, Store, StorePlace, StoreReader, StoreStatistics};

#[cfg(test)]
mod checkpoint_tests;
#[cfg(test)]
mod model_tests;
