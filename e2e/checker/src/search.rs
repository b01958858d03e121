//! The search for an order in which one register could have given all answers.
//!
//! Wing and Gong, "Testing and Verifying Concurrent Objects" (1993): take one operation after the other that could come
//! next, and go back where none can. With the memory of Lowe, "Testing for linearizability" (2017): a set of operations
//! with the same register behind it is not tried twice. A register allows short cuts; each leaves an order if there was
//! one:
//!
//! - What observes the register as it is and may come next comes next: it disturbs nothing.
//! - A change of unknown outcome is taken only for somebody who observes it right then. Overwritten unseen, it may as
//!   well never have happened.
//! - What nobody will observe comes before the next change that overwrites it.
//! - Of operations that do the same, the one that must come earliest comes first.
//! - Nothing overwrites what has yet to be observed and will not be written again.
//! - No version is passed that an answer still has to name. Where answers name versions, these are a witness of the
//!   order, and the search hardly ever goes back.

use std::collections::{BTreeSet, HashMap};

use crate::bits::Bits;
use crate::left::{CallsTaken, Choice, Frontier, Left};
use crate::problem::Problem;
use crate::register::{ABSENT, Effect, Register, Slot};

/// A search, and where it stands: what is left, and the register behind what was taken.
pub(crate) struct Search {
    left: Left,
    register: Register,
    /// Where the search was, with the doubts that were taken by then.
    visited: HashMap<(Register, CallsTaken), Vec<Bits>>,
    places: usize,
}

/// One place of the path.
struct Fork {
    register: Register,
    /// What was chosen here.
    taken: Option<Choice>,
    /// What can still be chosen; the last one is the most promising.
    choices: Vec<Choice>,
}

impl Search {
    pub(crate) fn new(problem: Problem) -> Search {
        Search { left: Left::new(problem), register: Register::EMPTY, visited: HashMap::new(), places: 0 }
    }

    /// True when there is an order.
    pub(crate) fn run(&mut self) -> bool {
        if self.left.has_unmade() {
            return false;
        }
        let mut path: Vec<Fork> = Vec::new();
        while !self.left.has_no_calls() {
            path.push(Fork { register: self.register, taken: None, choices: self.choices() });
            loop {
                let Some(fork) = path.last_mut() else { return false };
                if self.advance(fork) {
                    break;
                }
                path.pop();
            }
        }
        true
    }

    /// How many different places the search came to.
    pub(crate) fn places(&self) -> usize {
        self.places
    }

    /// Takes the next choice in place of the last one; false when there is none.
    fn advance(&mut self, fork: &mut Fork) -> bool {
        if let Some(taken) = fork.taken.take() {
            self.left.put_back(taken);
        }
        fork.taken = fork.choices.pop();
        let Some(choice) = fork.taken else { return false };
        let after = fork.register.apply(self.left.effect(choice));
        self.register = after.expect("only what is possible is a choice");
        self.left.take(choice);
        true
    }

    /// What may come next; nothing when the search was here before.
    fn choices(&mut self) -> Vec<Choice> {
        let frontier = self.left.frontier();
        if !self.visit(&frontier) {
            return Vec::new();
        }
        let mut calls: Vec<Choice> = frontier.calls.iter().copied().map(Choice::Call).collect();
        if let Some(call) = calls.iter().find(|call| self.disturbs_nothing(**call)) {
            return vec![*call];
        }
        let doubts = self.doubts_to_observe(&calls, frontier.horizon);
        if let Some(unseen) = calls.iter().copied().find(|call| self.goes_unnoticed(*call)) {
            calls.retain(|call| *call == unseen || !self.overwrites(*call));
        }
        calls.extend(doubts);
        calls.retain(|choice| self.leads_on(*choice));
        let mut choices = self.without_equals(calls);
        choices.reverse();
        choices
    }

    /// Remembers where the search stands. False when it was here before and had no fewer doubts left: what it could not
    /// do then it cannot do now.
    fn visit(&mut self, frontier: &Frontier) -> bool {
        let place = (self.register, self.left.calls_taken(frontier));
        let before = self.visited.entry(place).or_default();
        let is_new = !before.iter().any(|doubts| doubts.is_subset(self.left.doubts_taken()));
        if is_new {
            before.push(self.left.doubts_taken().clone());
            self.places += 1;
        }
        is_new
    }

    fn disturbs_nothing(&self, choice: Choice) -> bool {
        let effect = self.left.effect(choice);
        matches!(effect, Effect::Observe(_)) && self.register.apply(effect) == Some(self.register)
    }

    /// True for a change that is possible everywhere and hides what was before.
    fn overwrites(&self, choice: Choice) -> bool {
        matches!(self.left.effect(choice), Effect::Change { requires: None, .. })
    }

    /// True for a change that could as well happen right before another one that overwrites it.
    fn goes_unnoticed(&self, choice: Choice) -> bool {
        match *self.left.effect(choice) {
            Effect::Change { requires: None, to, version: None } => {
                self.left.has_no_wild_observers() && self.left.is_unobserved(to)
            }
            Effect::Change { .. } | Effect::Observe(_) => false,
        }
    }

    /// The doubts that would let one of the calls, or another doubt, observe what it did observe.
    fn doubts_to_observe(&self, calls: &[Choice], horizon: u64) -> Vec<Choice> {
        let guarded = self.left.guarded_doubts().iter().copied();
        let guarded = guarded.filter(|doubt| self.left.may_come(*doubt, horizon)).map(Choice::Doubt);
        let mut found = BTreeSet::new();
        for observer in calls.iter().copied().chain(guarded) {
            let effect = self.left.effect(observer);
            let Some(fact) = effect.fact() else { continue };
            if fact.version.is_some_and(|version| !self.left.may_name(version, observer)) {
                continue;
            }
            found.extend(self.left.doubtful_makers(fact).filter(|doubt| {
                let made = self.register.apply(self.left.effect(Choice::Doubt(*doubt)));
                self.left.may_come(*doubt, horizon) && made.is_some_and(|made| made.apply(effect).is_some())
            }));
        }
        found.into_iter().map(Choice::Doubt).collect()
    }

    /// False when the choice is impossible, or leaves behind what still has to be observed or named.
    fn leads_on(&self, choice: Choice) -> bool {
        let Some(after) = self.register.apply(self.left.effect(choice)) else { return false };
        let may_leave = after.slot == self.register.slot || self.left.may_leave(self.register.slot, choice);
        let is_idle = matches!(choice, Choice::Doubt(_)) && after == self.register;
        may_leave && !is_idle && self.left.may_name(after.floor, choice)
    }

    /// The first one each of choices that do the same. It is the one that must come earliest, so that the others can take
    /// its later places. Documents that nobody observes are the same.
    fn without_equals(&self, choices: Vec<Choice>) -> Vec<Choice> {
        let mut kinds = BTreeSet::new();
        let mut is_new = |choice: &Choice| {
            let mut effect = *self.left.effect(*choice);
            if let Effect::Change { to, .. } = &mut effect
                && *to != ABSENT
                && self.left.is_unobserved(*to)
            {
                *to = Slot::MAX;
            }
            kinds.insert(effect)
        };
        choices.into_iter().filter(|choice| is_new(choice)).collect()
    }
}
