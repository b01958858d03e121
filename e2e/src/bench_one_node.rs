//! What the wire costs: one node in one process, one shard, a client that does nothing but send and read bytes.
//!
//! Beside each figure stands its floor, measured in the same minutes: an echo of the same bytes over a socket, and the
//! disk's own sync. Bars are printed as lines of JSON: what is allowed over what was seen, at least 1.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fs::File;
use std::io::{Seek as _, Write as _};
use std::ops::RangeInclusive;
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use hdrhistogram::Histogram;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::process::{Child, Command};

use crate::bench_server::{instruction_sets, machine};
use crate::debian::Debian;
use crate::lean::{Connection, echo, measure, post};
use crate::load::{self, BATCH};
use crate::local_cluster::free_port;
use crate::rest::RestClient;
use crate::settings::Settings;

const TABLE: &str = "debian";
const SEARCH: &str = "/api/v1/tables/debian/search";
const SEARCH_BATCH: &str = "/api/v1/tables/debian/search:batch";
const UPSERT: &str = "/api/v1/tables/debian/documents";
const TOP_K: usize = 10;
const BATCH_QUERIES: usize = 50;
/// Of the sections that filters choose from, percent of the documents.
const SHARE: RangeInclusive<usize> = 2..=8;
/// Place of the anti-correlated filters behind the others.
const ANTI_CORRELATED: usize = 4;
/// Batches that are under way at once while loading.
const LOADERS: usize = 2;
/// Rounds of server and echo, one after the other; medians count.
const ROUNDS: usize = 5;
/// Documents a second that are written while searches are measured.
const WRITES: u64 = 1_000;
const WRITERS: u64 = 4;
/// Of the file whose syncs are measured.
const SYNCED_BYTES: usize = 32 << 20;
/// Wait for a node that starts, or a graph that is built.
const PATIENCE: Duration = Duration::from_secs(300);

/// A node with its data; dropping it kills the process.
struct OneNode {
    folder: TempDir,
    program: std::path::PathBuf,
    port: u16,
    process: Child,
}

impl OneNode {
    async fn start(settings: &Settings) -> Result<OneNode> {
        let folder = tempfile::Builder::new().prefix("vectorsphere-bench-").tempdir()?;
        let (program, port) = (settings.workspace_binary("vectorsphere")?, free_port()?);
        let process = spawn(&program, port, &folder)?;
        let node = OneNode { folder, program, port, process };
        node.eventually("/api/v1/cluster/status", |status| !status["master"].is_null()).await?;
        Ok(node)
    }

    fn client(&self) -> Result<RestClient> {
        RestClient::new(format!("http://127.0.0.1:{}", self.port), Duration::from_secs(60))
    }

    /// Looks until the answer is as wanted; the time that it took.
    async fn eventually(&self, path: &str, is_wanted: impl Fn(&Value) -> bool) -> Result<Duration> {
        let (client, started) = (self.client()?, Instant::now());
        let mut pause = tokio::time::interval(Duration::from_millis(5));
        loop {
            pause.tick().await;
            let last = client.get::<Value>(path).await;
            if last.as_ref().is_ok_and(&is_wanted) {
                return Ok(started.elapsed());
            }
            if started.elapsed() > PATIENCE {
                bail!("{path} was not as wanted in {PATIENCE:?}: {last:?}");
            }
        }
    }

    async fn restart(&mut self) -> Result<()> {
        self.process.kill().await?;
        self.process = spawn(&self.program, self.port, &self.folder)?;
        Ok(())
    }

    /// Seconds and number of the shard's parts of searches so far.
    async fn search_time(&self) -> Result<(f64, f64)> {
        let url = format!("http://127.0.0.1:{}/metrics", self.port);
        let text = crate::http::client(Duration::from_secs(10))?.get(url).send().await?.text().await?;
        let value = |name: &str| {
            let line = text.lines().find(|line| line.starts_with(name));
            line.and_then(|line| line.rsplit_once(' ')?.1.parse::<f64>().ok())
                .with_context(|| format!("no {name}"))
        };
        Ok((
            value("vectorsphere_shard_search_seconds_sum")?,
            value("vectorsphere_shard_search_seconds_count")?,
        ))
    }
}

