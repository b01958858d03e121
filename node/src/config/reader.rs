//! From raw text to a checked configuration: every value through its key's row, then the rules between keys.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use secrecy::{ExposeSecret, SecretString};

use super::config_manager::{Problem, Problems, Source};
use super::keys::{self, Key, Kind};
use super::settings::{
    AuthConfig, Config, EtcdConfig, LogFormat, MasterConfig, NodeType, RateLimitConfig, SlaveConfig,
};
use crate::ids::NodeId;

/// Values by key, each from the layer that wins.
pub(super) type Raw = BTreeMap<String, (Value, Source)>;

/// A value before its key is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Value {
    Text(String),
    List(Vec<String>),
}

/// The sample of the description, which everybody knows.
const SAMPLE_SECRET: &str = "your_jwt_secret";
/// A quarter of the node session's TTL: two lost keep-alives do not end a session.
const HEARTBEAT_MAX: Duration = Duration::from_secs(2);
const SECRET_BYTES_MIN: usize = 32;
const LOG_LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];

/// The configuration that `raw` says, or everything that is wrong with it beside `problems`.
pub(super) fn config(raw: &Raw, problems: Vec<Problem>) -> Result<Config, Problems> {
    let mut reader = Reader { raw, problems, secret_files: Vec::new(), notes: Vec::new() };
    reader.unfit_keys();
    let config = reader.config();
    reader.rules(&config);
    if reader.problems.is_empty() { Ok(config) } else { Err(Problems(reader.problems)) }
}

/// Keys whose effective values differ, ascending.
pub(super) fn differences(before: &Config, after: &Config) -> Vec<String> {
    let differs = |path: &&String| before.effective.get(*path) != after.effective.get(*path);
    after.effective.keys().filter(differs).cloned().collect()
}

struct Reader<'r> {
    raw: &'r Raw,
    problems: Vec<Problem>,
    secret_files: Vec<PathBuf>,
    notes: Vec<String>,
}

