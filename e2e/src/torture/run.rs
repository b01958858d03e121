//! The rounds of a run.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use rand::seq::SliceRandom;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde_json::{Value, json};
use tokio::task::JoinSet;

use super::fault::{Effect, Fault};
use super::lab::{Lab, MASTERS};
use super::network::Network;
use super::summary::Summary;
use super::traffic::{DIMENSION, Desk, Registers, Set};
use super::{Plan, TABLES};
use crate::phases::say;
use crate::settings::Settings;
use crate::wait::{Hopeless, until};

const SHARDS: usize = 4;
/// Clients of each table's registers, and of its set.
const REGISTER_CLIENTS: u32 = 6;
const SET_CLIENTS: u32 = 2;
/// Operations of each kind that a round has before its fault, and again after it.
const WORK: u64 = 20;
/// How long the clients may take for that.
const PATIENCE: Duration = Duration::from_secs(60);
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
}

/// Runs in the namespaces that were made.
pub(super) async fn run(
    settings: &Settings,
    network: Network,
    Plan { duration, seed, faults }: Plan,
) -> Result<Summary> {
    let folder = tempfile::Builder::new().prefix("vectorsphere-torture-").tempdir()?;
    let begun = Instant::now();
    let lab = Lab::start(settings, network, folder.path()).await?;
    let mut run = Run {
        lab,
        tables: BTreeMap::new(),
        sets: TABLES.iter().map(|(table, ..)| Arc::new(Set::new(table))).collect(),
        random: ChaCha8Rng::seed_from_u64(seed),
        summary: Summary { seed, ..Summary::default() },
        next_value: 1,
    };
    let outcome = tokio::select! {
        outcome = run.rounds(&faults, begun + duration) => outcome,
        _ = tokio::signal::ctrl_c() => bail!("interrupted"),
    };
    run.summary.lasted = begun.elapsed();
    if let Err(error) = outcome {
        // What is left helps to find out why.
        let kept = folder.keep();
        say(&run.summary.to_string());
        return Err(error.context(format!("seed {seed}; all logs and data are in {}", kept.display())));
    }
    Ok(run.summary)
}

impl Run {
    async fn rounds(&mut self, faults: &[Fault], end: Instant) -> Result<()> {
        self.lab.wait_until_whole(&self.tables).await.context("at the start")?;
        self.create_tables().await?;
        self.lab.wait_until_whole(&self.tables).await.context("with new tables")?;
        let (mut deck, mut tries): (Vec<Fault>, BTreeMap<Fault, usize>) = (Vec::new(), BTreeMap::new());
        let mut is_through = false;
        for round in 1.. {
            if is_through && Instant::now() >= end {
                break;
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

    async fn create_tables(&mut self) -> Result<()> {
        let client = self.lab.client(MASTERS[0])?;
        for (table, replicas, min_isr) in TABLES {
            let body = json!({
                "table_name": table, "dimension": DIMENSION, "metric": "l2", "shards": SHARDS,
                "replicas": replicas, "min_isr": min_isr,
            });
            client.post::<Value>("/api/v1/tables", &body).await.with_context(|| format!("table {table}"))?;
            self.tables.insert(table.to_owned(), replicas);
        }
        Ok(())
    }

    /// One fault, under load, and everything that can be checked afterwards.
    async fn round(&mut self, round: u64, fault: Fault) -> Result<Effect> {
        let begun = Instant::now();
        let gateways = MASTERS.iter().map(|name| self.lab.client(name)).collect::<Result<_>>()?;
        let desk = Arc::new(Desk::new(gateways, self.next_value));
        let registers: Vec<_> =
            TABLES.iter().map(|(table, ..)| Arc::new(Registers::new(table, round))).collect();
        let mut clients = self.start_clients(&desk, &registers);

        worked(&desk, &mut clients).await.context("before the fault")?;
        let effect = fault.strike(&mut self.lab, &mut self.random).await?;
        let mended = begun.elapsed();
        self.lab.wait_until_whole(&self.tables).await?;
        let whole = begun.elapsed();
        worked(&desk, &mut clients).await.context("after the fault")?;
        desk.end();
        while let Some(client) = clients.join_next().await {
            client.context("a client panicked")??;
        }
        self.next_value = desk.value();
        let ended = begun.elapsed();

        for registers in &registers {
            let stats = registers.check()?;
            self.summary.note_check("register operations", stats.operations);
            self.summary.note_check("of them unknown", stats.unknown);
        }
        self.check_at_rest().await?;
        self.summary.note_fault(fault, &effect);
        self.summary.note_operations(desk.tally());
        say(&format!(
            "round {round}: {fault}: {effect:?}; mended after {mended:.1?}, whole {whole:.1?}, traffic ended {ended:.1?}, \
             checked {:.1?}",
            begun.elapsed()
        ));
        Ok(effect)
    }

    fn start_clients(&self, desk: &Arc<Desk>, registers: &[Arc<Registers>]) -> JoinSet<Result<()>> {
        let mut clients = JoinSet::new();
        for registers in registers {
            for client in 0..REGISTER_CLIENTS {
                let (registers, desk) = (registers.clone(), desk.clone());
                clients.spawn(async move { registers.work(&desk, client).await });
            }
        }
        for set in &self.sets {
            for client in 0..SET_CLIENTS {
                let (set, desk) = (set.clone(), desk.clone());
                clients.spawn(async move { set.work(&desk, client).await });
            }
        }
        clients
    }

    /// What holds when nobody writes.
    async fn check_at_rest(&mut self) -> Result<()> {
        let digests = self.lab.compare_digests(&self.tables).await?;
        self.summary.note_check("digests of copies", digests);
        let gateway = MASTERS[self.random.random_range(0..MASTERS.len() as u64) as usize];
        let client = self.lab.client(gateway)?;
        for set in &self.sets {
            let stats = set.check(&client).await?;
            self.summary.note_check("inserts looked for", stats.acknowledged);
        }
        Ok(())
    }
}

/// Waits until the clients have done some more work of each kind.
async fn worked(desk: &Desk, clients: &mut JoinSet<Result<()>>) -> Result<()> {
    let kinds =
        TABLES.iter().flat_map(|(table, ..)| [format!("register in {table}"), format!("set in {table}")]);
    let ends: BTreeMap<String, u64> =
        kinds.map(|kind| (kind.clone(), desk.acknowledged(&kind) + WORK)).collect();
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
