//! Clients that insert documents, each once: all that were acknowledged must be there in the end, and nothing that nobody
//! inserted; an exact search finds each by its own vector.

use std::collections::BTreeMap;
use std::sync::Mutex;

use anyhow::{Context, Result, bail, ensure};
use futures::future::BoxFuture;
use reqwest::Method;
use serde_json::{Value, json};
use vectorsphere_checker::Fate;
use vectorsphere_checker::set::{self, Stats};

use super::documents::id_of;
use super::{Checked, Outcome, Region, SLOW_PACE, Seat, Workload, list};
use crate::rest::{RestClient, SearchAnswer};

/// Largest batch.
const BATCH: u64 = 8;
/// Each so many documents one is searched for.
const SEARCH_EACH: usize = 97;

/// What was inserted into a table since the beginning of the run.
pub struct Set {
    table: String,
    inserts: Mutex<BTreeMap<String, (u64, Fate)>>,
}

impl Workload for Set {
    fn kind(&self) -> String {
        format!("set in {}", self.table)
    }

    fn clients(&self) -> u32 {
        2
    }

    fn work<'a>(&'a self, seat: Seat<'a>, _client: u32) -> BoxFuture<'a, Result<()>> {
        Box::pin(self.run(seat))
    }

    fn check<'a>(&'a self, gateways: &'a [RestClient]) -> BoxFuture<'a, Result<Checked>> {
        Box::pin(async {
            let gateway = gateways.first().context("no gateway")?;
            Ok(vec![("inserts looked for", self.look(gateway).await?.acknowledged)])
        })
    }
}

impl Set {
    /// Nothing was inserted yet.
    #[must_use]
    pub fn new(table: &str) -> Set {
        Set { table: table.to_owned(), inserts: Mutex::default() }
    }

    /// Deletes one of the documents, and does not note it.
    ///
    /// # Errors
    /// When there is none, or it cannot be deleted.
    pub async fn steal(&self, gateway: &RestClient) -> Result<()> {
        let id = {
            let inserts = self.inserts.lock().expect("no holder panics");
            let mut acknowledged = inserts.iter().filter(|(_, (_, fate))| *fate == Fate::Acknowledged);
            acknowledged.next().context("nothing to steal")?.0.clone()
        };
        let path = format!("/api/v1/tables/{}/documents/{id}", self.table);
        gateway.call::<Value>(Method::DELETE, &path, None).await?;
        Ok(())
    }

    async fn run(&self, mut seat: Seat<'_>) -> Result<()> {
        let path = format!("/api/v1/tables/{}/documents", self.table);
        while seat.goes_on(SLOW_PACE).await {
            let batch: Vec<u64> = (0..=seat.draw(BATCH)).map(|_| seat.value()).collect();
            let documents: Vec<Value> =
                batch.iter().map(|value| Region::COMMON.document(&id(*value), *value)).collect();
            let body = json!({ "documents": documents });
            let fate = match seat.call(Method::POST, &path, Some(body)).await? {
                Outcome::Done(_) => Fate::Acknowledged,
                // What is refused by one shard may have happened in another one.
                Outcome::Refused if batch.len() == 1 => Fate::Failed,
                Outcome::Refused | Outcome::Unknown => Fate::Unknown,
                other => bail!("an insert was told {other:?}"),
            };
            let inserts = batch.into_iter().map(|value| (id(value), (value, fate)));
            self.inserts.lock().expect("no holder panics").extend(inserts);
        }
        Ok(())
    }

    async fn look(&self, client: &RestClient) -> Result<Stats> {
        let documents = list(client, &self.table, "strong").await?;
        let found: Vec<&Value> = documents.iter().filter(|found| id_of(found).is_ok_and(is_ours)).collect();
        let ids = found.iter().map(|found| id_of(found)).collect::<Result<Vec<_>>>()?;
        let stats = {
            let inserts = self.inserts.lock().expect("no holder panics");
            let fates = inserts.iter().map(|(id, (_, fate))| (id.as_str(), *fate));
            let stats = set::check(fates, ids).with_context(|| format!("table {}", self.table))?;
            for found in &found {
                let (id, value) = (id_of(found)?, Region::COMMON.value_of(found)?);
                ensure!(inserts[id].0 == value, "table {}: {id} holds {value}", self.table);
            }
            stats
        };
        for found in found.iter().step_by(SEARCH_EACH) {
            let (id, vector) = (id_of(found)?, Region::COMMON.vector(Region::COMMON.value_of(found)?));
            let answer: SearchAnswer = client.search_exactly(&self.table, &vector, 1).await?;
            let best = answer.hits.first().map(|hit| (hit.document_id.as_str(), hit.score));
            ensure!(best == Some((id, 0.0)), "table {}: a search for {id} found {best:?}", self.table);
        }
        Ok(stats)
    }
}

fn id(value: u64) -> String {
    format!("s{value}")
}

fn is_ours(id: &str) -> bool {
    id.starts_with('s')
}
