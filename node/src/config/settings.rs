//! The validated configuration. Each field says meaning, unit, default, range, and whether a reload changes it.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use secrecy::SecretString;

use crate::ids::NodeId;

/// A complete, checked configuration. Field names are the keys of the file, `.` for nesting.
#[derive(Clone, Debug)]
pub struct Config {
    /// Name of the cluster in the metadata store; default `vectorsphere`. Restart.
    pub service_name: String,
    /// What this node does; default `auto`. Restart.
    pub node_type: NodeType,
    /// Unique name of this node in its cluster; default: made once and kept under `data_dir`. Restart.
    pub node_id: Option<NodeId>,
    /// Address that the listeners bind; default `0.0.0.0`. Restart.
    pub bind_address: String,
    /// Host that other nodes and clients reach this node at; default: the host's name, or loopback when standalone.
    pub advertise_address: String,
    /// Zone of this node for placement; may be empty. Read again when its file changes.
    pub zone: String,
    /// File that holds the zone (a downward-API volume); wins over `zone` when it has content.
    pub zone_file: Option<PathBuf>,
    /// REST, probes, metrics; default 8080; 0 lets the system choose. Restart.
    pub http_port: u16,
    /// Public gRPC; default 9090. Restart.
    pub default_port: u16,
    /// Node to node gRPC; default 9091. Restart.
    pub internal_port: u16,
    /// Where data lives; default `./data`. Restart.
    pub data_dir: PathBuf,
    /// Deadline of a request when the caller gives none; default 30 s, 0.001 to 3600 s. Reload.
    pub task_timeout: Duration,
    /// Keep-alive interval of the node's session; default 2 s, at most a quarter of the session's TTL. Restart.
    pub heartbeat: Duration,
    /// A gateway's probe of every node; default 0.5 s. Reload.
    pub health_check_interval: Duration,
    /// Compute threads; 0: one per core; at most 1024. Restart.
    pub scheduler_worker_count: usize,
    /// Time that requests get to end after SIGTERM; default 30 s. Reload.
    pub shutdown_grace: Duration,
    /// Instruction set of the distance kernels: empty (best), or one that `Kernels::detect` lists. Restart.
    pub kernel_tier: String,
    /// Log level or filter directives; default `info`. Reload.
    pub log_level: String,
    /// Log format; default text on a terminal, JSON otherwise. Restart.
    pub log_format: LogFormat,
    /// Channels kept to each peer; default 10, 1 to 100. Restart.
    pub grpc_max_connections: usize,
    /// Interval of gRPC keep-alive pings; default 30 s. Restart.
    pub grpc_keepalive_time: Duration,
    /// Time a gRPC keep-alive ping may take; default 5 s. Restart.
    pub grpc_keepalive_timeout: Duration,
    /// Default shards of a new table; default 8. Reload.
    pub default_shards: u32,
    /// Default copies of each shard of a new table; default 2, 1 to 7. Reload.
    pub default_replicas: u32,
    /// After this time without its node a copy is made anew elsewhere; default 10 min. Reload.
    pub rereplicate_after: Duration,
    /// Primaries go on without etcd while all copies in sync, at least two, answer; default false. Restart.
    pub is_failsafe: bool,
    /// How long data of a copy that was moved away is kept; default 15 min. Restart.
    pub leaving_grace: Duration,
    /// How long a copy that left the in-sync set again stays out; default 30 s. Restart.
    pub readmission_pause: Duration,
    /// Bytes a second that a node sends to copies that are behind.
    pub catch_up_bytes_per_second: u64,
    /// Size of a shard's log that starts a checkpoint, in bytes; default 64 MiB. Reload.
    pub checkpoint_log_bytes: u64,
    /// Memory that shards may hold, in bytes; default 0: four fifths of what the process may have. Restart.
    pub memory_limit_bytes: u64,
    /// Memory for vectors that were read from disk, in bytes; default 256 MiB. Restart.
    pub row_cache_bytes: u64,
    /// Searches and writes that may be under way in this node at once; default 1024. Reload.
    pub max_concurrent_requests: usize,
    /// The metadata store.
    pub etcd: EtcdConfig,
    /// Mastership.
    pub master: MasterConfig,
    /// Registration of nodes.
    pub slave: SlaveConfig,
    /// Authentication of the public API.
    pub auth: AuthConfig,
    /// Rate limit of the public API.
    pub rate_limit: RateLimitConfig,
    /// Files that secrets were read from: a change of them is a change of the configuration.
    pub secret_files: Vec<PathBuf>,
    /// Values that count otherwise than they are written, for the log.
    pub notes: Vec<String>,
    /// Every key's text as it was read last, secrets as digests.
    pub effective: BTreeMap<String, String>,
}

