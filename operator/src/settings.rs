//! Settings of the nodes that users may give in `spec.config`, and the file that they become.
//!
//! A wrong setting is told in a condition before any pod sees it; nodes would end over it at their next start. The
//! node's ConfigManager is the judge: a test compares this table with its keys, and feeds it each bound.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use serde_yaml::{Mapping, Value};
use tracing_subscriber::EnvFilter;

/// What values a setting takes. Bounds are inclusive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// Seconds, or a number with `ms`, `s`, `m` or `h`; bounds in milliseconds.
    Duration(u64, u64),
    /// As [`Shape::Duration`], without fractions of a second.
    WholeSeconds(u64, u64),
    /// A whole number.
    Count(u64, u64),
    /// `true` or `false`.
    Flag,
    /// One of these words.
    Word(&'static [&'static str]),
    /// A log level, or levels of targets.
    LogFilter,
}

/// A key that users may set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Setting {
    /// Its name, with dots for nesting.
    pub key: &'static str,
    /// What values it takes.
    pub shape: Shape,
    /// Whether running nodes take a change over; otherwise it needs new pods.
    pub hot: bool,
}

const LOG_LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];
const DAY_MS: u64 = 86_400_000;
const KIB: u64 = 1 << 10;
const GIB: u64 = 1 << 30;

const fn hot(key: &'static str, shape: Shape) -> Setting {
    Setting { key, shape, hot: true }
}

const fn cold(key: &'static str, shape: Shape) -> Setting {
    Setting { key, shape, hot: false }
}

/// Keys that users may set. Sorted.
pub const SETTINGS: &[Setting] = &[
    hot("checkpoint_log_bytes", Shape::Count(64 * KIB, 16 * GIB)),
    hot("default_shards", Shape::Count(1, 1024)),
    cold("etcd.dial_timeout", Shape::Duration(10, 600_000)),
    cold("etcd.max_call_recv_msg_size", Shape::Count(64 * KIB, GIB)),
    cold("etcd.max_call_send_msg_size", Shape::Count(64 * KIB, GIB)),
    cold("etcd.request_timeout", Shape::Duration(10, 600_000)),
    cold("grpc_keepalive_time", Shape::Duration(1000, DAY_MS)),
    cold("grpc_keepalive_timeout", Shape::Duration(100, DAY_MS)),
    cold("grpc_max_connections", Shape::Count(1, 100)),
    hot("health_check_interval", Shape::Duration(50, DAY_MS)),
    cold("heartbeat", Shape::Duration(100, DAY_MS)),
    cold(
        "kernel_tier",
        Shape::Word(&["", "avx512vnni", "avx512", "avxvnni", "avx2", "neondotprod", "neon", "scalar"]),
    ),
    cold("log_format", Shape::Word(&["auto", "text", "json"])),
    hot("log_level", Shape::LogFilter),
    hot("master.election_timeout", Shape::Duration(100, 600_000)),
    hot("master.max_retry_count", Shape::Count(0, 1_000_000)),
    hot("master.retry_interval", Shape::Duration(10, 600_000)),
    cold("master.session_ttl", Shape::WholeSeconds(2000, 600_000)),
    hot("max_concurrent_requests", Shape::Count(1, 1_000_000)),
    cold("memory_limit_bytes", Shape::Count(0, 1 << 50)),
    hot("rate_limit.burst_size", Shape::Count(1, 1_000_000)),
    hot("rate_limit.enabled", Shape::Flag),
    hot("rate_limit.requests_per_second", Shape::Count(1, 1_000_000)),
    cold("replication.catch_up_bytes_per_second", Shape::Count(KIB * KIB, 64 * GIB)),
    cold("replication.leaving_grace", Shape::Duration(0, DAY_MS)),
    cold("replication.readmission_pause", Shape::Duration(0, DAY_MS)),
    hot("replication.rereplicate_after", Shape::Duration(1000, DAY_MS)),
    cold("replication.without_etcd", Shape::Word(&["strict", "failsafe"])),
    cold("row_cache_bytes", Shape::Count(0, 4096 * GIB)),
    cold("scheduler_worker_count", Shape::Count(0, 1024)),
    hot("shutdown_grace", Shape::Duration(0, SHUTDOWN_GRACE_MAX_MS)),
    cold("slave.heartbeat_interval", Shape::Duration(100, DAY_MS)),
    hot("slave.register_retry_count", Shape::Count(0, 1_000_000)),
    hot("slave.register_retry_interval", Shape::Duration(10, 600_000)),
    hot("table.default_replicas", Shape::Count(1, 7)),
    hot("task_timeout", Shape::Duration(1, 3_600_000)),
];

/// Longest `shutdown_grace`, in milliseconds: less than what pods get to end (`build::GRACE_SECONDS`), since a node
/// stops serving some seconds late and has work after the last request.
pub const SHUTDOWN_GRACE_MAX_MS: u64 = 45_000;

