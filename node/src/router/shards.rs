//! The shards of a table, by the cluster's records and by what the nodes say of their copies.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::{Duration, Instant};

use futures::future::join_all;
use vectorsphere_proto::internal as proto;

use super::attempts::with_deadline;
use super::{RequestContext, Router};
use crate::cluster::view::{ClusterView, Replica, ReplicaRole, Shard};
use crate::error_code::Error;
use crate::ids::{Epoch, Lsn, NodeId, ReplicaId, ShardIndex};
use crate::table::Table;

/// A node that takes longer is told as one that says nothing.
const DESCRIBE_LIMIT: Duration = Duration::from_secs(2);

/// A shard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShardDescription {
    /// Its number.
    pub shard: ShardIndex,
    /// Its reign.
    pub epoch: Epoch,
    /// How often it was recovered by force.
    pub incarnation: u64,
    /// Its primary.
    pub primary: Option<ReplicaId>,
    /// Copies that a write needs.
    pub min_isr: u32,
    /// All copies, those that leave too.
    pub copies: Vec<CopyDescription>,
}

/// A copy of a shard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CopyDescription {
    /// Which.
    pub replica: ReplicaId,
    /// Where it is.
    pub node: NodeId,
    /// Zone of its node; `None`: the node is away.
    pub zone: Option<String>,
    /// What it is there for.
    pub role: ReplicaRole,
    /// Its data is missing or cannot be read.
    pub damaged: bool,
    /// It holds every acknowledged write.
    pub in_sync: bool,
    /// The copy that leaves when this one is in sync.
    pub replaces: Option<ReplicaId>,
    /// What its node says; `None`: nothing.
    pub status: Option<CopyStatus>,
}

/// Where a copy stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CopyStatus {
    /// Last durable record.
    pub flushed: Lsn,
    /// Last record that reads can see.
    pub applied: Lsn,
    /// Records behind the primary; `None`: the primary says nothing.
    pub lag_records: Option<u64>,
    /// Digest of the content, and the position that it is of. Equal positions have equal digests.
    pub digest: Option<(Lsn, [u8; 16])>,
    /// Why it takes no part any more.
    pub failure: Option<String>,
}

impl ShardDescription {
    /// The node of the primary.
    pub fn primary_node(&self) -> Option<&NodeId> {
        let primary = self.primary?;
        self.copies.iter().find(|copy| copy.replica == primary).map(|copy| &copy.node)
    }
}

impl CopyStatus {
    /// The digest in hexadecimal digits, and the position that it is of.
    pub fn digest_text(&self) -> Option<(Lsn, String)> {
        let (lsn, digest) = self.digest?;
        Some((lsn, format!("{:032x}", u128::from_be_bytes(digest))))
    }
}

impl Router {
    /// The shards of a table, ascending, and where each copy of them stands.
    pub async fn shards(&self, context: &RequestContext, table: &Table) -> Vec<ShardDescription> {
        let view = self.view();
        let shards: Vec<&Shard> = view.shards_of(table.id).map(|shard| &**shard).collect();
        let mut by_node: BTreeMap<&NodeId, BTreeSet<ShardIndex>> = BTreeMap::new();
        for (shard, replica) in shards.iter().flat_map(|shard| shard.replicas.iter().map(move |r| (shard, r)))
        {
            by_node.entry(&replica.node).or_default().insert(shard.id.index);
        }
        let asked = by_node.into_iter().map(async |(node, shards)| {
            // A node that does not answer is told by what is missing.
            self.describe(context, table, node, shards).await.unwrap_or_default()
        });
        let said = join_all(asked).await.into_iter().flatten();
        let said: HashMap<(u32, ReplicaId), proto::ReplicaStatus> = said
            .filter_map(|status| Some(((status.shard, ReplicaId::from_bytes(&status.replica_id)?), status)))
            .collect();
        shards.into_iter().map(|shard| description(&view, shard, &said)).collect()
    }

    async fn describe(
        &self,
        context: &RequestContext,
        table: &Table,
        node: &NodeId,
        shards: BTreeSet<ShardIndex>,
    ) -> Result<Vec<proto::ReplicaStatus>, Error> {
        let deadline = context.deadline.min(Instant::now() + DESCRIBE_LIMIT);
        let context = RequestContext { deadline, request_id: context.request_id.clone() };
        let table_id = table.id.to_string();
        let shard =
            |index: ShardIndex| proto::ShardRef { table_id: table_id.clone(), shard: index.0, epoch: 0 };
        let request = proto::DescribeRequest { shards: shards.into_iter().map(shard).collect() };
        let mut client = self.comm.replication_client(node)?;
        let call = client.describe(with_deadline(&context, request));
        let answer = self.answer_of(&context, node, call).await?;
        Ok(answer.replicas.into_iter().filter(|status| status.table_id == table_id).collect())
    }
}

