//! Checkpoints: rows become immutable files, and the log before them can go.
//!
//! A checkpoint at position p takes the rows written since the last one, merges small or decayed segments into them,
//! writes the rows that live at p, ordered by id, to a new file, and then a manifest. Nothing that counts is changed
//! until `replica.meta` names that manifest, so a crash at any moment leaves the state before or the one after. Writes
//! go on meanwhile; what they delete is brought over when the new segment is taken in.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use vectorsphere_index::StorageType;

use super::StorageError;
use super::digest::Digest;
use super::documents::Location;
use super::manifest::{Manifest, ManifestSegment};
use super::merge_plan::{SegmentSize, merge_plan};
use super::op_window::OpWindow;
use super::segment::file::{self, FileRow, OnDiskWriter, Shape};
use super::segment::{
    Ancestor, MutableSegment, RowCache, RowCursor, RowPlace, SegmentId, SegmentView, index_paths,
};
use super::store::Store;
use crate::ids::Lsn;
use crate::runtime::disk::Disk;

/// Nothing is merged beyond this size: merging holds old and new rows in memory, and on disk.
const SEGMENT_BYTES_MAX: u64 = 1 << 30;
/// Rows that are moved to a new segment in one hold of the lock that look-ups share.
const RELOCATE_ROWS: usize = 4096;
/// Rows that are copied between two looks at the [`StopFlag`].
const COPY_ROWS: usize = 4096;

/// Tells a checkpoint that is being written to give up. Clones are the same flag.
#[derive(Clone, Debug, Default)]
pub struct StopFlag(Arc<AtomicBool>);

impl StopFlag {
    /// From now on [`StopFlag::check`] fails.
    pub fn raise(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    /// # Errors
    /// [`StorageError::Stopped`] when the flag is up.
    pub fn check(&self) -> Result<(), StorageError> {
        if self.0.load(Ordering::Relaxed) { Err(StorageError::Stopped) } else { Ok(()) }
    }
}

/// A checkpoint that is to be written, on any thread.
pub struct CheckpointJob {
    pub(super) disk: Arc<dyn Disk>,
    pub(super) directory: PathBuf,
    pub(super) dimension: u32,
    pub(super) storage_type: StorageType,
    pub(super) rows: RowPlace,
    /// Of what is applied: everything up to its position.
    pub(super) digest: Digest,
    /// Of the manifest to write.
    pub(super) manifest: u64,
    /// Of the segment to write.
    pub(super) segment: SegmentId,
    /// Segments whose live rows go into the new one.
    pub(super) inputs: Vec<SegmentView>,
    /// Segments that stay, with the sizes of their files.
    pub(super) kept: Vec<(SegmentView, u64)>,
    pub(super) window: OpWindow,
    pub(super) stop: StopFlag,
}

impl CheckpointJob {
    /// Bytes in memory of the segment that it makes, at most.
    pub fn bytes(&self) -> usize {
        self.inputs.iter().map(SegmentView::bytes).sum()
    }
}

/// A checkpoint that is durable but does not count yet.
pub struct Checkpoint {
    pub(super) manifest: Manifest,
    /// The new segment, and for each of its rows the one that it is a copy of; `None` when no row lived.
    pub(super) sealed: Option<(SegmentView, Vec<Location>)>,
    pub(super) replaced: Vec<SegmentId>,
}

/// What a checkpoint did, for logs and metrics.
#[derive(Debug)]
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
    /// Why files that are not needed any more are still there; the next checkpoint tries again.
    pub not_removed: Option<StorageError>,
}

