//! Kills and restarts a loaded cluster, and checks that every acknowledged document is there, and nothing else.
//!
//! Each document id belongs to one writer and gets one write after the other, so that the model is simple: after an
//! acknowledged write a document must be exactly as written; after a write whose outcome is unknown the id is
//! retired, and both states are right.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use futures::future::try_join_all;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde_json::{Value, json};

use crate::local_cluster::LocalCluster;
use crate::rest::{CallError, RestClient, SearchAnswer};
use crate::settings::Settings;

const TABLE: &str = "torture";
const DIMENSION: usize = 16;
const WRITERS: u64 = 4;
/// Documents that a writer writes again and again.
const IDS_PER_WRITER: usize = 400;
const BATCH: usize = 20;
const MASTERS: usize = 2;
const SLAVES: usize = 2;

/// What a run did and found.
#[derive(Debug, Default)]
pub struct Report {
    /// Batches that were acknowledged.
    pub acknowledged: u64,
    /// Batches whose outcome stayed unknown.
    pub unknown: u64,
    /// Batches that were definitely refused.
    pub refused: u64,
    /// Processes that were killed.
    pub kills: u64,
    /// Documents that were compared at the end.
    pub checked: usize,
}

/// What is known of one document.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Known {
    /// Exactly this state: the number of the write that made it, or absent.
    Exactly(Option<u64>),
    /// One of the two: before and after a write of unknown outcome.
    Either(Option<u64>, Option<u64>),
}

type Model = BTreeMap<String, Known>;

/// Runs for `duration` with faults drawn from `seed`.
///
/// # Errors
/// When a document is lost, wrong or came back, or when the cluster does not recover.
pub async fn run(settings: &Settings, duration: Duration, seed: u64) -> Result<Report> {
    let mut cluster = LocalCluster::start(settings, MASTERS, SLAVES).await?;
    let client = cluster.client(0)?;
    client.create_table(TABLE, DIMENSION, 4).await?;

    let stop = AtomicBool::new(false);
    let report = Mutex::new(Report::default());
    let clients: Vec<_> = (0..MASTERS).map(|index| cluster.client(index)).collect::<Result<_>>()?;
    let writers = try_join_all((0..WRITERS).map(|writer| write(writer, &clients, &stop, &report)));
    let faults = async {
        let outcome = kill_and_restart(&mut cluster, duration, seed, &report).await;
        stop.store(true, Ordering::Relaxed);
        outcome
    };
    let (models, ()) = futures::try_join!(writers, faults)?;

    cluster.wait_until_ready().await?;
    let model: Model = models.into_iter().flatten().collect();
    check(&clients[0], &model).await?;
    let mut report = report.into_inner().expect("no writer panicked");
    report.checked = model.len();
    Ok(report)
}

/// One writer: batches of its own ids, upserts and now and then deletes, until told to stop.
async fn write(
    writer: u64,
    clients: &[RestClient],
    stop: &AtomicBool,
    report: &Mutex<Report>,
) -> Result<Model> {
    let mut model = Model::new();
    let mut random = ChaCha8Rng::seed_from_u64(writer);
    let mut fresh = (0..).map(|id| format!("w{writer}-{id}"));
    let mut live: Vec<String> = fresh.by_ref().take(IDS_PER_WRITER).collect();
    for number in 1.. {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        let first = random.random_range(0..IDS_PER_WRITER - BATCH);
        let ids = live[first..first + BATCH].to_vec();
        let state = (random.random_range(0..4) > 0).then_some(number);
        let client = &clients[random.random_range(0..clients.len() as u64) as usize];
        let outcome = send(client, &ids, state).await;
        let mut report = report.lock().expect("no writer panicked");
        match outcome {
            Ok(()) => {
                report.acknowledged += 1;
                model.extend(ids.into_iter().map(|id| (id, Known::Exactly(state))));
            }
            Err(error) if certainly_nothing_happened(&error) => report.refused += 1,
            Err(error) => {
                refuse_mistakes(&error).with_context(|| format!("writer {writer}"))?;
                report.unknown += 1;
                // Such an id is not written again: only then are two states right, and no more. New ones take their place.
                live.splice(first..first + BATCH, fresh.by_ref().take(BATCH));
                for id in ids {
                    let before = match model.get(&id) {
                        Some(Known::Exactly(before)) => *before,
                        _ => None,
                    };
                    model.insert(id, Known::Either(before, state));
                }
            }
        }
    }
    Ok(model)
}

