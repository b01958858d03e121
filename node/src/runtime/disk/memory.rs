//! [`Disk`] in memory that loses, tears and refuses like a real one, from a seed.
//!
//! A crash ([`MemoryDisk::crash`]) keeps what was synced and an arbitrary part of what was not: any prefix of the
//! name changes of each directory, and of each file's unsynced suffix any of its sectors, the rest being zeros or
//! missing. A failed sync drops the pages: readers still see them, a later sync succeeds, a crash loses them.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};

use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};

use super::{Disk, DiskFile, DiskReader, DiskSpace, parent};

/// Unsynced bytes reach the disk in units of this many.
const SECTOR_BYTES: usize = 512;

/// What a fault hits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum DiskOperation {
    /// Reading a file.
    Read,
    /// Appending to a file; a part of the bytes is written.
    Append,
    /// Syncing a file; what was appended since the last sync will be lost by a crash.
    Sync,
    /// Creating, renaming, removing, syncing a directory.
    Directory,
}

/// A disk in memory. Clones are the same disk.
#[derive(Clone, Debug)]
pub struct MemoryDisk {
    state: Arc<Mutex<State>>,
}

#[derive(Debug)]
struct State {
    random: SmallRng,
    contents: Vec<Content>,
    /// What a process sees.
    names: BTreeMap<PathBuf, usize>,
    /// What a crash keeps.
    durable_names: BTreeMap<PathBuf, usize>,
    /// Name changes of each directory since it was synced, in order.
    changes: BTreeMap<PathBuf, Vec<NameChange>>,
    directories: BTreeSet<PathBuf>,
    capacity_bytes: u64,
    /// Operations so far; each counts one.
    operations: u64,
    /// The power goes off before this operation.
    power_off_at: Option<u64>,
    /// One failure each, after so many more operations of its kind.
    faults: BTreeMap<DiskOperation, (u64, io::ErrorKind)>,
}

#[derive(Debug, Default)]
struct Content {
    bytes: Vec<u8>,
    /// Bytes from the start that are on the platter.
    synced: usize,
    /// A failed sync dropped everything after `synced` at that time: later syncs do not bring it back.
    lost: Option<std::ops::Range<usize>>,
}

#[derive(Clone, Debug)]
enum NameChange {
    Link(PathBuf, usize),
    Unlink(PathBuf),
    Rename(PathBuf, PathBuf),
}

impl MemoryDisk {
    /// An empty disk of 1 TiB whose arbitrary choices follow from `seed`.
    pub fn new(seed: u64) -> MemoryDisk {
        let state = State {
            random: SmallRng::seed_from_u64(seed),
            contents: Vec::new(),
            names: BTreeMap::new(),
            durable_names: BTreeMap::new(),
            changes: BTreeMap::new(),
            directories: BTreeSet::from([PathBuf::new()]),
            capacity_bytes: 1 << 40,
            operations: 0,
            power_off_at: None,
            faults: BTreeMap::new(),
        };
        MemoryDisk { state: Arc::new(Mutex::new(state)) }
    }

    /// Operations so far.
    pub fn operations(&self) -> u64 {
        self.lock().operations
    }

    /// Lets `operations` more operations pass, then fails every one until [`MemoryDisk::crash`].
    pub fn power_off_after(&self, operations: u64) {
        let mut state = self.lock();
        state.power_off_at = Some(state.operations + operations);
    }

    /// Fails the next operation of this kind with an error of this kind.
    pub fn fail_next(&self, operation: DiskOperation, kind: io::ErrorKind) {
        self.fail_after(0, operation, kind);
    }

    /// Lets `count` more operations of this kind pass, fails the one after them, and goes on.
    pub fn fail_after(&self, count: u64, operation: DiskOperation, kind: io::ErrorKind) {
        self.lock().faults.insert(operation, (count, kind));
    }

    /// True while there is a fault that has not struck yet.
    pub fn has_faults(&self) -> bool {
        !self.lock().faults.is_empty()
    }

    /// Takes back faults that have not struck yet.
    pub fn heal(&self) {
        let mut state = self.lock();
        state.power_off_at = None;
        state.faults.clear();
    }

    /// Changes the size of the volume; appends beyond it fail half-way.
    pub fn set_capacity(&self, bytes: u64) {
        self.lock().capacity_bytes = bytes;
    }

    /// The power goes off and comes back: what was not synced is lost in arbitrary parts.
    pub fn crash(&self) {
        let mut guard = self.lock();
        let state = &mut *guard;
        for changes in std::mem::take(&mut state.changes).into_values() {
            let kept = state.random.random_range(0..=changes.len());
            changes[..kept].iter().for_each(|change| change.apply(&mut state.durable_names));
        }
        state.names = state.durable_names.clone();
        for content in &mut state.contents {
            content.crash(&mut state.random);
        }
        state.power_off_at = None;
        state.faults.clear();
    }

