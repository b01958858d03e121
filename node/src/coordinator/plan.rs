//! What the Master does about copies of shards. Pure: what it knows in, what is to be done out.
//!
//! [`plan`] is level-triggered: it compares the cluster as it is with the cluster as it should be, and names the next steps.
//! It remembers nothing. A step that was lost is named again, one that became wrong is not, and a new Master carries on
//! where the old one stopped. There is no procedure for a move: a copy says in the shard's record which other copy it
//! [`replaces`](crate::cluster::view::Replica::replaces), and once it is in sync the other one is one too many
//! (`docs/decisions/005-moves-live-in-shard-records.md`).
//!
//! Each shard has `replicas` copies on as many nodes, in different zones while there are any. A copy is never taken away
//! before as many others are in sync, and at most one of a shard is in motion. A node that is away for less than
//! [`Settings::rereplicate_after`] loses its primaries and nothing else.
//!
//! Steps are written by [`edits`](super::edits), on condition that the record is the one that was judged, and of what each
//! [`Action`] names.

mod balance;
mod copies;
mod drain;
mod elect;
mod load;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

pub use drain::{DrainProgress, drain_progress};
pub use elect::{CandidateReport, elect};

use self::copies::{Copies, Copy, Fate, Need};
use self::load::Load;
use crate::cluster::view::ClusterView;
use crate::ids::{NodeId, ReplicaId, ShardId};
use crate::table::TableState;

/// What the Master knows.
#[derive(Clone, Copy, Debug)]
pub struct Situation<'a> {
    /// The records.
    pub view: &'a ClusterView,
    /// Now, on a clock that never goes back.
    pub now: Duration,
    /// Since when nodes with copies are not registered, on the same clock. One that is missing here went just now.
    pub gone_since: &'a BTreeMap<NodeId, Duration>,
    /// Registered nodes that do not answer. They get nothing new, and what they have does not count as there.
    pub suspects: &'a BTreeSet<NodeId>,
    /// Nodes that could not take a copy in lately. They get nothing new.
    pub unfit: &'a BTreeSet<NodeId>,
    /// Now, milliseconds since 1970. Drains end by it.
    pub unix_ms: u64,
}

/// How much may happen at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// After this time without its node a copy is given up and made anew elsewhere.
    pub rereplicate_after: Duration,
    /// After this time without its node a copy counts as a lost one of those that an election may do without.
    pub lost_after: Duration,
    /// Copies that a node may take in at a time.
    pub incoming_per_node: usize,
    /// Shards of which the primaries on a node may send copies at a time.
    pub outgoing_per_node: usize,
    /// Steps that one call of [`plan`] names (R14).
    pub actions_max: usize,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            rereplicate_after: Duration::from_secs(10 * 60),
            lost_after: Duration::from_secs(10 * 60),
            incoming_per_node: 1,
            outgoing_per_node: 1,
            actions_max: 30,
        }
    }
}

/// A step. At most one for each shard is named at a time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Choose a new primary, by [`elect`]. Condition: the session of its node.
    Elect {
        /// The shard.
        shard: ShardId,
        /// Copies in sync that nobody will hear of any more: damaged ones, and those of nodes that do not come back.
        lost: Vec<ReplicaId>,
    },
    /// Begin a new copy. Conditions: the session of its node, and that no drain of the node is there (R11).
    Add {
        /// The shard.
        shard: ShardId,
        /// Where.
        node: NodeId,
        /// The copy that leaves when the new one is in sync.
        replaces: Option<ReplicaId>,
    },
    /// Have a copy deleted by its node. It is not the primary. Conditions: the sessions of the nodes with other in-sync
    /// copies, as far as they are registered, for these are to make up for it.
    Retire {
        /// The shard.
        shard: ShardId,
        /// The copy.
        replica: ReplicaId,
    },
    /// Ask the primary to make another in-sync copy the primary. It writes the record itself.
    HandOver {
        /// The shard.
        shard: ShardId,
        /// The next primary.
        to: ReplicaId,
    },
    /// Take away the entry of a leaving copy whose node does not come back to do it. Condition: the node is not there.
    Withdraw {
        /// The shard.
        shard: ShardId,
        /// The copy.
        replica: ReplicaId,
    },
    /// Remove the record of a drain whose time is over. Condition: it is the one that was seen.
    EndDrain {
        /// The node.
        node: NodeId,
    },
}

