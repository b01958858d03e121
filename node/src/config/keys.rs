//! The table of configuration keys: it drives parsing, the names of environment variables, and the reference in `docs/`.

use std::fmt::Write as _;

/// One key of the configuration.
#[derive(Clone, Copy, Debug)]
pub(super) struct Key {
    /// Name with `.` for nesting.
    pub(super) path: &'static str,
    /// What values it takes.
    pub(super) kind: Kind,
    /// Text of the default; empty: none.
    pub(super) default: &'static str,
    /// True when a reload changes it in a running node.
    pub(super) reload: bool,
    /// Meaning, and the reason of a deviation from the original description.
    pub(super) doc: &'static str,
}

/// What values a key takes.
#[derive(Clone, Copy, Debug)]
pub(super) enum Kind {
    /// Any text.
    Text,
    /// Never shown.
    Secret,
    /// A file or folder.
    Path,
    /// A comma-separated list, or a YAML list.
    List,
    /// `true` or `false`.
    Bool,
    /// An integer within bounds, both inclusive.
    Integer(u64, u64),
    /// Seconds, fractions allowed, or with suffix `ms`, `s`, `m`, `h`; bounds in milliseconds, both inclusive.
    Duration(u64, u64),
    /// One of these words.
    Word(&'static [&'static str]),
}

impl Kind {
    /// What is allowed, for messages and docs.
    pub(super) fn allowed(self) -> String {
        match self {
            Kind::Text | Kind::Secret => "text".to_owned(),
            Kind::Path => "a path".to_owned(),
            Kind::List => "a list".to_owned(),
            Kind::Bool => "true or false".to_owned(),
            Kind::Integer(min, max) => format!("an integer from {min} to {max}"),
            Kind::Duration(min, max) => {
                format!("a duration from {} to {}", duration_text(min), duration_text(max))
            }
            Kind::Word(["", words @ ..]) => format!("empty or one of {}", words.join(", ")),
            Kind::Word(words) => format!("one of {}", words.join(", ")),
        }
    }
}

fn duration_text(ms: u64) -> String {
    if ms.is_multiple_of(1000) { format!("{} s", ms / 1000) } else { format!("{ms} ms") }
}

const fn key(path: &'static str, kind: Kind, default: &'static str, reload: bool, doc: &'static str) -> Key {
    Key { path, kind, default, reload, doc }
}

const HOT: bool = true;
const RESTART: bool = false;
const DAY_MS: u64 = 86_400_000;
const GIB: u64 = 1024 * 1024 * 1024;

