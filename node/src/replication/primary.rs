//! A copy that leads: streams its log, counts what is durable where, decides what is committed and who is in sync.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use super::configuration::{Change, Configuration};
use super::message::{Append, DiskCondition, Message, Reply, ReplyOutcome};
use super::replica::{Alarm, Command, Given, LogOperation, Outcome, Replica, Standing};
use super::rules::Rule;
use super::timing::{EtcdPolicy, Now, Timing};
use crate::ids::{Epoch, Lsn, ReplicaId, Revision, Session};

/// Records of one message, at most.
const APPEND_RECORDS_MAX: u64 = 512;
/// Records that were sent and not answered, at most; the driver bounds their bytes.
const IN_FLIGHT_RECORDS_MAX: u64 = 8_192;
/// A copy that enters the in-sync set lacks fewer records than this: else the shard would wait for it.
const JOIN_LAG_RECORDS: u64 = 64;
/// Beacons whose sending time is remembered.
const BEACONS_REMEMBERED: usize = 64;

/// What a primary knows.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Primary {
    /// Its reign.
    pub epoch: Epoch,
    /// Position of the record that begins it.
    pub start: Lsn,
    /// The node session that leads it.
    pub(super) session: Session,
    peers: BTreeMap<ReplicaId, Peer>,
    proposals: Vec<Proposal>,
    pub(super) batch_ends: VecDeque<Lsn>,
    beacon: u64,
    /// Sending times on the boot-time clock, ascending.
    beacons: VecDeque<(u64, Duration)>,
    /// Next beacon, on the monotonic clock.
    beacon_due: Duration,
    pub(super) confirmations: Vec<Confirmation>,
    pub(super) hand_over: Option<HandOver>,
    /// Who led the reign before, when that one's beginning is committed: no earlier primary has a lease any more.
    former: Option<(ReplicaId, Session)>,
}

/// A reader who waits until every copy in sync has answered a beacon.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Confirmation {
    pub(super) id: u64,
    beacon: u64,
    until: Duration,
}

/// Another copy is to lead.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct HandOver {
    to: Option<ReplicaId>,
    until: Duration,
}

/// A change of the record whose fate is not known.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Proposal {
    /// Requests for it of which none is known to have failed: each may be carried out, at any time.
    numbers: Vec<u64>,
    compared: Revision,
    change: Change,
    /// Until then nothing else is asked for, unless it is settled; on the monotonic clock.
    again_at: Duration,
}

/// What a primary knows of another copy.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Peer {
    state: PeerState,
    /// Its node's session, from its last reply.
    session: Session,
    /// Equal to our log and durable up to here, by replies in this reign; `None`: it has not replied.
    flushed: Option<Lsn>,
    /// It obeys nobody else until then, on the boot-time clock.
    granted_until: Duration,
    /// The largest beacon that it answered.
    answered: u64,
    /// Last reply, and last time that `flushed` grew or had nothing to grow to; on the monotonic clock.
    heard: Duration,
    progressed: Duration,
    disk: DiskCondition,
    /// It came back without records that it had said to be durable.
    lied: bool,
    /// It stays out of the in-sync set until then, on the monotonic clock.
    readmit_at: Duration,
    /// When it left the set last, and how long it had to stay out.
    left: Option<(Duration, Duration)>,
}

/// How records reach another copy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PeerState {
    /// Where its log ends is not known; beacons ask.
    Probing {
        /// The next position, if the logs are equal before it.
        next: Lsn,
    },
    /// Records follow each other without waiting for replies.
    Streaming {
        /// The next position.
        next: Lsn,
        /// When something was sent that is not answered, on the monotonic clock.
        unanswered_since: Option<Duration>,
    },
    /// Its log ends before ours begins.
    Snapshot,
}

/// How another copy stands, for people.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PeerView {
    /// Which.
    pub id: ReplicaId,
    /// How records reach it.
    pub state: PeerState,
    /// Durable there.
    pub flushed: Lsn,
    /// Time since its last reply.
    pub silent: Duration,
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

impl Peer {
    fn new(next: Lsn, now: Now) -> Peer {
        Peer {
            state: PeerState::Probing { next },
            session: Session(0),
            flushed: None,
            granted_until: Duration::ZERO,
            answered: 0,
            heard: now.monotonic,
            progressed: now.monotonic,
            disk: DiskCondition::Well,
            lied: false,
            readmit_at: Duration::ZERO,
            left: None,
        }
    }

