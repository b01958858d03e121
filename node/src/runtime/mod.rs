//! What every layer runs on: tasks, clocks, disks, threads for computing.

pub mod acceptor;
pub mod clock;
mod compute_pool;
pub mod disk;
mod readiness;
pub(crate) mod sync;
mod task_group;

pub use compute_pool::{ComputePool, PoolError};
pub use readiness::{Conditions, Readiness};
pub use task_group::TaskGroup;
