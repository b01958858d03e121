//! A manifest: the segments of a replica at one position, and which of their rows were deleted up to there.

use std::path::{Path, PathBuf};

use super::StorageError;
use super::digest::Digest;
use super::op_window::OpWindow;
use super::segment::SegmentId;
use super::whole_file::WholeFile;
use crate::ids::Lsn;
use crate::runtime::disk::Disk;

const MANIFEST: WholeFile = WholeFile { magic: *b"VSMANIFE", version: 1 };

/// What a checkpoint leaves. Never changed; a later checkpoint writes another one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Manifest {
    /// Counts up.
    pub id: u64,
    /// Everything up to its position is in the segments.
    pub digest: Digest,
    /// Ascending by id.
    pub segments: Vec<ManifestSegment>,
    /// No segment has had this number.
    pub next_segment: SegmentId,
}

/// One segment of a manifest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ManifestSegment {
    /// Its number.
    pub id: SegmentId,
    /// Its rows.
    pub rows: u32,
    /// Size of its file.
    pub bytes: u64,
    /// Rows deleted up to the manifest's position, each with the position of its deletion; ascending by row.
    pub deleted: Vec<(u32, Lsn)>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Stored {
    #[prost(uint64, tag = "1")]
    id: u64,
    #[prost(uint64, tag = "2")]
    lsn: u64,
    #[prost(message, repeated, tag = "3")]
    segments: Vec<StoredSegment>,
    #[prost(uint32, tag = "4")]
    next_segment: u32,
    #[prost(bytes = "vec", tag = "5")]
    window: Vec<u8>,
    #[prost(uint64, tag = "6")]
    window_forgotten: u64,
    #[prost(bytes = "vec", tag = "7")]
    content_digest: Vec<u8>,
    #[prost(uint64, tag = "8")]
    log_digest: u64,
}

#[derive(Clone, PartialEq, prost::Message)]
struct StoredSegment {
    #[prost(uint32, tag = "1")]
    id: u32,
    #[prost(uint32, tag = "2")]
    rows: u32,
    #[prost(uint64, tag = "3")]
    bytes: u64,
    #[prost(uint32, repeated, tag = "4")]
    deleted_rows: Vec<u32>,
    #[prost(uint64, repeated, tag = "5")]
    deleted_lsns: Vec<u64>,
}

impl Manifest {
    /// Path of a manifest in a generation's folder.
    pub fn path_of(directory: &Path, id: u64) -> PathBuf {
        directory.join(format!("manifest-{id:016x}"))
    }

    /// Reads the manifest that `replica.meta` names, and the requests remembered at its position; 0 is the empty one,
    /// which has no file.
    pub fn read(disk: &dyn Disk, directory: &Path, id: u64) -> Result<(Manifest, OpWindow), StorageError> {
        if id == 0 {
            return Ok(Default::default());
        }
        let path = Manifest::path_of(directory, id);
        let damaged = |reason: &str| StorageError::damaged(&path, reason);
        let stored = MANIFEST.read::<Stored>(disk, &path)?.ok_or_else(|| damaged("is missing"))?;
        let window = OpWindow::decode(&stored.window, Lsn(stored.window_forgotten))
            .ok_or_else(|| damaged("requests are cut off"))?;
        let content = stored.content_digest.try_into().map_err(|_| damaged("digest is malformed"))?;
        let lsn = Lsn(stored.lsn);
        if stored.id != id {
            return Err(damaged(&format!("holds manifest {}", stored.id)));
        }
        let mut segments: Vec<ManifestSegment> = Vec::with_capacity(stored.segments.len());
        for stored in stored.segments {
            let segment =
                ManifestSegment::parse(stored, lsn).ok_or_else(|| damaged("deleted rows do not fit"))?;
            if segments.last().is_some_and(|before| before.id >= segment.id) {
                return Err(damaged("segments are out of order"));
            }
            segments.push(segment);
        }
        let next_segment = SegmentId(stored.next_segment);
        if next_segment.0 == u32::MAX || segments.last().is_some_and(|last| last.id >= next_segment) {
            return Err(damaged("the number of the next segment does not follow"));
        }
        let digest = Digest { lsn, content: u128::from_le_bytes(content), log: stored.log_digest };
        Ok((Manifest { id, digest, segments, next_segment }, window))
    }

    /// Writes it with the requests remembered at its position, durably.
    pub fn write(&self, disk: &dyn Disk, directory: &Path, window: &OpWindow) -> Result<(), StorageError> {
        let Manifest { id, digest, segments, next_segment } = self;
        let stored_segment = |segment: &ManifestSegment| {
            let ManifestSegment { id, rows, bytes, deleted } = segment;
            StoredSegment {
                id: id.0,
                rows: *rows,
                bytes: *bytes,
                deleted_rows: deleted.iter().map(|(row, _)| *row).collect(),
                deleted_lsns: deleted.iter().map(|(_, lsn)| lsn.0).collect(),
            }
        };
        let stored = Stored {
            id: *id,
            lsn: digest.lsn.0,
            segments: segments.iter().map(stored_segment).collect(),
            next_segment: next_segment.0,
            window: window.encode(),
            window_forgotten: window.forgotten().0,
            content_digest: digest.content.to_le_bytes().to_vec(),
            log_digest: digest.log,
        };
        MANIFEST.replace(disk, &Manifest::path_of(directory, *id), &stored)
    }

    /// Its position.
    pub fn lsn(&self) -> Lsn {
        self.digest.lsn
    }

    /// Bytes of the segments' files.
    pub fn bytes(&self) -> u64 {
        self.segments.iter().map(|segment| segment.bytes).sum()
    }
}

impl ManifestSegment {
    /// A segment of a manifest at `lsn`; `None` when its deleted rows are not rows of it, deleted up to there, in order.
    fn parse(stored: StoredSegment, lsn: Lsn) -> Option<ManifestSegment> {
        let StoredSegment { id, rows, bytes, deleted_rows, deleted_lsns } = stored;
        let fits = deleted_rows.len() == deleted_lsns.len()
            && deleted_rows.is_sorted_by(|a, b| a < b)
            && deleted_rows.last().is_none_or(|row| *row < rows)
            && deleted_lsns.iter().all(|deleted| *deleted <= lsn.0);
        let deleted = deleted_rows.into_iter().zip(deleted_lsns.into_iter().map(Lsn)).collect();
        fits.then_some(ManifestSegment { id: SegmentId(id), rows, bytes, deleted })
    }
}
