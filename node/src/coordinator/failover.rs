//! Elections of primaries: who is asked, who is chosen, and the record that says so.

use std::time::Duration;

use futures::future::join_all;
use prost::Message as _;
use tracing::{info, warn};
use vectorsphere_proto::internal::{DescribeRequest, ReplicaStatus, ShardRef};
use vectorsphere_proto::meta::ShardRecord;

use super::Coordinator;
use crate::cluster::meta_store::{Condition, MetaError, Operation, Txn};
use crate::cluster::view::{ClusterView, Replica, Shard};
use crate::ids::{Epoch, ReplicaId, Revision, Session};

/// How long candidates have to say where they are.
const REPORT_LIMIT: Duration = Duration::from_millis(300);

impl Coordinator {
    /// Gives a shard whose primary is lost another one, if a copy in sync is there.
    pub(super) async fn elect(&self, view: &ClusterView, shard: &Shard) -> Result<Option<Revision>, MetaError> {
        let Some(guard) = self.role.borrow().guard() else { return Ok(None) };
        let lost = shard.primary;
        let candidates: Vec<(&Replica, Session)> = shard
            .staying()
            .filter(|replica| shard.is_in_sync(replica.id) && !replica.damaged && Some(replica.id) != lost)
            .filter_map(|replica| Some((replica, view.nodes.get(&replica.node)?.session)))
            .collect();
        let reports = join_all(candidates.iter().map(|(replica, _)| self.report(shard, replica))).await;
        let best = candidates
            .into_iter()
            .zip(reports)
            .filter_map(|(candidate, report)| {
                let last = report?.last.unwrap_or_default();
                Some((candidate, (last.epoch, last.lsn)))
            })
            .max_by_key(|(_, last)| *last);
        let Some(((replica, session), _)) = best else { return Ok(None) };
        let key = self.keys.shard(&shard.id.table.to_string(), shard.id.index.0);
        let Some(entry) = self.meta.get(&key).await? else { return Ok(None) };
        let Ok(record) = ShardRecord::decode(entry.value) else { return Ok(None) };
        if entry.mod_revision != shard.mod_revision {
            return Ok(None);
        }
        let record = with_primary(record, replica.id, session);
        let epoch = Epoch(record.epoch);
        let txn = Txn {
            conditions: vec![
                guard,
                Condition::ModifiedAt(key.clone(), shard.mod_revision),
                Condition::CreatedAt(self.keys.node(replica.node.as_str()), Revision(session.0)),
            ],
            operations: vec![Operation::Put { key, value: record.encode_to_vec().into(), lease: None }],
        };
        let changed = self.step(txn).await?;
        if changed.is_some() {
            info!(shard = %shard.id, %epoch, node = %replica.node, "elected a primary");
        }
        Ok(changed)
    }

    async fn report(&self, shard: &Shard, replica: &Replica) -> Option<ReplicaStatus> {
        let wanted = ShardRef {
            table_id: shard.id.table.to_string(),
            shard: shard.id.index.0,
            epoch: shard.epoch.0,
        };
        let call = async {
            let mut client = self.comm.replication_client(&replica.node).ok()?;
            let answer = client.describe(DescribeRequest { shards: vec![wanted] }).await.ok()?.into_inner();
            answer.replicas.into_iter().find(|status| status.replica_id == replica.id.0.as_slice())
        };
        let report = tokio::time::timeout(REPORT_LIMIT, call).await.ok().flatten();
        if report.is_none() {
            warn!(shard = %shard.id, node = %replica.node, "a copy in sync does not say where it is");
        }
        report
    }
}

/// The next reign, led by `replica`. The primary before leaves the set if enough copies are left.
fn with_primary(mut record: ShardRecord, replica: ReplicaId, session: Session) -> ShardRecord {
    let before = std::mem::replace(&mut record.primary, replica.0.to_vec());
    record.epoch += 1;
    record.primary_session = session.0;
    if record.isr.len() > record.min_isr as usize && before != record.primary {
        record.isr.retain(|id| *id != before);
    }
    record.reason = "elected".to_owned();
    record
}
