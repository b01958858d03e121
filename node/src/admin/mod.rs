//! `vectorsphere admin`: what operators ask of a running cluster, over its REST API.
//!
//! Knows the API as any client does, and nothing of the node in this program.

mod client;
mod show;

use std::io::{BufRead as _, Write as _, stderr, stdin};

use clap::{Args, Subcommand};
use serde_json::{Value, json};
use vectorsphere::ids::{NodeId, TableName};

use client::Client;
use show::{drain, loss, shards};

/// What was asked, and where.
#[derive(Args)]
pub(crate) struct AdminArguments {
    /// A node of type master or auto
    #[arg(long, global = true, default_value = "http://127.0.0.1:8080", value_name = "URL")]
    server: String,
    /// Token for the API; see `vectorsphere token`
    #[arg(long, global = true)]
    token: Option<String>,
    /// Print the server's answer as JSON
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    command: AdminCommand,
}

#[derive(Subcommand)]
enum AdminCommand {
    /// List the shards of a table and where each copy of them stands
    Shards {
        #[arg(value_parser = table_name)]
        table: TableName,
    },
    /// Begin to move a copy of a shard to another node; `shards` tells when it is there
    Move {
        #[command(flatten)]
        shard: ShardArguments,
        /// The node that the copy is on
        #[arg(long, value_parser = node_id)]
        from: NodeId,
        /// The node that it goes to
        #[arg(long, value_parser = node_id)]
        to: NodeId,
    },
    /// Make another in-sync copy of a shard the primary
    HandOver {
        #[command(flatten)]
        shard: ShardArguments,
        /// The node of the new primary [default: the old one chooses]
        #[arg(long, value_parser = node_id)]
        to: Option<NodeId>,
    },
    /// Empty a node
    Drain {
        #[command(subcommand)]
        command: DrainCommand,
    },
    /// The Master
    Master {
        #[command(subcommand)]
        command: MasterCommand,
    },
    /// Let a shard go on from a copy that may lack acknowledged writes: the last resort when the others are lost
    ForcePrimary {
        #[command(flatten)]
        shard: ShardArguments,
        /// The node whose copy the shard goes on from
        #[arg(long, value_parser = node_id)]
        node: NodeId,
        /// `<table>/<shard>`, instead of typing it when asked
        #[arg(long, value_name = "TEXT")]
        confirm: Option<String>,
    },
}

#[derive(Args)]
struct ShardArguments {
    #[arg(value_parser = table_name)]
    table: TableName,
    /// Its number
    shard: u32,
}

#[derive(Subcommand)]
enum DrainCommand {
    /// Begin to empty a node, or give a drain a new time limit and reason
    Start {
        #[arg(value_parser = node_id)]
        node: NodeId,
        /// Seconds after which the drain ends by itself [default: never]
        #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..=2_592_000))]
        ttl: Option<u64>,
        #[arg(long, default_value = "")]
        reason: String,
    },
    /// Tell what the node still holds; exit status 3 while something has to move
    Status {
        #[arg(value_parser = node_id)]
        node: NodeId,
    },
    /// End a drain; copies may come back when the Master spreads them evenly again
    Cancel {
        #[arg(value_parser = node_id)]
        node: NodeId,
    },
}

#[derive(Subcommand)]
enum MasterCommand {
    /// Let another node become Master
    HandOver,
}

/// What to print, and whether what was asked about has come to its end.
pub(crate) struct Outcome {
    /// Without a line feed at the end.
    pub(crate) text: String,
    pub(crate) is_done: bool,
}

/// Carries a command out.
///
/// # Errors
/// When the server cannot be reached or refuses, or the confirmation was not given.
pub(crate) fn run(arguments: AdminArguments) -> anyhow::Result<Outcome> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(carry_out(arguments))
}

