//! What a gateway says of the shards of a table.

use anyhow::{Context, Result, ensure};
use serde::Deserialize;
use serde_json::Value;

use crate::rest::RestClient;
use crate::wait::Hopeless;

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

impl Shard {
    /// The node of its primary.
    #[must_use]
    pub fn primary_node(&self) -> Option<&str> {
        self.primary.as_ref()?.node_id.as_deref()
    }

    /// That it has a primary and so many copies that are well and in sync; others may be on their way in or out.
    ///
    /// # Errors
    /// What is missing.
    pub fn check_whole(&self, replicas: usize) -> Result<()> {
        let is_well = |copy: &&Replica| {
            copy.role == "full"
                && copy.in_sync
                && !copy.damaged
                && copy.failure.is_none()
                && copy.flushed_lsn.is_some()
        };
        ensure!(self.primary_node().is_some(), "no primary: {self:?}");
        let well = self.replicas.iter().filter(is_well).count();
        ensure!(well == replicas, "{well} of {replicas} copies: {self:?}");
        Ok(())
    }

    /// Compares the digests of copies that are at rest; how many there were.
    ///
    /// # Errors
    /// Two copies differ at the same position, or they are not at the same one.
    pub fn compare_digests(&self, table: &str) -> Result<usize> {
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
