//! The command line: `-c`, `-type` and `-log` with one dash as in the original description, and a few subcommands.

use std::ffi::OsString;
use std::io::{Write as _, stderr, stdout};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};
use futures::future::{join_all, select_all};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::admin::{self, AdminArguments};
use vectorsphere::app_launcher::{AppLauncher, LaunchError, RunningNode};
use vectorsphere::cluster::MetaStore;
use vectorsphere::cluster::meta_store::EmbeddedStore;
use vectorsphere::config::{Config, ConfigManager, Overrides, Problems, reference};
use vectorsphere::gateway::auth::mint_token;
use vectorsphere::gateway::http::openapi;
use vectorsphere::telemetry::LogHandle;

/// Exit status for a wrong command line or configuration.
const USAGE: u8 = 2;
/// Exit status of `admin drain status` while something has to move.
const NOT_DONE: u8 = 3;
/// Read when it exists and no other file is named.
const DEFAULT_FILE: &str = "c/c.yaml";

/// Distances of the other ports of a node of `dev` from its REST port.
const DEV_GRPC: u16 = 1_010;
const DEV_INTERNAL: u16 = 2_020;
/// With 100 nodes the last port is the last there is.
const DEV_PORT_MAX: i64 = 65_535 - 99 - DEV_INTERNAL as i64;

/// A distributed vector database: runs one node.
#[derive(Parser)]
#[command(name = "vectorsphere", version)]
struct Cli {
    #[command(flatten)]
    node: NodeFlags,
    #[command(subcommand)]
    command: Option<Command>,
}

/// A key, its value, and what set it.
type Flag = (&'static str, String, &'static str);

#[derive(Args)]
struct NodeFlags {
    /// Configuration file [default: c/c.yaml where it exists]; also `-c`
    #[arg(short = 'c', long = "config", value_name = "FILE", global = true)]
    config: Option<PathBuf>,
    /// Node type: auto, master or slave; also `-type`
    #[arg(long = "type", value_name = "TYPE", global = true)]
    node_type: Option<String>,
    /// Log level, such as debug; also `-log`
    #[arg(long = "log", value_name = "LEVEL", global = true)]
    log: Option<String>,
}

#[derive(Subcommand)]
enum Command {
    /// Run one node (what happens without a subcommand)
    Run,
    /// Run several nodes in this process over one embedded metadata store; the configuration counts for all of them, but
    /// for node type, names, addresses, ports, `data_dir` and `etcd.endpoints`
    Dev {
        /// How many
        #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..=100))]
        nodes: u16,
        /// REST port of the first node; the others count on from it, gRPC is 1,010 above, node to node gRPC 2,020
        #[arg(long, default_value_t = 8080, value_parser = clap::value_parser!(u16).range(1..=DEV_PORT_MAX))]
        http_port: u16,
        /// Where their data lives
        #[arg(long, default_value = "./data")]
        data_dir: PathBuf,
    },
    /// Make a token for the API, signed with the configured secret
    Token {
        /// File with the secret of `auth.jwt_secret`
        #[arg(long)]
        secret_file: PathBuf,
        /// Whom it is for
        #[arg(long)]
        subject: String,
        /// Seconds that it is good for: 1 up to `auth.token_expiry`, which nodes check
        #[arg(long, default_value_t = 3600, value_parser = clap::value_parser!(u64).range(1..))]
        ttl: u64,
    },
    /// Look after a running cluster: shards, moves, drains, hand-overs
    Admin(AdminArguments),
    /// Print the OpenAPI description of the REST API
    Openapi,
    /// Look at the configuration
    Config {
        #[command(subcommand)]
        command: ConfigCommand,
    },
}

#[derive(Subcommand)]
enum ConfigCommand {
    /// Check the configuration and say everything that is wrong with it
    Check,
    /// Print the reference of all keys
    Reference,
}