impl CheckpointJob {
    /// Makes [`CheckpointJob::run`] give up.
    pub fn stop_flag(&self) -> StopFlag {
        self.stop.clone()
    }

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
        let live = self.live_rows();
        let mut sealed = None;
        if !live.is_empty() {
            let path = file::path_of(&self.directory, self.segment);
            let (segment, bytes) = match &self.rows {
                RowPlace::Memory => {
                    let segment = self.copied(&live)?;
                    let bytes = file::write(self.disk.as_ref(), &path, &segment, &self.stop)?;
                    (segment, bytes)
                }
                RowPlace::Disk(cache) => self.written(&live, &path, cache)?,
            };
            let directory = self.directory.join("segments");
            self.disk.sync_dir(&directory).map_err(StorageError::sync(&directory))?;
            segments.push(ManifestSegment {
                id: segment.id(),
                rows: segment.len(),
                bytes,
                deleted: Vec::new(),
            });
            let origin =
                |(input, row): &(usize, u32)| Location { segment: self.inputs[*input].id(), row: *row };
            sealed = Some((segment, live.iter().map(origin).collect()));
        }
        segments.sort_by_key(|segment| segment.id);
        let manifest = Manifest {
            id: self.manifest,
            digest: self.digest,
            segments,
            next_segment: SegmentId(self.segment.0 + 1),
        };
        self.stop.check()?;
        manifest.write(self.disk.as_ref(), &self.directory, &self.window)?;
        let replaced = self.inputs.iter().map(SegmentView::id).collect();
        Ok(Checkpoint { manifest, sealed, replaced })
    }

    fn describe(&self, segment: &SegmentView, bytes: u64) -> ManifestSegment {
        let deleted = (0..segment.len())
            .map(|row| (row, segment.deleted(row)))
            .filter(|(_, deleted)| *deleted <= self.digest.lsn)
            .collect();
        ManifestSegment { id: segment.id(), rows: segment.len(), bytes, deleted }
    }

    /// Rows that live, by input, ordered by id.
    fn live_rows(&self) -> Vec<(usize, u32)> {
        let mut rows: Vec<(usize, u32)> = Vec::new();
        for (index, input) in self.inputs.iter().enumerate() {
            let live = (0..input.len()).filter(|row| input.is_visible(*row, self.digest.lsn));
            rows.extend(live.map(|row| (index, row)));
        }
        let id = |(input, row): &(usize, u32)| self.inputs[*input].document_id(*row);
        rows.sort_unstable_by(|a, b| id(a).cmp(id(b)));
        rows
    }

    /// These rows as a segment in memory.
    fn copied(&self, live: &[(usize, u32)]) -> Result<SegmentView, StorageError> {
        let mut cursors = self.cursors();
        let mut copy = MutableSegment::new(self.segment, self.dimension, self.storage_type);
        for (index, (number, row)) in live.iter().enumerate() {
            if index.is_multiple_of(COPY_ROWS) {
                self.stop.check()?;
            }
            let (input, vector) = (&self.inputs[*number], cursors[*number].row(*row)?);
            copy.push(input.document_id(*row), &vector, input.metadata_json(*row), input.created(*row));
        }
        Ok(copy.into_ordered(Ancestor::of(&self.inputs, live)))
    }

    /// These rows as a segment whose vectors are in its file, and the file's size: they are in memory one stripe at a time.
    fn written(
        &self,
        live: &[(usize, u32)],
        path: &Path,
        cache: &RowCache,
    ) -> Result<(SegmentView, u64), StorageError> {
        let shape = Shape { dimension: self.dimension, storage_type: self.storage_type };
        let mut cursors = self.cursors();
        let mut writer = OnDiskWriter::create(self.disk.as_ref(), path, self.segment, shape)?;
        for (number, row) in live {
            let (input, vector) = (&self.inputs[*number], cursors[*number].row(*row)?);
            let (id, metadata, created) =
                (input.document_id(*row), input.metadata_json(*row), input.created(*row));
            if writer.push(&FileRow { id, vector: &vector, metadata, created })? {
                self.stop.check()?;
            }
        }
        writer.end(self.disk.as_ref(), cache, Ancestor::of(&self.inputs, live))
    }

    /// One for each input, whose rows in a file are ordered by id.
    fn cursors(&self) -> Vec<RowCursor<'_>> {
        self.inputs.iter().map(|input| RowCursor::new(input.rows())).collect()
    }
}

impl Store {
    /// Prepares a checkpoint at the last applied position, to be run elsewhere; writes go on. `None`: one is under way, or
    /// there is nothing to do.
    pub fn begin_checkpoint(&mut self) -> Result<Option<CheckpointJob>, StorageError> {
        let digest = self.digest();
        if self.is_checkpointing || digest.lsn == self.manifest.lsn() {
            return Ok(None);
        }
        self.log.rotate()?;
        let (kept, fresh) = self.freeze();
        let plan = self.plan_merge(&kept, &fresh)?;
        let (merged, kept): (Vec<_>, Vec<_>) =
            kept.into_iter().partition(|(segment, _)| plan.contains(&segment.id()));
        let merged = merged.into_iter().map(|(segment, _)| segment);
        let segment = self.take_segment_id();
        self.is_checkpointing = true;
        Ok(Some(CheckpointJob {
            disk: self.place.disk.clone(),
            directory: self.home.clone(),
            dimension: self.meta.identity.dimension,
            storage_type: self.meta.identity.storage_type,
            rows: self.place.rows.clone(),
            digest,
            manifest: self.manifest.id + 1,
            segment,
            inputs: fresh.into_iter().chain(merged).collect(),
            kept,
            window: self.applied.window.clone(),
            stop: StopFlag::default(),
        }))
    }

    /// Ends the segment that took rows so far. Returns the segments in files, with the sizes of those, and the others.
    fn freeze(&mut self) -> (Vec<(SegmentView, u64)>, Vec<SegmentView>) {
        let shared = self.shared.clone();
        let mut documents = shared.documents.write().expect("no panic under this lock");
        if !documents.mutable().is_empty() {
            documents.freeze(self.take_segment_id());
        }
        let full = documents.full_segments().to_vec();
        drop(documents);
        let (mut in_files, mut fresh) = (Vec::new(), Vec::new());
        for segment in full {
            match self.manifest.segments.iter().find(|stored| stored.id == segment.id()) {
                Some(stored) => in_files.push((segment, stored.bytes)),
                None => fresh.push(segment),
            }
        }
        (in_files, fresh)
    }

