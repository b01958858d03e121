//! What linearizable means, as plainly as it can be said: every order is tried. For a handful of operations.

use crate::{Entry, Operation, Outcome, Value, Version};

/// True when some of the operations of unknown outcome, and all others, have an order that time allows and one document
/// explains.
pub(super) fn has_an_order(entries: &[Entry]) -> bool {
    let left: Vec<Entry> = entries.iter().filter(|entry| entry.outcome != Outcome::Failed).copied().collect();
    extends(&mut Vec::new(), &left)
}

fn extends(order: &mut Vec<Entry>, left: &[Entry]) -> bool {
    if left.iter().all(|entry| entry.outcome == Outcome::Unknown) && explains(order) {
        return true;
    }
    (0..left.len()).any(|next| {
        let invoked = left[next].invoked;
        if left.iter().any(|other| other.returned.is_some_and(|returned| returned < invoked)) {
            return false;
        }
        let mut rest = left.to_vec();
        order.push(rest.remove(next));
        let found = extends(order, &rest);
        order.pop();
        found
    })
}

/// A document between two changes.
struct State {
    holds: Option<Value>,
    /// The version that answers gave it.
    named: Option<Version>,
}

/// True when one document gives these answers one after the other: it holds what was written last, whoever names the
/// version of one state names the same one, and versions grow from state to state.
fn explains(order: &[Entry]) -> bool {
    let mut states = vec![State { holds: None, named: None }];
    let is_possible = order.iter().all(|entry| happens(entry, &mut states));
    let named: Vec<Version> = states.iter().filter_map(|state| state.named).collect();
    is_possible && named.is_sorted_by(|earlier, later| earlier < later)
}

fn happens(entry: &Entry, states: &mut Vec<State>) -> bool {
    let state = states.last_mut().expect("there is a first state");
    let (holds, condition) = match (entry.operation, entry.outcome) {
        (Operation::Read, Outcome::Found(seen)) => {
            let version = seen.and_then(|seen| seen.version);
            return seen.map(|seen| seen.value) == state.holds
                && version.is_none_or(|version| state.has_version(version));
        }
        (Operation::Read, _) => return true,
        (_, Outcome::Mismatch(found)) => return state.has_version(found),
        (Operation::Write { value, condition }, _) => (Some(value), condition),
        (Operation::Delete { condition }, _) => (None, condition),
    };
    let is_met = condition.is_none_or(|condition| state.has_version(condition));
    let named = match entry.outcome {
        Outcome::Done(version) => version,
        _ => None,
    };
    states.push(State { holds, named });
    is_met
}

impl State {
    fn has_version(&mut self, version: Version) -> bool {
        match (version, self.holds) {
            (Version::ABSENT, holds) => holds.is_none(),
            (_, None) => false,
            (version, Some(_)) => *self.named.get_or_insert(version) == version,
        }
    }
}
