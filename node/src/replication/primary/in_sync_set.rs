//! Who is in sync: copies that are lost leave the set, complete ones enter it, by changes of the shard's record.

use std::collections::BTreeSet;
use std::time::Duration;

use super::Primary;
use crate::ids::{Epoch, ReplicaId, Revision, Session};
use crate::replication::configuration::{Change, Configuration};
use crate::replication::message::DiskCondition;
use crate::replication::replica::{Command, Given, Outcome, Replica, Standing};
use crate::replication::rules::{Rule, Rules};
use crate::replication::timing::Now;

/// A copy that enters the in-sync set lacks fewer records than this: else the shard would wait for it.
const JOIN_LAG_RECORDS: u64 = 64;

/// A change of the record whose fate is not known.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Proposal {
    /// Requests for it of which none is known to have failed: each may be carried out, at any time.
    pub(super) numbers: Vec<u64>,
    pub(super) compared: Revision,
    pub(super) change: Change,
    /// Until then nothing else is asked for, unless it is settled; on the monotonic clock.
    pub(super) again_at: Duration,
}

impl Primary {
    /// Every copy that may be in sync: by the record, or by a change that may have been made.
    pub(super) fn maximal_isr(&self, configuration: &Configuration, rules: Rules) -> BTreeSet<ReplicaId> {
        let mut isr: BTreeSet<ReplicaId> = configuration.isr.iter().copied().collect();
        for proposal in &self.proposals {
            let Change::InSync(proposed) = &proposal.change else { continue };
            if rules.hold(Rule::MaximalIsr) {
                isr.extend(proposed);
            }
            if !rules.hold(Rule::ShrinkIsConfirmed) {
                isr = proposed.iter().copied().collect();
            }
        }
        isr
    }

    pub(super) fn is_waiting_for_an_answer(&self, now: Now) -> bool {
        self.proposals.iter().any(|proposal| now.monotonic < proposal.again_at)
    }
}

impl Replica {
    /// Every copy that this primary counts; of one that does not lead, none.
    #[cfg(test)]
    pub(crate) fn maximal_isr(&self) -> BTreeSet<ReplicaId> {
        match (&self.standing, &self.configuration) {
            (Standing::Primary(primary), Some(configuration)) => {
                primary.maximal_isr(configuration, self.rules)
            }
            _ => BTreeSet::new(),
        }
    }

    /// Takes copies out of the in-sync set that are lost, and in that are complete; one change at a time.
    pub(super) fn change_in_sync_set(&mut self, given: &mut Given<'_>) {
        let (Standing::Primary(primary), Some(configuration)) = (&self.standing, &self.configuration) else {
            return;
        };
        if primary.is_waiting_for_an_answer(given.now) {
            return;
        }
        if primary.may_have_handed_over() {
            return self.settle(given);
        }
        if let Some(liar) = self.next_to_distrust(primary, configuration) {
            return self.propose(Change::Distrust(liar), Vec::new(), given);
        }
        let may_grow = self.earlier_leases_are_over(given.now);
        let joins = if may_grow { self.next_to_join(primary, configuration, given.now) } else { None };
        let lost = self.next_to_leave(primary, configuration, given.now);
        let without = |lost: ReplicaId| configuration.isr.iter().copied().filter(move |id| *id != lost);
        let may_shrink = configuration.isr.len() > configuration.min_isr || !self.rules.hold(Rule::MinIsr);
        let isr: Vec<ReplicaId> = match (lost, joins) {
            (Some(lost), _) if may_shrink => without(lost).collect(),
            // The dead copy's place goes to one that is complete, in one step: the set is never too small.
            (Some(lost), Some(joins)) => without(lost).chain([joins]).collect(),
            (None, Some(joins)) => configuration.isr.iter().copied().chain([joins]).collect(),
            (Some(_), None) | (None, None) => return self.settle(given),
        };
        let grows = isr.iter().find(|id| !configuration.is_in_sync(**id)).copied();
        let leaves = lost.filter(|lost| !isr.contains(lost));
        self.propose_in_sync(isr, grows, leaves, given);
    }

    /// Asks for the set as it is, when there is a change whose fate is not known: once this is made, that one never will be,
    /// and what it would have added need not be waited for any longer.
    fn settle(&mut self, given: &mut Given<'_>) {
        let (Standing::Primary(primary), Some(configuration)) = (&self.standing, &self.configuration) else {
            return;
        };
        if !primary.proposals.is_empty() {
            let isr = configuration.isr.clone();
            self.propose(Change::InSync(isr), Vec::new(), given);
        }
    }

    /// A copy that came back without records that it had said to be durable, and that the record still trusts.
    fn next_to_distrust(&self, primary: &Primary, configuration: &Configuration) -> Option<ReplicaId> {
        let trusted = configuration.members.iter().filter(|member| !member.damaged).map(|member| member.id);
        trusted.into_iter().find(|id| primary.peers.get(id).is_some_and(|peer| peer.lied))
    }

    /// A copy in sync that the shard should not wait for any longer.
    fn next_to_leave(&self, primary: &Primary, configuration: &Configuration, now: Now) -> Option<ReplicaId> {
        let others = configuration.isr.iter().filter(|id| **id != self.id);
        let is_lost = |id: &&ReplicaId| {
            // A copy whose place is taken away, or whose node has lost it.
            let is_damaged = configuration.member(**id).is_none_or(|member| member.damaged);
            is_damaged
                || primary.peers.get(id).is_none_or(|peer| {
                    peer.is_lost(self.log.end, &self.timing, now) || peer.disk != DiskCondition::Well
                })
        };
        others.filter(is_lost).min_by_key(|id| primary.peers.get(id).map(|peer| peer.heard)).copied()
    }

