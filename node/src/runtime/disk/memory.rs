//! [`Disk`] in memory that loses, tears and refuses like a real one, from a seed.
//!
//! A crash ([`MemoryDisk::crash`]) keeps what was synced and an arbitrary part of what was not: any prefix of the
//! name changes of each directory, and of each file's unsynced suffix any of its sectors, the rest being zeros or
//! missing. A failed sync drops the pages: readers still see them, a later sync succeeds, a crash loses them. A disk may
//! also lie about syncs ([`MemoryDisk::forget_syncs`]), write to the wrong place ([`MemoryDisk::misdirect_next_append`]),
//! or be an older image of itself ([`MemoryDisk::restore`]).

mod files;

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, MutexGuard};

use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};

use self::files::{Content, Files, NameChange};
use super::{Disk, DiskFile, DiskReader, DiskSpace, parent};
use crate::runtime::sync::Mutex;

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

/// Everything that is on a disk at one moment, in its caches too.
#[derive(Clone, Debug)]
pub struct DiskImage(Files);

#[derive(Debug)]
struct State {
    random: SmallRng,
    files: Files,
    capacity_bytes: u64,
    /// Operations so far; each counts one.
    operations: u64,
    /// The power goes off before this operation.
    power_off_at: Option<u64>,
    /// One failure each, after so many more operations of its kind.
    faults: BTreeMap<DiskOperation, (u64, io::ErrorKind)>,
    /// So many more syncs of files succeed without doing anything.
    forgotten_syncs: u64,
    misdirects_next_append: bool,
    effects: Effects,
}

/// How often each thing went wrong.
pub type Effects = BTreeMap<&'static str, u64>;

impl MemoryDisk {
    /// An empty disk of 1 TiB whose arbitrary choices follow from `seed`.
    pub fn new(seed: u64) -> MemoryDisk {
        let state = State {
            random: SmallRng::seed_from_u64(seed),
            files: Files { directories: BTreeSet::from([PathBuf::new()]), ..Files::default() },
            capacity_bytes: 1 << 40,
            operations: 0,
            power_off_at: None,
            faults: BTreeMap::new(),
            forgotten_syncs: 0,
            misdirects_next_append: false,
            effects: Effects::new(),
        };
        MemoryDisk { state: Arc::new(Mutex::new(state)) }
    }

    /// What went wrong so far.
    pub fn effects(&self) -> Effects {
        self.lock().effects.clone()
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

    /// Ends what [`MemoryDisk::power_off_after`] began, and nothing is lost.
    pub fn power_on(&self) {
        self.lock().power_off_at = None;
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
        state.forgotten_syncs = 0;
        state.misdirects_next_append = false;
    }

    /// The next `count` syncs of files say that they succeeded and do nothing: a later one makes up for it, a crash before
    /// loses what they should have kept.
    pub fn forget_syncs(&self, count: u64) {
        self.lock().forgotten_syncs = count;
    }

    /// The bytes of the next append land somewhere in another file that has room for them; where they belong are zeros.
    pub fn misdirect_next_append(&self) {
        self.lock().misdirects_next_append = true;
    }

    /// An image of the disk.
    pub fn image(&self) -> DiskImage {
        DiskImage(self.lock().files.clone())
    }

    /// Makes the disk what it was when the image was taken; no file is open.
    pub fn restore(&self, image: &DiskImage) {
        self.lock().files = image.0.clone();
    }

    /// Changes the size of the volume; appends beyond it fail half-way.
    pub fn set_capacity(&self, bytes: u64) {
        self.lock().capacity_bytes = bytes;
    }

    /// The power goes off and comes back: what was not synced is lost in arbitrary parts.
    pub fn crash(&self) {
        let mut guard = self.lock();
        let state = &mut *guard;
        state.files.crash(&mut state.random, &mut state.effects);
        state.power_off_at = None;
        state.faults.clear();
        state.forgotten_syncs = 0;
        state.misdirects_next_append = false;
    }

    /// Flips one bit of a file, on the platter too.
    ///
    /// # Panics
    /// When there is no such file or byte.
    pub fn flip_bit(&self, path: &Path, offset: usize, bit: u8) {
        let mut state = self.lock();
        let index = state.files.names[path];
        state.files.contents[index].bytes[offset] ^= 1 << bit;
    }

    /// Replaces a file's content, synced: what a broken tool or an older image leaves.
    ///
    /// # Panics
    /// When there is no such file.
    pub fn overwrite(&self, path: &Path, bytes: Vec<u8>) {
        let mut state = self.lock();
        let index = state.files.names[path];
        state.files.contents[index] = Content::new(bytes);
    }

    /// What was appended to a file: all of it but the zeros that are reserved behind it.
    ///
    /// # Panics
    /// When there is no such file.
    pub fn written(&self, path: &Path) -> Vec<u8> {
        let state = self.lock();
        let content = &state.files.contents[state.files.names[path]];
        content.bytes[..content.written].to_vec()
    }

    /// Paths of all files, ascending.
    pub fn files(&self) -> Vec<PathBuf> {
        self.lock().files.names.keys().cloned().collect()
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
            self.count("operation that fails for good");
            return Err(io::Error::other("the power is off"));
        }
        match self.faults.get_mut(&operation) {
            None => Ok(()),
            Some((0, kind)) => {
                let error = (*kind).into();
                self.faults.remove(&operation);
                self.count(match operation {
                    DiskOperation::Read => "failed read",
                    DiskOperation::Append => "failed append",
                    DiskOperation::Sync => "failed sync",
                    DiskOperation::Directory => "failed operation on a directory",
                });
                Err(error)
            }
            Some((count, _)) => {
                *count -= 1;
                Ok(())
            }
        }
    }

