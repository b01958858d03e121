//! The end of a reign in order: another copy in sync leads when it has everything.

use std::time::Duration;

use super::{NotAdmitted, Primary};
use crate::ids::{ReplicaId, Session};
use crate::replication::configuration::Change;
use crate::replication::message::DiskCondition;
use crate::replication::replica::{Command, Given, Replica, Standing};

/// Another copy is to lead.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(in crate::replication) struct HandOver {
    pub(super) to: Option<ReplicaId>,
    pub(super) until: Duration,
}

impl Primary {
    pub(super) fn may_have_handed_over(&self) -> bool {
        self.proposals.iter().any(|proposal| matches!(proposal.change, Change::HandOver { .. }))
    }
}

impl Replica {
    pub(in crate::replication) fn on_hand_over(&mut self, to: Option<ReplicaId>, given: &mut Given<'_>) {
        let until = given.now.monotonic + self.timing.hand_over;
        let (Standing::Primary(primary), Some(configuration)) = (&mut self.standing, &self.configuration)
        else {
            return given.command(Command::HandedOver(Err(NotAdmitted::NotPrimary)));
        };
        let others = configuration.isr.iter().filter(|id| **id != self.id);
        let fits = |id: &&ReplicaId| to.is_none_or(|to| to == **id);
        if !others.into_iter().any(|id| fits(&id)) {
            return given.command(Command::HandedOver(Err(NotAdmitted::NobodyElse)));
        }
        if primary.hand_over.is_some() {
            return given.command(Command::HandedOver(Err(NotAdmitted::HandingOver)));
        }
        primary.hand_over = Some(HandOver { to, until });
        self.hand_over_if_ready(given);
    }

    /// Hands over when all that was written is committed, and the successor has it.
    pub(super) fn hand_over_if_ready(&mut self, given: &mut Given<'_>) {
        let (Standing::Primary(primary), Some(configuration)) = (&mut self.standing, &self.configuration)
        else {
            return;
        };
        let Some(HandOver { to, until }) = primary.hand_over else { return };
        if primary.may_have_handed_over() {
            return;
        }
        if given.now.monotonic >= until {
            primary.hand_over = None;
            return given.command(Command::HandedOver(Err(NotAdmitted::NobodyElse)));
        }
        if self.commit < self.log.end || !primary.proposals.is_empty() {
            return;
        }
        let others = configuration.isr.iter().filter(|id| to.is_none_or(|to| to == **id));
        let ready = others.filter_map(|id| {
            let peer = primary.peers.get(id)?;
            let is_well = peer.disk == DiskCondition::Well;
            let fits = is_well && peer.flushed == Some(self.log.end) && peer.session > Session(0);
            fits.then_some((*id, peer.session))
        });
        // The one that answered last is the surest to be there.
        let best = ready.max_by_key(|(id, _)| primary.peers[id].heard);
        if let Some((to, session)) = best {
            self.propose(Change::HandOver { to, session }, vec![(to, session)], given);
        }
    }
}
