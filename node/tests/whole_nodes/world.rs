//! One world: it begins, things go wrong for a while, then it must heal, and in the end all answers must have been possible.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use turmoil::{Builder, Sim};
use vectorsphere_checker::{self as checker, set};

use crate::clients::{Work, work};
use crate::desk::Desk;
use crate::faults::{FaultKind, Faults};
use crate::hosts::{self, ETCD};
use crate::keeper;
use crate::links::Links;
use crate::network::{Cuts, Wires};
use crate::settings::Settings;

/// A table can be made within this after the first start.
const START_LIMIT: Duration = Duration::from_secs(40);
/// How long things go wrong.
const FAULTS: Duration = Duration::from_secs(30);
/// Everything is available within this after everything is well.
const RECOVERY_LIMIT: Duration = Duration::from_secs(40);
/// Then what was written can be read within this.
const END_LIMIT: Duration = Duration::from_secs(20);

const CLIENTS: [(&str, Work); 6] = [
    ("registers-1", Work::Registers(1)),
    ("registers-2", Work::Registers(2)),
    ("registers-3", Work::Registers(3)),
    ("session-4", Work::Session(4)),
    ("session-5", Work::Session(5)),
    ("inserts-6", Work::Inserts(6)),
];
const KEEPER: &str = "keeper";

/// What a world came to.
#[derive(Debug)]
pub(crate) struct Summary {
    pub(crate) answered: u64,
    pub(crate) unknown: u64,
    pub(crate) session_reads: u64,
    pub(crate) recovery: Duration,
    pub(crate) faults: BTreeMap<FaultKind, u32>,
    pub(crate) trace: u64,
}

/// Runs the world of a seed.
///
/// # Errors
/// A promise that was not kept.
pub(crate) fn run(settings: Settings) -> Result<Summary, String> {
    let settings = Arc::new(settings);
    let mut sim = Builder::new()
        .rng_seed(settings.seed)
        .epoch(UNIX_EPOCH + Duration::from_secs(1_800_000_000))
        .simulation_duration(Duration::from_secs(3_600))
        .max_message_latency(settings.latency)
        .tcp_capacity(4_096)
        .build();
    let (desk, cuts) = (Desk::default(), Cuts::default());
    let orders = hosts::add_etcd(&mut sim, settings.seed);
    let machines = hosts::nodes().map(|name| hosts::add_node(&mut sim, name, &settings, &cuts)).collect();
    for (name, kind) in CLIENTS {
        sim.client(name, work(kind, settings.seed, Wires::of(name, &cuts), desk.clone()));
    }
    let names = hosts::nodes().chain([ETCD]).chain(CLIENTS.map(|(name, _)| name));
    let links = Links::new(names.collect(), cuts.clone());
    let wires = Wires::of(KEEPER, &cuts);

    sim.client(KEEPER, keeper::create_table(wires.clone(), desk.clone(), settings.clone()));
    step_until(&mut sim, START_LIMIT, "a table was made", |_, _| desk.is_open())?;
    let mut faults = Faults::new(settings, machines, orders, links, sim.elapsed());
    let end = sim.elapsed() + FAULTS;
    while sim.elapsed() < end {
        let now = sim.elapsed();
        faults.step(&mut sim, now);
        step(&mut sim)?;
    }
    faults.end_all(&mut sim);
    let healed = sim.elapsed();
    let available = keeper::Progress::default();
    sim.client("prober", keeper::probe(Wires::of("prober", &cuts), desk.clone(), available.clone()));
    step_until(&mut sim, RECOVERY_LIMIT, "everything was available again", |_, _| available.is_done())?;
    let recovery = sim.elapsed() - healed;
    desk.close();
    let listed = keeper::Progress::default();
    sim.client("reader", keeper::list(Wires::of("reader", &cuts), desk.clone(), listed.clone()));
    step_until(&mut sim, END_LIMIT, "everything was read", |_, is_over| is_over)?;

    let trace = desk.trace();
    let records = desk.lock();
    checker::check(&records.registers).map_err(|violation| violation.to_string())?;
    let found = listed.take();
    let fates = records.inserts.iter().map(|(id, (_, fate))| (id.as_str(), *fate));
    let ids = found.iter().map(|(id, _)| id.as_str()).filter(|id| id.starts_with('i'));
    set::check(fates, ids).map_err(|violation| violation.to_string())?;
    Ok(Summary {
        answered: records.answered,
        unknown: records.unknown,
        session_reads: records.session_reads,
        recovery,
        faults: faults.count,
        trace,
    })
}

/// Lets a moment pass; `true` when all clients have ended.
fn step(sim: &mut Sim<'_>) -> Result<bool, String> {
    sim.step().map_err(|error| format!("at {:?}: {error}", sim.elapsed()))
}

fn step_until(
    sim: &mut Sim<'_>,
    limit: Duration,
    what: &str,
    mut is_so: impl FnMut(&Sim<'_>, bool) -> bool,
) -> Result<(), String> {
    let end = sim.elapsed() + limit;
    loop {
        let is_over = step(sim)?;
        if is_so(sim, is_over) {
            return Ok(());
        }
        if sim.elapsed() > end {
            return Err(format!("not within {limit:?}: {what}"));
        }
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Summary { answered, unknown, session_reads, recovery, faults, trace } = self;
        write!(
            f,
            "trace {trace:016x} answered {answered} unknown {unknown} session_reads {session_reads} recovery_ms {} faults",
            recovery.as_millis()
        )?;
        faults.iter().try_for_each(|(kind, count)| write!(f, " {kind:?}={count}"))
    }
}
