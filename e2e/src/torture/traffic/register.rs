//! Clients that read, write and delete the same few documents, each change with a value of its own, some under a condition:
//! every document must behave as if there were one copy of it.

use std::collections::BTreeMap;
use std::sync::Mutex;

use anyhow::{Context, Result};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use reqwest::Method;
use serde_json::Value;
use vectorsphere_checker::{
    Client, History, Operation, Outcome as Known, Seen, Stats, Value as Written, Version,
};

use super::{Desk, Outcome, document, value_of};

/// Documents of a round in one table.
const DOCUMENTS: u64 = 12;

/// The documents of one round in one table, and what clients did to them.
pub struct Registers {
    table: String,
    round: u64,
    history: Mutex<History>,
}

impl Registers {
    /// Documents that are not there yet.
    #[must_use]
    pub fn new(table: &str, round: u64) -> Registers {
        Registers { table: table.to_owned(), round, history: Mutex::default() }
    }

    /// One client, until the round is over.
    ///
    /// # Errors
    /// When an answer is one that it must never get.
    pub async fn work(&self, desk: &Desk, client: u32) -> Result<()> {
        let mut random = ChaCha8Rng::seed_from_u64(self.round << 32 | u64::from(client));
        let mut versions: BTreeMap<u64, Version> = BTreeMap::new();
        while desk.goes_on().await {
            let document = random.random_range(0..DOCUMENTS);
            let known = versions.get(&document).copied();
            let operation = choose(&mut random, desk, known);
            if let Some(version) = self.perform(desk, client, document, operation, &mut random).await? {
                versions.insert(document, version);
            }
        }
        Ok(())
    }

    /// Checks what the clients were told.
    ///
    /// # Errors
    /// The document whose answers nothing explains.
    pub fn check(&self) -> Result<Stats> {
        let history = self.history.lock().expect("no holder panics");
        vectorsphere_checker::check(&history).with_context(|| format!("table {}", self.table))
    }

    /// Sends one operation and writes down what is known of it; returns the version that it showed.
    async fn perform(
        &self,
        desk: &Desk,
        client: u32,
        number: u64,
        operation: Operation,
        random: &mut ChaCha8Rng,
    ) -> Result<Option<Version>> {
        let id = format!("r{}-{number}", self.round);
        let path = format!("/api/v1/tables/{}/documents/{id}", self.table);
        let condition =
            |version: Option<Version>| version.map(|version| format!("?if_version={}", version.0));
        let (method, path, body) = match operation {
            Operation::Read => {
                let level = ["strong", "strong-noclock"][usize::from(random.random_range(0..4) == 0)];
                (Method::GET, format!("{path}?consistency={level}"), None)
            }
            Operation::Write { value, condition } => {
                let mut body = document(&id, value.0);
                if let Some(version) = condition {
                    body["if_version"] = version.0.into();
                }
                (Method::PUT, path, Some(body))
            }
            Operation::Delete { condition: version } => {
                (Method::DELETE, path + &condition(version).unwrap_or_default(), None)
            }
        };
        let op = self.history().invoke(Client(client), &id, operation, desk.tick());
        let outcome = desk.call(&format!("register in {}", self.table), random, method, &path, body).await?;
        let known = known(operation, outcome).with_context(|| id.clone())?;
        // An unknown outcome has no end: whatever happens to the document later may be its doing.
        self.history().complete(op, known, desk.tick());
        Ok(match known {
            Known::Found(Some(seen)) => seen.version,
            Known::Found(None) => Some(Version::ABSENT),
            Known::Mismatch(version) => Some(version),
            Known::Done(_) | Known::Failed | Known::Unknown => None,
        })
    }

    fn history(&self) -> std::sync::MutexGuard<'_, History> {
        self.history.lock().expect("no holder panics")
    }
}

/// The next operation of a client that knows a document at this version.
fn choose(random: &mut ChaCha8Rng, desk: &Desk, known: Option<Version>) -> Operation {
    match random.random_range(0..20) {
        0..9 => Operation::Read,
        9..14 => Operation::Write { value: Written(desk.value()), condition: None },
        14..17 => Operation::Write {
            value: Written(desk.value()),
            condition: Some(known.unwrap_or(Version::ABSENT)),
        },
        17..19 => Operation::Delete { condition: None },
        // Only what exists can be deleted on a condition.
        _ => Operation::Delete { condition: known.filter(|version| *version != Version::ABSENT) },
    }
}

/// What a client knows of its operation.
fn known(operation: Operation, outcome: Outcome) -> Result<Known> {
    Ok(match (operation, outcome) {
        (Operation::Read, Outcome::Done(document)) => Known::Found(Some(seen(&document)?)),
        (Operation::Read, Outcome::Absent) => Known::Found(None),
        // A read that failed has shown nothing.
        (Operation::Read, _) => Known::Failed,
        (_, Outcome::Done(_)) => Known::Done(None),
        (_, Outcome::Mismatch(version)) => Known::Mismatch(Version(version)),
        (_, Outcome::Refused) => Known::Failed,
        (_, Outcome::Unknown) => Known::Unknown,
        (_, Outcome::Absent) => anyhow::bail!("a change was told that there is no document"),
    })
}

fn seen(document: &Value) -> Result<Seen> {
    let version = document["version"].as_u64().with_context(|| format!("no version in {document}"))?;
    Ok(Seen { value: Written(value_of(document)?), version: Some(Version(version)) })
}
