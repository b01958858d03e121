//! A shard's record as the protocol sees it, and back. Pure.

use vectorsphere_proto::meta::{ReplicaRole, ShardRecord};

use crate::cluster::view::{self, Shard};
use crate::ids::ReplicaId;
use crate::replication::{Change, Configuration, Member};

/// What the protocol sees of a record.
pub(crate) fn configuration_of(shard: &Shard) -> Configuration {
    let mut isr = shard.isr.clone();
    isr.sort_unstable();
    let member = |replica: &view::Replica| Member { id: replica.id, damaged: replica.damaged };
    Configuration {
        revision: shard.mod_revision,
        epoch: shard.epoch,
        primary: shard.primary,
        primary_session: shard.primary_session,
        isr,
        min_isr: shard.min_isr as usize,
        members: shard.staying().map(member).collect(),
    }
}

/// The record with what a change made of the configuration.
pub(crate) fn write_configuration(
    mut record: ShardRecord,
    after: &Configuration,
    change: &Change,
) -> ShardRecord {
    record.epoch = after.epoch.0;
    record.primary = after.primary.map(|primary| primary.0.to_vec()).unwrap_or_default();
    record.primary_session = after.primary_session.0;
    record.isr = after.isr.iter().map(|id| id.0.to_vec()).collect();
    for entry in &mut record.replicas {
        let Some(id) = ReplicaId::from_bytes(&entry.replica_id) else { continue };
        entry.damaged |= after.member(id).is_some_and(|member| member.damaged);
        if after.is_in_sync(id) && entry.role() == ReplicaRole::Learner {
            entry.set_role(ReplicaRole::Full);
        }
    }
    record.reason = match change {
        Change::Claim { .. } => "claimed by its primary".to_owned(),
        Change::InSync(isr) => format!("{} copies in sync", isr.len()),
        Change::Distrust(_) => "a disk came back without what it had said to be durable".to_owned(),
        Change::Abdicate => "given up by its primary".to_owned(),
        Change::HandOver { .. } => "handed over".to_owned(),
    };
    record
}