/// The next steps, the most urgent first: elections; what is missing; what drained nodes hold; what is too much; and only
/// when nothing of it is to do or under way, an even spread.
pub fn plan(situation: &Situation<'_>, settings: &Settings) -> Vec<Action> {
    let view = situation.view;
    let judge = |shard| Copies::judge(situation, settings, shard);
    let shards: Vec<Copies<'_>> = view.shards.values().filter_map(|shard| judge(shard)).collect();
    let mut load = Load::new(situation, settings, &shards);
    let mut actions = Vec::new();
    let mut idle: Vec<&Copies<'_>> = shards.iter().collect();
    for stage in STAGES {
        idle.retain(|copies| match stage(copies, &mut load) {
            Some(action) => {
                actions.push(action);
                false
            }
            // Of a record from before a restore nothing is sure: first somebody must lead.
            None => !view.is_out_of_date(copies.shard),
        });
    }
    actions.extend(end_drains(situation));
    let none_begins = view.tables_by_id.values().all(|table| table.state != TableState::Creating);
    if actions.is_empty() && none_begins && shards.iter().all(Copies::are_at_rest) {
        actions = balance::balance(&shards, &mut load);
    }
    actions.truncate(settings.actions_max);
    actions
}

/// Looks at a shard for which no earlier stage has a step.
type Stage = fn(&Copies<'_>, &mut Load) -> Option<Action>;

const STAGES: [Stage; 7] = [
    elect_primary,
    give_up_learner,
    |copies, load| add(Need::Missing, copies, load),
    |copies, load| add(Need::Leaving, copies, load),
    hand_over,
    retire,
    withdraw,
];

/// Nobody leads, and somebody may.
fn elect_primary(copies: &Copies<'_>, _: &mut Load) -> Option<Action> {
    let is_due = !copies.is_led && copies.have_candidate();
    is_due.then_some(Action::Elect { shard: copies.shard.id, lost: copies.lost.clone() })
}

/// A learner that will not get there only stands in the way of another one.
fn give_up_learner(copies: &Copies<'_>, _: &mut Load) -> Option<Action> {
    let is_hopeless = |copy: &&Copy<'_>| !copy.is_registered || copy.is_draining || copy.replica.damaged;
    let hopeless = copies.learners().find(is_hopeless)?;
    Some(Action::Retire { shard: copies.shard.id, replica: hopeless.id() })
}

fn add(need: Need, copies: &Copies<'_>, load: &mut Load) -> Option<Action> {
    if !copies.need_one_more(need) {
        return None;
    }
    let replaces = copies.to_replace();
    let node = load.place(copies, replaces)?;
    load.begin_copy(copies, &node, replaces);
    Some(Action::Add { shard: copies.shard.id, node, replaces })
}

/// A primary that is to leave hands over: on a drained node as soon as anybody can take over, in a move once its successor
/// is in sync.
fn hand_over(copies: &Copies<'_>, load: &mut Load) -> Option<Action> {
    let primary = copies.primary()?;
    match copies.fate(primary) {
        Fate::Drained => {}
        Fate::Replaced if copies.suffice_without(primary) => {}
        Fate::Stays | Fate::Replaced | Fate::Lost => return None,
    }
    let may_lead = |copy: &&Copy<'_>| copy.is_whole && !copy.is_draining && !copies.is_primary(copy);
    let others = copies.staying.iter().filter(may_lead);
    let to = others.min_by_key(|copy| (copies.fate(copy), load.primaries(copy.node()), copy.id()))?;
    load.hand_over(primary.node(), to.node());
    Some(Action::HandOver { shard: copies.shard.id, to: to.id() })
}

/// Of more copies than there should be the worst one goes; a primary only after it has handed over.
fn retire(copies: &Copies<'_>, load: &mut Load) -> Option<Action> {
    let is_spare = |copy: &&Copy<'_>| {
        let leads_on = copies.is_primary(copy) && copies.fate(copy) == Fate::Stays;
        copies.suffice_without(copy) && !copies.is_under_way(copy) && !leads_on
    };
    let worst = copies.staying.iter().filter(is_spare).max_by_key(|copy| {
        let crowd = load.crowd(copies, copy.node(), copy);
        (copies.fate(copy), !copy.is_whole, crowd, load.copies(copy.node()), copy.id())
    });
    let worst = worst.filter(|copy| !copies.is_primary(copy))?;
    Some(Action::Retire { shard: copies.shard.id, replica: worst.id() })
}

fn withdraw(copies: &Copies<'_>, _: &mut Load) -> Option<Action> {
    Some(Action::Withdraw { shard: copies.shard.id, replica: copies.abandoned? })
}

fn end_drains(situation: &Situation<'_>) -> Vec<Action> {
    let over = situation.view.drains.keys().filter(|node| !situation.is_draining(node));
    over.map(|node| Action::EndDrain { node: node.clone() }).collect()
}

impl Situation<'_> {
    /// True while the node is to be emptied.
    fn is_draining(&self, node: &NodeId) -> bool {
        let expires = self.view.drains.get(node).map(|drain| drain.expires_unix_ms);
        expires.is_some_and(|expires| expires.is_none_or(|expires| self.unix_ms < expires))
    }

    /// True when the node has not been registered for as long as this.
    fn is_away_for(&self, node: &NodeId, time: Duration) -> bool {
        let since = self.gone_since.get(node).copied().unwrap_or(self.now);
        !self.view.nodes.contains_key(node) && self.now.saturating_sub(since) >= time
    }
}
