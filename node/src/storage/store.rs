//! [`Store`]: one replica on its disk and in memory. Log first, then documents; checkpoints beside.
//!
//! `checkpoint ≤ applied ≤ min(commit, durable)`, `durable ≤ end of the log`. What is applied is committed and never undone;
//! what lies behind may be cut when another replica's log is the truth. One owner calls everything here; all of it
//! blocks. Readers use a [`StoreReader`], or a [`LogReader`] for records.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::{Arc, TryLockError};

use vectorsphere_index::WIDTH_USUAL;

use super::applied::Applied;
use super::data_dir::generation_directory;
use super::documents::Documents;
use super::log::{Log, LogPlace, LogReader};
use super::manifest::Manifest;
use super::pending::Pending;
use super::reigns::Reigns;
use super::replica_meta::{self, Membership, ReplicaIdentity, ReplicaMeta};
use super::segment::{RowPlace, SegmentId, SegmentIndex, SegmentView};
use super::snapshot::Snapshot;
use super::transfer::Pins;
use super::{StorageError, opening};
use crate::document::Document;
use crate::ids::{Epoch, Lsn};
use crate::runtime::disk::Disk;
use crate::runtime::sync::{ArcSwap, RwLock};

/// Size of what is written to find out whether a disk is well: a block of the file system.
const PROBE_BYTES: usize = 4096;
/// A log that other replicas still need is kept up to this size; whoever needs more gets a snapshot.
pub const LOG_KEEP_BYTES_MAX: u64 = 8 << 30;

/// Where a replica lies.
#[derive(Clone)]
pub struct StorePlace {
    /// The disk.
    pub disk: Arc<dyn Disk>,
    /// The replica's directory.
    pub directory: PathBuf,
    /// Where vectors of segments are kept; files are the same for either, so it may be another one at each opening.
    pub rows: RowPlace,
}

/// One replica, open. One owner.
pub struct Store {
    pub(super) place: StorePlace,
    /// The generation's folder.
    pub(super) home: PathBuf,
    /// As it is on the disk.
    pub(super) meta: ReplicaMeta,
    /// As it will be there with the next write, like the two below.
    pub(super) reigns: Reigns,
    pub(super) membership: Membership,
    /// The end of a log whose tail was cut while opening, until a later commit point is heard of.
    pub(super) torn_at: Option<Lsn>,
    pub(super) log: Log,
    /// The reign that [`Store::start_epoch`] began, until another primary is heard of.
    pub(super) leads: Option<Epoch>,
    pub(super) pending: Pending,
    pub(super) applied: Applied,
    pub(super) shared: StoreReader,
    pub(super) manifest: Manifest,
    /// No segment has had this number, on disk or in memory.
    pub(super) next_segment: SegmentId,
    /// A job of [`Store::begin_checkpoint`] is under way.
    pub(super) is_checkpointing: bool,
    /// Other replicas may ask for records behind this position.
    pub(super) keep_from: Lsn,
    /// Checkpoints that other replicas read.
    pub(super) pins: Pins,
    /// Files that no checkpoint names any more and that could not be removed yet.
    pub(super) leftovers: Vec<PathBuf>,
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
    /// A torn tail was cut now, or earlier and no later commit point was heard of since: the replica may lack something
    /// that it once acknowledged.
    pub tail_was_cut: bool,
    /// The last process closed the replica in order.
    pub clean_stop: bool,
    /// Live documents.
    pub documents: u64,
    /// Last applied position.
    pub applied: Lsn,
    /// Last position.
    pub end: Lsn,
}

/// Where a replica's log stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Positions {
    /// The first record that is there; the next one when there is none.
    pub first: Lsn,
    /// The last record.
    pub end: Lsn,
    /// The last durable record, which ends a batch.
    pub durable: Lsn,
    /// The last applied record.
    pub applied: Lsn,
    /// The replica obeys no smaller epoch.
    pub promised: Epoch,
    /// The reigns of all records that are there, and of the one before them.
    pub reigns: Reigns,
}

