//! `make bench-server`: a cluster of real processes, loaded and searched through REST and gRPC.
//!
//! Prints the machine, then one line for each figure. Client and servers share the machine's cores, so compare
//! figures of one run with each other, not with those of another machine.

use std::fmt::Write as _;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use futures::future::try_join_all;
use futures::stream::{self, TryStreamExt};
use hdrhistogram::Histogram;
use tonic::transport::Channel;
use vectorsphere_proto::v1;
use vectorsphere_proto::v1::document_service_client::DocumentServiceClient;
use vectorsphere_proto::v1::search_service_client::SearchServiceClient;

use crate::debian::Debian;
use crate::load::{BATCH, check_queries, load};
use crate::local_cluster::LocalCluster;
use crate::settings::Settings;

const SLAVES: usize = 2;
const SHARDS: u32 = 4;
const TOP_K: usize = 10;
/// Batches that are under way at once while loading.
const LOADERS: usize = 4;
const MIB: f64 = 1024.0 * 1024.0;

/// Runs the benchmark; `quick` uses the sample of 10,000 documents and shorter measurements.
///
/// # Errors
/// When the cluster does not start, a call fails, or an answer is wrong.
pub async fn run(settings: &Settings, quick: bool) -> Result<String> {
    let debian = match settings.data().filter(|_| !quick) {
        Some(folder) => Debian::load(&folder)?,
        None => Debian::sample()?,
    };
    let measure = Duration::from_secs(if quick { 2 } else { 10 });
    let cluster = LocalCluster::start(settings, 1, SLAVES).await?;
    let slaves = 1..=SLAVES;
    let resident = || slaves.clone().map(|slave| cluster.resident_bytes(slave)).sum::<Result<u64>>();
    let empty = resident()?;

    let mut told = machine()?;
    let (documents, dimension) = (debian.len(), debian.dimension());
    writeln!(
        told,
        "{documents} documents x {dimension}, 1 master, {SLAVES} slaves, {SHARDS} shards, batches of {BATCH}"
    )?;

    let rest = cluster.client(0)?;
    rest.create_table("rest", dimension, SHARDS).await?;
    let took = load(&rest, "rest", &debian, LOADERS).await?;
    writeln!(told, "load, REST JSON:          {:>9.0} documents/s", documents as f64 / took.as_secs_f64())?;
    let held = (resident()? - empty) as f64;
    writeln!(
        told,
        "resident memory, slaves:  {:>9.0} bytes a document ({:.0} MiB), of it vectors {}",
        held / documents as f64,
        held / MIB,
        dimension * 4
    )?;
    check_queries(&rest, "rest", &debian, 4).await.context("answers must be exact")?;

    let url = format!("http://127.0.0.1:{}", cluster.nodes()[0].grpc_port);
    let channel = Channel::from_shared(url)?.connect().await?;
    rest.create_table("grpc", dimension, SHARDS).await?;
    let took = load_grpc(&channel, &debian).await?;
    writeln!(told, "load, gRPC raw vectors:   {:>9.0} documents/s", documents as f64 / took.as_secs_f64())?;

    for clients in [1, 8] {
        let figures = measured(clients, measure, async |query| {
            rest.search("rest", debian.query(query), TOP_K).await?;
            Ok(())
        });
        writeln!(told, "search, REST,  {clients} clients: {}", figures.await?)?;
        let figures = measured(clients, measure, async |query| {
            let mut client = SearchServiceClient::new(channel.clone());
            client.search(search_request(&debian, query)).await?;
            Ok(())
        });
        writeln!(told, "search, gRPC,  {clients} clients: {}", figures.await?)?;
    }
    Ok(told)
}

