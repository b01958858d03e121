//! Clients that change documents while others search for all of them: no search shows what was gone before it began, or
//! misses what was there.

use std::sync::Mutex;

use anyhow::{Context, Result, bail, ensure};
use futures::future::BoxFuture;
use reqwest::Method;
use vectorsphere_checker::visibility::{self, Search};
use vectorsphere_checker::{Client, History, Operation, Outcome as Known, Value as Written};

use super::documents::id_of;
use super::{Checked, Outcome, Region, SLOW_PACE, Seat, Workload};
use crate::rest::RestClient;

const DOCUMENTS: u64 = 24;

/// The documents of one round in one table, and what was seen of them.
pub struct Visibility {
    table: String,
    region: Region,
    history: Mutex<History>,
    searches: Mutex<Vec<Search>>,
}

impl Visibility {
    /// Documents that are not there yet, in a region of their own.
    #[must_use]
    pub fn new(table: &str, region: Region) -> Visibility {
        Visibility { table: table.to_owned(), region, history: Mutex::default(), searches: Mutex::default() }
    }

    async fn run(&self, mut seat: Seat<'_>, client: u32) -> Result<()> {
        while seat.goes_on(SLOW_PACE).await {
            if seat.draw(3) == 0 {
                self.search(&mut seat).await?;
            } else {
                self.change(&mut seat, client).await?;
            }
        }
        Ok(())
    }

    async fn change(&self, seat: &mut Seat<'_>, client: u32) -> Result<()> {
        let id = format!("v{}-{}", self.region.0, seat.draw(DOCUMENTS));
        let (operation, method, body) = match seat.draw(3) {
            0 => (Operation::Delete { condition: None }, Method::DELETE, None),
            _ => {
                let value = seat.value();
                let write = Operation::Write { value: Written(value), condition: None };
                (write, Method::PUT, Some(self.region.document(&id, value)))
            }
        };
        let path = format!("/api/v1/tables/{}/documents/{id}", self.table);
        let op = self.history().invoke(Client(client), &id, operation, seat.tick());
        let known = match seat.call(method, &path, body).await? {
            Outcome::Done(_) => Known::Done(None),
            Outcome::Refused => Known::Failed,
            Outcome::Unknown => Known::Unknown,
            other => bail!("a change was told {other:?}"),
        };
        self.history().complete(op, known, seat.tick());
        Ok(())
    }

    async fn search(&self, seat: &mut Seat<'_>) -> Result<()> {
        let invoked = seat.tick();
        let level = ["strong", "strong-noclock"][usize::from(seat.draw(3) == 0)];
        if let Some(found) = seat.search(&self.table, self.region, level).await? {
            let shown = found
                .iter()
                .map(|document| Ok((id_of(document)?.to_owned(), Written(self.region.value_of(document)?))));
            let shown = shown.collect::<Result<_>>()?;
            let search = Search { invoked, returned: seat.tick(), shown };
            self.searches.lock().expect("no holder panics").push(search);
        }
        Ok(())
    }

    fn history(&self) -> std::sync::MutexGuard<'_, History> {
        self.history.lock().expect("no holder panics")
    }
}

impl Workload for Visibility {
    fn kind(&self) -> String {
        format!("visibility in {}", self.table)
    }

    fn clients(&self) -> u32 {
        3
    }

    fn work<'a>(&'a self, seat: Seat<'a>, client: u32) -> BoxFuture<'a, Result<()>> {
        Box::pin(self.run(seat, client))
    }

    fn check<'a>(&'a self, _gateways: &'a [RestClient]) -> BoxFuture<'a, Result<Checked>> {
        Box::pin(async {
            let searches = self.searches.lock().expect("no holder panics");
            visibility::check(&self.history(), &searches).with_context(|| format!("table {}", self.table))?;
            ensure!(!searches.is_empty(), "nobody searched");
            Ok(vec![("searches for all", searches.len())])
        })
    }
}
