//! What clients do while something happens to the cluster, and what they write down for the checkers.
//!
//! A [`Desk`] is one round's: fresh documents, one clock, and a word to stop. Clients go through any gateway, as behind a
//! Service, and each answer is judged by what the documentation of the errors says, no more and no less.

mod register;
mod set;

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use reqwest::Method;
use serde_json::{Value, json};

use crate::rest::{CallError, RestClient};

pub use register::Registers;
pub use set::Set;

/// Length of all vectors.
pub const DIMENSION: usize = 16;
/// Pause of a client between two operations: load enough to be hit by a fault, and not more than the machine can take.
const PACE: Duration = Duration::from_millis(15);

/// Where the clients of one round work.
pub struct Desk {
    gateways: Vec<RestClient>,
    begun: Instant,
    is_over: AtomicBool,
    next_value: AtomicU64,
    tally: Mutex<BTreeMap<String, Counts>>,
}

/// What became of operations.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Happened.
    pub acknowledged: u64,
    /// Certainly did not happen.
    pub refused: u64,
    /// One or the other.
    pub unknown: u64,
}

/// What a call came to, by the meaning that the documentation gives to the answer.
#[derive(Debug)]
pub enum Outcome {
    /// The answer.
    Done(Value),
    /// There is no such document.
    Absent,
    /// The condition did not hold: the document has this version, 0 when there is none.
    Mismatch(u64),
    /// Certainly did not happen.
    Refused,
    /// May have happened, or happen later.
    Unknown,
}

impl Desk {
    /// A desk of clients of these gateways, at the beginning of a round. Values go on from the round before.
    #[must_use]
    pub fn new(gateways: Vec<RestClient>, first_value: u64) -> Desk {
        Desk {
            gateways,
            begun: Instant::now(),
            is_over: AtomicBool::new(false),
            next_value: AtomicU64::new(first_value),
            tally: Mutex::default(),
        }
    }

    /// Tells all clients to end.
    pub fn end(&self) {
        self.is_over.store(true, Ordering::Relaxed);
    }

    /// A value that no other write has.
    pub fn value(&self) -> u64 {
        self.next_value.fetch_add(1, Ordering::Relaxed)
    }

    /// How often operations of each kind came to what.
    #[must_use]
    pub fn tally(&self) -> BTreeMap<String, Counts> {
        self.tally.lock().expect("no holder panics").clone()
    }

    /// Acknowledged operations of a kind.
    #[must_use]
    pub fn acknowledged(&self, kind: &str) -> u64 {
        self.tally.lock().expect("no holder panics").get(kind).map_or(0, |counts| counts.acknowledged)
    }

    /// Now, in ticks of the round.
    pub fn tick(&self) -> u64 {
        u64::try_from(self.begun.elapsed().as_micros()).expect("a round is short")
    }

    /// True until the round is over; lets time pass between two operations of a client.
    async fn goes_on(&self) -> bool {
        tokio::time::sleep(PACE).await;
        !self.is_over.load(Ordering::Relaxed)
    }

    /// Sends a request through one of the gateways and judges its answer.
    ///
    /// # Errors
    /// When the answer is one that a right request must never get.
    async fn call(
        &self,
        kind: &str,
        random: &mut ChaCha8Rng,
        method: Method,
        path: &str,
        body: Option<Value>,
    ) -> Result<Outcome> {
        let gateway = &self.gateways[random.random_range(0..self.gateways.len() as u64) as usize];
        let body = body.map(|body| body.to_string().into_bytes());
        let outcome =
            judge(gateway.call(method, path, body).await).with_context(|| format!("{kind}: {path}"))?;
        let mut tally = self.tally.lock().expect("no holder panics");
        let counts = tally.entry(kind.to_owned()).or_default();
        match outcome {
            Outcome::Done(_) | Outcome::Absent | Outcome::Mismatch(_) => counts.acknowledged += 1,
            Outcome::Refused => counts.refused += 1,
            Outcome::Unknown => counts.unknown += 1,
        }
        Ok(outcome)
    }
}

/// What an answer means.
///
/// # Errors
/// When a right request must never get it.
fn judge(answer: Result<Value, CallError>) -> Result<Outcome> {
    let problem = match answer {
        Ok(answer) => return Ok(Outcome::Done(answer)),
        // Nobody took the connection, so nobody has got the request.
        Err(CallError::Transport(error)) if error.is_connect() => return Ok(Outcome::Refused),
        Err(CallError::Transport(_)) => return Ok(Outcome::Unknown),
        Err(CallError::Garbled(what)) => bail!("not an answer: {what}"),
        Err(CallError::Problem(problem)) => problem,
    };
    match problem.code.as_str() {
        "document_not_found" => Ok(Outcome::Absent),
        "version_mismatch" => Ok(Outcome::Mismatch(version_found(&problem.detail)?)),
        "rate_limited" | "overloaded" | "not_primary" | "not_master" | "no_master" | "shard_unavailable"
        | "node_unreachable" | "not_ready" | "disk_full" | "retry_too_late" | "shard_damaged" => {
            Ok(Outcome::Refused)
        }
        "deadline_exceeded" | "outcome_unknown" | "meta_store_unavailable" => Ok(Outcome::Unknown),
        _ => bail!("a right request was answered with {problem:?}"),
    }
}