/// Upserts with state `Some(number)`, deletes with `None`.
async fn send(client: &RestClient, ids: &[String], state: Option<u64>) -> Result<(), CallError> {
    let path = format!("/api/v1/tables/{TABLE}/documents");
    let answer: Result<Value, _> = match state {
        Some(number) => {
            let documents: Vec<Value> = ids
                .iter()
                .map(|id| json!({"document_id": id, "vector": vector(id, number), "metadata": {"number": number}}))
                .collect();
            client.post(&path, &json!({ "documents": documents })).await
        }
        None => client.post(&format!("{path}:delete"), &json!({ "document_ids": ids })).await,
    };
    answer.map(|_| ())
}

/// True when the server says that it wrote nothing at all.
fn certainly_nothing_happened(error: &CallError) -> bool {
    matches!(error.code(), Some("rate_limited" | "overloaded" | "not_ready"))
}

/// Every request here is right, so an answer that blames the request is a mistake of the server or of this test.
fn refuse_mistakes(error: &CallError) -> Result<()> {
    match error {
        CallError::Garbled(what) => bail!("not an answer: {what}"),
        CallError::Problem(problem) if problem.status < 500 => {
            bail!("a right request was refused: {problem:?}")
        }
        CallError::Problem(_) | CallError::Transport(_) => Ok(()),
    }
}

/// Until `duration` is over: kills a node, waits a little, starts it again, waits until the cluster is whole.
async fn kill_and_restart(
    cluster: &mut LocalCluster,
    duration: Duration,
    seed: u64,
    report: &Mutex<Report>,
) -> Result<()> {
    let until = Instant::now() + duration;
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    while Instant::now() < until {
        // The time between faults is part of the fault schedule, not a wait for a condition.
        tokio::time::sleep(Duration::from_millis(500 + random.random_range(0..1_500))).await;
        let victim = random.random_range(0..(MASTERS + SLAVES) as u64) as usize;
        cluster.kill_node(victim).await?;
        report.lock().expect("no writer panicked").kills += 1;
        tokio::time::sleep(Duration::from_millis(random.random_range(0..1_000))).await;
        cluster.start_node(victim)?;
        cluster.wait_until_ready().await.with_context(|| format!("after the kill of node {victim}"))?;
    }
    Ok(())
}

/// Reads every document page by page and compares it with the model; then finds a part of them by their vectors.
async fn check(client: &RestClient, model: &Model) -> Result<()> {
    let found = list(client).await?;
    for (id, known) in model {
        let state = found.get(id).copied();
        let right = match known {
            Known::Exactly(expected) => state == *expected,
            Known::Either(before, after) => state == *before || state == *after,
        };
        ensure!(right, "document {id}: {known:?}, but found {state:?}");
    }
    for id in found.keys() {
        ensure!(model.contains_key(id), "document {id} was never written");
    }
    for (id, number) in found.iter().step_by(7) {
        let answer: SearchAnswer = client.search(TABLE, &vector(id, *number), 1).await?;
        let best = answer.hits.first().map(|hit| hit.document_id.as_str());
        ensure!(best == Some(id), "searching for the vector of {id} found {best:?}");
    }
    Ok(())
}

async fn list(client: &RestClient) -> Result<BTreeMap<String, u64>> {
    let mut found = BTreeMap::new();
    let mut cursor = String::new();
    loop {
        let path = format!("/api/v1/tables/{TABLE}/documents?limit=500&with_vector=true{cursor}");
        let page: Value = client.get(&path).await?;
        for document in page["documents"].as_array().context("no documents")? {
            let id = document["document_id"].as_str().context("no id")?;
            let number = document["metadata"]["number"].as_u64().context("no number")?;
            let stored: Vec<f32> = serde_json::from_value(document["vector"].clone())?;
            ensure!(stored == vector(id, number), "document {id} has not the vector of write {number}");
            ensure!(found.insert(id.to_owned(), number).is_none(), "document {id} is listed twice");
        }
        match page["next_cursor"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => return Ok(found),
        }
    }
}

/// The vector of an id's write: unlike that of any other.
fn vector(id: &str, number: u64) -> Vec<f32> {
    let seed = id.bytes().fold(number, |hash, byte| hash.wrapping_mul(0x100_0000_01b3) ^ u64::from(byte));
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    (0..DIMENSION).map(|_| random.random_range(-1.0..1.0)).collect()
}
