//! Configuration: `ConfigManager` loads, checks and reloads it; everything else receives values.

mod settings;

pub use settings::{
    AuthConfig, Config, EtcdConfig, LogFormat, MasterConfig, NodeType, RateLimitConfig, SlaveConfig,
};
