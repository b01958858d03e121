//! Clients that move units between accounts of one shard, two accounts by one conditional batch each time: whoever looks at
//! all accounts finds the same sum.

use std::sync::Mutex;

use anyhow::{Context, Result, bail, ensure};
use futures::future::BoxFuture;
use reqwest::Method;
use serde_json::{Value, json};
use vectorsphere_checker::bank;

use super::documents::id_of;
use super::{Checked, Outcome, PACE, Region, Seat, Workload};
use crate::rest::RestClient;

const ACCOUNTS: u64 = 6;
const UNITS: i64 = 100;

/// The accounts of one round.
pub struct Bank {
    table: String,
    region: Region,
    reads: Mutex<Vec<Vec<(String, i64)>>>,
}

impl Bank {
    /// Accounts that are not there yet, in a region of their own in a table of one shard.
    #[must_use]
    pub fn new(table: &str, region: Region) -> Bank {
        Bank { table: table.to_owned(), region, reads: Mutex::default() }
    }

    async fn run(&self, mut seat: Seat<'_>) -> Result<()> {
        let mut is_open = false;
        while seat.goes_on(PACE).await {
            if !is_open {
                is_open = self.open(&mut seat).await?;
            } else if seat.draw(3) == 0 {
                self.look(&mut seat).await?;
            } else {
                self.transfer(&mut seat).await?;
            }
        }
        Ok(())
    }

    /// Opens all accounts, unless somebody has; false when nobody knows.
    async fn open(&self, seat: &mut Seat<'_>) -> Result<bool> {
        let accounts: Vec<Value> = (0..ACCOUNTS).map(|account| self.account(account, UNITS, 0)).collect();
        match seat.call(Method::POST, &self.path(), Some(json!({"documents": accounts}))).await? {
            Outcome::Done(_) | Outcome::Mismatch(_) => Ok(true),
            Outcome::Refused | Outcome::Unknown => Ok(false),
            other => bail!("an opening was told {other:?}"),
        }
    }

    async fn transfer(&self, seat: &mut Seat<'_>) -> Result<()> {
        let from = seat.draw(ACCOUNTS);
        let to = (from + 1 + seat.draw(ACCOUNTS - 1)) % ACCOUNTS;
        let units = 1 + seat.draw(20).cast_signed();
        let (Some(giver), Some(taker)) = (self.read(seat, from).await?, self.read(seat, to).await?) else {
            return Ok(());
        };
        let batch =
            [self.account(from, giver.0 - units, giver.1), self.account(to, taker.0 + units, taker.1)];
        match seat.call(Method::POST, &self.path(), Some(json!({"documents": batch}))).await? {
            Outcome::Done(_) | Outcome::Mismatch(_) | Outcome::Refused | Outcome::Unknown => Ok(()),
            other => bail!("a transfer was told {other:?}"),
        }
    }

    /// Units of an account, and its version.
    async fn read(&self, seat: &mut Seat<'_>, account: u64) -> Result<Option<(i64, u64)>> {
        let path = format!("{}/{}?consistency=strong", self.path(), self.id(account));
        match seat.call(Method::GET, &path, None).await? {
            Outcome::Done(found) => {
                let version = found["version"].as_u64().with_context(|| format!("no version in {found}"))?;
                Ok(Some((units_of(&found)?, version)))
            }
            Outcome::Refused | Outcome::Unknown => Ok(None),
            other => bail!("account {account} was opened, and a read was told {other:?}"),
        }
    }

    async fn look(&self, seat: &mut Seat<'_>) -> Result<()> {
        if let Some(accounts) = seat.search(&self.table, self.region, "strong").await? {
            let shown = accounts.iter().map(|account| Ok((id_of(account)?.to_owned(), units_of(account)?)));
            let shown = shown.collect::<Result<_>>()?;
            self.reads.lock().expect("no holder panics").push(shown);
        }
        Ok(())
    }

    fn account(&self, account: u64, units: i64, version: u64) -> Value {
        let (id, vector) = (self.id(account), self.region.vector(account));
        json!({"document_id": id, "vector": vector, "metadata": {"units": units}, "if_version": version})
    }

    fn id(&self, account: u64) -> String {
        format!("b{}-{account}", self.region.0)
    }

    fn path(&self) -> String {
        format!("/api/v1/tables/{}/documents", self.table)
    }
}

impl Workload for Bank {
    fn kind(&self) -> String {
        format!("bank in {}", self.table)
    }

    fn clients(&self) -> u32 {
        3
    }

    fn work<'a>(&'a self, seat: Seat<'a>, _client: u32) -> BoxFuture<'a, Result<()>> {
        Box::pin(self.run(seat))
    }

    fn check<'a>(&'a self, _gateways: &'a [RestClient]) -> BoxFuture<'a, Result<Checked>> {
        Box::pin(async {
            let opening = (0..ACCOUNTS).map(|account| (self.id(account), UNITS)).collect();
            let reads = self.reads.lock().expect("no holder panics");
            bank::check(&opening, &reads).with_context(|| format!("table {}", self.table))?;
            ensure!(!reads.is_empty(), "nobody looked at the accounts");
            Ok(vec![("sums of accounts", reads.len())])
        })
    }
}

fn units_of(account: &Value) -> Result<i64> {
    account["metadata"]["units"].as_i64().with_context(|| format!("no units in {account}"))
}
