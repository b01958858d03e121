//! What a replica tells of itself: to readers at any time, to the Master and to people when they ask.

use bytes::Bytes;
use vectorsphere_proto::internal::{PeerStatus, Position as PositionRecord, ReplicaStatus};

use super::owner::{Owner, now};
use super::replica::ReplicaState;
use super::wire::digest_to_proto;
use crate::ids::Session;
use crate::replication::{PeerState, Standing};
use crate::storage::ReplicaMeta;

/// What a copy that stays closed because of `failure` says of itself. Its log may go further than what is proven of it.
pub(super) fn describe_closed(meta: &ReplicaMeta, failure: String) -> ReplicaStatus {
    let shard = meta.identity.shard;
    let last = PositionRecord { epoch: meta.reigns.epoch_at(meta.durable).0, lsn: meta.durable.0 };
    ReplicaStatus {
        table_id: shard.table.to_string(),
        shard: shard.index.0,
        replica_id: Bytes::copy_from_slice(&meta.identity.replica.0),
        promised_epoch: meta.promised_epoch.0,
        last: Some(last),
        commit_lsn: meta.commit.0,
        applied_lsn: meta.commit.0,
        tail_was_cut: meta.tail_was_cut,
        failure,
        ..ReplicaStatus::default()
    }
}

impl Owner {
    /// Lets readers know what changed.
    pub(super) fn publish(&mut self) {
        let now = now();
        self.grant.set(self.driver.core().grant(now));
        let leads = match self.driver.core().standing() {
            Standing::Primary(primary) => Some(primary.epoch),
            Standing::Idle | Standing::Following(_) => None,
        };
        let (epoch, fresh) = (self.driver.core().promised(), self.driver.core().freshness());
        let incarnation = self.record.borrow().incarnation;
        let known = self.driver.core().configuration();
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
        let (now, log) = (now(), self.driver.core().log());
        let last = log.position(log.durable).unwrap_or_default();
        let session = self.session().unwrap_or(Session(0));
        let peers = self.driver.core().peers(now).into_iter().map(|peer| PeerStatus {
            replica_id: Bytes::copy_from_slice(&peer.id.0),
            flushed_lsn: peer.flushed.0,
            silent_ms: peer.silent.as_millis() as u64,
            state: match peer.state {
                PeerState::Probing { .. } => "probing".to_owned(),
                PeerState::Streaming { .. } => "streaming".to_owned(),
                PeerState::Snapshot { .. } => "snapshot".to_owned(),
            },
        });
        ReplicaStatus {
            table_id: self.shard.table.to_string(),
            shard: self.shard.index.0,
            replica_id: Bytes::copy_from_slice(&self.id.0),
            session: session.0,
            promised_epoch: self.driver.core().promised().0,
            last: Some(PositionRecord { epoch: last.epoch.0, lsn: last.lsn.0 }),
            first_lsn: log.first.0,
            commit_lsn: self.driver.core().commit().0,
            applied_lsn: self.state.borrow().applied.0,
            leads: matches!(self.driver.core().standing(), Standing::Primary(_)),
            damaged: false,
            tail_was_cut: self.driver.core().tail_was_cut(),
            digest: self.driver.digests().last().map(digest_to_proto),
            peers: peers.collect(),
            failure: String::new(),
            proven: self.driver.core().is_proven(),
        }
    }
}
