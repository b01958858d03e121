//! Logs and metrics. No global registry: several nodes live in one process.

mod logs;
mod metrics;

pub use logs::LogHandle;
pub use metrics::Metrics;
