//! Clients that insert batches of documents into one shard: whoever looks finds all of a batch or nothing of it.

use std::collections::BTreeSet;
use std::sync::Mutex;

use anyhow::{Context, Result, bail};
use futures::future::BoxFuture;
use reqwest::Method;
use serde_json::{Value, json};
use vectorsphere_checker::Fate;
use vectorsphere_checker::batch::{self, Batch, Read};

use super::documents::id_of;
use super::{Checked, Outcome, Region, SLOW_PACE, Seat, Workload, list};
use crate::rest::RestClient;

/// Documents of a batch.
const SIZE: u64 = 20;
/// Reads look at one of the last so many batches.
const RECENT: u64 = 5;

/// The batches of one round, each in a region of its own in a table of one shard.
pub struct Batches {
    table: String,
    sent: Mutex<Vec<Sent>>,
}

struct Sent {
    region: Region,
    batch: Batch,
    reads: Vec<Read>,
}

impl Batches {
    /// None yet.
    #[must_use]
    pub fn new(table: &str) -> Batches {
        Batches { table: table.to_owned(), sent: Mutex::default() }
    }

    async fn run(&self, mut seat: Seat<'_>) -> Result<()> {
        while seat.goes_on(SLOW_PACE).await {
            if seat.draw(3) == 0 {
                self.insert(&mut seat).await?;
            } else {
                self.look(&mut seat).await?;
            }
        }
        Ok(())
    }

    async fn insert(&self, seat: &mut Seat<'_>) -> Result<()> {
        let region = Region(seat.value());
        let ids: Vec<String> = (0..SIZE).map(|number| format!("t{}-{number}", region.0)).collect();
        let documents: Vec<Value> =
            ids.iter().zip(0..).map(|(id, number)| region.document(id, number)).collect();
        let invoked = seat.tick();
        let batch = Batch { documents: ids, invoked, fate: Fate::Unknown, returned: 0 };
        let place = {
            let mut sent = self.sent();
            sent.push(Sent { region, batch, reads: Vec::new() });
            sent.len() - 1
        };
        let path = format!("/api/v1/tables/{}/documents", self.table);
        let fate = match seat.call(Method::POST, &path, Some(json!({ "documents": documents }))).await? {
            Outcome::Done(_) => Fate::Acknowledged,
            Outcome::Refused => Fate::Failed,
            Outcome::Unknown => Fate::Unknown,
            other => bail!("a batch was told {other:?}"),
        };
        let batch = &mut self.sent()[place].batch;
        (batch.fate, batch.returned) = (fate, seat.tick());
        Ok(())
    }

    async fn look(&self, seat: &mut Seat<'_>) -> Result<()> {
        let count = self.sent().len() as u64;
        let Some(place) = count.checked_sub(1 + seat.draw(RECENT)) else { return Ok(()) };
        let region = self.sent()[place as usize].region;
        let invoked = seat.tick();
        if let Some(shown) = seat.search(&self.table, region, "strong").await? {
            let found =
                shown.iter().map(|document| Ok(id_of(document)?.to_owned())).collect::<Result<_>>()?;
            let read = Read { invoked, returned: seat.tick(), found };
            self.sent()[place as usize].reads.push(read);
        }
        Ok(())
    }

    fn sent(&self) -> std::sync::MutexGuard<'_, Vec<Sent>> {
        self.sent.lock().expect("no holder panics")
    }
}

impl Workload for Batches {
    fn kind(&self) -> String {
        format!("batch in {}", self.table)
    }

    fn clients(&self) -> u32 {
        2
    }

    fn work<'a>(&'a self, seat: Seat<'a>, _client: u32) -> BoxFuture<'a, Result<()>> {
        Box::pin(self.run(seat))
    }

    fn check<'a>(&'a self, gateways: &'a [RestClient]) -> BoxFuture<'a, Result<Checked>> {
        Box::pin(async {
            let documents = list(gateways.first().context("no gateway")?, &self.table, "strong").await?;
            let found: BTreeSet<String> =
                documents.iter().map(|document| Ok(id_of(document)?.to_owned())).collect::<Result<_>>()?;
            let last = Read { invoked: u64::MAX, returned: u64::MAX, found };
            let (sent, mut reads) = (self.sent(), 0);
            for Sent { batch, reads: shown, .. } in sent.iter() {
                let batch = std::slice::from_ref(batch);
                batch::check(batch, shown)
                    .and_then(|()| batch::check(batch, std::slice::from_ref(&last)))
                    .with_context(|| format!("table {}", self.table))?;
                reads += shown.len() + 1;
            }
            Ok(vec![("batches", sent.len()), ("looks at batches", reads)])
        })
    }
}
