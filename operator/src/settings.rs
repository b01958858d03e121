//! Settings of the nodes that users may give in `spec.config`, and the file that they become.
//!
//! The node's own ConfigManager is the judge of a value's range; this table knows the keys and their shapes, so
//! that a wrong one is told in a condition before any pod sees it. A test feeds each of them to the ConfigManager.

use std::collections::BTreeMap;

use serde_yaml::{Mapping, Number, Value};

/// Shape of a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// Seconds, or a number with `ms`, `s`, `m` or `h`.
    Duration,
    /// A whole number, not negative.
    Count,
    /// `true` or `false`.
    Flag,
    /// One of these words.
    Word(&'static [&'static str]),
    /// Any text.
    Text,
}

/// Keys that users may set. Sorted.
pub const KEYS: &[(&str, Shape)] = &[
    ("checkpoint_log_bytes", Shape::Count),
    ("default_shards", Shape::Count),
    ("etcd.dial_timeout", Shape::Duration),
    ("etcd.max_call_recv_msg_size", Shape::Count),
    ("etcd.max_call_send_msg_size", Shape::Count),
    ("etcd.request_timeout", Shape::Duration),
    ("grpc_keepalive_time", Shape::Duration),
    ("grpc_keepalive_timeout", Shape::Duration),
    ("grpc_max_connections", Shape::Count),
    ("health_check_interval", Shape::Duration),
    ("heartbeat", Shape::Duration),
    ("kernel_tier", Shape::Word(&["", "avx512", "avx2", "scalar"])),
    ("log_format", Shape::Word(&["text", "json"])),
    ("log_level", Shape::Text),
    ("master.election_timeout", Shape::Duration),
    ("master.max_retry_count", Shape::Count),
    ("master.retry_interval", Shape::Duration),
    ("master.session_ttl", Shape::Duration),
    ("max_concurrent_requests", Shape::Count),
    ("rate_limit.burst_size", Shape::Count),
    ("rate_limit.enabled", Shape::Flag),
    ("rate_limit.requests_per_second", Shape::Count),
    ("scheduler_worker_count", Shape::Count),
    ("shutdown_grace", Shape::Duration),
    ("slave.heartbeat_interval", Shape::Duration),
    ("slave.register_retry_count", Shape::Count),
    ("slave.register_retry_interval", Shape::Duration),
    ("task_timeout", Shape::Duration),
];

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

/// Longest `shutdown_grace`: pods get [`crate::build::GRACE_SECONDS`] to end, and the rest is for what follows requests.
pub const SHUTDOWN_GRACE_MAX_SECONDS: u32 = 45;

/// Reads one entry of `spec.config`; the error says what is wrong and what is allowed.
pub fn parse(key: &str, text: &str) -> Result<Value, String> {
    if let Some((_, source)) = OWNED.iter().find(|(owned, _)| *owned == key) {
        return Err(format!("may not be set here, it comes from {source}"));
    }
    let Some((_, shape)) = KEYS.iter().find(|(known, _)| *known == key) else {
        return Err(format!("is not known; did you mean `{}`? Allowed are: {}", nearest(key), allowed()));
    };
    let value = shape.parse(text)?;
    if key == "shutdown_grace"
        && duration_seconds(text).is_some_and(|it| it > f64::from(SHUTDOWN_GRACE_MAX_SECONDS))
    {
        return Err(format!("must be at most {SHUTDOWN_GRACE_MAX_SECONDS} s, because pods get 60 s to end"));
    }
    Ok(value)
}

impl Shape {
    fn parse(self, text: &str) -> Result<Value, String> {
        match self {
            Shape::Duration => match (text.parse::<u64>(), duration_seconds(text)) {
                (Ok(seconds), _) => Ok(Value::Number(seconds.into())),
                (Err(_), Some(_)) => Ok(text.parse::<f64>().map_or_else(
                    |_| Value::String(text.to_owned()),
                    |seconds| Value::Number(Number::from(seconds)),
                )),
                (Err(_), None) => {
                    Err(format!("must be seconds such as `30` or a duration such as `500ms`, not `{text}`"))
                }
            },
            Shape::Count => text
                .parse::<u64>()
                .map(|count| Value::Number(count.into()))
                .map_err(|_| format!("must be a whole number that is not negative, not `{text}`")),
            Shape::Flag => text
                .parse::<bool>()
                .map(Value::Bool)
                .map_err(|_| format!("must be `true` or `false`, not `{text}`")),
            Shape::Word(words) if words.contains(&text) => Ok(Value::String(text.to_owned())),
            Shape::Word(words) => Err(format!("must be one of `{}`, not `{text}`", words.join("`, `"))),
            Shape::Text => Ok(Value::String(text.to_owned())),
        }
    }
}

/// A duration in seconds; `None` when the text is none, or no finite one.
fn duration_seconds(text: &str) -> Option<f64> {
    let split = text.find(|c: char| c.is_ascii_alphabetic()).unwrap_or(text.len());
    let (number, unit) = text.split_at(split);
    let scale = match unit {
        "ms" => 0.001,
        "" | "s" => 1.0,
        "m" => 60.0,
        "h" => 3600.0,
        _ => return None,
    };
    let digits_only = !number.is_empty() && number.chars().all(|c| c.is_ascii_digit() || c == '.');
    digits_only.then(|| number.parse::<f64>().ok()).flatten().map(|amount| amount * scale)
}

fn allowed() -> String {
    KEYS.iter().map(|(key, _)| format!("`{key}`")).collect::<Vec<_>>().join(", ")
}

fn nearest(key: &str) -> &'static str {
    let likeness = |candidate: &str| strsim::jaro_winkler(key, candidate);
    KEYS.iter()
        .map(|(candidate, _)| *candidate)
        .max_by(|left, right| likeness(left).total_cmp(&likeness(right)))
        .expect("there are keys")
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
    fn keys_are_sorted_and_owned_by_one_side() {
        assert!(KEYS.is_sorted_by_key(|(key, _)| *key) && OWNED.is_sorted_by_key(|(key, _)| *key));
        assert!(KEYS.iter().all(|(key, _)| OWNED.iter().all(|(owned, _)| owned != key)));
    }

    #[test]
    fn values_keep_their_type() {
        assert_eq!(parse("task_timeout", "30"), Ok(Value::Number(30.into())));
        assert_eq!(parse("task_timeout", "0.5"), Ok(Value::Number(0.5.into())));
        assert_eq!(parse("task_timeout", "500ms"), Ok(Value::String("500ms".into())));
        assert_eq!(parse("rate_limit.enabled", "true"), Ok(Value::Bool(true)));
        assert_eq!(parse("log_level", "1"), Ok(Value::String("1".into())));
    }

    #[test]
    fn bad_values_say_what_is_allowed() {
        for (key, value, message) in [
            ("task_timeout", "soon", "must be seconds"),
            ("task_timeout", "-1", "must be seconds"),
            ("task_timeout", "", "must be seconds"),
            ("default_shards", "1.5", "must be a whole number"),
            ("rate_limit.enabled", "yes", "must be `true` or `false`"),
            ("log_format", "xml", "must be one of `text`, `json`"),
            ("shutdown_grace", "2m", "at most 45 s"),
            ("http_port", "80", "comes from the operator"),
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