/// Counts and sizes.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct StoreStatistics {
    /// Live documents.
    pub documents: u64,
    /// Rows that are deleted or replaced and wait for a merge.
    pub deleted_rows: u64,
    /// Bytes of vectors in memory.
    pub vector_bytes: u64,
    /// Bytes of indexes in memory.
    pub index_bytes: u64,
    /// Rows in segments that have an index.
    pub indexed_rows: u64,
    /// Mean recall of ten hits at the default effort, over rows; 1 where they are scanned. `None`: of some nothing was measured.
    pub recall_estimate: Option<f64>,
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
        let StorePlace { disk, directory, .. } = place;
        assert!(
            ReplicaMeta::read(disk.as_ref(), directory)?.is_none(),
            "{} holds a replica",
            directory.display()
        );
        disk.remove_dir_all(directory).map_err(StorageError::write(directory))?;
        let meta = ReplicaMeta::fresh(identity);
        let home = generation_directory(directory, meta.generation);
        make_generation(disk.as_ref(), &home)?;
        Log::create(log_place(place, &home, &meta.identity), Lsn::ZERO, Epoch::default())?;
        meta.write(disk.as_ref(), directory)
    }

    /// Opens a replica: reads its segments, replays its log, applies it up to the last known commit point.
    ///
    /// # Errors
    /// [`StorageError::Damaged`] when anything that must be there is missing or changed; nothing is changed then.
    pub fn open(place: StorePlace, meta: ReplicaMeta) -> Result<(Store, OpenReport), StorageError> {
        opening::open(place, meta)
    }

    /// Removes a replica, which nobody has open. After a crash it is there, or it is as if it had never been formatted.
    pub fn remove(disk: &dyn Disk, directory: &Path) -> Result<(), StorageError> {
        let meta = directory.join(replica_meta::NAME);
        match disk.remove(&meta) {
            Ok(()) => disk.sync_dir(directory).map_err(StorageError::sync(directory))?,
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => return Err(StorageError::write(&meta)(error)),
        }
        disk.remove_dir_all(directory).map_err(StorageError::write(directory))
    }

    /// Writes a small file, durably, and removes it: finds out whether the disk is well again.
    pub fn probe(place: &StorePlace) -> Result<(), StorageError> {
        let StorePlace { disk, directory, .. } = place;
        // An opening removes what ends like this.
        let path = directory.join("probe.tmp");
        match disk.remove(&path) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                return Err(StorageError::write(&path)(error));
            }
            _ => {}
        }
        let mut file = disk.create(&path).map_err(StorageError::write(&path))?;
        file.append(&[0; PROBE_BYTES]).map_err(StorageError::write(&path))?;
        file.sync().map_err(StorageError::sync(&path))?;
        disk.remove(&path).map_err(StorageError::write(&path))
    }

    /// Makes the group durable that [`Store::stage`], [`Store::start_epoch`] and [`Store::receive`] added to.
    ///
    /// # Errors
    /// It is unknown then which of its records a later opening finds; the replica takes nothing more until that.
    pub fn sync(&mut self) -> Result<(), StorageError> {
        self.log.sync()
    }

    /// Obeys no smaller epoch from now on, durably. A smaller one than before changes nothing.
    ///
    /// # Errors
    /// The promise may be found by a later opening; it does not hold before.
    pub fn promise(&mut self, epoch: Epoch) -> Result<(), StorageError> {
        if epoch <= self.meta.promised_epoch {
            return Ok(());
        }
        // Even a promise that is not known to be durable may be: nothing more is written in an earlier reign.
        self.leads = None;
        self.save(|meta| meta.promised_epoch = epoch)
    }

    /// Takes note of the in-sync replicas; [`Store::save_marks`] makes it durable.
    pub fn note_membership(&mut self, membership: Membership) {
        self.membership = membership;
    }

    /// Keeps the log behind `lsn` for other replicas, as far as [`LOG_KEEP_BYTES_MAX`] allows. What nobody needs any more,
    /// of log and checkpoints, goes.
    pub fn keep_from(&mut self, lsn: Lsn) -> Result<(), StorageError> {
        self.keep_from = lsn;
        let removed = self.remove_leftovers();
        self.release_log().and(removed)
    }

    /// What readers use.
    pub fn reader(&self) -> StoreReader {
        self.shared.clone()
    }

    /// Reads the durable log on any thread.
    pub fn log_reader(&self) -> LogReader {
        self.log.reader()
    }

    /// Who this is, and what of its files counts: as it is on the disk.
    pub fn meta(&self) -> &ReplicaMeta {
        &self.meta
    }

    /// Where the log stands.
    pub fn positions(&self) -> Positions {
        Positions {
            first: self.log.first(),
            end: self.log.end(),
            durable: self.log.durable(),
            applied: self.applied(),
            promised: self.meta.promised_epoch,
            reigns: self.reigns.clone(),
        }
    }

    /// Position of the last durable record.
    pub fn durable(&self) -> Lsn {
        self.log.durable()
    }

    /// Position of the last record.
    pub fn end(&self) -> Lsn {
        self.log.end()
    }

    /// See [`OpenReport::tail_was_cut`]; as it is now.
    pub fn tail_was_cut(&self) -> bool {
        self.torn_at.is_some()
    }

    /// True after a failed write: the replica takes no more writes until it is opened again.
    pub fn is_poisoned(&self) -> bool {
        self.log.is_poisoned()
    }

    /// Bytes of log and segments on disk.
    pub fn disk_bytes(&self) -> u64 {
        self.log.bytes() + self.manifest.bytes()
    }

    /// What a checkpoint would free: bytes of the log behind the last one, or of rows in memory that wait for one, whichever
    /// is more.
    pub fn checkpoint_debt_bytes(&self) -> u64 {
        let documents = self.shared.documents.read().expect("no panic under this lock");
        self.log.bytes_behind(self.manifest.lsn()).max(documents.mutable().content_bytes() / 2)
    }

    /// Writes to `replica.meta` how far the log is durable and how far it is committed, and what else changed, if that is
    /// not there yet.
    pub fn save_marks(&mut self) -> Result<(), StorageError> {
        self.save(|_| {})
    }

    /// The last call: leaves a mark that the process ended in order.
    pub fn close(mut self) -> Result<(), StorageError> {
        let synced = self.log.sync().is_ok();
        self.save(|meta| meta.clean_stop = synced)
    }

    pub(super) fn publish(&self) {
        let documents = self.shared.documents.read().expect("no panic under this lock");
        self.shared.snapshot.store(Arc::new(documents.snapshot()));
    }

    /// Makes `replica.meta` what it is now, with a change, if that differs from what is on the disk. After an error the
    /// old one or the new one is there.
    pub(super) fn save(&mut self, change: impl FnOnce(&mut ReplicaMeta)) -> Result<(), StorageError> {
        let mut meta = self.meta.clone();
        meta.reigns = self.reigns.clone();
        meta.membership = self.membership.clone();
        meta.tail_was_cut = self.torn_at.is_some();
        meta.clean_stop = false;
        // After a failed write or cut nobody knows what the log has: the marks stay where they are.
        if !self.is_poisoned() {
            (meta.commit, meta.durable) = (self.applied(), self.log.durable());
        }
        change(&mut meta);
        if meta != self.meta {
            meta.write(self.place.disk.as_ref(), &self.place.directory)?;
            self.meta = meta;
        }
        Ok(())
    }

    /// Removes the part of the log that neither recovery nor another replica needs.
    pub(super) fn release_log(&mut self) -> Result<(), StorageError> {
        let checkpoint = self.manifest.lsn();
        let wanted = checkpoint.min(self.keep_from).min(self.pins.oldest());
        let released = self.log.release(wanted, checkpoint, LOG_KEEP_BYTES_MAX);
        self.reigns.forget_before(Lsn(self.log.first().0 - 1));
        released
    }
}

