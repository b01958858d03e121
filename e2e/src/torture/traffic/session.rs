//! Clients that pass on the token of each answer and read any copy: each sees its own writes, and never goes back.
//!
//! A document has one writer, whose values grow, so a value is a version. What comes of a write of unknown outcome nobody can
//! say, so its writer takes another document then.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::{Context, Result, bail, ensure};
use futures::future::BoxFuture;
use reqwest::Method;
use serde_json::Value;
use vectorsphere_checker::{
    Client, History, Operation, Outcome as Known, Seen, Value as Written, Version, session,
};

use super::{Checked, Outcome, PACE, Region, Seat, Workload};
use crate::rest::RestClient;

const CLIENTS: u32 = 3;
/// What need not see the newest state, but what the token says.
const LEVELS: [&str; 3] = ["session", "eventual", "bounded&max_staleness_ms=600000"];

/// The documents of one round in one table, and what their readers were shown.
pub struct Sessions {
    table: String,
    round: u64,
    /// Documents that each client has given up.
    given_up: [AtomicU64; CLIENTS as usize],
    history: Mutex<History>,
}

impl Sessions {
    /// Documents that are not there yet.
    #[must_use]
    pub fn new(table: &str, round: u64) -> Sessions {
        Sessions { table: table.to_owned(), round, given_up: Default::default(), history: Mutex::default() }
    }

    async fn run(&self, mut seat: Seat<'_>, client: u32) -> Result<()> {
        // Of the last answer about each document.
        let mut tokens: BTreeMap<String, String> = BTreeMap::new();
        while seat.goes_on(PACE).await {
            if seat.draw(3) == 0 {
                self.write(&mut seat, client, &mut tokens).await?;
            } else {
                self.read(&mut seat, client, &mut tokens).await?;
            }
        }
        Ok(())
    }

    async fn write(
        &self,
        seat: &mut Seat<'_>,
        client: u32,
        tokens: &mut BTreeMap<String, String>,
    ) -> Result<()> {
        let (id, value) = (self.current(client), seat.value());
        let operation = Operation::Write { value: Written(value), condition: None };
        let op = self.history().invoke(Client(client), &id, operation, seat.tick());
        let body = Region::COMMON.document(&id, value);
        let known = match seat.call(Method::PUT, &self.path(&id), Some(body)).await? {
            Outcome::Done(receipt) => {
                tokens.insert(id, token_of(&receipt)?);
                Known::Done(Some(Version(value)))
            }
            Outcome::Refused => Known::Failed,
            Outcome::Unknown => {
                self.given_up[client as usize].fetch_add(1, Ordering::Relaxed);
                Known::Unknown
            }
            other => bail!("a write was told {other:?}"),
        };
        self.history().complete(op, known, seat.tick());
        Ok(())
    }

    async fn read(
        &self,
        seat: &mut Seat<'_>,
        client: u32,
        tokens: &mut BTreeMap<String, String>,
    ) -> Result<()> {
        let id = self.current(u32::try_from(seat.draw(u64::from(CLIENTS)))?);
        let level = LEVELS[usize::try_from(seat.draw(LEVELS.len() as u64))?];
        let token = tokens.get(&id).map(|token| format!("&session_token={token}")).unwrap_or_default();
        let path = format!("{}?consistency={level}{token}", self.path(&id));
        let op = self.history().invoke(Client(client), &id, Operation::Read, seat.tick());
        let known = match seat.call(Method::GET, &path, None).await? {
            Outcome::Done(found) => {
                let value = Region::COMMON.value_of(&found)?;
                tokens.insert(id, token_of(&found)?);
                Known::Found(Some(Seen { value: Written(value), version: Some(Version(value)) }))
            }
            Outcome::Absent => Known::Found(None),
            Outcome::Refused | Outcome::Unknown => Known::Failed,
            other => bail!("a read was told {other:?}"),
        };
        self.history().complete(op, known, seat.tick());
        Ok(())
    }

    /// The document that a client writes at present.
    fn current(&self, client: u32) -> String {
        format!("n{}-{client}-{}", self.round, self.given_up[client as usize].load(Ordering::Relaxed))
    }

    fn path(&self, id: &str) -> String {
        format!("/api/v1/tables/{}/documents/{id}", self.table)
    }

    fn history(&self) -> std::sync::MutexGuard<'_, History> {
        self.history.lock().expect("no holder panics")
    }
}

impl Workload for Sessions {
    fn kind(&self) -> String {
        format!("session in {}", self.table)
    }

    fn clients(&self) -> u32 {
        CLIENTS
    }

    fn work<'a>(&'a self, seat: Seat<'a>, client: u32) -> BoxFuture<'a, Result<()>> {
        Box::pin(self.run(seat, client))
    }

    fn check<'a>(&'a self, _gateways: &'a [RestClient]) -> BoxFuture<'a, Result<Checked>> {
        Box::pin(async {
            let stats = session::check(&self.history()).with_context(|| format!("table {}", self.table))?;
            ensure!(stats.reads > 0, "no session read anything");
            Ok(vec![("reads of sessions", stats.reads)])
        })
    }
}

fn token_of(answer: &Value) -> Result<String> {
    let token = answer["session_token"].as_str().with_context(|| format!("no token in {answer}"))?;
    Ok(token.to_owned())
}
