//! A shard's record as its replicas see it, and the changes that a replica may ask for.

use crate::ids::{Epoch, ReplicaId, Revision, Session};

/// Who the replicas of a shard are, who leads, and who is in sync.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Configuration {
    /// Revision of the record: changes are compare-and-swap on it.
    pub revision: Revision,
    /// The reign; 0: nobody has led yet.
    pub epoch: Epoch,
    /// Who leads it.
    pub primary: Option<ReplicaId>,
    /// The node session that leads it.
    pub primary_session: Session,
    /// Copies that have everything that is acknowledged; ascending.
    pub isr: Vec<ReplicaId>,
    /// Copies in sync that a write needs.
    pub min_isr: usize,
    /// All copies that stay.
    pub members: Vec<Member>,
}

/// A copy that stays.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Member {
    /// Which.
    pub id: ReplicaId,
    /// Its node says that its data is lost.
    pub damaged: bool,
}

/// A change of the record that a replica asks for.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Change {
    /// Begins the next reign, with the replica itself as primary in this session of its node.
    Claim {
        /// Who asks.
        replica: ReplicaId,
        /// Its node's session.
        session: Session,
    },
    /// Replaces the in-sync set.
    InSync(Vec<ReplicaId>),
    /// Says that a copy's disk cannot be trusted: it is to be replaced.
    Distrust(ReplicaId),
    /// The primary leads no more, and may not claim the next reign by itself: the Master is to choose.
    Abdicate,
    /// Begins the next reign with another copy in sync as primary.
    HandOver {
        /// Who.
        to: ReplicaId,
        /// Its node's session.
        session: Session,
    },
}

impl Configuration {
    /// True when nobody has led this shard yet.
    pub fn is_fresh(&self) -> bool {
        self.epoch == Epoch::default() && self.primary.is_none() && self.isr.is_empty()
    }

    /// True when the copy is in sync.
    pub fn is_in_sync(&self, id: ReplicaId) -> bool {
        self.isr.contains(&id)
    }

    /// A copy that stays.
    pub fn member(&self, id: ReplicaId) -> Option<Member> {
        self.members.iter().find(|member| member.id == id).copied()
    }

    /// What the record says after a change, at a later revision.
    pub fn with(&self, change: &Change, revision: Revision) -> Configuration {
        assert!(revision > self.revision, "a change makes a later revision");
        let next = Epoch(self.epoch.0 + 1);
        let mut after = Configuration { revision, ..self.clone() };
        match change {
            Change::Claim { replica, session } => {
                (after.epoch, after.primary, after.primary_session) = (next, Some(*replica), *session);
                if self.is_fresh() {
                    after.isr = vec![*replica];
                }
            }
            Change::InSync(isr) => after.isr.clone_from(isr),
            Change::Abdicate => after.primary_session = Session::default(),
            Change::Distrust(replica) => {
                let distrusted = after.members.iter_mut().filter(|member| member.id == *replica);
                distrusted.for_each(|member| member.damaged = true);
            }
            Change::HandOver { to, session } => {
                (after.epoch, after.primary, after.primary_session) = (next, Some(*to), *session);
            }
        }
        assert!(after.primary.is_none_or(|primary| after.is_in_sync(primary)), "a primary is in sync");
        after
    }
}
