//! The whole of a run: three members of etcd, two masters, four slaves, each on a host of its own, each slave with a volume
//! of its own.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};

use super::etcd::{Etcd, MEMBERS};
use super::network::Network;
use super::process::{Process, Program};
use super::volume::{Tools, Volume};
use crate::rest::RestClient;
use crate::settings::Settings;

/// Nodes that hold no data; each has a gateway, one of them is the Master.
pub const MASTERS: [&str; 2] = ["master-0", "master-1"];
/// Nodes that hold data.
pub const SLAVES: [&str; 4] = ["slave-0", "slave-1", "slave-2", "slave-3"];
/// The host that the run itself is on.
pub const CLIENTS: &str = "clients";

/// Shorter than usual, so that what takes minutes happens within a run.
const REREPLICATE_AFTER: &str = "20s";
const READMISSION_PAUSE: &str = "1s";
const CHECKPOINT_LOG_BYTES: u64 = 128 << 10;
/// What the server takes for a request, and a little more for its answer to arrive.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(4);
const CALL_TIMEOUT: Duration = Duration::from_secs(6);

/// Everything that a fault may hit.
#[derive(Debug)]
pub struct Lab {
    /// Links between the hosts.
    pub network: Network,
    /// The metadata store.
    pub etcd: Etcd,
    nodes: BTreeMap<&'static str, Process>,
    volumes: BTreeMap<&'static str, Volume>,
}

/// All hosts of a run.
pub fn hosts() -> impl Iterator<Item = String> {
    [CLIENTS].into_iter().chain(MEMBERS).chain(MASTERS).chain(SLAVES).map(str::to_owned)
}

/// All nodes.
pub fn nodes() -> impl Iterator<Item = &'static str> {
    MASTERS.into_iter().chain(SLAVES)
}

impl Lab {
    /// Starts everything below `folder`, over a network that was laid.
    ///
    /// # Errors
    /// When a program or the machine lacks something.
    pub async fn start(settings: &Settings, network: Network, folder: &Path) -> Result<Lab> {
        let etcd = settings.tool("etcd");
        ensure!(etcd.is_file(), "{} is missing: run scripts/build-tools etcd", etcd.display());
        let mut etcd = Etcd::new(&etcd, &network, folder)?;
        etcd.start().await?;
        let tools = Tools::build(folder).await?;
        let mut lab = Lab { network, etcd, nodes: BTreeMap::new(), volumes: BTreeMap::new() };
        for slave in SLAVES {
            lab.volumes.insert(slave, Volume::make(slave, folder, tools.clone()).await?);
        }
        let server = settings.workspace_binary("vectorsphere")?;
        for node in nodes() {
            let process = lab.node_process(&server, node, folder)?;
            lab.nodes.insert(node, process);
        }
        lab.start_nodes()?;
        Ok(lab)
    }

    fn node_process(&self, server: &Path, node: &'static str, folder: &Path) -> Result<Process> {
        let node_type = if MASTERS.contains(&node) { "master" } else { "slave" };
        let volume = self.volumes.get(node);
        let data_dir: PathBuf = volume.map_or(folder, Volume::folder).join(format!("{node}-data"));
        let config = json!({
            "service_name": "torture",
            "node_type": node_type,
            "node_id": node,
            "advertise_address": self.network.address(node),
            "data_dir": data_dir,
            "checkpoint_log_bytes": CHECKPOINT_LOG_BYTES,
            "replication": {"rereplicate_after": REREPLICATE_AFTER, "readmission_pause": READMISSION_PAUSE, "leaving_grace": "1s"},
            "etcd": {"endpoints": self.etcd.endpoints()},
        });
        let path = folder.join(format!("{node}.yaml"));
        std::fs::write(&path, serde_yaml::to_string(&config)?)?;
        let command = [server.display().to_string(), "-c".to_owned(), path.display().to_string()];
        Ok(Process::new(Program {
            host: node.to_owned(),
            command: command.into(),
            environment: volume.map(Volume::environment).unwrap_or_default(),
            log: folder.join(format!("{node}.log")),
        }))
    }

    /// Starts the nodes that do not run.
    ///
    /// # Errors
    /// When one cannot be started.
    pub fn start_nodes(&mut self) -> Result<()> {
        self.nodes.values_mut().filter(|node| !node.is_started()).try_for_each(Process::start)
    }

    /// Ends everything and takes the volumes away.
    ///
    /// # Errors
    /// When a process does not end, or a volume is still in use.
    pub async fn end(&mut self) -> Result<()> {
        for node in self.nodes.values_mut() {
            node.end().await?;
        }
        for volume in self.volumes.values() {
            volume.unmount().await?;
        }
        self.etcd.end().await
    }

    /// A node.
    ///
    /// # Panics
    /// When there is no such node.
    pub fn node(&mut self, name: &str) -> &mut Process {
        self.nodes.get_mut(name).expect("a node of the run")
    }

    /// The volume of a slave.
    ///
    /// # Panics
    /// When there is no such slave.
    #[must_use]
    pub fn volume(&self, slave: &str) -> &Volume {
        &self.volumes[slave]
    }

    /// The folder with the data of a slave.
    #[must_use]
    pub fn data(&self, slave: &str) -> PathBuf {
        self.volume(slave).folder().join(format!("{slave}-data"))
    }

    /// An error when a process has ended by itself.
    ///
    /// # Errors
    /// Its last words.
    pub fn check_processes(&mut self) -> Result<()> {
        self.nodes.values_mut().try_for_each(Process::check)
    }

    /// A client of a gateway.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn client(&self, master: &str) -> Result<RestClient> {
        Ok(RestClient::new(self.url(master), CALL_TIMEOUT)?.with_deadline(REQUEST_TIMEOUT))
    }

    /// Where the REST API of a gateway is.
    #[must_use]
    pub fn url(&self, master: &str) -> String {
        format!("http://{}:8080", self.network.address(master))
    }

    /// The ends of all logs.
    #[must_use]
    pub fn last_words(&self) -> String {
        let words = |(name, node): (&&str, &Process)| format!("--- {name}\n{}\n", node.last_words());
        self.nodes.iter().map(words).collect()
    }

    /// The node that is Master, as one gateway sees it.
    ///
    /// # Errors
    /// When there is none at present.
    pub async fn master(&self) -> Result<&'static str> {
        for gateway in MASTERS {
            let status: Result<Value, _> = self.client(gateway)?.get("/api/v1/cluster/status").await;
            let Ok(status) = status else { continue };
            let name = status["master"]["node_id"].as_str().unwrap_or_default();
            if let Some(master) = MASTERS.into_iter().find(|master| *master == name) {
                return Ok(master);
            }
        }
        bail!("no gateway knows a Master")
    }

    /// The gateway beside the Master.
    ///
    /// # Errors
    /// When there is no Master at present.
    pub async fn other_gateway(&self) -> Result<&'static str> {
        let master = self.master().await?;
        MASTERS.into_iter().find(|name| *name != master).context("one gateway is not the Master")
    }
}
