//! `replica.meta`: who a replica is, and which of its files count. Replaced whole; its rename is the moment at which a
//! checkpoint or an epoch takes effect.

use std::path::Path;

use super::StorageError;
use super::whole_file::WholeFile;
use crate::ids::{Epoch, Lsn, ReplicaId, ShardId, ShardIndex, TableId};
use crate::runtime::disk::Disk;

const REPLICA_META: WholeFile = WholeFile { magic: *b"VSREPLIC", version: 1 };
const NAME: &str = "replica.meta";

/// Who a replica is; written once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReplicaIdentity {
    /// The cluster.
    pub cluster_uid: String,
    /// The shard.
    pub shard: ShardId,
    /// Random, never used for another directory.
    pub replica: ReplicaId,
    /// Values of each vector.
    pub dimension: u32,
}

/// The durable state of a replica beside its log and segments.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReplicaMeta {
    /// Who it is.
    pub identity: ReplicaIdentity,
    /// The replica obeys no smaller epoch. Never falls.
    pub promised_epoch: Epoch,
    /// Each reign since the checkpoint with the position of its first record, ascending in both.
    pub epochs: Vec<(Epoch, Lsn)>,
    /// Everything up to here is in the manifest's segments.
    pub checkpoint: Lsn,
    /// The manifest that counts; 0: none yet.
    pub manifest: u64,
    /// Everything up to here is durable: its absence is damage. `checkpoint ≤ durable`.
    pub durable: Lsn,
    /// The last process closed the replica in order.
    pub clean_stop: bool,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Stored {
    #[prost(string, tag = "1")]
    cluster_uid: String,
    #[prost(string, tag = "2")]
    table_id: String,
    #[prost(uint32, tag = "3")]
    shard: u32,
    #[prost(bytes = "vec", tag = "4")]
    replica_id: Vec<u8>,
    #[prost(uint32, tag = "5")]
    dimension: u32,
    #[prost(uint64, tag = "6")]
    promised_epoch: u64,
    #[prost(message, repeated, tag = "7")]
    epochs: Vec<StoredEpoch>,
    #[prost(uint64, tag = "8")]
    checkpoint_lsn: u64,
    #[prost(uint64, tag = "10")]
    manifest_id: u64,
    #[prost(uint64, tag = "11")]
    durable_lsn: u64,
    #[prost(bool, tag = "12")]
    clean_stop: bool,
}

#[derive(Clone, Copy, PartialEq, prost::Message)]
struct StoredEpoch {
    #[prost(uint64, tag = "1")]
    epoch: u64,
    #[prost(uint64, tag = "2")]
    first_lsn: u64,
}

impl ReplicaMeta {
    /// Of a replica that was just made.
    pub fn fresh(identity: ReplicaIdentity) -> ReplicaMeta {
        ReplicaMeta {
            identity,
            promised_epoch: Epoch::default(),
            epochs: Vec::new(),
            checkpoint: Lsn::ZERO,
            manifest: 0,
            durable: Lsn::ZERO,
            clean_stop: true,
        }
    }

    /// Reads it from a replica's directory; `None`: the directory was never formatted to the end.
    pub fn read(disk: &dyn Disk, directory: &Path) -> Result<Option<ReplicaMeta>, StorageError> {
        let path = directory.join(NAME);
        let Some(stored) = REPLICA_META.read::<Stored>(disk, &path)? else { return Ok(None) };
        let table = TableId::parse(&stored.table_id);
        let replica = ReplicaId::from_bytes(&stored.replica_id);
        let (Some(table), Some(replica)) = (table, replica) else {
            return Err(StorageError::damaged(&path, "table or replica id is malformed"));
        };
        let epochs = stored.epochs.iter().map(|entry| (Epoch(entry.epoch), Lsn(entry.first_lsn)));
        Ok(Some(ReplicaMeta {
            identity: ReplicaIdentity {
                cluster_uid: stored.cluster_uid,
                shard: ShardId { table, index: ShardIndex(stored.shard) },
                replica,
                dimension: stored.dimension,
            },
            promised_epoch: Epoch(stored.promised_epoch),
            epochs: epochs.collect(),
            checkpoint: Lsn(stored.checkpoint_lsn),
            manifest: stored.manifest_id,
            durable: Lsn(stored.durable_lsn),
            clean_stop: stored.clean_stop,
        }))
    }

