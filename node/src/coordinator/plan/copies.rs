//! The copies of one shard, judged one by one and together. Pure.

use super::{Settings, Situation};
use crate::cluster::view::{Replica, ReplicaRole, Shard};
use crate::ids::{Epoch, NodeId, ReplicaId};
use crate::table::TableState;

/// The copies of a shard that was claimed once and is not being deleted.
pub(super) struct Copies<'a> {
    pub(super) shard: &'a Shard,
    /// How many there should be.
    pub(super) wanted: usize,
    /// Those that stay.
    pub(super) staying: Vec<Copy<'a>>,
    /// The primary is there in the session that serves, and its data is well.
    pub(super) is_led: bool,
    /// Copies in sync that are damaged, or whose nodes do not come back.
    pub(super) lost: Vec<ReplicaId>,
    /// A leaving copy whose node will not take it away.
    pub(super) abandoned: Option<ReplicaId>,
}

/// A copy that stays.
pub(super) struct Copy<'a> {
    pub(super) replica: &'a Replica,
    /// Its node's zone; `None` while the node is not registered.
    pub(super) zone: Option<&'a str>,
    /// Its node is registered.
    pub(super) is_registered: bool,
    /// Its node is to be emptied.
    pub(super) is_draining: bool,
    /// It is damaged, or its node has been away for too long.
    pub(super) is_lost: bool,
    /// It is in sync and well, and its node answers.
    pub(super) is_whole: bool,
}

/// How sure it is that a copy goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Fate {
    /// It stays.
    Stays,
    /// Its successor is in sync.
    Replaced,
    /// Its node is to be emptied.
    Drained,
    /// It is gone already.
    Lost,
}

/// Why a shard needs another copy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Need {
    /// It has too few.
    Missing,
    /// It will have too few when those that are to go are gone.
    Leaving,
}

