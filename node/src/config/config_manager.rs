//! `ConfigManager`: loads the configuration, keeps the last good one, and reads it again when its files change.
//!
//! The only place that reads configuration files and environment variables; everything else receives values.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use notify::Watcher as _;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::keys::{self, VARIABLE_PREFIX};
use super::reader::{self, Raw, Value};
use super::settings::Config;
use crate::telemetry::Metrics;

/// Variables with our prefix that belong to the project's scripts and tests.
const OTHER_VARIABLES: [&str; 7] = [
    "VECTORSPHERE_CACHE",
    "VECTORSPHERE_DATA",
    "VECTORSPHERE_ETCD_BIN",
    "VECTORSPHERE_IMAGE_LOADER",
    "VECTORSPHERE_KEEP",
    "VECTORSPHERE_SOAK_FROM",
    "VECTORSPHERE_SOAK_SEEDS",
];
/// Files change in several steps (a ConfigMap swaps a link); one look after the last of them is enough.
const SETTLE: Duration = Duration::from_millis(200);

/// One thing that is wrong with a configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The key, or the file.
    pub what: String,
    /// What was found and what is allowed.
    pub message: String,
    /// Where it comes from.
    pub source: Source,
}

/// Where a value comes from; the later wins.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Source {
    /// Nobody said anything.
    Default,
    /// A line of the file.
    File(PathBuf),
    /// A variable.
    Environment(String),
    /// A flag of the command line.
    Flag(String),
}

/// Everything that is wrong with a configuration; not empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problems(pub Vec<Problem>);

/// What was given beside the file.
#[derive(Clone, Debug, Default)]
pub struct Overrides {
    /// All variables of the process; those of others need not be UTF-8.
    pub environment: Vec<(OsString, OsString)>,
    /// Key, value, and the flag that set it.
    pub flags: Vec<(&'static str, String, &'static str)>,
}

/// The current configuration.
pub struct ConfigManager {
    file: Option<PathBuf>,
    overrides: Overrides,
    /// As the process started.
    start: Config,
    current: watch::Sender<Arc<Config>>,
    reloads: Family<ReloadLabels, Counter>,
}

/// What a reload found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reload {
    /// Keys that differ from the last reload, ascending.
    pub changed: Vec<String>,
    /// Keys that differ from the start and count after a restart only, ascending.
    pub need_a_restart: Vec<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ReloadLabels {
    outcome: &'static str,
}

impl ConfigManager {
    /// Loads the configuration for the first time.
    ///
    /// # Errors
    /// Everything that is wrong, at once.
    pub fn load(file: Option<PathBuf>, overrides: Overrides) -> Result<ConfigManager, Problems> {
        let start = read(file.as_deref(), &overrides)?;
        let (current, _) = watch::channel(Arc::new(start.clone()));
        Ok(ConfigManager { file, overrides, start, current, reloads: Family::default() })
    }

    /// Adds the count of reloads to a node's metrics.
    pub fn register(&self, metrics: &Metrics) {
        metrics.register(|registry| {
            registry.register("config_reloads", "Reloads of the configuration", self.reloads.clone());
        });
    }

    /// The configuration at the moment.
    pub fn current(&self) -> Arc<Config> {
        self.current.borrow().clone()
    }

    /// Tells of every good reload.
    pub fn subscribe(&self) -> watch::Receiver<Arc<Config>> {
        self.current.subscribe()
    }

