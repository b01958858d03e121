//! Searches without pause while something is done to the cluster, and keeps count of what failed.

use std::time::Duration;

use anyhow::{Result, ensure};
use futures::future::join;
use tokio_util::sync::CancellationToken;

use crate::debian::Debian;
use crate::rest::RestClient;

/// Searches of one at a time are too few to meet a short gap.
const CLIENTS: usize = 4;
/// Longer than a Service needs to learn that a pod is gone; a retry at once would often meet the same pod.
const BEFORE_RETRY: Duration = Duration::from_secs(3);
/// Above the server's own deadline: the server is to say why, not this client.
const TIMEOUT: Duration = Duration::from_secs(40);

/// What the searches met.
#[derive(Debug, Default)]
pub struct Tally {
    /// Searches that were asked, retries not counted.
    pub searches: usize,
    /// What each search met that failed at first.
    pub failed_once: Vec<String>,
    /// What each search met whose retry failed as well, or whose answer was wrong.
    pub failed: Vec<String>,
}

impl Tally {
    /// Not one search failed.
    ///
    /// # Errors
    /// When one did, or so few ran that the tally means nothing.
    pub fn without_failure(&self) -> Result<()> {
        self.without_failure_after_retry()?;
        ensure!(
            self.failed_once.is_empty(),
            "{} of {} failed: {:?}",
            self.failed_once.len(),
            self.searches,
            self.first(&self.failed_once)
        );
        Ok(())
    }

    /// No search failed twice.
    ///
    /// # Errors
    /// As [`Tally::without_failure`].
    pub fn without_failure_after_retry(&self) -> Result<()> {
        ensure!(self.searches >= 20, "only {} searches ran", self.searches);
        ensure!(
            self.failed.is_empty(),
            "{} of {} failed twice: {:?}",
            self.failed.len(),
            self.searches,
            self.first(&self.failed)
        );
        Ok(())
    }

    fn first<'a>(&self, failures: &'a [String]) -> &'a [String] {
        &failures[..failures.len().min(5)]
    }
}

/// Runs `deed` while clients search `table` through `url`, a connection per search; ends with the deed.
///
/// # Errors
/// What the deed returns.
pub async fn search_during<T>(
    url: &str,
    table: &str,
    debian: &Debian,
    deed: impl Future<Output = Result<T>>,
) -> Result<(T, Tally)> {
    let over = CancellationToken::new();
    let client = RestClient::without_reuse(url, TIMEOUT)?;
    let searches = futures::future::join_all(
        (0..CLIENTS).map(|first| search_until(&client, table, debian, first, &over)),
    );
    let (done, tallies) = join(
        async {
            let done = deed.await;
            over.cancel();
            done
        },
        searches,
    )
    .await;
    let mut all = Tally::default();
    for tally in tallies {
        all.searches += tally.searches;
        all.failed_once.extend(tally.failed_once);
        all.failed.extend(tally.failed);
    }
    Ok((done?, all))
}

async fn search_until(
    client: &RestClient,
    table: &str,
    debian: &Debian,
    first: usize,
    over: &CancellationToken,
) -> Tally {
    let mut tally = Tally::default();
    let mut query = first;
    while !over.is_cancelled() {
        tally.searches += 1;
        let mut answer = client.search_exactly(table, debian.query(query), 100).await;
        if let Err(why) = &answer {
            tally.failed_once.push(format!("{why:?}"));
            tokio::time::sleep(BEFORE_RETRY).await;
            answer = client.search_exactly(table, debian.query(query), 100).await;
        }
        // An answer that is wrong is not mended by asking again.
        let verdict = answer.map_err(anyhow::Error::from).and_then(|hits| debian.check(query, &hits.pairs()));
        tally.failed.extend(verdict.err().map(|why| format!("{why:#}")));
        query = (query + CLIENTS) % debian.queries();
    }
    tally
}