fn spawn(program: &std::path::Path, port: u16, folder: &TempDir) -> Result<Child> {
    let log = File::options().create(true).append(true).open(folder.path().join("node.log"))?;
    let process = Command::new(program)
        .args(["dev", "--nodes", "1", "--http-port", &port.to_string(), "--data-dir"])
        .arg(folder.path().join("data"))
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log)
        .kill_on_drop(true)
        .spawn();
    process.with_context(|| format!("cannot start {}", program.display()))
}

/// Runs the benchmark and tells each figure; `quick` takes the sample of 10,000 documents and shorter measurements.
///
/// # Errors
/// When the node does not start, or a call fails.
pub async fn run(settings: &Settings, quick: bool, tell: impl Fn(&str) -> Result<()>) -> Result<()> {
    let debian = match settings.data().filter(|_| !quick) {
        Some(folder) => Debian::load(&folder)?,
        None => Debian::sample()?,
    };
    let time = Duration::from_secs(if quick { 1 } else { 4 });
    let tier = instruction_sets()?.last().copied().unwrap_or("scalar");
    tell(machine()?.trim_end())?;
    let bar = |name: &str, allowed: f64, seen: f64| {
        let ratio = (1000.0 * allowed / seen).round() / 1000.0;
        tell(&json!({"bar": name, "tier": tier, "ratio": ratio, "at_least": 1.0}).to_string())
    };
    let mut node = OneNode::start(settings).await?;
    let documents = debian.len();
    tell(&format!(
        "{documents} documents x {}, one node, one shard, batches of {BATCH}",
        debian.dimension()
    ))?;

    let rest = node.client()?;
    let schema = json!({"table_name": TABLE, "dimension": debian.dimension(), "shards": 1, "replicas": 1,
        "metadata_indexes": {"size_kib": "integer", "section": "keyword"}});
    rest.post::<Value>("/api/v1/tables", &schema).await?;
    let loaded = load::load(&rest, TABLE, &debian, LOADERS).await?;
    let is_indexed = |stats: &Value| stats["indexed_rows"].as_u64() >= Some(documents as u64 * 95 / 100);
    let indexed = loaded + node.eventually("/api/v1/tables/debian/stats", is_indexed).await?;
    tell(&format!(
        "upload {:.1} s, all in graphs after {:.1} s",
        loaded.as_secs_f64(),
        indexed.as_secs_f64()
    ))?;
    if !quick {
        bar("upload of the Debian set until graphs serve it, 12 s", 12.0, indexed.as_secs_f64())?;
    }

    let plain = searches(&debian, &json!({}));
    let floor_and_search = latency(&node, &plain, time).await?;
    tell(&floor_and_search.to_string())?;
    let Latency { echo, index, search } = floor_and_search;
    bar("one connection, p50: echo + index + 40 us", echo + index + 40.0, search)?;
    let all: Vec<(String, Vec<Vec<u8>>)> = filters(&debian)
        .into_iter()
        .map(|(name, filter)| (name, searches(&debian, &json!({"filter": filter}))))
        .chain([("anti-correlated".to_owned(), anti_correlated(&debian, &json!({})))])
        .chain([("with metadata".to_owned(), searches(&debian, &json!({"with_metadata": true})))])
        .chain([("JSON array".to_owned(), array_searches(&debian))])
        .collect();
    let mut alone = HashMap::new();
    let first = ("plain".to_owned(), plain.clone());
    for (name, requests) in std::iter::once(&first).chain(&all) {
        for connections in [1, 8] {
            let seen = measure(node.port, connections, time, requests)?;
            tell(&format!("search, {name:<15} {connections} connections: {}", figures(&seen, time)))?;
            if connections == 1 {
                alone.insert(name.as_str(), seen.len() as f64);
            }
        }
    }
    for (name, share) in [("size, 1 %", 0.8), ("size, 10 %", 0.35), ("size, 50 %", 0.5)] {
        bar(&format!("filter by {name}: {share} of unfiltered speed"), alone[name], share * alone["plain"])?;
    }
    for connections in [1, 8] {
        let seen = measure(node.port, connections, time, &batches(&debian))?;
        let queries = seen.len() as f64 * BATCH_QUERIES as f64 / (time - time / 10).as_secs_f64();
        tell(&format!(
            "search, batches of {BATCH_QUERIES} {connections} connections: {queries:>7.0} queries/s, p50 {} us",
            seen.value_at_quantile(0.5)
        ))?;
    }
    let exact = anti_correlated(&debian, &json!({"exact": true}));
    let recall = recall(&node, &all[ANTI_CORRELATED].1, &exact)?;
    let scanned = measure(node.port, 1, time, &exact)?;
    tell(&format!(
        "search, anti-correlated: recall {recall:.4}; with exact 1 connections: {}",
        figures(&scanned, time)
    ))?;
    bar("anti-correlated filter: recall .95", recall, 0.95)?;
    bar(
        "anti-correlated filter: at most twice the time of a scan",
        alone["anti-correlated"],
        scanned.len() as f64 / 2.0,
    )?;

    let idle = measure(node.port, 1, time * 2, &plain)?;
    let busy = while_writing(&node, &debian, time * 2, &plain)?;
    tell(&format!("search, idle:                {}", figures(&idle, time * 2)))?;
    tell(&format!("search, {WRITES} upserts/s:     {}", figures(&busy, time * 2)))?;
    let p99 = |seen: &Histogram<u64>| seen.value_at_quantile(0.99) as f64;
    bar("p99 of searches under 1,000 upserts/s, twice the idle one", 2.0 * p99(&idle), p99(&busy))?;

    let sync = sync_floor(&node.folder, time)?;
    let upserts = measure(node.port, 1, time, &upserts(&debian))?;
    let p50 = upserts.value_at_quantile(0.5) as f64;
    tell(&format!(
        "durable upsert, 1 connection: {}; the disk's sync {sync:.0} us",
        figures(&upserts, time)
    ))?;
    bar("durable upsert, p50: the disk's sync + 100 us", sync + 100.0, p50)?;

    let started = Instant::now();
    node.restart().await?;
    node.eventually("/api/v1/tables/debian/stats", |stats| {
        stats["documents"].as_u64() >= Some(documents as u64)
    })
    .await?;
    let served = started.elapsed();
    node.eventually("/api/v1/tables/debian/stats", is_indexed).await?;
    tell(&format!(
        "restart after SIGKILL: all documents after {:.2} s, all graphs after {:.2} s",
        served.as_secs_f64(),
        started.elapsed().as_secs_f64()
    ))
}

