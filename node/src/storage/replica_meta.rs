//! `replica.meta`: who a replica is, and which of its files count. Replaced whole; its rename is the moment at which a
//! checkpoint, a promise, or a snapshot from another replica takes effect.

use std::path::Path;

use vectorsphere_index::StorageType;

use super::StorageError;
use super::reigns::{Reign, Reigns};
use super::whole_file::WholeFile;
use crate::ids::{Epoch, Lsn, ReplicaId, Revision, ShardId, ShardIndex, TableId};
use crate::runtime::disk::Disk;

const REPLICA_META: WholeFile = WholeFile { magic: *b"VSREPLIC", version: 1 };
pub(super) const NAME: &str = "replica.meta";

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
    /// How they are kept.
    pub storage_type: StorageType,
}

/// The in-sync replicas as a replica last heard of them. Should the metadata store lose its newest records, what the
/// replicas remember says which of them may be missing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Membership {
    /// Reign in which it was told.
    pub epoch: Epoch,
    /// Revision of the shard's record.
    pub configuration: Revision,
    /// The in-sync replicas of that record.
    pub isr: Vec<ReplicaId>,
}

/// The durable state of a replica beside its log and segments. `checkpoint ≤ commit ≤ durable`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReplicaMeta {
    /// Who it is.
    pub identity: ReplicaIdentity,
    /// The folder that counts: `g<generation>`.
    pub generation: u64,
    /// The replica obeys no smaller epoch. Never falls.
    pub promised_epoch: Epoch,
    /// Reigns of the log and of the position before it. Those that begin in the log are read from there when it is
    /// opened.
    pub reigns: Reigns,
    /// Everything up to here is in the manifest's segments.
    pub checkpoint: Lsn,
    /// The manifest that counts; 0: none yet.
    pub manifest: u64,
    /// Everything up to here is committed and was applied: opening applies it again.
    pub commit: Lsn,
    /// Everything up to here is durable: its absence is damage.
    pub durable: Lsn,
    /// The last process closed the replica in order.
    pub clean_stop: bool,
    /// The log's tail was torn and cut, and no commit point behind it was heard of since: the replica may lack something
    /// that it once acknowledged.
    pub tail_was_cut: bool,
    /// The in-sync replicas.
    pub membership: Membership,
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
    reigns: Vec<StoredReign>,
    #[prost(uint64, tag = "8")]
    checkpoint_lsn: u64,
    #[prost(uint64, tag = "9")]
    generation: u64,
    #[prost(uint64, tag = "10")]
    manifest_id: u64,
    #[prost(uint64, tag = "11")]
    durable_lsn: u64,
    #[prost(bool, tag = "12")]
    clean_stop: bool,
    #[prost(uint64, tag = "13")]
    commit_lsn: u64,
    #[prost(bool, tag = "14")]
    tail_was_cut: bool,
    #[prost(uint64, tag = "15")]
    membership_epoch: u64,
    #[prost(int64, tag = "16")]
    configuration: i64,
    #[prost(bytes = "vec", repeated, tag = "17")]
    isr: Vec<Vec<u8>>,
    /// Empty: f32, as all replicas were once.
    #[prost(string, tag = "18")]
    storage_type: String,
}

/// A reign in a file.
#[derive(Clone, Copy, PartialEq, prost::Message)]
pub(super) struct StoredReign {
    #[prost(uint64, tag = "1")]
    epoch: u64,
    #[prost(uint64, tag = "2")]
    first_lsn: u64,
}

impl StoredReign {
    pub(super) fn all(reigns: &Reigns) -> Vec<StoredReign> {
        let stored = |reign: &Reign| StoredReign { epoch: reign.epoch.0, first_lsn: reign.first.0 };
        reigns.as_slice().iter().map(stored).collect()
    }

    /// `None` unless they ascend.
    pub(super) fn parse(stored: &[StoredReign]) -> Option<Reigns> {
        let reign = |stored: &StoredReign| Reign { epoch: Epoch(stored.epoch), first: Lsn(stored.first_lsn) };
        Reigns::from_ordered(stored.iter().map(reign).collect())
    }
}

impl ReplicaMeta {
    /// Of a replica that was just made.
    pub fn fresh(identity: ReplicaIdentity) -> ReplicaMeta {
        ReplicaMeta {
            identity,
            generation: 1,
            promised_epoch: Epoch::default(),
            reigns: Reigns::default(),
            checkpoint: Lsn::ZERO,
            manifest: 0,
            commit: Lsn::ZERO,
            durable: Lsn::ZERO,
            clean_stop: true,
            tail_was_cut: false,
            membership: Membership::default(),
        }
    }