    fn is_lost(&self, end: Lsn, timing: &Timing, now: Now) -> bool {
        let is_silent = now.monotonic >= self.heard + timing.silent;
        let is_behind = self.flushed.is_none_or(|flushed| flushed < end);
        self.lied || is_silent || is_behind && now.monotonic >= self.progressed + timing.slow
    }
}

impl Primary {
    /// Every copy that may be in sync: by the record, or by a change that may have been made.
    fn maximal_isr(&self, configuration: &Configuration, rules: super::Rules) -> BTreeSet<ReplicaId> {
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

    /// Records from `from` on did not leave.
    pub(super) fn unsent(&mut self, to: ReplicaId, from: Lsn) {
        let Some(peer) = self.peers.get_mut(&to) else { return };
        match &mut peer.state {
            PeerState::Streaming { next, .. } | PeerState::Probing { next } => *next = (*next).min(from),
            PeerState::Snapshot => {}
        }
    }

    /// The content of another copy is wrong: it leaves the set and is replaced.
    pub(super) fn distrust(&mut self, other: ReplicaId) {
        if let Some(peer) = self.peers.get_mut(&other) {
            peer.lied = true;
        }
    }

    /// When something is due, on the monotonic clock.
    pub(super) fn wakes_at(&self, promise_until: Duration, now: Now) -> Duration {
        match promise_until > now.monotonic {
            true => self.beacon_due.min(promise_until),
            false => self.beacon_due,
        }
    }

    fn sent_at(&self, beacon: u64) -> Option<Duration> {
        self.beacons.iter().find(|(number, _)| *number == beacon).map(|(_, sent)| *sent)
    }

    fn is_waiting_for_an_answer(&self, now: Now) -> bool {
        self.proposals.iter().any(|proposal| now.monotonic < proposal.again_at)
    }

    fn may_have_handed_over(&self) -> bool {
        self.proposals.iter().any(|proposal| matches!(proposal.change, Change::HandOver { .. }))
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

    /// Until when strong reads need no confirmation; `None`: they need one.
    pub fn grant(&self, now: Now) -> Option<Grant> {
        let (Standing::Primary(primary), Some(configuration)) = (&self.standing, &self.configuration) else {
            return None;
        };
        let serves = self.commit >= primary.start || !self.rules.hold(Rule::ServeAfterStart);
        if !serves {
            return None;
        }
        let mut until = self.granted_until(primary, configuration);
        if self.policy == EtcdPolicy::Strict || configuration.isr.len() < 2 {
            let session = self.session.filter(|(session, _)| *session == primary.session)?;
            until = until.min(session.1);
        }
        (until > now.boot).then_some(Grant { epoch: primary.epoch, start: primary.start, until })
    }

    /// True while what is committed may be acknowledged: the only copy in sync could have been taken over by another process.
    pub fn may_acknowledge(&self, now: Now) -> bool {
        let (Standing::Primary(primary), Some(configuration)) = (&self.standing, &self.configuration) else {
            return false;
        };
        configuration.isr.len() > 1 || self.valid_session(now) == Some(primary.session)
    }

    /// How the other copies stand.
    pub fn peers(&self, now: Now) -> Vec<PeerView> {
        let Standing::Primary(primary) = &self.standing else { return Vec::new() };
        let view = |(id, peer): (&ReplicaId, &Peer)| PeerView {
            id: *id,
            state: peer.state,
            flushed: peer.flushed.unwrap_or_default(),
            silent: now.monotonic.saturating_sub(peer.heard),
        };
        primary.peers.iter().map(view).collect()
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

    fn granted_until(&self, primary: &Primary, configuration: &Configuration) -> Duration {
        let maximal = primary.maximal_isr(configuration, self.rules);
        let others = maximal.iter().filter(|id| **id != self.id);
        let granted = |id: &ReplicaId| primary.peers.get(id).map_or(Duration::ZERO, |peer| peer.granted_until);
        others.map(granted).min().unwrap_or(Duration::MAX)
    }

    /// By the policy for a metadata store that is away.
    fn may_serve(&self, primary: &Primary, configuration: &Configuration, now: Now) -> bool {
        let has_session = self.valid_session(now) == Some(primary.session);
        let hears_all = configuration.isr.len() > 1 && self.granted_until(primary, configuration) > now.boot;
        has_session || self.policy == EtcdPolicy::Failsafe && hears_all
    }

    pub(super) fn begin_reign(
        &mut self,
        configuration: Configuration,
        session: Session,
        given: &mut Given<'_>,
    ) {
        let epoch = configuration.epoch;
        let former = self.former_primary(epoch);
        if former.is_some_and(|(former, _)| former == self.id) || !self.rules.hold(Rule::FormerPrimaryAnswers) && former.is_some() {
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

    /// Who led the reign before this one, if everything up to its beginning is known to be committed: it had waited for the
    /// leases of all primaries before it.
    fn former_primary(&self, epoch: Epoch) -> Option<(ReplicaId, Session)> {
        let (last, start) = self.log.epochs.last()?;
        let former = self.former.filter(|(former, _, _)| *former == last)?;
        (Epoch(last.0 + 1) == epoch && self.commit >= start).then_some((former.1, former.2))
    }

    /// Takes in a new record while leading: who the peers are, which changes are settled, or that the reign is over.
    pub(super) fn adopt_configuration(&mut self, given: &mut Given<'_>) {
        let (Standing::Primary(primary), Some(configuration)) = (&mut self.standing, &self.configuration) else {
            return;
        };
        if configuration.epoch != primary.epoch {
            return self.resign(given);
        }
        // A change that compared an older revision than this one cannot be made any more.
        primary.proposals.retain(|proposal| proposal.compared >= configuration.revision);
        let id = self.id;
        let others = configuration.members.iter().map(|member| member.id).filter(|other| *other != id);
        let wanted: BTreeSet<ReplicaId> = others.chain(primary.maximal_isr(configuration, self.rules)).collect();
        primary.peers.retain(|peer, _| wanted.contains(peer));
        // Most copies are equal up to the beginning of the reign; one that comes later says where it is.
        let next = if self.log.end == primary.start { primary.start } else { self.log.end.next() };
        for peer in wanted.into_iter().filter(|peer| *peer != id) {
            primary.peers.entry(peer).or_insert_with(|| Peer::new(next, given.now));
        }
        self.advance_commit(given);
    }

    /// What is due: beacons, changes of the in-sync set, the end of waits.
    pub(super) fn lead(&mut self, given: &mut Given<'_>) {
        self.send_beacon_if_due(given);
        self.advance_commit(given);
        self.end_waits(given);
        self.change_in_sync_set(given);
        self.hand_over_if_ready(given);
    }

    fn send_beacon_if_due(&mut self, given: &mut Given<'_>) {
        let Standing::Primary(primary) = &mut self.standing else { return };
        if given.now.monotonic < primary.beacon_due {
            return;
        }
        primary.beacon_due = given.now.monotonic + self.timing.beacon;
        self.send_beacon(given);
    }

    /// A new beacon to every other copy, with the records that it lacks.
    fn send_beacon(&mut self, given: &mut Given<'_>) {
        let Standing::Primary(primary) = &mut self.standing else { return };
        primary.beacon += 1;
        primary.beacons.push_back((primary.beacon, given.now.boot));
        if primary.beacons.len() > BEACONS_REMEMBERED {
            primary.beacons.pop_front();
        }
        let peers: Vec<ReplicaId> = primary.peers.keys().copied().collect();
        for peer in peers {
            self.resend_if_unanswered(peer, given.now);
            if !self.pump(peer, given) {
                self.send_append(peer, 0, given);
            }
        }
    }

    /// Sends every copy what it lacks.
    pub(super) fn pump_all(&mut self, given: &mut Given<'_>) {
        let Standing::Primary(primary) = &self.standing else { return };
        let peers: Vec<ReplicaId> = primary.peers.keys().copied().collect();
        for peer in peers {
            self.pump(peer, given);
        }
    }

    /// Sends a copy what it lacks, as far as it may be on the way at once. False: there was nothing to send.
    fn pump(&mut self, to: ReplicaId, given: &mut Given<'_>) -> bool {
        let mut sent = false;
        loop {
            let Standing::Primary(primary) = &self.standing else { return sent };
            let Some(Peer { state: PeerState::Streaming { next, .. }, flushed, .. }) = primary.peers.get(&to) else {
                return sent;
            };
            let in_flight = next.0.saturating_sub(flushed.unwrap_or_default().0 + 1);
            if *next > self.log.end || in_flight >= IN_FLIGHT_RECORDS_MAX {
                return sent;
            }
            if !self.send_append(to, APPEND_RECORDS_MAX, given) {
                return sent;
            }
            sent = true;
        }
    }

    /// Sends up to `records` records, or a beacon. False: they are not in the log any more.
    fn send_append(&mut self, to: ReplicaId, records: u64, given: &mut Given<'_>) -> bool {
        let Standing::Primary(primary) = &mut self.standing else { return false };
        let (epoch, beacon) = (primary.epoch, primary.beacon);
        let is_needed = self.configuration.as_ref().is_some_and(|configuration| {
            primary.maximal_isr(configuration, self.rules).contains(&to)
        });
        let Some(peer) = primary.peers.get_mut(&to) else { return false };
        let next = match peer.state {
            PeerState::Probing { next } | PeerState::Streaming { next, .. } => next,
            PeerState::Snapshot => {
                if !is_needed {
                    given.command(Command::Send(to, Message::Install { epoch }));
                }
                return true;
            }
        };
        let last = Lsn((next.0 - 1 + records).min(self.log.end.0)).max(Lsn(next.0 - 1));
        let prev = self.log.position(Lsn(next.0 - 1));
        let (Some(prev), true) = (prev, last < next || next >= self.log.first) else {
            // One that is in sync has all that is committed, and the log keeps what is not.
            peer.state = PeerState::Snapshot;
            return false;
        };
        if let PeerState::Streaming { next, unanswered_since } = &mut peer.state
            && last >= *next
        {
            *next = last.next();
            unanswered_since.get_or_insert(given.now.monotonic);
        }
        let starts = self.log.epochs.starts_within(next, last);
        let leased = self.grant(given.now).is_some();
        let append = Append { epoch, prev, last, starts, commit: self.commit, beacon, leased };
        given.command(Command::Send(to, Message::Append(append)));
        true
    }

    /// Asks a copy again where it is when it has not answered for a while.
    fn resend_if_unanswered(&mut self, id: ReplicaId, now: Now) {
        let resend = self.timing.resend;
        let Standing::Primary(primary) = &mut self.standing else { return };
        let Some(peer) = primary.peers.get_mut(&id) else { return };
        if let PeerState::Streaming { unanswered_since: Some(since), .. } = peer.state
            && now.monotonic >= since + resend
        {
            let next = peer.flushed.map_or(self.log.end, |flushed| flushed).next();
            peer.state = PeerState::Probing { next };
        }
    }

    pub(super) fn on_reply(&mut self, from: ReplicaId, reply: Reply, given: &mut Given<'_>) {
        let now = given.now;
        let Standing::Primary(primary) = &mut self.standing else { return };
        if reply.epoch != primary.epoch && self.rules.hold(Rule::AcksOfThisEpoch) {
            return;
        }
        let sent = primary.sent_at(reply.beacon);
        let Some(peer) = primary.peers.get_mut(&from) else { return };
        let Reply { session, beacon, outcome, disk, .. } = reply;
        let is_new_process = session > peer.session;
        (peer.session, peer.disk, peer.heard) = (session.max(peer.session), disk, now.monotonic);
        let (before, end) = (peer.flushed, self.log.end);
        if is_new_process {
            // Its disk may not be the one that it was: what it says now counts.
            peer.flushed = None;
        }
        match outcome {
            ReplyOutcome::Accepted { flushed } => {
                if primary.former == Some((from, session)) {
                    // It leads no more, and its lease was the last one.
                    self.promise_until = Duration::ZERO;
                }
                if let Some(sent) = sent {
                    peer.granted_until = peer.granted_until.max(sent + self.timing.grant);
                }
                peer.answered = peer.answered.max(beacon);
                if before.is_none_or(|before| flushed > before) || flushed == end {
                    peer.progressed = now.monotonic;
                }
                peer.flushed = peer.flushed.max(Some(flushed));
                peer.accepted(flushed, end, now);
            }
            ReplyOutcome::Mismatch { epochs, end: their_end } => {
                if is_new_process && before.is_some_and(|before| their_end < before) {
                    peer.lied = true;
                    given.command(Command::Alarm(Alarm::DiskLied(from)));
                }
                let common = self.log.last_common(&epochs, their_end);
                let state = match common {
                    Some(common) => PeerState::Probing { next: common.next() },
                    None => PeerState::Snapshot,
                };
                // Of several messages that did not fit, the first one's answer is enough.
                if peer.state != state {
                    peer.state = state;
                    self.send_append(from, 0, given);
                }
            }
            ReplyOutcome::Installing | ReplyOutcome::Refused => {}
        }
        self.pump(from, given);
        self.advance_commit(given);
        self.end_waits(given);
    }

    /// Commits what every copy that may be in sync has on its disk.
    pub(super) fn advance_commit(&mut self, given: &mut Given<'_>) {
        let (Standing::Primary(primary), Some(configuration)) = (&mut self.standing, &self.configuration) else {
            return;
        };
        let rules = self.rules;
        if configuration.isr.len() < configuration.min_isr && rules.hold(Rule::MinIsr) {
            return;
        }
        if given.now.monotonic < self.promise_until && rules.hold(Rule::PromiseRunsOut) {
            return;
        }
        let durable_at = |id: &ReplicaId| match primary.peers.get(id) {
            Some(peer) => peer.flushed.unwrap_or_default(),
            None if *id == self.id => self.log.durable,
            None => Lsn::ZERO,
        };
        let everywhere = primary.maximal_isr(configuration, rules).iter().map(durable_at).min();
        let everywhere = everywhere.expect("a primary is in sync");
        let mut commit = self.commit;
        while let Some(end) = primary.batch_ends.pop_front_if(|end| *end <= everywhere) {
            commit = commit.max(end);
        }
        if !rules.hold(Rule::BatchesAreWhole) && everywhere >= primary.start {
            commit = commit.max(everywhere);
        }
        if commit > self.commit {
            self.commit = commit;
            given.command(Command::Commit(commit));
        }
    }

    fn end_waits(&mut self, given: &mut Given<'_>) {
        let (Standing::Primary(primary), Some(configuration)) = (&mut self.standing, &self.configuration) else {
            return;
        };
        if primary.confirmations.is_empty() {
            return;
        }
        let serves = self.commit >= primary.start || !self.rules.hold(Rule::ServeAfterStart);
        let maximal = primary.maximal_isr(configuration, self.rules);
        let others: Vec<ReplicaId> = maximal.into_iter().filter(|id| *id != self.id).collect();
        let answered = others.iter().map(|id| primary.peers.get(id).map_or(0, |peer| peer.answered)).min();
        let answered = answered.unwrap_or(u64::MAX);
        let now = given.now.monotonic;
        primary.confirmations.retain(|waiting| {
            let is_confirmed = serves && answered >= waiting.beacon;
            if is_confirmed || now >= waiting.until {
                given.out.push(Command::Confirmed(waiting.id, is_confirmed.then_some(self.commit)));
                return false;
            }
            true
        });
    }

    pub(super) fn on_confirm(&mut self, id: u64, given: &mut Given<'_>) {
        let until = given.now.monotonic + self.timing.silent;
        if !matches!(self.standing, Standing::Primary(_)) {
            return given.command(Command::Confirmed(id, None));
        }
        self.send_beacon(given);
        let Standing::Primary(primary) = &mut self.standing else { return };
        primary.confirmations.push(Confirmation { id, beacon: primary.beacon, until });
        self.end_waits(given);
    }

    /// Takes copies out of the in-sync set that are lost, and in that are complete; one change at a time.
    fn change_in_sync_set(&mut self, given: &mut Given<'_>) {
        let (Standing::Primary(primary), Some(configuration)) = (&self.standing, &self.configuration) else {
            return;
        };
        if primary.is_waiting_for_an_answer(given.now) || primary.may_have_handed_over() {
            return;
        }
        let distrusted = primary.peers.iter().find(|(id, peer)| {
            peer.lied && configuration.member(**id).is_some_and(|member| !member.damaged)
        });
        if let Some((id, _)) = distrusted {
            return self.propose(Change::Distrust(*id), Vec::new(), given);
        }
        let promise_passed = given.now.monotonic >= self.promise_until;
        let joins = if promise_passed { self.next_to_join(primary, configuration, given.now) } else { None };
        let lost = self.next_to_leave(primary, configuration, given.now);
        let without = |lost: ReplicaId| configuration.isr.iter().copied().filter(move |id| *id != lost);
        let may_shrink = configuration.isr.len() > configuration.min_isr || !self.rules.hold(Rule::MinIsr);
        let isr: Vec<ReplicaId> = match (lost, joins) {
            (Some(lost), _) if may_shrink => without(lost).collect(),
            // The dead copy's place goes to one that is complete, in one step: the set is never too small.
            (Some(lost), Some(joins)) => without(lost).chain([joins]).collect(),
            (None, Some(joins)) => configuration.isr.iter().copied().chain([joins]).collect(),
            (Some(_), None) | (None, None) => return,
        };
        let grows = isr.iter().find(|id| !configuration.is_in_sync(**id)).copied();
        if let Some(lost) = lost.filter(|lost| !isr.contains(lost)) {
            self.note_leaving(lost, given.now);
        }
        self.propose_in_sync(isr, grows, given);
    }

    /// A copy in sync that the shard should not wait for any longer.
    fn next_to_leave(&self, primary: &Primary, configuration: &Configuration, now: Now) -> Option<ReplicaId> {
        let others = configuration.isr.iter().filter(|id| **id != self.id);
        let is_lost = |id: &&ReplicaId| {
            // A copy whose place is taken away, or whose node has lost it.
            let is_damaged = configuration.member(**id).is_none_or(|member| member.damaged);
            is_damaged
                || primary
                    .peers
                    .get(id)
                    .is_none_or(|peer| peer.is_lost(self.log.end, &self.timing, now) || peer.disk == DiskCondition::Full)
        };
        others.filter(is_lost).min_by_key(|id| primary.peers.get(id).map(|peer| peer.heard)).copied()
    }

    /// A copy that has everything that one in sync must have, and keeps up.
    fn next_to_join(&self, primary: &Primary, configuration: &Configuration, now: Now) -> Option<ReplicaId> {
        let rules = self.rules;
        let is_needed = configuration.isr.len() <= configuration.min_isr;
        let candidates = configuration.members.iter().filter(|member| {
            member.id != self.id && !member.damaged && !configuration.is_in_sync(member.id)
        });
        let joins = |id: ReplicaId| {
            let peer = primary.peers.get(&id)?;
            let flushed = peer.flushed?;
            let is_complete = flushed >= primary.start && flushed >= self.commit;
            let keeps_up = self.log.end.0 - flushed.0.min(self.log.end.0) < JOIN_LAG_RECORDS;
            let is_well = peer.disk == DiskCondition::Well && !peer.is_lost(self.log.end, &self.timing, now);
            let is_admitted = is_needed || now.monotonic >= peer.readmit_at;
            let fits = (is_complete || !rules.hold(Rule::GrowWhenComplete)) && keeps_up && is_well && is_admitted;
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

    fn propose_in_sync(&mut self, mut isr: Vec<ReplicaId>, grows: Option<ReplicaId>, given: &mut Given<'_>) {
        isr.sort_unstable();
        let Standing::Primary(primary) = &self.standing else { return };
        let session = |id: ReplicaId| (id, primary.peers.get(&id).map_or(Session(0), |peer| peer.session));
        let guards = grows.map(session).into_iter().collect();
        self.propose(Change::InSync(isr), guards, given);
    }

    fn propose(&mut self, change: Change, guards: Vec<(ReplicaId, Session)>, given: &mut Given<'_>) {
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

    pub(super) fn on_change_proposed(&mut self, number: u64, outcome: Outcome, given: &mut Given<'_>) {
        let Standing::Primary(primary) = &mut self.standing else { return };
        let Some(at) = primary.proposals.iter().position(|proposal| proposal.numbers.contains(&number)) else {
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

    pub(super) fn on_hand_over(&mut self, to: Option<ReplicaId>, given: &mut Given<'_>) {
        let until = given.now.monotonic + self.timing.hand_over;
        let (Standing::Primary(primary), Some(configuration)) = (&mut self.standing, &self.configuration) else {
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
    fn hand_over_if_ready(&mut self, given: &mut Given<'_>) {
        let (Standing::Primary(primary), Some(configuration)) = (&mut self.standing, &self.configuration) else {
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
            let fits = peer.flushed == Some(self.log.end) && peer.session > Session(0);
            fits.then_some((*id, peer.session))
        });
        // The one that answered last is the surest to be there.
        let best = ready.max_by_key(|(id, _)| primary.peers[id].heard);
        if let Some((to, session)) = best {
            self.propose(Change::HandOver { to, session }, vec![(to, session)], given);
        }
    }
}

impl Peer {
    /// Goes on behind what it has.
    fn accepted(&mut self, flushed: Lsn, end: Lsn, now: Now) {
        match &mut self.state {
            PeerState::Probing { next } => {
                self.state = PeerState::Streaming { next: (*next).max(flushed.next()), unanswered_since: None };
            }
            PeerState::Streaming { next, unanswered_since } => {
                *next = (*next).max(flushed.next());
                *unanswered_since = if flushed >= end { None } else { unanswered_since.map(|_| now.monotonic) };
            }
            PeerState::Snapshot => {
                self.state = PeerState::Streaming { next: flushed.next(), unanswered_since: None };
            }
        }
    }
}
