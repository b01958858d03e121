//! A cluster of real processes on this machine: one etcd and any number of nodes, each of which can be killed.

use std::fs::File;
use std::net::{Ipv4Addr, TcpListener};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::process::{Child, Command};

use crate::rest::RestClient;
use crate::settings::Settings;
use crate::shards::shards;

/// Longest wait for any condition of a healthy cluster on a slow machine.
const PATIENCE: Duration = Duration::from_secs(60);
/// Pause between two looks at a condition.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// The running cluster; dropping it kills every process and removes the data.
pub struct LocalCluster {
    folder: TempDir,
    server: PathBuf,
    etcd_binary: PathBuf,
    etcd_port: u16,
    etcd: Option<Child>,
    nodes: Vec<LocalNode>,
}

/// One node of it.
pub struct LocalNode {
    /// Its node id.
    pub name: String,
    /// `master`, `slave` or `auto`.
    pub node_type: &'static str,
    /// Its REST and health port.
    pub http_port: u16,
    /// Its public gRPC port.
    pub grpc_port: u16,
    process: Option<Child>,
}

impl LocalCluster {
    /// Starts etcd, masters and slaves, and waits until all are registered and a Master is elected.
    ///
    /// # Errors
    /// When a binary is missing or the cluster does not become ready.
    pub async fn start(settings: &Settings, masters: usize, slaves: usize) -> Result<LocalCluster> {
        let mut cluster = LocalCluster {
            folder: tempfile::Builder::new().prefix("vectorsphere-local-").tempdir()?,
            server: settings.workspace_binary("vectorsphere")?,
            etcd_binary: settings.tool("etcd"),
            etcd_port: free_port()?,
            etcd: None,
            nodes: Vec::new(),
        };
        if !cluster.etcd_binary.is_file() {
            bail!("{} is missing: run scripts/build-tools etcd", cluster.etcd_binary.display());
        }
        cluster.start_etcd()?;
        let kinds = (0..masters).map(|i| (i, "master")).chain((0..slaves).map(|i| (i, "slave")));
        for (index, node_type) in kinds {
            cluster.add_node(&format!("{node_type}-{index}"), node_type)?;
        }
        cluster.wait_until_ready().await?;
        Ok(cluster)
    }

