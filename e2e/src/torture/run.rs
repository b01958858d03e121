//! The rounds of a run.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;
use reqwest::Method;
use serde_json::{Value, json};
use tokio::task::JoinSet;

use super::fault::{Effect, Fault};
use super::lab::{Lab, MASTERS};
use super::network::Network;
use super::summary::Summary;
use super::traffic::{
    Bank, Batches, DIMENSION, Desk, Region, Registers, Schema, Sessions, Set, Visibility, Workload, list,
};
use super::{Plan, TABLES};
use crate::phases::say;
use crate::rest::RestClient;
use crate::settings::Settings;
use crate::wait::{Hopeless, until};

/// How long the clients may take for some work of each kind.
const PATIENCE: Duration = Duration::from_secs(60);
/// Rounds that tables last: longer, and looking for all that is in them takes longer than the faults.
const LIFE: u64 = 13;
/// A fault that did not take effect is tried so often before its class fails the run.
const TRIES: usize = 3;

/// A run: the cluster, and what is known of it.
struct Run {
    lab: Lab,
    tables: BTreeMap<String, usize>,
    sets: Vec<Arc<Set>>,
    random: ChaCha8Rng,
    summary: Summary,
    next_value: u64,
    with_thief: bool,
}

/// Runs in the namespaces that were made.
pub(super) async fn run(
    settings: &Settings,
    network: Network,
    Plan { duration, seed, faults, with_thief }: Plan,
) -> Result<Summary> {
    let folder = tempfile::Builder::new().prefix("vectorsphere-torture-").tempdir()?;
    let begun = Instant::now();
    let lab = Lab::start(settings, network, folder.path()).await?;
    let mut run = Run {
        lab,
        tables: BTreeMap::new(),
        sets: Vec::new(),
        random: ChaCha8Rng::seed_from_u64(seed),
        summary: Summary { seed, ..Summary::default() },
        next_value: 1,
        with_thief,
    };
    let outcome = tokio::select! {
        outcome = run.rounds(&faults, begun + duration) => outcome,
        _ = tokio::signal::ctrl_c() => bail!("interrupted"),
    };
    run.summary.lasted = begun.elapsed();
    if with_thief {
        // Nothing that anybody has to look into.
        run.lab.end().await?;
        return outcome.map(|()| run.summary);
    }
    if let Err(error) = outcome {
        // What is left helps to find out why.
        let kept = folder.keep();
        say(&run.summary.to_string());
        return Err(error.context(format!("seed {seed}; all logs and data are in {}", kept.display())));
    }
    run.lab.end().await?;
    folder.close().context("cannot remove the files of the run")?;
    Ok(run.summary)
}

impl Run {
    async fn rounds(&mut self, faults: &[Fault], end: Instant) -> Result<()> {
        self.lab.wait_until_whole(&self.tables).await.context("at the start")?;
        let (mut deck, mut tries): (Vec<Fault>, BTreeMap<Fault, usize>) = (Vec::new(), BTreeMap::new());
        let mut is_through = false;
        for round in 1.. {
            if is_through && Instant::now() >= end {
                break;
            }
            if round % LIFE == 1 {
                self.renew_tables().await.with_context(|| format!("new tables for round {round}"))?;
            }
            if deck.is_empty() {
                deck = faults.to_vec();
                deck.shuffle(&mut self.random);
            }
            let fault = deck.pop().expect("filled just now");
            let effect = self.round(round, fault).await.with_context(|| format!("round {round}: {fault}"))?;
            let tried = tries.entry(fault).or_default();
            *tried += 1;
            if matches!(effect, Effect::Unconfirmed(_)) && *tried < TRIES {
                deck.insert(0, fault);
            }
            is_through |= deck.is_empty();
        }
        self.summary.was_confirmed(faults)
    }

    /// Drops the tables and makes them again, under the same names; they must be empty.
    async fn renew_tables(&mut self) -> Result<()> {
        let client = self.lab.client(MASTERS[0])?;
        for table in std::mem::take(&mut self.tables).into_keys() {
            client.call::<Value>(Method::DELETE, &format!("/api/v1/tables/{table}"), None).await?;
        }
        for table in &TABLES {
            let body = json!({
                "table_name": table.name, "dimension": DIMENSION, "metric": "l2", "shards": table.shards,
                "replicas": table.replicas, "min_isr": table.min_isr,
            });
            client.post::<Value>("/api/v1/tables", &body).await.with_context(|| table.name)?;
            self.tables.insert(table.name.to_owned(), table.replicas);
        }
        self.lab.wait_until_whole(&self.tables).await?;
        for (table, gateway) in TABLES.iter().flat_map(|table| MASTERS.map(|gateway| (table.name, gateway))) {
            let left = list(&self.lab.client(gateway)?, table, "session").await?;
            ensure!(left.is_empty(), "the new table {table} holds {} documents of the old one", left.len());
        }
        let [three, two, _] = &TABLES;
        self.sets = [three, two].map(|table| Arc::new(Set::new(table.name))).to_vec();
        Ok(())
    }

