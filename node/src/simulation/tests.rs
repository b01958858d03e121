//! Seeds in numbers.

use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use super::fault_kind::FaultKind;
use super::outcome::{Summary, run};
use super::settings::Settings;
use crate::replication::{Rule, Rules};
use crate::runtime::disk::Effects;

/// Seeds of a run.
const SEEDS: u64 = 2_000;
/// One seed in so many runs twice: both runs must be the same.
const CANARY: u64 = 50;
/// Seeds that failed once, each with its story.
const PAST: &str = include_str!("seeds.txt");

/// What must happen to a cluster in a run of so many seeds, besides the faults themselves.
const EFFECTS: &[&str] = &[
    "unsynced suffix lost",
    "unsynced suffix torn",
    "later unsynced block kept, earlier one lost",
    "unsynced names lost",
    "bit flip in a log",
    "bit flip in replica.meta",
    "bit flip in a manifest",
    "bit flip in a segment",
    "misdirected append",
    "failed read",
    "failed append",
    "failed sync",
    "failed operation on a directory",
    "pages dropped by a failed sync",
    "operation that fails for good",
    "append to a full disk",
    "slow sync",
    "forgotten sync",
    "older image given up",
    "message lost",
    "message doubled",
    "message late",
    "message cut off",
    "clock that is wrong by more than 0.1 %",
    "question to a metadata store that is away",
    "lost answer of the metadata store",
    "unknown outcome of a change",
    "lease that ended late",
    "snapshot fetched",
    "copy added",
    "copy retired",
];

/// Rules that worlds reach soon: without one of them some seed of the first ones fails. The others are the model's.
const MUTANTS: &[Rule] = &[
    Rule::NeverResume,
    Rule::ShrinkIsConfirmed,
    Rule::CutWhereLogsPart,
    Rule::ServeAfterStart,
    Rule::PromiseRunsOut,
    Rule::EpochIsChecked,
    Rule::MinIsr,
    Rule::PromiseIsDurable,
    Rule::PredecessorEnds,
    Rule::MaximalIsr,
    Rule::TimeoutIsUnknown,
    Rule::GrowWhenComplete,
    Rule::AcksOfThisEpoch,
    Rule::FormerPrimaryAnswers,
];
/// As many seeds as a mutant may need.
const MUTANT_SEEDS: u64 = 1_000;

/// What many worlds came to.
#[derive(Default)]
struct Total {
    effects: Effects,
    operations: u64,
    slowest: Duration,
    failures: Vec<(u64, String)>,
}

impl Total {
    fn add(&mut self, seed: u64, outcome: Result<Summary, String>) {
        match outcome {
            Ok(Summary { effects, operations, recovery, .. }) => {
                for (effect, count) in effects {
                    *self.effects.entry(effect).or_default() += count;
                }
                self.operations += operations;
                self.slowest = self.slowest.max(recovery);
            }
            Err(failure) => self.failures.push((seed, failure)),
        }
    }
}

fn told(name: &str, otherwise: u64) -> u64 {
    let told = std::env::vars().find(|(key, _)| key == name);
    told.map_or(otherwise, |(_, value)| value.parse().expect("a number"))
}

/// Runs a seed, and some of them again.
fn run_seed(settings: &Settings, is_told: bool) -> Result<Summary, String> {
    let once = || {
        let world = AssertUnwindSafe(|| run(settings.clone(), is_told));
        catch_unwind(world).unwrap_or_else(|_| Err("an assertion failed, see above".to_owned()))
    };
    let summary = once()?;
    if settings.seed.is_multiple_of(CANARY) && once()?.trace != summary.trace {
        return Err("two runs of the seed differ".to_owned());
    }
    Ok(summary)
}

/// Runs seeds on two threads; to the first failure only, if `ends_early`.
fn run_all(seeds: &[u64], rules: Rules, ends_early: bool) -> Total {
    let (next, is_over) = (AtomicUsize::new(0), AtomicBool::new(false));
    let total = Mutex::new(Total::default());
    let work = || {
        while let Some(seed) = seeds.get(next.fetch_add(1, Ordering::Relaxed))
            && !is_over.load(Ordering::Relaxed)
        {
            let settings = Settings { rules, ..Settings::of_seed(*seed) };
            let outcome = run_seed(&settings, seeds.len() == 1);
            is_over.fetch_or(ends_early && outcome.is_err(), Ordering::Relaxed);
            total.lock().expect("no panic under this lock").add(*seed, outcome);
        }
    };
    thread::scope(|scope| {
        scope.spawn(work);
        scope.spawn(work);
    });
    total.into_inner().expect("no panic under this lock")
}

fn assert_well(total: &mut Total) {
    total.failures.sort();
    for (seed, failure) in &total.failures {
        println!("\nseed {seed}: {failure}\n  again: make soak SEEDS=1 FROM={seed}");
    }
    assert!(total.failures.is_empty(), "{} seeds failed", total.failures.len());
}

/// Ends with the counts of what went wrong. `make soak SEEDS= FROM=` runs other seeds.
#[test]
fn no_seed_breaks_a_promise() {
    let (count, from) = (told("VECTORSPHERE_SOAK_SEEDS", SEEDS), told("VECTORSPHERE_SOAK_FROM", 1));
    let seeds: Vec<u64> = (from..from + count).collect();
    let mut total = run_all(&seeds, Rules::default(), false);
    println!("{count} seeds, {} operations, slowest recovery {:?}", total.operations, total.slowest);
    println!("{:#?}", total.effects);
    assert_well(&mut total);
    let wanted = FaultKind::ALL.iter().map(|kind| kind.name()).chain(EFFECTS.iter().copied());
    let missed: BTreeSet<&str> = wanted.filter(|effect| !total.effects.contains_key(effect)).collect();
    assert!(count < SEEDS || missed.is_empty(), "never took effect: {missed:?}");
}

#[test]
fn what_failed_once_does_not_fail_again() {
    let seeds = PAST.lines().filter(|line| !line.starts_with('#')).map(|line| {
        let (seed, story) = line.split_once(' ').expect("a seed and its story");
        assert!(!story.trim().is_empty(), "seed {seed} has no story");
        seed.parse().expect("a number")
    });
    let seeds: Vec<u64> = seeds.collect();
    assert!(seeds.len() > 1);
    assert_well(&mut run_all(&seeds, Rules::default(), false));
}

/// The worlds find what they are for: without a rule a promise is broken.
#[test]
fn without_a_rule_some_seed_fails() {
    let seeds: Vec<u64> = (1..=MUTANT_SEEDS).collect();
    let mut survivors = Vec::new();
    for rule in MUTANTS {
        let total = run_all(&seeds, Rules::without(*rule), true);
        match total.failures.first() {
            Some((seed, failure)) => {
                println!("{rule:?}: seed {seed}: {}", &failure[..failure.len().min(150)]);
            }
            None => survivors.push(rule),
        }
    }
    assert!(survivors.is_empty(), "no seed fails without {survivors:?}");
}
