//! Configuration: `ConfigManager` loads, checks and reloads it; everything else receives values.

mod config_manager;
mod keys;
mod reader;
mod settings;
#[cfg(test)]
mod tests;

pub use config_manager::{ConfigManager, Overrides, Problem, Problems, Reload, Source};
pub use keys::reference;
pub use settings::{
    AuthConfig, Config, EtcdConfig, LogFormat, MasterConfig, NodeType, RateLimitConfig, SlaveConfig,
};