/// Every key there is.
pub(super) const KEYS: &[Key] = &[
    key("service_name", Kind::Text, "vectorsphere", RESTART, "Name of the cluster in the metadata store."),
    key(
        "node_type",
        Kind::Word(&["auto", "master", "slave"]),
        "auto",
        RESTART,
        "`master`: public API and candidate for mastership, no vectors. `slave`: shards. `auto`: both.",
    ),
    key(
        "node_id",
        Kind::Text,
        "",
        RESTART,
        "Unique name of this node; made once and kept under `data_dir` when empty.",
    ),
    key("bind_address", Kind::Text, "0.0.0.0", RESTART, "Address that the listeners bind."),
    key(
        "advertise_address",
        Kind::Text,
        "",
        RESTART,
        "Host that other nodes reach this node at; empty: the host's name, or 127.0.0.1 when standalone.",
    ),
    key("zone", Kind::Text, "", RESTART, "Zone of this node: copies of a shard go to different zones."),
    key(
        "zone_file",
        Kind::Path,
        "",
        RESTART,
        "File that holds the zone; read again when it changes; wins over `zone` when it has content.",
    ),
    key("http_port", Kind::Integer(0, 65535), "8080", RESTART, "REST, probes, metrics. 0: any free port."),
    key("default_port", Kind::Integer(0, 65535), "9090", RESTART, "Public gRPC. 0: any free port."),
    key(
        "internal_port",
        Kind::Integer(0, 65535),
        "9091",
        RESTART,
        "Node to node gRPC; never publish it. 0: any free port.",
    ),
    key("data_dir", Kind::Path, "./data", RESTART, "Where data lives."),
    key(
        "task_timeout",
        Kind::Duration(1, 3_600_000),
        "30",
        HOT,
        "Deadline of a request when the caller gives none.",
    ),
    key(
        "heartbeat",
        Kind::Duration(100, DAY_MS),
        "2",
        RESTART,
        "Keep-alive interval of the node's session, whose TTL is 8 s; more than a quarter of it counts as 2 s (the log says so), since the description's 10 s would end every session.",
    ),
    key(
        "health_check_interval",
        Kind::Duration(50, DAY_MS),
        "0.5",
        HOT,
        "Each gateway probes every node at this interval; the shards of a node that misses four in a row count as unavailable until it answers. The description's 30 s would notice nothing in time.",
    ),
    key(
        "scheduler_worker_count",
        Kind::Integer(0, 1024),
        "0",
        RESTART,
        "Compute threads; 0: one for each core.",
    ),
    key(
        "shutdown_grace",
        Kind::Duration(0, DAY_MS),
        "30",
        HOT,
        "Time that requests get to end after SIGTERM.",
    ),
    key(
        "kernel_tier",
        Kind::Word(&["", "avx512vnni", "avx512", "avxvnni", "avx2", "neondotprod", "neon", "scalar"]),
        "",
        RESTART,
        "Instruction set of the distance kernels; empty: the best there is.",
    ),
    key(
        "log_level",
        Kind::Text,
        "info",
        HOT,
        "`off`, `error`, `warn`, `info`, `debug`, `trace`, or filter directives such as `info,vectorsphere::cluster=debug`.",
    ),
    key(
        "log_format",
        Kind::Word(&["auto", "text", "json"]),
        "auto",
        RESTART,
        "`auto`: text on a terminal, JSON otherwise.",
    ),
    key("grpc_max_connections", Kind::Integer(1, 100), "10", RESTART, "Connections to each other node."),
    key(
        "grpc_keepalive_time",
        Kind::Duration(1_000, DAY_MS),
        "30",
        RESTART,
        "Interval of gRPC keep-alive pings between nodes.",
    ),
    key(
        "grpc_keepalive_timeout",
        Kind::Duration(100, DAY_MS),
        "5",
        RESTART,
        "Time that such a ping may take.",
    ),
    key("default_shards", Kind::Integer(1, 1024), "8", HOT, "Shards of a new table that asks for no number."),
    key(
        "table.default_replicas",
        Kind::Integer(1, 7),
        "2",
        HOT,
        "Copies of each shard of a new table that asks for no number; fewer where there are fewer slaves.",
    ),
    key(
        "replication.rereplicate_after",
        Kind::Duration(1_000, DAY_MS),
        "10m",
        HOT,
        "After this time without its node, a copy of a shard is made anew on another one.",
    ),
    key(
        "replication.without_etcd",
        Kind::Word(&["strict", "failsafe"]),
        "strict",
        RESTART,
        "When the node's session has ended because etcd is away: `strict` stops writes and strong reads. `failsafe` goes on \
         where a shard has at least two copies in sync and all of them answer.",
    ),
    key(
        "replication.leaving_grace",
        Kind::Duration(0, DAY_MS),
        "15m",
        RESTART,
        "How long a node keeps the data of a copy that was moved away from it.",
    ),
    key(
        "replication.readmission_pause",
        Kind::Duration(0, DAY_MS),
        "30",
        RESTART,
        "A copy that leaves the in-sync set again within ten minutes stays out of it for so long; doubled each time, at most \
         twenty times as long.",
    ),
    key(
        "replication.catch_up_bytes_per_second",
        Kind::Integer(1024 * 1024, 64 * GIB),
        "134217728",
        RESTART,
        "What a node sends at most to copies that are made anew or were away, bytes a second, all shards together.",
    ),
    key(
        "checkpoint_log_bytes",
        Kind::Integer(64 * 1024, 16 * GIB),
        "67108864",
        HOT,
        "Size of a shard's log that starts a checkpoint, bytes.",
    ),
    key(
        "memory_limit_bytes",
        Kind::Integer(0, 1 << 50),
        "0",
        RESTART,
        "Memory that the shards of this node may hold, bytes; 0: four fifths of what the process may have.",
    ),
    key(
        "row_cache_bytes",
        Kind::Integer(0, 4096 * GIB),
        "268435456",
        RESTART,
        "Memory for vectors that were read from disk, bytes, for all tables of this node with `rows` `disk` together; 0: none is kept.",
    ),
    key(
        "max_concurrent_requests",
        Kind::Integer(1, 1_000_000),
        "1024",
        HOT,
        "Requests that may be under way in this node; more are told to come later.",
    ),
    key(
        "etcd.endpoints",
        Kind::List,
        "",
        RESTART,
        "`host:port` or URLs. None: standalone over the embedded store; node types `master` and `slave` need some. The description's `localhost:2379` is in the example.",
    ),
    key(
        "etcd.prefix",
        Kind::Text,
        "",
        RESTART,
        "Prefix of all keys; empty: `/vectorsphere/<service_name>/`.",
    ),
    key("etcd.username", Kind::Text, "", RESTART, "User; empty: none."),
    key("etcd.password", Kind::Secret, "", RESTART, "Password."),
    key("etcd.password_file", Kind::Path, "", RESTART, "File with the password; wins over `etcd.password`."),
    key(
        "etcd.ca_file",
        Kind::Path,
        "",
        RESTART,
        "CA bundle that etcd's certificate comes from; endpoints with `https://` need it, others may not have it.",
    ),
    key("etcd.cert_file", Kind::Path, "", RESTART, "Client certificate; needs `etcd.key_file`."),
    key("etcd.key_file", Kind::Path, "", RESTART, "Client key."),
    key("etcd.dial_timeout", Kind::Duration(10, 600_000), "5", RESTART, "Time to connect."),
    key("etcd.request_timeout", Kind::Duration(10, 600_000), "10", RESTART, "Time of one request."),
    key(
        "etcd.max_call_send_msg_size",
        Kind::Integer(64 * 1024, GIB),
        "10485760",
        RESTART,
        "Largest request, bytes.",
    ),
    key(
        "etcd.max_call_recv_msg_size",
        Kind::Integer(64 * 1024, GIB),
        "10485760",
        RESTART,
        "Largest answer, bytes.",
    ),
    key(
        "master.election_timeout",
        Kind::Duration(100, 600_000),
        "15",
        HOT,
        "One attempt to stand for election.",
    ),
    key(
        "master.session_ttl",
        Kind::Duration(2_000, 600_000),
        "5",
        RESTART,
        "The Master's lease, whole seconds. The description's 30 s would leave the cluster without a Master for that long.",
    ),
    key(
        "master.max_retry_count",
        Kind::Integer(0, 1_000_000),
        "3",
        HOT,
        "Failed attempts after which they are logged as errors; the node goes on trying.",
    ),
    key("master.retry_interval", Kind::Duration(10, 600_000), "5", HOT, "Pause between attempts."),
    key(
        "slave.register_retry_count",
        Kind::Integer(0, 1_000_000),
        "3",
        HOT,
        "Failed registrations after which they are logged as errors, and readiness says so at the start; the node goes on trying.",
    ),
    key(
        "slave.register_retry_interval",
        Kind::Duration(10, 600_000),
        "5",
        HOT,
        "Pause between registrations.",
    ),
    key(
        "slave.heartbeat_interval",
        Kind::Duration(100, DAY_MS),
        "2",
        RESTART,
        "As `heartbeat`, on nodes of type `slave`.",
    ),
    key("auth.enabled", Kind::Bool, "false", RESTART, "Ask for a token on every call but the health probes."),
    key("auth.jwt_secret", Kind::Secret, "", RESTART, "HS256 key of at least 32 bytes."),
    key("auth.jwt_secret_file", Kind::Path, "", RESTART, "File with the key; wins over `auth.jwt_secret`."),
    key(
        "auth.token_expiry",
        Kind::Duration(1_000, 365 * DAY_MS),
        "3600",
        HOT,
        "Longest life of a token: `exp - iat` may not be more.",
    ),
    key(
        "rate_limit.enabled",
        Kind::Bool,
        "false",
        HOT,
        "Limit the calls of each caller (token subject, else address).",
    ),
    key("rate_limit.requests_per_second", Kind::Integer(1, 1_000_000), "100", HOT, "Sustained rate."),
    key("rate_limit.burst_size", Kind::Integer(1, 1_000_000), "200", HOT, "Calls at once."),
];

