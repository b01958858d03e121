//! What to do next for a shard of this node. Pure: records and facts in, one step out.

use crate::cluster::view::Shard;
use crate::ids::{Epoch, NodeId, ReplicaId, Session};
use crate::storage::ReplicaMeta;
use crate::table::TableState;

/// The next step for a shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// All is as it should be, or something else must happen first.
    Wait,
    /// Open the replica, making its directory first if it is new.
    Open(ReplicaId),
    /// Become its primary in this node session.
    Lead(ReplicaId),
    /// The replica was taken away from this node: serve it no more. Its data stays.
    Close,
    /// The table is being deleted: delete the replica, then tell the record.
    Remove(ReplicaId),
}

/// An open replica.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct OpenFacts {
    pub(super) replica: ReplicaId,
    pub(super) epoch: Epoch,
    pub(super) leads: Option<Session>,
}

/// Decides the next step. `table` is `None` while the table's record is absent, which is no reason to delete anything:
/// only a table that says that it is being deleted is.
pub(super) fn next_step(
    record: &Shard,
    table: Option<TableState>,
    node: &NodeId,
    session: Option<Session>,
    open: Option<OpenFacts>,
) -> Step {
    let Some(replica) = replica_on(record, node) else {
        return if open.is_some() { Step::Close } else { Step::Wait };
    };
    match (table, open) {
        (Some(TableState::Deleting), _) => Step::Remove(replica),
        (None, _) => Step::Wait,
        (Some(TableState::Creating | TableState::Active), None) => Step::Open(replica),
        (Some(TableState::Creating | TableState::Active), Some(open)) => {
            if open.replica != replica {
                return Step::Close;
            }
            let Some(session) = session else { return Step::Wait };
            let leads_newest = open.leads == Some(session) && open.epoch >= record.epoch;
            let is_ours = is_fresh(record) || record.primary == Some(replica);
            if is_ours && !leads_newest { Step::Lead(replica) } else { Step::Wait }
        }
    }
}

/// The replica of a shard on a node.
pub(super) fn replica_on(record: &Shard, node: &NodeId) -> Option<ReplicaId> {
    record.replicas.iter().find(|replica| replica.node == *node).map(|replica| replica.id)
}

/// True when no replica of the shard was ever made.
pub(super) fn is_fresh(record: &Shard) -> bool {
    record.epoch == Epoch::default() && record.primary.is_none() && record.isr.is_empty()
}

/// What a directory is good for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum DirectoryVerdict {
    /// There is none, and none was ever: make it.
    Format,
    /// It is the one.
    Open,
    /// It must not be touched; says why.
    Refuse(String),
}