/// The version that a mismatch names.
fn version_found(detail: &str) -> Result<u64> {
    if detail.ends_with("does not exist") {
        return Ok(0);
    }
    let version = detail.rsplit_once("has version ").and_then(|(_, version)| version.parse().ok());
    version.with_context(|| format!("no version in {detail:?}"))
}

/// The vector of a value: unlike that of any other.
fn vector(value: u64) -> Vec<f32> {
    let mut random = ChaCha8Rng::seed_from_u64(value);
    (0..DIMENSION).map(|_| random.random_range(-1.0..1.0)).collect()
}

/// A document that holds a value.
fn document(id: &str, value: u64) -> Value {
    json!({"document_id": id, "vector": vector(value), "metadata": {"value": value}})
}

/// The value that a document holds, in its metadata and in its vector.
///
/// # Errors
/// When they do not agree.
fn value_of(document: &Value) -> Result<u64> {
    let value = document["metadata"]["value"].as_u64().with_context(|| format!("no value in {document}"))?;
    let stored: Vec<f32> = serde_json::from_value(document["vector"].clone())?;
    ensure!(stored == vector(value), "the vector is not that of value {value}: {document}");
    Ok(value)
}

/// All documents of a table, by a strong read of each page.
///
/// # Errors
/// When a page cannot be read.
pub async fn list(client: &RestClient, table: &str, consistency: &str) -> Result<Vec<Value>> {
    let mut found = Vec::new();
    let mut cursor = String::new();
    loop {
        let path = format!(
            "/api/v1/tables/{table}/documents?limit=1000&with_vector=true&consistency={consistency}{cursor}"
        );
        let mut page: Value = client.get(&path).await?;
        let Value::Array(documents) = page["documents"].take() else { bail!("no documents in {page}") };
        found.extend(documents);
        match page["next_cursor"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => return Ok(found),
        }
    }
}

/// A document's id.
///
/// # Errors
/// When it has none.
fn id_of(document: &Value) -> Result<&str> {
    document["document_id"].as_str().with_context(|| format!("no id in {document}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rest::Problem;

    fn judged(code: &str, detail: &str) -> Result<Outcome> {
        let problem = Problem { status: 503, code: code.to_owned(), detail: detail.to_owned() };
        judge(Err(CallError::Problem(problem)))
    }

    #[test]
    fn an_answer_means_what_the_documentation_says() {
        assert!(matches!(judged("overloaded", ""), Ok(Outcome::Refused)));
        assert!(matches!(judged("outcome_unknown", ""), Ok(Outcome::Unknown)));
        let found = judged("version_mismatch", "shard 1 on node a: document \"r\" has version 17");
        assert!(matches!(found, Ok(Outcome::Mismatch(17))));
        assert!(matches!(
            judged("version_mismatch", "document \"r\" does not exist"),
            Ok(Outcome::Mismatch(0))
        ));
        for mistake in ["invalid_argument", "internal", "table_not_found", "a new one"] {
            assert!(judged(mistake, "").is_err(), "{mistake}");
        }
    }

    #[test]
    fn every_code_of_the_documentation_is_judged_by_its_column() {
        let errors = include_str!("../../../../docs/reference/errors.md");
        let rows = errors.lines().filter(|line| line.starts_with("| `"));
        let judged_otherwise =
            ["document_not_found", "version_mismatch", "node_unreachable", "meta_store_unavailable"];
        for row in rows {
            let columns: Vec<&str> = row.split('|').map(str::trim).collect();
            let (code, written) = (columns[1].trim_matches('`'), columns[4].trim_matches('*'));
            let (Ok(outcome), false) = (judged(code, ""), judged_otherwise.contains(&code)) else { continue };
            let is_nothing = written.starts_with("nothing");
            assert_eq!(matches!(outcome, Outcome::Refused), is_nothing, "{code} is documented as {written}");
        }
    }

    #[test]
    fn a_document_shows_one_value() {
        let mut one = document("d", 7);
        assert_eq!(value_of(&one).unwrap(), 7);
        one["metadata"]["value"] = json!(8);
        assert!(value_of(&one).is_err());
    }
}
