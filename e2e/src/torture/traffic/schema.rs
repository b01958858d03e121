//! A client that makes a table, fills it, drops it, and makes it again under the same name: nothing of a dropped table shows
//! in its successor, and nothing is missing from the one that is there.
//!
//! What comes of a change of unknown outcome, and when, nobody can say, so the client takes another name then.

use std::collections::BTreeSet;
use std::sync::Mutex;

use anyhow::{Context, Result, bail, ensure};
use futures::future::BoxFuture;
use reqwest::Method;
use serde_json::{Value, json};

use super::documents::id_of;
use super::{Checked, DIMENSION, Outcome, Region, SLOW_PACE, Seat, Workload, list};
use crate::rest::{CallError, RestClient};

/// Documents that a table gets before it is dropped, at most.
const DOCUMENTS: u64 = 8;
const LEVELS: [&str; 3] = ["strong", "session", "eventual"];

/// The tables of one round, which come and go.
pub struct Schema {
    round: u64,
    known: Mutex<Known>,
}

/// What the client knows of its table.
#[derive(Clone, Debug, Default)]
struct Known {
    /// Names that were given up.
    given_up: u64,
    /// A table of this name is there, and nobody has asked to drop it.
    is_there: bool,
    /// What certainly is in it, as long as it is there.
    written: BTreeSet<String>,
    /// What may be in it.
    doubtful: BTreeSet<String>,
    /// What was in a table that certainly is dropped.
    dropped: BTreeSet<String>,
}

impl Schema {
    /// No table yet.
    #[must_use]
    pub fn new(round: u64) -> Schema {
        Schema { round, known: Mutex::default() }
    }

    async fn run(&self, mut seat: Seat<'_>) -> Result<()> {
        let mut left = 0;
        while seat.goes_on(SLOW_PACE).await {
            let is_there = self.known().is_there;
            if !is_there {
                self.create(&mut seat).await?;
                left = 1 + seat.draw(DOCUMENTS);
            } else if left > 0 {
                self.insert(&mut seat).await?;
                left -= 1;
            } else {
                self.drop(&mut seat).await?;
            }
        }
        Ok(())
    }

    async fn create(&self, seat: &mut Seat<'_>) -> Result<()> {
        let body = json!({
            "table_name": self.table(), "dimension": DIMENSION, "metric": "l2", "shards": 1, "replicas": 3, "min_isr": 2,
        });
        match seat.call(Method::POST, "/api/v1/tables", Some(body)).await? {
            Outcome::Done(_) => self.known().is_there = true,
            // The gateway has sent the request again, or a drop was refused.
            Outcome::TableExists => self.drop(seat).await?,
            Outcome::Refused => {}
            Outcome::Unknown => self.known().take_another_name(),
            other => bail!("a new table was told {other:?}"),
        }
        Ok(())
    }

    async fn insert(&self, seat: &mut Seat<'_>) -> Result<()> {
        let value = seat.value();
        let id = format!("i{value}");
        let path = format!("/api/v1/tables/{}/documents/{id}", self.table());
        let outcome = seat.call(Method::PUT, &path, Some(Region::COMMON.document(&id, value))).await?;
        match outcome {
            Outcome::Done(_) => self.known().written.insert(id),
            // Of a request that was held up and meets the successor nobody can say what comes.
            Outcome::Unknown => self.known().doubtful.insert(id),
            // The gateway has not heard of the new table yet.
            Outcome::Refused | Outcome::NoTable => true,
            other => bail!("an insert was told {other:?}"),
        };
        Ok(())
    }

    async fn drop(&self, seat: &mut Seat<'_>) -> Result<()> {
        self.known().is_there = false;
        let outcome = seat.call(Method::DELETE, &format!("/api/v1/tables/{}", self.table()), None).await?;
        let mut known = self.known();
        match outcome {
            Outcome::Done(_) | Outcome::NoTable => {
                let written = std::mem::take(&mut known.written);
                known.dropped.extend(written);
            }
            // It is there, as it was.
            Outcome::Refused => {}
            Outcome::Unknown => known.take_another_name(),
            other => bail!("a drop was told {other:?}"),
        }
        Ok(())
    }

    async fn look(&self, gateways: &[RestClient]) -> Result<usize> {
        let known = self.known().clone();
        let (table, mut looks) = (self.name(known.given_up), 0);
        for (gateway, level) in gateways.iter().flat_map(|gateway| LEVELS.map(|level| (gateway, level))) {
            let shown = match list(gateway, &table, level).await {
                Ok(shown) => shown,
                Err(error) if is_no_table(&error) && !known.is_there => continue,
                Err(error) => return Err(error),
            };
            let shown = shown.iter().map(|found| Ok(id_of(found)?.to_owned()));
            let shown = shown.collect::<Result<BTreeSet<String>>>()?;
            let revived: Vec<&String> = shown.intersection(&known.dropped).collect();
            ensure!(revived.is_empty(), "at {level}: of a table that was dropped: {revived:?}");
            let lost: Vec<&String> = known.written.difference(&shown).collect();
            ensure!(lost.is_empty(), "at {level}: lost: {lost:?}");
            let strange =
                shown.iter().find(|id| !known.written.contains(*id) && !known.doubtful.contains(*id));
            ensure!(strange.is_none(), "at {level}: {strange:?}, which nobody inserted");
            looks += 1;
        }
        Ok(looks)
    }

    /// All that may be left of the round.
    async fn tidy_up(&self, gateway: &RestClient) {
        let names = self.known().given_up;
        for given_up in 0..=names {
            let path = format!("/api/v1/tables/{}", self.name(given_up));
            let _: Result<Value, CallError> = gateway.call(Method::DELETE, &path, None).await;
        }
    }

    fn table(&self) -> String {
        self.name(self.known().given_up)
    }

    fn name(&self, given_up: u64) -> String {
        format!("fleeting-{}-{given_up}", self.round)
    }

    fn known(&self) -> std::sync::MutexGuard<'_, Known> {
        self.known.lock().expect("no holder panics")
    }
}

impl Known {
    fn take_another_name(&mut self) {
        *self = Known { given_up: self.given_up + 1, ..Known::default() };
    }
}

impl Workload for Schema {
    fn kind(&self) -> String {
        "schema".to_owned()
    }

    fn clients(&self) -> u32 {
        1
    }

    fn portion(&self) -> u64 {
        3
    }

    fn work<'a>(&'a self, seat: Seat<'a>, _client: u32) -> BoxFuture<'a, Result<()>> {
        Box::pin(self.run(seat))
    }

    fn check<'a>(&'a self, gateways: &'a [RestClient]) -> BoxFuture<'a, Result<Checked>> {
        Box::pin(async {
            let looks = self.look(gateways).await.with_context(|| format!("table {}", self.table()))?;
            self.tidy_up(gateways.first().context("no gateway")?).await;
            let dropped = self.known().dropped.len();
            Ok(vec![("looks at new tables", looks), ("documents dropped", dropped)])
        })
    }
}

fn is_no_table(error: &anyhow::Error) -> bool {
    error.downcast_ref::<CallError>().is_some_and(|error| error.code() == Some("table_not_found"))
}
