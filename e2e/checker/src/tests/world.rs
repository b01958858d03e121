//! A register with clients, to make histories that are legal because they were played.

use rand::rngs::SmallRng;
use rand::seq::SliceRandom;
use rand::{RngExt, SeedableRng};

use crate::{Client, Entry, Operation, Outcome, Seen, Value, Version};

/// Ticks between two operations.
const STEP: u64 = 10;

/// How clients and answers are.
#[derive(Clone, Copy, Debug)]
pub(super) struct Style {
    /// Operations, some of which fall out.
    pub(super) operations: u64,
    pub(super) clients: u32,
    /// Values that are written, from 1 on; `None`: each write has its own.
    pub(super) values: Option<u64>,
    /// Share of reads that name versions.
    pub(super) named_reads: f64,
    /// Share of changes that name versions.
    pub(super) named_changes: f64,
    /// Share of changes whose answer is lost.
    pub(super) lost: f64,
    /// Share of changes that have a condition.
    pub(super) guarded: f64,
}

/// The register and its clients.
pub(super) struct World {
    random: SmallRng,
    style: Style,
    document: Option<(Value, Version)>,
    newest: Version,
    /// The last version that an answer named.
    told: Version,
    /// When each client may ask again.
    free_from: Vec<u64>,
    entries: Vec<Entry>,
}

impl World {
    /// A legal history: each operation happens at a moment of its own, between the ticks that the history shows.
    pub(super) fn play(seed: u64, style: Style) -> Vec<Entry> {
        let mut world = World {
            random: SmallRng::seed_from_u64(seed),
            style,
            document: None,
            newest: Version::ABSENT,
            told: Version::ABSENT,
            free_from: vec![0; style.clients as usize],
            entries: Vec::new(),
        };
        (1..=style.operations).for_each(|number| world.operate(number));
        world.entries.shuffle(&mut world.random);
        world.entries
    }

    /// One operation at the moment `number * STEP`, of a client that is free by then.
    fn operate(&mut self, number: u64) {
        let moment = number * STEP;
        let reach = u64::from(self.style.clients) * STEP;
        let client = self.random.random_range(0..self.style.clients);
        let earliest = self.free_from[client as usize].max(moment.saturating_sub(reach));
        if earliest > moment {
            return;
        }
        let invoked = self.random.random_range(earliest..=moment);
        let returned = moment + self.random.random_range(0..=reach);
        self.free_from[client as usize] = returned + 1;

        let operation = self.pick(number);
        let is_lost = operation != Operation::Read && self.random.random_bool(self.style.lost);
        let happens = !is_lost || self.random.random();
        let answer = happens.then(|| self.apply(operation)).filter(|_| !is_lost);
        let outcome = answer.unwrap_or(Outcome::Unknown);
        let returned = answer.map(|_| returned);
        self.entries.push(Entry { client: Client(client), operation, invoked, outcome, returned });
    }

    fn pick(&mut self, number: u64) -> Operation {
        let condition = self.random.random_bool(self.style.guarded).then_some(self.told);
        match self.random.random_range(0..10) {
            0..5 => Operation::Read,
            5 => Operation::Delete { condition },
            _ => {
                let common = self.style.values.map(|values| self.random.random_range(1..=values));
                Operation::Write { value: Value(common.unwrap_or(number)), condition }
            }
        }
    }

    fn apply(&mut self, operation: Operation) -> Outcome {
        let current = self.document.map_or(Version::ABSENT, |(_, version)| version);
        let (document, condition) = match operation {
            Operation::Read => {
                let is_named = self.random.random_bool(self.style.named_reads);
                let seen = self
                    .document
                    .map(|(value, version)| Seen { value, version: is_named.then(|| self.tell(version)) });
                return Outcome::Found(seen);
            }
            Operation::Write { value, condition } => (Some(value), condition),
            Operation::Delete { condition } => (None, condition),
        };
        if condition.is_some_and(|condition| condition != current) {
            return Outcome::Mismatch(self.tell(current));
        }
        self.newest.0 += self.random.random_range(1..=2);
        self.document = document.map(|value| (value, self.newest));
        let is_named = self.random.random_bool(self.style.named_changes);
        Outcome::Done(is_named.then(|| self.tell(self.newest)))
    }

    fn tell(&mut self, version: Version) -> Version {
        self.told = version;
        version
    }
}
