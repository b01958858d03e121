//! What nodes hold, send and take in, kept up to date while steps are planned. Pure.

use std::collections::{BTreeMap, BTreeSet};

use super::copies::{Copies, Copy};
use super::{Settings, Situation};
use crate::ids::{NodeId, ReplicaId};

/// The registered nodes that hold shards.
pub(super) struct Load {
    nodes: BTreeMap<NodeId, NodeLoad>,
    incoming_max: usize,
    outgoing_max: usize,
}

#[derive(Default)]
struct NodeLoad {
    zone: String,
    /// It may get new copies: it is not to be emptied, answers, and could take the last one in.
    is_open: bool,
    /// Copies that stay; one that is being replaced counts no more.
    copies: usize,
    /// Shards that it leads.
    primaries: usize,
    /// Copies that it takes in.
    incoming: usize,
    /// Copies that its primaries send.
    outgoing: usize,
}

impl Load {
    pub(super) fn new(situation: &Situation<'_>, settings: &Settings, shards: &[Copies<'_>]) -> Load {
        let hosts = situation.view.nodes.values().filter(|node| node.holds_shards());
        let nodes = hosts.map(|node| {
            let shuns = |nodes: &BTreeSet<NodeId>| nodes.contains(&node.id);
            let is_shunned = shuns(situation.suspects) || shuns(situation.unfit);
            let is_open = !is_shunned && !situation.is_draining(&node.id);
            (node.id.clone(), NodeLoad { zone: node.zone.clone(), is_open, ..NodeLoad::default() })
        });
        let mut load = Load {
            nodes: nodes.collect(),
            incoming_max: settings.incoming_per_node,
            outgoing_max: settings.outgoing_per_node,
        };
        shards.iter().for_each(|copies| load.count(copies));
        load
    }

    fn count(&mut self, copies: &Copies<'_>) {
        for copy in copies.staying.iter().filter(|copy| copies.successor(copy.id()).is_none()) {
            self.change(copy.node(), |node| node.copies += 1);
        }
        if let Some(primary) = copies.primary() {
            let learners = copies.learners().count();
            self.change(primary.node(), |node| {
                node.primaries += 1;
                node.outgoing += learners;
            });
        }
        for learner in copies.learners() {
            self.change(learner.node(), |node| node.incoming += 1);
        }
    }

    /// The node for a new copy, in place of the copy `replaces`: one of a zone with the fewest other copies of the shard,
    /// of these one that holds least, of equals the first by name. `None` when there is none, or when each of them, or the
    /// primary, has enough to do for now.
    pub(super) fn place(&self, copies: &Copies<'_>, replaces: Option<ReplicaId>) -> Option<NodeId> {
        if !self.may_send(copies) {
            return None;
        }
        let crowd = |node: &NodeId| copies.others_in_zone(self.zone(node), replaces);
        let least_crowd = self.hosts(copies).map(crowd).min()?;
        let best = self.hosts(copies).filter(|node| crowd(node) == least_crowd && self.may_take(node));
        // What is replaced on the same node goes when the new copy is there.
        let own = replaces.and_then(|id| copies.copy(id)).map(Copy::node);
        best.min_by_key(|node| self.copies(node) - usize::from(own == Some(node))).cloned()
    }

    /// The nodes that may get a new copy, whatever they have to do for now: open ones where no copy stays but damaged ones.
    pub(super) fn hosts(&self, copies: &Copies<'_>) -> impl Iterator<Item = &NodeId> {
        let is_free =
            |node: &&NodeId| copies.staying.iter().all(|copy| copy.node() != *node || copy.replica.damaged);
        let open = self.nodes.iter().filter(|(_, load)| load.is_open).map(|(node, _)| node);
        open.filter(is_free)
    }

    /// The nodes that may get another copy now.
    pub(super) fn takers(&self) -> impl Iterator<Item = &NodeId> {
        let takers = self.nodes.iter().filter(|(node, load)| load.is_open && self.may_take(node));
        takers.map(|(node, _)| node)
    }

    fn may_take(&self, node: &NodeId) -> bool {
        self.nodes.get(node).is_some_and(|load| load.incoming < self.incoming_max)
    }

    /// True when the shard's primary may send another copy now.
    pub(super) fn may_send(&self, copies: &Copies<'_>) -> bool {
        let primary = copies.primary().and_then(|primary| self.nodes.get(primary.node()));
        primary.is_some_and(|load| load.outgoing < self.outgoing_max)
    }

    /// Takes in that a copy is begun on `node` in place of `replaces`.
    pub(super) fn begin_copy(&mut self, copies: &Copies<'_>, node: &NodeId, replaces: Option<ReplicaId>) {
        self.change(node, |node| {
            node.copies += 1;
            node.incoming += 1;
        });
        if let Some(primary) = copies.primary() {
            self.change(primary.node(), |node| node.outgoing += 1);
        }
        if let Some(replaced) = replaces.and_then(|id| copies.copy(id)) {
            self.change(replaced.node(), |node| node.copies -= 1);
        }
    }

    /// Takes in that another node leads a shard.
    pub(super) fn hand_over(&mut self, from: &NodeId, to: &NodeId) {
        self.change(from, |node| node.primaries -= 1);
        self.change(to, |node| node.primaries += 1);
    }

    /// How many copies of the shard would share the zone of `node` with `copy` if it were there.
    pub(super) fn crowd(&self, copies: &Copies<'_>, node: &NodeId, copy: &Copy<'_>) -> usize {
        copies.others_in_zone(self.zone(node), Some(copy.id()))
    }

    fn zone(&self, node: &NodeId) -> &str {
        self.nodes.get(node).map_or("", |load| &load.zone)
    }

    /// Copies on a node; none when it is not there.
    pub(super) fn copies(&self, node: &NodeId) -> usize {
        self.nodes.get(node).map_or(0, |load| load.copies)
    }

    /// Shards that a node leads; none when it is not there.
    pub(super) fn primaries(&self, node: &NodeId) -> usize {
        self.nodes.get(node).map_or(0, |load| load.primaries)
    }

    fn change(&mut self, node: &NodeId, change: impl FnOnce(&mut NodeLoad)) {
        if let Some(load) = self.nodes.get_mut(node) {
            change(load);
        }
    }
}