/// Medians over rounds, in microseconds.
struct Latency {
    echo: f64,
    index: f64,
    search: f64,
}

impl std::fmt::Display for Latency {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Latency { echo, index, search } = self;
        let rest = search - echo - index;
        write!(
            f,
            "1 connection, p50: search {search:.0} us = echo {echo:.0} + shard {index:.0} + rest {rest:.0}"
        )
    }
}

async fn latency(node: &OneNode, requests: &[Vec<u8>], time: Duration) -> Result<Latency> {
    let answer = Connection::open(node.port)?.call(&requests[0])?.to_vec();
    let (echo_port, _echo) = echo(requests[0].len(), answer)?;
    let (mut echoes, mut indexes, mut searches) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        echoes.push(measure(echo_port, 1, time / 4, requests)?.value_at_quantile(0.5) as f64);
        let before = node.search_time().await?;
        searches.push(measure(node.port, 1, time, requests)?.value_at_quantile(0.5) as f64);
        let after = node.search_time().await?;
        indexes.push((after.0 - before.0) / (after.1 - before.1) * 1e6);
    }
    Ok(Latency { echo: median(echoes), index: median(indexes), search: median(searches) })
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn figures(seen: &Histogram<u64>, time: Duration) -> String {
    let qps = seen.len() as f64 / (time - time / 10).as_secs_f64();
    let us = |quantile| seen.value_at_quantile(quantile);
    format!("{qps:>7.0} QPS, p50 {} us, p99 {} us", us(0.5), us(0.99))
}