impl<'a> Copies<'a> {
    /// `None` for a shard that nobody has claimed yet, and for one of a table that is being deleted: others see to them.
    pub(super) fn judge(
        situation: &Situation<'a>,
        settings: &Settings,
        shard: &'a Shard,
    ) -> Option<Copies<'a>> {
        let view = situation.view;
        let table = view.tables_by_id.get(&shard.id.table)?;
        if table.state == TableState::Deleting || shard.epoch == Epoch::default() {
            return None;
        }
        let is_given_up =
            |replica: &Replica| situation.is_away_for(&replica.node, settings.rereplicate_after);
        let judge = |replica: &'a Replica| {
            let node = view.nodes.get(&replica.node);
            let is_in_sync = shard.is_in_sync(replica.id) && !replica.damaged;
            Copy {
                replica,
                zone: node.map(|node| node.zone.as_str()),
                is_registered: node.is_some(),
                is_draining: situation.is_draining(&replica.node),
                is_lost: replica.damaged || is_given_up(replica),
                is_whole: is_in_sync && node.is_some() && !situation.suspects.contains(&replica.node),
            }
        };
        let mut leaving = shard.replicas.iter().filter(|replica| replica.role == ReplicaRole::Leaving);
        let is_lost = |member: &&ReplicaId| {
            let copy = shard.replica(**member);
            copy.is_none_or(|copy| copy.damaged || situation.is_away_for(&copy.node, settings.lost_after))
        };
        let mut copies = Copies {
            shard,
            wanted: table.schema.replicas as usize,
            staying: shard.staying().map(judge).collect(),
            is_led: false,
            lost: shard.isr.iter().filter(is_lost).copied().collect(),
            abandoned: leaving.find(|replica| is_given_up(replica)).map(|replica| replica.id),
        };
        copies.is_led = view.is_served(shard) && copies.primary().is_some_and(|copy| !copy.replica.damaged);
        Some(copies)
    }

    pub(super) fn copy(&self, id: ReplicaId) -> Option<&Copy<'a>> {
        self.staying.iter().find(|copy| copy.id() == id)
    }

    pub(super) fn primary(&self) -> Option<&Copy<'a>> {
        self.copy(self.shard.primary?)
    }

    pub(super) fn is_primary(&self, copy: &Copy<'_>) -> bool {
        self.shard.primary == Some(copy.id())
    }

    pub(super) fn learners(&self) -> impl Iterator<Item = &Copy<'a>> {
        self.staying.iter().filter(|copy| copy.replica.role == ReplicaRole::Learner)
    }

    /// True when a copy could become the primary.
    pub(super) fn have_candidate(&self) -> bool {
        let may_lead =
            |copy: &Copy<'_>| copy.is_registered && !copy.replica.damaged && self.shard.is_in_sync(copy.id());
        self.staying.iter().any(may_lead)
    }

    /// True when another copy should be begun, and can be: no other one is in motion, and somebody leads.
    pub(super) fn need_one_more(&self, need: Need) -> bool {
        let counts = |copy: &&Copy<'_>| match (need, self.fate(copy)) {
            (_, Fate::Stays) => true,
            (need, Fate::Replaced | Fate::Drained) => need == Need::Missing,
            (_, Fate::Lost) => false,
        };
        let has_enough = self.staying.iter().filter(counts).count() >= self.wanted;
        !has_enough && self.is_led && self.learners().next().is_none()
    }

    /// The copy that another one is to replace: the one that is surest to go and has no successor yet.
    pub(super) fn to_replace(&self) -> Option<ReplicaId> {
        let goes = |copy: &&Copy<'_>| self.fate(copy) > Fate::Stays && self.successor(copy.id()).is_none();
        self.staying.iter().filter(goes).max_by_key(|copy| self.fate(copy)).map(Copy::id)
    }

    /// The copy that replaces this one.
    pub(super) fn successor(&self, id: ReplicaId) -> Option<&Copy<'a>> {
        self.staying.iter().find(|copy| copy.replica.replaces == Some(id))
    }

    pub(super) fn fate(&self, copy: &Copy<'_>) -> Fate {
        let is_replaced = self.successor(copy.id()).is_some_and(|successor| successor.is_whole);
        match (copy.is_lost, copy.is_draining, is_replaced) {
            (true, _, _) => Fate::Lost,
            (_, true, _) => Fate::Drained,
            (_, _, true) => Fate::Replaced,
            (false, false, false) => Fate::Stays,
        }
    }

    /// True when the copy is catching up to take the place of one that is there.
    pub(super) fn is_under_way(&self, copy: &Copy<'_>) -> bool {
        let replaced = copy.replica.replaces.and_then(|id| self.copy(id));
        copy.replica.role == ReplicaRole::Learner && replaced.is_some()
    }

    /// True when the shard would have all its copies, in sync, without this one. Copies that are surer to go do not count.
    pub(super) fn suffice_without(&self, copy: &Copy<'_>) -> bool {
        let counts = |other: &&Copy<'_>| {
            other.is_whole && other.id() != copy.id() && self.fate(other) <= self.fate(copy)
        };
        self.staying.iter().filter(counts).count() >= self.wanted
    }

    /// How many copies but this one are in a zone.
    pub(super) fn others_in_zone(&self, zone: &str, id: Option<ReplicaId>) -> usize {
        let is_other = |copy: &&Copy<'_>| copy.zone == Some(zone) && Some(copy.id()) != id;
        self.staying.iter().filter(is_other).count()
    }

    /// True when all copies are in sync, and none is to go: they may be spread better.
    pub(super) fn are_settled(&self) -> bool {
        self.staying.iter().all(|copy| copy.is_whole && self.fate(copy) == Fate::Stays)
    }

    /// True when no copy is in motion or may come back by itself.
    pub(super) fn are_at_rest(&self) -> bool {
        self.staying.iter().all(|copy| copy.is_whole || copy.is_lost)
    }
}

impl Copy<'_> {
    pub(super) fn id(&self) -> ReplicaId {
        self.replica.id
    }

    pub(super) fn node(&self) -> &NodeId {
        &self.replica.node
    }
}
