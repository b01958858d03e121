//! `make bench-replication`: what copies cost. A cluster of real processes over a real etcd on one machine.
//!
//! Prints the machine, then one line for each figure. Client, servers and etcd share the machine's cores and its disk, so
//! compare figures of one run with each other, not with those of another machine.

mod catch_up;
mod gaps;
mod idle;
mod usage;
mod writes;

use std::fmt::Write as _;
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

/// Runs the benchmark; `quick` uses the sample of 10,000 documents and shorter measurements.
///
/// # Errors
/// When the cluster does not start or a call fails.
pub async fn run(settings: &Settings, quick: bool) -> Result<String> {
    let debian = match settings.data().filter(|_| !quick) {
        Some(folder) => Debian::load(&folder)?,
        None => Debian::sample()?,
    };
    let mut told = machine()?;
    let (documents, dimension) = (debian.len(), debian.dimension());
    writeln!(told, "{documents} documents x {dimension}, 1 master, {SLAVES} slaves, etcd of one member")?;
    told.push_str(&writes::run(settings, &debian, Duration::from_secs(if quick { 2 } else { 10 })).await?);
    told.push_str(&gaps::run(settings, if quick { 3 } else { 10 }).await?);
    let away = Duration::from_secs(if quick { 10 } else { 590 });
    told.push_str(&catch_up::run(settings, &debian, away).await?);
    let watched = Duration::from_secs(if quick { 10 } else { 60 });
    told.push_str(&idle::run(settings, if quick { 100 } else { 1_000 }, watched).await?);
    Ok(told)
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
