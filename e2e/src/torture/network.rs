//! The network of a run: a namespace for each host, and one for the switch between them. The machine itself has no address
//! in it and no packet leaves it.
//!
//! A cut is a rule of the receiver that drops what comes from the sender, without a word to it: connections stay open and
//! silent. The kernel counts what each rule drops, which shows that a cut took effect.

use std::collections::BTreeMap;
use std::fs::{File, create_dir_all};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, setns, unshare};

use crate::command::{ip, run};

/// Where `ip` keeps the names of namespaces.
const NAMES: &str = "/run/netns";
const SWITCH: &str = "switch";

/// The hosts and their addresses.
#[derive(Clone, Debug)]
pub struct Network {
    addresses: BTreeMap<String, String>,
}

/// Gives the calling thread, and the threads and processes that it will start, mounts of their own: what they mount is seen
/// by nobody else, and goes when they have ended, however they end. Names of network namespaces are such mounts.
///
/// # Errors
/// When the kernel refuses: this needs root.
pub fn enter_own_mounts() -> Result<()> {
    let nothing: Option<&str> = None;
    unshare(CloneFlags::CLONE_NEWNS).context("cannot make a mount namespace")?;
    mount(nothing, "/", nothing, MsFlags::MS_REC | MsFlags::MS_PRIVATE, nothing)
        .context("cannot make the mounts private")?;
    create_dir_all(NAMES)?;
    mount(Some("tmpfs"), NAMES, Some("tmpfs"), MsFlags::empty(), nothing)
        .context("cannot hide the network namespaces of others")
}

impl Network {
    /// Lays the network of hosts with these names.
    ///
    /// # Errors
    /// When a step is refused.
    pub async fn lay(hosts: impl IntoIterator<Item = String>) -> Result<Network> {
        let mut addresses = BTreeMap::new();
        ip(&format!("netns add {SWITCH}")).await?;
        ip(&format!("-n {SWITCH} link add bridge type bridge")).await?;
        ip(&format!("-n {SWITCH} link set bridge up")).await?;
        for (number, host) in (1..).zip(hosts) {
            let address = format!("10.0.0.{number}");
            ip(&format!("netns add {host}")).await?;
            ip(&format!("-n {SWITCH} link add port{number} type veth peer name eth0 netns {host}")).await?;
            ip(&format!("-n {SWITCH} link set port{number} master bridge up")).await?;
            ip(&format!("-n {host} link set lo up")).await?;
            ip(&format!("-n {host} addr add {address}/24 dev eth0")).await?;
            ip(&format!("-n {host} link set eth0 up")).await?;
            addresses.insert(host, address);
        }
        Ok(Network { addresses })
    }

    /// Puts the calling thread, and those that it will start, on this host.
    ///
    /// # Errors
    /// When there is no such host.
    pub fn enter(&self, host: &str) -> Result<()> {
        let namespace = File::open(Network::namespace(host))?;
        setns(namespace, CloneFlags::CLONE_NEWNET).with_context(|| format!("cannot enter host {host}"))
    }

    /// The address of a host.
    ///
    /// # Panics
    /// When there is no such host.
    #[must_use]
    pub fn address(&self, host: &str) -> &str {
        &self.addresses[host]
    }

    /// All hosts.
    pub fn hosts(&self) -> impl Iterator<Item = &str> {
        self.addresses.keys().map(String::as_str)
    }

    /// The file that stands for the namespace of a host.
    #[must_use]
    pub fn namespace(host: &str) -> PathBuf {
        Path::new(NAMES).join(host)
    }

    /// From now on `to` gets nothing that comes from `from`.
    ///
    /// # Errors
    /// When the rule cannot be set.
    pub async fn cut(&self, from: &[&str], to: &str) -> Result<()> {
        let senders: Vec<&str> =
            from.iter().filter(|host| **host != to).map(|host| self.address(host)).collect();
        if senders.is_empty() {
            return Ok(());
        }
        iptables(to, &["-A", "INPUT", "-s", &senders.join(","), "-j", "DROP"]).await.map(drop)
    }

    /// From now on this part of what `to` gets from the others is lost.
    ///
    /// # Errors
    /// When the rule cannot be set.
    pub async fn lose(&self, to: &str, part: f64) -> Result<()> {
        let chance = format!("{part:.3}");
        let rule =
            ["-A", "INPUT", "-i", "eth0", "-m", "statistic", "--mode", "random", "--probability", &chance];
        iptables(to, &[&rule[..], &["-j", "DROP"]].concat()).await.map(drop)
    }

    /// Cuts hosts off from others, in both directions.
    ///
    /// # Errors
    /// When a rule cannot be set.
    pub async fn part(&self, some: &[&str], others: &[&str]) -> Result<()> {
        for host in some {
            self.cut(others, host).await?;
        }
        for host in others {
            self.cut(some, host).await?;
        }
        Ok(())
    }

    /// Ends all cuts; returns how many packets they have dropped.
    ///
    /// # Errors
    /// When the rules cannot be read or removed.
    pub async fn heal(&self) -> Result<u64> {
        let mut dropped = 0;
        for host in self.hosts() {
            dropped += dropped_packets(&iptables(host, &["-nvxL", "INPUT"]).await?)?;
            iptables(host, &["-F", "INPUT"]).await?;
        }
        Ok(dropped)
    }
}

async fn iptables(host: &str, arguments: &[&str]) -> Result<String> {
    let namespace = format!("--net={}", Network::namespace(host).display());
    run("nsenter", &[&[&namespace, "iptables", "-w"], arguments].concat()).await
}

/// The sum of the counters of the rules that drop.
fn dropped_packets(listing: &str) -> Result<u64> {
    let rules = listing.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    let dropping = rules.filter(|columns| columns.get(2) == Some(&"DROP"));
    dropping
        .map(|columns| columns[0].parse::<u64>().with_context(|| format!("no counter in {listing}")))
        .sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_was_dropped_counts() {
        let listing = "Chain INPUT (policy ACCEPT 7 packets, 420 bytes)\n    \
            pkts      bytes target     prot opt in     out     source               destination\n      \
            12      720 DROP       0    --  *      *       10.0.0.1             0.0.0.0/0\n      \
            99      720 ACCEPT     0    --  *      *       10.0.0.2             0.0.0.0/0\n       \
            3      180 DROP       0    --  *      *       10.0.0.3             0.0.0.0/0\n";
        assert_eq!(dropped_packets(listing).unwrap(), 15);
        assert!(dropped_packets("many bytes DROP all").is_err());
    }
}
