//! Loads the Debian set through REST, with a progress bar where a person watches.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use futures::stream::{self, TryStreamExt};
use indicatif::{ProgressBar, ProgressStyle};

use crate::debian::Debian;
use crate::rest::RestClient;

/// Documents of one batch.
pub const BATCH: usize = 500;

/// Loads every document into `table`, `clients` batches at a time, and returns how long it took.
///
/// # Errors
/// The first batch that is not acknowledged.
pub async fn load(client: &RestClient, table: &str, debian: &Debian, clients: usize) -> Result<Duration> {
    let bar = progress(debian.len() as u64, "documents");
    let started = Instant::now();
    let batches = (0..debian.len()).step_by(BATCH).map(|first| first..(first + BATCH).min(debian.len()));
    stream::iter(batches.map(anyhow::Ok))
        .try_for_each_concurrent(clients, async |range| {
            let count = range.len() as u64;
            client
                .upsert(table, debian, range.clone())
                .await
                .with_context(|| format!("documents {range:?}"))?;
            bar.inc(count);
            Ok(())
        })
        .await?;
    bar.finish_and_clear();
    Ok(started.elapsed())
}

/// Runs every query, `clients` at a time, and checks each answer against the exact one.
///
/// # Errors
/// The first query that fails or whose answer is wrong.
pub async fn check_queries(
    client: &RestClient,
    table: &str,
    debian: &Debian,
    clients: usize,
) -> Result<Duration> {
    let bar = progress(debian.queries() as u64, "queries");
    let started = Instant::now();
    stream::iter((0..debian.queries()).map(anyhow::Ok))
        .try_for_each_concurrent(clients, async |query| {
            let answer = client.search_exactly(table, debian.query(query), 100).await?;
            debian.check(query, &answer.pairs())?;
            bar.inc(1);
            Ok(())
        })
        .await?;
    bar.finish_and_clear();
    Ok(started.elapsed())
}

/// A bar on a terminal, nothing elsewhere.
fn progress(length: u64, what: &'static str) -> ProgressBar {
    let style = ProgressStyle::with_template("{bar:40} {pos}/{len} {msg}, {per_sec}, {eta} left");
    ProgressBar::new(length).with_style(style.expect("a valid template")).with_message(what)
}