fn description(
    view: &ClusterView,
    shard: &Shard,
    said: &HashMap<(u32, ReplicaId), proto::ReplicaStatus>,
) -> ShardDescription {
    let status_of = |id: ReplicaId| said.get(&(shard.id.index.0, id));
    let end = shard.primary.and_then(status_of).map(flushed);
    let copy = |replica: &Replica| CopyDescription {
        replica: replica.id,
        node: replica.node.clone(),
        zone: view.nodes.get(&replica.node).map(|node| node.zone.clone()),
        role: replica.role,
        damaged: replica.damaged,
        in_sync: shard.is_in_sync(replica.id),
        replaces: replica.replaces,
        status: status_of(replica.id).map(|status| copy_status(status, end)),
    };
    ShardDescription {
        shard: shard.id.index,
        epoch: shard.epoch,
        incarnation: shard.incarnation,
        primary: shard.primary,
        min_isr: shard.min_isr,
        copies: shard.replicas.iter().map(copy).collect(),
    }
}

fn flushed(status: &proto::ReplicaStatus) -> Lsn {
    Lsn(status.last.map_or(0, |last| last.lsn))
}

fn copy_status(status: &proto::ReplicaStatus, primary_end: Option<Lsn>) -> CopyStatus {
    let flushed = flushed(status);
    let digest = status.digest.as_ref().and_then(|digest| {
        let content = <[u8; 16]>::try_from(&digest.content[..]).ok()?;
        Some((Lsn(digest.lsn), content))
    });
    CopyStatus {
        flushed,
        applied: Lsn(status.applied_lsn),
        // A copy may have flushed what its primary has not: that is no lag.
        lag_records: primary_end.map(|end| end.0.saturating_sub(flushed.0)),
        digest,
        failure: Some(status.failure.clone()).filter(|failure| !failure.is_empty()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::{Revision, Session, ShardId, TableId};

    #[test]
    fn the_lag_of_a_copy_counts_from_the_primary_and_is_absent_without_its_word() {
        let (primary, follower) = (ReplicaId([1; 16]), ReplicaId([2; 16]));
        let replica = |id, node: &str| Replica {
            id,
            node: NodeId::parse(node).expect("valid"),
            role: ReplicaRole::Full,
            damaged: false,
            replaces: None,
        };
        let shard = Shard {
            id: ShardId { table: TableId::random(), index: ShardIndex(3) },
            epoch: Epoch(7),
            primary: Some(primary),
            primary_session: Session(1),
            replicas: vec![replica(primary, "a"), replica(follower, "b")],
            isr: vec![primary],
            min_isr: 1,
            incarnation: 2,
            mod_revision: Revision(1),
        };
        let status = |id: ReplicaId, lsn: u64| proto::ReplicaStatus {
            shard: 3,
            replica_id: id.0.to_vec().into(),
            last: Some(proto::Position { epoch: 7, lsn }),
            applied_lsn: lsn - 1,
            digest: Some(proto::Digest { lsn: lsn - 1, content: vec![9; 16].into(), log: 0 }),
            ..proto::ReplicaStatus::default()
        };
        let mut said = HashMap::from([((3, follower), status(follower, 90))]);
        let lags = |said: &HashMap<_, _>| -> Vec<Option<Option<u64>>> {
            let described = description(&ClusterView::default(), &shard, said);
            let lag = |copy: CopyDescription| copy.status.map(|status| status.lag_records);
            described.copies.into_iter().map(lag).collect()
        };
        assert_eq!(lags(&said), [None, Some(None)]);
        said.insert((3, primary), status(primary, 100));
        assert_eq!(lags(&said), [Some(Some(0)), Some(Some(10))]);
        let described = description(&ClusterView::default(), &shard, &said);
        let in_sync: Vec<bool> = described.copies.iter().map(|copy| copy.in_sync).collect();
        assert_eq!((in_sync, described.incarnation), (vec![true, false], 2));
        let digest = described.copies[1].status.as_ref().and_then(|status| status.digest);
        assert_eq!(digest, Some((Lsn(89), [9; 16])));
        assert_eq!(described.copies[0].zone, None, "its node is away");
    }
}
