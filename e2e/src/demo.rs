//! `make demo`: three nodes in one process, 10,000 real documents, and searches that a person can judge.

use std::io::{Write, stdout};
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};
use tokio::process::{Child, Command};
use tokio::signal::unix::{SignalKind, signal};

use crate::debian::Debian;
use crate::load;
use crate::rest::{CallError, RestClient, SearchAnswer};

const TABLE: &str = "debian_packages";
const NODES: usize = 3;
/// What `vectorsphere dev` adds to a node's REST port for gRPC, and for what nodes tell each other.
const GRPC_OFFSET: u32 = 1_010;
const INTERNAL_OFFSET: u32 = 2_020;
/// A started cluster elects its Master in about a second; a slow machine may need more.
const READY_WITHIN: Duration = Duration::from_secs(60);

/// Runs the demo on `port`; returns after the searches when `exit` is set, else when the user stops it.
///
/// # Errors
/// When the cluster does not start, a load fails, or an answer is not the exact one.
pub async fn run(server: &Path, port: u16, exit: bool) -> Result<()> {
    ports_are_free(port)?;
    let folder = tempfile::Builder::new().prefix("vectorsphere-demo-").tempdir()?;
    let log = folder.path().join("cluster.log");
    say(&format!("Starting {NODES} nodes in one process (log: {})", log.display()))?;
    let mut cluster = start(server, port, folder.path(), &log)?;
    let mut terminate = signal(SignalKind::terminate())?;
    // Told to stop while it starts, it cleans up as well.
    let told = tokio::select! {
        told = tell(&mut cluster, port, &log) => told,
        _ = tokio::signal::ctrl_c() => Err(anyhow::anyhow!("stopped")),
        _ = terminate.recv() => Err(anyhow::anyhow!("stopped")),
    };
    if told.is_ok() && !exit {
        how_to_go_on(port)?;
        wait_for_the_user(&mut cluster).await?;
    }
    let stopped = stop(cluster).await;
    told.and(stopped)
}

/// Another server at these ports would be taken for the demo's own cluster, and be written to.
fn ports_are_free(port: u16) -> Result<()> {
    for node in 0..NODES as u32 {
        for offset in [0, GRPC_OFFSET, INTERNAL_OFFSET] {
            let taken = u32::from(port) + offset + node;
            let number = u16::try_from(taken)
                .with_context(|| format!("port {taken} does not exist: choose a lower PORT"))?;
            TcpListener::bind((Ipv4Addr::LOCALHOST, number)).with_context(|| {
                format!(
                    "the demo needs port {number}, which is taken: choose another with `make demo PORT=9000`"
                )
            })?;
        }
    }
    Ok(())
}

fn start(server: &Path, port: u16, folder: &Path, log: &PathBuf) -> Result<Child> {
    let log = std::fs::File::create(log)?;
    Command::new(server)
        .args(["dev", "--nodes", &NODES.to_string(), "--http-port", &port.to_string(), "--data-dir"])
        .arg(folder.join("data"))
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log)
        .kill_on_drop(true)
        .spawn()
        .with_context(|| format!("cannot start {}", server.display()))
}

async fn tell(cluster: &mut Child, port: u16, log: &Path) -> Result<()> {
    let client = RestClient::new(format!("http://127.0.0.1:{port}"), Duration::from_secs(30))?;
    let status = ready(cluster, &client, log).await?;
    say(&format!("Ready: {} nodes, Master {}", status["nodes"], status["master"]["node_id"]))?;

    let debian = Debian::sample()?;
    client.create_table(TABLE, debian.dimension(), 3).await?;
    let took = load::load(&client, TABLE, &debian, 2).await?;
    let rate = debian.len() as f64 / took.as_secs_f64();
    say(&format!(
        "Loaded {} documents of {} dimensions in {:.1} s ({rate:.0}/s), each on disk",
        debian.len(),
        debian.dimension(),
        took.as_secs_f64()
    ))?;

    let took = load::check_queries(&client, TABLE, &debian, 2).await?;
    say(&format!(
        "Ran {} queries in {:.1} s; every answer is the exact one",
        debian.queries(),
        took.as_secs_f64()
    ))?;
    for package in ["postgresql", "chromium"] {
        packages_like(&client, package).await?;
    }
    Ok(())
}

/// Waits until the cluster has a Master and all nodes, and returns its status.
async fn ready(cluster: &mut Child, client: &RestClient, log: &Path) -> Result<Value> {
    let until = Instant::now() + READY_WITHIN;
    let mut pause = tokio::time::interval(Duration::from_millis(50));
    loop {
        pause.tick().await;
        if let Some(status) = cluster.try_wait()? {
            bail!("the cluster ended with {status}:\n{}", std::fs::read_to_string(log)?);
        }
        let last = match client.get::<Value>("/api/v1/cluster/status").await {
            Ok(status) if status["nodes"] == json!(NODES) && !status["master"].is_null() => {
                return Ok(status);
            }
            Ok(status) => status.to_string(),
            Err(error) => error.to_string(),
        };
        if Instant::now() >= until {
            bail!(
                "the cluster was not ready in {READY_WITHIN:?}; last seen: {last}; its log is {}",
                log.display()
            );
        }
    }
}

async fn packages_like(client: &RestClient, package: &str) -> Result<(), anyhow::Error> {
    let body = json!({"document_id": package, "top_k": 5, "with_metadata": true});
    let path = format!("/api/v1/tables/{TABLE}/search");
    let answer: SearchAnswer = match client.post(&path, &body).await {
        Err(CallError::Problem(problem)) if problem.code == "document_not_found" => return Ok(()),
        answer => answer?,
    };
    say(&format!("\nPackages like {package}:"))?;
    for hit in answer.hits {
        let text = |field: &str| hit.metadata[field].as_str().unwrap_or_default().to_owned();
        say(&format!(
            "  {:.3}  {:<28} {:<10} {}",
            hit.score,
            hit.document_id,
            text("section"),
            text("desc")
        ))?;
    }
    Ok(())
}

fn how_to_go_on(port: u16) -> Result<()> {
    let url = format!("http://127.0.0.1:{port}");
    say(&format!("\nThe cluster keeps running at {url}. Try, in another terminal:"))?;
    say(&format!("  curl {url}/api/v1/cluster/status"))?;
    say(&format!("  curl {url}/api/v1/tables/{TABLE}/search -H 'Content-Type: application/json' \\"))?;
    say("    -d '{\"document_id\": \"postgresql\", \"top_k\": 5, \"with_metadata\": true}'")?;
    say(&format!(
        "gRPC is at port {}. Stop it all with Ctrl-C; its data goes with it.",
        u32::from(port) + GRPC_OFFSET
    ))
}

async fn wait_for_the_user(cluster: &mut Child) -> Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    tokio::select! {
        interrupted = tokio::signal::ctrl_c() => Ok(interrupted?),
        _ = terminate.recv() => Ok(()),
        status = cluster.wait() => bail!("the cluster ended by itself with {}", status?),
    }
}

/// SIGTERM, then waits for the orderly end.
async fn stop(mut cluster: Child) -> Result<()> {
    if let Some(pid) = cluster.id() {
        let pid = nix::unistd::Pid::from_raw(i32::try_from(pid)?);
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM)?;
    }
    let status =
        tokio::time::timeout(READY_WITHIN, cluster.wait()).await.context("the cluster did not stop")??;
    if status.success() { say("Stopped.") } else { bail!("the cluster ended with {status}") }
}

fn say(text: &str) -> Result<()> {
    let mut out = stdout().lock();
    writeln!(out, "{text}")?;
    Ok(out.flush()?)
}