    /// Flips one bit of a file, on the platter too.
    ///
    /// # Panics
    /// When there is no such file or byte.
    pub fn flip_bit(&self, path: &Path, offset: usize, bit: u8) {
        let mut state = self.lock();
        let index = state.names[path];
        state.contents[index].bytes[offset] ^= 1 << bit;
    }

    /// Replaces a file's content, synced: what a broken tool or an older image leaves.
    ///
    /// # Panics
    /// When there is no such file.
    pub fn overwrite(&self, path: &Path, bytes: Vec<u8>) {
        let mut state = self.lock();
        let index = state.names[path];
        state.contents[index] = Content { synced: bytes.len(), bytes, lost: None };
    }

    /// Paths of all files, ascending.
    pub fn files(&self) -> Vec<PathBuf> {
        self.lock().names.keys().cloned().collect()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no panic while the disk is locked")
    }
}

impl State {
    /// Counts an operation and fails it when it is its turn.
    fn begin(&mut self, operation: DiskOperation) -> io::Result<()> {
        self.operations += 1;
        if self.power_off_at.is_some_and(|at| self.operations > at) {
            return Err(io::Error::other("the power is off"));
        }
        match self.faults.get_mut(&operation) {
            None => Ok(()),
            Some((0, kind)) => {
                let error = (*kind).into();
                self.faults.remove(&operation);
                Err(error)
            }
            Some((count, _)) => {
                *count -= 1;
                Ok(())
            }
        }
    }

    fn change(&mut self, directory: PathBuf, change: NameChange) {
        change.apply(&mut self.names);
        self.changes.entry(directory).or_default().push(change);
    }

    fn find(&self, path: &Path) -> io::Result<usize> {
        self.names.get(path).copied().ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn used_bytes(&self) -> u64 {
        self.names.values().map(|index| self.contents[*index].bytes.len() as u64).sum()
    }
}

impl NameChange {
    fn apply(&self, names: &mut BTreeMap<PathBuf, usize>) {
        match self {
            NameChange::Link(path, content) => {
                names.insert(path.clone(), *content);
            }
            NameChange::Unlink(path) => {
                names.remove(path);
            }
            NameChange::Rename(from, to) => {
                if let Some(content) = names.remove(from) {
                    names.insert(to.clone(), content);
                }
            }
        }
    }
}

impl Content {
    fn crash(&mut self, random: &mut SmallRng) {
        if let Some(lost) = self.lost.take() {
            let end = lost.end.min(self.bytes.len());
            self.bytes[lost.start.min(end)..end].fill(0);
        }
        let kept = random.random_range(self.synced..=self.bytes.len());
        self.bytes.truncate(kept);
        // Sectors reach the platter in any order; one that did not reads as zeros when a later one made the file long.
        let mut start = self.synced;
        while start < kept {
            let end = (start / SECTOR_BYTES + 1) * SECTOR_BYTES;
            if random.random_ratio(1, 4) {
                self.bytes[start..end.min(kept)].fill(0);
            }
            start = end;
        }
        self.synced = kept;
    }
}

impl Disk for MemoryDisk {
    fn create(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        let mut state = self.lock();
        state.begin(DiskOperation::Directory)?;
        if !state.directories.contains(&parent(path)) {
            return Err(io::ErrorKind::NotFound.into());
        }
        if state.names.contains_key(path) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        let content = state.contents.len();
        state.contents.push(Content::default());
        state.change(parent(path), NameChange::Link(path.to_path_buf(), content));
        drop(state);
        Ok(Box::new(MemoryFile { disk: self.clone(), content }))
    }

    fn open(&self, path: &Path) -> io::Result<Box<dyn DiskReader>> {
        let mut state = self.lock();
        state.begin(DiskOperation::Read)?;
        let content = state.find(path)?;
        drop(state);
        Ok(Box::new(MemoryFile { disk: self.clone(), content }))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        assert_eq!(from.parent(), to.parent(), "a rename stays in its directory");
        let mut state = self.lock();
        state.begin(DiskOperation::Directory)?;
        state.find(from)?;
        state.change(parent(from), NameChange::Rename(from.to_path_buf(), to.to_path_buf()));
        Ok(())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let mut state = self.lock();
        state.begin(DiskOperation::Directory)?;
        state.find(path)?;
        state.change(parent(path), NameChange::Unlink(path.to_path_buf()));
        Ok(())
    }

    fn remove_dir_all(&self, path: &Path) -> io::Result<()> {
        let mut state = self.lock();
        state.begin(DiskOperation::Directory)?;
        state.names.retain(|name, _| !name.starts_with(path));
        state.durable_names.retain(|name, _| !name.starts_with(path));
        state.changes.retain(|directory, _| !directory.starts_with(path));
        state.directories.retain(|directory| !directory.starts_with(path));
        Ok(())
    }

    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        let mut state = self.lock();
        state.begin(DiskOperation::Directory)?;
        state.directories.extend(path.ancestors().map(Path::to_path_buf));
        Ok(())
    }

