//! Checkpoints: rows become immutable files, and the log before them can go.
//!
//! A checkpoint at position p takes the rows written since the last one, merges small or half-dead segments into them,
//! writes the rows that live at p, ordered by id, to a new file, and then a manifest. Nothing that counts is changed
//! until `replica.meta` names that manifest, so a crash at any moment leaves the state before or the one after. Writes
//! go on meanwhile; what they delete is brought over when the new segment is taken in.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use super::StorageError;
use super::documents::Location;
use super::manifest::{Manifest, ManifestSegment};
use super::op_window::OpWindow;
use super::segment::{MutableSegment, SegmentId, SegmentView, file};
use crate::ids::Lsn;
use crate::runtime::disk::Disk;

/// A segment with this share of dead rows is written again, in percent.
const DEAD_PERCENT_MAX: u64 = 25;

/// A checkpoint that is to be written, on any thread.
pub struct CheckpointJob {
    pub(super) disk: Arc<dyn Disk>,
    pub(super) directory: PathBuf,
    pub(super) dimension: u32,
    /// Everything up to here is applied and durable.
    pub(super) lsn: Lsn,
    /// Of the manifest to write.
    pub(super) manifest: u64,
    /// Of the segment to write.
    pub(super) segment: SegmentId,
    /// Segments whose live rows go into the new one.
    pub(super) inputs: Vec<SegmentView>,
    /// Segments that stay, with the sizes of their files.
    pub(super) kept: Vec<(SegmentView, u64)>,
    pub(super) window: OpWindow,
}

/// A checkpoint that is durable but does not count yet.
pub struct Checkpoint {
    pub(super) manifest: Manifest,
    /// The new segment, and for each of its rows the one that it is a copy of; `None` when no row lived.
    pub(super) sealed: Option<(SegmentView, Vec<Location>)>,
    pub(super) replaced: Vec<SegmentId>,
}

/// What a checkpoint did, for logs and metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CheckpointReport {
    /// Its position.
    pub lsn: Lsn,
    /// Rows written.
    pub rows: u32,
    /// Segments that were merged into the new one, beside the rows since the last checkpoint.
    pub merged: usize,
    /// Segments now.
    pub segments: usize,
    /// Bytes of the log that went.
    pub released_bytes: u64,
}

impl CheckpointJob {
    /// Writes segment and manifest. After an error nothing of it is left, as far as the disk allows.
    pub fn run(self) -> Result<Checkpoint, StorageError> {
        let outcome = self.write();
        if outcome.is_err() {
            // Whatever cannot be removed now is removed when the replica is opened.
            let manifest = Manifest::path_of(&self.directory, self.manifest);
            for path in [file::path_of(&self.directory, self.segment), manifest] {
                let _: io::Result<()> = self.disk.remove(&path);
            }
        }
        outcome
    }

    fn write(&self) -> Result<Checkpoint, StorageError> {
        let mut segments: Vec<ManifestSegment> =
            self.kept.iter().map(|(segment, bytes)| self.describe(segment, *bytes)).collect();
        let sealed = self.copy_live_rows();
        if let Some((segment, _)) = &sealed {
            let path = file::path_of(&self.directory, segment.id());
            let bytes = file::write(self.disk.as_ref(), &path, segment)?;
            let directory = self.directory.join("segments");
            self.disk.sync_dir(&directory).map_err(StorageError::sync(&directory))?;
            segments.push(ManifestSegment {
                id: segment.id(),
                rows: segment.len(),
                bytes,
                deleted: Vec::new(),
            });
        }
        segments.sort_by_key(|segment| segment.id);
        let manifest = Manifest {
            id: self.manifest,
            lsn: self.lsn,
            segments,
            next_segment: SegmentId(self.segment.0 + 1),
        };
        manifest.write(self.disk.as_ref(), &self.directory, &self.window)?;
        let replaced = self.inputs.iter().map(SegmentView::id).collect();
        Ok(Checkpoint { manifest, sealed, replaced })
    }

