//! Clients that read, write and delete the same few documents, each change with a value of its own, some under a condition:
//! every document must behave as if there were one copy of it.

use std::collections::BTreeMap;
use std::sync::Mutex;

use anyhow::{Context, Result, bail, ensure};
use futures::future::BoxFuture;
use reqwest::Method;
use serde_json::Value;
use vectorsphere_checker::{Client, History, Operation, Outcome as Known, Seen, Value as Written, Version};

use super::answer::judge;
use super::{Checked, Outcome, PACE, Region, Seat, Workload};
use crate::rest::RestClient;

const LEVELS: [&str; 4] = ["strong", "strong-noclock", "session", "eventual"];
/// Documents of a round in one table.
const DOCUMENTS: u64 = 12;

/// The documents of one round in one table, and what clients did to them.
pub struct Registers {
    table: String,
    round: u64,
    history: Mutex<History>,
}

impl Workload for Registers {
    fn kind(&self) -> String {
        format!("register in {}", self.table)
    }

    fn clients(&self) -> u32 {
        6
    }

    fn work<'a>(&'a self, seat: Seat<'a>, client: u32) -> BoxFuture<'a, Result<()>> {
        Box::pin(self.run(seat, client))
    }

    fn check<'a>(&'a self, gateways: &'a [RestClient]) -> BoxFuture<'a, Result<Checked>> {
        Box::pin(async {
            let levels =
                self.compare_levels(gateways).await.with_context(|| format!("table {}", self.table))?;
            let stats = {
                let history = self.history();
                vectorsphere_checker::check(&history).with_context(|| format!("table {}", self.table))?
            };
            Ok(vec![
                ("register operations", stats.operations),
                ("of them unknown", stats.unknown),
                ("registers at rest", levels),
            ])
        })
    }
}

impl Registers {
    /// Documents that are not there yet.
    #[must_use]
    pub fn new(table: &str, round: u64) -> Registers {
        Registers { table: table.to_owned(), round, history: Mutex::default() }
    }

    async fn run(&self, mut seat: Seat<'_>, client: u32) -> Result<()> {
        let mut versions: BTreeMap<u64, Version> = BTreeMap::new();
        while seat.goes_on(PACE).await {
            let document = seat.draw(DOCUMENTS);
            let known = versions.get(&document).copied();
            let operation = choose(&mut seat, known);
            if let Some(version) = self.perform(&mut seat, client, document, operation).await? {
                versions.insert(document, version);
            }
        }
        Ok(())
    }

    /// Sends one operation and writes down what is known of it; returns the version that it showed.
    async fn perform(
        &self,
        seat: &mut Seat<'_>,
        client: u32,
        number: u64,
        operation: Operation,
    ) -> Result<Option<Version>> {
        let id = self.id(number);
        let path = format!("/api/v1/tables/{}/documents/{id}", self.table);
        let condition =
            |version: Option<Version>| version.map(|version| format!("?if_version={}", version.0));
        let (method, path, body) = match operation {
            Operation::Read => {
                let level = ["strong", "strong-noclock"][usize::from(seat.draw(4) == 0)];
                (Method::GET, format!("{path}?consistency={level}"), None)
            }
            Operation::Write { value, condition } => {
                let mut body = Region::COMMON.document(&id, value.0);
                if let Some(version) = condition {
                    body["if_version"] = version.0.into();
                }
                (Method::PUT, path, Some(body))
            }
            Operation::Delete { condition: version } => {
                (Method::DELETE, path + &condition(version).unwrap_or_default(), None)
            }
        };
        let op = self.history().invoke(Client(client), &id, operation, seat.tick());
        let outcome = seat.call(method, &path, body).await?;
        let known = known(operation, outcome).with_context(|| id.clone())?;
        // An unknown outcome has no end: whatever happens to the document later may be its doing.
        self.history().complete(op, known, seat.tick());
        Ok(match known {
            Known::Found(Some(seen)) => seen.version,
            Known::Found(None) => Some(Version::ABSENT),
            Known::Mismatch(version) => Some(version),
            Known::Done(_) | Known::Failed | Known::Unknown => None,
        })
    }

    /// What is there when nobody writes: the same for every gateway and at every level, and nothing that was deleted.
    async fn compare_levels(&self, gateways: &[RestClient]) -> Result<usize> {
        let mut compared = 0;
        for number in 0..DOCUMENTS {
            let mut shown = Vec::new();
            for (gateway, level) in gateways.iter().flat_map(|gateway| LEVELS.map(|level| (gateway, level))) {
                let path = format!(
                    "/api/v1/tables/{}/documents/{}?consistency={level}",
                    self.table,
                    self.id(number)
                );
                let now = match judge(gateway.get(&path).await)? {
                    Outcome::Done(document) => Some(seen(&document)?),
                    Outcome::Absent => None,
                    other => bail!("{path} at rest: {other:?}"),
                };
                shown.push((level, now));
            }
            ensure!(
                shown.windows(2).all(|pair| pair[0].1 == pair[1].1),
                "{}: at rest: {shown:?}",
                self.id(number)
            );
            compared += shown.len();
        }
        Ok(compared)
    }

    fn id(&self, number: u64) -> String {
        format!("r{}-{number}", self.round)
    }

    fn history(&self) -> std::sync::MutexGuard<'_, History> {
        self.history.lock().expect("no holder panics")
    }
}

/// The next operation of a client that knows a document at this version.
fn choose(seat: &mut Seat<'_>, known: Option<Version>) -> Operation {
    match seat.draw(20) {
        0..9 => Operation::Read,
        9..14 => Operation::Write { value: Written(seat.value()), condition: None },
        14..17 => Operation::Write {
            value: Written(seat.value()),
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
        (_, other) => bail!("a change was told {other:?}"),
    })
}

fn seen(document: &Value) -> Result<Seen> {
    let version = document["version"].as_u64().with_context(|| format!("no version in {document}"))?;
    Ok(Seen { value: Written(Region::COMMON.value_of(document)?), version: Some(Version(version)) })
}