/// All queries, with the vector as base64: all requests are equally long.
fn searches(debian: &Debian, options: &Value) -> Vec<Vec<u8>> {
    let request = |query| {
        let mut body = options.clone();
        body["vector"] = json!(base64_of(debian.query(query)));
        body["top_k"] = json!(TOP_K);
        post(SEARCH, &body.to_string())
    };
    (0..Debian::QUERIES).map(request).collect()
}

fn array_searches(debian: &Debian) -> Vec<Vec<u8>> {
    let request = |query| json!({"vector": debian.query(query), "top_k": TOP_K}).to_string();
    (0..Debian::QUERIES).map(|query| post(SEARCH, &request(query))).collect()
}

/// By size, which is unrelated to what a package is about, and by section, which is not.
fn filters(debian: &Debian) -> Vec<(String, Value)> {
    let mut sizes: Vec<i64> = (0..debian.len())
        .filter_map(|index| debian.document(index).0.metadata["size_kib"].as_i64())
        .collect();
    sizes.sort_unstable();
    let below = |percent: usize| json!({"must": [{"key": "size_kib", "range": {"lt": sizes[sizes.len() * percent / 100]}}]});
    let by_size = [1, 10, 50].map(|percent| (format!("size, {percent} %"), below(percent)));
    let section = json!({"must": [{"key": "section", "match": {"value": "python"}}]});
    by_size.into_iter().chain([("section".to_owned(), section)]).collect()
}

/// For each query the documents of a section of a few percent that is least like it.
fn anti_correlated(debian: &Debian, options: &Value) -> Vec<Vec<u8>> {
    let mut sections: BTreeMap<&str, (usize, Vec<f64>)> = BTreeMap::new();
    for (package, row) in (0..debian.len()).map(|index| debian.document(index)) {
        let Some(section) = package.metadata["section"].as_str() else { continue };
        let (count, sum) = sections.entry(section).or_insert_with(|| (0, vec![0.0; debian.dimension()]));
        *count += 1;
        sum.iter_mut().zip(row).for_each(|(sum, value)| *sum += f64::from(*value));
    }
    sections.retain(|_, (count, _)| SHARE.contains(&(*count * 100 / debian.len())));
    let request = |query: usize| {
        let likeness = |(_, (count, sum)): &(&&str, &(usize, Vec<f64>))| {
            let dot: f64 = sum.iter().zip(debian.query(query)).map(|(a, b)| a * f64::from(*b)).sum();
            dot / *count as f64
        };
        let farthest = sections.iter().min_by(|a, b| likeness(a).total_cmp(&likeness(b)));
        let section = farthest.map_or("", |(section, _)| section);
        let mut body = options.clone();
        body["filter"] = json!({"must": [{"key": "section", "match": {"value": section}}]});
        body["vector"] = json!(base64_of(debian.query(query)));
        body["top_k"] = json!(TOP_K);
        post(SEARCH, &body.to_string())
    };
    (0..Debian::QUERIES).map(request).collect()
}

/// Many queries in each request.
fn batches(debian: &Debian) -> Vec<Vec<u8>> {
    let numbers: Vec<usize> = (0..Debian::QUERIES).collect();
    let query = |query: &usize| json!({"vector": base64_of(debian.query(*query)), "top_k": TOP_K});
    let request = |queries: &[usize]| {
        post(SEARCH_BATCH, &json!({"queries": queries.iter().map(query).collect::<Vec<_>>()}).to_string())
    };
    numbers.chunks_exact(BATCH_QUERIES).map(request).collect()
}