/// What a node does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NodeType {
    /// Gateway and candidate for mastership, no vectors.
    Master,
    /// Shards.
    Slave,
    /// Both.
    Auto,
}

/// How log lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// Text on a terminal, JSON otherwise.
    Auto,
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// Connection to etcd. Without endpoints the node is standalone over the embedded store.
#[derive(Clone, Debug)]
pub struct EtcdConfig {
    /// `host:port` or URLs; default none. Restart.
    pub endpoints: Vec<String>,
    /// Prefix of all keys; default `/vectorsphere/<service_name>/`. Restart.
    pub prefix: Option<String>,
    /// User name; empty: none.
    pub username: String,
    /// Password, or the content of `password_file`.
    pub password: SecretString,
    /// CA bundle that etcd's certificate must come from.
    pub ca_file: Option<PathBuf>,
    /// Client certificate chain.
    pub cert_file: Option<PathBuf>,
    /// Client key.
    pub key_file: Option<PathBuf>,
    /// Time to connect; default 5 s. Restart.
    pub dial_timeout: Duration,
    /// Time of one request; default 10 s. Restart.
    pub request_timeout: Duration,
    /// Largest request, bytes; default 10 MiB. Restart.
    pub max_call_send_msg_size: usize,
    /// Largest answer, bytes; default 10 MiB. Restart.
    pub max_call_recv_msg_size: usize,
}

/// Mastership.
#[derive(Clone, Debug)]
pub struct MasterConfig {
    /// One campaign attempt; default 15 s. Reload.
    pub election_timeout: Duration,
    /// Lease of the Master; default 5 s, whole seconds, at least 2. Restart.
    pub session_ttl: Duration,
    /// Attempts after which the log level of a failing campaign rises; default 3. Reload.
    pub max_retry_count: u32,
    /// Pause between attempts; default 5 s. Reload.
    pub retry_interval: Duration,
}

/// Registration of nodes.
#[derive(Clone, Debug)]
pub struct SlaveConfig {
    /// Attempts after which the log level of a failing registration rises; default 3. Reload.
    pub register_retry_count: u32,
    /// Pause between attempts; default 5 s. Reload.
    pub register_retry_interval: Duration,
    /// Keep-alive interval on slaves, wins over `heartbeat`; default 2 s. Restart.
    pub heartbeat_interval: Duration,
}

/// Authentication of the public API.
#[derive(Clone, Debug)]
pub struct AuthConfig {
    /// Default false. Restart.
    pub enabled: bool,
    /// HS256 key, 32 bytes or more, or the content of `jwt_secret_file`.
    pub jwt_secret: SecretString,
    /// Longest life of a token (`exp − iat`); default 3600 s. Reload.
    pub token_expiry: Duration,
}

/// Rate limit of the public API, per caller (token subject, else client address).
#[derive(Clone, Debug)]
pub struct RateLimitConfig {
    /// Default false. Reload.
    pub enabled: bool,
    /// Sustained rate; default 100, 1 to 1,000,000. Reload.
    pub requests_per_second: u32,
    /// Burst; default 200, at least 1. Reload.
    pub burst_size: u32,
}

impl Config {
    /// This configuration, as far as a reload changes it in a running node; the rest as in `start`.
    pub(super) fn over(self, start: &Config) -> Config {
        Config {
            task_timeout: self.task_timeout,
            health_check_interval: self.health_check_interval,
            shutdown_grace: self.shutdown_grace,
            log_level: self.log_level,
            default_shards: self.default_shards,
            default_replicas: self.default_replicas,
            rereplicate_after: self.rereplicate_after,
            checkpoint_log_bytes: self.checkpoint_log_bytes,
            max_concurrent_requests: self.max_concurrent_requests,
            master: MasterConfig { session_ttl: start.master.session_ttl, ..self.master },
            slave: SlaveConfig { heartbeat_interval: start.slave.heartbeat_interval, ..self.slave },
            auth: AuthConfig { token_expiry: self.auth.token_expiry, ..start.auth.clone() },
            rate_limit: self.rate_limit,
            secret_files: self.secret_files,
            notes: self.notes,
            effective: self.effective,
            ..start.clone()
        }
    }
}

impl NodeType {
    /// The word in the configuration.
    pub const fn as_str(self) -> &'static str {
        match self {
            NodeType::Master => "master",
            NodeType::Slave => "slave",
            NodeType::Auto => "auto",
        }
    }

    /// Serves the public API and may become Master.
    pub const fn is_gateway(self) -> bool {
        matches!(self, NodeType::Master | NodeType::Auto)
    }

    /// Holds shards.
    pub const fn holds_shards(self) -> bool {
        matches!(self, NodeType::Slave | NodeType::Auto)
    }
}
