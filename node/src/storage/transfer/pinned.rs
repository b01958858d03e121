//! [`PinnedCheckpoint`]: a checkpoint whose files stay while another replica reads them.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock, Weak};

use bytes::Bytes;
use vectorsphere_index::StorageType;

use super::description::{SnapshotDescription, SnapshotFile};
use crate::ids::{Lsn, ShardId};
use crate::runtime::disk::Disk;
use crate::storage::StorageError;
use crate::storage::digest::Digest;
use crate::storage::manifest::Manifest;
use crate::storage::reigns::Reigns;
use crate::storage::segment::SegmentId;
use crate::storage::segment::file::{self, Shape};
use crate::storage::store::Store;

/// Bytes that are hashed at once.
const HASH_BYTES: usize = 1 << 20;

/// The files of a checkpoint, and the log behind it: they stay while this lives and the replica is open. Clones are the
/// same pin; all calls block and may be made on any thread.
#[derive(Clone)]
pub struct PinnedCheckpoint(Arc<Pinned>);

struct Pinned {
    disk: Arc<dyn Disk>,
    home: PathBuf,
    shard: ShardId,
    dimension: u32,
    storage_type: StorageType,
    digest: Digest,
    reigns: Reigns,
    manifest: u64,
    /// With the sizes of their files.
    segments: Vec<(SegmentId, u64)>,
    /// Made when it is asked for: it takes reading all files.
    description: OnceLock<SnapshotDescription>,
}

impl PinnedCheckpoint {
    /// The position of the checkpoint.
    pub fn lsn(&self) -> Lsn {
        self.0.digest.lsn
    }

    /// What the snapshot consists of. The first call reads all files and checks every byte of them.
    ///
    /// # Errors
    /// [`StorageError::Damaged`] when one is missing or changed.
    pub fn description(&self) -> Result<&SnapshotDescription, StorageError> {
        if let Some(description) = self.0.description.get() {
            return Ok(description);
        }
        let description = self.0.describe()?;
        Ok(self.0.description.get_or_init(|| description))
    }

    /// Bytes of a file of the description from `offset` on, `length` of them; fewer where the file ends.
    ///
    /// # Errors
    /// [`StorageError::Refused`] when there is no such file or offset.
    pub fn read(&self, file: u32, offset: u64, length: usize) -> Result<Bytes, StorageError> {
        let refused = || StorageError::refused(format!("read at {offset} of file {file}"), "it is not there");
        let description = self.description()?;
        let file = description.files.get(file as usize).ok_or_else(refused)?;
        let rest = file.bytes.checked_sub(offset).ok_or_else(refused)?;
        let path = description.path_of(file, &self.0.home);
        let mut bytes = vec![0; rest.min(length as u64) as usize];
        let reader = self.0.disk.open(&path).map_err(StorageError::read(&path))?;
        reader.read_exact_at(&mut bytes, offset).map_err(StorageError::read(&path))?;
        Ok(bytes.into())
    }
}

impl Pinned {
    fn manifest_path(&self) -> PathBuf {
        Manifest::path_of(&self.home, self.manifest)
    }

    fn holds(&self, path: &Path) -> bool {
        self.manifest_path() == path
            || self.segments.iter().any(|(id, _)| file::path_of(&self.home, *id) == path)
    }

    fn describe(&self) -> Result<SnapshotDescription, StorageError> {
        let disk = self.disk.as_ref();
        Manifest::read(disk, &self.home, self.manifest)?;
        let (bytes, blake3) = hash_file(disk, &self.manifest_path())?;
        let mut files = vec![SnapshotFile { segment: None, bytes, blake3 }];
        for (id, bytes) in &self.segments {
            let path = file::path_of(&self.home, *id);
            // Damage is found here, at the replica that has it, not by whoever gets the copy.
            let shape = Shape { dimension: self.dimension, storage_type: self.storage_type };
            file::check(disk, &path, *id, shape)?;
            let (found, blake3) = hash_file(disk, &path)?;
            if found != *bytes {
                return Err(StorageError::damaged(
                    &path,
                    format!("has {found} bytes, its manifest says {bytes}"),
                ));
            }
            files.push(SnapshotFile { segment: Some(*id), bytes: *bytes, blake3 });
        }
        Ok(SnapshotDescription {
            shard: self.shard,
            dimension: self.dimension,
            storage_type: self.storage_type,
            digest: self.digest,
            reigns: self.reigns.clone(),
            manifest: self.manifest,
            files,
        })
    }
}

