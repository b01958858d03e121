//! The command line: `-c`, `-type` and `-log` with one dash as in the original description, and a few subcommands.

use std::ffi::OsString;
use std::io::{Write as _, stderr, stdout};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};
use futures::future::{join_all, select_all, try_join_all};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use vectorsphere::app_launcher::{AppLauncher, LaunchError, RunningNode};
use vectorsphere::cluster::MetaStore;
use vectorsphere::cluster::meta_store::EmbeddedStore;
use vectorsphere::config::{ConfigManager, LogFormat, Overrides, Problems, reference};
use vectorsphere::gateway::auth::mint_token;
use vectorsphere::gateway::http::openapi;
use vectorsphere::telemetry::LogHandle;

/// Exit status for a wrong command line or configuration.
const USAGE: u8 = 2;
/// Read when it exists and no other file is named.
const DEFAULT_FILE: &str = "c/c.yaml";

/// A distributed vector database: runs one node.
#[derive(Parser)]
#[command(name = "vectorsphere", version)]
struct Cli {
    #[command(flatten)]
    node: NodeFlags,
    #[command(subcommand)]
    command: Option<Command>,
}

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
    /// Run several nodes in this process over one embedded metadata store
    Dev {
        /// How many
        #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..=100))]
        nodes: u16,
        /// REST port of the first node; the others count on from it, gRPC is 1,010 above
        #[arg(long, default_value_t = 8080)]
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
        /// Seconds that it is good for
        #[arg(long, default_value_t = 3600)]
        ttl: u64,
    },
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
        Some(Command::Token { secret_file, subject, ttl }) => token(&secret_file, &subject, ttl),
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
    let default = PathBuf::from(DEFAULT_FILE);
    let file = flags.config.clone().or_else(|| default.exists().then_some(default));
    let mut overrides = Overrides { environment: std::env::vars().collect(), flags: Vec::new() };
    if let Some(node_type) = &flags.node_type {
        overrides.flags.push(("node_type", node_type.clone(), "-type"));
    }
    if let Some(level) = &flags.log {
        overrides.flags.push(("log_level", level.clone(), "-log"));
    }
    match ConfigManager::load(file, overrides) {
        Ok(config) => then(config),
        Err(problems) => {
            complain("the configuration cannot be used:");
            problems.0.iter().for_each(|problem| complain(&format!("  {problem}")));
            ExitCode::from(USAGE)
        }
    }
}

fn node(config: ConfigManager) -> ExitCode {
    let now = config.current();
    let logs = match LogHandle::install(&now.log_level, now.log_format) {
        Ok(logs) => logs,
        Err(error) => return outcome(Err(error.into())),
    };
    let stop = CancellationToken::new();
    outcome(in_runtime(async {
        let mut live = config.subscribe();
        let watching = async {
            tokio::join!(config.run(stop.clone()), async {
                while let Some(Ok(())) = stop.run_until_cancelled(live.changed()).await {
                    // The level was checked with the rest.
                    let _ = logs.set_level(&live.borrow_and_update().log_level);
                }
            });
        };
        let serving = async {
            let served = serve(vec![AppLauncher::new(config.subscribe())], &stop).await;
            stop.cancel();
            served
        };
        let (served, ()) = tokio::join!(serving, watching);
        served
    }))
}

/// Several nodes over one embedded store; ports count on from the first node's.
fn dev(flags: &NodeFlags, nodes: u16, http_port: u16, data_dir: &Path) -> ExitCode {
    let level = flags.log.clone().unwrap_or_else(|| "warn".to_owned());
    if let Err(error) = LogHandle::install(&level, LogFormat::Auto) {
        return outcome(Err(error.into()));
    }
    let configs: Result<Vec<_>, _> = (0..nodes).map(|index| dev_config(index, http_port, data_dir)).collect();
    let configs = match configs {
        Ok(configs) => configs,
        Err(problems) => return outcome(Err(problems.into())),
    };
    outcome(in_runtime(async {
        let store = EmbeddedStore::open(&data_dir.join("meta"))?;
        let store: Arc<dyn MetaStore> = Arc::new(store);
        let launchers =
            configs.iter().map(|config| AppLauncher::new(config.subscribe()).with_store(store.clone()));
        say(&format!("{nodes} nodes, REST at http://127.0.0.1:{http_port}; stop with Ctrl-C"));
        serve(launchers.collect(), &CancellationToken::new()).await
    }))
}

/// Ports of one node of `dev`: REST from `http_port` on, gRPC 1,010 above, node to node 2,020 above.
fn dev_config(index: u16, http_port: u16, data_dir: &Path) -> Result<ConfigManager, Problems> {
    let first = u32::from(http_port) + u32::from(index);
    let flags = vec![
        ("node_id", format!("node-{index}"), "dev"),
        ("bind_address", "127.0.0.1".to_owned(), "dev"),
        ("advertise_address", "127.0.0.1".to_owned(), "dev"),
        ("http_port", first.to_string(), "--http-port"),
        ("default_port", (first + 1_010).to_string(), "--http-port"),
        ("internal_port", (first + 2_020).to_string(), "--http-port"),
        ("data_dir", data_dir.join(format!("node-{index}")).display().to_string(), "--data-dir"),
    ];
    ConfigManager::load(None, Overrides { environment: Vec::new(), flags })
}

/// Starts nodes, waits for a signal or a failure, stops them in order.
async fn serve(launchers: Vec<AppLauncher>, stop: &CancellationToken) -> anyhow::Result<()> {
    let starting = try_join_all(launchers.into_iter().map(|launcher| launcher.start(stop.child_token())));
    let mut starting = std::pin::pin!(starting);
    let nodes = tokio::select! {
        nodes = &mut starting => nodes?,
        () = told_to_stop() => {
            stop.cancel();
            match starting.await {
                Ok(nodes) => nodes,
                Err(LaunchError::Stopped) => return Ok(()),
                Err(error) => return Err(error.into()),
            }
        }
    };
    let failed = async {
        let (_, _, _) = select_all(nodes.iter().map(|node| Box::pin(node.failed()))).await;
    };
    let failed = tokio::select! {
        () = told_to_stop() => false,
        () = failed => true,
    };
    let stopped = join_all(nodes.into_iter().map(RunningNode::stop)).await;
    match (failed, stopped.into_iter().all(|in_time| in_time)) {
        (false, true) => Ok(()),
        (false, false) => anyhow::bail!("some parts did not end in time, see the log"),
        (true, _) => anyhow::bail!("a part of the node failed, see the log"),
    }
}

/// SIGTERM or SIGINT.
async fn told_to_stop() {
    let Ok(mut terminate) = signal(SignalKind::terminate()) else { return std::future::pending().await };
    tokio::select! {
        _ = terminate.recv() => {}
        _ = tokio::signal::ctrl_c() => {}
    }
}

fn in_runtime(work: impl Future<Output = anyhow::Result<()>>) -> anyhow::Result<()> {
    tokio::runtime::Builder::new_multi_thread().enable_all().build()?.block_on(work)
}

fn token(secret_file: &Path, subject: &str, ttl: u64) -> ExitCode {
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
}
