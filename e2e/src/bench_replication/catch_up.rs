//! How fast a copy catches up: from the log after it was away, and from nothing.

use std::fmt::Write as _;
use std::time::{Duration, Instant};

use anyhow::Result;
use tonic::transport::Channel;
use vectorsphere_proto::v1::document_service_client::DocumentServiceClient;

use super::{MIB, SLAVES, channel, cluster, create, document, upsert};
use crate::debian::Debian;
use crate::load::BATCH;
use crate::settings::Settings;

const TABLE: &str = "catch_up";
const SHARDS: u32 = 4;
/// The slave that goes away.
const AWAY: usize = 1;
/// Time between two batches while it is away.
const PAUSE: Duration = Duration::from_millis(500);

pub(super) async fn run(settings: &Settings, debian: &Debian, away: Duration) -> Result<String> {
    let (mut cluster, client) = cluster(settings).await?;
    let channel = channel(&cluster).await?;
    create((&cluster, &client), TABLE, debian.dimension(), (SHARDS, SLAVES)).await?;
    let mut told = String::new();
    let mib = |documents: usize| (documents * debian.dimension() * 4) as f64 / MIB;
    for first in (0..debian.len()).step_by(BATCH) {
        write(&channel, debian, first..(first + BATCH).min(debian.len())).await?;
    }

    cluster.kill_node(AWAY).await?;
    let (until, mut missed) = (Instant::now() + away, 0);
    while Instant::now() < until {
        let next = Instant::now() + PAUSE;
        write(&channel, debian, missed..missed + BATCH).await?;
        missed += BATCH;
        tokio::time::sleep_until(next.into()).await;
    }
    let started = Instant::now();
    cluster.start_node(AWAY)?;
    cluster.wait_until_whole(&client, TABLE, SLAVES).await?;
    let took = started.elapsed();
    writeln!(
        told,
        "away for {away:?}, {:.1} MiB of vectors missed: in sync {took:.1?} after its process began ({:.1} MiB/s)",
        mib(missed),
        mib(missed) / took.as_secs_f64()
    )?;

    cluster.stop_node(AWAY).await?;
    cluster.replace_data(AWAY, None)?;
    let started = Instant::now();
    cluster.start_node(AWAY)?;
    cluster.wait_until_whole(&client, TABLE, SLAVES).await?;
    let took = started.elapsed();
    writeln!(
        told,
        "an empty disk, {:.1} MiB of vectors: in sync {took:.1?} after its process began ({:.1} MiB/s)",
        mib(debian.len()),
        mib(debian.len()) / took.as_secs_f64()
    )?;
    Ok(told)
}

async fn write(channel: &Channel, debian: &Debian, range: std::ops::Range<usize>) -> Result<()> {
    let documents = range.map(|index| document(debian, index, (index % debian.len()).to_string())).collect();
    DocumentServiceClient::new(channel.clone()).upsert_documents(upsert(TABLE, documents)).await?;
    Ok(())
}
