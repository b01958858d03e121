//! An etcd of three members, each on a host of its own.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use nix::mount::{MsFlags, mount, umount};
use serde_json::{Value, json};

use super::network::Network;
use super::process::{Process, Program};
use crate::http;
use crate::wait::until;

/// Hosts of the members.
pub const MEMBERS: [&str; 3] = ["etcd-0", "etcd-1", "etcd-2"];
/// An election takes one to three seconds; a member that comes back reads its log first.
const PATIENCE: Duration = Duration::from_secs(60);

/// The three members.
#[derive(Debug)]
pub struct Etcd {
    members: Vec<Process>,
    urls: Vec<String>,
    http: reqwest::Client,
    memory: PathBuf,
}

impl Etcd {
    /// Members over data below `folder`, not started yet. They keep it in memory, where the machine's disk, busy with other
    /// things, does not hold them up: only faults of this run do.
    ///
    /// # Errors
    /// When there is no such memory, or the HTTP client cannot be made.
    pub fn new(binary: &Path, network: &Network, folder: &Path) -> Result<Etcd> {
        let memory = folder.join("etcd");
        fs::create_dir_all(&memory)?;
        let nothing: Option<&str> = None;
        mount(Some("tmpfs"), &memory, Some("tmpfs"), MsFlags::empty(), nothing)
            .context("cannot mount a tmpfs")?;
        let url = |host: &str, port: u16| format!("http://{}:{port}", network.address(host));
        let all = MEMBERS.map(|host| format!("{host}={}", url(host, 2380))).join(",");
        let member = |host: &str| {
            let (client, peer) = (url(host, 2379), url(host, 2380));
            let data = memory.join(host).display().to_string();
            let options = [
                ("--name", host),
                ("--data-dir", &data),
                ("--listen-client-urls", &client),
                ("--advertise-client-urls", &client),
                ("--listen-peer-urls", &peer),
                ("--initial-advertise-peer-urls", &peer),
                ("--initial-cluster", &all),
                ("--log-level", "warn"),
            ];
            let options = options.iter().flat_map(|(name, value)| [(*name).to_owned(), (*value).to_owned()]);
            Process::new(Program {
                host: host.to_owned(),
                command: [binary.display().to_string()].into_iter().chain(options).collect(),
                environment: Vec::new(),
                log: folder.join(format!("{host}.log")),
            })
        };
        Ok(Etcd {
            members: MEMBERS.iter().map(|host| member(host)).collect(),
            urls: MEMBERS.iter().map(|host| url(host, 2379)).collect(),
            http: http::client(Duration::from_secs(2))?,
            memory,
        })
    }

    /// Ends all members and takes their data away.
    ///
    /// # Errors
    /// When a process does not end.
    pub async fn end(&mut self) -> Result<()> {
        for member in &mut self.members {
            member.end().await?;
        }
        umount(&self.memory).context("the data of etcd is still in use")
    }

    /// Where clients connect to.
    #[must_use]
    pub fn endpoints(&self) -> &[String] {
        &self.urls
    }

    /// A member.
    pub fn member(&mut self, index: usize) -> &mut Process {
        &mut self.members[index]
    }

    /// Starts those that do not run, and waits until all agree on a leader.
    ///
    /// # Errors
    /// When that takes too long.
    pub async fn start(&mut self) -> Result<()> {
        for member in self.members.iter_mut().filter(|member| !member.is_started()) {
            member.start()?;
        }
        self.wait_until_whole().await
    }

    /// Waits until all members answer and agree on a leader.
    ///
    /// # Errors
    /// When a member has ended by itself, or that takes too long.
    pub async fn wait_until_whole(&mut self) -> Result<()> {
        self.members.iter_mut().try_for_each(Process::check)?;
        until("all members of etcd agree on a leader", PATIENCE, async || {
            let mut leaders = Vec::new();
            for index in 0..MEMBERS.len() {
                leaders.push(self.status(index).await?.1);
            }
            leaders.dedup();
            ensure!(leaders.len() == 1 && leaders[0] != "0", "they name {leaders:?}");
            Ok(())
        })
        .await
    }

    /// The member that leads.
    ///
    /// # Errors
    /// When none says that it does.
    pub async fn leader(&self) -> Result<usize> {
        for index in 0..MEMBERS.len() {
            if let Ok((own, leader)) = self.status(index).await
                && own == leader
            {
                return Ok(index);
            }
        }
        bail!("no member of etcd leads")
    }

    /// Whether a member can read what a quorum agrees on.
    pub async fn can_read(&self, index: usize) -> bool {
        let key = json!({"key": "AA==", "limit": "1"});
        let answer = self.http.post(format!("{}/v3/kv/range", self.urls[index])).json(&key).send().await;
        answer.is_ok_and(|answer| answer.status().is_success())
    }

    /// A member's id, and the id of the leader that it knows.
    async fn status(&self, index: usize) -> Result<(String, String)> {
        let url = format!("{}/v3/maintenance/status", self.urls[index]);
        let answer: Value = self.http.post(url).json(&json!({})).send().await?.json().await?;
        let text = |value: &Value| value.as_str().map(str::to_owned);
        let own = text(&answer["header"]["member_id"]).with_context(|| answer.to_string())?;
        Ok((own, text(&answer["leader"]).unwrap_or_else(|| "0".to_owned())))
    }
}
