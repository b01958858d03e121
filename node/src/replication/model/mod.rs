//! The protocol checked by a model checker, with the very functions that a node runs.
//!
//! [`world::World`] is a shard with its disks, messages, metadata store and clock; [`Protocol`] lets the checker choose
//! what happens next. The rules must hold in every state; with any one rule removed a broken state must be found.

mod actions;
mod invariants;
mod limits;
mod mutants;
mod node;
mod quiet;
mod stories;
mod world;

use std::time::Duration;

use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};
use stateright::{Checker, Chooser, HasDiscoveries, Model, Property};

use self::limits::Limits;
use self::world::{Action, World};
use super::Rules;

const UNBROKEN: &str = "nothing is broken";
const COMPLETE: &str = "all writes are acknowledged after all elections";
/// Actions of one walk.
const DEPTH: usize = 80;

struct Protocol(Limits);

impl Model for Protocol {
    type State = World;
    type Action = Action;

    fn init_states(&self) -> Vec<World> {
        vec![World::new(&self.0)]
    }

    fn actions(&self, state: &World, actions: &mut Vec<Action>) {
        state.actions(&self.0, actions);
    }

    fn next_state(&self, last: &World, action: Action) -> Option<World> {
        let mut next = last.clone();
        next.act(action, &self.0);
        Some(next)
    }

    fn properties(&self) -> Vec<Property<Protocol>> {
        vec![
            Property::always(UNBROKEN, |_, state: &World| state.broken.is_none()),
            Property::sometimes(COMPLETE, |model: &Protocol, state: &World| {
                state.happened.elections == model.0.elections && state.has_acknowledged(model.0.writes)
            }),
        ]
    }
}

/// Chooses at random, progress more often than trouble: walks of pure trouble get nowhere.
#[derive(Clone)]
struct Weighted;

impl Chooser<Protocol> for Weighted {
    type State = SmallRng;

    fn new_state(&self, seed: u64) -> SmallRng {
        SmallRng::seed_from_u64(seed)
    }

    fn choose_initial_state(&self, _: &mut SmallRng, _: &[World]) -> usize {
        0
    }

    fn choose_action(&self, random: &mut SmallRng, _: &World, actions: &[Action]) -> usize {
        let total: u32 = actions.iter().map(weight).sum();
        let mut at = random.random_range(0..total);
        for (index, action) in actions.iter().enumerate() {
            match at.checked_sub(weight(action)) {
                Some(rest) => at = rest,
                None => return index,
            }
        }
        unreachable!("weights add up to the total")
    }
}

fn weight(action: &Action) -> u32 {
    match action {
        Action::Deliver { again: false, .. } | Action::Sync(_) | Action::Land { answered: true, .. } => 8,
        Action::Write(_) | Action::Watch(_) | Action::Replace(_) => 6,
        Action::Time | Action::Tick(_) | Action::Elect { .. } | Action::Refuse(_) => 3,
        Action::Deliver { again: true, .. }
        | Action::Land { answered: false, .. }
        | Action::TimeOut(_)
        | Action::HandOver(_)
        | Action::Confirm(_)
        | Action::Inspect(_)
        | Action::Discard(_) => 2,
        Action::Crash { .. } | Action::Wipe(_) | Action::Succeed(_) | Action::Drain(_) => 1,
    }
}

/// What walks found.
#[derive(Debug)]
struct Found {
    broken: Option<&'static str>,
    states: usize,
    /// What led there.
    story: Vec<Action>,
    /// A walk got through all that may happen.
    is_complete: bool,
}

/// Walks at random, on two threads, until something breaks or the time is up.
fn walk(limits: Limits, time: Duration) -> Found {
    let checker = Protocol(limits)
        .checker()
        .threads(2)
        .target_max_depth(DEPTH)
        .timeout(time)
        .finish_when(HasDiscoveries::AnyFailures)
        .spawn_simulation(7, Weighted)
        .join();
    let (states, is_complete) = (checker.state_count(), checker.discovery(COMPLETE).is_some());
    let (broken, story) = match checker.discovery(UNBROKEN) {
        None => (None, Vec::new()),
        Some(path) => (path.last_state().broken, path.into_actions()),
    };
    Found { broken, states, story, is_complete }
}

#[test]
fn no_walk_breaks_the_protocol() {
    let rules = Rules::default();
    let settings = [
        Limits::of_three(rules),
        Limits { batch: 2, ..Limits::of_two(rules) },
        Limits::of_two_with_more(rules),
    ];
    for limits in settings {
        let found = walk(limits, Duration::from_secs(10));
        assert_eq!(found.broken, None, "{limits:#?}\n{:#?}", found.story);
        assert!(found.is_complete, "{} states, and none with everything: {limits:#?}", found.states);
    }
}

/// Every state of the smallest world that has an election: two copies, one write, and every order of messages, syncs,
/// changes of the record and steps of the clock, up to this many actions.
#[test]
fn every_state_of_a_small_world_is_sound() {
    let limits = Limits {
        writes: 1,
        elections: 1,
        confirmations: 0,
        hand_overs: 0,
        crashes: 0,
        time: 2,
        ..Limits::of_two(Rules::default())
    };
    let depth = 10;
    let checker = Protocol(limits).checker().threads(2).target_max_depth(depth).spawn_bfs().join();
    let broken = checker.discovery(UNBROKEN).map(|path| (path.last_state().broken, path.into_actions()));
    assert!(broken.is_none(), "{broken:#?}");
    println!("{} distinct states up to {depth} actions", checker.unique_state_count());
}
