//! Layout of a node's data directory.
//!
//! ```text
//! lock                                    held by the process
//! cluster.meta                            the cluster that the directory belongs to
//! shards/<table id>/<shard, 8 digits>/    one replica
//!     replica.meta                        who it is; names the manifest and what of the log counts
//!     manifest-<id, 16 hex digits>        its segments, and which of their rows are deleted
//!     segments/<id, 8 hex digits>.rows    immutable rows
//!     wal/<number, 16 hex digits>.log     the log
//! ```

use std::path::{Path, PathBuf};

use super::StorageError;
use super::whole_file::WholeFile;
use crate::ids::ShardId;
use crate::runtime::disk::Disk;

const CLUSTER_META: WholeFile = WholeFile { magic: *b"VSCLUSTR", version: 1 };

#[derive(Clone, PartialEq, prost::Message)]
struct StoredCluster {
    #[prost(string, tag = "1")]
    cluster_uid: String,
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

/// The directory of a shard's replica.
pub fn shard_directory(shard: ShardId) -> PathBuf {
    PathBuf::from(format!("shards/{}/{:08}", shard.table, shard.index.0))
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
}
