//! Whole nodes in a simulation: two gateways that may be Master, three nodes with shards, a model of etcd behind the real
//! client, and clients of the public gRPC API. Network and time are those of turmoil, disks are in memory and lose what was
//! not synced when their machine loses power. Everything else is the code of a node as it runs: launcher, session, election,
//! coordinator, keeper, owners, gateway, tonic.
//!
//! For half a minute things go wrong ([`faults`]); then all is well again and everything must be available before long; in the
//! end, what clients were told must have been possible ([`vectorsphere_checker`]), and nothing acknowledged may be lost.
//! Each seed has a process of its own, since clocks and random bytes are a process's.
//!
//! `VECTORSPHERE_WORLDS` says how many seeds, `VECTORSPHERE_WORLDS_FROM` which is the first.

mod clients;
mod desk;
mod faults;
mod hosts;
mod keeper;
mod libc;
mod links;
#[path = "../support/model_etcd/mod.rs"]
mod model_etcd;
mod network;
mod settings;
mod world;

use std::process::Command;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use nix::sys::resource::{Resource, setrlimit};
use settings::Settings;

/// Seeds of a run.
const WORLDS: u64 = 100;
/// One seed in so many runs twice: both runs must be the same.
const CANARY: u64 = 25;
/// How a failure of a world begins.
const BROKEN: &str = "a promise was broken";
/// Runs a seed alone.
const AGAIN: &str = "RUST_LOG=info,turmoil=off cargo test --workspace --test whole_nodes -- one_seed --exact --ignored --nocapture";
/// Longest time that work on a disk takes before it is done, and again before it is known.
const DISK: Duration = Duration::from_micros(1_500);
/// Which seed a process runs.
const SEED: &str = "VECTORSPHERE_WORLD";
/// A world computes for some seconds; one that goes on for so many stands still.
const PROCESS_LIMIT_SECONDS: u64 = 300;

#[test]
fn no_seed_breaks_a_promise() {
    let (count, from) = (told("VECTORSPHERE_WORLDS", WORLDS), told("VECTORSPHERE_WORLDS_FROM", 1));
    let (next, failed) = (AtomicU64::new(from), Mutex::new(Vec::new()));
    let threads = thread::available_parallelism().map_or(1, usize::from);
    let work = || {
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= from + count {
                return;
            }
            match run_seed(seed) {
                Ok(summary) => println!("{summary}"),
                Err(why) => {
                    println!("\nseed {seed}: {why}\n  again: {SEED}={seed} {AGAIN}\n");
                    failed.lock().expect("no panic under the lock").push(seed);
                }
            }
        }
    };
    thread::scope(|scope| (0..threads).for_each(|_| drop(scope.spawn(work))));
    let failed = failed.into_inner().expect("no panic under the lock");
    assert!(failed.is_empty(), "seeds that failed: {failed:?}");
}

/// What no node can make good must be found: else this simulation finds nothing.
#[test]
fn disks_that_lie_are_found_out() {
    let why = run_process(1, "lying_disks").expect_err("acknowledged writes are lost");
    assert!(why.contains(BROKEN), "{why}");
}

/// One world, in this process, which can have no other.
#[test]
#[ignore = "another test runs it, in a process for each seed"]
fn one_seed() {
    let seed = told(SEED, 1);
    match run_world(Settings::of_seed(seed)) {
        Ok(summary) => println!("seed {seed}: {summary}"),
        Err(why) => panic!("{BROKEN}: {why}"),
    }
}

#[test]
#[ignore = "another test runs it, in a process of its own"]
fn lying_disks() {
    if let Err(why) = run_world(Settings::of_lying_disks(told(SEED, 1))) {
        panic!("{BROKEN}: {why}");
    }
}

fn run_world(settings: Settings) -> Result<world::Summary, String> {
    setrlimit(Resource::RLIMIT_CPU, PROCESS_LIMIT_SECONDS, PROCESS_LIMIT_SECONDS).expect("it was more");
    tracing_subscriber::fmt()
        .with_env_filter(tracing_subscriber::EnvFilter::from_default_env())
        .with_ansi(false)
        .init();
    // It waits for time to pass when it is first used, which only real time does then.
    let _ = governor::clock::DefaultClock::default();
    vectorsphere::runtime::simulate_threads(|| libc::some_time(DISK));
    // A thread of its own: it has drawn no random bytes yet.
    let world = thread::spawn(move || {
        libc::begin(settings.seed);
        world::run(settings)
    });
    world.join().expect("no assertion fails")
}

fn told(name: &str, otherwise: u64) -> u64 {
    let told = std::env::vars().find(|(key, _)| key == name);
    told.map_or(otherwise, |(_, text)| text.parse().expect("a number"))
}

/// Runs a seed, and some of them again.
fn run_seed(seed: u64) -> Result<String, String> {
    let summary = run_process(seed, "one_seed")?;
    if seed.is_multiple_of(CANARY) {
        let again = run_process(seed, "one_seed")?;
        if again != summary {
            return Err(format!("two runs of the seed differ:\n{summary}\n{again}"));
        }
    }
    Ok(summary)
}

/// Runs a world in a process of its own; the line that it tells of itself.
fn run_process(seed: u64, test: &str) -> Result<String, String> {
    let this = std::env::current_exe().expect("it has a path");
    let output = Command::new(this)
        .args([test, "--exact", "--ignored", "--nocapture"])
        .env(SEED, seed.to_string())
        .output()
        .map_err(|error| error.to_string())?;
    let text = String::from_utf8_lossy(&output.stdout);
    if !output.status.success() {
        let errors = String::from_utf8_lossy(&output.stderr);
        return Err(format!("{}\n{text}\n{errors}", output.status));
    }
    Ok(text.lines().find(|line| line.starts_with("seed ")).unwrap_or_default().to_owned())
}
