//! What the Master writes into a shard's record. Pure: the record as it was in, as it is to be out.
//!
//! The caller writes the result on condition that the record is still the one that it decided by, so what a decision has
//! made sure of is asserted here. None of these makes the in-sync set smaller than `min_isr` (I13).

use vectorsphere_proto::meta::{Replica, ReplicaRole, ShardRecord};

use crate::ids::{NodeId, ReplicaId, Session};

/// `candidate` becomes the primary of the next epoch, in the node session that was seen. The primary of before leaves the
/// in-sync set if that keeps `min_isr` members; its copy stays.
pub fn with_primary(record: &ShardRecord, candidate: ReplicaId, session: Session) -> ShardRecord {
    let elected = entry(record, candidate);
    assert!(record.isr.contains(&elected.replica_id), "{candidate} is not in sync");
    assert!(!elected.damaged, "{candidate} is damaged");
    let old = record.primary.clone();
    let mut isr = record.isr.clone();
    if old != elected.replica_id && isr.len() > record.min_isr as usize {
        isr.retain(|member| *member != old);
    }
    let edited = ShardRecord {
        epoch: record.epoch + 1,
        primary: elected.replica_id.clone(),
        primary_session: session.0,
        isr,
        reason: format!("elected {candidate}"),
        ..record.clone()
    };
    checked(record, edited)
}

/// A new copy on `node` begins to catch up. The one that it `replaces` leaves when it is in sync.
pub fn with_learner(
    record: &ShardRecord,
    learner: ReplicaId,
    node: &NodeId,
    replaces: Option<ReplicaId>,
) -> ShardRecord {
    for other in record.replicas.iter().filter(|other| other.role() != ReplicaRole::Leaving) {
        assert!(other.role() != ReplicaRole::Learner, "one copy in motion at a time");
        assert!(other.node_id != node.as_str() || other.damaged, "{node} has a copy already");
    }
    let reason = match replaces {
        Some(replaced) => format!("{learner} on {node} is to replace {replaced}"),
        None => format!("{learner} on {node} is to be one copy more"),
    };
    let mut edited = ShardRecord { reason, ..record.clone() };
    edited.replicas.push(Replica {
        replica_id: bytes(learner),
        node_id: node.to_string(),
        role: ReplicaRole::Learner.into(),
        damaged: false,
        replaces: replaces.map(bytes).unwrap_or_default(),
    });
    checked(record, edited)
}

/// A copy that is not the primary is to go: its node deletes it, then takes its entry away.
pub fn with_leaving(record: &ShardRecord, leaving: ReplicaId) -> ShardRecord {
    let id = bytes(leaving);
    assert_ne!(record.primary, id, "a primary hands over first");
    let mut edited = ShardRecord { reason: format!("{leaving} is to leave"), ..record.clone() };
    edited.isr.retain(|member| *member != id);
    for replica in &mut edited.replicas {
        if replica.replica_id == id {
            replica.set_role(ReplicaRole::Leaving);
            replica.replaces.clear();
        } else if replica.replaces == id {
            replica.replaces.clear();
        }
    }
    checked(record, edited)
}

/// The entry of a leaving copy is taken away, because its node does not come back to do it.
pub fn without(record: &ShardRecord, gone: ReplicaId) -> ShardRecord {
    assert_eq!(entry(record, gone).role(), ReplicaRole::Leaving, "only what is to leave may go");
    let mut edited = ShardRecord { reason: format!("{gone} left with its node"), ..record.clone() };
    edited.replicas.retain(|replica| replica.replica_id != gone.0);
    checked(record, edited)
}

fn entry(record: &ShardRecord, id: ReplicaId) -> &Replica {
    let found = record.replicas.iter().find(|replica| replica.replica_id == id.0);
    found.expect("decided by this very record")
}

fn bytes(id: ReplicaId) -> Vec<u8> {
    id.0.to_vec()
}

/// Checks what every edit keeps: the members of the in-sync set are copies that stay, the primary is one of them, and there
/// are no fewer than `min_isr`, unless there were fewer before.
fn checked(before: &ShardRecord, after: ShardRecord) -> ShardRecord {
    let stays = |id: &[u8]| {
        let is_full = |replica: &Replica| replica.replica_id == id && replica.role() == ReplicaRole::Full;
        after.replicas.iter().any(is_full)
    };
    assert!(after.isr.iter().all(|member| stays(member)), "a member of the in-sync set has no full copy");
    assert!(after.primary.is_empty() || after.isr.contains(&after.primary), "the primary is not in sync");
    let enough = before.isr.len().min(before.min_isr as usize);
    assert!(after.isr.len() >= enough, "{} in-sync copies are fewer than {enough}", after.isr.len());
    after
}
