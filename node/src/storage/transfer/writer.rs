//! [`SnapshotWriter`]: puts a snapshot of another replica in the place of what this one has.
//!
//! Files are written to the folder of a new generation. It counts when [`SnapshotWriter::finish`] names it in
//! `replica.meta`, after everything in it was read back, compared with the description, and made durable. A crash at any
//! moment before leaves what was there.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use super::description::{SnapshotDescription, SnapshotFile, StoredDescription};
use super::pinned::hash_file;
use crate::runtime::disk::{Disk, DiskFile};
use crate::storage::StorageError;
use crate::storage::data_dir::{generation_directory, is_generation};
use crate::storage::log::Log;
use crate::storage::manifest::Manifest;
use crate::storage::replica_meta::{ReplicaIdentity, ReplicaMeta};
use crate::storage::store::{StorePlace, log_place, make_generation};
use crate::storage::whole_file::WholeFile;

/// Says which snapshot a generation's folder will hold, so that it is gone on with after an interruption.
pub(in crate::storage) const DESCRIPTION_NAME: &str = "snapshot";

const DESCRIPTION: WholeFile = WholeFile { magic: *b"VSSNAPSH", version: 1 };

/// A snapshot that is being written. One owner.
pub struct SnapshotWriter {
    place: StorePlace,
    identity: ReplicaIdentity,
    description: SnapshotDescription,
    generation: u64,
    home: PathBuf,
    /// Bytes that are there of each file.
    progress: Vec<u64>,
    /// The file that was written to last.
    open: Option<(u32, Box<dyn DiskFile>)>,
}

impl SnapshotWriter {
    /// Begins a snapshot in a replica's directory, which need not be formatted, or goes on with one of the same
    /// description. The replica may be open until [`SnapshotWriter::finish`]; opening it gives the snapshot up.
    ///
    /// # Errors
    /// [`StorageError::Refused`] when the snapshot is not of this shard, or older than what was committed here.
    ///
    /// # Panics
    /// When another replica has the directory.
    pub fn begin(
        place: &StorePlace,
        identity: &ReplicaIdentity,
        description: SnapshotDescription,
    ) -> Result<SnapshotWriter, StorageError> {
        let disk = place.disk.as_ref();
        let meta = meta_before(place, identity, &description)?;
        let generation = meta.map_or(0, |meta| meta.generation) + 1;
        let home = generation_directory(&place.directory, generation);
        if !is_begun(disk, &home, &description) {
            // A `replica.meta` that only the cache shows must be on the platter before what an older one names goes.
            disk.create_dir_all(&place.directory).map_err(StorageError::write(&place.directory))?;
            disk.sync_dir(&place.directory).map_err(StorageError::sync(&place.directory))?;
            remove_drafts(place, generation - 1)?;
            make_generation(disk, &home)?;
            DESCRIPTION.replace(disk, &home.join(DESCRIPTION_NAME), &description.to_stored())?;
        }
        let mut progress = Vec::with_capacity(description.files.len());
        for file in &description.files {
            progress.push(bytes_of(disk, &description.path_of(file, &home), file.bytes)?);
        }
        let (place, identity) = (place.clone(), identity.clone());
        Ok(SnapshotWriter { place, identity, description, generation, home, progress, open: None })
    }

    /// One that an earlier process or connection has begun for the replica, if it is of any use.
    pub fn interrupted(place: &StorePlace, identity: &ReplicaIdentity) -> Option<SnapshotWriter> {
        let disk = place.disk.as_ref();
        let meta = ReplicaMeta::read(disk, &place.directory).ok()?;
        let home = generation_directory(&place.directory, meta.map_or(0, |meta| meta.generation) + 1);
        let stored = DESCRIPTION.read::<StoredDescription>(disk, &home.join(DESCRIPTION_NAME)).ok()??;
        SnapshotWriter::begin(place, identity, SnapshotDescription::parse(stored)?).ok()
    }

