//! [`Store`]: one replica on its disk and in memory. Log first, then documents; checkpoints beside.
//!
//! `checkpoint ≤ applied = durable ≤ end of the log`; applied and durable are one, since a group is applied as soon as
//! it is durable. One owner calls everything here; all of it blocks. Readers use a [`StoreReader`].

use std::path::{Path, PathBuf};
use std::sync::{Arc, RwLock};

use arc_swap::ArcSwap;

use super::checkpoint::{Checkpoint, CheckpointJob, CheckpointReport, SegmentSize, merge_plan};
use super::commit::Group;
use super::documents::Documents;
use super::effect::Effect;
use super::log::{Log, LogPlace};
use super::manifest::Manifest;
use super::op_window::{OpKey, OpWindow, Receipt};
use super::replica_meta::{ReplicaIdentity, ReplicaMeta};
use super::segment::{SegmentId, file};
use super::snapshot::Snapshot;
use super::{StorageError, opening};
use crate::document::Document;
use crate::ids::{Epoch, Lsn};
use crate::runtime::disk::Disk;

/// Rows that are moved to a new segment in one hold of the lock that look-ups share.
const RELOCATE_ROWS: usize = 4096;

/// Where a replica lies.
#[derive(Clone)]
pub struct StorePlace {
    /// The disk.
    pub disk: Arc<dyn Disk>,
    /// The replica's directory.
    pub directory: PathBuf,
}

/// One replica, open. One owner.
pub struct Store {
    pub(super) place: StorePlace,
    pub(super) meta: ReplicaMeta,
    pub(super) log: Log,
    pub(super) shared: StoreReader,
    pub(super) window: OpWindow,
    pub(super) manifest: Manifest,
    /// No segment has had this number, on disk or in memory.
    pub(super) next_segment: SegmentId,
    pub(super) epoch: Epoch,
    /// A job of [`Store::begin_checkpoint`] is under way.
    pub(super) is_checkpointing: bool,
}

/// What readers of a replica use: from any thread, at any time.
#[derive(Clone)]
pub struct StoreReader {
    pub(super) documents: Arc<RwLock<Documents>>,
    pub(super) snapshot: Arc<ArcSwap<Snapshot>>,
}

/// What opening found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OpenReport {
    /// Records replayed from the log.
    pub records: u64,
    /// Bytes of a torn tail that were cut.
    pub cut_bytes: u64,
    /// The last process closed the replica in order.
    pub clean_stop: bool,
    /// Live documents.
    pub documents: u64,
    /// Last position.
    pub lsn: Lsn,
}

/// Counts and sizes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StoreStatistics {
    /// Live documents.
    pub documents: u64,
    /// Rows that are deleted or replaced and wait for a merge.
    pub deleted_rows: u64,
    /// Bytes of vectors in memory.
    pub vector_bytes: u64,
    /// Bytes of everything in memory.
    pub memory_bytes: u64,
    /// Segments with rows.
    pub segments: u32,
    /// Last position.
    pub last_lsn: Lsn,
}

impl Store {
    /// Makes the directory of a new replica, in place of what an unfinished attempt left there.
    ///
    /// # Panics
    /// When a replica was formatted there to the end: a directory is given one identity, once.
    pub fn format(place: &StorePlace, identity: ReplicaIdentity) -> Result<(), StorageError> {
        let StorePlace { disk, directory } = place;
        assert!(
            ReplicaMeta::read(disk.as_ref(), directory)?.is_none(),
            "{} holds a replica",
            directory.display()
        );
        disk.remove_dir_all(directory).map_err(StorageError::write(directory))?;
        for part in ["wal", "segments"] {
            let part = directory.join(part);
            disk.create_dir_all(&part).map_err(StorageError::write(&part))?;
        }
        Log::create(log_place(place, &identity))?;
        ReplicaMeta::fresh(identity).write(disk.as_ref(), directory)
    }

    /// Opens a replica: reads its segments, replays its log.
    ///
    /// # Errors
    /// [`StorageError::Damaged`] when anything that must be there is missing or changed; nothing is changed then.
    pub fn open(place: StorePlace, meta: ReplicaMeta) -> Result<(Store, OpenReport), StorageError> {
        opening::open(place, meta)
    }

