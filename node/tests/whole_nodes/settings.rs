//! What differs from seed to seed.

use std::time::Duration;

use rand::rngs::SmallRng;
use rand::seq::IndexedRandom as _;
use rand::{RngExt as _, SeedableRng as _};

use crate::faults::FaultKind;

/// One world.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    pub(crate) seed: u64,
    /// What goes wrong in this one.
    pub(crate) faults: Vec<FaultKind>,
    /// Mean time between two faults.
    pub(crate) pause: Duration,
    /// Longest time that a packet takes.
    pub(crate) latency: Duration,
    pub(crate) shards: u32,
    pub(crate) replicas: u32,
    pub(crate) min_isr: u32,
    pub(crate) rereplicate_after: &'static str,
    pub(crate) without_etcd: &'static str,
    /// Up to the first loss of power, disks say that they synced and have not: a broken promise that must be found.
    pub(crate) disks_lie: bool,
}

impl Settings {
    pub(crate) fn of_seed(seed: u64) -> Settings {
        let random = &mut SmallRng::seed_from_u64(seed);
        let mut pick = |choices: &[u64]| *choices.choose(random).expect("some");
        let pause = Duration::from_millis(pick(&[1_500, 3_000, 6_000]));
        let latency = Duration::from_millis(pick(&[2, 5, 20, 60]));
        let shards = pick(&[1, 2, 4]) as u32;
        let replicas = pick(&[2, 3, 3]) as u32;
        let min_isr = pick(&[1, 2, 2]) as u32;
        let rereplicate_after = if pick(&[0, 1]) == 0 { "10" } else { "600" };
        let without_etcd = if pick(&[0, 1, 1]) == 0 { "failsafe" } else { "strict" };
        // A third of the kinds is missing, in each seed another one.
        let faults: Vec<FaultKind> =
            FaultKind::ALL.iter().copied().filter(|_| random.random_range(0..3) > 0).collect();
        Settings {
            seed,
            faults,
            pause,
            latency,
            shards,
            replicas,
            min_isr,
            rereplicate_after,
            without_etcd,
            disks_lie: false,
        }
    }

    /// A world with disks that lie, and power that goes off.
    pub(crate) fn of_lying_disks(seed: u64) -> Settings {
        Settings { faults: vec![FaultKind::PowerLossOfShards], disks_lie: true, ..Settings::of_seed(seed) }
    }
}
