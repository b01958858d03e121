//! The log on its way to the other copies, and their answers.

use std::time::Duration;

use super::Primary;
use super::peer::{Peer, PeerState};
use crate::ids::{Lsn, ReplicaId, Session};
use crate::replication::message::{Append, Message, Reply, ReplyOutcome};
use crate::replication::replica::{Alarm, Command, Given, Replica, Standing};
use crate::replication::rules::Rule;
use crate::replication::timing::Now;

/// Records of one message, at most.
const APPEND_RECORDS_MAX: u64 = 512;
/// Records that were sent and not answered, at most; the driver bounds their bytes.
const IN_FLIGHT_RECORDS_MAX: u64 = 8_192;
/// Beacons whose sending time is remembered.
const BEACONS_REMEMBERED: usize = 64;

impl Primary {
    /// Records from `from` on did not leave.
    pub(in crate::replication) fn unsent(&mut self, to: ReplicaId, from: Lsn) {
        let Some(peer) = self.peers.get_mut(&to) else { return };
        match &mut peer.state {
            PeerState::Streaming { next, .. } | PeerState::Probing { next } => *next = (*next).min(from),
            PeerState::Snapshot { .. } => {}
        }
    }

    fn sent_at(&self, beacon: u64) -> Option<Duration> {
        self.beacons.iter().find(|(number, _)| *number == beacon).map(|(_, sent)| *sent)
    }
}

impl Replica {
    pub(super) fn send_beacon_if_due(&mut self, given: &mut Given<'_>) {
        let Standing::Primary(primary) = &mut self.standing else { return };
        if given.now.monotonic < primary.beacon_due {
            return;
        }
        primary.beacon_due = self.timing.next_beacon(given.now.monotonic);
        self.send_beacon(given);
    }

    /// A new beacon to every other copy, with the records that it lacks.
    pub(super) fn send_beacon(&mut self, given: &mut Given<'_>) {
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
    pub(in crate::replication) fn pump_all(&mut self, given: &mut Given<'_>) {
        let Standing::Primary(primary) = &self.standing else { return };
        let peers: Vec<ReplicaId> = primary.peers.keys().copied().collect();
        for peer in peers {
            self.pump(peer, given);
        }
    }

    /// Lets copies that have everything know what is committed: readers there see it without waiting for a beacon.
    pub(super) fn tell_commit(&mut self, given: &mut Given<'_>) {
        let Standing::Primary(primary) = &self.standing else { return };
        let end = self.log.end;
        let has_all = |peer: &Peer| matches!(peer.state, PeerState::Streaming { next, .. } if next > end);
        let peers: Vec<ReplicaId> =
            primary.peers.iter().filter(|(_, peer)| has_all(peer)).map(|(id, _)| *id).collect();
        for peer in peers {
            self.send_append(peer, 0, given);
        }
    }

    /// Sends a copy what it lacks, as far as it may be on the way at once. False: there was nothing to send.
    pub(super) fn pump(&mut self, to: ReplicaId, given: &mut Given<'_>) -> bool {
        let mut sent = false;
        loop {
            let Standing::Primary(primary) = &self.standing else { return sent };
            let Some(Peer { state: PeerState::Streaming { next, .. }, flushed, .. }) = primary.peers.get(&to)
            else {
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
        let (epoch, start, beacon) = (primary.epoch, primary.start, primary.beacon);
        let is_needed = self
            .configuration
            .as_ref()
            .is_some_and(|configuration| primary.maximal_isr(configuration, self.rules).contains(&to));
        let Some(peer) = primary.peers.get_mut(&to) else { return false };
        let next = match peer.state {
            PeerState::Probing { next } | PeerState::Streaming { next, .. } => next,
            PeerState::Snapshot { judged, .. } => {
                if !is_needed {
                    given.command(Command::Send(to, Message::Install { epoch, judged }));
                }
                return true;
            }
        };
        let last = Lsn((next.0 - 1 + records).min(self.log.end.0)).max(Lsn(next.0 - 1));
        let prev = self.log.position(Lsn(next.0 - 1));
        let (Some(prev), true) = (prev, last < next || next >= self.log.first) else {
            // One that is in sync has all that is committed, and the log keeps what is not.
            peer.state = peer.needs_snapshot(Lsn(next.0 - 1), self.log.first);
            return false;
        };
        if let PeerState::Streaming { next, unanswered_since } = &mut peer.state
            && last >= *next
        {
            *next = last.next();
            unanswered_since.get_or_insert(given.now.monotonic);
        }
        let starts = self.log.epochs.starts_within(next, last);
        let clock = peer.clock.map(|clock| (peer.session, clock));
        let fresh = clock.filter(|_| self.grant(given.now).is_some());
        let append = Append { epoch, start, prev, last, starts, commit: self.commit, beacon, fresh };
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

    pub(in crate::replication) fn on_reply(&mut self, from: ReplicaId, reply: Reply, given: &mut Given<'_>) {
        let now = given.now;
        let Standing::Primary(primary) = &mut self.standing else { return };
        if reply.epoch != primary.epoch && self.rules.hold(Rule::AcksOfThisEpoch) {
            return;
        }
        let sent = primary.sent_at(reply.beacon);
        let Some(peer) = primary.peers.get_mut(&from) else { return };
        let Reply { session, clock, beacon, outcome, disk, .. } = reply;
        if session < peer.session && session != Session(0) {
            // From an earlier process; what the disk holds now is for the later one to say.
            return;
        }
        let is_new_process = session > peer.session;
        (peer.session, peer.disk, peer.heard) = (session.max(peer.session), disk, now.monotonic);
        let (before, end) = (peer.flushed, self.log.end);
        if is_new_process {
            // Its disk may not be the one that it was: what it says now counts.
            (peer.flushed, peer.clock) = (None, None);
        }
        if session == peer.session {
            peer.clock = peer.clock.max(Some(clock));
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
                // What it had of earlier reigns it may have cut in the middle of a batch, which then counts as not there.
                let is_less = |before| before >= primary.start && their_end < before;
                let has_lost = is_new_process && before.is_some_and(is_less);
                // And one that is in sync when it comes has all that is committed.
                let is_in_sync = self.configuration.as_ref().is_some_and(|known| known.is_in_sync(from));
                let never_had = is_in_sync && peer.flushed.is_none() && their_end < self.commit;
                if (has_lost || never_had) && !std::mem::replace(&mut peer.lied, true) {
                    given.command(Command::Alarm(Alarm::DiskLied(from)));
                }
                let common = self.log.last_common(&epochs, their_end);
                let state = match common.map(Lsn::next) {
                    // What follows must be there, unless nothing follows.
                    Some(next) if next >= self.log.first => PeerState::Probing { next },
                    _ => peer.needs_snapshot(their_end, self.log.first),
                };
                // Of several messages that did not fit, the first one's answer is enough.
                if peer.state != state {
                    peer.state = state;
                    self.send_append(from, 0, given);
                }
            }
            ReplyOutcome::Contradicted => return self.step_back(given),
            ReplyOutcome::Installing | ReplyOutcome::Refused => {}
        }
        self.pump(from, given);
        self.advance_commit(given);
        self.end_waits(given);
    }
}