/// Runs the command line of this process.
pub(crate) fn run() -> ExitCode {
    let cli = match Cli::try_parse_from(with_two_dashes(std::env::args_os())) {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version are no errors and go to standard output; clap knows.
            let _ = error.print();
            return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(USAGE));
        }
    };
    match cli.command {
        None | Some(Command::Run) => with_config(&cli.node, node),
        Some(Command::Dev { nodes, http_port, data_dir }) => dev(&cli.node, nodes, http_port, &data_dir),
        Some(Command::Token { secret_file, subject, ttl }) => {
            with_config(&cli.node, |config| token(&config.current(), &secret_file, &subject, ttl))
        }
        Some(Command::Admin(arguments)) => admin(arguments),
        Some(Command::Openapi) => {
            outcome(stdout().write_all(openapi().as_bytes()).map_err(anyhow::Error::from))
        }
        Some(Command::Config { command: ConfigCommand::Check }) => {
            with_config(&cli.node, |_| say("the configuration is fine"))
        }
        Some(Command::Config { command: ConfigCommand::Reference }) => {
            outcome(stdout().write_all(reference().as_bytes()).map_err(anyhow::Error::from))
        }
    }
}

/// `-type` and `-log` are the description's spelling; the parser wants two dashes.
fn with_two_dashes(arguments: impl Iterator<Item = OsString>) -> Vec<OsString> {
    let rewrite = |argument: OsString| {
        let text = argument.to_str().unwrap_or_default();
        match text.split('=').next() {
            Some("-type" | "-log" | "-config") => OsString::from(format!("-{text}")),
            _ => argument,
        }
    };
    arguments.map(rewrite).collect()
}

fn with_config(flags: &NodeFlags, then: impl FnOnce(ConfigManager) -> ExitCode) -> ExitCode {
    match load(flags, Vec::new()) {
        Ok(config) => then(config),
        Err(problems) => refuse(&problems),
    }
}

/// The configuration that the command line names, with `more` flags that win over its own.
fn load(flags: &NodeFlags, more: Vec<Flag>) -> Result<ConfigManager, Problems> {
    let default = PathBuf::from(DEFAULT_FILE);
    let file = flags.config.clone().or_else(|| default.exists().then_some(default));
    let mut given = Vec::new();
    if let Some(node_type) = &flags.node_type {
        given.push(("node_type", node_type.clone(), "-type"));
    }
    if let Some(level) = &flags.log {
        given.push(("log_level", level.clone(), "-log"));
    }
    given.extend(more);
    ConfigManager::load(file, Overrides { environment: std::env::vars_os().collect(), flags: given })
}

fn refuse(problems: &Problems) -> ExitCode {
    complain("the configuration cannot be used:");
    problems.0.iter().for_each(|problem| complain(&format!("  {problem}")));
    ExitCode::from(USAGE)
}

fn node(config: ConfigManager) -> ExitCode {
    outcome(in_runtime(run_nodes(vec![config], |_| Ok(None))))
}

/// Several nodes over one embedded store; ports count on from the first node's.
fn dev(flags: &NodeFlags, nodes: u16, http_port: u16, data_dir: &Path) -> ExitCode {
    if flags.node_type.is_some() {
        complain("-type cannot be used with dev, whose nodes are all of type auto");
        return ExitCode::from(USAGE);
    }
    let configs = (0..nodes).map(|index| load(flags, dev_flags(index, http_port, data_dir)));
    let configs: Vec<_> = match configs.collect() {
        Ok(configs) => configs,
        Err(problems) => return refuse(&problems),
    };
    outcome(in_runtime(run_nodes(configs, |_| {
        let store: Arc<dyn MetaStore> = Arc::new(EmbeddedStore::open(&data_dir.join("meta"))?);
        say(&format!("{nodes} nodes, REST at http://127.0.0.1:{http_port}; stop with Ctrl-C"));
        Ok(Some(store))
    })))
}

