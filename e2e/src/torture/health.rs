//! How the cluster is: what its gateways say of nodes and shards, and when it is whole again.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde::Deserialize;
use serde_json::{Value, json};

use super::lab::{Lab, MASTERS, nodes};
use crate::rest::RestClient;
use crate::wait::{Hopeless, until};

/// Until everything is as it was after any fault: a session ends (8 s), a copy is made anew, on a slow machine.
const PATIENCE: Duration = Duration::from_secs(120);

/// A shard, by a gateway's word.
#[derive(Clone, Debug, Deserialize)]
pub struct Shard {
    /// Its number.
    pub shard: u32,
    /// Its reign.
    pub epoch: u64,
    /// Its primary.
    pub primary: Option<Primary>,
    /// Its copies.
    pub replicas: Vec<Replica>,
}

/// The primary of a shard.
#[derive(Clone, Debug, Deserialize)]
pub struct Primary {
    /// Where it is.
    pub node_id: Option<String>,
}

/// A copy of a shard.
#[derive(Clone, Debug, Deserialize)]
pub struct Replica {
    /// Which.
    pub replica_id: String,
    /// Where it is.
    pub node_id: String,
    /// full, learner or leaving.
    pub role: String,
    /// It says that its data is lost.
    pub damaged: bool,
    /// It has every acknowledged write.
    pub in_sync: bool,
    /// Last durable record.
    pub flushed_lsn: Option<u64>,
    /// Last record that can be read.
    pub applied_lsn: Option<u64>,
    /// Of its content.
    pub digest: Option<Digest>,
    /// Why it takes no part.
    pub failure: Option<String>,
}

/// The digest of a copy.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
pub struct Digest {
    /// The position.
    pub lsn: u64,
    /// The content.
    pub content: String,
}

/// The shards of a table.
///
/// # Errors
/// When the gateway does not say.
pub async fn shards(client: &RestClient, table: &str) -> Result<Vec<Shard>> {
    let mut answer: Value = client.get(&format!("/api/v1/tables/{table}/shards")).await?;
    serde_json::from_value(answer["shards"].take()).with_context(|| format!("shards of {table}"))
}

impl Lab {
    /// Waits until every process runs and is registered, every shard has all its copies in sync, and all gateways see that.
    ///
    /// # Errors
    /// What is missing, after two minutes; at once when a process has ended by itself.
    pub async fn wait_until_whole(&mut self, tables: &BTreeMap<String, usize>) -> Result<()> {
        self.etcd.wait_until_whole().await?;
        let clients: Vec<RestClient> = MASTERS.iter().map(|name| self.client(name)).collect::<Result<_>>()?;
        until("the cluster is whole", PATIENCE, async || {
            self.check_processes().map_err(|error| Hopeless(format!("{error:#}")))?;
            for client in &clients {
                let status: Value = client.get("/api/v1/cluster/status").await?;
                let is_whole =
                    status["status"] == json!("green") && status["nodes"] == json!(nodes().count());
                ensure!(is_whole, "{status}");
                for (table, replicas) in tables {
                    shards(client, table)
                        .await?
                        .iter()
                        .try_for_each(|shard| shard.check(table, *replicas))?;
                }
            }
            Ok(())
        })
        .await
    }

    /// Waits until all copies of each shard have applied all that their primary has, and compares their digests.
    ///
    /// # Errors
    /// Two copies differ at the same position, or they do not come to the same one.
    pub async fn compare_digests(&self, tables: &BTreeMap<String, usize>) -> Result<usize> {
        let client = self.client(MASTERS[0])?;
        let mut compared = 0;
        for table in tables.keys() {
            compared += until(&format!("all copies of {table} are at rest"), PATIENCE, async || {
                let shards = shards(&client, table).await?;
                shards.iter().map(|shard| shard.compare_digests(table)).sum::<Result<usize>>()
            })
            .await?;
        }
        Ok(compared)
    }
}

impl Shard {
    /// The node of its primary.
    #[must_use]
    pub fn primary_node(&self) -> Option<&str> {
        self.primary.as_ref()?.node_id.as_deref()
    }

    fn check(&self, table: &str, replicas: usize) -> Result<()> {
        let is_well = |copy: &&Replica| {
            copy.role == "full"
                && copy.in_sync
                && !copy.damaged
                && copy.failure.is_none()
                && copy.flushed_lsn.is_some()
        };
        ensure!(self.primary_node().is_some(), "{table}: no primary: {self:?}");
        let well = self.replicas.iter().filter(is_well).count();
        ensure!(
            well == replicas && self.replicas.len() == replicas,
            "{table}: {well} of {replicas} copies: {self:?}"
        );
        Ok(())
    }

    fn compare_digests(&self, table: &str) -> Result<usize> {
        let digests: Vec<&Digest> = self.replicas.iter().filter_map(|copy| copy.digest.as_ref()).collect();
        for pair in digests.windows(2) {
            if pair[0].lsn == pair[1].lsn && pair[0] != pair[1] {
                return Err(Hopeless(format!("{table}: copies differ at one position: {self:?}")).into());
            }
        }
        let is_at_rest = |copy: &Replica| {
            copy.applied_lsn == copy.flushed_lsn
                && copy.digest.as_ref().map(|digest| digest.lsn) == copy.applied_lsn
        };
        let same_end = self.replicas.windows(2).all(|pair| pair[0].applied_lsn == pair[1].applied_lsn);
        ensure!(self.replicas.iter().all(is_at_rest) && same_end, "{table}: {self:?}");
        Ok(digests.len())
    }
}
