//! The commands of README and tutorial, run as written against a cluster of three nodes in one process.

use std::path::Path;
use std::process::{Command as StdCommand, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;
use tokio::process::{Child, Command};
use vectorsphere_e2e::rest::RestClient;
use vectorsphere_e2e::settings::Settings;

/// The port in the documents, and the first of the consecutive ports that the cluster really takes.
const WRITTEN: &str = "localhost:8080";

/// Steps: start `vectorsphere dev --nodes 3`; run every `curl` of README, then of the tutorial, in order, on tables that
/// each document makes itself; each must succeed with a JSON or text answer.
#[tokio::test(flavor = "multi_thread")]
async fn every_curl_in_the_documents_works() -> Result<()> {
    let settings = Settings::from_environment()?;
    let data = tempfile::tempdir()?;
    let port = free_ports()?;
    let server = settings.workspace_binary("vectorsphere")?;
    let mut cluster = start(&server, port, data.path())?;
    wait_until_ready(&mut cluster, port).await?;
    for document in ["README.md", "docs/tutorial.md"] {
        let text = std::fs::read_to_string(settings.checkout().join(document))?;
        let commands = curls(&text);
        ensure!(
            commands.len() >= 4,
            "{document} has only {} commands: is it still read right?",
            commands.len()
        );
        for command in commands {
            run(&command, port).with_context(|| document.to_owned())?;
        }
        delete_tables(port).await?;
    }
    Ok(())
}

fn start(server: &Path, port: u16, data: &Path) -> Result<Child> {
    let mut command = Command::new(server);
    command.args(["dev", "--nodes", "3", "--http-port", &port.to_string(), "--data-dir"]).arg(data);
    command.stdin(Stdio::null()).kill_on_drop(true);
    command.spawn().context("cannot start the cluster")
}

async fn wait_until_ready(cluster: &mut Child, port: u16) -> Result<()> {
    let client = RestClient::new(format!("http://127.0.0.1:{port}"), Duration::from_secs(5))?;
    let until = Instant::now() + Duration::from_secs(60);
    let mut pause = tokio::time::interval(Duration::from_millis(50));
    loop {
        pause.tick().await;
        let status = client.get::<Value>("/api/v1/cluster/status").await;
        if status.as_ref().is_ok_and(|status| status["status"] == "green" && status["nodes"] == 3) {
            return Ok(());
        }
        if let Some(ended) = cluster.try_wait()? {
            bail!("the cluster ended with {ended}");
        }
        ensure!(Instant::now() < until, "not ready, last seen {status:?}");
    }
}

/// The `curl` commands of all shell blocks, continuation lines joined.
fn curls(document: &str) -> Vec<String> {
    let blocks = document.split("```sh\n").skip(1).filter_map(|rest| rest.split("\n```").next());
    let lines = blocks.flat_map(|block| {
        let joined = block.replace("\\\n", " ");
        joined.lines().map(str::to_owned).collect::<Vec<_>>()
    });
    lines.filter(|line| line.starts_with("curl ")).collect()
}

fn run(command: &str, port: u16) -> Result<()> {
    let shell = command
        .replacen("curl ", "curl --silent --show-error --fail-with-body --max-time 30 ", 1)
        .replace(WRITTEN, &format!("127.0.0.1:{port}"));
    let output = StdCommand::new("bash").args(["-c", &shell]).output()?;
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    ensure!(output.status.success(), "{command}\nfailed: {out}{err}");
    Ok(())
}

async fn delete_tables(port: u16) -> Result<()> {
    let client = RestClient::new(format!("http://127.0.0.1:{port}"), Duration::from_secs(30))?;
    let listed: Value = client.get("/api/v1/tables").await?;
    for table in listed["tables"].as_array().context("no tables")? {
        let path = format!("/api/v1/tables/{}", table["table_name"].as_str().context("no name")?);
        client.call::<Value>("DELETE".parse()?, &path, None).await?;
    }
    Ok(())
}

/// A port with enough free ones after it for three nodes.
fn free_ports() -> Result<u16> {
    for base in (21_000..29_000).step_by(20) {
        let free = |port: u16| std::net::TcpListener::bind(("127.0.0.1", port)).is_ok();
        if (base..base + 20).all(free) {
            return Ok(base);
        }
    }
    bail!("no twenty free ports in a row")
}