    /// Starts etcd over its data.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start_etcd(&mut self) -> Result<()> {
        let client = format!("http://127.0.0.1:{}", self.etcd_port);
        let peer = format!("http://127.0.0.1:{}", free_port()?);
        let mut command = Command::new(&self.etcd_binary);
        command.arg("--data-dir").arg(self.folder.path().join("etcd"));
        for (flag, value) in [
            ("--listen-client-urls", &client),
            ("--advertise-client-urls", &client),
            ("--listen-peer-urls", &peer),
            ("--initial-advertise-peer-urls", &peer),
            ("--initial-cluster", &format!("default={peer}")),
        ] {
            command.arg(flag).arg(value);
        }
        self.etcd = Some(spawn(command, &self.folder.path().join("etcd.log"))?);
        Ok(())
    }

    /// SIGKILL to etcd.
    ///
    /// # Errors
    /// When it cannot be waited for.
    pub async fn kill_etcd(&mut self) -> Result<()> {
        if let Some(mut etcd) = self.etcd.take() {
            etcd.kill().await?;
        }
        Ok(())
    }

    /// A snapshot of etcd.
    ///
    /// # Errors
    /// When etcd does not make it.
    pub async fn snapshot_etcd(&self) -> Result<PathBuf> {
        let file = self.folder.path().join("etcd.snapshot");
        let endpoint = format!("http://127.0.0.1:{}", self.etcd_port);
        let mut command = Command::new(self.etcd_binary.with_file_name("etcdctl"));
        run(command.args(["--endpoints", &endpoint, "snapshot", "save"]).arg(&file)).await?;
        Ok(file)
    }

    /// Puts the snapshot in the place of a stopped etcd's data. `arguments`: more of `etcdutl snapshot restore`.
    ///
    /// # Errors
    /// When it cannot be restored.
    pub async fn restore_etcd(&self, snapshot: &Path, arguments: &[&str]) -> Result<()> {
        let data = self.folder.path().join("etcd");
        std::fs::remove_dir_all(&data)?;
        let mut command = Command::new(self.etcd_binary.with_file_name("etcdutl"));
        command.args(["snapshot", "restore"]).arg(snapshot).arg("--data-dir").arg(&data).args(arguments);
        run(&mut command).await.map(drop)
    }

    /// Waits for the end of a node that ends by itself; its status.
    ///
    /// # Errors
    /// When it does not end, or does not run.
    pub async fn await_end(&mut self, index: usize) -> Result<ExitStatus> {
        let mut process = self.nodes[index].process.take().context("the node does not run")?;
        match tokio::time::timeout(PATIENCE, process.wait()).await {
            Ok(status) => Ok(status?),
            Err(_) => bail!(self.tails(&format!("the end of {}", self.nodes[index].name))),
        }
    }

    /// What a node has logged, in all its runs.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn logged(&self, index: usize) -> Result<String> {
        Ok(std::fs::read_to_string(self.log(&self.nodes[index].name))?)
    }

    /// Adds a node and starts it.
    ///
    /// # Errors
    /// When its files cannot be written or it cannot be started.
    pub fn add_node(&mut self, name: &str, node_type: &'static str) -> Result<()> {
        let [http_port, grpc_port, internal_port] = [free_port()?, free_port()?, free_port()?];
        let config = json!({
            "service_name": "local",
            "node_type": node_type,
            "node_id": name,
            "bind_address": "127.0.0.1",
            "advertise_address": "127.0.0.1",
            "http_port": http_port,
            "default_port": grpc_port,
            "internal_port": internal_port,
            "data_dir": self.folder.path().join(name),
            "etcd": {"endpoints": [format!("http://127.0.0.1:{}", self.etcd_port)]},
        });
        std::fs::write(self.config(name), serde_yaml::to_string(&config)?)?;
        let name = name.to_owned();
        self.nodes.push(LocalNode { name, node_type, http_port, grpc_port, process: None });
        self.start_node(self.nodes.len() - 1)
    }

    /// Starts a node that does not run.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start_node(&mut self, index: usize) -> Result<()> {
        let name = &self.nodes[index].name;
        let mut command = Command::new(&self.server);
        command.arg("-c").arg(self.config(name)).args(["-type", self.nodes[index].node_type]);
        let process = spawn(command, &self.log(name))?;
        self.nodes[index].process = Some(process);
        Ok(())
    }

    /// SIGKILL to a node, as the kernel's out-of-memory killer would.
    ///
    /// # Errors
    /// When it cannot be waited for.
    pub async fn kill_node(&mut self, index: usize) -> Result<()> {
        if let Some(mut process) = self.nodes[index].process.take() {
            process.kill().await?;
        }
        Ok(())
    }

    /// SIGTERM to a node; waits for its end, which must be in order.
    ///
    /// # Errors
    /// When it does not end, or not with status 0.
    pub async fn stop_node(&mut self, index: usize) -> Result<()> {
        let Some(mut process) = self.nodes[index].process.take() else { return Ok(()) };
        let pid = process.id().context("the node has ended by itself")?;
        kill(Pid::from_raw(i32::try_from(pid)?), Signal::SIGTERM)?;
        let status =
            tokio::time::timeout(PATIENCE, process.wait()).await.context("the node does not end")??;
        if status.success() { Ok(()) } else { bail!("{} ended with {status}", self.nodes[index].name) }
    }

    /// The nodes, in the order in which they were added.
    #[must_use]
    pub fn nodes(&self) -> &[LocalNode] {
        &self.nodes
    }

    /// A node's data directory.
    #[must_use]
    pub fn data_dir(&self, index: usize) -> PathBuf {
        self.folder.path().join(&self.nodes[index].name)
    }

    /// Puts a stopped node's data directory back to an older image, or takes everything away from it (`None`).
    ///
    /// # Errors
    /// When files cannot be copied or removed.
    pub fn replace_data(&self, index: usize, image: Option<&Path>) -> Result<()> {
        let own = self.data_dir(index);
        std::fs::remove_dir_all(&own)?;
        match image {
            Some(image) => copy(image, &own),
            None => Ok(()),
        }
    }

    /// A copy of a stopped node's data directory.
    ///
    /// # Errors
    /// When files cannot be copied.
    pub fn image_of_data(&self, index: usize) -> Result<PathBuf> {
        let image = self.folder.path().join(format!("{}.image", self.nodes[index].name));
        copy(&self.data_dir(index), &image)?;
        Ok(image)
    }

    /// `vectorsphere admin` with these arguments, at a node's gateway; what it prints.
    ///
    /// # Errors
    /// When it cannot be run or does not succeed.
    pub async fn admin(&self, gateway: usize, arguments: &[&str]) -> Result<String> {
        let server = format!("http://127.0.0.1:{}", self.nodes[gateway].http_port);
        let mut command = Command::new(&self.server);
        run(command.args(["admin", "--server", &server]).args(arguments)).await
    }

    /// The process of a node.
    ///
    /// # Errors
    /// When the node does not run.
    pub fn process_id(&self, index: usize) -> Result<u32> {
        let process = self.nodes[index].process.as_ref().context("the node does not run")?;
        process.id().context("the node has ended by itself")
    }

    /// The revision of etcd: it grows with each change.
    ///
    /// # Errors
    /// When etcd does not say.
    pub async fn etcd_revision(&self) -> Result<i64> {
        let endpoint = format!("http://127.0.0.1:{}", self.etcd_port);
        let mut command = Command::new(self.etcd_binary.with_file_name("etcdctl"));
        let told = run(command.args(["--endpoints", &endpoint, "endpoint", "status", "--write-out", "json"]))
            .await?;
        let told: Value = serde_json::from_str(&told)?;
        told[0]["Status"]["header"]["revision"].as_i64().context("no revision")
    }

    /// Resident memory of a node in bytes.
    ///
    /// # Errors
    /// When the node does not run.
    pub fn resident_bytes(&self, index: usize) -> Result<u64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.process_id(index)?))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS")?;
        let kib: u64 = line.trim().trim_end_matches(" kB").parse()?;
        Ok(kib * 1024)
    }

    /// A client of a node's gateway.
    ///
    /// # Errors
    /// When the HTTP client cannot be made.
    pub fn client(&self, index: usize) -> Result<RestClient> {
        RestClient::new(format!("http://127.0.0.1:{}", self.nodes[index].http_port), Duration::from_secs(30))
    }

    /// Waits until every running node is registered and a Master is elected.
    ///
    /// # Errors
    /// When it takes too long; says what was seen last and where the logs are.
    pub async fn wait_until_ready(&self) -> Result<()> {
        let running = self.nodes.iter().filter(|node| node.process.is_some()).count();
        let gateway = self.nodes.iter().position(|node| node.node_type != "slave" && node.process.is_some());
        let client = self.client(gateway.context("no gateway runs")?)?;
        self.wait_for("all nodes and a Master", async || {
            let status: Value = client.get("/api/v1/cluster/status").await?;
            let ready = status["nodes"] == json!(running)
                && !status["master"].is_null()
                && status["status"] == json!("green");
            if ready { Ok(()) } else { bail!("{status}") }
        })
        .await
    }

    /// Waits until every shard of a table has a primary and so many copies that are well and in sync.
    ///
    /// # Errors
    /// When it takes too long.
    pub async fn wait_until_whole(&self, client: &RestClient, table: &str, copies: usize) -> Result<()> {
        self.wait_for("all copies in sync", async || {
            shards(client, table).await?.iter().try_for_each(|shard| shard.check_whole(copies))
        })
        .await
    }

    /// Waits until `look` succeeds.
    ///
    /// # Errors
    /// The last error of `look`, when it takes too long.
    pub async fn wait_for(&self, what: &str, look: impl AsyncFn() -> Result<()>) -> Result<()> {
        let until = Instant::now() + PATIENCE;
        let mut pause = tokio::time::interval(LOOK_EVERY);
        loop {
            pause.tick().await;
            match look().await {
                Ok(()) => return Ok(()),
                Err(error) if Instant::now() >= until => return Err(error.context(self.tails(what))),
                Err(_) => {}
            }
        }
    }

    /// The ends of all logs, for a failure's message.
    fn tails(&self, what: &str) -> String {
        let mut text = format!("{what}: not within {PATIENCE:?}");
        for node in &self.nodes {
            let log = std::fs::read_to_string(self.log(&node.name)).unwrap_or_default();
            let lines: Vec<_> = log.lines().rev().take(15).collect();
            text.push_str(&format!("\n--- {}\n", node.name));
            lines.iter().rev().for_each(|line| text.push_str(&format!("{line}\n")));
        }
        text
    }

    fn config(&self, name: &str) -> PathBuf {
        self.folder.path().join(format!("{name}.yaml"))
    }

    fn log(&self, name: &str) -> PathBuf {
        self.folder.path().join(format!("{name}.log"))
    }
}

