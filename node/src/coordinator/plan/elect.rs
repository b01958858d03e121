//! Which copy becomes the primary. Pure.

use std::cmp::Reverse;

use crate::cluster::view::Shard;
use crate::ids::{Epoch, Lsn, ReplicaId};

/// Where a copy stands, as its node says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CandidateReport {
    /// The copy.
    pub replica: ReplicaId,
    /// Reign of its last durable record.
    pub last_epoch: Epoch,
    /// Position of its last durable record.
    pub flushed: Lsn,
    /// Up to where it knows that records are committed.
    pub commit: Lsn,
    /// Its data is missing or cannot be read.
    pub is_damaged: bool,
    /// While opening it dropped records that no sync had proven.
    pub tail_was_cut: bool,
    /// Since it was opened it has had all that was acknowledged.
    pub is_proven: bool,
    /// Shards that its node leads.
    pub primaries: usize,
}

/// The in-sync copy that becomes the primary: of those that answered and may, the one whose log goes furthest, by the
/// reign of its last record and then by position; of equals one on the node that leads least, then the first by identity.
///
/// `reports` has one report for each copy that answered. `lost` are those that never will. One at least
/// must have all that was acknowledged: one that is proven has. Of others, whose disks may have forgotten, one more must
/// answer than the claim allows to be lost. Three kinds of copy may not lead: damaged ones; one that lacks
/// what another one knows to be committed, because its disk forgot (R8); and one that cut its tail while a member of the
/// in-sync set did not answer, which may have what was cut (R7).
pub fn elect(record: &Shard, reports: &[CandidateReport], lost: &[ReplicaId]) -> Option<ReplicaId> {
    let committed = reports.iter().map(|report| report.commit).max()?;
    let answered = |member: &ReplicaId| reports.iter().any(|report| report.replica == *member);
    let all_answered = record.isr.iter().all(|member| answered(member) || lost.contains(member));
    let is_whole = |report: &&CandidateReport| {
        let copy = record.replica(report.replica);
        copy.is_some_and(|copy| !copy.damaged) && record.is_in_sync(report.replica) && !report.is_damaged
    };
    // Nothing was acknowledged yet by a set that never was as large as the table demands.
    let demanded = (record.min_isr as usize).min(record.isr.len());
    let needed = demanded.saturating_sub(lost.len()).max(1);
    let whole: Vec<&CandidateReport> = reports.iter().filter(is_whole).collect();
    if whole.len() < needed && !whole.iter().any(|report| report.is_proven) {
        return None;
    }
    let may_lead =
        |report: &&CandidateReport| report.flushed >= committed && (all_answered || !report.tail_was_cut);
    let best = whole.into_iter().filter(may_lead).max_by_key(|report| {
        (report.last_epoch, report.flushed, Reverse(report.primaries), Reverse(report.replica))
    });
    best.map(|report| report.replica)
}