/// Judges a replica's directory against the shard's record.
pub(super) fn judge_directory(
    record: &Shard,
    replica: ReplicaId,
    meta: Option<&ReplicaMeta>,
) -> DirectoryVerdict {
    let refuse = |reason: String| DirectoryVerdict::Refuse(reason);
    match meta {
        None if is_fresh(record) => DirectoryVerdict::Format,
        None => refuse(format!("data of replica {replica} is missing from this node's disk")),
        Some(meta) if meta.identity.shard != record.id => {
            refuse(format!("directory holds shard {} in place of {}", meta.identity.shard, record.id))
        }
        Some(meta) if meta.identity.replica != replica => {
            refuse(format!("directory holds replica {} in place of {replica}", meta.identity.replica))
        }
        Some(meta) if record.epoch < meta.promised_epoch && !is_fresh(record) => {
            let (promised, shown) = (meta.promised_epoch, record.epoch);
            refuse(format!(
                "metadata store shows epoch {shown}, but this replica obeyed epoch {promised}: the store was rolled back"
            ))
        }
        Some(meta) if is_fresh(record) && meta.promised_epoch > Epoch::default() => {
            refuse(format!("record is new, but this replica obeyed epoch {}", meta.promised_epoch))
        }
        Some(_) => DirectoryVerdict::Open,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::view::{Replica, ReplicaRole};
    use crate::ids::{Revision, ShardId, ShardIndex, TableId};
    use crate::storage::ReplicaIdentity;

    const OURS: ReplicaId = ReplicaId([1; 16]);
    const OTHER: ReplicaId = ReplicaId([2; 16]);
    const SESSION: Session = Session(50);

    fn node(name: &str) -> NodeId {
        NodeId::parse(name).expect("valid")
    }

    fn replica(id: ReplicaId, on: &str) -> Replica {
        Replica { id, node: node(on), role: ReplicaRole::Full, damaged: false, replaces: None }
    }

    fn fresh() -> Shard {
        Shard {
            id: ShardId { table: TableId::parse(&"0".repeat(32)).expect("a UUID"), index: ShardIndex(0) },
            epoch: Epoch(0),
            primary: None,
            primary_session: Session(0),
            replicas: vec![replica(OURS, "us")],
            isr: Vec::new(),
            min_isr: 1,
            incarnation: 0,
            mod_revision: Revision(1),
        }
    }

    fn led(epoch: u64, session: Session) -> Shard {
        Shard {
            epoch: Epoch(epoch),
            primary: Some(OURS),
            isr: vec![OURS],
            primary_session: session,
            ..fresh()
        }
    }

    fn open(epoch: u64, leads: Option<Session>) -> Option<OpenFacts> {
        Some(OpenFacts { replica: OURS, epoch: Epoch(epoch), leads })
    }

    #[test]
    fn steps_follow_from_record_table_and_session() {
        use TableState::{Active, Creating, Deleting};
        let (us, session) = (node("us"), Some(SESSION));
        let step = |record: &Shard, table, session, open| next_step(record, table, &us, session, open);

        assert_eq!(step(&fresh(), Some(Creating), session, None), Step::Open(OURS));
        assert_eq!(step(&fresh(), Some(Creating), session, open(0, None)), Step::Lead(OURS));
        assert_eq!(step(&fresh(), Some(Creating), None, open(0, None)), Step::Wait);
        assert_eq!(step(&led(1, SESSION), Some(Active), session, open(1, session)), Step::Wait);
        // A view that lags behind our own claim.
        assert_eq!(step(&fresh(), Some(Creating), session, open(1, session)), Step::Wait);
        // A new process never resumes an epoch: it leads no session yet, whatever the record says.
        assert_eq!(step(&led(1, SESSION), Some(Active), session, open(1, None)), Step::Lead(OURS));
        assert_eq!(
            step(&led(1, Session(9)), Some(Active), session, open(1, Some(Session(9)))),
            Step::Lead(OURS)
        );
        // Without a session reads go on and nothing is claimed.
        assert_eq!(step(&led(1, SESSION), Some(Active), None, open(1, session)), Step::Wait);
        // A later reign is not ours to take unless we are its primary.
        let theirs = Shard { primary: Some(OTHER), ..led(2, Session(60)) };
        assert_eq!(step(&theirs, Some(Active), session, open(1, None)), Step::Wait);
        // Deletion is positive, absence is not.
        assert_eq!(step(&led(1, SESSION), Some(Deleting), None, None), Step::Remove(OURS));
        assert_eq!(step(&led(1, SESSION), None, session, None), Step::Wait);
        assert_eq!(step(&led(1, SESSION), None, session, open(1, session)), Step::Wait);
        // A replica that moved away is closed, not deleted.
        let moved = Shard { replicas: vec![replica(OTHER, "them")], ..led(1, SESSION) };
        assert_eq!(step(&moved, Some(Active), session, open(1, session)), Step::Close);
        assert_eq!(step(&moved, Some(Deleting), session, None), Step::Wait);
    }

    #[test]
    fn a_directory_is_made_once_and_never_again() {
        let meta = |replica, epoch| {
            let identity =
                ReplicaIdentity { cluster_uid: "c".to_owned(), shard: fresh().id, replica, dimension: 4 };
            ReplicaMeta { promised_epoch: Epoch(epoch), ..ReplicaMeta::fresh(identity) }
        };
        let judge = |record: &Shard, meta: Option<ReplicaMeta>| judge_directory(record, OURS, meta.as_ref());
        let refused = |verdict| matches!(verdict, DirectoryVerdict::Refuse(_));

        assert_eq!(judge(&fresh(), None), DirectoryVerdict::Format);
        assert_eq!(judge(&fresh(), Some(meta(OURS, 0))), DirectoryVerdict::Open);
        assert_eq!(judge(&led(3, SESSION), Some(meta(OURS, 2))), DirectoryVerdict::Open);
        assert_eq!(judge(&led(3, SESSION), Some(meta(OURS, 3))), DirectoryVerdict::Open);
        assert!(refused(judge(&led(3, SESSION), None)), "an emptied volume");
        assert!(refused(judge(&led(3, SESSION), Some(meta(OTHER, 3)))), "another volume");
        assert!(refused(judge(&fresh(), Some(meta(OTHER, 0)))), "another volume");
        assert!(refused(judge(&led(2, SESSION), Some(meta(OURS, 3)))), "an old copy of the metadata store");
        assert!(refused(judge(&fresh(), Some(meta(OURS, 1)))), "an old copy of the metadata store");
    }
}
