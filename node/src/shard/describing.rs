//! What a replica tells of itself: to readers at any time, to the Master and to people when they ask.

use bytes::Bytes;
use tracing::error;
use vectorsphere_proto::internal::{PeerStatus, Position as PositionRecord, ReplicaStatus};

use super::owner::{Owner, OwnerFailure, now};
use super::replica::ReplicaState;
use super::wire::digest_to_proto;
use crate::ids::{Lsn, ReplicaId, Session};
use crate::replication::{Event, PeerState, Standing};

impl Owner {
    /// Lets readers know what changed.
    pub(super) fn publish(&mut self) {
        let now = now();
        self.grant.set(self.core.grant(now));
        let leads = match self.core.standing() {
            Standing::Primary(primary) => Some(primary.epoch),
            Standing::Idle | Standing::Following(_) => None,
        };
        let (epoch, fresh) = (self.core.promised(), self.core.freshness());
        let incarnation = self.record.borrow().incarnation;
        let known = self.core.configuration();
        let in_sync = known.is_some_and(|known| known.is_in_sync(self.id));
        let has_enough_others = in_sync && known.is_some_and(|known| known.isr.len() > known.min_isr);
        self.state.send_if_modified(|state| {
            let after = ReplicaState {
                epoch,
                leads,
                in_sync,
                has_enough_others,
                fresh,
                incarnation,
                applied: state.applied,
                disk_bytes: state.disk_bytes,
                failure: state.failure.clone(),
            };
            let is_new = *state != after;
            *state = after;
            is_new
        });
    }

    /// Where the replica stands.
    pub(super) fn describe(&self) -> ReplicaStatus {
        let (now, log) = (now(), self.core.log());
        let last = log.position(log.durable).unwrap_or_default();
        let session = self.session().unwrap_or(Session(0));
        let peers = self.core.peers(now).into_iter().map(|peer| PeerStatus {
            replica_id: Bytes::copy_from_slice(&peer.id.0),
            flushed_lsn: peer.flushed.0,
            silent_ms: peer.silent.as_millis() as u64,
            state: match peer.state {
                PeerState::Probing { .. } => "probing".to_owned(),
                PeerState::Streaming { .. } => "streaming".to_owned(),
                PeerState::Snapshot => "snapshot".to_owned(),
            },
        });
        ReplicaStatus {
            table_id: self.shard.table.to_string(),
            shard: self.shard.index.0,
            replica_id: Bytes::copy_from_slice(&self.id.0),
            session: session.0,
            promised_epoch: self.core.promised().0,
            last: Some(PositionRecord { epoch: last.epoch.0, lsn: last.lsn.0 }),
            first_lsn: log.first.0,
            commit_lsn: self.core.commit().0,
            applied_lsn: self.state.borrow().applied.0,
            leads: matches!(self.core.standing(), Standing::Primary(_)),
            damaged: false,
            tail_was_cut: self.core.tail_was_cut(),
            digest: self.digests.last().map(digest_to_proto),
            peers: peers.collect(),
            failure: String::new(),
        }
    }

    /// Another copy's content differs. With a third copy the odd one out is known; with two nobody knows who is right.
    pub(super) fn on_difference(&mut self, other: ReplicaId, at: Lsn) -> Result<(), OwnerFailure> {
        self.metrics.alarms.inc();
        error!(shard = %self.shard, replica = %other, lsn = %at, "the content of two copies differs");
        let copies = self.core.configuration().map_or(0, |configuration| configuration.isr.len());
        if copies < 3 {
            return Err(OwnerFailure::Diverged(at));
        }
        self.step(Event::Distrust(other), Vec::new());
        Ok(())
    }
}
