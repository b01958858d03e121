//! [`Store`]: one replica on its disk and in memory. Log first, then documents; checkpoints beside.
//!
//! `checkpoint ≤ applied = durable ≤ end of the log`; applied and durable are one, since a group is applied as soon as
//! it is durable. One owner calls everything here; all of it blocks. Readers use a [`StoreReader`].

use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::{Arc, RwLock, TryLockError};

use arc_swap::ArcSwap;

use super::commit::Group;
use super::documents::Documents;
use super::effect::Effect;
use super::log::{Log, LogPlace};
use super::manifest::Manifest;
use super::op_window::{OpKey, OpWindow, Receipt};
use super::replica_meta::{ReplicaIdentity, ReplicaMeta};
use super::segment::SegmentId;
use super::snapshot::Snapshot;
use super::{StorageError, opening};
use crate::document::Document;
use crate::ids::{Epoch, Lsn};
use crate::runtime::disk::Disk;

/// Size of what is written to find out whether a disk is well: a block of the file system.
const PROBE_BYTES: usize = 4096;

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
    /// Files that no checkpoint names any more and that could not be removed yet.
    pub(super) leftovers: Vec<PathBuf>,
}

/// What readers of a replica use: from any thread, at any time.
#[derive(Clone)]
pub struct StoreReader {
    pub(super) documents: Arc<RwLock<Documents>>,
    pub(super) snapshot: Arc<ArcSwap<Snapshot>>,
}

/// The documents are being changed at the moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Busy;

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

    /// Writes a small file, durably, and removes it: finds out whether the disk is well again.
    pub fn probe(place: &StorePlace) -> Result<(), StorageError> {
        let StorePlace { disk, directory } = place;
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
        let documents = self.shared.documents.read().expect("no panic under this lock");
        self.log.bytes().max(documents.mutable().content_bytes() / 2)
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

    pub(super) fn publish(&self) {
        let documents = self.shared.documents.read().expect("no panic under this lock");
        self.shared.snapshot.store(Arc::new(documents.snapshot()));
    }

    pub(super) fn save_meta(&mut self) -> Result<(), StorageError> {
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

    /// As [`StoreReader::get`]; `Err` instead of waiting while a group is being applied.
    pub fn try_get(&self, id: &str, with_vector: bool) -> Result<Option<(Document, Lsn)>, Busy> {
        match self.documents.try_read() {
            Ok(documents) => Ok(documents.get(id, with_vector)),
            Err(TryLockError::WouldBlock) => Err(Busy),
            Err(TryLockError::Poisoned(_)) => panic!("no panic under this lock"),
        }
    }

    /// Counts and sizes.
    pub fn statistics(&self) -> StoreStatistics {
        let snapshot = self.snapshot();
        StoreStatistics {
            documents: snapshot.documents,
            deleted_rows: snapshot.rows().saturating_sub(snapshot.documents),
            vector_bytes: snapshot.segments.iter().map(|segment| segment.vector_bytes() as u64).sum(),
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
