//! What lies between the actors of the world: messages that are late, lost, doubled or out of order, and places that
//! cannot reach each other.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::random::Random;
use super::time::Time;

/// Somebody who sends and receives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Place {
    /// A machine that holds replicas.
    Node(usize),
    /// A machine that runs a candidate for mastership.
    Master(usize),
    /// A client of the cluster, with the gateway that serves it.
    Client(usize),
    /// The metadata store.
    Store,
}

/// How messages travel.
#[derive(Clone, Copy, Debug)]
pub(super) struct Weather {
    /// Usual time on the way.
    pub(super) latency: Duration,
    /// One message in so many is lost; 0: none.
    pub(super) lost_one_in: u32,
    /// One in so many arrives twice.
    pub(super) doubled_one_in: u32,
    /// One in so many is much later than it should be, and others overtake it.
    pub(super) late_one_in: u32,
    /// How late that is, at most.
    pub(super) late: Duration,
}

/// The ways between all places.
#[derive(Debug)]
pub(super) struct Network {
    random: Random,
    pub(super) weather: Weather,
    /// Nothing gets from the first to the second.
    cuts: BTreeSet<(Place, Place)>,
    /// The same, and it stays so.
    cuts_for_good: BTreeSet<(Place, Place)>,
    /// When the last message arrives that keeps its order.
    last: BTreeMap<(Place, Place), Time>,
    pub(super) effects: NetworkEffects,
}

/// What took effect.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct NetworkEffects {
    pub(super) lost: u64,
    pub(super) doubled: u64,
    pub(super) late: u64,
    pub(super) cut: u64,
}

impl Network {
    /// A network that follows from these choices.
    pub(super) fn new(random: Random, weather: Weather) -> Network {
        Network {
            random,
            weather,
            cuts: BTreeSet::new(),
            cuts_for_good: BTreeSet::new(),
            last: BTreeMap::new(),
            effects: NetworkEffects::default(),
        }
    }

    /// Nothing gets from one place to another any more.
    pub(super) fn cut(&mut self, from: Place, to: Place) {
        self.cuts.insert((from, to));
    }

    /// The same, and it is not mended.
    pub(super) fn cut_for_good(&mut self, from: Place, to: Place) {
        self.cuts_for_good.insert((from, to));
    }

    /// Every place reaches every other one again.
    pub(super) fn mend(&mut self) {
        self.cuts.clear();
    }

    /// When a message arrives: not at all, once or twice.
    pub(super) fn send(&mut self, from: Place, to: Place, now: Time) -> Vec<Time> {
        let Weather { latency, lost_one_in, doubled_one_in, late_one_in, late } = self.weather;
        if self.cuts.contains(&(from, to)) || self.cuts_for_good.contains(&(from, to)) {
            self.effects.cut += 1;
            return Vec::new();
        }
        if self.happens(lost_one_in) {
            self.effects.lost += 1;
            return Vec::new();
        }
        let arrives = now + latency / 2 + self.random.about(latency / 2);
        if self.happens(late_one_in) {
            self.effects.late += 1;
            return vec![arrives + self.random.between(Duration::ZERO, late)];
        }
        let last = self.last.entry((from, to)).or_default();
        let arrives = arrives.max(*last + Duration::from_nanos(1));
        *last = arrives;
        if self.happens(doubled_one_in) {
            self.effects.doubled += 1;
            return vec![arrives, arrives + self.random.between(Duration::ZERO, late)];
        }
        vec![arrives]
    }

    fn happens(&mut self, one_in: u32) -> bool {
        one_in > 0 && self.random.one_in(one_in)
    }
}