    fn count(&mut self, what: &'static str) {
        *self.effects.entry(what).or_default() += 1;
    }

    /// Where an append to `content` lands in truth: the file that it is for, or a place in another one.
    fn misdirection(&mut self, content: usize, length: usize) -> Option<(usize, usize)> {
        if !std::mem::take(&mut self.misdirects_next_append) {
            return None;
        }
        let has_room = |index: &usize| *index != content && self.files.contents[*index].bytes.len() >= length;
        let others: Vec<usize> = self.files.names.values().copied().filter(has_room).collect();
        if others.is_empty() {
            return None;
        }
        let other = others[self.random.random_range(0..others.len())];
        let room = self.files.contents[other].bytes.len() - length;
        Some((other, self.random.random_range(0..=room)))
    }
}

impl Disk for MemoryDisk {
    fn create(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        let mut state = self.lock();
        state.begin(DiskOperation::Directory)?;
        if !state.files.directories.contains(&parent(path)) {
            return Err(io::ErrorKind::NotFound.into());
        }
        if state.files.names.contains_key(path) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        let content = state.files.contents.len();
        state.files.contents.push(Content::default());
        state.files.change(parent(path), NameChange::Link(path.to_path_buf(), content));
        drop(state);
        Ok(Box::new(MemoryFile { disk: self.clone(), content }))
    }

    fn reopen(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        let mut state = self.lock();
        state.begin(DiskOperation::Directory)?;
        let content = state.files.find(path)?;
        let file = &mut state.files.contents[content];
        file.written = file.bytes.len();
        drop(state);
        Ok(Box::new(MemoryFile { disk: self.clone(), content }))
    }

    fn open(&self, path: &Path) -> io::Result<Box<dyn DiskReader>> {
        let mut state = self.lock();
        state.begin(DiskOperation::Read)?;
        let content = state.files.find(path)?;
        drop(state);
        Ok(Box::new(MemoryFile { disk: self.clone(), content }))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        assert_eq!(from.parent(), to.parent(), "a rename stays in its directory");
        let mut state = self.lock();
        state.begin(DiskOperation::Directory)?;
        state.files.find(from)?;
        state.files.change(parent(from), NameChange::Rename(from.to_path_buf(), to.to_path_buf()));
        Ok(())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let mut state = self.lock();
        state.begin(DiskOperation::Directory)?;
        state.files.find(path)?;
        state.files.change(parent(path), NameChange::Unlink(path.to_path_buf()));
        Ok(())
    }

