//! An even spread of copies and primaries, for a cluster that has nothing else to do. Pure.
//!
//! Each step makes a sum of squares smaller (of the copies of a shard in one zone, then of the copies or primaries on a
//! node) and none of the ones before it larger, so there is a last one.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use super::Action;
use super::copies::{Copies, Copy};
use super::load::Load;
use crate::ids::{NodeId, ShardId};

/// Moves of copies, or of primaries when no copy needs to move.
pub(super) fn balance(shards: &[Copies<'_>], load: &mut Load) -> Vec<Action> {
    let settled: Vec<&Copies<'_>> = shards.iter().filter(|copies| copies.are_settled()).collect();
    let mut actions = spread_over_zones(&settled, load);
    if actions.is_empty() {
        actions = level_copies(&settled, load);
    }
    if actions.is_empty() {
        actions = level_primaries(&settled, load);
    }
    actions
}

/// Copies that share a zone move to a zone with fewer copies of their shard.
fn spread_over_zones(shards: &[&Copies<'_>], load: &mut Load) -> Vec<Action> {
    let mut actions = Vec::new();
    for copies in shards {
        let crowded = |copy: &&Copy<'_>| (load.crowd(copies, copy.node(), copy), !copies.is_primary(copy));
        let Some(copy) = copies.staying.iter().max_by_key(crowded) else { continue };
        let Some(to) = load.place(copies, Some(copy.id())) else { continue };
        if load.crowd(copies, &to, copy) < load.crowd(copies, copy.node(), copy) {
            actions.push(begin_move(copies, copy, to, load));
        }
    }
    actions
}

/// From the fullest node to the emptiest, while they differ by two.
fn level_copies(shards: &[&Copies<'_>], load: &mut Load) -> Vec<Action> {
    let mut by_node: BTreeMap<&NodeId, Vec<(&Copies<'_>, &Copy<'_>)>> = BTreeMap::new();
    for copies in shards {
        for copy in &copies.staying {
            by_node.entry(copy.node()).or_default().push((copies, copy));
        }
    }
    // It takes a hand-over more to move a primary.
    by_node.values_mut().for_each(|held| held.sort_by_key(|(copies, copy)| copies.is_primary(copy)));
    let mut moved: BTreeSet<ShardId> = BTreeSet::new();
    let mut actions = Vec::new();
    loop {
        let mut pairs: Vec<(usize, &NodeId, &NodeId)> = Vec::new();
        for from in by_node.keys() {
            let ahead = |to: &NodeId| load.copies(from).saturating_sub(load.copies(to));
            pairs.extend(load.takers().map(|to| (ahead(to), *from, to)).filter(|(ahead, ..)| *ahead >= 2));
        }
        pairs.sort_by_key(|(ahead, ..)| Reverse(*ahead));
        let found = pairs.into_iter().find_map(|(_, from, to)| {
            let movable = |(copies, copy): &&(&Copies<'_>, &Copy<'_>)| {
                !moved.contains(&copies.shard.id) && may_move(copies, copy, to, load)
            };
            by_node[from].iter().find(movable).map(|(copies, copy)| (*copies, *copy, to.clone()))
        });
        let Some((copies, copy, to)) = found else { return actions };
        moved.insert(copies.shard.id);
        actions.push(begin_move(copies, copy, to, load));
    }
}

/// To the in-sync copy on the node that leads least, while they differ by two.
fn level_primaries(shards: &[&Copies<'_>], load: &mut Load) -> Vec<Action> {
    let mut actions = Vec::new();
    for copies in shards {
        let Some(primary) = copies.primary() else { continue };
        let others = copies.staying.iter().filter(|copy| !copies.is_primary(copy));
        let Some(to) = others.min_by_key(|copy| load.primaries(copy.node())) else { continue };
        if load.primaries(primary.node()) >= load.primaries(to.node()) + 2 {
            load.hand_over(primary.node(), to.node());
            actions.push(Action::HandOver { shard: copies.shard.id, to: to.id() });
        }
    }
    actions
}

/// True when the copy may go to `to` now, and the shard's copies are then no closer together.
fn may_move(copies: &Copies<'_>, copy: &Copy<'_>, to: &NodeId, load: &Load) -> bool {
    let is_free = copies.staying.iter().all(|other| other.node() != to);
    let stays_apart = load.crowd(copies, to, copy) <= load.crowd(copies, copy.node(), copy);
    is_free && stays_apart && load.may_send(copies)
}

fn begin_move(copies: &Copies<'_>, copy: &Copy<'_>, to: NodeId, load: &mut Load) -> Action {
    let replaces = Some(copy.id());
    load.begin_copy(copies, &to, replaces);
    Action::Add { shard: copies.shard.id, node: to, replaces }
}