    /// Which segments to write again with the fresh rows.
    fn plan_merge(
        &self,
        in_files: &[(SegmentView, u64)],
        fresh: &[SegmentView],
    ) -> Result<Vec<SegmentId>, StorageError> {
        let sizes: Vec<SegmentSize> = in_files
            .iter()
            .map(|(segment, bytes)| {
                let rows = u64::from(segment.len());
                let live_rows =
                    (0..segment.len()).filter(|row| segment.deleted(*row) == Lsn::MAX).count() as u64;
                SegmentSize { id: segment.id(), live_rows, dead_rows: rows - live_rows, bytes: *bytes }
            })
            .collect();
        let fresh_rows = fresh.iter().map(|segment| u64::from(segment.len())).sum();
        let fresh_bytes: usize = fresh.iter().map(SegmentView::bytes).sum();
        // A volume that a merge fills up stops the logs of all replicas: half of what is left stays free.
        let space = self.place.disk.space().map_err(StorageError::read(&self.place.directory))?;
        let room_bytes = SEGMENT_BYTES_MAX.min(space.free_bytes / 2).saturating_sub(fresh_bytes as u64);
        Ok(merge_plan(fresh_rows, &sizes, room_bytes))
    }

    /// Ends the checkpoint: it counts when this returns.
    pub fn finish_checkpoint(
        &mut self,
        outcome: Result<Checkpoint, StorageError>,
    ) -> Result<CheckpointReport, StorageError> {
        assert!(std::mem::take(&mut self.is_checkpointing), "a checkpoint was begun");
        let Checkpoint { mut manifest, sealed, replaced } = outcome?;
        manifest.next_segment = manifest.next_segment.max(self.next_segment);
        let old = std::mem::replace(&mut self.manifest, manifest);
        let log_bytes = self.log.bytes();
        let (checkpoint, id) = (self.manifest.lsn(), self.manifest.id);
        let advanced = self.save(|meta| {
            (meta.checkpoint, meta.manifest) = (checkpoint, id);
            // Also after a failed write, when the marks stay behind: what is applied is committed and durable.
            (meta.commit, meta.durable) = (meta.commit.max(checkpoint), meta.durable.max(checkpoint));
        });
        if let Err(error) = advanced {
            // Which of the two manifests counts is known again when the replica is opened.
            self.manifest = old;
            self.log.poison();
            return Err(error);
        }
        self.take_in(sealed.as_ref(), &replaced);
        self.publish();
        let released = self.release_log();
        let removed = self.remove_replaced(&old, &replaced);
        Ok(CheckpointReport {
            lsn: checkpoint,
            rows: sealed.map_or(0, |(segment, _)| segment.len()),
            merged: old.segments.iter().filter(|segment| replaced.contains(&segment.id)).count(),
            segments: self.manifest.segments.len(),
            released_bytes: log_bytes.saturating_sub(self.log.bytes()),
            not_removed: released.and(removed).err(),
        })
    }

    /// A whole checkpoint, for callers that can wait.
    pub fn checkpoint(&mut self) -> Result<Option<CheckpointReport>, StorageError> {
        match self.begin_checkpoint()? {
            Some(job) => {
                let outcome = job.run();
                self.finish_checkpoint(outcome).map(Some)
            }
            None => Ok(None),
        }
    }

    fn take_in(&self, sealed: Option<&(SegmentView, Vec<Location>)>, replaced: &[SegmentId]) {
        let documents = || self.shared.documents.write().expect("no panic under this lock");
        if let Some((segment, origins)) = sealed {
            documents().add_copy(segment.clone());
            for (index, origins) in origins.chunks(RELOCATE_ROWS).enumerate() {
                documents().relocate(segment, (index * RELOCATE_ROWS) as u32, origins);
            }
        }
        documents().retire(replaced);
    }

    /// Removes the files that only `old` names, and those that could not be removed before.
    fn remove_replaced(&mut self, old: &Manifest, replaced: &[SegmentId]) -> Result<(), StorageError> {
        let in_files = |id: &&SegmentId| old.segments.iter().any(|segment| segment.id == **id);
        self.leftovers.extend(replaced.iter().filter(in_files).map(|id| file::path_of(&self.home, *id)));
        self.leftovers.extend(replaced.iter().flat_map(|id| index_paths(&self.home, *id)));
        if old.id > 0 {
            self.leftovers.push(Manifest::path_of(&self.home, old.id));
        }
        self.remove_leftovers()
    }

    fn take_segment_id(&mut self) -> SegmentId {
        let id = self.next_segment;
        self.next_segment = SegmentId(id.0.checked_add(1).expect("fewer than 2^32 segments"));
        id
    }
}
