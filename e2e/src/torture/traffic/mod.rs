//! What clients do while something happens to the cluster, and what they write down for the checkers.
//!
//! A [`Desk`] is one round's: one clock, and a word to stop. Clients go through any gateway, as behind a Service, and each
//! answer is judged by what the documentation of the errors says, no more and no less.

mod answer;
mod bank;
mod batch;
mod documents;
mod register;
mod schema;
mod session;
mod set;
mod visibility;

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use futures::future::BoxFuture;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use reqwest::Method;
use serde_json::Value;

use self::answer::judge;
use crate::rest::RestClient;

pub use answer::Outcome;
pub use bank::Bank;
pub use batch::Batches;
pub use documents::{DIMENSION, Region, list};
pub use register::Registers;
pub use schema::Schema;
pub use session::Sessions;
pub use set::Set;
pub use visibility::Visibility;

/// Pause of a client between two operations: load enough to be hit by a fault, and not more than the machine can take.
const PACE: Duration = Duration::from_millis(15);
/// That of a client whose operations are large, or whose history is judged in more than linear time.
const SLOW_PACE: Duration = Duration::from_millis(60);

/// What some clients do, and what judges what they were told.
pub trait Workload: Send + Sync {
    /// What people call it.
    fn kind(&self) -> String;

    /// How many clients do it.
    fn clients(&self) -> u32;

    /// Operations that a round has before its fault, and again after it, at least.
    fn portion(&self) -> u64 {
        20
    }

    /// One client, until the round is over. An error: an answer is one that it must never get.
    fn work<'a>(&'a self, seat: Seat<'a>, client: u32) -> BoxFuture<'a, Result<()>>;

    /// Judges everything when nobody works any more and all copies are equal; what it went through. An error: something
    /// is lost, or some answer was wrong.
    fn check<'a>(&'a self, gateways: &'a [RestClient]) -> BoxFuture<'a, Result<Checked>>;
}

/// How much of what was checked.
pub type Checked = Vec<(&'static str, usize)>;

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

/// The place of one client.
pub struct Seat<'d> {
    desk: &'d Desk,
    kind: String,
    random: ChaCha8Rng,
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

    /// A place for a client of this kind.
    #[must_use]
    pub fn seat(&self, kind: String) -> Seat<'_> {
        Seat { desk: self, kind, random: ChaCha8Rng::seed_from_u64(self.value()) }
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
}

impl Seat<'_> {
    /// True until the round is over; lets time pass between two operations.
    async fn goes_on(&self, pace: Duration) -> bool {
        tokio::time::sleep(pace).await;
        !self.desk.is_over.load(Ordering::Relaxed)
    }

    /// A value that no other write has.
    fn value(&self) -> u64 {
        self.desk.value()
    }

    /// Now, in ticks of the round.
    fn tick(&self) -> u64 {
        u64::try_from(self.desk.begun.elapsed().as_micros()).expect("a round is short")
    }

    /// A number below `end`.
    fn draw(&mut self, end: u64) -> u64 {
        self.random.random_range(0..end)
    }

    /// Sends a request through one of the gateways and judges its answer.
    ///
    /// # Errors
    /// When the answer is one that a right request must never get.
    async fn call(&mut self, method: Method, path: &str, body: Option<Value>) -> Result<Outcome> {
        let gateways = &self.desk.gateways;
        let gateway = &gateways[self.random.random_range(0..gateways.len() as u64) as usize];
        let body = body.map(|body| body.to_string().into_bytes());
        let outcome = judge(gateway.call(method, path, body).await)
            .with_context(|| format!("{}: {path}", self.kind))?;
        let mut tally = self.desk.tally.lock().expect("no holder panics");
        let counts = tally.entry(self.kind.clone()).or_default();
        match outcome {
            Outcome::Refused => counts.refused += 1,
            Outcome::Unknown => counts.unknown += 1,
            _ => counts.acknowledged += 1,
        }
        drop(tally);
        Ok(outcome)
    }

    /// Everything that lies in a region, by a search; nothing when it could not be read.
    async fn search(&mut self, table: &str, region: Region, consistency: &str) -> Result<Option<Vec<Value>>> {
        let path = format!("/api/v1/tables/{table}/search");
        Ok(match self.call(Method::POST, &path, Some(region.search(consistency))).await? {
            Outcome::Done(answer) => Some(documents::hits(&answer)?.to_vec()),
            Outcome::Refused | Outcome::Unknown => None,
            other => anyhow::bail!("a search was told {other:?}"),
        })
    }
}
