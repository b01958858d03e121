//! A copy that leads: begins its reign, takes writes, decides what is committed.
//!
//! What it does lies in files of their own: [`peer`] and [`stream`] bring its log to the other copies, [`in_sync_set`] says
//! which of them count, [`reads`] who may be served without asking them, [`hand_over`] how it ends in order.

mod hand_over;
mod in_sync_set;
mod peer;
mod reads;
mod stream;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

pub use self::peer::{PeerState, PeerView};
pub use self::reads::Grant;

use self::hand_over::HandOver;
use self::in_sync_set::Proposal;
use self::peer::Peer;
use self::reads::Confirmation;
use crate::ids::{Epoch, Lsn, ReplicaId, Session};
use crate::replication::configuration::Configuration;
use crate::replication::message::DiskCondition;
use crate::replication::replica::{Alarm, Command, Given, LogOperation, Replica, Standing};
use crate::replication::rules::Rule;
use crate::replication::timing::Now;

/// What a primary knows.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Primary {
    /// Its reign.
    pub epoch: Epoch,
    /// Position of the record that begins it.
    pub start: Lsn,
    /// The node session that leads it.
    pub(in crate::replication) session: Session,
    peers: BTreeMap<ReplicaId, Peer>,
    proposals: Vec<Proposal>,
    pub(in crate::replication) batch_ends: VecDeque<Lsn>,
    beacon: u64,
    /// Sending times on the boot-time clock, ascending.
    beacons: VecDeque<(u64, Duration)>,
    /// Next beacon, on the monotonic clock.
    beacon_due: Duration,
    pub(in crate::replication) confirmations: Vec<Confirmation>,
    pub(in crate::replication) hand_over: Option<HandOver>,
    /// Who led the reign before, when that one's beginning is committed: no earlier primary has a lease any more.
    former: Option<(ReplicaId, Session)>,
}

/// Why a write is refused before anything is appended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum NotAdmitted {
    /// The replica does not lead.
    #[error("this replica does not lead the shard")]
    NotPrimary,
    /// The node's session has ended.
    #[error("the node's session in the metadata store has ended")]
    SessionEnded,
    /// Too few copies in sync.
    #[error("{in_sync} copies are in sync, a write needs {needed}")]
    TooFewInSync {
        /// Copies in sync.
        in_sync: usize,
        /// Copies that a write needs.
        needed: usize,
    },
    /// Another copy is about to lead.
    #[error("the shard is being handed over to another replica")]
    HandingOver,
    /// The disk of a copy in sync is full.
    #[error("the disk of a copy in sync is nearly full: only deletes are accepted")]
    DiskFull,
    /// There is no copy that could lead.
    #[error("no other copy is in sync")]
    NobodyElse,
}

impl Primary {
    /// The content of another copy is wrong: it leaves the set and is replaced.
    pub(in crate::replication) fn distrust(&mut self, other: ReplicaId) {
        if let Some(peer) = self.peers.get_mut(&other) {
            peer.lied = true;
        }
    }

    /// When something is due, on the monotonic clock; `waits_until`: it decides nothing before.
    pub(in crate::replication) fn wakes_at(&self, waits_until: Duration, now: Now) -> Duration {
        match waits_until > now.monotonic {
            true => self.beacon_due.min(waits_until),
            false => self.beacon_due,
        }
    }
}

impl Replica {
    /// Whether a batch may be written now, and in which reign. `adds`: it may make the data larger.
    ///
    /// # Errors
    /// Why not; nothing of it was appended.
    pub fn admit(&self, adds: bool, now: Now) -> Result<Epoch, NotAdmitted> {
        let (Standing::Primary(primary), Some(configuration)) = (&self.standing, &self.configuration) else {
            return Err(NotAdmitted::NotPrimary);
        };
        if !self.may_serve(primary, configuration, now) {
            return Err(NotAdmitted::SessionEnded);
        }
        if primary.hand_over.is_some() || primary.may_have_handed_over() {
            return Err(NotAdmitted::HandingOver);
        }
        let (in_sync, needed) = (configuration.isr.len(), configuration.min_isr);
        if in_sync < needed && self.rules.hold(Rule::MinIsr) {
            return Err(NotAdmitted::TooFewInSync { in_sync, needed });
        }
        let mut in_sync = configuration.isr.iter().filter_map(|id| primary.peers.get(id));
        if adds && in_sync.any(|peer| peer.disk == DiskCondition::Full) {
            return Err(NotAdmitted::DiskFull);
        }
        Ok(primary.epoch)
    }

    /// Copies in sync that have everything up to `lsn` on their disks, this one included.
    pub fn durable_copies(&self, lsn: Lsn) -> u32 {
        let (Standing::Primary(primary), Some(configuration)) = (&self.standing, &self.configuration) else {
            return 0;
        };
        let has = |id: &&ReplicaId| match primary.peers.get(id) {
            Some(peer) => peer.flushed >= Some(lsn),
            None => **id == self.id && self.log.durable >= lsn,
        };
        configuration.isr.iter().filter(has).count() as u32
    }

