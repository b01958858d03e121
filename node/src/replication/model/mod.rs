//! The protocol checked by a model checker, with the very functions that a node runs.
//!
//! [`world::World`] is a shard with its disks, messages, metadata store and clock; [`Protocol`] lets the checker choose
//! what happens next. The rules must hold in every state; with any one rule removed a broken state must be found.

mod world;

use std::time::Duration;

use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};
use stateright::{Checker, Chooser, HasDiscoveries, Model, Property};

use self::world::{Action, Limits, World};
use super::{Rule, Rules};

const UNBROKEN: &str = "nothing is broken";

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
            Property::sometimes(
                "all writes are acknowledged after all elections",
                |model: &Protocol, state: &World| {
                    state.elections == model.0.elections && state.has_acknowledged(model.0.writes)
                },
            ),
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
        Action::Time | Action::Tick(_) | Action::Elect { .. } => 3,
        Action::Deliver { again: true, .. }
        | Action::Land { answered: false, .. }
        | Action::TimeOut(_)
        | Action::HandOver(_)
        | Action::Confirm(_) => 2,
        Action::Crash { .. } | Action::Wipe(_) => 1,
    }
}

/// Actions of one walk.
const DEPTH: usize = 80;

/// Walks at random until something breaks or the time is up: what broke, after how many states.
fn walk(limits: Limits, time: Duration, threads: usize) -> (Option<&'static str>, usize, Vec<Action>) {
    let checker = Protocol(limits)
        .checker()
        .threads(threads)
        .target_max_depth(DEPTH)
        .timeout(time)
        .finish_when(HasDiscoveries::AnyFailures)
        .spawn_simulation(7, Weighted)
        .join();
    let states = checker.state_count();
    match checker.discovery(UNBROKEN) {
        None => (None, states, Vec::new()),
        Some(path) => (path.last_state().broken, states, path.into_actions()),
    }
}

#[test]
fn try_it() {
    let time = Duration::from_secs(20);
    for limits in [
        Limits::of_three(Rules::default()),
        Limits::of_two(Rules::default()),
        Limits { batch: 2, ..Limits::of_two(Rules::default()) },
    ] {
        let (broken, states, actions) = walk(limits, time, 2);
        println!("{broken:?} {states} states");
        if broken.is_some() {
            let mut world = World::new(&limits);
            for action in actions {
                println!("{action:?}");
                world.act(action, &limits);
            }
            println!("{world:#?}");
            break;
        }
    }
}

#[test]
fn mutants() {
    use Rule::*;
    std::panic::set_hook(Box::new(|_| {}));
    for rule in [
        MaximalIsr,
        ShrinkIsConfirmed,
        TimeoutIsUnknown,
        CutWhereLogsPart,
        ServeAfterStart,
        GrowWhenComplete,
        PromiseRunsOut,
        PromiseIsMaximum,
        EpochIsChecked,
        MinIsr,
        AcksOfThisEpoch,
        PromiseIsDurable,
        NeverResume,
        FormerPrimaryAnswers,
        BatchesAreWhole,
        IdentityIsNew,
    ] {
        let rules = Rules::without(rule);
        let mut found = None;
        let three = Limits::of_three(rules);
        let two = Limits::of_two(rules);
        for limits in [
            Limits { wipes: 0, confirmations: 0, hand_overs: 0, crashes: 0, ..three },
            three,
            two,
            Limits { batch: 4, ..two },
        ] {
            let (broken, states, actions) = walk(limits, Duration::from_secs(8), 2);
            if broken.is_some() {
                found = Some((limits.copies, limits.crashes, broken, states, actions.len()));
                break;
            }
        }
        println!("{rule:?}: {found:?}");
    }
}