/// Share of the exact answers' hits that the others have.
fn recall(node: &OneNode, requests: &[Vec<u8>], exact: &[Vec<u8>]) -> Result<f64> {
    let mut connection = Connection::open(node.port)?;
    let mut ids = |request: &[u8]| -> Result<HashSet<String>> {
        let answer = connection.call(request)?;
        let body = answer.windows(4).position(|bytes| bytes == b"\r\n\r\n").context("no body")?;
        let answer: Value = serde_json::from_slice(&answer[body + 4..])?;
        let hits = answer["hits"].as_array().context("no hits")?.iter();
        Ok(hits.filter_map(|hit| hit["document_id"].as_str().map(str::to_owned)).collect())
    };
    let (mut found, mut wanted) = (0, 0);
    for (request, exact) in requests.iter().zip(exact) {
        let (seen, exact) = (ids(request)?, ids(exact)?);
        found += seen.intersection(&exact).count();
        wanted += exact.len();
    }
    Ok(found as f64 / wanted as f64)
}

fn base64_of(vector: &[f32]) -> String {
    BASE64_STANDARD.encode(vector.iter().flat_map(|value| value.to_le_bytes()).collect::<Vec<u8>>())
}

/// Single documents that are there already, with their vectors.
fn upserts(debian: &Debian) -> Vec<Vec<u8>> {
    let request = |index: usize| {
        let (package, row) = debian.document(index * 37 % debian.len());
        let body =
            json!({"document_id": package.name, "vector": base64_of(row), "metadata": package.metadata});
        post(UPSERT, &body.to_string())
    };
    (0..2_000.min(debian.len())).map(request).collect()
}

/// Searches of one connection while others write at a fixed rate, whether or not they are answered in time.
#[expect(
    clippy::disallowed_methods,
    reason = "writes are due at fixed times, whatever becomes of those before"
)]
fn while_writing(
    node: &OneNode,
    debian: &Debian,
    time: Duration,
    requests: &[Vec<u8>],
) -> Result<Histogram<u64>> {
    let (writes, started) = (upserts(debian), Instant::now());
    let pause = Duration::from_secs(1) * WRITERS as u32 / WRITES as u32;
    std::thread::scope(|scope| {
        let writers: Vec<_> = (0..WRITERS)
            .map(|writer| {
                let writes = &writes;
                scope.spawn(move || {
                    let mut connection = Connection::open(node.port)?;
                    for number in 0u32.. {
                        let due = started + pause * number + pause * writer as u32 / WRITERS as u32;
                        if due >= started + time {
                            break;
                        }
                        std::thread::sleep(due.saturating_duration_since(Instant::now()));
                        connection.call(
                            &writes[(number as usize * WRITERS as usize + writer as usize) % writes.len()],
                        )?;
                    }
                    anyhow::Ok(())
                })
            })
            .collect();
        let seen = measure(node.port, 1, time, requests)?;
        for writer in writers {
            writer.join().expect("it does not panic")?;
        }
        Ok(seen)
    })
}

/// Median of writing two kilobytes into a file and waiting for the disk, in microseconds.
fn sync_floor(folder: &TempDir, time: Duration) -> Result<f64> {
    let mut file = File::create(folder.path().join("sync"))?;
    // As the log does: blocks that were written once need no change of the file system's own records.
    file.write_all(&vec![0; SYNCED_BYTES])?;
    file.sync_all()?;
    file.rewind()?;
    let (started, mut seen) = (Instant::now(), Vec::new());
    while started.elapsed() < time / 2 && seen.len() < SYNCED_BYTES / 2_048 {
        let begin = Instant::now();
        file.write_all(&[7; 2_048])?;
        file.sync_data()?;
        seen.push(begin.elapsed().as_secs_f64() * 1e6);
    }
    Ok(median(seen))
}
