//! Many shards that nobody uses: memory, processor time, writes of etcd.

use std::time::Duration;

use anyhow::Result;

use super::usage::cpu_time;
use super::{GATEWAY, SLAVES, cluster, create};
use crate::settings::Settings;

const REPLICAS: usize = 2;

pub(super) async fn run(settings: &Settings, shards: u32, watched: Duration) -> Result<String> {
    let (cluster, client) = cluster(settings).await?;
    let resident = || (1..=SLAVES).map(|slave| cluster.resident_bytes(slave)).sum::<Result<u64>>();
    let before = resident()?;
    for table in 0..shards / 100 {
        create((&cluster, &client), &format!("idle{table}"), 128, (100, REPLICAS)).await?;
    }
    let held = resident()?.saturating_sub(before) as f64;
    let copies = f64::from(shards) * REPLICAS as f64;
    let spent = |index| cpu_time(cluster.process_id(index)?);
    let slaves = || (1..=SLAVES).map(spent).sum::<Result<Duration>>();
    // What was just made comes to rest first.
    tokio::time::sleep(Duration::from_secs(5)).await;
    let (at_first, master, revision) = (slaves()?, spent(GATEWAY)?, cluster.etcd_revision().await?);
    tokio::time::sleep(watched).await;
    let percent = |time: Duration| 100.0 * time.as_secs_f64() / watched.as_secs_f64();
    let minutes = watched.as_secs_f64() / 60.0;
    Ok(format!(
        "{shards} shards with {REPLICAS} copies, idle: {:.0} KiB of memory a copy; {:.1} % of a core for all slaves, {:.1} % for the \
         master; {:.1} changes of etcd a minute\n",
        held / copies / 1024.0,
        percent(slaves()? - at_first),
        percent(spent(GATEWAY)? - master),
        (cluster.etcd_revision().await? - revision) as f64 / minutes,
    ))
}
