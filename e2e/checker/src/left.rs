//! What is left of a problem while a search takes one operation after the other and puts them back, last out first in.

use std::collections::BTreeSet;

use crate::bits::Bits;
use crate::problem::{Doubt, Problem};
use crate::register::{ABSENT, Effect, Fact, Slot};
use crate::ring::Ring;

/// One operation of a problem, by its number there.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Choice {
    /// One that was answered.
    Call(usize),
    /// The earliest one left of a doubt.
    Doubt(usize),
}

/// What is left of a problem.
pub(crate) struct Left {
    problem: Problem,
    calls: Ring,
    calls_count: usize,
    calls_taken: Bits,
    /// The operations of a doubt have neighbouring bits, and are taken in order.
    doubts_taken: Bits,
    /// By doubt.
    doubt_counts: Vec<DoubtCount>,
    /// By slot.
    uses: Vec<Uses>,
    /// Doubts that observe before they change.
    guarded_doubts: Vec<usize>,
    /// Observers of a version that no answer says more of: calls that are left, and all such doubts.
    wild_observers: usize,
    /// How far calls that are left allow versions to go.
    ceilings: BTreeSet<(u64, usize)>,
}

/// How many operations of a doubt were taken, and where its bits begin.
struct DoubtCount {
    taken: usize,
    first_bit: usize,
}

/// Who has to do with a slot.
#[derive(Clone, Default)]
struct Uses {
    /// Calls left that observe it.
    observers: usize,
    /// Doubts that may observe it.
    doubtful_observers: usize,
    /// Operations left that make it, doubtful ones too.
    makers: usize,
    /// Doubts that make it.
    doubtful_makers: Vec<usize>,
}

/// What may come next as far as time goes.
pub(crate) struct Frontier {
    pub(crate) calls: Vec<usize>,
    /// Nothing that was sent later than at this tick may come next.
    pub(crate) horizon: u64,
    /// No call from here on may come next, or was taken.
    end: usize,
}

/// Which calls were taken: all before `first`, 64 at a time, and of those behind it these.
#[derive(PartialEq, Eq, Hash)]
pub(crate) struct CallsTaken {
    first: usize,
    calls: Box<[u64]>,
}

/// Which way to count.
#[derive(Clone, Copy)]
enum Count {
    In,
    Out,
}

impl Left {
    /// All of the problem.
    pub(crate) fn new(problem: Problem) -> Left {
        let calls = problem.calls.len();
        let operations = problem.doubts.iter().map(|doubt| doubt.invoked.len());
        let first_bits = operations.clone().scan(0, |bits, operations| {
            *bits += operations;
            Some(*bits - operations)
        });
        let mut left = Left {
            calls: Ring::new(calls),
            calls_count: 0,
            calls_taken: Bits::new(calls),
            doubts_taken: Bits::new(operations.clone().sum()),
            doubt_counts: first_bits.map(|first_bit| DoubtCount { taken: 0, first_bit }).collect(),
            uses: vec![Uses::default(); problem.slots],
            guarded_doubts: Vec::new(),
            wild_observers: 0,
            ceilings: BTreeSet::new(),
            problem,
        };
        (0..calls).for_each(|call| left.count_call(call, Count::In));
        (0..left.problem.doubts.len()).for_each(|doubt| left.count_doubt(doubt));
        left
    }

    pub(crate) fn take(&mut self, choice: Choice) {
        match choice {
            Choice::Call(call) => {
                self.calls.remove(call);
                self.calls_taken.flip(call);
                self.count_call(call, Count::Out);
            }
            Choice::Doubt(doubt) => {
                let count = &mut self.doubt_counts[doubt];
                self.doubts_taken.flip(count.first_bit + count.taken);
                count.taken += 1;
                self.uses[made_by(&self.problem.doubts[doubt])].makers -= 1;
            }
        }
    }

    /// Puts back what was taken last and not put back.
    pub(crate) fn put_back(&mut self, choice: Choice) {
        match choice {
            Choice::Call(call) => {
                self.calls.restore(call);
                self.calls_taken.flip(call);
                self.count_call(call, Count::In);
            }
            Choice::Doubt(doubt) => {
                let count = &mut self.doubt_counts[doubt];
                count.taken -= 1;
                self.doubts_taken.flip(count.first_bit + count.taken);
                self.uses[made_by(&self.problem.doubts[doubt])].makers += 1;
            }
        }
    }

    /// True when no call is left.
    pub(crate) fn has_no_calls(&self) -> bool {
        self.calls_count == 0
    }

    pub(crate) fn effect(&self, choice: Choice) -> &Effect {
        match choice {
            Choice::Call(call) => &self.problem.calls[call].effect,
            Choice::Doubt(doubt) => &self.problem.doubts[doubt].effect,
        }
    }

