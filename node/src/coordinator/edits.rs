//! What the Master writes into a shard's record. Pure: the record as it was in, as it is to be out.
//!
//! The caller writes the result on condition that the record is still the one that it decided by, so what a decision has
//! made sure of is asserted here. None of these but [`with_forced_primary`]
//! makes the in-sync set smaller than `min_isr` (I13).

use vectorsphere_proto::meta::{Replica, ReplicaRole, ShardRecord};

use crate::ids::{Epoch, NodeId, ReplicaId, Session};

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

/// The shard goes on from `chosen`, by the word of a person, though it may lack acknowledged writes: in `epoch`, above all
/// that any copy has promised, and in a new incarnation. It alone is in sync, even if a write needs more. Copies that are
/// `given_up` have committed what it may lack: they count as damaged, keep their data for a while, and are replaced.
pub fn with_forced_primary(
    record: &ShardRecord,
    chosen: ReplicaId,
    session: Session,
    epoch: Epoch,
    given_up: &[ReplicaId],
) -> ShardRecord {
    assert!(epoch.0 > record.epoch, "epochs grow");
    let id = bytes(chosen);
    assert!(!entry(record, chosen).damaged, "{chosen} is damaged");
    let mut edited = ShardRecord {
        epoch: epoch.0,
        primary: id.clone(),
        primary_session: session.0,
        isr: vec![id.clone()],
        incarnation: record.incarnation + 1,
        reason: format!("forced to go on from {chosen}"),
        ..record.clone()
    };
    for replica in &mut edited.replicas {
        if replica.replica_id == id {
            replica.set_role(ReplicaRole::Full);
            replica.replaces.clear();
        }
        replica.damaged |= given_up.iter().any(|other| replica.replica_id == other.0);
    }
    edited
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

#[cfg(test)]
mod tests {
    use super::*;

    /// Copies `a`, `b`, … on nodes of the same names, in this role; `a` leads in epoch 7.
    fn record(copies: &[(&str, ReplicaRole)], min_isr: u32) -> ShardRecord {
        let replica = |(name, role): &(&str, ReplicaRole)| Replica {
            replica_id: bytes(id(name)),
            node_id: (*name).to_owned(),
            role: (*role).into(),
            ..Replica::default()
        };
        let replicas: Vec<Replica> = copies.iter().map(replica).collect();
        let full = replicas.iter().filter(|replica| replica.role() == ReplicaRole::Full);
        ShardRecord {
            epoch: 7,
            primary: bytes(id("a")),
            isr: full.map(|replica| replica.replica_id.clone()).collect(),
            replicas,
            min_isr,
            primary_session: 5,
            reason: "before".to_owned(),
            incarnation: 3,
        }
    }

    fn full(names: &[&'static str], min_isr: u32) -> ShardRecord {
        record(&names.iter().map(|name| (*name, ReplicaRole::Full)).collect::<Vec<_>>(), min_isr)
    }

    fn id(name: &str) -> ReplicaId {
        ReplicaId([name.as_bytes()[0]; 16])
    }

    fn node(name: &str) -> NodeId {
        NodeId::parse(name).expect("valid")
    }

    fn names(members: &[Vec<u8>]) -> String {
        members.iter().map(|member| char::from(member[0])).collect()
    }

    #[test]
    fn the_old_primary_leaves_the_in_sync_set_if_enough_remain() {
        for (isr, min_isr, elected, remain) in [
            (["a", "b", "c"].as_slice(), 1, "b", "bc"),
            (&["a", "b", "c"], 2, "c", "bc"),
            (&["a", "b", "c"], 3, "b", "abc"),
            (&["a", "b"], 1, "b", "b"),
            (&["a", "b"], 2, "b", "ab"),
            // The same copy in a new session of its node.
            (&["a", "b"], 1, "a", "ab"),
            (&["a"], 1, "a", "a"),
        ] {
            let before = full(isr, min_isr);
            let after = with_primary(&before, id(elected), Session(9));
            assert_eq!(names(&after.isr), remain, "{isr:?} of {min_isr}");
            assert_eq!((after.epoch, after.primary_session), (8, 9));
            assert_eq!(after.primary, id(elected).0);
            assert_eq!((&after.replicas, after.incarnation), (&before.replicas, 3), "copies stay");
            assert!(after.reason.starts_with("elected"), "{}", after.reason);
        }
    }

    #[test]
    fn a_set_that_is_too_small_already_may_stay_so() {
        let fresh = full(&["a"], 2);
        assert_eq!(names(&with_primary(&fresh, id("a"), Session(9)).isr), "a");
        assert_eq!(with_learner(&fresh, id("b"), &node("b"), None).replicas.len(), 2);
    }

    #[test]
    fn a_forced_primary_is_alone_in_a_new_incarnation() {
        let mut before =
            record(&[("a", ReplicaRole::Full), ("b", ReplicaRole::Full), ("c", ReplicaRole::Learner)], 2);
        before.replicas[2].replaces = bytes(id("a"));
        let after = with_forced_primary(&before, id("c"), Session(9), Epoch(12), &[id("a")]);
        assert_eq!((after.epoch, after.primary_session, after.incarnation), (12, 9, 4));
        assert_eq!((&after.primary, names(&after.isr).as_str()), (&bytes(id("c")), "c"));
        assert_eq!(after.replicas[2].role(), ReplicaRole::Full);
        assert!(after.replicas[2].replaces.is_empty(), "nothing leaves for it");
        let damaged: Vec<bool> = after.replicas.iter().map(|replica| replica.damaged).collect();
        assert_eq!(damaged, [true, false, false]);
        assert_eq!(after.min_isr, 2, "writes wait for a second copy");
    }

    #[test]
    fn a_learner_names_what_it_replaces_until_that_leaves() {
        let before = full(&["a", "b"], 1);
        let moving = with_learner(&before, id("c"), &node("c"), Some(id("b")));
        let learner = moving.replicas.last().expect("added");
        assert_eq!((learner.role(), &learner.replaces), (ReplicaRole::Learner, &bytes(id("b"))));
        assert_eq!((names(&moving.isr).as_str(), moving.epoch), ("ab", 7));
        let moved = with_leaving(&moving, id("b"));
        assert_eq!(names(&moved.isr), "a");
        assert_eq!(moved.replicas[1].role(), ReplicaRole::Leaving);
        assert!(moved.replicas.iter().all(|replica| replica.replaces.is_empty()));
        assert_eq!(without(&moved, id("b")).replicas, [moved.replicas[0].clone(), moved.replicas[2].clone()]);
    }

    #[test]
    fn a_learner_that_leaves_takes_its_mark_along() {
        let moving = with_learner(&full(&["a", "b"], 1), id("c"), &node("c"), Some(id("b")));
        let given_up = with_leaving(&moving, id("c"));
        assert!(given_up.replicas[2].replaces.is_empty());
        assert_eq!(names(&given_up.isr), "ab");
    }

    #[test]
    fn a_damaged_copy_makes_room_on_its_node() {
        let mut before = full(&["a", "b"], 1);
        before.replicas[1].damaged = true;
        let after = with_learner(&before, id("c"), &node("b"), Some(id("b")));
        assert_eq!(after.replicas[2].node_id, "b");
    }

    #[test]
    #[should_panic(expected = "fewer than 2")]
    fn the_in_sync_set_never_shrinks_below_the_minimum() {
        with_leaving(&full(&["a", "b"], 2), id("b"));
    }

    #[test]
    #[should_panic(expected = "hands over first")]
    fn a_primary_does_not_leave() {
        with_leaving(&full(&["a", "b"], 1), id("a"));
    }

    #[test]
    #[should_panic(expected = "is damaged")]
    fn a_damaged_copy_is_not_elected() {
        let mut before = full(&["a", "b"], 1);
        before.replicas[1].damaged = true;
        with_primary(&before, id("b"), Session(9));
    }

    #[test]
    #[should_panic(expected = "is not in sync")]
    fn a_learner_is_not_elected() {
        let before = record(&[("a", ReplicaRole::Full), ("b", ReplicaRole::Learner)], 1);
        with_primary(&before, id("b"), Session(9));
    }

    #[test]
    #[should_panic(expected = "has a copy already")]
    fn a_node_has_one_copy_of_a_shard() {
        with_learner(&full(&["a", "b"], 1), id("c"), &node("b"), None);
    }

    #[test]
    #[should_panic(expected = "one copy in motion")]
    fn one_copy_is_in_motion() {
        let before = record(&[("a", ReplicaRole::Full), ("b", ReplicaRole::Learner)], 1);
        with_learner(&before, id("c"), &node("c"), None);
    }

    #[test]
    #[should_panic(expected = "only what is to leave")]
    fn only_what_leaves_is_taken_away() {
        without(&full(&["a", "b"], 1), id("b"));
    }
}