    fn describe(&self, segment: &SegmentView, bytes: u64) -> ManifestSegment {
        let deleted = (0..segment.len())
            .map(|row| (row, segment.deleted(row)))
            .filter(|(_, deleted)| *deleted <= self.lsn)
            .collect();
        ManifestSegment { id: segment.id(), rows: segment.len(), bytes, deleted }
    }

    fn copy_live_rows(&self) -> Option<(SegmentView, Vec<Location>)> {
        let mut rows: Vec<(&SegmentView, u32)> = Vec::new();
        for input in &self.inputs {
            let live = (0..input.len()).filter(|row| input.is_visible(*row, self.lsn));
            rows.extend(live.map(|row| (input, row)));
        }
        if rows.is_empty() {
            return None;
        }
        rows.sort_unstable_by(|(a, a_row), (b, b_row)| a.document_id(*a_row).cmp(b.document_id(*b_row)));
        let mut copy = MutableSegment::new(self.segment, self.dimension);
        let mut origins = Vec::with_capacity(rows.len());
        for (input, row) in rows {
            let vector = input.rows().row(row);
            copy.push(input.document_id(row), vector, input.metadata_json(row), input.created(row));
            origins.push(Location { segment: input.id(), row });
        }
        Some((copy.into_ordered(), origins))
    }
}

/// Size of a segment, for [`merge_plan`].
#[derive(Clone, Copy, Debug)]
pub(super) struct SegmentSize {
    pub(super) id: SegmentId,
    pub(super) live_rows: u64,
    pub(super) dead_rows: u64,
}

/// Which segments to merge with `fresh_rows` new rows.
///
/// Half-dead ones; then from the smallest on each one that is no larger than what is merged already. What stays at least
/// doubles from one segment to the next, so their number is logarithmic and each row is rewritten as often.
pub(super) fn merge_plan(fresh_rows: u64, segments: &[SegmentSize]) -> Vec<SegmentId> {
    let mut segments = segments.to_vec();
    segments.sort_by_key(|segment| (segment.live_rows, segment.id));
    let mut merged_rows = fresh_rows;
    let mut plan = Vec::new();
    for segment in segments {
        let rows = segment.live_rows + segment.dead_rows;
        let is_half_dead = segment.dead_rows * 100 >= rows * DEAD_PERCENT_MAX;
        if is_half_dead || segment.live_rows <= merged_rows {
            merged_rows += segment.live_rows;
            plan.push(segment.id);
        }
    }
    plan
}

#[cfg(test)]
mod tests {
    use super::*;

    fn size(id: u32, live_rows: u64, dead_rows: u64) -> SegmentSize {
        SegmentSize { id: SegmentId(id), live_rows, dead_rows }
    }

    #[test]
    fn small_and_half_dead_segments_are_merged() {
        assert_eq!(merge_plan(10, &[size(1, 100, 0), size(2, 11, 0)]), []);
        assert_eq!(merge_plan(10, &[size(1, 100, 0), size(2, 10, 0), size(3, 20, 0)]), [2, 3].map(SegmentId));
        assert_eq!(merge_plan(10, &[size(1, 75, 25), size(2, 1000, 10)]), [SegmentId(1)]);
        assert_eq!(merge_plan(0, &[size(1, 0, 5)]), [SegmentId(1)]);
    }

    #[test]
    fn a_thousand_checkpoints_leave_few_segments_and_rewrite_each_row_rarely() {
        let (mut segments, mut written) = (Vec::new(), 0u64);
        for round in 1..=1000u32 {
            let plan = merge_plan(1, &segments);
            let merged: u64 = segments
                .iter()
                .filter(|segment| plan.contains(&segment.id))
                .map(|segment| segment.live_rows)
                .sum();
            segments.retain(|segment| !plan.contains(&segment.id));
            segments.push(size(round, merged + 1, 0));
            written += merged + 1;
            assert!(segments.len() <= 10, "{segments:?}");
        }
        assert!(written <= 1000 * 11, "each row was written {} times", written / 1000);
    }
}
