//! What every layer runs on: tasks, clocks, threads for computing.

pub mod clock;
mod compute_pool;
mod task_group;

pub use compute_pool::{ComputePool, PoolError};
pub use task_group::TaskGroup;
