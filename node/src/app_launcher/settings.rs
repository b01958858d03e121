//! What the parts of a node take from the configuration.

use crate::cluster::distributed_manager::ElectionSettings;
use crate::cluster::node_session::SessionSettings;
use crate::comm::ChannelSettings;
use crate::config::{Config, NodeType};

pub(super) fn channels(config: &Config) -> ChannelSettings {
    ChannelSettings {
        connections: config.grpc_max_connections,
        keepalive_time: config.grpc_keepalive_time,
        keepalive_timeout: config.grpc_keepalive_timeout,
    }
}

pub(super) fn election(config: &Config) -> ElectionSettings {
    ElectionSettings {
        session_ttl: config.master.session_ttl,
        election_timeout: config.master.election_timeout,
        retry_interval: config.master.retry_interval,
        max_retry_count: config.master.max_retry_count,
    }
}

pub(super) fn session(config: &Config) -> SessionSettings {
    SessionSettings {
        heartbeat: match config.node_type {
            NodeType::Slave => config.slave.heartbeat_interval,
            NodeType::Master | NodeType::Auto => config.heartbeat,
        },
        retry_interval: config.slave.register_retry_interval,
        retry_count: config.slave.register_retry_count,
    }
}
