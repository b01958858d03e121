//! Two replicas of a shard against a model in memory: random operations, reigns that end at any moment, crashes at any
//! operation of a disk, faults of disks, and retries of whatever got no answer.
//!
//! What is checked: every verdict is the model's; what was committed is never lost, halved or changed; each replica shows
//! exactly the model's documents at its applied position; replicas have equal digests at equal positions; a log holds the
//! records that were put into it, and nothing else.

mod kinds;
mod node;
mod oracle;
mod world;

use self::kinds::Counters;
use self::world::World;

/// Document operations of one seed.
const OPERATIONS: usize = 2_000;

/// Says how to run a seed again when it fails.
struct Replay(u64);

impl Drop for Replay {
    fn drop(&mut self) {
        if std::thread::panicking() {
            println!("seed {} failed; run it alone: make soak SEEDS=1 FROM={}", self.0, self.0);
        }
    }
}

/// Seeds to run: a hundred, or as many as `make soak SEEDS=… FROM=…` says.
#[expect(clippy::disallowed_methods, reason = "a test has no other way to be told by `make soak`")]
fn seeds() -> std::ops::Range<u64> {
    let told = |name: &str, otherwise: u64| match std::env::var(name) {
        Ok(text) => text.parse().unwrap_or_else(|_| panic!("{name} must be a number, not {text:?}")),
        Err(_) => otherwise,
    };
    let (count, from) = (told("VECTORSPHERE_SOAK_SEEDS", 100), told("VECTORSPHERE_SOAK_FROM", 0));
    from..from + count
}

#[test]
fn thousands_of_operations_with_crashes_lose_nothing_and_halve_nothing() {
    let seeds = seeds();
    let count = seeds.end - seeds.start;
    let mut happened = Counters::default();
    for seed in seeds {
        let _replay = Replay(seed);
        let mut world = World::new(seed);
        while world.counters.operations < OPERATIONS {
            world.step();
        }
        world.settle();
        happened.add(&world.counters);
    }
    println!("{count} seeds: {happened:?}");
    if count >= 100 {
        happened.check();
    }
}
