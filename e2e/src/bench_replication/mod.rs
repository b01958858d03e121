//! `make bench-replication`: what copies cost. A cluster of real processes over a real etcd on one machine.
//!
//! Prints the machine, then one line for each figure. Client, servers and etcd share the machine's cores and its disk, so
//! compare figures of one run with each other, not with those of another machine.

mod catch_up;
mod gaps;
mod idle;
mod usage;
mod writes;

use std::time::Duration;

use anyhow::Result;
use serde_json::{Value, json};
use tonic::transport::Channel;
use vectorsphere_proto::v1;

use crate::bench_server::machine;
use crate::debian::Debian;
use crate::local_cluster::LocalCluster;
use crate::rest::RestClient;
use crate::settings::Settings;

/// The only gateway; nodes behind it are slaves.
const GATEWAY: usize = 0;
const SLAVES: usize = 3;
const MIB: f64 = 1024.0 * 1024.0;

/// What can be measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Part {
    /// Latency, throughput and bytes of writes.
    Writes,
    /// How long writes stand still when something is lost (needs root).
    Gaps,
    /// How fast copies catch up.
    CatchUp,
    /// What shards cost that nobody uses.
    Idle,
}

/// Runs the benchmark and gives each part's figures to `tell` when they are there. `quick` uses the sample of 10,000
/// documents and shorter measurements.
///
/// # Errors
/// When the cluster does not start or a call fails.
pub async fn run(
    settings: &Settings,
    parts: &[Part],
    quick: bool,
    tell: impl Fn(&str) -> Result<()>,
) -> Result<()> {
    let debian = match settings.data().filter(|_| !quick) {
        Some(folder) => Debian::load(&folder)?,
        None => Debian::sample()?,
    };
    let (documents, dimension) = (debian.len(), debian.dimension());
    tell(&format!(
        "{}{documents} documents x {dimension}, 1 master, {SLAVES} slaves, etcd of one member",
        machine()?
    ))?;
    let seconds = |short, long| Duration::from_secs(if quick { short } else { long });
    for part in parts {
        let told = match part {
            Part::Writes => writes::run(settings, &debian, seconds(2, 10)).await?,
            Part::Gaps => gaps::run(settings, if quick { 3 } else { 10 }).await?,
            Part::CatchUp => catch_up::run(settings, &debian, seconds(10, 590)).await?,
            Part::Idle => idle::run(settings, if quick { 100 } else { 1_000 }, seconds(10, 60)).await?,
        };
        tell(told.trim_end())?;
    }
    Ok(())
}

/// A cluster, and the client of its gateway.
async fn cluster(settings: &Settings) -> Result<(LocalCluster, RestClient)> {
    let cluster = LocalCluster::start(settings, 1, SLAVES).await?;
    let client = cluster.client(GATEWAY)?;
    Ok((cluster, client))
}

/// A connection to the gateway's public gRPC API.
async fn channel(cluster: &LocalCluster) -> Result<Channel> {
    let url = format!("http://127.0.0.1:{}", cluster.nodes()[GATEWAY].grpc_port);
    Ok(Channel::from_shared(url)?.connect().await?)
}

/// Makes a table and waits until all its copies are in sync.
async fn create(
    (cluster, client): (&LocalCluster, &RestClient),
    name: &str,
    dimension: usize,
    (shards, replicas): (u32, usize),
) -> Result<()> {
    let body = json!({
        "table_name": name, "dimension": dimension, "metric": "dot", "shards": shards, "replicas": replicas, "min_isr": 1
    });
    client.post::<Value>("/api/v1/tables", &body).await?;
    cluster.wait_until_whole(client, name, replicas).await
}

/// A document of the set, without its metadata, under another id.
fn document(debian: &Debian, index: usize, document_id: String) -> v1::Document {
    let (_, row) = debian.document(index % debian.len());
    let bytes = row.iter().flat_map(|x| x.to_le_bytes()).collect();
    let vector = v1::Vector { data: Some(v1::vector::Data::LittleEndianF32(bytes)) };
    v1::Document { document_id, vector: Some(vector), metadata: None, if_version: None }
}

fn upsert(table: &str, documents: Vec<v1::Document>) -> v1::UpsertDocumentsRequest {
    v1::UpsertDocumentsRequest { table_name: table.to_owned(), documents, request_id: String::new() }
}
