//! The command line: `-c`, `-type` and `-log` with one dash as in the original description, and a few subcommands.

use std::ffi::OsString;
use std::io::{Write as _, stderr, stdout};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};
use vectorsphere::config::{ConfigManager, Overrides, reference};
use vectorsphere::gateway::http::openapi;

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
        None | Some(Command::Run) => with_config(&cli.node, |config| node(config)),
        Some(Command::Dev { nodes, http_port, data_dir }) => dev(&cli.node, nodes, http_port, data_dir),
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

fn node(_config: ConfigManager) -> ExitCode {
    ExitCode::SUCCESS
}

fn dev(_flags: &NodeFlags, _nodes: u16, _http_port: u16, _data_dir: PathBuf) -> ExitCode {
    ExitCode::SUCCESS
}

fn token(_secret_file: &std::path::Path, _subject: &str, _ttl: u64) -> ExitCode {
    ExitCode::SUCCESS
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
