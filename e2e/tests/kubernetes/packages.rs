//! The documents of the scenario: embeddings of Debian packages, and the answers that are right for them.

use std::time::Duration;

use anyhow::{Result, ensure};
use serde_json::{Value, json};
use vectorsphere_e2e::access::Access;
use vectorsphere_e2e::debian::Debian;
use vectorsphere_e2e::load;
use vectorsphere_e2e::phases::say;
use vectorsphere_e2e::rest::{CallError, RestClient, SearchAnswer};
use vectorsphere_e2e::settings::Settings;

/// The table that holds the documents.
pub(crate) const TABLE: &str = "debian_packages";
/// Shards of the table: two for each of the three slaves.
pub(crate) const SHARDS: u32 = 6;

/// The set, and the way to the cluster that holds it.
pub(crate) struct Packages {
    pub(crate) debian: Debian,
    pub(crate) client: RestClient,
    access: Access,
}

impl Packages {
    /// The whole set where it is on this machine, else the sample that ships with the sources.
    pub(crate) fn open(settings: &Settings, access: Access) -> Result<Self> {
        let debian = match settings.data() {
            Some(folder) => Debian::load(&folder)?,
            None => Debian::sample()?,
        };
        let client = RestClient::new(access.url(), Duration::from_secs(30))?;
        Ok(Self { debian, client, access })
    }

    /// Where the Service answers.
    pub(crate) fn url(&self) -> &str {
        self.access.url()
    }

    /// Creates the table and loads all documents in batches of 500.
    pub(crate) async fn load(&self) -> Result<()> {
        let created = self.client.create_table(TABLE, self.debian.dimension(), SHARDS).await?;
        ensure!(created["shards"] == SHARDS, "created {created}");
        let took = load::load(&self.client, TABLE, &self.debian, 2).await?;
        let rate = self.debian.len() as f64 / took.as_secs_f64();
        say(&format!("           {} documents, {rate:.0}/s", self.debian.len()));
        let statistics: Value = self.client.get(&format!("/api/v1/tables/{TABLE}/stats")).await?;
        ensure!(statistics["documents"] == self.debian.len(), "the table says {statistics}");
        Ok(())
    }

    /// Asks all queries and compares with the exact answers.
    pub(crate) async fn check(&self) -> Result<()> {
        let took = load::check_queries(&self.client, TABLE, &self.debian, 4).await?;
        let rate = self.debian.queries() as f64 / took.as_secs_f64();
        say(&format!("           {} queries, {rate:.0}/s", self.debian.queries()));
        Ok(())
    }

    /// One search at `client`; `allow_partial` asks for what there is.
    pub(crate) async fn search(
        &self,
        client: &RestClient,
        query: usize,
        allow_partial: bool,
    ) -> Result<SearchAnswer, CallError> {
        let vector = self.debian.query(query);
        let body = json!({"vector": vector, "top_k": 100, "exact": true, "allow_partial": allow_partial});
        client.post(&format!("/api/v1/tables/{TABLE}/search"), &body).await
    }
}
