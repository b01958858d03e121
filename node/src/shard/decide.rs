//! What to do next for a copy of a shard on this node. Pure: records and facts in, one step out.

use std::time::Duration;

use crate::cluster::view::{Replica, ReplicaRole, Shard};
use crate::ids::{Epoch, NodeId, ReplicaId, Session};
use crate::storage::ReplicaMeta;
use crate::table::TableState;

/// The next step for a copy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// All is as it should be, or something else must happen first.
    Wait,
    /// Open it, making its directory first if it is new.
    Open,
    /// Its log is too old: fetch a snapshot from this copy, then open it.
    Fetch(ReplicaId),
    /// Its data is lost, or its disk stays broken: say so in the record.
    MarkDamaged,
    /// It is the primary and cannot be opened: let the Master choose another copy.
    Abdicate,
    /// It is not to be served: close it. Its data stays.
    Close,
    /// Delete its data, then tell the record.
    Remove,
}

/// What is known here of a copy.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Facts {
    /// It is open.
    pub(crate) is_open: bool,
    /// Its data is missing or cannot be read.
    pub(crate) is_damaged: bool,
    /// It was closed because it needs a snapshot of this copy.
    pub(crate) needs_snapshot: Option<ReplicaId>,
    /// For how long the record has said that it leaves.
    pub(crate) leaving_for: Option<Duration>,
    /// For how long its disk has failed, to open it or to take a snapshot in, since it was open last.
    pub(crate) failing_for: Option<Duration>,
}

/// A copy whose disk fails for so long is given up, if there is another one in sync (R13).
const DISK_PATIENCE: Duration = Duration::from_secs(30);

/// Decides the next step for `copy`. The record may not name it, and `table` is `None` while the table's record is absent:
/// neither is a reason to delete anything. Only a table that is being deleted is, and an entry that leaves.
pub(crate) fn next_step(
    record: &Shard,
    copy: ReplicaId,
    table: Option<TableState>,
    session: Option<Session>,
    leaving_grace: Duration,
    facts: Facts,
) -> Step {
    let entry = record.replica(copy);
    let close = if facts.is_open { Step::Close } else { Step::Wait };
    let Some(entry) = entry else { return close };
    let Some(table) = table else { return Step::Wait };
    let leaves = entry.role == ReplicaRole::Leaving;
    if table == TableState::Deleting || leaves && facts.leaving_for.is_some_and(|time| time >= leaving_grace)
    {
        return if session.is_some() { Step::Remove } else { close };
    }
    if leaves || entry.damaged {
        return close;
    }
    if facts.is_damaged {
        return if session.is_some() { Step::MarkDamaged } else { Step::Wait };
    }
    if let (Some(failing_for), Some(session), false) = (facts.failing_for, session, facts.is_open)
        && has_other_in_sync(record, copy)
    {
        // The node lives, so nobody else would notice.
        if record.primary == Some(copy) && record.primary_session == session {
            return Step::Abdicate;
        }
        if failing_for >= DISK_PATIENCE {
            return Step::MarkDamaged;
        }
    }
    match (facts.is_open, facts.needs_snapshot) {
        (true, _) => Step::Wait,
        (false, Some(from)) => Step::Fetch(from),
        (false, None) => Step::Open,
    }
}

fn has_other_in_sync(record: &Shard, copy: ReplicaId) -> bool {
    record.staying().any(|other| other.id != copy && !other.damaged && record.is_in_sync(other.id))
}

/// The copy to fetch a snapshot from: one in sync that does not lead, for the primary has enough to do; but the primary, whose
/// log goes on where its snapshot ends, when it is its turn. Who led when the need was noticed may be lost by now.
pub(crate) fn snapshot_source(
    record: &Shard,
    copy: ReplicaId,
    is_turn_of_primary: bool,
    is_there: impl Fn(&NodeId) -> bool,
) -> Option<&Replica> {
    let is_whole = |replica: &&Replica| {
        replica.id != copy && !replica.damaged && record.is_in_sync(replica.id) && is_there(&replica.node)
    };
    let leads = |replica: &&Replica| record.primary == Some(replica.id);
    record.staying().filter(is_whole).min_by_key(|replica| leads(replica) != is_turn_of_primary)
}