    /// The calls that no other call must precede, by the tick at which their answer came.
    pub(crate) fn frontier(&self) -> Frontier {
        let end = self.problem.calls.len();
        let mut frontier = Frontier { calls: Vec::new(), horizon: u64::MAX, end };
        for call in self.calls.iter() {
            let times = &self.problem.calls[call];
            if times.invoked > frontier.horizon {
                frontier.end = call;
                break;
            }
            frontier.horizon = frontier.horizon.min(times.returned);
            frontier.calls.push(call);
        }
        frontier.calls.sort_by_key(|call| self.problem.calls[*call].returned);
        frontier
    }

    /// Which calls were taken, given the frontier.
    pub(crate) fn calls_taken(&self, frontier: &Frontier) -> CallsTaken {
        let first = self.calls.iter().next().map_or(0, |call| call / 64);
        CallsTaken { first, calls: self.calls_taken.words(first..frontier.end.div_ceil(64)).into() }
    }

    pub(crate) fn doubts_taken(&self) -> &Bits {
        &self.doubts_taken
    }

    /// True when one of the doubt is left that was sent by the horizon.
    pub(crate) fn may_come(&self, doubt: usize, horizon: u64) -> bool {
        let next = self.problem.doubts[doubt].invoked.get(self.doubt_counts[doubt].taken);
        next.is_some_and(|invoked| *invoked <= horizon)
    }

    pub(crate) fn guarded_doubts(&self) -> &[usize] {
        &self.guarded_doubts
    }

    /// The doubts that may make a fact true.
    pub(crate) fn doubtful_makers(&self, of: Fact) -> impl Iterator<Item = usize> {
        let uses = match of.slot {
            Some(slot) => &self.uses[slot as usize..=slot as usize],
            None => &self.uses[ABSENT as usize + 1..],
        };
        uses.iter().flat_map(|uses| &uses.doubtful_makers).copied()
    }

    /// True when a document is observed that no operation makes.
    pub(crate) fn has_unmade(&self) -> bool {
        let is_unmade = |uses: &Uses| uses.observers > 0 && uses.makers == 0;
        self.uses[ABSENT as usize + 1..].iter().any(is_unmade)
    }

    /// True when a change to `slot` may come and go unobserved, as far as what it holds tells.
    pub(crate) fn is_unobserved(&self, slot: Slot) -> bool {
        let uses = &self.uses[slot as usize];
        uses.observers == 0 && uses.doubtful_observers == 0
    }

    /// True when nobody observes a version of which no answer tells what it holds.
    pub(crate) fn has_no_wild_observers(&self) -> bool {
        self.wild_observers == 0
    }

    /// True when the register may leave `slot` by this choice: nobody else must still observe it, or it can come again.
    pub(crate) fn may_leave(&self, slot: Slot, by: Choice) -> bool {
        let uses = &self.uses[slot as usize];
        let observes = match by {
            Choice::Call(_) => self.effect(by).fact().is_some_and(|fact| fact.slot == Some(slot)),
            Choice::Doubt(_) => false,
        };
        uses.makers > 0 || uses.observers == usize::from(observes)
    }

    /// True when this choice may name `version`: no other call must still name a lower one.
    pub(crate) fn may_name(&self, version: u64, by: Choice) -> bool {
        let lowest = self.ceilings.iter().find(|(_, call)| by != Choice::Call(*call));
        lowest.is_none_or(|(ceiling, _)| version <= *ceiling)
    }

    fn count_call(&mut self, call: usize, count: Count) {
        let effect = &self.problem.calls[call].effect;
        count.one(&mut self.calls_count);
        match effect.fact().map(|fact| fact.slot) {
            Some(Some(slot)) => count.one(&mut self.uses[slot as usize].observers),
            Some(None) => count.one(&mut self.wild_observers),
            None => {}
        }
        if let Effect::Change { to, .. } = effect {
            count.one(&mut self.uses[*to as usize].makers);
        }
        if let Some(ceiling) = effect.ceiling() {
            match count {
                Count::In => self.ceilings.insert((ceiling, call)),
                Count::Out => self.ceilings.remove(&(ceiling, call)),
            };
        }
    }

    fn count_doubt(&mut self, doubt: usize) {
        let Doubt { effect, invoked } = &self.problem.doubts[doubt];
        let made = &mut self.uses[made_by(&self.problem.doubts[doubt])];
        made.makers += invoked.len();
        made.doubtful_makers.push(doubt);
        let Some(fact) = effect.fact() else { return };
        self.guarded_doubts.push(doubt);
        match fact.slot {
            Some(slot) => self.uses[slot as usize].doubtful_observers += 1,
            None => self.wild_observers += 1,
        }
    }
}

/// The slot that a doubt makes.
fn made_by(doubt: &Doubt) -> usize {
    match doubt.effect {
        Effect::Change { to, .. } => to as usize,
        Effect::Observe(_) => unreachable!("doubts are changes"),
    }
}

impl Count {
    fn one(self, count: &mut usize) {
        match self {
            Count::In => *count += 1,
            Count::Out => *count -= 1,
        }
    }
}