/// Keys that the operator sets, and where their value comes from.
pub const OWNED: &[(&str, &str)] = &[
    ("advertise_address", "the name of the pod"),
    ("bind_address", "the operator"),
    ("data_dir", "the operator"),
    ("default_port", "the operator"),
    ("etcd.ca_file", "`spec.etcd.external.tlsSecretRef`"),
    ("etcd.cert_file", "`spec.etcd.external.tlsSecretRef`"),
    ("etcd.endpoints", "`spec.etcd`"),
    ("etcd.key_file", "`spec.etcd.external.tlsSecretRef`"),
    ("etcd.password", "`spec.etcd.external.authSecretRef`"),
    ("etcd.password_file", "`spec.etcd.external.authSecretRef`"),
    ("etcd.prefix", "`spec.etcd.prefix`"),
    ("etcd.username", "`spec.etcd.external.authSecretRef`"),
    ("http_port", "the operator"),
    ("internal_port", "the operator"),
    ("node_id", "the name of the pod"),
    ("node_type", "the group of the pod"),
    ("service_name", "namespace and name of this object"),
    ("zone", "the zone of the pod's node"),
    ("zone_file", "the operator"),
];

/// Keys of nodes that cannot be set on Kubernetes yet.
pub const WITHHELD: &[&str] =
    &["auth.enabled", "auth.jwt_secret", "auth.jwt_secret_file", "auth.token_expiry"];

/// Reads one entry of `spec.config`; the error says what is wrong and what is allowed.
pub fn parse(key: &str, text: &str) -> Result<Value, String> {
    if let Some((_, source)) = OWNED.iter().find(|(owned, _)| *owned == key) {
        return Err(format!("may not be set here, it comes from {source}"));
    }
    if WITHHELD.contains(&key) {
        return Err("may not be set in this version: its secret would be readable in this object".to_owned());
    }
    let Some(setting) = SETTINGS.iter().find(|setting| setting.key == key) else {
        return Err(format!("is not known; did you mean `{}`? Allowed are: {}", nearest(key), allowed()));
    };
    setting.shape.parse(text).ok_or_else(|| format!("must be {}, not `{text}`", setting.shape))
}

/// Whether running nodes take a change of `key` over.
pub fn is_hot(key: &str) -> bool {
    SETTINGS.iter().any(|setting| setting.key == key && setting.hot)
}

impl Shape {
    /// The value that `text` means; `None` when it is not allowed.
    fn parse(self, text: &str) -> Option<Value> {
        match self {
            Shape::Duration(min, max) => {
                (min..=max).contains(&duration_ms(text)?).then(|| duration_value(text))
            }
            Shape::WholeSeconds(min, max) => {
                let ms = duration_ms(text)?;
                (ms.is_multiple_of(1000) && (min..=max).contains(&ms)).then(|| duration_value(text))
            }
            Shape::Count(min, max) => {
                let count = text.parse().ok()?;
                (min..=max).contains(&count).then(|| Value::Number(count.into()))
            }
            Shape::Flag => text.parse().ok().map(Value::Bool),
            Shape::Word(words) => words.contains(&text).then(|| text.into()),
            Shape::LogFilter => {
                let is_level = |word: &str| LOG_LEVELS.iter().any(|level| level.eq_ignore_ascii_case(word));
                // The filter takes a bare word that is no level for a target, and would silence everything else.
                let named = text.split(',').all(|part| is_level(part.rsplit('=').next().unwrap_or(part)));
                (named && text.parse::<EnvFilter>().is_ok()).then(|| text.into())
            }
        }
    }
}

impl fmt::Display for Shape {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let duration = |ms: u64| match ms.is_multiple_of(1000) {
            true => format!("{} s", ms / 1000),
            false => format!("{ms} ms"),
        };
        match *self {
            Shape::Duration(min, max) => {
                let (min, max) = (duration(min), duration(max));
                write!(formatter, "a duration from {min} to {max}, such as `30` (seconds) or `500ms`")
            }
            Shape::WholeSeconds(min, max) => {
                write!(formatter, "whole seconds from {} to {}", duration(min), duration(max))
            }
            Shape::Count(min, max) => write!(formatter, "a whole number from {min} to {max}"),
            Shape::Flag => formatter.write_str("`true` or `false`"),
            Shape::Word(words) => write!(formatter, "one of `{}`", words.join("`, `")),
            Shape::LogFilter => {
                write!(formatter, "one of `{}`, or `target=level`, comma separated", LOG_LEVELS.join("`, `"))
            }
        }
    }
}