/// The copies of a shard on a node.
pub(crate) fn copies_on<'r>(record: &'r Shard, node: &NodeId) -> impl Iterator<Item = &'r Replica> {
    record.replicas.iter().filter(move |replica| replica.node == *node)
}

/// The copy of a shard that a node serves.
pub(crate) fn served_on<'r>(record: &'r Shard, node: &NodeId) -> Option<&'r Replica> {
    record.staying().find(|replica| replica.node == *node && !replica.damaged)
}

/// True when no replica of the shard was ever made.
fn is_fresh(record: &Shard) -> bool {
    record.epoch == Epoch::default() && record.primary.is_none() && record.isr.is_empty()
}

/// What a directory is good for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum DirectoryVerdict {
    /// There is none, and nothing that was acknowledged was ever in it: make it.
    Format,
    /// It is the one.
    Open,
    /// What must be there is not, says why: the copy is lost.
    Lost(String),
    /// It must not be touched, says why.
    Refuse(String),
}

/// Judges a copy's directory against the shard's record.
pub(crate) fn judge_directory(
    record: &Shard,
    entry: &Replica,
    meta: Option<&ReplicaMeta>,
) -> DirectoryVerdict {
    let Some(meta) = meta else {
        // One that catches up counts for nothing yet. The primary notices by the new session that it begins again.
        return match entry.role == ReplicaRole::Learner && !record.is_in_sync(entry.id) {
            true => DirectoryVerdict::Format,
            false => DirectoryVerdict::Lost("its data is missing from this node's disk".to_owned()),
        };
    };
    if meta.identity.shard != record.id || meta.identity.replica != entry.id {
        let (shard, replica) = (meta.identity.shard, meta.identity.replica);
        return DirectoryVerdict::Lost(format!("its directory holds replica {replica} of shard {shard}"));
    }
    let (promised, shown) = (meta.promised_epoch, record.epoch);
    if shown < promised || is_fresh(record) && promised > Epoch::default() {
        return DirectoryVerdict::Refuse(format!(
            "metadata store shows epoch {shown}, but this replica obeyed epoch {promised}: the store was rolled back"
        ));
    }
    let heard = &meta.membership;
    if heard.epoch == shown && heard.configuration > record.mod_revision {
        return DirectoryVerdict::Refuse(format!(
            "metadata store shows the shard as of revision {}, but this replica has heard of revision {}: the store was \
             rolled back",
            record.mod_revision, heard.configuration
        ));
    }
    DirectoryVerdict::Open
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::{Revision, ShardId, ShardIndex, TableId};
    use crate::storage::{Membership, ReplicaIdentity};

    const OURS: ReplicaId = ReplicaId([1; 16]);
    const OTHER: ReplicaId = ReplicaId([2; 16]);
    const GRACE: Duration = Duration::from_secs(900);

    fn entry(role: ReplicaRole) -> Replica {
        let node = NodeId::parse("us").expect("valid");
        Replica { id: OURS, node, role, damaged: false, replaces: None }
    }

    fn record(epoch: u64, isr: &[ReplicaId]) -> Shard {
        Shard {
            id: ShardId { table: TableId::parse(&"0".repeat(32)).expect("a UUID"), index: ShardIndex(0) },
            epoch: Epoch(epoch),
            primary: isr.first().copied(),
            primary_session: Session(0),
            replicas: vec![entry(ReplicaRole::Full)],
            isr: isr.to_vec(),
            min_isr: 1,
            incarnation: 0,
            mod_revision: Revision(1),
        }
    }

    #[test]
    fn steps_follow_from_record_table_and_facts() {
        use TableState::{Active, Creating, Deleting};
        let session = Some(Session(50));
        let step = |entry: Option<&Replica>, table, session, facts| {
            let shard = Shard { replicas: entry.cloned().into_iter().collect(), ..record(3, &[OURS]) };
            next_step(&shard, OURS, table, session, GRACE, facts)
        };
        let (closed, open) = (Facts::default(), Facts { is_open: true, ..Facts::default() });
        let full = entry(ReplicaRole::Full);

        assert_eq!(step(Some(&full), Some(Creating), session, closed), Step::Open);
        assert_eq!(step(Some(&full), Some(Active), None, closed), Step::Open, "reads need no session");
        assert_eq!(step(Some(&full), Some(Active), session, open), Step::Wait);
        let old = Facts { needs_snapshot: Some(OTHER), ..closed };
        assert_eq!(step(Some(&full), Some(Active), session, old), Step::Fetch(OTHER));
        let lost = Facts { is_damaged: true, ..closed };
        assert_eq!(step(Some(&full), Some(Active), session, lost), Step::MarkDamaged);
        let damaged = Replica { damaged: true, ..full.clone() };
        assert_eq!(step(Some(&damaged), Some(Active), session, lost), Step::Wait, "it is said already");
        assert_eq!(step(Some(&damaged), Some(Active), session, open), Step::Close);
        // Deletion is positive, absence is not.
        assert_eq!(step(Some(&full), Some(Deleting), session, open), Step::Remove);
        assert_eq!(step(Some(&full), Some(Deleting), None, closed), Step::Wait);
        assert_eq!(step(Some(&full), None, session, open), Step::Wait);
        assert_eq!(step(None, Some(Active), session, open), Step::Close);
        assert_eq!(step(None, Some(Deleting), session, closed), Step::Wait);
        // A copy that leaves is deleted after a while.
        let leaving = entry(ReplicaRole::Leaving);
        let since = |time| Facts { leaving_for: Some(time), ..closed };
        assert_eq!(step(Some(&leaving), Some(Active), session, open), Step::Close);
        assert_eq!(step(Some(&leaving), Some(Active), session, since(GRACE / 2)), Step::Wait);
        assert_eq!(step(Some(&leaving), Some(Active), session, since(GRACE)), Step::Remove);
    }

    #[test]
    fn a_copy_whose_disk_fails_leads_no_more_and_is_given_up_in_the_end() {
        let step = |primary, isr: &[ReplicaId], seconds| {
            let mut shard = Shard { primary: Some(primary), primary_session: Session(50), ..record(3, isr) };
            shard.replicas.push(Replica { id: OTHER, ..entry(ReplicaRole::Full) });
            let failing_for = Some(Duration::from_secs(seconds));
            let facts = Facts { failing_for, ..Facts::default() };
            next_step(&shard, OURS, Some(TableState::Active), Some(Session(50)), GRACE, facts)
        };
        assert_eq!(step(OURS, &[OURS, OTHER], 0), Step::Abdicate);
        assert_eq!(step(OTHER, &[OURS, OTHER], 29), Step::Open, "it may pass");
        assert_eq!(step(OTHER, &[OURS, OTHER], 30), Step::MarkDamaged);
        assert_eq!(step(OURS, &[OURS], 99), Step::Open, "there is no other copy");
        assert_eq!(step(OTHER, &[OTHER], 30), Step::MarkDamaged, "it is out of sync already");
        let mut learns = record(3, &[OTHER]);
        learns.replicas =
            vec![entry(ReplicaRole::Learner), Replica { id: OTHER, ..entry(ReplicaRole::Full) }];
        let fetches = |seconds| {
            let failing_for = Some(Duration::from_secs(seconds));
            let facts = Facts { needs_snapshot: Some(OTHER), failing_for, ..Facts::default() };
            next_step(&learns, OURS, Some(TableState::Active), Some(Session(50)), GRACE, facts)
        };
        assert_eq!(fetches(29), Step::Fetch(OTHER));
        assert_eq!(
            fetches(30),
            Step::MarkDamaged,
            "a snapshot that cannot be written here may be on another node"
        );
    }

    #[test]
    fn a_snapshot_is_fetched_from_whoever_has_one_now() {
        let replica = |id, name: &str| {
            let node = NodeId::parse(name).expect("valid");
            Replica { id: ReplicaId([id; 16]), node, ..entry(ReplicaRole::Full) }
        };
        let mut shard = record(3, &[OTHER, ReplicaId([3; 16])]);
        shard.replicas.extend([replica(2, "b"), replica(3, "c")]);
        let source = |shard: &Shard, is_turn_of_primary, gone: &str| {
            let is_there = |node: &NodeId| node.as_str() != gone;
            snapshot_source(shard, OURS, is_turn_of_primary, is_there).map(|source| source.node.to_string())
        };
        assert_eq!(source(&shard, false, "").as_deref(), Some("c"), "the primary has enough to do");
        assert_eq!(source(&shard, true, "").as_deref(), Some("b"));
        assert_eq!(source(&shard, false, "c").as_deref(), Some("b"));
        shard.replicas[2].damaged = true;
        assert_eq!(source(&shard, false, "").as_deref(), Some("b"), "a damaged one has none");
        assert_eq!(source(&shard, true, "b"), None);
    }

    #[test]
    fn a_directory_is_made_once_and_never_again() {
        let meta = |replica, epoch| {
            let shard = record(0, &[]).id;
            let identity = ReplicaIdentity {
                cluster_uid: "c".to_owned(),
                shard,
                replica,
                dimension: 4,
                storage_type: Default::default(),
            };
            ReplicaMeta { promised_epoch: Epoch(epoch), ..ReplicaMeta::fresh(identity) }
        };
        let judge = |record: &Shard, role, meta: Option<ReplicaMeta>| {
            judge_directory(record, &entry(role), meta.as_ref())
        };
        use ReplicaRole::{Full, Learner};
        let lost = |verdict| matches!(verdict, DirectoryVerdict::Lost(_));
        let refused = |verdict| matches!(verdict, DirectoryVerdict::Refuse(_));

        assert_eq!(judge(&record(0, &[]), Learner, None), DirectoryVerdict::Format);
        assert_eq!(judge(&record(7, &[OTHER]), Learner, None), DirectoryVerdict::Format, "it catches up");
        assert_eq!(judge(&record(0, &[]), Learner, Some(meta(OURS, 0))), DirectoryVerdict::Open);
        assert_eq!(judge(&record(3, &[OURS]), Full, Some(meta(OURS, 2))), DirectoryVerdict::Open);
        assert_eq!(judge(&record(3, &[OURS]), Full, Some(meta(OURS, 3))), DirectoryVerdict::Open);
        assert!(lost(judge(&record(3, &[OURS]), Full, None)), "an emptied volume");
        assert!(lost(judge(&record(3, &[OTHER]), Full, None)), "an emptied volume that was in sync once");
        assert!(lost(judge(&record(3, &[OURS]), Learner, None)), "an emptied volume");
        assert!(lost(judge(&record(3, &[OURS]), Full, Some(meta(OTHER, 3)))), "another volume");
        assert!(
            refused(judge(&record(2, &[OURS]), Full, Some(meta(OURS, 3)))),
            "an old copy of the metadata store"
        );
        assert!(
            refused(judge(&record(0, &[]), Learner, Some(meta(OURS, 1)))),
            "an old copy of the metadata store"
        );
        let heard = |epoch, revision| {
            let membership =
                Membership { epoch: Epoch(epoch), configuration: Revision(revision), isr: vec![OURS] };
            judge(&record(3, &[OURS]), Full, Some(ReplicaMeta { membership, ..meta(OURS, 3) }))
        };
        assert!(refused(heard(3, 2)), "an older in-sync set of the same reign");
        assert_eq!(heard(3, 1), DirectoryVerdict::Open);
        assert_eq!(heard(2, 1), DirectoryVerdict::Open, "positions of another reign");
    }
}