/// What makes one node of `dev` another than the next.
fn dev_flags(index: u16, http_port: u16, data_dir: &Path) -> Vec<Flag> {
    let first = http_port + index;
    vec![
        ("node_type", "auto".to_owned(), "dev"),
        ("etcd.endpoints", String::new(), "dev"),
        ("node_id", format!("node-{index}"), "dev"),
        ("bind_address", "127.0.0.1".to_owned(), "dev"),
        ("advertise_address", "127.0.0.1".to_owned(), "dev"),
        ("http_port", first.to_string(), "--http-port"),
        ("default_port", (first + DEV_GRPC).to_string(), "--http-port"),
        ("internal_port", (first + DEV_INTERNAL).to_string(), "--http-port"),
        ("data_dir", data_dir.join(format!("node-{index}")).display().to_string(), "--data-dir"),
    ]
}

/// Runs one node for each configuration until a signal or a failure; meanwhile the configurations are kept up to date.
async fn run_nodes(
    configs: Vec<ConfigManager>,
    store: impl FnOnce(&[ConfigManager]) -> anyhow::Result<Option<Arc<dyn MetaStore>>>,
) -> anyhow::Result<()> {
    let (first, stop) = (&configs[0], CancellationToken::new());
    let now = first.current();
    let logs = LogHandle::install(&now.log_level, now.log_format)?;
    let store = store(&configs)?;
    let launchers = configs.iter().map(|config| {
        let launcher = AppLauncher::new(config.subscribe());
        config.register(launcher.metrics());
        match &store {
            Some(store) => launcher.with_store(store.clone()),
            None => launcher,
        }
    });
    let mut live = first.subscribe();
    let leveling = async {
        while let Some(Ok(())) = stop.run_until_cancelled(live.changed()).await {
            // The level was checked with the rest.
            let _ = logs.set_level(&live.borrow_and_update().log_level);
        }
    };
    let reloading = join_all(configs.iter().map(|config| config.run(stop.clone())));
    let serving = async {
        let served = until_told(&stop, serve(launchers.collect(), &stop)).await;
        stop.cancel();
        served
    };
    let (served, _, ()) = tokio::join!(serving, reloading, leveling);
    served
}

/// Starts nodes, waits until told to stop or a failure, stops them in order.
async fn serve(launchers: Vec<AppLauncher>, stop: &CancellationToken) -> anyhow::Result<()> {
    let starting = launchers.into_iter().map(async |launcher| {
        let started = launcher.start(stop.child_token()).await;
        if started.is_err() {
            // The others need not wait for a cluster that will not be.
            stop.cancel();
        }
        started
    });
    let (mut nodes, mut failure) = (Vec::new(), None);
    for started in join_all(starting).await {
        match started {
            Ok(node) => nodes.push(node),
            Err(LaunchError::Stopped) => {}
            Err(error) => failure = failure.or(Some(error)),
        }
    }
    let failed = async {
        match nodes.is_empty() {
            true => stop.cancelled().await,
            false => drop(select_all(nodes.iter().map(|node| Box::pin(node.failed()))).await),
        }
    };
    let is_told = stop.run_until_cancelled(failed).await.is_none() || nodes.is_empty();
    let stopped = join_all(nodes.into_iter().map(RunningNode::stop)).await;
    match failure {
        Some(error) => Err(error.into()),
        None if !is_told => anyhow::bail!("a part of the node failed, see the log"),
        None if stopped.into_iter().all(|in_time| in_time) => Ok(()),
        None => anyhow::bail!("some parts did not end in time, see the log"),
    }
}

/// Runs `work`, which `stop` ends; SIGTERM or SIGINT cancels it. One listener for the whole time: no signal is lost.
async fn until_told<T>(
    stop: &CancellationToken,
    work: impl Future<Output = anyhow::Result<T>>,
) -> anyhow::Result<T> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut work = std::pin::pin!(work);
    tokio::select! {
        done = &mut work => return done,
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    stop.cancel();
    work.await
}