/// Size and BLAKE3 of a file.
pub(super) fn hash_file(disk: &dyn Disk, path: &Path) -> Result<(u64, [u8; 32]), StorageError> {
    let reader = disk.open(path).map_err(StorageError::read(path))?;
    let length = reader.len().map_err(StorageError::read(path))?;
    let (mut hasher, mut offset) = (blake3::Hasher::new(), 0);
    let mut buffer = vec![0; HASH_BYTES.min(length as usize)];
    while offset < length {
        let part = &mut buffer[..HASH_BYTES.min((length - offset) as usize)];
        reader.read_exact_at(part, offset).map_err(StorageError::read(path))?;
        hasher.update(part);
        offset += part.len() as u64;
    }
    Ok((length, *hasher.finalize().as_bytes()))
}

/// The pins of a replica.
#[derive(Default)]
pub(in crate::storage) struct Pins(Vec<Weak<Pinned>>);

impl Pins {
    /// The oldest position that is pinned; [`Lsn::MAX`] when none is.
    pub(in crate::storage) fn oldest(&self) -> Lsn {
        self.alive().map(|pinned| pinned.digest.lsn).min().unwrap_or(Lsn::MAX)
    }

    /// True when a file has to stay.
    pub(in crate::storage) fn holds(&self, path: &Path) -> bool {
        self.alive().any(|pinned| pinned.holds(path))
    }

    fn alive(&self) -> impl Iterator<Item = Arc<Pinned>> {
        self.0.iter().filter_map(Weak::upgrade)
    }
}

impl Store {
    /// Keeps the newest checkpoint for another replica; `None` before the first one.
    pub fn pin_checkpoint(&mut self) -> Option<PinnedCheckpoint> {
        if self.manifest.id == 0 {
            return None;
        }
        self.pins.0.retain(|pin| pin.strong_count() > 0);
        if let Some(pinned) = self.pins.alive().find(|pinned| pinned.manifest == self.manifest.id) {
            return Some(PinnedCheckpoint(pinned));
        }
        let mut reigns = self.reigns.clone();
        reigns.cut(self.manifest.lsn());
        let pinned = Arc::new(Pinned {
            disk: self.place.disk.clone(),
            home: self.home.clone(),
            shard: self.meta.identity.shard,
            dimension: self.meta.identity.dimension,
            storage_type: self.meta.identity.storage_type,
            digest: self.manifest.digest,
            reigns,
            manifest: self.manifest.id,
            segments: self.manifest.segments.iter().map(|segment| (segment.id, segment.bytes)).collect(),
            description: OnceLock::new(),
        });
        self.pins.0.push(Arc::downgrade(&pinned));
        Some(PinnedCheckpoint(pinned))
    }

    /// Removes files that no checkpoint names any more and that nobody reads. What cannot be removed is tried again.
    pub(in crate::storage) fn remove_leftovers(&mut self) -> Result<(), StorageError> {
        let (disk, pins, mut outcome) = (&self.place.disk, &self.pins, Ok(()));
        self.leftovers.retain(|path| {
            if pins.holds(path) {
                return true;
            }
            match disk.remove(path) {
                Err(error) if error.kind() != ErrorKind::NotFound => {
                    outcome = Err(StorageError::write(path)(error));
                    true
                }
                _ => false,
            }
        });
        outcome
    }
}