    /// What the clients of a round do.
    fn workloads(&mut self, round: u64) -> Vec<Arc<dyn Workload>> {
        let [three, two, one_shard] = TABLES.map(|table| table.name);
        let mut region = || {
            self.next_value += 1;
            Region(self.next_value)
        };
        let mut workloads: Vec<Arc<dyn Workload>> = vec![
            Arc::new(Registers::new(three, round)),
            Arc::new(Registers::new(two, round)),
            Arc::new(Sessions::new(three, round)),
            Arc::new(Sessions::new(two, round)),
            Arc::new(Visibility::new(three, region())),
            Arc::new(Bank::new(one_shard, region())),
            Arc::new(Batches::new(one_shard)),
            Arc::new(Schema::new(round)),
        ];
        workloads.extend(self.sets.iter().map(|set| Arc::clone(set) as Arc<dyn Workload>));
        workloads
    }

    /// One fault, under load, and everything that can be checked afterwards.
    async fn round(&mut self, round: u64, fault: Fault) -> Result<Effect> {
        let begun = Instant::now();
        let gateways: Vec<RestClient> =
            MASTERS.iter().map(|name| self.lab.client(name)).collect::<Result<_>>()?;
        let workloads = self.workloads(round);
        let desk = Arc::new(Desk::new(gateways.clone(), self.next_value + 1));
        let mut clients = JoinSet::new();
        for workload in &workloads {
            for client in 0..workload.clients() {
                let (workload, desk) = (workload.clone(), desk.clone());
                clients.spawn(async move { workload.work(desk.seat(workload.kind()), client).await });
            }
        }

        worked(&desk, &workloads, &mut clients).await.context("before the fault")?;
        let effect = fault.strike(&mut self.lab, &mut self.random).await?;
        let mended = begun.elapsed();
        self.lab.wait_until_whole(&self.tables).await?;
        let whole = begun.elapsed();
        worked(&desk, &workloads, &mut clients).await.context("after the fault")?;
        desk.end();
        while let Some(client) = clients.join_next().await {
            client.context("a client panicked")??;
        }
        self.next_value = desk.value();
        let ended = begun.elapsed();

        if self.with_thief {
            self.sets[0].steal(&gateways[0]).await?;
        }
        let digests = self.lab.compare_digests(&self.tables).await?;
        self.summary.note_check("digests of copies", digests);
        for workload in &workloads {
            for (what, count) in workload.check(&gateways).await.with_context(|| workload.kind())? {
                self.summary.note_check(what, count);
            }
        }
        self.summary.note_fault(fault, &effect);
        self.summary.note_operations(desk.tally());
        say(&format!(
            "round {round}: {fault}: {effect:?}; mended after {mended:.1?}, whole {whole:.1?}, traffic ended {ended:.1?}, \
             checked {:.1?}",
            begun.elapsed()
        ));
        Ok(effect)
    }
}

/// Waits until the clients have done some more work of each kind.
async fn worked(
    desk: &Desk,
    workloads: &[Arc<dyn Workload>],
    clients: &mut JoinSet<Result<()>>,
) -> Result<()> {
    let end = |workload: &Arc<dyn Workload>| {
        let kind = workload.kind();
        let end = desk.acknowledged(&kind) + workload.portion();
        (kind, end)
    };
    let ends: Vec<(String, u64)> = workloads.iter().map(end).collect();
    until("the clients have done some work of each kind", PATIENCE, async || {
        // Clients end when something is wrong, and only then.
        if let Some(ended) = clients.try_join_next() {
            return Err(Hopeless(format!(
                "a client ended: {:?}",
                ended.map_err(anyhow::Error::from).flatten()
            ))
            .into());
        }
        for (kind, end) in &ends {
            let done = desk.acknowledged(kind);
            ensure!(done >= *end, "{kind}: {done} of {end}");
        }
        Ok(())
    })
    .await
}
