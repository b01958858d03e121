//! One replica's data: its log, its documents in memory, its segments on disk.
//!
//! Everything here blocks and has one owner; what readers need is handed out as immutable snapshots. Knows a
//! [`Disk`](crate::runtime::disk::Disk) and vectors, but no cluster, no network and no clock.

pub mod error;
pub mod log;

pub use error::StorageError;