    fn remove_dir_all(&self, path: &Path) -> io::Result<()> {
        let mut guard = self.lock();
        let powered = guard.power_off_at.is_none_or(|at| guard.operations <= at);
        let outcome = guard.begin(DiskOperation::Directory);
        let State { random, files, .. } = &mut *guard;
        if let Err(error) = outcome {
            files.forget_below(path, |_| powered && random.random());
            return Err(error);
        }
        files.forget_below(path, |_| true);
        files.changes.retain(|directory, _| !directory.starts_with(path));
        files.directories.retain(|directory| !directory.starts_with(path));
        Ok(())
    }

    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        let mut state = self.lock();
        state.begin(DiskOperation::Directory)?;
        state.files.directories.extend(path.ancestors().map(Path::to_path_buf));
        Ok(())
    }

    fn list(&self, path: &Path) -> io::Result<Vec<String>> {
        let mut state = self.lock();
        state.begin(DiskOperation::Read)?;
        let entries = state.files.names.keys().chain(&state.files.directories);
        let names: BTreeSet<String> = entries
            .filter(|entry| entry.parent() == Some(path))
            .filter_map(|entry| entry.file_name().and_then(|name| name.to_str()).map(str::to_owned))
            .collect();
        Ok(names.into_iter().collect())
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        let mut state = self.lock();
        state.begin(DiskOperation::Directory)?;
        state.files.sync_dir(path);
        Ok(())
    }

    fn space(&self) -> io::Result<DiskSpace> {
        let state = self.lock();
        let capacity_bytes = state.capacity_bytes;
        Ok(DiskSpace { capacity_bytes, free_bytes: capacity_bytes.saturating_sub(state.files.used_bytes()) })
    }
}

struct MemoryFile {
    disk: MemoryDisk,
    content: usize,
}

impl DiskFile for MemoryFile {
    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        let mut state = self.disk.lock();
        self.check(&state)?;
        let content = &state.files.contents[self.content];
        let reserved = content.bytes.len() - content.written;
        let room = state.capacity_bytes.saturating_sub(state.files.used_bytes()) as usize + reserved;
        let outcome = match state.begin(DiskOperation::Append) {
            Ok(()) if room < bytes.len() => Err(io::ErrorKind::StorageFull.into()),
            outcome => outcome,
        };
        if outcome.as_ref().is_err_and(|error: &io::Error| error.kind() == io::ErrorKind::StorageFull) {
            state.count("append to a full disk");
        }
        let written = match outcome {
            Ok(()) => bytes.len(),
            Err(_) => state.random.random_range(0..=bytes.len()).min(room),
        };
        if let Some((other, offset)) = state.misdirection(self.content, written) {
            state.count("misdirected append");
            state.files.contents[other].bytes[offset..offset + written].copy_from_slice(&bytes[..written]);
            state.files.contents[self.content].append(&vec![0; written]);
        } else {
            state.files.contents[self.content].append(&bytes[..written]);
        }
        outcome
    }

    fn reserve(&mut self, bytes: u64) -> io::Result<()> {
        let mut state = self.disk.lock();
        self.check(&state)?;
        let room = state.capacity_bytes.saturating_sub(state.files.used_bytes());
        let content = &mut state.files.contents[self.content];
        if (content.written as u64 + bytes).saturating_sub(content.bytes.len() as u64) > room {
            return Err(io::ErrorKind::StorageFull.into());
        }
        content.reserve(bytes as usize);
        Ok(())
    }

    fn sync(&mut self) -> io::Result<()> {
        let mut state = self.disk.lock();
        self.check(&state)?;
        let outcome = state.begin(DiskOperation::Sync);
        let powered = state.power_off_at.is_none_or(|at| state.operations <= at);
        if outcome.is_ok() && state.forgotten_syncs > 0 {
            state.forgotten_syncs -= 1;
            state.count("forgotten sync");
            return outcome;
        }
        let State { files, effects, .. } = &mut *state;
        let content = &mut files.contents[self.content];
        let (start, end) = (content.synced, content.written);
        if outcome.is_err() && powered && start < end {
            *effects.entry("pages dropped by a failed sync").or_default() += 1;
        }
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

impl MemoryFile {
    /// A file that was open when the disk became an older image is none of its files.
    fn check(&self, state: &State) -> io::Result<()> {
        if self.content < state.files.contents.len() { Ok(()) } else { Err(io::ErrorKind::NotFound.into()) }
    }
}

impl DiskReader for MemoryFile {
    fn len(&self) -> io::Result<u64> {
        let state = self.disk.lock();
        self.check(&state)?;
        Ok(state.files.contents[self.content].bytes.len() as u64)
    }

    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        let mut state = self.disk.lock();
        self.check(&state)?;
        state.begin(DiskOperation::Read)?;
        let bytes = &state.files.contents[self.content].bytes;
        let start = offset as usize;
        let source = start.checked_add(buffer.len()).and_then(|end| bytes.get(start..end));
        buffer.copy_from_slice(source.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }
}

#[cfg(test)]
mod tests;
