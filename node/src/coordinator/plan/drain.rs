//! How far a node is from being empty. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::copies::{Copies, Need};
use super::load::Load;
use super::{Settings, Situation};
use crate::cluster::view::{ClusterView, ReplicaRole};
use crate::ids::{NodeId, ShardId};

/// What a node still holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DrainProgress {
    /// Copies that have not begun to leave.
    pub replicas: usize,
    /// Primaries among them.
    pub primaries: usize,
    /// Copies that the node is deleting.
    pub leaving: usize,
    /// The shards that wait for something, and for what.
    pub blocked: Vec<(ShardId, String)>,
}

impl DrainProgress {
    /// True when the node holds nothing but what it is deleting: it may go, its data is elsewhere.
    pub fn is_done(&self) -> bool {
        self.replicas == 0
    }
}

/// What a node holds, and what stands in the way of emptying it. A shard that only waits for its turn is not blocked.
pub fn drain_progress(view: &ClusterView, node: &NodeId) -> DrainProgress {
    let (gone_since, nobody) = (BTreeMap::new(), BTreeSet::new());
    let situation = Situation {
        view,
        now: Duration::ZERO,
        gone_since: &gone_since,
        suspects: &nobody,
        unfit: &nobody,
        unix_ms: 0,
    };
    let settings = Settings::default();
    let judge = |shard| Copies::judge(&situation, &settings, shard);
    let load = Load::new(&situation, &settings, &[]);
    let mut progress = DrainProgress::default();
    for shard in view.shards.values() {
        let on_node = shard.replicas.iter().filter(|replica| replica.node == *node);
        let (leaving, staying): (Vec<_>, Vec<_>) =
            on_node.partition(|replica| replica.role == ReplicaRole::Leaving);
        progress.leaving += leaving.len();
        progress.replicas += staying.len();
        progress.primaries += staying.iter().filter(|replica| shard.primary == Some(replica.id)).count();
        if !staying.is_empty()
            && let Some(reason) = judge(shard).and_then(|copies| what_blocks(&copies, &load))
        {
            progress.blocked.push((shard.id, reason.to_owned()));
        }
    }
    progress
}

/// Why the shard's copies on drained nodes cannot leave now.
fn what_blocks(copies: &Copies<'_>, load: &Load) -> Option<&'static str> {
    if !copies.is_led {
        return Some("nobody leads it, so that no new copy can be made");
    }
    if copies.learners().next().is_some() {
        return Some("a new copy is not in sync yet");
    }
    if copies.need_one_more(Need::Leaving) {
        let has_host = load.hosts(copies).next().is_some();
        return (!has_host).then_some("no other node may hold a copy");
    }
    let mut drained = copies.staying.iter().filter(|copy| copy.is_draining);
    let waits = drained.any(|copy| !copies.suffice_without(copy));
    waits.then_some("too few of its other copies are in sync")
}