/// A duration in whole milliseconds; `None` when the text is none, or more than can be counted.
fn duration_ms(text: &str) -> Option<u64> {
    let end = text.find(|c: char| !(c.is_ascii_digit() || c == '.')).unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    let scale = match unit {
        "ms" => 0.001,
        "" | "s" => 1.0,
        "m" => 60.0,
        "h" => 3600.0,
        _ => return None,
    };
    let seconds = number.parse::<f64>().ok()? * scale;
    u64::try_from(Duration::try_from_secs_f64(seconds).ok()?.as_millis()).ok()
}

/// Bare numbers stay numbers, as people write them in the file.
fn duration_value(text: &str) -> Value {
    match (text.parse::<u64>(), text.parse::<f64>()) {
        (Ok(seconds), _) => Value::Number(seconds.into()),
        (Err(_), Ok(seconds)) => Value::Number(seconds.into()),
        (Err(_), Err(_)) => text.into(),
    }
}

fn allowed() -> String {
    SETTINGS.iter().map(|setting| format!("`{}`", setting.key)).collect::<Vec<_>>().join(", ")
}

fn nearest(key: &str) -> &'static str {
    let likeness = |setting: &&Setting| (strsim::jaro_winkler(key, setting.key) * 1e6) as u64;
    SETTINGS.iter().max_by_key(likeness).expect("there are settings").key
}

/// Makes a nested document of dotted keys: `a.b: 1` becomes `a: {b: 1}`.
pub fn nest(flat: &BTreeMap<String, Value>) -> Mapping {
    let mut root = Mapping::new();
    for (key, value) in flat {
        let mut map = &mut root;
        let mut parts = key.split('.').peekable();
        while let Some(part) = parts.next() {
            if parts.peek().is_none() {
                map.insert(part.into(), value.clone());
                break;
            }
            map = map
                .entry(part.into())
                .or_insert_with(|| Value::Mapping(Mapping::new()))
                .as_mapping_mut()
                .expect("no key is a prefix of another one");
        }
    }
    root
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_sorted_and_belong_to_one_table() {
        assert!(SETTINGS.is_sorted_by_key(|setting| setting.key));
        assert!(OWNED.is_sorted_by_key(|(key, _)| *key) && WITHHELD.is_sorted());
        let mut all: Vec<_> = SETTINGS.iter().map(|setting| setting.key).collect();
        all.extend(OWNED.iter().map(|(key, _)| *key).chain(WITHHELD.iter().copied()));
        let count = all.len();
        all.sort_unstable();
        all.dedup();
        assert_eq!(all.len(), count);
    }

    #[test]
    fn values_keep_their_type() {
        assert_eq!(parse("task_timeout", "30"), Ok(Value::Number(30.into())));
        assert_eq!(parse("task_timeout", "0.5"), Ok(Value::Number(0.5.into())));
        assert_eq!(parse("task_timeout", "500ms"), Ok(Value::String("500ms".into())));
        assert_eq!(parse("rate_limit.enabled", "true"), Ok(Value::Bool(true)));
        assert_eq!(parse("log_level", "info"), Ok(Value::String("info".into())));
    }

    #[test]
    fn bad_values_say_what_is_allowed() {
        for (key, value, message) in [
            ("task_timeout", "soon", "must be a duration from 1 ms to 3600 s"),
            ("task_timeout", "-1", "must be a duration"),
            ("task_timeout", "", "must be a duration"),
            ("task_timeout", ".", "must be a duration"),
            ("task_timeout", "0", "must be a duration"),
            ("task_timeout", "2h", "must be a duration"),
            ("task_timeout", "99999999999999999999999h", "must be a duration"),
            ("master.session_ttl", "2500ms", "must be whole seconds from 2 s"),
            ("default_shards", "1.5", "must be a whole number from 1 to 1024"),
            ("default_shards", "0", "must be a whole number from 1 to 1024"),
            ("rate_limit.enabled", "yes", "must be `true` or `false`"),
            ("log_format", "xml", "must be one of `auto`, `text`, `json`"),
            ("log_level", "loud", "one of `off`, `error`"),
            ("log_level", "loud=very=much", "or `target=level`"),
            ("shutdown_grace", "2m", "from 0 s to 45 s"),
            ("http_port", "80", "comes from the operator"),
            ("auth.jwt_secret", "secret", "readable in this object"),
            ("task_timeot", "1", "did you mean `task_timeout`?"),
        ] {
            let error = parse(key, value).expect_err(key);
            assert!(error.contains(message), "{key}: {error}");
        }
    }

    #[test]
    fn dotted_keys_become_nested_maps() {
        let flat = [
            ("a.b".to_owned(), Value::from(1)),
            ("a.c".to_owned(), Value::from(2)),
            ("d".to_owned(), Value::from(3)),
        ];
        let nested = serde_yaml::to_string(&nest(&flat.into())).expect("plain data");
        assert_eq!(nested, "a:\n  b: 1\n  c: 2\nd: 3\n");
    }
}