    /// Begins a reign: from now on this replica writes in `epoch`.
    ///
    /// # Panics
    /// When the replica obeyed this epoch or a later one before.
    pub fn start_epoch(&mut self, epoch: Epoch) -> Result<Lsn, StorageError> {
        assert!(epoch > self.meta.promised_epoch, "{epoch} does not follow {}", self.meta.promised_epoch);
        let first = self.log.end().next();
        self.meta.epochs.retain(|(_, start)| *start < first);
        self.meta.epochs.push((epoch, first));
        self.meta.promised_epoch = epoch;
        self.meta.clean_stop = false;
        self.save_meta()?;
        self.epoch = epoch;
        let (kind, body) = Effect::EpochStart.encode();
        let lsn = self.log.append(epoch, OpKey::NONE, vec![(kind, body)])?;
        self.log.sync()?;
        self.apply(&Group::of_one(lsn, Effect::EpochStart));
        Ok(lsn)
    }

    /// What readers use.
    pub fn reader(&self) -> StoreReader {
        self.shared.clone()
    }

    /// Who this is, and what of its files counts.
    pub fn meta(&self) -> &ReplicaMeta {
        &self.meta
    }

    /// The reign in which it writes.
    pub fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// Position of the last durable and applied record.
    pub fn applied(&self) -> Lsn {
        self.log.durable()
    }

    /// True after a failed write: the replica takes no more writes until it is opened again.
    pub fn is_poisoned(&self) -> bool {
        self.log.is_poisoned()
    }

    /// Bytes of log and segments on disk.
    pub fn disk_bytes(&self) -> u64 {
        self.log.bytes() + self.manifest.bytes()
    }

    /// What a checkpoint would free: bytes of the log, or of rows in memory that wait for one, whichever is more.
    pub fn checkpoint_debt_bytes(&self) -> u64 {
        let rows = self.shared.documents.read().expect("no panic under this lock").mutable_bytes() as u64;
        self.log.bytes().max(rows / 2)
    }

    /// Writes to `replica.meta` how far the log is durable, if that is not there yet.
    pub fn save_durable_mark(&mut self) -> Result<(), StorageError> {
        if self.meta.durable == self.log.durable() {
            return Ok(());
        }
        self.meta.clean_stop = false;
        self.save_meta()
    }

    /// The last call: leaves a mark that the process ended in order.
    pub fn close(mut self) -> Result<(), StorageError> {
        self.meta.clean_stop = !self.is_poisoned();
        self.save_meta()
    }