    /// Reads it from a replica's directory; `None`: the directory was never formatted to the end.
    pub fn read(disk: &dyn Disk, directory: &Path) -> Result<Option<ReplicaMeta>, StorageError> {
        let path = directory.join(NAME);
        let Some(stored) = REPLICA_META.read::<Stored>(disk, &path)? else { return Ok(None) };
        match ReplicaMeta::parse(stored) {
            Some(meta) => Ok(Some(meta)),
            None => Err(StorageError::damaged(&path, "an id is malformed, or numbers are out of order")),
        }
    }

    fn parse(stored: Stored) -> Option<ReplicaMeta> {
        let isr: Option<Vec<ReplicaId>> = stored.isr.iter().map(|id| ReplicaId::from_bytes(id)).collect();
        let meta = ReplicaMeta {
            identity: ReplicaIdentity {
                cluster_uid: stored.cluster_uid,
                shard: ShardId { table: TableId::parse(&stored.table_id)?, index: ShardIndex(stored.shard) },
                replica: ReplicaId::from_bytes(&stored.replica_id)?,
                dimension: stored.dimension,
                storage_type: StorageType::parse(&stored.storage_type)?,
            },
            generation: stored.generation,
            promised_epoch: Epoch(stored.promised_epoch),
            reigns: StoredReign::parse(&stored.reigns)?,
            checkpoint: Lsn(stored.checkpoint_lsn),
            manifest: stored.manifest_id,
            commit: Lsn(stored.commit_lsn),
            durable: Lsn(stored.durable_lsn),
            clean_stop: stored.clean_stop,
            tail_was_cut: stored.tail_was_cut,
            membership: Membership {
                epoch: Epoch(stored.membership_epoch),
                configuration: Revision(stored.configuration),
                isr: isr?,
            },
        };
        // What is counted up must have a next one.
        let is_possible = meta.identity.dimension > 0
            && meta.durable <= Lsn::LIMIT
            && meta.generation < u64::MAX
            && meta.manifest < u64::MAX;
        (meta.is_ordered() && is_possible).then_some(meta)
    }

    fn is_ordered(&self) -> bool {
        self.checkpoint <= self.commit && self.commit <= self.durable
    }

    /// Makes this the durable state.
    pub fn write(&self, disk: &dyn Disk, directory: &Path) -> Result<(), StorageError> {
        assert!(
            self.is_ordered(),
            "checkpoint {} ≤ commit {} ≤ durable {}",
            self.checkpoint,
            self.commit,
            self.durable
        );
        let ReplicaMeta {
            identity,
            generation,
            promised_epoch,
            reigns,
            checkpoint,
            manifest,
            commit,
            durable,
            clean_stop,
            tail_was_cut,
            membership,
        } = self;
        let stored = Stored {
            cluster_uid: identity.cluster_uid.clone(),
            table_id: identity.shard.table.to_string(),
            shard: identity.shard.index.0,
            replica_id: identity.replica.0.to_vec(),
            dimension: identity.dimension,
            promised_epoch: promised_epoch.0,
            reigns: StoredReign::all(reigns),
            checkpoint_lsn: checkpoint.0,
            generation: *generation,
            manifest_id: *manifest,
            durable_lsn: durable.0,
            clean_stop: *clean_stop,
            commit_lsn: commit.0,
            tail_was_cut: *tail_was_cut,
            membership_epoch: membership.epoch.0,
            configuration: membership.configuration.0,
            isr: membership.isr.iter().map(|id| id.0.to_vec()).collect(),
            storage_type: word_of(identity.storage_type),
        };
        REPLICA_META.replace(disk, &directory.join(NAME), &stored)
    }
}

/// A storage type in a file; nothing for f32, so that versions that know no other can read it.
pub(super) fn word_of(storage_type: StorageType) -> String {
    if storage_type == StorageType::F32 { String::new() } else { storage_type.as_str().to_owned() }
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
        let reigns = [(1, 1), (4, 9)].map(|(epoch, first)| Reign { epoch: Epoch(epoch), first: Lsn(first) });
        let meta = ReplicaMeta {
            identity: ReplicaIdentity {
                cluster_uid: "c".to_owned(),
                shard: ShardId { table: TableId::random(), index: ShardIndex(7) },
                replica: ReplicaId::random(),
                dimension: 384,
                storage_type: StorageType::Bf16,
            },
            generation: 2,
            promised_epoch: Epoch(4),
            reigns: Reigns::from_ordered(reigns.to_vec()).expect("ordered"),
            checkpoint: Lsn(11),
            manifest: 3,
            commit: Lsn(12),
            durable: Lsn(13),
            clean_stop: true,
            tail_was_cut: true,
            membership: Membership {
                epoch: Epoch(3),
                configuration: Revision(99),
                isr: vec![ReplicaId::random(), ReplicaId::random()],
            },
        };
        meta.write(&disk, directory).expect("written");
        assert_eq!(ReplicaMeta::read(&disk, directory).expect("whole"), Some(meta));
    }
}