    /// Takes in a checkpoint. Of the reigns, those that ended at or before it go: the log has none of their records.
    pub(super) fn advance(&mut self, checkpoint: Lsn, manifest: u64) {
        (self.checkpoint, self.manifest) = (checkpoint, manifest);
        let begun = self.epochs.partition_point(|(_, first)| *first <= checkpoint.next());
        self.epochs.drain(..begun.saturating_sub(1));
    }

    /// Makes this the durable state.
    pub fn write(&self, disk: &dyn Disk, directory: &Path) -> Result<(), StorageError> {
        let ReplicaMeta { identity, promised_epoch, epochs, checkpoint, manifest, durable, clean_stop } =
            self;
        assert!(checkpoint <= durable, "a checkpoint holds durable records only");
        let stored_epoch = |(epoch, first): &(Epoch, Lsn)| StoredEpoch { epoch: epoch.0, first_lsn: first.0 };
        let stored = Stored {
            cluster_uid: identity.cluster_uid.clone(),
            table_id: identity.shard.table.to_string(),
            shard: identity.shard.index.0,
            replica_id: identity.replica.0.to_vec(),
            dimension: identity.dimension,
            promised_epoch: promised_epoch.0,
            epochs: epochs.iter().map(stored_epoch).collect(),
            checkpoint_lsn: checkpoint.0,
            manifest_id: *manifest,
            durable_lsn: durable.0,
            clean_stop: *clean_stop,
        };
        REPLICA_META.replace(disk, &directory.join(NAME), &stored)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::disk::MemoryDisk;

    #[test]
    fn what_was_written_is_read() {
        let disk = MemoryDisk::new(1);
        let directory = Path::new("replica");
        disk.create_dir_all(directory).expect("created");
        assert_eq!(ReplicaMeta::read(&disk, directory).expect("absent"), None);
        let meta = ReplicaMeta {
            identity: ReplicaIdentity {
                cluster_uid: "c".to_owned(),
                shard: ShardId { table: TableId::random(), index: ShardIndex(7) },
                replica: ReplicaId::random(),
                dimension: 384,
            },
            promised_epoch: Epoch(4),
            epochs: vec![(Epoch(1), Lsn(1)), (Epoch(4), Lsn(9))],
            checkpoint: Lsn(11),
            manifest: 3,
            durable: Lsn(12),
            clean_stop: true,
        };
        meta.write(&disk, directory).expect("written");
        assert_eq!(ReplicaMeta::read(&disk, directory).expect("whole"), Some(meta));
    }

    #[test]
    fn reigns_that_ended_before_the_checkpoint_are_forgotten() {
        let identity = ReplicaIdentity {
            cluster_uid: String::new(),
            shard: ShardId { table: TableId::random(), index: ShardIndex(0) },
            replica: ReplicaId::random(),
            dimension: 1,
        };
        let epochs = vec![(Epoch(1), Lsn(1)), (Epoch(2), Lsn(5)), (Epoch(4), Lsn(9))];
        let after = |checkpoint: u64| {
            let mut meta = ReplicaMeta { epochs: epochs.clone(), ..ReplicaMeta::fresh(identity.clone()) };
            meta.advance(Lsn(checkpoint), 1);
            meta.epochs.iter().map(|(epoch, _)| epoch.0).collect::<Vec<_>>()
        };
        assert_eq!([3, 4, 7, 8, 20].map(after), [vec![1, 2, 4], vec![2, 4], vec![2, 4], vec![4], vec![4]]);
    }
}