fn in_runtime(work: impl Future<Output = anyhow::Result<()>>) -> anyhow::Result<()> {
    tokio::runtime::Builder::new_multi_thread().enable_all().build()?.block_on(work)
}

fn token(config: &Config, secret_file: &Path, subject: &str, ttl: u64) -> ExitCode {
    let most = config.auth.token_expiry;
    if Duration::from_secs(ttl) > most {
        complain(&format!("--ttl is {ttl}, must be 1 to {} seconds (auth.token_expiry)", most.as_secs()));
        return ExitCode::from(USAGE);
    }
    let secret = match std::fs::read_to_string(secret_file) {
        Ok(secret) => secret,
        Err(error) => {
            complain(&format!("{} cannot be read: {error}", secret_file.display()));
            return ExitCode::from(USAGE);
        }
    };
    match mint_token(&secret.into(), subject, Duration::from_secs(ttl)) {
        Ok(token) => say(&token),
        Err(error) => {
            complain(&error.message);
            ExitCode::from(USAGE)
        }
    }
}

fn admin(arguments: AdminArguments) -> ExitCode {
    match admin::run(arguments) {
        Ok(told) if told.is_done => say(&told.text),
        Ok(told) => match say(&told.text) {
            ExitCode::SUCCESS => ExitCode::from(NOT_DONE),
            unprinted => unprinted,
        },
        Err(error) => outcome(Err(error)),
    }
}

fn outcome(result: anyhow::Result<()>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            complain(&format!("{error:#}"));
            ExitCode::FAILURE
        }
    }
}

fn say(text: &str) -> ExitCode {
    outcome(writeln!(stdout(), "{text}").map_err(anyhow::Error::from))
}

/// Where standard error is gone there is nobody to tell.
fn complain(text: &str) {
    let _ = writeln!(stderr(), "vectorsphere: {text}");
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(arguments: &[&str]) -> Cli {
        let arguments = arguments.iter().map(OsString::from);
        Cli::try_parse_from(with_two_dashes(arguments)).expect("understood")
    }

    #[test]
    fn the_flags_of_the_description_work_as_written() {
        let cli = parsed(&["vectorsphere", "-c", "/path/to/c.yaml", "-type", "slave", "-log", "debug"]);
        assert_eq!(cli.node.config, Some(PathBuf::from("/path/to/c.yaml")));
        assert_eq!((cli.node.node_type.as_deref(), cli.node.log.as_deref()), (Some("slave"), Some("debug")));
        assert_eq!(parsed(&["vectorsphere", "-type=master"]).node.node_type.as_deref(), Some("master"));
        assert!(parsed(&["vectorsphere"]).command.is_none());
    }

    #[test]
    fn numbers_that_cannot_be_meant_are_refused() {
        let refused = |arguments: &[&str]| {
            let arguments = arguments.iter().map(OsString::from);
            Cli::try_parse_from(with_two_dashes(arguments)).map(drop).expect_err("refused").to_string()
        };
        for port in ["0", "63417", "65535"] {
            let told = refused(&["vectorsphere", "dev", "--http-port", port]);
            assert!(told.contains("1..=63416"), "{told}");
        }
        refused(&["vectorsphere", "token", "--secret-file", "a", "--subject", "b", "--ttl", "0"]);
        for index in [0, 99] {
            for (path, value, _) in dev_flags(index, 63_416, Path::new("data")) {
                assert!(!path.ends_with("_port") || value.parse::<u16>().is_ok(), "{path} = {value}");
            }
        }
    }

    /// Steps: the work waits for the stop; the signal comes before it is looked for; one is enough.
    #[tokio::test]
    async fn one_signal_is_enough() {
        let stop = CancellationToken::new();
        let told = until_told(&stop, async {
            nix::sys::signal::raise(nix::sys::signal::Signal::SIGTERM)?;
            stop.cancelled().await;
            Ok("stopped")
        });
        assert_eq!(told.await.expect("no error"), "stopped");
    }
}