impl Reader<'_> {
    fn config(&mut self) -> Config {
        let node_type = match self.word("node_type") {
            "master" => NodeType::Master,
            "slave" => NodeType::Slave,
            _ => NodeType::Auto,
        };
        let log_format = match self.word("log_format") {
            "text" => LogFormat::Text,
            "json" => LogFormat::Json,
            _ => LogFormat::Auto,
        };
        let mut config = Config {
            service_name: self.text("service_name"),
            node_type,
            node_id: self.node_id(),
            bind_address: self.text("bind_address"),
            advertise_address: self.text("advertise_address"),
            zone: self.text("zone"),
            zone_file: self.path("zone_file"),
            http_port: self.integer("http_port") as u16,
            default_port: self.integer("default_port") as u16,
            internal_port: self.integer("internal_port") as u16,
            data_dir: self.path("data_dir").unwrap_or_default(),
            task_timeout: self.duration("task_timeout"),
            heartbeat: self.heartbeat("heartbeat"),
            health_check_interval: self.duration("health_check_interval"),
            scheduler_worker_count: self.integer("scheduler_worker_count") as usize,
            shutdown_grace: self.duration("shutdown_grace"),
            kernel_tier: self.word("kernel_tier").to_owned(),
            log_level: self.text("log_level"),
            log_format,
            grpc_max_connections: self.integer("grpc_max_connections") as usize,
            grpc_keepalive_time: self.duration("grpc_keepalive_time"),
            grpc_keepalive_timeout: self.duration("grpc_keepalive_timeout"),
            default_shards: self.integer("default_shards") as u32,
            default_replicas: self.integer("table.default_replicas") as u32,
            rereplicate_after: self.duration("replication.rereplicate_after"),
            is_failsafe: self.word("replication.without_etcd") == "failsafe",
            leaving_grace: self.duration("replication.leaving_grace"),
            readmission_pause: self.duration("replication.readmission_pause"),
            catch_up_bytes_per_second: self.integer("replication.catch_up_bytes_per_second"),
            checkpoint_log_bytes: self.integer("checkpoint_log_bytes"),
            memory_limit_bytes: self.integer("memory_limit_bytes"),
            row_cache_bytes: self.integer("row_cache_bytes"),
            max_concurrent_requests: self.integer("max_concurrent_requests") as usize,
            etcd: self.etcd(),
            master: MasterConfig {
                election_timeout: self.duration("master.election_timeout"),
                session_ttl: self.duration("master.session_ttl"),
                max_retry_count: self.integer("master.max_retry_count") as u32,
                retry_interval: self.duration("master.retry_interval"),
            },
            slave: SlaveConfig {
                register_retry_count: self.integer("slave.register_retry_count") as u32,
                register_retry_interval: self.duration("slave.register_retry_interval"),
                heartbeat_interval: self.heartbeat("slave.heartbeat_interval"),
            },
            auth: AuthConfig {
                enabled: self.bool("auth.enabled"),
                jwt_secret: self.secret("auth.jwt_secret", "auth.jwt_secret_file"),
                token_expiry: self.duration("auth.token_expiry"),
            },
            rate_limit: RateLimitConfig {
                enabled: self.bool("rate_limit.enabled"),
                requests_per_second: self.integer("rate_limit.requests_per_second") as u32,
                burst_size: self.integer("rate_limit.burst_size") as u32,
            },
            secret_files: std::mem::take(&mut self.secret_files),
            notes: Vec::new(),
            effective: BTreeMap::new(),
        };
        config.notes = std::mem::take(&mut self.notes);
        config.effective = self.effective(&config);
        config
    }

    fn etcd(&mut self) -> EtcdConfig {
        let prefix = self.text("etcd.prefix");
        EtcdConfig {
            endpoints: self.list("etcd.endpoints"),
            prefix: (!prefix.is_empty()).then_some(prefix),
            username: self.text("etcd.username"),
            password: self.secret("etcd.password", "etcd.password_file"),
            ca_file: self.path("etcd.ca_file"),
            cert_file: self.path("etcd.cert_file"),
            key_file: self.path("etcd.key_file"),
            dial_timeout: self.duration("etcd.dial_timeout"),
            request_timeout: self.duration("etcd.request_timeout"),
            max_call_send_msg_size: self.integer("etcd.max_call_send_msg_size") as usize,
            max_call_recv_msg_size: self.integer("etcd.max_call_recv_msg_size") as usize,
        }
    }

    /// What must hold between keys.
    fn rules(&mut self, config: &Config) {
        if config.etcd.endpoints.is_empty() && config.node_type != NodeType::Auto {
            let word = config.node_type.as_str();
            let why = format!(
                "is empty, but a node of type {word} shares its metadata with others through etcd; \
                 give endpoints, or use node_type auto for a single node"
            );
            self.problem("etcd.endpoints", why);
        }
        self.etcd_rules(&config.etcd);
        if config.data_dir.as_os_str().is_empty() {
            self.problem("data_dir", "is empty, must be a path".to_owned());
        }
        if !config.master.session_ttl.as_millis().is_multiple_of(1000) {
            self.problem("master.session_ttl", "must be whole seconds".to_owned());
        }
        let ports = [
            ("http_port", config.http_port),
            ("default_port", config.default_port),
            ("internal_port", config.internal_port),
        ];
        for (index, (path, port)) in ports.iter().enumerate() {
            if let Some((other, _)) = ports[..index].iter().find(|(_, taken)| taken == port && *port != 0) {
                self.problem(path, format!("is {port}, which is also {other}; each needs its own"));
            }
        }
        if config.service_name.is_empty() || config.service_name.contains('/') {
            self.problem("service_name", "must be text without `/`".to_owned());
        }
        if let Err(why) = check_log_level(&config.log_level) {
            self.problem("log_level", format!("is {:?}: {why}", config.log_level));
        }
        self.secret_rules(config);
    }

    /// What would only be found out by trying again and again.
    fn etcd_rules(&mut self, etcd: &EtcdConfig) {
        if etcd.cert_file.is_some() != etcd.key_file.is_some() {
            self.problem("etcd.cert_file", "and etcd.key_file must be given together".to_owned());
        }
        let files = [
            ("etcd.ca_file", &etcd.ca_file),
            ("etcd.cert_file", &etcd.cert_file),
            ("etcd.key_file", &etcd.key_file),
        ];
        for (path, file) in files {
            if let Some(file) = file
                && let Err(error) = fs::read(file)
            {
                self.problem(path, format!("is {}, which cannot be read: {error}", file.display()));
            }
        }
        let has_tls = etcd.ca_file.is_some();
        if etcd.cert_file.is_some() && !has_tls {
            self.problem("etcd.cert_file", "needs etcd.ca_file".to_owned());
        }
        for endpoint in &etcd.endpoints {
            let why = match endpoint.split_once("://") {
                Some(("http", _)) if has_tls => "goes without TLS, but etcd.ca_file is given; use https://",
                Some(("https", _)) if !has_tls => "goes over TLS, which needs etcd.ca_file",
                None | Some(("http" | "https", _)) => continue,
                Some(_) => "must begin with http:// or https://, or be host:port",
            };
            self.problem("etcd.endpoints", format!("{endpoint} {why}"));
        }
    }

    fn secret_rules(&mut self, config: &Config) {
        let secret = config.auth.jwt_secret.expose_secret();
        let make = "make one with `openssl rand -base64 48`";
        if secret == SAMPLE_SECRET {
            self.problem(
                "auth.jwt_secret",
                format!("is the sample of the documentation, which everybody knows; {make}"),
            );
        } else if config.auth.enabled && secret.len() < SECRET_BYTES_MIN {
            let bytes = secret.len();
            self.problem(
                "auth.jwt_secret",
                format!("has {bytes} bytes, must have {SECRET_BYTES_MIN} or more; {make}"),
            );
        }
    }

    /// Keys that do not exist, and lists where one value is wanted.
    fn unfit_keys(&mut self) {
        let raw = self.raw;
        for (path, (value, _)) in raw {
            match (keys::find(path), value) {
                (None, _) => {
                    let nearest = keys::nearest(path);
                    self.problem(path, format!("is not a key; did you mean {nearest}?"));
                }
                (Some(key), Value::List(items)) if !matches!(key.kind, Kind::List) => {
                    self.wrong(key, &format!("[{}]", items.join(", ")));
                }
                (Some(_), _) => {}
            }
        }
    }

    fn problem(&mut self, path: &str, message: String) {
        let source = self.raw.get(path).map_or(Source::Default, |(_, source)| source.clone());
        self.problems.push(Problem { what: path.to_owned(), message, source });
    }

    fn wrong(&mut self, key: &Key, found: &str) {
        let found = if matches!(key.kind, Kind::Secret) { "***" } else { found };
        self.problem(key.path, format!("is {found:?}, must be {}", key.kind.allowed()));
    }

    /// The row of a key and its value's text; lists are joined with commas.
    fn value(&self, path: &str) -> (&'static Key, String) {
        let key = keys::find(path).unwrap_or_else(|| panic!("{path} has a row in the table of keys"));
        let text = match self.raw.get(path) {
            Some((Value::Text(text), _)) => text.clone(),
            Some((Value::List(items), _)) if matches!(key.kind, Kind::List) => items.join(","),
            // A list where one value is wanted was told before.
            Some((Value::List(_), _)) | None => key.default.to_owned(),
        };
        (key, text)
    }

    fn text(&mut self, path: &str) -> String {
        self.value(path).1
    }

    fn path(&mut self, path: &str) -> Option<PathBuf> {
        let text = self.text(path);
        (!text.is_empty()).then(|| PathBuf::from(text))
    }

    fn list(&mut self, path: &str) -> Vec<String> {
        let (_, text) = self.value(path);
        text.split(',').map(str::trim).filter(|item| !item.is_empty()).map(str::to_owned).collect()
    }

    fn bool(&mut self, path: &str) -> bool {
        let (key, text) = self.value(path);
        text.parse().unwrap_or_else(|_| {
            self.wrong(key, &text);
            false
        })
    }

    fn integer(&mut self, path: &str) -> u64 {
        let (key, text) = self.value(path);
        let Kind::Integer(min, max) = key.kind else { panic!("{path} is an integer") };
        match text.parse() {
            Ok(number) if (min..=max).contains(&number) => number,
            _ => {
                self.wrong(key, &text);
                min
            }
        }
    }

    fn duration(&mut self, path: &str) -> Duration {
        let (key, text) = self.value(path);
        let Kind::Duration(min, max) = key.kind else { panic!("{path} is a duration") };
        match parse_duration(&text) {
            Some(duration) if (min..=max).contains(&(duration.as_millis() as u64)) => duration,
            _ => {
                self.wrong(key, &text);
                Duration::from_millis(min)
            }
        }
    }

    fn heartbeat(&mut self, path: &str) -> Duration {
        let wanted = self.duration(path);
        if wanted > HEARTBEAT_MAX {
            self.notes.push(format!(
                "{path} is {wanted:?} and counts as {HEARTBEAT_MAX:?}, the session's TTL is 8 s"
            ));
        }
        wanted.min(HEARTBEAT_MAX)
    }

    fn word(&mut self, path: &str) -> &'static str {
        let (key, text) = self.value(path);
        let Kind::Word(words) = key.kind else { panic!("{path} is a word") };
        words.iter().find(|word| **word == text).copied().unwrap_or_else(|| {
            self.wrong(key, &text);
            words[0]
        })
    }

    fn node_id(&mut self) -> Option<NodeId> {
        let text = self.text("node_id");
        if text.is_empty() {
            return None;
        }
        NodeId::parse(&text).map_err(|error| self.problem("node_id", format!("is not usable: {error}"))).ok()
    }

    /// The secret itself, or the trimmed content of its file.
    fn secret(&mut self, path: &str, file_path: &str) -> SecretString {
        let Some(file) = self.path(file_path) else { return self.text(path).into() };
        match read_secret(&file) {
            Ok(secret) => {
                self.secret_files.push(file);
                secret
            }
            Err(why) => {
                self.problem(file_path, why);
                SecretString::default()
            }
        }
    }

    /// Every key's text, for telling what a reload changed. Secrets as a digest of what they come to, wherever it was read.
    fn effective(&self, config: &Config) -> BTreeMap<String, String> {
        let digest = |secret: &SecretString| {
            format!("{:x}", xxhash_rust::xxh3::xxh3_64(secret.expose_secret().as_bytes()))
        };
        let shown = |key: &Key| match key.path {
            "etcd.password" => digest(&config.etcd.password),
            "auth.jwt_secret" => digest(&config.auth.jwt_secret),
            path => self.value(path).1,
        };
        keys::KEYS.iter().map(|key| (key.path.to_owned(), shown(key))).collect()
    }
}

