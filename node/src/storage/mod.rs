//! One replica's data: its log, its documents in memory, its segments on disk.
//!
//! A write becomes records of the [`log`]. When they are durable here and on the other replicas, they are applied to the
//! [`documents`]; until then they are pending and may be cut. A [`checkpoint`] writes the documents' rows to
//! immutable [`segment`] files under a versioned [`manifest`], and the log before it goes. [`Store`] is all of that for
//! one replica.
//!
//! Everything here blocks and has one owner; readers get immutable [`Snapshot`]s. Knows a
//! [`Disk`](crate::runtime::disk::Disk) and vectors, but no cluster, no network and no clock.

mod applied;
pub mod checkpoint;
pub mod data_dir;
pub mod digest;
pub mod documents;
pub mod effect;
pub mod error;
pub mod indexing;
pub mod log;
pub mod manifest;
mod merge_plan;
pub mod op_window;
mod opening;
mod pending;
mod receive;
pub mod reigns;
pub mod replica_meta;
pub mod segment;
pub mod snapshot;
pub mod stage;
pub mod store;
pub mod transfer;
mod whole_file;

pub use digest::Digest;
pub use error::StorageError;
pub use log::{LogRead, LogReader, Record, RecordKind};
pub use op_window::Receipt;
pub use reigns::{Reign, Reigns};
pub use replica_meta::{Membership, ReplicaIdentity, ReplicaMeta};
pub use snapshot::Snapshot;
pub use stage::{Batch, Operation, Refusal, Staged, Verdict};
pub use store::{OpenReport, Positions, Store, StorePlace, StoreReader, StoreStatistics};
pub use transfer::{PinnedCheckpoint, SnapshotDescription, SnapshotWriter};

#[cfg(test)]
mod model_tests;
#[cfg(test)]
mod tests;