    /// A copy that has everything that one in sync must have, and keeps up.
    fn next_to_join(&self, primary: &Primary, configuration: &Configuration, now: Now) -> Option<ReplicaId> {
        let rules = self.rules;
        let is_needed = configuration.isr.len() <= configuration.min_isr;
        let candidates = configuration
            .members
            .iter()
            .filter(|member| member.id != self.id && !member.damaged && !configuration.is_in_sync(member.id));
        let joins = |id: ReplicaId| {
            let peer = primary.peers.get(&id)?;
            let flushed = peer.flushed?;
            let waits = !rules.hold(Rule::ReplaceBeforeCommit) && self.commit < primary.start;
            let is_complete = flushed >= primary.start && flushed >= self.commit && !waits;
            let keeps_up = self.log.end.0 - flushed.0.min(self.log.end.0) < JOIN_LAG_RECORDS;
            let is_well = peer.disk == DiskCondition::Well && !peer.is_lost(self.log.end, &self.timing, now);
            let is_admitted = is_needed || now.monotonic >= peer.readmit_at;
            let fits =
                (is_complete || !rules.hold(Rule::GrowWhenComplete)) && keeps_up && is_well && is_admitted;
            (fits && peer.session > Session(0)).then_some(id)
        };
        candidates.filter_map(|member| joins(member.id)).next()
    }

    /// One that leaves again soon after it came back stays out for longer each time.
    fn note_leaving(&mut self, id: ReplicaId, now: Now) {
        let timing = self.timing;
        let Standing::Primary(primary) = &mut self.standing else { return };
        let Some(peer) = primary.peers.get_mut(&id) else { return };
        let stays_out = match peer.left {
            Some((at, last)) if now.monotonic < at + last + timing.flapping => {
                (last * 2).clamp(timing.readmission_min, timing.readmission_max)
            }
            _ => Duration::ZERO,
        };
        peer.left = Some((now.monotonic, stays_out));
        peer.readmit_at = now.monotonic + stays_out;
    }

    fn propose_in_sync(
        &mut self,
        mut isr: Vec<ReplicaId>,
        grows: Option<ReplicaId>,
        leaves: Option<ReplicaId>,
        given: &mut Given<'_>,
    ) {
        isr.sort_unstable();
        let Standing::Primary(primary) = &self.standing else { return };
        let is_asked = primary.proposals.iter().any(|asked| asked.change == Change::InSync(isr.clone()));
        if let (Some(leaves), false) = (leaves, is_asked) {
            self.note_leaving(leaves, given.now);
        }
        let Standing::Primary(primary) = &self.standing else { return };
        let session = |id: ReplicaId| (id, primary.peers.get(&id).map_or(Session(0), |peer| peer.session));
        let guards = grows.map(session).into_iter().collect();
        self.propose(Change::InSync(isr), guards, given);
    }

    pub(super) fn propose(
        &mut self,
        change: Change,
        guards: Vec<(ReplicaId, Session)>,
        given: &mut Given<'_>,
    ) {
        let number = self.take_proposal();
        let Some(configuration) = &self.configuration else { return };
        let compared = configuration.revision;
        let again_at = given.now.monotonic + self.timing.propose_again;
        let Standing::Primary(primary) = &mut self.standing else { return };
        match primary.proposals.iter_mut().find(|proposal| proposal.change == change) {
            Some(proposal) => {
                proposal.numbers.push(number);
                proposal.again_at = again_at;
            }
            None => {
                let numbers = vec![number];
                primary.proposals.push(Proposal { numbers, compared, change: change.clone(), again_at });
            }
        }
        given.command(Command::Propose { number, compared, change, guards });
    }

    pub(in crate::replication) fn on_change_proposed(
        &mut self,
        number: u64,
        outcome: Outcome,
        given: &mut Given<'_>,
    ) {
        let Standing::Primary(primary) = &mut self.standing else { return };
        let Some(at) = primary.proposals.iter().position(|proposal| proposal.numbers.contains(&number))
        else {
            return;
        };
        match outcome {
            Outcome::Made(revision) => {
                let change = primary.proposals[at].change.clone();
                let configuration = self.configuration.as_ref().expect("a primary knows its record");
                if configuration.revision < revision {
                    let after = configuration.with(&change, revision);
                    self.configuration = Some(after);
                    if let Change::HandOver { .. } = change {
                        given.command(Command::HandedOver(Ok(Epoch(primary.epoch.0 + 1))));
                        primary.hand_over = None;
                    }
                    self.adopt_configuration(given);
                }
            }
            Outcome::Unknown if self.rules.hold(Rule::TimeoutIsUnknown) => given.command(Command::Reload),
            Outcome::NotMade | Outcome::Unknown => {
                let proposal = &mut primary.proposals[at];
                proposal.numbers.retain(|asked| *asked != number);
                if proposal.numbers.is_empty() {
                    primary.proposals.remove(at);
                }
                given.command(Command::Reload);
            }
        }
    }
}