    /// Where to go on: the first file that is not whole, and the bytes of it that are there.
    pub fn end(&self) -> (u32, u64) {
        let files = self.description.files.iter().zip(&self.progress);
        let whole = files.take_while(|(file, there)| file.bytes == **there).count();
        (whole as u32, self.progress.get(whole).copied().unwrap_or_default())
    }

    /// What is being written.
    pub fn description(&self) -> &SnapshotDescription {
        &self.description
    }

    /// Bytes that are there of each file of the description: where to go on.
    pub fn progress(&self) -> &[u64] {
        &self.progress
    }

    /// Appends bytes to a file of the description; `offset` is how far it is.
    ///
    /// # Errors
    /// [`StorageError::Refused`] when the bytes do not go on where the file ends. After another one the file begins anew.
    pub fn write(&mut self, file: u32, offset: u64, bytes: &[u8]) -> Result<(), StorageError> {
        let refused =
            |reason: &str| StorageError::refused(format!("snapshot file {file} at {offset}"), reason);
        let index = file as usize;
        let described = self.description.files.get(index).ok_or_else(|| refused("there is no such file"))?;
        if offset != self.progress[index] {
            return Err(refused(&format!("it has {} bytes", self.progress[index])));
        }
        if bytes.len() as u64 > described.bytes - offset {
            return Err(refused(&format!("it will have {} bytes", described.bytes)));
        }
        let path = self.description.path_of(described, &self.home);
        match self.append(file, &path, bytes) {
            Ok(()) => {
                self.progress[index] += bytes.len() as u64;
                Ok(())
            }
            Err(error) => {
                self.give_up(index);
                Err(error)
            }
        }
    }

    /// Verifies all files and lets the snapshot count, durably. The replica, which nobody may have open, is opened with
    /// what this returns.
    ///
    /// # Errors
    /// [`StorageError::Refused`] when files are not what the description says; they begin anew with the next
    /// [`SnapshotWriter::begin`].
    pub fn finish(mut self) -> Result<ReplicaMeta, StorageError> {
        self.open = None;
        let disk = self.place.disk.clone();
        let mut sealed = Ok(());
        for index in 0..self.description.files.len() {
            if let Err(error) = self.seal(disk.as_ref(), index) {
                self.give_up(index);
                sealed = sealed.and(Err(error));
            }
        }
        sealed?;
        self.check_manifest(disk.as_ref())?;
        let lsn = self.description.lsn();
        let epoch = self.description.reigns.epoch_at(lsn);
        // An attempt before this one may have come this far.
        let log_place = log_place(&self.place, &self.home, &self.identity);
        disk.remove_dir_all(&log_place.directory).map_err(StorageError::write(&log_place.directory))?;
        make_generation(disk.as_ref(), &self.home)?;
        Log::create(log_place, lsn, epoch)?;
        for folder in [self.home.join("segments"), self.home.clone()] {
            disk.sync_dir(&folder).map_err(StorageError::sync(&folder))?;
        }
        let before = meta_before(&self.place, &self.identity, &self.description)?;
        let mut meta = before.unwrap_or_else(|| ReplicaMeta::fresh(self.identity.clone()));
        meta.generation = self.generation;
        meta.promised_epoch = meta.promised_epoch.max(epoch);
        meta.reigns = self.description.reigns.clone();
        meta.manifest = self.description.manifest;
        (meta.checkpoint, meta.commit, meta.durable) = (lsn, lsn, lsn);
        meta.clean_stop = false;
        meta.write(disk.as_ref(), &self.place.directory)?;
        Ok(meta)
    }

    fn append(&mut self, file: u32, path: &Path, bytes: &[u8]) -> Result<(), StorageError> {
        let disk = &self.place.disk;
        if self.open.as_ref().is_none_or(|(open, _)| *open != file) {
            let opened =
                if self.progress[file as usize] == 0 { disk.create(path) } else { disk.reopen(path) };
            self.open = Some((file, opened.map_err(StorageError::write(path))?));
        }
        let (_, open) = self.open.as_mut().expect("opened above");
        open.append(bytes).map_err(StorageError::write(path))
    }

