//! Layout of a node's data directory.
//!
//! ```text
//! lock                                            held by the process
//! cluster.meta                                    the cluster that the directory belongs to
//! disk.meta                                       the disk's own id, and how often it was opened
//! revision.meta                                   from which revision on the metadata store is believed
//! shards/<table id>/<shard, 8 digits>/<replica id>/   one replica
//!     replica.meta                                who it is; names the generation, its manifest and what of its log counts
//!     orphans/<number, 16 hex digits>.log         records that were cut, for people
//!     g<generation>/                              what a format or a snapshot of another replica began
//!         manifest-<id, 16 hex digits>            its segments, and which of their rows are deleted
//!         segments/<id, 8 hex digits>.rows        immutable rows
//!         segments/<id, 8 hex digits>.graph       the graph over them, if it was built
//!         wal/<number, 16 hex digits>.log         the log
//!         snapshot                                while it is being written: what it will be
//! ```

use std::path::{Path, PathBuf};

use tracing::error;

use super::StorageError;
use super::replica_meta::NAME as REPLICA_META;
use super::whole_file::WholeFile;
use crate::ids::{ReplicaId, Revision, ShardId};
use crate::runtime::disk::Disk;

const CLUSTER_META: WholeFile = WholeFile { magic: *b"VSCLUSTR", version: 1 };

#[derive(Clone, PartialEq, prost::Message)]
struct StoredCluster {
    #[prost(string, tag = "1")]
    cluster_uid: String,
}

const DISK_META: WholeFile = WholeFile { magic: *b"VSDISKID", version: 1 };

#[derive(Clone, PartialEq, prost::Message)]
struct StoredDisk {
    #[prost(bytes = "vec", tag = "1")]
    disk_id: Vec<u8>,
    #[prost(uint64, tag = "2")]
    opens: u64,
}

/// Which disk this is, and in which state. A volume that was rolled back to an older image shows by a count of openings
/// that was there before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DiskIdentity {
    /// Random, made once.
    pub disk_id: u128,
    /// How often it was opened, this time included.
    pub opens: u64,
}

/// Counts an opening of the data directory, durably. A damaged file says nothing of the replicas, which have checksums of
/// their own: the disk gets a new identity.
///
/// # Errors
/// When the file cannot be read or written.
pub fn count_opening(disk: &dyn Disk) -> Result<DiskIdentity, StorageError> {
    let path = Path::new("disk.meta");
    let stored = match DISK_META.read::<StoredDisk>(disk, path) {
        Err(error) if error.is_lasting() => {
            error!(%error, "the disk gets a new identity");
            None
        }
        stored => stored?,
    };
    let known = stored.and_then(|stored| {
        let id = stored.disk_id.try_into().ok()?;
        Some(DiskIdentity { disk_id: u128::from_be_bytes(id), opens: stored.opens.saturating_add(1) })
    });
    let identity = known.unwrap_or_else(|| DiskIdentity { disk_id: rand::random(), opens: 1 });
    identity.write(disk)?;
    Ok(identity)
}

/// Gives up what a volume holds that was put back to an older image: its replicas are not found any more, whoever looks for
/// them counts them as lost; their data stays until the copies are deleted. The disk gets an identity of its own.
/// Done again after a crash in between.
///
/// # Errors
/// When a file cannot be read or written.
pub fn give_up_older_image(disk: &dyn Disk) -> Result<DiskIdentity, StorageError> {
    let shards = Path::new("shards");
    for table in list(disk, shards)? {
        for shard in list(disk, &shards.join(&table))? {
            let directory = shards.join(&table).join(&shard);
            for replica in list(disk, &directory)?.iter().filter(|name| parse_replica(name).is_some()) {
                let replica = directory.join(replica);
                if list(disk, &replica)?.iter().any(|name| name == REPLICA_META) {
                    let meta = replica.join(REPLICA_META);
                    let aside = replica.join(format!("{REPLICA_META}.older-image"));
                    disk.rename(&meta, &aside).map_err(StorageError::write(&meta))?;
                    disk.sync_dir(&replica).map_err(StorageError::sync(&replica))?;
                }
            }
        }
    }
    let identity = DiskIdentity { disk_id: rand::random(), opens: 1 };
    identity.write(disk)?;
    Ok(identity)
}