impl StoreReader {
    /// Everything at the last applied position, for searches and listings.
    pub fn snapshot(&self) -> Arc<Snapshot> {
        self.snapshot.load_full()
    }

    /// The newest version of a document, and its number; the vector is empty when it is not wanted.
    ///
    /// # Errors
    /// When the vector cannot be read, or is not what was written.
    pub fn get(&self, id: &str, with_vector: bool) -> Result<Option<(Document, Lsn)>, StorageError> {
        // Its file is read without the lock.
        let found = self.documents.read().expect("no panic under this lock").find(id);
        read_out(found, with_vector)
    }

    /// As [`StoreReader::get`]; `None` instead of waiting while a group is being applied, or for a file.
    pub fn try_get(&self, id: &str, with_vector: bool) -> Option<Option<(Document, Lsn)>> {
        let found = match self.documents.try_read() {
            Ok(documents) => documents.find(id),
            Err(TryLockError::WouldBlock) => return None,
            Err(TryLockError::Poisoned(_)) => panic!("no panic under this lock"),
        };
        if with_vector && found.as_ref().is_some_and(|(segment, _)| segment.rows().is_on_disk()) {
            return None;
        }
        read_out(found, with_vector).ok()
    }

    /// Bytes in memory of rows, indexes, and where documents are.
    pub fn bytes(&self) -> usize {
        let indexes: usize = self.snapshot().segments.iter().map(SegmentView::index_bytes).sum();
        self.documents.read().expect("no panic under this lock").bytes() + indexes
    }