/// Copies a tree with everything that the system knows of its files.
fn copy(from: &Path, to: &Path) -> Result<()> {
    let status = std::process::Command::new("cp").arg("-a").arg(from).arg(to).status()?;
    if status.success() { Ok(()) } else { bail!("cp -a {} {}: {status}", from.display(), to.display()) }
}

/// What a command prints.
async fn run(command: &mut Command) -> Result<String> {
    let output = command.kill_on_drop(true).output().await?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    if !output.status.success() {
        bail!("{:?}: {}: {}", command.as_std(), output.status, text(&output.stderr));
    }
    Ok(text(&output.stdout))
}

fn spawn(mut command: Command, log: &Path) -> Result<Child> {
    let file = File::options().create(true).append(true).open(log)?;
    command.stdin(Stdio::null()).stdout(file.try_clone()?).stderr(file).kill_on_drop(true);
    command.spawn().with_context(|| format!("cannot start {:?}", command.as_std().get_program()))
}

/// A port that is free, and stays so: below those that the system gives to connections, and each given out once.
/// A port of this machine that nobody listens at.
pub(crate) fn free_port() -> Result<u16> {
    static GIVEN: AtomicU32 = AtomicU32::new(0);
    const PORTS: Range<u32> = 20_000..32_000;
    // Runs beside this one begin elsewhere.
    let begin = std::process::id() * 97;
    for _ in PORTS {
        let turn = begin.wrapping_add(GIVEN.fetch_add(1, Ordering::Relaxed)) % (PORTS.end - PORTS.start);
        let port = u16::try_from(PORTS.start + turn)?;
        if TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
            return Ok(port);
        }
    }
    bail!("no port of {PORTS:?} is free")
}