fn list(disk: &dyn Disk, directory: &Path) -> Result<Vec<String>, StorageError> {
    disk.list(directory).map_err(StorageError::read(directory))
}

impl DiskIdentity {
    fn write(self, disk: &dyn Disk) -> Result<(), StorageError> {
        let stored = StoredDisk { disk_id: self.disk_id.to_be_bytes().to_vec(), opens: self.opens };
        DISK_META.replace(disk, Path::new("disk.meta"), &stored)
    }
}

/// Binds the data directory to a cluster: the first time for good, later by comparing.
///
/// # Errors
/// [`StorageError::OtherCluster`] when it belongs to another one; nothing is changed then.
pub fn join_cluster(disk: &dyn Disk, cluster_uid: &str) -> Result<(), StorageError> {
    let path = Path::new("cluster.meta");
    match CLUSTER_META.read::<StoredCluster>(disk, path)? {
        Some(stored) if stored.cluster_uid == cluster_uid => Ok(()),
        Some(stored) => {
            Err(StorageError::OtherCluster { found: stored.cluster_uid, expected: cluster_uid.to_owned() })
        }
        None => {
            let stored = StoredCluster { cluster_uid: cluster_uid.to_owned() };
            CLUSTER_META.replace(disk, path, &stored)
        }
    }
}

/// The cluster that the data directory belongs to; `None` when it is fresh.
///
/// # Errors
/// When the file cannot be read or is damaged.
pub fn cluster_uid(disk: &dyn Disk) -> Result<Option<String>, StorageError> {
    let stored = CLUSTER_META.read::<StoredCluster>(disk, Path::new("cluster.meta"))?;
    Ok(stored.map(|stored| stored.cluster_uid))
}

const REVISION_META: WholeFile = WholeFile { magic: *b"VSREVISN", version: 1 };

#[derive(Clone, PartialEq, prost::Message)]
struct StoredRevision {
    #[prost(int64, tag = "1")]
    revision: i64,
    #[prost(bool, tag = "2")]
    went_back: bool,
}

/// What is known of the metadata store.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SeenStore {
    /// It is believed from this revision on; 0: from any.
    pub believed_from: Revision,
    /// It went back, and was not believed since.
    pub went_back: bool,
}

/// What was kept of the metadata store.
///
/// # Errors
/// When the file cannot be read or is damaged.
pub fn seen_store(disk: &dyn Disk) -> Result<SeenStore, StorageError> {
    let stored = REVISION_META.read::<StoredRevision>(disk, Path::new("revision.meta"))?.unwrap_or_default();
    Ok(SeenStore { believed_from: Revision(stored.revision), went_back: stored.went_back })
}

/// Keeps what is known of the metadata store, durably.
///
/// # Errors
/// When the file cannot be written.
pub fn keep_seen_store(disk: &dyn Disk, seen: SeenStore) -> Result<(), StorageError> {
    let stored = StoredRevision { revision: seen.believed_from.0, went_back: seen.went_back };
    REVISION_META.replace(disk, Path::new("revision.meta"), &stored)
}

/// The directory of a shard's replicas.
pub fn shard_directory(shard: ShardId) -> PathBuf {
    PathBuf::from(format!("shards/{}/{:08}", shard.table, shard.index.0))
}

/// The directory of one replica of a shard.
pub fn replica_directory(shard: ShardId, replica: ReplicaId) -> PathBuf {
    shard_directory(shard).join(replica.to_string())
}

/// The replicas of a shard that have a directory, formatted to the end or not.
///
/// # Errors
/// When the directory cannot be read.
pub fn replicas_of(disk: &dyn Disk, shard: ShardId) -> Result<Vec<ReplicaId>, StorageError> {
    let names = list(disk, &shard_directory(shard))?;
    Ok(names.iter().filter_map(|name| parse_replica(name)).collect())
}

/// The replica whose directory has this name; `None` when it is not one of ours.
fn parse_replica(name: &str) -> Option<ReplicaId> {
    let number = u128::from_str_radix(name, 16).ok()?;
    let replica = ReplicaId(number.to_be_bytes());
    (replica.to_string() == name).then_some(replica)
}