    pub(in crate::replication) fn begin_reign(
        &mut self,
        configuration: Configuration,
        session: Session,
        given: &mut Given<'_>,
    ) {
        let epoch = configuration.epoch;
        let former = self.former_primary(epoch);
        if former.is_some_and(|(former, _)| former == self.id)
            || !self.rules.hold(Rule::FormerPrimaryAnswers) && former.is_some()
        {
            self.promise_until = Duration::ZERO;
        }
        let resumes = epoch == self.log.last().epoch && !self.rules.hold(Rule::NeverResume);
        if epoch > self.promised_durable || !resumes {
            self.save_promise(epoch, given);
        }
        let start = if resumes { self.log.end } else { self.log.end.next() };
        if !resumes {
            self.log.epochs.begin(epoch, start);
            self.log.extend(start);
            self.give_to_log(LogOperation::StartEpoch(epoch), given);
        }
        self.begun = epoch;
        self.standing = Standing::Primary(Box::new(Primary {
            epoch,
            start,
            session,
            peers: BTreeMap::new(),
            proposals: Vec::new(),
            batch_ends: VecDeque::from([start]),
            beacon: 0,
            beacons: VecDeque::new(),
            beacon_due: given.now.monotonic,
            confirmations: Vec::new(),
            hand_over: None,
            former,
        }));
        given.command(Command::Lead(epoch));
        self.adopt_configuration(given);
        self.lead(given);
    }

    /// Leads no more, nor ever again: the disk holds an earlier state than it did.
    fn step_back(&mut self, given: &mut Given<'_>) {
        self.lacks_committed = true;
        given.command(Command::Alarm(Alarm::LacksCommitted));
        self.resign(given);
        self.take_the_lead_if_due(given);
    }

    /// Who led the reign before this one, if everything up to its beginning is known to be committed: it had waited for the
    /// leases of all primaries before it.
    fn former_primary(&self, epoch: Epoch) -> Option<(ReplicaId, Session)> {
        let (last, start) = self.log.epochs.last()?;
        let former = self.former.filter(|(former, _, _)| *former == last)?;
        (Epoch(last.0 + 1) == epoch && self.commit >= start).then_some((former.1, former.2))
    }

    /// Takes in a new record while leading: who the peers are, which changes are settled, or that the reign is over.
    pub(in crate::replication) fn adopt_configuration(&mut self, given: &mut Given<'_>) {
        let (Standing::Primary(primary), Some(configuration)) = (&mut self.standing, &self.configuration)
        else {
            return;
        };
        if configuration.epoch != primary.epoch {
            return self.resign(given);
        }
        // A change that compared an older revision than this one cannot be made any more.
        primary.proposals.retain(|proposal| proposal.compared >= configuration.revision);
        let id = self.id;
        let others = configuration.members.iter().map(|member| member.id).filter(|other| *other != id);
        let wanted: BTreeSet<ReplicaId> =
            others.chain(primary.maximal_isr(configuration, self.rules)).collect();
        primary.peers.retain(|peer, _| wanted.contains(peer));
        // Most copies are equal up to the beginning of the reign; one that comes later says where it is.
        let next = if self.log.end == primary.start { primary.start } else { self.log.end.next() };
        for peer in wanted.into_iter().filter(|peer| *peer != id) {
            primary.peers.entry(peer).or_insert_with(|| Peer::new(next, given.now));
        }
        self.advance_commit(given);
    }

    /// No earlier primary can have a lease any more: neither one that this copy had promised to obey, nor an earlier process
    /// over its own disk.
    fn earlier_leases_are_over(&self, now: Now) -> bool {
        let promise_passed = now.monotonic >= self.promise_until || !self.rules.hold(Rule::PromiseRunsOut);
        promise_passed && (now.monotonic >= self.predecessor_until || !self.rules.hold(Rule::PredecessorEnds))
    }

    /// What is due: beacons, changes of the in-sync set, the end of waits.
    pub(in crate::replication) fn lead(&mut self, given: &mut Given<'_>) {
        self.send_beacon_if_due(given);
        self.advance_commit(given);
        self.end_waits(given);
        self.change_in_sync_set(given);
        self.hand_over_if_ready(given);
    }

    /// Commits what every copy that may be in sync has on its disk.
    pub(in crate::replication) fn advance_commit(&mut self, given: &mut Given<'_>) {
        let (Standing::Primary(primary), Some(configuration)) = (&self.standing, &self.configuration) else {
            return;
        };
        let rules = self.rules;
        if configuration.isr.len() < configuration.min_isr && rules.hold(Rule::MinIsr) {
            return;
        }
        let maximal = primary.maximal_isr(configuration, rules);
        if !self.earlier_leases_are_over(given.now) || !self.may_decide(&maximal, given.now) {
            return;
        }
        let durable_at = |id: &ReplicaId| match primary.peers.get(id) {
            Some(peer) => peer.flushed.unwrap_or_default(),
            None if *id == self.id => self.log.durable,
            None => Lsn::ZERO,
        };
        let everywhere = maximal.iter().map(durable_at).min().expect("a primary is in sync");
        let mut commit = self.commit;
        let Standing::Primary(primary) = &mut self.standing else { return };
        let start = primary.start;
        while let Some(end) = primary.batch_ends.pop_front_if(|end| *end <= everywhere) {
            commit = commit.max(end);
        }
        if !rules.hold(Rule::BatchesAreWhole) && everywhere >= start {
            commit = commit.max(everywhere);
        }
        if commit > self.commit {
            self.commit = commit;
            self.is_proven |= commit >= start;
            given.command(Command::Commit(commit));
            self.tell_commit(given);
        }
    }
}
