//! What goes wrong in a [`World`], and how it ends.

use std::time::Duration;

use rand::RngExt;
use rand::seq::IndexedRandom;
use vectorsphere_proto::meta::{Replica, ShardRecord};

use super::world::{Node, World, is_in_sync};
use crate::ids::{NodeId, Session, ShardId};

pub(super) const MINUTE: Duration = Duration::from_secs(60);

impl World {
    /// One thing happens.
    pub(super) fn trouble(&mut self) {
        let names: Vec<NodeId> = self.nodes.keys().cloned().collect();
        let name = names.choose(&mut self.random).expect("there are nodes");
        match self.random.random_range(0..10) {
            0 | 1 => self.leave(name),
            2 | 3 => self.come_back(name),
            4 => self.drain_or_not(name),
            5 => {
                let node = self.node(name);
                node.is_suspect = node.session.is_some() && !node.is_suspect;
            }
            6 => self.damage(),
            _ => self.now += MINUTE * self.random.random_range(1..5),
        }
    }

    /// Whoever is away comes back, but for one node if nothing is lost with it and enough are left.
    pub(super) fn end_trouble(&mut self) {
        let names: Vec<NodeId> = self.nodes.keys().cloned().collect();
        names.iter().for_each(|name| self.come_back(name));
        let has_spare = self.drained() < self.shape.nodes - self.shape.replicas as usize;
        let may_go = |name: &&NodeId| {
            let is_elsewhere = |replica: &Replica| replica.node_id != name.as_str();
            has_spare && self.shards.values().all(|(record, _)| survives(record, is_elsewhere))
        };
        if let Some(name) = names.iter().find(may_go) {
            self.leave(name);
        }
    }

    fn node(&mut self, name: &NodeId) -> &mut Node {
        self.nodes.get_mut(name).expect("one of ours")
    }

    fn leave(&mut self, name: &NodeId) {
        let now = self.now;
        let node = self.node(name);
        if node.session.take().is_some() {
            node.away_since = now;
            node.is_suspect = false;
        }
    }

    /// It registers anew, also when it was not away.
    fn come_back(&mut self, name: &NodeId) {
        self.revision.0 += 1;
        let session = Session(self.revision.0);
        let node = self.node(name);
        node.session = Some(session);
        node.is_suspect = false;
    }

    /// At most so many are drained that one more may stay away.
    fn drain_or_not(&mut self, name: &NodeId) {
        let may_drain = self.drained() + 1 < self.shape.nodes - self.shape.replicas as usize;
        let expires = if self.random.random() { self.unix_ms() + 600_000 } else { 0 };
        let node = self.node(name);
        node.drain = (node.drain.is_none() && may_drain).then_some(expires);
    }

    fn drained(&self) -> usize {
        self.nodes.values().filter(|node| node.drain.is_some()).count()
    }

    /// Breaks a copy, if there is another one that has everything.
    fn damage(&mut self) {
        let ids: Vec<ShardId> = self.shards.keys().copied().collect();
        let id = *ids.choose(&mut self.random).expect("there are shards");
        let mut record = self.shards[&id].0.clone();
        let index = self.random.random_range(0..record.replicas.len());
        if survives(&record, |replica| *replica != record.replicas[index]) {
            record.replicas[index].damaged = true;
            self.put(id, record);
        }
    }
}

/// True when a copy that has everything is among those that are kept.
fn survives(record: &ShardRecord, is_kept: impl Fn(&Replica) -> bool) -> bool {
    let has_all = |replica: &&Replica| !replica.damaged && is_in_sync(record, replica);
    record.replicas.iter().filter(has_all).any(is_kept)
}