    /// Reads the files again. A bad one changes nothing; keys that need a restart keep the values of the start.
    ///
    /// # Errors
    /// Everything that is wrong, at once; it is also logged.
    pub fn reload(&self) -> Result<Reload, Problems> {
        let before = self.current();
        let after = match read(self.file.as_deref(), &self.overrides) {
            Ok(after) => after,
            Err(problems) => {
                warn!(%problems, "the changed configuration is not used, the last good one stays");
                self.count("refused");
                return Err(problems);
            }
        };
        let mut need_a_restart = reader::differences(&self.start, &after);
        need_a_restart.retain(|path| !keys::find(path).is_some_and(|key| key.reload));
        let reload = Reload { changed: reader::differences(&before, &after), need_a_restart };
        if reload.changed.is_empty() {
            self.count("unchanged");
            return Ok(reload);
        }
        info!(changed = ?reload.changed, need_a_restart = ?reload.need_a_restart, "took over a changed configuration");
        self.current.send_replace(Arc::new(after.over(&self.start)));
        self.count("changed");
        Ok(reload)
    }

    fn count(&self, outcome: &'static str) {
        self.reloads.get_or_create(&ReloadLabels { outcome }).inc();
    }

    /// Reloads when a file changes or SIGHUP comes, until `cancel`.
    pub async fn run(&self, cancel: CancellationToken) {
        let (tell, mut told) = mpsc::channel(1);
        let mut hangup = match signal(SignalKind::hangup()) {
            Ok(hangup) => hangup,
            Err(error) => return warn!(%error, "cannot listen for SIGHUP, the configuration stays as it is"),
        };
        loop {
            // Anew after each reload: it may have named other files. The old watch stands until then.
            let _watcher = self.watch_files(tell.clone()).inspect_err(|error| {
                warn!(%error, "cannot watch the configuration's files, SIGHUP still works");
            });
            tokio::select! {
                () = cancel.cancelled() => return,
                _ = hangup.recv() => {}
                Some(()) = told.recv() => tokio::time::sleep(SETTLE).await,
            }
            while told.try_recv().is_ok() {}
            // What is wrong is in the log already.
            let _ = self.reload();
        }
    }

    /// Watches the folders: a mounted ConfigMap or Secret swaps a link beside the file.
    fn watch_files(&self, tell: mpsc::Sender<()>) -> notify::Result<notify::RecommendedWatcher> {
        let mut watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
            if event.is_ok_and(|event| !event.kind.is_access()) {
                // A full channel means that a reload is due anyway.
                let _ = tell.try_send(());
            }
        })?;
        let config = self.current();
        let files = self.file.iter().chain(&config.secret_files);
        let mut folders: Vec<_> = files.map(|file| folder_of(file)).collect();
        folders.sort_unstable();
        folders.dedup();
        for folder in folders {
            watcher.watch(&folder, notify::RecursiveMode::NonRecursive)?;
        }
        Ok(watcher)
    }
}

fn folder_of(file: &Path) -> PathBuf {
    match file.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder.to_owned(),
        _ => PathBuf::from("."),
    }
}

/// All layers merged and checked.
fn read(file: Option<&Path>, overrides: &Overrides) -> Result<Config, Problems> {
    let mut problems = Vec::new();
    let mut raw = Raw::new();
    if let Some(file) = file {
        read_file(file, &mut raw, &mut problems);
    }
    read_environment(&overrides.environment, &mut raw, &mut problems);
    for (path, value, flag) in &overrides.flags {
        let source = Source::Flag((*flag).to_owned());
        raw.insert((*path).to_owned(), (Value::Text(value.clone()), source));
    }
    reader::config(&raw, problems)
}

fn read_file(file: &Path, raw: &mut Raw, problems: &mut Vec<Problem>) {
    let source = Source::File(file.to_owned());
    let text = match std::fs::read_to_string(file) {
        Ok(text) => text,
        Err(error) => {
            let what = file.display().to_string();
            return problems.push(Problem { what, message: format!("cannot be read: {error}"), source });
        }
    };
    let parsed: serde_yaml::Value = match serde_yaml::from_str(&text) {
        Ok(parsed) => parsed,
        Err(error) => {
            let what = file.display().to_string();
            return problems.push(Problem { what, message: format!("is not YAML: {error}"), source });
        }
    };
    match parsed {
        serde_yaml::Value::Null => {}
        serde_yaml::Value::Mapping(mapping) => flatten("", &mapping, &source, raw, problems),
        _ => problems.push(Problem {
            what: file.display().to_string(),
            message: "must be a mapping of keys to values".to_owned(),
            source,
        }),
    }
}