    /// Prepares a checkpoint at the last position, to be run elsewhere; writes go on. `None`: one is under way, or
    /// there is nothing to do.
    pub fn begin_checkpoint(&mut self) -> Result<Option<CheckpointJob>, StorageError> {
        let lsn = self.applied();
        if self.is_checkpointing || lsn == self.manifest.lsn {
            return Ok(None);
        }
        self.log.rotate(self.epoch)?;
        let next = self.take_segment_id();
        let mut documents = self.shared.documents.write().expect("no panic under this lock");
        documents.freeze(next);
        let full = documents.full_segments().to_vec();
        drop(documents);
        let in_files = |id: SegmentId| self.manifest.segments.iter().find(|segment| segment.id == id);
        let (kept, fresh): (Vec<_>, Vec<_>) =
            full.into_iter().partition(|segment| in_files(segment.id()).is_some());
        let sizes: Vec<SegmentSize> = kept
            .iter()
            .map(|segment| {
                let live = (0..segment.len()).filter(|row| segment.deleted(*row) > lsn).count() as u64;
                let dead_rows = u64::from(segment.len()) - live;
                SegmentSize { id: segment.id(), live_rows: live, dead_rows }
            })
            .collect();
        let fresh_rows = fresh.iter().map(|segment| u64::from(segment.len())).sum();
        let plan = merge_plan(fresh_rows, &sizes);
        let (merged, kept): (Vec<_>, Vec<_>) =
            kept.into_iter().partition(|segment| plan.contains(&segment.id()));
        let kept = kept
            .into_iter()
            .map(|segment| {
                let bytes = in_files(segment.id()).expect("it was partitioned by this").bytes;
                (segment, bytes)
            })
            .collect();
        let segment = self.take_segment_id();
        self.is_checkpointing = true;
        Ok(Some(CheckpointJob {
            disk: self.place.disk.clone(),
            directory: self.place.directory.clone(),
            dimension: self.meta.identity.dimension,
            lsn,
            manifest: self.manifest.id + 1,
            segment,
            inputs: fresh.into_iter().chain(merged).collect(),
            kept,
            window: self.window.clone(),
        }))
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
        let before = (self.meta.checkpoint, self.meta.manifest, self.meta.log_start);
        self.meta.checkpoint = self.manifest.lsn;
        self.meta.manifest = self.manifest.id;
        self.meta.log_start = self.manifest.lsn.next().max(self.meta.log_start);
        if let Err(error) = self.save_meta() {
            // Which of the two manifests counts is known again when the replica is opened.
            (self.meta.checkpoint, self.meta.manifest, self.meta.log_start) = before;
            self.manifest = old;
            self.log.poison();
            return Err(error);
        }
        self.take_in(sealed.as_ref(), &replaced);
        self.publish();
        self.log.release(self.manifest.lsn)?;
        self.remove_replaced(&old, &replaced)?;
        Ok(CheckpointReport {
            lsn: self.manifest.lsn,
            rows: sealed.map_or(0, |(segment, _)| segment.len()),
            merged: old.segments.iter().filter(|segment| replaced.contains(&segment.id)).count(),
            segments: self.manifest.segments.len(),
            released_bytes: log_bytes.saturating_sub(self.log.bytes()),
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

    fn take_in(
        &self,
        sealed: Option<&(super::segment::SegmentView, Vec<super::documents::Location>)>,
        replaced: &[SegmentId],
    ) {
        let documents = || self.shared.documents.write().expect("no panic under this lock");
        if let Some((segment, origins)) = sealed {
            documents().add_copy(segment.clone());
            for (index, origins) in origins.chunks(RELOCATE_ROWS).enumerate() {
                documents().relocate(segment, (index * RELOCATE_ROWS) as u32, origins);
            }
        }
        documents().retire(replaced);
    }

    fn remove_replaced(&self, old: &Manifest, replaced: &[SegmentId]) -> Result<(), StorageError> {
        let StorePlace { disk, directory } = &self.place;
        let in_files = |id: &&SegmentId| old.segments.iter().any(|segment| segment.id == **id);
        for id in replaced.iter().filter(in_files) {
            let path = file::path_of(directory, *id);
            disk.remove(&path).map_err(StorageError::write(&path))?;
        }
        if old.id > 0 {
            let path = Manifest::path_of(directory, old.id);
            disk.remove(&path).map_err(StorageError::write(&path))?;
        }
        Ok(())
    }

    pub(super) fn publish(&self) {
        let documents = self.shared.documents.read().expect("no panic under this lock");
        self.shared.snapshot.store(Arc::new(documents.snapshot()));
    }

    fn take_segment_id(&mut self) -> SegmentId {
        let id = self.next_segment;
        self.next_segment = SegmentId(id.0.checked_add(1).expect("fewer than 2^32 segments"));
        id
    }

    fn save_meta(&mut self) -> Result<(), StorageError> {
        let durable = std::mem::replace(&mut self.meta.durable, self.log.durable());
        let outcome = self.meta.write(self.place.disk.as_ref(), &self.place.directory);
        if outcome.is_err() {
            self.meta.durable = durable;
        }
        outcome
    }
}

impl StoreReader {
    /// Everything at the last applied position, for searches and listings.
    pub fn snapshot(&self) -> Arc<Snapshot> {
        self.snapshot.load_full()
    }

    /// The newest version of a document, and its number; the vector is empty when it is not wanted.
    pub fn get(&self, id: &str, with_vector: bool) -> Option<(Document, Lsn)> {
        self.documents.read().expect("no panic under this lock").get(id, with_vector)
    }

    /// Counts and sizes.
    pub fn statistics(&self) -> StoreStatistics {
        let snapshot = self.snapshot();
        StoreStatistics {
            documents: snapshot.documents,
            deleted_rows: snapshot.rows().saturating_sub(snapshot.documents),
            vector_bytes: snapshot.segments.iter().map(|segment| segment.vector_bytes() as u64).sum(),
            memory_bytes: self.documents.read().expect("no panic under this lock").bytes() as u64,
            segments: snapshot.segments.len() as u32,
            last_lsn: snapshot.lsn,
        }
    }
}

/// Where the log of a replica lies.
pub(super) fn log_place(place: &StorePlace, identity: &ReplicaIdentity) -> LogPlace {
    let directory: &Path = &place.directory;
    LogPlace { disk: place.disk.clone(), directory: directory.join("wal"), replica: identity.replica }
}

/// What became of one batch of a group.
pub type Outcome = Result<Receipt, super::commit::Refusal>;