/// The key of a path.
pub(super) fn find(path: &str) -> Option<&'static Key> {
    KEYS.iter().find(|key| key.path == path)
}

/// The key whose name is most like `path`.
pub(super) fn nearest(path: &str) -> &'static str {
    let like = |key: &&Key| (strsim::normalized_damerau_levenshtein(path, key.path) * 1e6) as u64;
    KEYS.iter().max_by_key(like).expect("there are keys").path
}

/// Name of the environment variable of a key.
pub(super) fn variable(path: &str) -> String {
    format!("{VARIABLE_PREFIX}{}", path.to_uppercase().replace('.', "__"))
}

/// What every variable begins with.
pub(super) const VARIABLE_PREFIX: &str = "VECTORSPHERE_";

/// The page `docs/reference/configuration.md`.
pub fn reference() -> String {
    let mut page = String::from(PREFACE);
    page.push_str("| key | allowed | default | a reload changes it | meaning |\n|---|---|---|---|---|\n");
    for key in KEYS {
        let default = if key.default.is_empty() { "none".to_owned() } else { format!("`{}`", key.default) };
        let reload = if key.reload { "yes" } else { "no" };
        let allowed = key.kind.allowed();
        writeln!(page, "| `{}` | {allowed} | {default} | {reload} | {} |", key.path, key.doc)
            .expect("writing to a string does not fail");
    }
    page
}

const PREFACE: &str = "# Configuration

<!-- Made by `vectorsphere config reference`; a test compares. -->

A file in YAML (`-c FILE`, default `c/c.yaml` where it exists), environment variables, flags: the later wins. The variable of
a key is its name in capitals with `VECTORSPHERE_` in front and `__` for each dot: `etcd.endpoints` is
`VECTORSPHERE_ETCD__ENDPOINTS`, comma separated. The flags `-type` and `-log` set `node_type` and `log_level`.

Durations are seconds, fractions allowed, or carry a suffix: `500ms`, `2m`. Unknown keys are errors. Every problem is
reported at once; `vectorsphere config check -c FILE` does nothing else. A changed file is read again by itself and on SIGHUP;
a file with a problem changes nothing, and the log says so. Keys that a reload does not change keep the values of the start;
the log names those that wait for a restart.

";