fn flatten(
    prefix: &str,
    mapping: &serde_yaml::Mapping,
    source: &Source,
    raw: &mut Raw,
    problems: &mut Vec<Problem>,
) {
    for (key, value) in mapping {
        let path = format!("{prefix}{}", scalar(key).unwrap_or_default());
        let value = match value {
            // Nothing is said, but of a key or group that exists.
            serde_yaml::Value::Null => {
                check_name(&path, source, problems);
                continue;
            }
            serde_yaml::Value::Mapping(inner) => {
                if inner.is_empty() {
                    check_name(&path, source, problems);
                }
                flatten(&format!("{path}."), inner, source, raw, problems);
                continue;
            }
            serde_yaml::Value::Sequence(items) => {
                items.iter().map(scalar).collect::<Option<_>>().map(Value::List)
            }
            other => scalar(other).map(Value::Text),
        };
        match value {
            Some(value) => drop(raw.insert(path, (value, source.clone()))),
            None => problems.push(Problem {
                what: path,
                message: "must be a value or a list of values".to_owned(),
                source: source.clone(),
            }),
        }
    }
}

/// A name without a value is only looked at for being a name.
fn check_name(path: &str, source: &Source, problems: &mut Vec<Problem>) {
    let is_group =
        keys::KEYS.iter().any(|key| key.path.strip_prefix(path).is_some_and(|rest| rest.starts_with('.')));
    if keys::find(path).is_none() && !is_group {
        let message = format!("is not a key; did you mean {}?", keys::nearest(path));
        problems.push(Problem { what: path.to_owned(), message, source: source.clone() });
    }
}

fn scalar(value: &serde_yaml::Value) -> Option<String> {
    match value {
        serde_yaml::Value::String(text) => Some(text.clone()),
        serde_yaml::Value::Number(number) => Some(number.to_string()),
        serde_yaml::Value::Bool(word) => Some(word.to_string()),
        _ => None,
    }
}

fn read_environment(environment: &[(OsString, OsString)], raw: &mut Raw, problems: &mut Vec<Problem>) {
    let known: BTreeMap<_, _> = keys::KEYS.iter().map(|key| (keys::variable(key.path), key.path)).collect();
    for (name, value) in environment {
        let name = name.to_string_lossy().into_owned();
        if !name.starts_with(VARIABLE_PREFIX) || OTHER_VARIABLES.contains(&name.as_str()) {
            continue;
        }
        let source = Source::Environment(name.clone());
        match (known.get(&name), value.to_str()) {
            (Some(path), Some(value)) => {
                raw.insert((*path).to_owned(), (Value::Text(value.to_owned()), source));
            }
            (Some(_), None) => {
                problems.push(Problem { what: name, message: "is not UTF-8".to_owned(), source });
            }
            (None, _) => {
                let path = name[VARIABLE_PREFIX.len()..].to_lowercase().replace("__", ".");
                let nearest = keys::variable(keys::nearest(&path));
                let message = format!("is not the variable of any key; did you mean {nearest}?");
                problems.push(Problem { what: name, message, source });
            }
        }
    }
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, problem) in self.0.iter().enumerate() {
            let separator = if index == 0 { "" } else { "; " };
            write!(f, "{separator}{problem}")?;
        }
        Ok(())
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} ({})", self.what, self.message, self.source)
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Source::Default => f.write_str("default"),
            Source::File(file) => write!(f, "{}", file.display()),
            Source::Environment(name) => write!(f, "environment {name}"),
            Source::Flag(flag) => write!(f, "flag {flag}"),
        }
    }
}

impl std::error::Error for Problems {}