    fn list(&self, path: &Path) -> io::Result<Vec<String>> {
        let mut state = self.lock();
        state.begin(DiskOperation::Read)?;
        let entries = state.names.keys().chain(&state.directories);
        let names: BTreeSet<String> = entries
            .filter(|entry| entry.parent() == Some(path))
            .filter_map(|entry| entry.file_name().and_then(|name| name.to_str()).map(str::to_owned))
            .collect();
        Ok(names.into_iter().collect())
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        let mut guard = self.lock();
        guard.begin(DiskOperation::Directory)?;
        let state = &mut *guard;
        for change in state.changes.remove(path).unwrap_or_default() {
            change.apply(&mut state.durable_names);
        }
        Ok(())
    }

    fn space(&self) -> io::Result<DiskSpace> {
        let state = self.lock();
        let capacity_bytes = state.capacity_bytes;
        Ok(DiskSpace { capacity_bytes, free_bytes: capacity_bytes.saturating_sub(state.used_bytes()) })
    }
}

struct MemoryFile {
    disk: MemoryDisk,
    content: usize,
}

impl DiskFile for MemoryFile {
    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        let mut state = self.disk.lock();
        let room = state.capacity_bytes.saturating_sub(state.used_bytes()) as usize;
        let outcome = match state.begin(DiskOperation::Append) {
            Ok(()) if room < bytes.len() => Err(io::ErrorKind::StorageFull.into()),
            outcome => outcome,
        };
        let written = match outcome {
            Ok(()) => bytes.len(),
            Err(_) => state.random.random_range(0..=bytes.len()).min(room),
        };
        state.contents[self.content].bytes.extend_from_slice(&bytes[..written]);
        outcome
    }

    fn sync(&mut self) -> io::Result<()> {
        let mut state = self.disk.lock();
        let outcome = state.begin(DiskOperation::Sync);
        let powered = state.power_off_at.is_none_or(|at| state.operations <= at);
        let content = &mut state.contents[self.content];
        let (start, end) = (content.synced, content.bytes.len());
        if outcome.is_ok() {
            content.synced = end;
        } else if powered {
            // The kernel marks the pages clean: nobody will write them again.
            content.lost = Some(content.lost.as_ref().map_or(start, |lost| lost.start)..end);
            content.synced = end;
        }
        outcome
    }
}

impl DiskReader for MemoryFile {
    fn len(&self) -> io::Result<u64> {
        Ok(self.disk.lock().contents[self.content].bytes.len() as u64)
    }

    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        let mut state = self.disk.lock();
        state.begin(DiskOperation::Read)?;
        let bytes = &state.contents[self.content].bytes;
        let start = offset as usize;
        let source = start.checked_add(buffer.len()).and_then(|end| bytes.get(start..end));
        buffer.copy_from_slice(source.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_synced_survives_and_the_rest_may_be_lost() {
        let mut lost = 0;
        for seed in 0..50 {
            let disk = MemoryDisk::new(seed);
            let mut file = disk.create(Path::new("a")).expect("created");
            file.append(&[1; 700]).expect("written");
            file.sync().expect("synced");
            disk.sync_dir(Path::new("")).expect("synced");
            file.append(&[2; 700]).expect("written");
            disk.crash();
            let bytes = disk.read(Path::new("a")).expect("the name was synced");
            assert!(bytes[..700].iter().all(|byte| *byte == 1));
            lost += usize::from(bytes.len() < 1400 || bytes[700..].contains(&0));
        }
        assert!(lost > 40, "the disk is too kind");
    }

    #[test]
    fn names_of_an_unsynced_directory_may_be_lost() {
        let survived = |seed| {
            let disk = MemoryDisk::new(seed);
            disk.create(Path::new("a")).expect("created");
            disk.crash();
            disk.read(Path::new("a")).is_ok()
        };
        assert!((0..20).any(survived) && !(0..20).all(survived));
    }

    #[test]
    fn a_failed_sync_loses_its_pages_for_good() {
        let disk = MemoryDisk::new(1);
        let mut file = disk.create(Path::new("a")).expect("created");
        disk.sync_dir(Path::new("")).expect("synced");
        file.append(&[7; 10]).expect("written");
        disk.fail_next(DiskOperation::Sync, io::ErrorKind::Other);
        assert!(file.sync().is_err());
        assert!(file.sync().is_ok(), "the kernel says so");
        assert_eq!(disk.read(Path::new("a")).expect("read"), [7; 10], "from the page cache");
        disk.crash();
        assert_eq!(disk.read(Path::new("a")).expect("read"), [0; 10]);
    }
}
