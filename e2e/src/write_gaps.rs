//! How long a shard takes no writes when something is lost: one client writes to every shard, one document after the
//! other, while something happens to the cluster.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::rest::RestClient;

/// What a writer saw.
#[derive(Clone, Debug, Default)]
pub struct Gaps {
    /// Acknowledged documents, in order.
    pub acknowledged: Vec<String>,
    /// The longest time between two acknowledgements.
    pub longest: Duration,
    /// Calls that failed; each was tried again.
    pub failed: usize,
}

/// Writers that run until they are told to stop.
pub struct Writers {
    stop: Arc<AtomicBool>,
    tasks: JoinSet<Result<Gaps>>,
}

impl Writers {
    /// Starts `writers` clients of one gateway, each with documents of its own, which fall on all shards.
    #[must_use]
    pub fn start(gateway: &RestClient, table: &str, writers: usize) -> Writers {
        let stop = Arc::new(AtomicBool::new(false));
        let mut tasks = JoinSet::new();
        for writer in 0..writers {
            let (client, table, stop) = (gateway.clone(), table.to_owned(), stop.clone());
            tasks.spawn(async move { write(&client, &table, writer, &stop).await });
        }
        Writers { stop, tasks }
    }

    /// Ends them; what all of them saw.
    ///
    /// # Errors
    /// When one of them met an answer that it must not meet.
    pub async fn stop(mut self) -> Result<Gaps> {
        self.stop.store(true, Ordering::Relaxed);
        let mut all = Gaps::default();
        while let Some(gaps) = self.tasks.join_next().await {
            let gaps = gaps.context("a writer panicked")??;
            all.acknowledged.extend(gaps.acknowledged);
            all.longest = all.longest.max(gaps.longest);
            all.failed += gaps.failed;
        }
        Ok(all)
    }
}

async fn write(client: &RestClient, table: &str, writer: usize, stop: &AtomicBool) -> Result<Gaps> {
    let path = format!("/api/v1/tables/{table}/documents");
    let mut gaps = Gaps::default();
    let mut last = Instant::now();
    for number in 0.. {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        let id = format!("w{writer}-{number}");
        let body = json!({"document_id": id, "vector": [1.0, number as f32]});
        let begun = Instant::now();
        loop {
            match client.post::<Value>(&path, &body).await {
                Ok(_) => break,
                Err(error) => {
                    gaps.failed += 1;
                    ensure!(
                        begun.elapsed() < Duration::from_secs(60),
                        "{id} is not taken for a minute: {error}"
                    );
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
            }
        }
        let now = Instant::now();
        gaps.longest = gaps.longest.max(now - last);
        last = now;
        gaps.acknowledged.push(id);
    }
    Ok(gaps)
}

/// Checks that every acknowledged document is there.
///
/// # Errors
/// Names the first that is not.
pub async fn check_all(client: &RestClient, table: &str, gaps: &Gaps) -> Result<()> {
    for id in &gaps.acknowledged {
        let path = format!("/api/v1/tables/{table}/documents/{id}");
        client
            .get::<Value>(&path)
            .await
            .with_context(|| format!("{id} was acknowledged and is not there"))?;
    }
    Ok(())
}
