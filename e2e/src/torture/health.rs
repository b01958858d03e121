//! How the cluster is: what its gateways say of nodes and shards, and when it is whole again.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use super::lab::{Lab, MASTERS, nodes};
use crate::rest::RestClient;
use crate::shards::{Shard, shards};
use crate::wait::{Hopeless, until};

/// Until everything is as it was after any fault: a session ends (8 s), a copy is made anew, on a slow machine.
const PATIENCE: Duration = Duration::from_secs(120);

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
                        .try_for_each(|shard| check(table, shard, *replicas))?;
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

/// Whole, and nothing is on its way out.
fn check(table: &str, shard: &Shard, replicas: usize) -> Result<()> {
    shard.check_whole(replicas).with_context(|| table.to_owned())?;
    ensure!(shard.replicas.len() == replicas, "{table}: more than {replicas} copies: {shard:?}");
    Ok(())
}
