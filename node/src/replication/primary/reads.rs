//! Strong reads: under the promises of every copy that may be in sync, or after asking all of them.

use std::collections::BTreeSet;
use std::time::Duration;

use super::Primary;
use crate::ids::{Epoch, Lsn, ReplicaId};
use crate::replication::configuration::Configuration;
use crate::replication::replica::{Command, Given, Replica, Standing};
use crate::replication::rules::Rule;
use crate::replication::timing::{EtcdPolicy, Now};

/// A reader who waits until every copy in sync has answered a beacon.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(in crate::replication) struct Confirmation {
    pub(in crate::replication) id: u64,
    pub(super) beacon: u64,
    pub(super) until: Duration,
}

/// Strong reads need no round of messages until then.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Grant {
    /// The reign.
    pub epoch: Epoch,
    /// Reads see at least this position.
    pub start: Lsn,
    /// On the boot-time clock.
    pub until: Duration,
}

impl Grant {
    /// True when a copy that has applied this much shows everything that was acknowledged: what earlier reigns acknowledged
    /// lies before its start, and what this one does is applied first.
    pub fn covers(&self, applied: Lsn) -> bool {
        applied >= self.start
    }
}

impl Replica {
    /// Until when strong reads need no confirmation; `None`: they need one.
    pub fn grant(&self, now: Now) -> Option<Grant> {
        let (Standing::Primary(primary), Some(configuration)) = (&self.standing, &self.configuration) else {
            return None;
        };
        let serves = self.commit >= primary.start || !self.rules.hold(Rule::ServeAfterStart);
        if !serves {
            return None;
        }
        // Promises do not fence another process over this copy's own disk: only the end of the session does.
        let session = self.session.filter(|(session, _)| *session == primary.session)?;
        let until = self.granted_until(primary, configuration).min(session.1);
        (until > now.boot).then_some(Grant { epoch: primary.epoch, start: primary.start, until })
    }

    pub(super) fn granted_until(&self, primary: &Primary, configuration: &Configuration) -> Duration {
        let maximal = primary.maximal_isr(configuration, self.rules);
        let others = maximal.iter().filter(|id| **id != self.id);
        let granted =
            |id: &ReplicaId| primary.peers.get(id).map_or(Duration::ZERO, |peer| peer.granted_until);
        others.map(granted).min().unwrap_or(Duration::MAX)
    }

    /// A primary that has others to ask is deposed only with the help of one of them. One that has not must be sure that it
    /// still has its node's session.
    pub(super) fn may_decide(&self, maximal_isr: &BTreeSet<ReplicaId>, now: Now) -> bool {
        let Standing::Primary(primary) = &self.standing else { return false };
        let asks_others = maximal_isr.iter().any(|id| *id != self.id);
        let is_certain = self.valid_session(now) == Some(primary.session);
        asks_others || is_certain || !self.rules.hold(Rule::SoleMemberHasSession)
    }

    /// True while what is committed may be acknowledged: the only copy in sync could have been taken over by another process.
    pub fn may_acknowledge(&self, now: Now) -> bool {
        let (Standing::Primary(primary), Some(configuration)) = (&self.standing, &self.configuration) else {
            return false;
        };
        self.may_decide(&primary.maximal_isr(configuration, self.rules), now)
    }

    /// By the policy for a metadata store that is away.
    pub(super) fn may_serve(&self, primary: &Primary, configuration: &Configuration, now: Now) -> bool {
        let has_session = self.valid_session(now) == Some(primary.session);
        let hears_all = configuration.isr.len() > 1 && self.granted_until(primary, configuration) > now.boot;
        has_session || self.policy == EtcdPolicy::Failsafe && hears_all
    }

    pub(in crate::replication) fn on_confirm(&mut self, id: u64, given: &mut Given<'_>) {
        let until = given.now.monotonic + self.timing.silent;
        if !matches!(self.standing, Standing::Primary(_)) {
            return given.command(Command::Confirmed(id, None));
        }
        self.send_beacon(given);
        let Standing::Primary(primary) = &mut self.standing else { return };
        primary.confirmations.push(Confirmation { id, beacon: primary.beacon, until });
        self.end_waits(given);
    }

    pub(super) fn end_waits(&mut self, given: &mut Given<'_>) {
        let (Standing::Primary(primary), Some(configuration)) = (&self.standing, &self.configuration) else {
            return;
        };
        if primary.confirmations.is_empty() {
            return;
        }
        let maximal = primary.maximal_isr(configuration, self.rules);
        let has_begun = self.commit >= primary.start || !self.rules.hold(Rule::ServeAfterStart);
        let serves = has_begun && self.may_decide(&maximal, given.now);
        let others = maximal.iter().filter(|id| **id != self.id);
        let answered = others.map(|id| primary.peers.get(id).map_or(0, |peer| peer.answered)).min();
        let answered = answered.unwrap_or(u64::MAX);
        let now = given.now.monotonic;
        let Standing::Primary(primary) = &mut self.standing else { return };
        primary.confirmations.retain(|waiting| {
            let is_confirmed = serves && answered >= waiting.beacon;
            if is_confirmed || now >= waiting.until {
                given.out.push(Command::Confirmed(waiting.id, is_confirmed.then_some(self.commit)));
                return false;
            }
            true
        });
    }
}
