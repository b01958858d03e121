//! Clients that insert documents, each once: all that were acknowledged must be there in the end, and nothing that nobody
//! inserted; an exact search finds each by its own vector.

use std::collections::BTreeMap;
use std::sync::Mutex;

use anyhow::{Context, Result, ensure};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use reqwest::Method;
use serde_json::{Value, json};
use vectorsphere_checker::Fate;
use vectorsphere_checker::set::{self, Stats};

use super::{Desk, Outcome, document, id_of, list, value_of};
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

impl Set {
    /// Nothing was inserted yet.
    #[must_use]
    pub fn new(table: &str) -> Set {
        Set { table: table.to_owned(), inserts: Mutex::default() }
    }

    /// One client, until the round is over.
    ///
    /// # Errors
    /// When an answer is one that it must never get.
    pub async fn work(&self, desk: &Desk, client: u32) -> Result<()> {
        let mut random = ChaCha8Rng::seed_from_u64(desk.value() ^ u64::from(client));
        let path = format!("/api/v1/tables/{}/documents", self.table);
        while desk.goes_on().await {
            let batch: Vec<u64> = (0..random.random_range(1..=BATCH)).map(|_| desk.value()).collect();
            let documents: Vec<Value> = batch.iter().map(|value| document(&id(*value), *value)).collect();
            let body = json!({ "documents": documents });
            let kind = format!("set in {}", self.table);
            let fate = match desk.call(&kind, &mut random, Method::POST, &path, Some(body)).await? {
                Outcome::Done(_) => Fate::Acknowledged,
                // What is refused by one shard may have happened in another one.
                Outcome::Refused if batch.len() == 1 => Fate::Failed,
                Outcome::Refused | Outcome::Unknown => Fate::Unknown,
                Outcome::Absent | Outcome::Mismatch(_) => anyhow::bail!("an insert was told of a condition"),
            };
            let inserts = batch.into_iter().map(|value| (id(value), (value, fate)));
            self.inserts.lock().expect("no holder panics").extend(inserts);
        }
        Ok(())
    }

    /// Checks that everything is there.
    ///
    /// # Errors
    /// What is lost, or should not be there.
    pub async fn check(&self, client: &RestClient) -> Result<Stats> {
        let documents = list(client, &self.table, "strong").await?;
        let found: Vec<&Value> = documents.iter().filter(|found| id_of(found).is_ok_and(is_ours)).collect();
        let ids = found.iter().map(|found| id_of(found)).collect::<Result<Vec<_>>>()?;
        let stats = {
            let inserts = self.inserts.lock().expect("no holder panics");
            let fates = inserts.iter().map(|(id, (_, fate))| (id.as_str(), *fate));
            let stats = set::check(fates, ids).with_context(|| format!("table {}", self.table))?;
            for found in &found {
                let (id, value) = (id_of(found)?, value_of(found)?);
                ensure!(inserts[id].0 == value, "table {}: {id} holds {value}", self.table);
            }
            stats
        };
        for found in found.iter().step_by(SEARCH_EACH) {
            let (id, vector) = (id_of(found)?, super::vector(value_of(found)?));
            let answer: SearchAnswer = client.search(&self.table, &vector, 1).await?;
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
