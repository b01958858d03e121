//! What a snapshot consists of.

use std::path::{Path, PathBuf};

use prost::Message;
use vectorsphere_index::StorageType;

use crate::ids::{Lsn, ShardId, ShardIndex, TableId};
use crate::storage::StorageError;
use crate::storage::digest::Digest;
use crate::storage::manifest::Manifest;
use crate::storage::reigns::Reigns;
use crate::storage::replica_meta::{StoredReign, word_of};
use crate::storage::segment::{SegmentId, file};

/// A checkpoint as one replica offers it to another. Equal descriptions are of equal files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SnapshotDescription {
    /// The shard.
    pub shard: ShardId,
    /// Values of each vector.
    pub dimension: u32,
    /// How they are kept.
    pub storage_type: StorageType,
    /// Position of the checkpoint, and what a replica holds there.
    pub digest: Digest,
    /// Reigns up to the position, at least the one that wrote it.
    pub reigns: Reigns,
    /// Number of the manifest.
    pub manifest: u64,
    /// The manifest, then its segments, ascending.
    pub files: Vec<SnapshotFile>,
}

/// One file of a snapshot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SnapshotFile {
    /// Which segment; `None`: the manifest.
    pub segment: Option<SegmentId>,
    /// Its size; not 0.
    pub bytes: u64,
    /// BLAKE3 of its bytes.
    pub blake3: [u8; 32],
}

/// The wire and disk form. Fields are only ever added.
#[derive(Clone, PartialEq, Message)]
pub(super) struct StoredDescription {
    #[prost(string, tag = "1")]
    table_id: String,
    #[prost(uint32, tag = "2")]
    shard: u32,
    #[prost(uint32, tag = "3")]
    dimension: u32,
    #[prost(uint64, tag = "4")]
    lsn: u64,
    #[prost(bytes = "vec", tag = "5")]
    content_digest: Vec<u8>,
    #[prost(uint64, tag = "6")]
    log_digest: u64,
    #[prost(message, repeated, tag = "7")]
    reigns: Vec<StoredReign>,
    #[prost(uint64, tag = "8")]
    manifest: u64,
    #[prost(message, repeated, tag = "9")]
    files: Vec<StoredFile>,
    /// Empty: f32.
    #[prost(string, tag = "10")]
    storage_type: String,
}

#[derive(Clone, PartialEq, Message)]
struct StoredFile {
    #[prost(uint32, optional, tag = "1")]
    segment: Option<u32>,
    #[prost(uint64, tag = "2")]
    bytes: u64,
    #[prost(bytes = "vec", tag = "3")]
    blake3: Vec<u8>,
}

impl SnapshotDescription {
    /// The position of the checkpoint.
    pub fn lsn(&self) -> Lsn {
        self.digest.lsn
    }

    /// Size of all files.
    pub fn bytes(&self) -> u64 {
        self.files.iter().fold(0, |sum, file| sum.saturating_add(file.bytes))
    }

    /// Its bytes in a message, a few dozen for each file.
    pub fn encode(&self) -> Vec<u8> {
        self.to_stored().encode_to_vec()
    }

    /// The description of a message's bytes.
    ///
    /// # Errors
    /// [`StorageError::Refused`] when they are none.
    pub fn decode(bytes: &[u8]) -> Result<SnapshotDescription, StorageError> {
        let refused = |reason: String| StorageError::refused("snapshot description", reason);
        let stored = StoredDescription::decode(bytes).map_err(|error| refused(error.to_string()))?;
        SnapshotDescription::parse(stored).ok_or_else(|| refused("its parts do not fit together".to_owned()))
    }

    /// Where a file of it lies in a generation's folder.
    pub(in crate::storage) fn path_of(&self, file: &SnapshotFile, home: &Path) -> PathBuf {
        match file.segment {
            None => Manifest::path_of(home, self.manifest),
            Some(id) => file::path_of(home, id),
        }
    }

    pub(super) fn to_stored(&self) -> StoredDescription {
        let SnapshotDescription { shard, dimension, storage_type, digest, reigns, manifest, files } = self;
        let stored_file = |file: &SnapshotFile| {
            let SnapshotFile { segment, bytes, blake3 } = file;
            StoredFile { segment: segment.map(|id| id.0), bytes: *bytes, blake3: blake3.to_vec() }
        };
        StoredDescription {
            table_id: shard.table.to_string(),
            shard: shard.index.0,
            dimension: *dimension,
            lsn: digest.lsn.0,
            content_digest: digest.content.to_le_bytes().to_vec(),
            log_digest: digest.log,
            reigns: StoredReign::all(reigns),
            manifest: *manifest,
            files: files.iter().map(stored_file).collect(),
            storage_type: word_of(*storage_type),
        }
    }

    /// `None` when anything is malformed or contradicts the rest.
    pub(super) fn parse(stored: StoredDescription) -> Option<SnapshotDescription> {
        let table = TableId::parse(&stored.table_id)?;
        let content = u128::from_le_bytes(stored.content_digest.try_into().ok()?);
        let digest = Digest { lsn: Lsn(stored.lsn), content, log: stored.log_digest };
        let reigns = StoredReign::parse(&stored.reigns)?;
        let files: Option<Vec<SnapshotFile>> = stored.files.into_iter().map(SnapshotFile::parse).collect();
        let files = files?;
        let (manifest, segments) = files.split_first()?;
        let fits = stored.manifest > 0
            && digest.lsn < Lsn::MAX
            && reigns.as_slice().last().is_some_and(|last| last.first <= digest.lsn)
            && manifest.segment.is_none()
            && segments.iter().all(|file| file.segment.is_some())
            && segments.is_sorted_by(|a, b| a.segment < b.segment);
        fits.then_some(SnapshotDescription {
            shard: ShardId { table, index: ShardIndex(stored.shard) },
            dimension: stored.dimension,
            storage_type: StorageType::parse(&stored.storage_type)?,
            digest,
            reigns,
            manifest: stored.manifest,
            files,
        })
    }
}

impl SnapshotFile {
    fn parse(stored: StoredFile) -> Option<SnapshotFile> {
        let blake3 = stored.blake3.try_into().ok()?;
        let segment = stored.segment.map(SegmentId);
        (stored.bytes > 0).then_some(SnapshotFile { segment, bytes: stored.bytes, blake3 })
    }
}
