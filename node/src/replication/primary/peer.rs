//! What a primary knows of another copy.

use std::time::Duration;

use crate::ids::{Lsn, ReplicaId, Session};
use crate::replication::message::DiskCondition;
use crate::replication::replica::{Replica, Standing};
use crate::replication::timing::{Now, Timing};

/// What a primary knows of another copy.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Peer {
    pub(super) state: PeerState,
    /// Its node's session, from its last reply, and what its clock showed there.
    pub(super) session: Session,
    pub(super) clock: Option<Duration>,
    /// Equal to our log and durable up to here, by replies in this reign; `None`: it has not replied.
    pub(super) flushed: Option<Lsn>,
    /// It obeys nobody else until then, on the boot-time clock.
    pub(super) granted_until: Duration,
    /// The largest beacon that it answered.
    pub(super) answered: u64,
    /// Last reply, and last time that `flushed` grew or had nothing to grow to; on the monotonic clock.
    pub(super) heard: Duration,
    pub(super) progressed: Duration,
    pub(super) disk: DiskCondition,
    /// It came back without records that it had said to be durable.
    pub(super) lied: bool,
    /// It stays out of the in-sync set until then, on the monotonic clock.
    pub(super) readmit_at: Duration,
    /// When it left the set last, and how long it had to stay out.
    pub(super) left: Option<(Duration, Duration)>,
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
    Snapshot {
        /// Where its log ended when that was found.
        judged: Lsn,
        /// Where ours began then: whatever snapshot it fetches reaches as far, so the rest is kept for it.
        kept: Lsn,
    },
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
    /// The first record of the log that it still needs; `None`: nobody knows.
    pub needs: Option<Lsn>,
    /// Time since its last reply.
    pub silent: Duration,
}

impl Peer {
    pub(super) fn new(next: Lsn, now: Now) -> Peer {
        Peer {
            state: PeerState::Probing { next },
            session: Session(0),
            clock: None,
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

    /// Its log, which ends at `judged`, ends before ours begins. What was kept for a snapshot that it fetches already stays.
    pub(super) fn needs_snapshot(&self, judged: Lsn, first: Lsn) -> PeerState {
        match self.state {
            PeerState::Snapshot { kept, .. } => PeerState::Snapshot { judged, kept },
            PeerState::Probing { .. } | PeerState::Streaming { .. } => {
                PeerState::Snapshot { judged, kept: first }
            }
        }
    }

    pub(super) fn is_lost(&self, end: Lsn, timing: &Timing, now: Now) -> bool {
        let is_silent = now.monotonic >= self.heard + timing.silent;
        let is_behind = self.flushed.is_none_or(|flushed| flushed < end);
        self.lied || is_silent || is_behind && now.monotonic >= self.progressed + timing.slow
    }

    /// Goes on behind what it has.
    pub(super) fn accepted(&mut self, flushed: Lsn, end: Lsn, now: Now) {
        match &mut self.state {
            PeerState::Probing { next } => {
                self.state =
                    PeerState::Streaming { next: (*next).max(flushed.next()), unanswered_since: None };
            }
            PeerState::Streaming { next, unanswered_since } => {
                *next = (*next).max(flushed.next());
                *unanswered_since =
                    if flushed >= end { None } else { unanswered_since.map(|_| now.monotonic) };
            }
            PeerState::Snapshot { .. } => {
                self.state = PeerState::Streaming { next: flushed.next(), unanswered_since: None };
            }
        }
    }
}

impl Replica {
    /// How the other copies stand.
    pub fn peers(&self, now: Now) -> Vec<PeerView> {
        let Standing::Primary(primary) = &self.standing else { return Vec::new() };
        let view = |(id, peer): (&ReplicaId, &Peer)| PeerView {
            id: *id,
            state: peer.state,
            flushed: peer.flushed.unwrap_or_default(),
            needs: match peer.state {
                PeerState::Snapshot { kept, .. } => Some(kept),
                PeerState::Probing { .. } | PeerState::Streaming { .. } => peer.flushed.map(Lsn::next),
            },
            silent: now.monotonic.saturating_sub(peer.heard),
        };
        primary.peers.iter().map(view).collect()
    }
}
