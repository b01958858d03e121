//! What every layer runs on: tasks, clocks, disks, the network, threads for what blocks and computes.

pub mod acceptor;
mod background;
mod blocking;
pub mod clock;
mod compute_pool;
pub mod disk;
mod machine_memory;
pub mod network;
mod readiness;
pub(crate) mod sync;
mod task_group;

pub use background::in_background;
pub use blocking::{simulate_threads, spawn_blocking};
pub use compute_pool::{ComputePool, PoolError};
pub use machine_memory::machine_memory;
pub use readiness::{Conditions, Readiness};
pub use task_group::TaskGroup;