/// Throughput and latency of `clients` that call one after the other for a while, after a short warm-up.
async fn measured(
    clients: usize,
    duration: Duration,
    call: impl AsyncFn(usize) -> Result<()>,
) -> Result<String> {
    let started = Instant::now();
    let (from, until) = (started + duration / 10, started + duration);
    let queries = Debian::QUERIES;
    let histograms = try_join_all((0..clients).map(async |client| {
        let mut histogram: Histogram<u64> = Histogram::new(3)?;
        for number in 0.. {
            let begin = Instant::now();
            if begin >= until {
                break;
            }
            call((client * 97 + number) % queries).await?;
            if begin >= from {
                histogram.record(begin.elapsed().as_micros() as u64)?;
            }
        }
        anyhow::Ok(histogram)
    }))
    .await?;
    let mut all: Histogram<u64> = Histogram::new(3)?;
    for histogram in histograms {
        all.add(histogram)?;
    }
    let qps = all.len() as f64 / (until - from).as_secs_f64();
    let ms = |quantile| all.value_at_quantile(quantile) as f64 / 1000.0;
    Ok(format!("{qps:>9.0} QPS, p50 {:.2} ms, p99 {:.2} ms", ms(0.5), ms(0.99)))
}

async fn load_grpc(channel: &Channel, debian: &Debian) -> Result<Duration> {
    let started = Instant::now();
    stream::iter((0..debian.len()).step_by(BATCH).map(anyhow::Ok))
        .try_for_each_concurrent(LOADERS, async |first| {
            let documents = (first..(first + BATCH).min(debian.len())).map(|index| document(debian, index));
            let request = v1::UpsertDocumentsRequest {
                table_name: "grpc".into(),
                documents: documents.collect(),
                request_id: String::new(),
            };
            DocumentServiceClient::new(channel.clone()).upsert_documents(request).await?;
            Ok(())
        })
        .await?;
    Ok(started.elapsed())
}

fn document(debian: &Debian, index: usize) -> v1::Document {
    let (package, row) = debian.document(index);
    let fields = package.metadata.iter().map(|(key, value)| (key.clone(), proto_value(value)));
    v1::Document {
        document_id: package.name.clone(),
        vector: Some(vector(row)),
        metadata: Some(v1::Metadata { fields: fields.collect() }),
        if_version: None,
    }
}

/// The set's metadata has strings and sizes only.
fn proto_value(value: &serde_json::Value) -> v1::Value {
    use v1::value::Kind;
    let kind = match value.as_i64() {
        Some(number) => Kind::IntValue(number),
        None => Kind::StringValue(value.as_str().unwrap_or_default().to_owned()),
    };
    v1::Value { kind: Some(kind) }
}

fn vector(row: &[f32]) -> v1::Vector {
    let bytes = row.iter().flat_map(|x| x.to_le_bytes()).collect();
    v1::Vector { data: Some(v1::vector::Data::LittleEndianF32(bytes)) }
}

fn search_request(debian: &Debian, query: usize) -> v1::SearchRequest {
    v1::SearchRequest {
        table_name: "grpc".into(),
        query: Some(v1::search_request::Query::Vector(vector(debian.query(query)))),
        top_k: TOP_K as u32,
        ..v1::SearchRequest::default()
    }
}

/// Processor, cores and instruction sets.
pub(crate) fn machine() -> Result<String> {
    let cores = std::thread::available_parallelism()?;
    Ok(format!("{} ({cores} cores, {})\n", processor("model name")?, instruction_sets()?.join(" ")))
}

/// Instruction sets that kernels use.
pub(crate) fn instruction_sets() -> Result<Vec<&'static str>> {
    let flags = processor("flags")?;
    let has = |set: &&str| flags.split(' ').any(|flag| flag == *set);
    Ok(["avx2", "avx512f", "avx512_vnni"].into_iter().filter(has).collect())
}

fn processor(field: &str) -> Result<String> {
    let info = std::fs::read_to_string("/proc/cpuinfo")?;
    let line = info.lines().find(|line| line.starts_with(field)).unwrap_or_default();
    Ok(line.split_once(':').map_or("", |(_, value)| value.trim()).to_owned())
}