async fn carry_out(arguments: AdminArguments) -> anyhow::Result<Outcome> {
    let AdminArguments { server, token, json, command } = arguments;
    let client = Client::new(&server, token.as_deref())?;
    let done = |body: Value, shown: String| {
        let text = if json { format!("{body:#}") } else { shown };
        Ok(Outcome { text, is_done: true })
    };
    match command {
        AdminCommand::Shards { table } => {
            let body = client.get(&format!("/api/v1/tables/{table}/shards")).await?;
            let shown = shards(&body);
            done(body, shown)
        }
        AdminCommand::Move { shard, from, to } => {
            let request = json!({"from": from.as_str(), "to": to.as_str()});
            let body = client.post(&shard.path("move"), request).await?;
            let shown = format!("copy {} is being made on {to}", text_of(&body, "replica_id"));
            done(body, shown)
        }
        AdminCommand::HandOver { shard, to } => {
            let request = to.map_or_else(|| json!({}), |to| json!({"to": to.as_str()}));
            let body = client.post(&shard.path("handover"), request).await?;
            let (node, epoch) = (text_of(&body, "node_id"), text_of(&body, "epoch"));
            done(body, format!("the primary is on {node}, epoch {epoch}"))
        }
        AdminCommand::Drain { command } => run_drain(&client, command, json).await,
        AdminCommand::Master { command: MasterCommand::HandOver } => {
            let body = client.post("/api/v1/cluster/master:handover", json!({})).await?;
            let (node, epoch) = (text_of(&body, "node_id"), text_of(&body, "epoch"));
            done(body, format!("the Master is {node}, epoch {epoch}"))
        }
        AdminCommand::ForcePrimary { shard, node, confirm } => {
            let confirmation = match confirm {
                Some(text) => text,
                None => ask_for_confirmation(&shard, &node)?,
            };
            let request = json!({"node": node.as_str(), "confirmation": confirmation});
            let body = client.post(&shard.path("force-primary"), request).await?;
            let shown = loss(&body);
            done(body, shown)
        }
    }
}

async fn run_drain(client: &Client, command: DrainCommand, json: bool) -> anyhow::Result<Outcome> {
    let path = |node: &NodeId| format!("/api/v1/cluster/nodes/{node}/drain");
    let (body, is_question) = match &command {
        DrainCommand::Start { node, ttl, reason } => {
            let mut request = json!({"reason": reason});
            if let Some(seconds) = ttl {
                request["ttl_ms"] = json!(seconds * 1_000);
            }
            (client.post(&path(node), request).await?, false)
        }
        DrainCommand::Status { node } => (client.get(&path(node)).await?, true),
        DrainCommand::Cancel { node } => {
            client.delete(&path(node)).await?;
            return Ok(Outcome { text: format!("{node} is no longer drained"), is_done: true });
        }
    };
    let text = if json { format!("{body:#}") } else { drain(&body) };
    Ok(Outcome { text, is_done: !is_question || body["done"] == true })
}

/// Lets a person type what is at stake. The server compares.
fn ask_for_confirmation(shard: &ShardArguments, node: &NodeId) -> anyhow::Result<String> {
    let ShardArguments { table, shard } = shard;
    let warning = format!(
        "Acknowledged writes of shard {shard} of table {table} that the copy on {node} lacks will be lost for good.\n\
         Type {table}/{shard} to go on: "
    );
    let mut terminal = stderr();
    terminal.write_all(warning.as_bytes())?;
    terminal.flush()?;
    let mut typed = String::new();
    stdin().lock().read_line(&mut typed)?;
    match typed.trim() {
        "" => anyhow::bail!("nothing was typed, nothing was done"),
        text => Ok(text.to_owned()),
    }
}

impl ShardArguments {
    fn path(&self, verb: &str) -> String {
        format!("/api/v1/tables/{}/shards/{}:{verb}", self.table, self.shard)
    }
}

fn table_name(text: &str) -> Result<TableName, String> {
    TableName::parse(text).map_err(|error| error.to_string())
}

fn node_id(text: &str) -> Result<NodeId, String> {
    NodeId::parse(text).map_err(|error| error.to_string())
}

/// A field for people: texts without quotes.
fn text_of(body: &Value, field: &str) -> String {
    body[field].as_str().map_or_else(|| body[field].to_string(), str::to_owned)
}
