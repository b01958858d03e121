//! The VectorSphere node: a distributed vector database.
//!
//! Modules stand in layers; each imports only what stands below it (`tests/layers.rs` checks it):
//!
//! | layer | modules |
//! |---|---|
//! | L8 | `simulation`, in tests only |
//! | L7 | [`app_launcher`] |
//! | L6 | [`gateway`] |
//! | L5 | [`router`], [`coordinator`] |
//! | L4 | [`shard`] |
//! | L3 | [`cluster`] (effects), [`comm`] |
//! | L2 | [`replication`], `cluster::{election, placement, view}` (pure) |
//! | L1 | [`storage`], the crate `vectorsphere-index` |
//! | L0 | [`ids`], [`error_code`], [`document`], [`filter`], [`table`], [`search`], [`recovery`], [`config`], [`telemetry`], [`runtime`] |

pub mod app_launcher;
pub mod cluster;
pub mod comm;
pub mod config;
pub mod coordinator;
pub mod document;
pub mod error_code;
pub mod filter;
#[cfg(any(test, fuzzing))]
#[doc(hidden)]
pub mod fuzzing;
pub mod gateway;
pub mod ids;
pub mod recovery;
pub mod replication;
pub mod router;
pub mod runtime;
pub mod search;
pub mod shard;
#[cfg(test)]
mod simulation;
pub mod storage;
pub mod table;
pub mod telemetry;