/// A filter of logs: one level, or directives `target=level`, comma separated. A bare word is a level: as a target, which
/// the filter itself would take it for, a misspelt level would silence everything.
fn check_log_level(text: &str) -> Result<(), String> {
    let is_level = |word: &str| LOG_LEVELS.iter().any(|level| level.eq_ignore_ascii_case(word));
    for directive in text.split(',') {
        let level = directive.rsplit_once('=').map_or(directive, |(_, level)| level);
        if !is_level(level) {
            let levels = LOG_LEVELS.join(", ");
            return Err(format!("{level:?} is no level; it must be one of {levels}, or target=level"));
        }
    }
    text.parse::<tracing_subscriber::EnvFilter>().map(drop).map_err(|error| error.to_string())
}

fn read_secret(file: &Path) -> Result<SecretString, String> {
    let text =
        fs::read_to_string(file).map_err(|error| format!("{} cannot be read: {error}", file.display()))?;
    match text.trim() {
        "" => Err(format!("{} is empty", file.display())),
        secret => Ok(secret.to_owned().into()),
    }
}

/// Seconds with fractions, or a number with the suffix `ms`, `s`, `m` or `h`.
fn parse_duration(text: &str) -> Option<Duration> {
    let end = text.find(|c: char| !(c.is_ascii_digit() || c == '.')).unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    let number: f64 = number.parse().ok()?;
    let seconds = match unit.trim() {
        "" | "s" => number,
        "ms" => number / 1e3,
        "m" => number * 60.0,
        "h" => number * 3600.0,
        _ => return None,
    };
    Duration::try_from_secs_f64(seconds).ok()
}