    /// Counts and sizes.
    pub fn statistics(&self) -> StoreStatistics {
        let snapshot = self.snapshot();
        let indexed = snapshot.segments.iter().filter(|segment| segment.index().is_some());
        let recall = |segment: &SegmentView| match segment.index() {
            None => Some(1.0),
            Some(SegmentIndex::Graph(graph)) => {
                Some(graph.calibration().recall_at_ten(WIDTH_USUAL).unwrap_or(1.0))
            }
            Some(SegmentIndex::Faiss(_)) => None,
        };
        let found = |segment: &SegmentView| Some(recall(segment)? * f64::from(segment.len()));
        let found: Option<f64> = snapshot.segments.iter().map(found).sum();
        StoreStatistics {
            documents: snapshot.documents,
            deleted_rows: snapshot.rows().saturating_sub(snapshot.documents),
            vector_bytes: snapshot.segments.iter().map(|segment| segment.vector_bytes() as u64).sum(),
            index_bytes: snapshot.segments.iter().map(|segment| segment.index_bytes() as u64).sum(),
            indexed_rows: indexed.map(|segment| u64::from(segment.len())).sum(),
            recall_estimate: found.map(|found| found / snapshot.rows().max(1) as f64),
            segments: snapshot.segments.len() as u32,
            last_lsn: snapshot.lsn,
        }
    }
}

fn read_out(
    found: Option<(SegmentView, u32)>,
    with_vector: bool,
) -> Result<Option<(Document, Lsn)>, StorageError> {
    let Some((segment, row)) = found else { return Ok(None) };
    Ok(Some((segment.document(row, with_vector)?, segment.created(row))))
}

/// Where the log of a generation lies.
pub(super) fn log_place(place: &StorePlace, home: &Path, identity: &ReplicaIdentity) -> LogPlace {
    LogPlace { disk: place.disk.clone(), directory: home.join("wal"), replica: identity.replica }
}

/// Makes the folders of a generation.
pub(super) fn make_generation(disk: &dyn Disk, home: &Path) -> Result<(), StorageError> {
    for part in ["wal", "segments"] {
        let part = home.join(part);
        disk.create_dir_all(&part).map_err(StorageError::write(&part))?;
    }
    Ok(())
}
