//! Durable upserts: latency beside the disk's own, throughput of batches, bytes per byte of vector.

use std::fmt::Write as _;
use std::fs::File;
use std::io::Write as _;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use futures::future::try_join_all;
use futures::stream::{self, TryStreamExt};
use hdrhistogram::Histogram;
use tonic::transport::Channel;
use vectorsphere_proto::v1::document_service_client::DocumentServiceClient;

use super::usage::{allocated_bytes, disk_bytes, loopback_bytes};
use super::{GATEWAY, SLAVES, channel, cluster, create, document, upsert};
use crate::debian::Debian;
use crate::load::BATCH;
use crate::local_cluster::LocalCluster;
use crate::settings::Settings;

const SHARDS: u32 = 4;
const CLIENTS: [usize; 3] = [1, 8, 64];
/// Batches that are under way at once.
const LOADERS: usize = 4;
/// Bytes of a record on the way to the disk, about those of one document.
const RECORD: usize = 2048;

pub(super) async fn run(settings: &Settings, debian: &Debian, measure: Duration) -> Result<String> {
    let mut told = String::new();
    for replicas in 1..=SLAVES {
        let (cluster, client) = cluster(settings).await?;
        let channel = channel(&cluster).await?;
        writeln!(told, "replicas {replicas}, {SHARDS} shards:")?;
        let disk = fsync_latency(&cluster.data_dir(1), measure)?;
        writeln!(told, "  fdatasync of {RECORD} appended bytes:    {}", latency(&disk))?;
        create((&cluster, &client), "single", debian.dimension(), (SHARDS, replicas)).await?;
        for clients in CLIENTS {
            let (calls, rate) = singles(&channel, debian, clients, measure).await?;
            writeln!(told, "  one document a call, {clients:>2} clients: {}, {rate:.0}/s", latency(&calls))?;
        }
        create((&cluster, &client), "batches", debian.dimension(), (SHARDS, replicas)).await?;
        told.push_str(&batches(&cluster, &channel, debian).await?);
    }
    Ok(told)
}

/// Latency of the disk that the data lies on, by one writer.
fn fsync_latency(folder: &Path, measure: Duration) -> Result<Histogram<u64>> {
    let path = folder.join("fsync.bench");
    let mut file = File::create(&path)?;
    let mut histogram = Histogram::new(3)?;
    let until = Instant::now() + measure;
    while Instant::now() < until {
        let begun = Instant::now();
        file.write_all(&[7; RECORD])?;
        file.sync_data()?;
        histogram.record(begun.elapsed().as_micros() as u64)?;
    }
    std::fs::remove_file(path)?;
    Ok(histogram)
}

/// Calls of one document each by `clients` that call one after the other; their latency, and how many there were a second.
async fn singles(
    channel: &Channel,
    debian: &Debian,
    clients: usize,
    measure: Duration,
) -> Result<(Histogram<u64>, f64)> {
    let started = Instant::now();
    let (from, until) = (started + measure / 10, started + measure);
    let each = try_join_all((0..clients).map(async |client| {
        let mut service = DocumentServiceClient::new(channel.clone());
        let mut histogram: Histogram<u64> = Histogram::new(3)?;
        for number in 0.. {
            let begun = Instant::now();
            if begun >= until {
                break;
            }
            let document = document(debian, client * 997 + number, format!("{clients}-{client}-{number}"));
            service.upsert_documents(upsert("single", vec![document])).await?;
            if begun >= from {
                histogram.record(begun.elapsed().as_micros() as u64)?;
            }
        }
        anyhow::Ok(histogram)
    }))
    .await?;
    let mut all: Histogram<u64> = Histogram::new(3)?;
    for histogram in each {
        all.add(histogram)?;
    }
    let rate = all.len() as f64 / (until - from).as_secs_f64();
    Ok((all, rate))
}

async fn batches(cluster: &LocalCluster, channel: &Channel, debian: &Debian) -> Result<String> {
    let slaves = || (1..=SLAVES).map(|slave| cluster.process_id(slave));
    let written = || slaves().map(|process| disk_bytes(process?)).sum::<Result<u64>>();
    let lying = || (1..=SLAVES).map(|slave| allocated_bytes(&cluster.data_dir(slave))).sum::<Result<u64>>();
    let before = (written()?, lying()?, loopback_bytes()?);
    let started = Instant::now();
    stream::iter((0..debian.len()).step_by(BATCH).map(anyhow::Ok))
        .try_for_each_concurrent(LOADERS, async |first| {
            let range = first..(first + BATCH).min(debian.len());
            let documents = range.map(|index| document(debian, index, index.to_string())).collect();
            DocumentServiceClient::new(channel.clone())
                .upsert_documents(upsert("batches", documents))
                .await?;
            Ok(())
        })
        .await?;
    let took = started.elapsed();
    let after = (written()?, lying()?, loopback_bytes()?);
    cluster.process_id(GATEWAY).context("the gateway runs")?;
    let vectors = (debian.len() * debian.dimension() * 4) as f64;
    let share = |before: u64, after: u64| (after - before) as f64 / vectors;
    Ok(format!(
        "  batches of {BATCH}, {LOADERS} at once: {:.0} documents/s; for each byte of vector {:.2} over the network (client and \
         gateway too), {:.2} written, {:.2} on the disks at the end\n",
        debian.len() as f64 / took.as_secs_f64(),
        share(before.2, after.2),
        share(before.0, after.0),
        share(before.1, after.1),
    ))
}

fn latency(histogram: &Histogram<u64>) -> String {
    let ms = |quantile| histogram.value_at_quantile(quantile) as f64 / 1000.0;
    format!("p50 {:.2} ms, p99 {:.2} ms", ms(0.5), ms(0.99))
}