    /// Makes a file durable and compares it with the description.
    fn seal(&self, disk: &dyn Disk, index: usize) -> Result<(), StorageError> {
        let described: &SnapshotFile = &self.description.files[index];
        let path = self.description.path_of(described, &self.home);
        let refused = |reason: &str| StorageError::refused(format!("snapshot file {index}"), reason);
        if self.progress[index] != described.bytes {
            return Err(refused(&format!("{} of {} bytes are there", self.progress[index], described.bytes)));
        }
        let mut file = disk.reopen(&path).map_err(StorageError::write(&path))?;
        file.sync().map_err(StorageError::sync(&path))?;
        if hash_file(disk, &path)? != (described.bytes, described.blake3) {
            return Err(refused("its bytes are not those of the description"));
        }
        Ok(())
    }

    fn check_manifest(&self, disk: &dyn Disk) -> Result<(), StorageError> {
        let description = &self.description;
        let (manifest, _) = Manifest::read(disk, &self.home, description.manifest)?;
        let named = manifest.segments.iter().map(|segment| (Some(segment.id), segment.bytes));
        let sent = description.files[1..].iter().map(|file| (file.segment, file.bytes));
        if manifest.digest != description.digest || !named.eq(sent) {
            return Err(StorageError::refused("snapshot", "its manifest is not that of the description"));
        }
        Ok(())
    }

    /// After a failure nobody knows what is in a file, whatever it reads as: it begins anew.
    fn give_up(&mut self, index: usize) {
        self.open = None;
        let path = self.description.path_of(&self.description.files[index], &self.home);
        if self.place.disk.remove(&path).is_ok() {
            self.progress[index] = 0;
        }
    }
}

/// The replica's meta before the snapshot; `None` when it was never formatted to the end.
fn meta_before(
    place: &StorePlace,
    identity: &ReplicaIdentity,
    description: &SnapshotDescription,
) -> Result<Option<ReplicaMeta>, StorageError> {
    let refused = |reason: String| Err(StorageError::refused("snapshot", reason));
    let SnapshotDescription { shard, dimension, storage_type, .. } = description;
    if (*shard, *dimension, *storage_type) != (identity.shard, identity.dimension, identity.storage_type) {
        let storage_type = storage_type.as_str();
        return refused(format!("it is of shard {shard} of {dimension} values as {storage_type}"));
    }
    let meta = ReplicaMeta::read(place.disk.as_ref(), &place.directory)?;
    if let Some(meta) = &meta {
        assert_eq!(&meta.identity, identity, "{} holds another replica", place.directory.display());
        if description.lsn() < meta.commit {
            return refused(format!(
                "it is at {}, but {} was committed here",
                description.lsn(),
                meta.commit
            ));
        }
    }
    Ok(meta)
}

/// True when a folder holds the beginning of this very snapshot.
fn is_begun(disk: &dyn Disk, home: &Path, description: &SnapshotDescription) -> bool {
    let stored = DESCRIPTION.read::<StoredDescription>(disk, &home.join(DESCRIPTION_NAME));
    stored.is_ok_and(|stored| stored.as_ref() == Some(&description.to_stored()))
}

/// Removes all generations but the one that counts.
fn remove_drafts(place: &StorePlace, current: u64) -> Result<(), StorageError> {
    let StorePlace { disk, directory, .. } = place;
    let current = generation_directory(directory, current);
    for name in disk.list(directory).map_err(StorageError::read(directory))? {
        let path = directory.join(&name);
        if is_generation(&name) && path != current {
            disk.remove_dir_all(&path).map_err(StorageError::write(&path))?;
        }
    }
    Ok(())
}

/// Size of a file that was begun; 0 when there is none, or when it is longer than it will be.
fn bytes_of(disk: &dyn Disk, path: &Path, bytes_max: u64) -> Result<u64, StorageError> {
    let length = match disk.open(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(0),
        reader => reader.and_then(|reader| reader.len()).map_err(StorageError::read(path))?,
    };
    if (1..=bytes_max).contains(&length) {
        return Ok(length);
    }
    disk.remove(path).map_err(StorageError::write(path))?;
    Ok(0)
}