/// The folder of a generation in a replica's directory.
pub(super) fn generation_directory(directory: &Path, generation: u64) -> PathBuf {
    directory.join(format!("g{generation}"))
}

/// True for the name of a generation's folder.
pub(super) fn is_generation(name: &str) -> bool {
    name.strip_prefix('g').is_some_and(|number| number.parse::<u64>().is_ok())
}

/// The directory of all replicas of a table.
pub fn table_directory(shard: ShardId) -> PathBuf {
    PathBuf::from(format!("shards/{}", shard.table))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::disk::MemoryDisk;

    #[test]
    fn a_directory_belongs_to_one_cluster() {
        let disk = MemoryDisk::new(1);
        join_cluster(&disk, "one").expect("fresh");
        join_cluster(&disk, "one").expect("the same");
        let refused = join_cluster(&disk, "two").expect_err("another").to_string();
        assert_eq!(refused, "data directory belongs to cluster one, not to two");
        join_cluster(&disk, "one").expect("unchanged");
    }

    #[test]
    fn the_replicas_of_a_shard_are_found_by_their_names() {
        let disk = MemoryDisk::new(1);
        let shard = ShardId { table: crate::ids::TableId::random(), index: crate::ids::ShardIndex(3) };
        assert_eq!(replicas_of(&disk, shard).expect("absent"), []);
        let mut replicas = [ReplicaId([0xab; 16]), ReplicaId([0; 16]), ReplicaId::random()];
        replicas.sort();
        for replica in replicas {
            disk.create_dir_all(&replica_directory(shard, replica)).expect("created");
        }
        for other in ["lost+found", "+0000000000000000000000000000000", &"AB".repeat(16), &"0".repeat(31)] {
            disk.create_dir_all(&shard_directory(shard).join(other)).expect("created");
        }
        assert_eq!(replicas_of(&disk, shard).expect("listed"), replicas);
    }

    /// Steps: the older image is given up, with a crash after any operation, and then once more.
    #[test]
    fn an_older_image_holds_no_replica_whatever_happens_to_it() {
        let shard = ShardId { table: crate::ids::TableId::random(), index: crate::ids::ShardIndex(3) };
        let replicas = [ReplicaId([1; 16]), ReplicaId([2; 16])];
        for operation in 0..12 {
            let disk = MemoryDisk::new(operation);
            let before = count_opening(&disk).expect("fresh");
            for replica in replicas {
                let directory = replica_directory(shard, replica);
                disk.create_dir_all(&directory).expect("created");
                let file = disk.create(&directory.join(REPLICA_META)).and_then(|mut file| file.sync());
                file.and_then(|()| disk.sync_dir(&directory)).expect("written");
            }
            disk.power_off_after(operation);
            let given_up = give_up_older_image(&disk);
            disk.crash();
            let after = match given_up {
                Ok(after) => after,
                Err(_) => give_up_older_image(&disk).expect("well"),
            };
            assert_ne!(after.disk_id, before.disk_id);
            assert_eq!(count_opening(&disk).expect("well"), DiskIdentity { opens: 2, ..after });
            for replica in replicas {
                let names = disk.list(&replica_directory(shard, replica)).expect("listed");
                assert_eq!(names, ["replica.meta.older-image"], "the data stays, unknown to anybody");
            }
        }
    }

    #[test]
    fn a_damaged_identity_is_replaced() {
        let disk = MemoryDisk::new(1);
        let first = count_opening(&disk).expect("fresh");
        disk.flip_bit(Path::new("disk.meta"), 22, 3);
        let second = count_opening(&disk).expect("replaced");
        assert_ne!(second.disk_id, first.disk_id);
        assert_eq!(count_opening(&disk).expect("well"), DiskIdentity { opens: 2, ..second });
    }

    #[test]
    fn every_opening_of_a_disk_is_counted_whatever_happens_to_it() {
        for operation in 0..8 {
            let disk = MemoryDisk::new(operation);
            let first = count_opening(&disk).expect("fresh");
            assert_eq!(first.opens, 1);
            disk.power_off_after(operation);
            let second = count_opening(&disk);
            disk.crash();
            let third = count_opening(&disk).expect("well");
            assert_eq!(third.disk_id, first.disk_id);
            assert!(third.opens == 3 || second.is_err() && third.opens == 2);
        }
    }
}
