//! Seeds in numbers.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use super::outcome::{Summary, run};
use super::settings::Settings;

/// Seeds of a run.
const SEEDS: u64 = 2_000;
/// One seed in so many runs twice: both runs must be the same.
const CANARY: u64 = 50;

/// What many worlds came to.
#[derive(Default)]
struct Total {
    effects: BTreeMap<&'static str, u64>,
    operations: u64,
    slowest: Duration,
    failures: BTreeMap<u64, String>,
}

impl Total {
    fn add(&mut self, summary: Summary) {
        for (fault, count) in summary.effects {
            *self.effects.entry(fault).or_default() += count;
        }
        self.operations += summary.operations;
        self.slowest = self.slowest.max(summary.recovery);
    }
}

fn told(name: &str, otherwise: u64) -> u64 {
    let told = std::env::vars().find(|(key, _)| key == name);
    told.map_or(otherwise, |(_, value)| value.parse().expect("a number"))
}

/// Runs a seed, and some of them again.
fn run_seed(seed: u64, is_told: bool) -> Result<Summary, String> {
    let once = || {
        let world = AssertUnwindSafe(|| run(Settings::of_seed(seed), is_told));
        catch_unwind(world).unwrap_or_else(|_| Err("an assertion failed, see above".to_owned()))
    };
    let summary = once()?;
    if seed.is_multiple_of(CANARY) && once()?.trace != summary.trace {
        return Err("two runs of the seed differ".to_owned());
    }
    Ok(summary)
}

fn run_all(seeds: impl Iterator<Item = u64>) -> Total {
    let seeds: Vec<u64> = seeds.collect();
    let (next, total) = (AtomicU64::new(0), Mutex::new(Total::default()));
    thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while let Some(seed) = seeds.get(next.fetch_add(1, Ordering::Relaxed) as usize) {
                    let outcome = run_seed(*seed, seeds.len() == 1);
                    let mut total = total.lock().expect("no panic under this lock");
                    match outcome {
                        Ok(summary) => total.add(summary),
                        Err(failure) => drop(total.failures.insert(*seed, failure)),
                    }
                }
            });
        }
    });
    total.into_inner().expect("no panic under this lock")
}

#[test]
fn no_seed_breaks_a_promise() {
    let (count, from) = (told("VECTORSPHERE_SOAK_SEEDS", SEEDS), told("VECTORSPHERE_SOAK_FROM", 1));
    let total = run_all(from..from + count);
    println!("{count} seeds, {} operations, slowest recovery {:?}", total.operations, total.slowest);
    println!("{:#?}", total.effects);
    for (seed, failure) in &total.failures {
        println!("\nseed {seed}: {failure}\n  again: make soak SEEDS=1 FROM={seed}");
    }
    assert!(total.failures.is_empty(), "{} seeds failed", total.failures.len());
}
