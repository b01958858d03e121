//! The last resort: a shard goes on from a copy that may lack acknowledged writes, because a person says so.

use std::collections::BTreeMap;
use std::time::Instant;

use futures::future::join_all;
use tracing::warn;
use vectorsphere_proto::internal::ReplicaStatus;

use super::carry_out::candidate;
use super::plan::elect;
use super::{Coordinator, edits, unavailable};
use crate::cluster::meta_store::Condition;
use crate::cluster::view::{ClusterView, Replica, Shard};
use crate::error_code::{Error, ErrorCode};
use crate::ids::{Epoch, Lsn, NodeId, ReplicaId, Session, ShardId};
use crate::recovery::{ForcedPrimary, OtherCopy};

/// What the copies that answered say of themselves.
type Reports = BTreeMap<ReplicaId, ReplicaStatus>;

impl Coordinator {
    /// Lets `shard` go on from the copy on `node`, in a new incarnation, though it may lack acknowledged writes.
    /// `confirmation` is `<table name>/<shard>`: a person has read what is about to happen. Returns when the record says so
    /// and every node knows, with what the other copies had.
    ///
    /// Copies that know of commits which the chosen one may lack are given up: they keep their data for a while and are
    /// replaced. The others follow the chosen one.
    ///
    /// # Errors
    /// When the confirmation is another one, there is no such shard, `node` holds no copy that can be read, or nothing needs
    /// to be forced: the shard is led, or a copy that has everything is about to lead it.
    pub async fn force_primary(
        &self,
        shard: ShardId,
        node: &NodeId,
        confirmation: &str,
        deadline: Instant,
    ) -> Result<ForcedPrimary, Error> {
        self.guard()?;
        let record = self.shard(shard)?;
        let view = self.discovery.view();
        let name = view.tables_by_id.get(&shard.table).map(|table| table.schema.name.clone());
        let wanted = name.map(|name| format!("{name}/{}", shard.index)).unwrap_or_default();
        if confirmation != wanted {
            return Err(Error::invalid("/confirmation", format!("confirmation must be {wanted}")));
        }
        let copies = record.staying();
        let asked =
            join_all(copies.map(|copy| async { Some((copy.id, self.describe(&record, copy).await?)) }));
        let reports: Reports = asked.await.into_iter().flatten().collect();
        self.refuse_if_needless(&view, &record, &reports)?;
        let (chosen, status, session) = chosen(&view, &record, &reports, node)?;
        let promised = reports.values().map(|report| report.promised_epoch).max().unwrap_or_default();
        let epoch = Epoch(record.epoch.0.max(promised) + 1);
        let others = || record.staying().filter(|other| other.id != chosen.id);
        let follows = |other: &Replica| {
            reports.get(&other.id).is_some_and(|report| report.commit_lsn <= status.commit_lsn)
        };
        let given_up: Vec<ReplicaId> =
            others().filter(|other| !follows(other)).map(|other| other.id).collect();
        let mut conditions = vec![self.in_session(node, session)];
        // One that comes back meanwhile may have everything.
        let away =
            others().filter(|other| record.is_in_sync(other.id) && !view.nodes.contains_key(&other.node));
        conditions.extend(away.map(|other| Condition::Absent(self.keys.node(other.node.as_str()))));
        let edit = |record: &_| edits::with_forced_primary(record, chosen.id, session, epoch, &given_up);
        let changed = self.edit(&record, conditions, edit).await.map_err(unavailable)?;
        let raced = || Error::new(ErrorCode::NotReady, "the shard or a node changed meanwhile: look again");
        self.comm.broadcast_revision(changed.ok_or_else(raced)?, deadline).await;
        let last = Lsn(status.last.unwrap_or_default().lsn);
        warn!(%shard, %node, %epoch, %last, "a shard was forced to go on from one copy");
        let others = others().map(|other| OtherCopy {
            replica: other.id,
            node: other.node.clone(),
            log: reports.get(&other.id).map(|report| {
                let end = Lsn(report.last.unwrap_or_default().lsn);
                (end, end.0.saturating_sub(last.0))
            }),
        });
        Ok(ForcedPrimary { epoch, incarnation: record.incarnation + 1, last, others: others.collect() })
    }

    /// Refuses when the shard is led, would be led in a moment, or when somebody is there who may have everything and does
    /// not say.
    fn refuse_if_needless(&self, view: &ClusterView, record: &Shard, reports: &Reports) -> Result<(), Error> {
        let needless = |why: String| Err(Error::new(ErrorCode::InvalidArgument, why));
        let primary = record.primary.and_then(|primary| record.replica(primary));
        if let Some(primary) = primary.filter(|primary| view.is_served(record) && !primary.damaged) {
            let hint = "hand it over or move copies instead";
            return needless(format!("the shard is led by the copy on node {}: {hint}", primary.node));
        }
        let in_sync = || record.staying().filter(|copy| record.is_in_sync(copy.id) && !copy.damaged);
        let open = in_sync().filter_map(|copy| {
            let report = reports.get(&copy.id).filter(|report| report.failure.is_empty())?;
            Some(candidate(view, copy, report))
        });
        let candidates: Vec<_> = open.collect();
        let damaged = record.staying().filter(|copy| copy.damaged).map(|copy| copy.id);
        let lost: Vec<ReplicaId> = damaged.filter(|copy| record.is_in_sync(*copy)).collect();
        // While a copy is closed nobody is elected.
        let is_closed = reports.values().any(|report| !report.failure.is_empty());
        let elected = elect(record, &candidates, &lost).filter(|_| !is_closed);
        if let Some(copy) = elected.and_then(|elected| record.replica(elected)) {
            return needless(format!("the copy on node {} has everything and is about to lead", copy.node));
        }
        let is_silent =
            |copy: &&Replica| view.nodes.contains_key(&copy.node) && !reports.contains_key(&copy.id);
        match in_sync().find(is_silent) {
            Some(copy) => needless(format!(
                "node {} is registered, and its copy, which may have everything, does not answer: try again, or stop the node",
                copy.node
            )),
            None => Ok(()),
        }
    }
}

/// The copy to go on from, what it says, and the session of its node.
fn chosen<'a>(
    view: &ClusterView,
    record: &'a Shard,
    reports: &'a Reports,
    node: &NodeId,
) -> Result<(&'a Replica, &'a ReplicaStatus, Session), Error> {
    let refused = |why: &str| Error::invalid("/node", format!("node {node} {why}"));
    let copy = record.staying().find(|copy| copy.node == *node && !copy.damaged);
    let copy = copy.ok_or_else(|| refused("holds no copy of the shard that can be read"))?;
    let host = view.nodes.get(node).ok_or_else(|| refused("is away"))?;
    let status = reports.get(&copy.id).ok_or_else(|| refused("does not say where its copy stands"))?;
    Ok((copy, status, host.session))
}
