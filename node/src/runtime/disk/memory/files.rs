//! Files of a disk in memory: what a process sees, and what a crash makes of it.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};

use rand::RngExt;
use rand::rngs::SmallRng;

use super::Effects;

/// Unsynced bytes reach the disk in units of this many.
const SECTOR_BYTES: usize = 512;

/// All files, those that were removed too: handles name them by their number.
#[derive(Clone, Debug, Default)]
pub(super) struct Files {
    pub(super) contents: Vec<Content>,
    /// What a process sees.
    pub(super) names: BTreeMap<PathBuf, usize>,
    /// What a crash keeps.
    pub(super) durable_names: BTreeMap<PathBuf, usize>,
    /// Name changes of each directory since it was synced, in order.
    pub(super) changes: BTreeMap<PathBuf, Vec<NameChange>>,
    pub(super) directories: BTreeSet<PathBuf>,
}

/// The bytes of a file.
#[derive(Clone, Debug, Default)]
pub(super) struct Content {
    pub(super) bytes: Vec<u8>,
    /// Bytes from the start that were appended; what is behind them was reserved.
    pub(super) written: usize,
    /// Bytes from the start that are on the platter.
    pub(super) synced: usize,
    /// A failed sync dropped everything after `synced` at that time: later syncs do not bring it back.
    pub(super) lost: Option<Range<usize>>,
}

/// A change of a directory.
#[derive(Clone, Debug)]
pub(super) enum NameChange {
    Link(PathBuf, usize),
    Unlink(PathBuf),
    Rename(PathBuf, PathBuf),
}

impl Files {
    pub(super) fn change(&mut self, directory: PathBuf, change: NameChange) {
        change.apply(&mut self.names);
        self.changes.entry(directory).or_default().push(change);
    }

    pub(super) fn find(&self, path: &Path) -> io::Result<usize> {
        self.names.get(path).copied().ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    pub(super) fn used_bytes(&self) -> u64 {
        self.names.values().map(|index| self.contents[*index].bytes.len() as u64).sum()
    }

    pub(super) fn sync_dir(&mut self, path: &Path) {
        for change in self.changes.remove(path).unwrap_or_default() {
            change.apply(&mut self.durable_names);
        }
    }

    pub(super) fn crash(&mut self, random: &mut SmallRng, effects: &mut Effects) {
        for changes in std::mem::take(&mut self.changes).into_values() {
            let kept = random.random_range(0..=changes.len());
            if kept < changes.len() {
                *effects.entry("unsynced names lost").or_default() += 1;
            }
            changes[..kept].iter().for_each(|change| change.apply(&mut self.durable_names));
        }
        self.names = self.durable_names.clone();
        for content in &mut self.contents {
            if let Some(effect) = content.crash(random) {
                *effects.entry(effect).or_default() += 1;
            }
        }
    }

    /// Forgets files below a directory, for good.
    pub(super) fn forget_below(&mut self, path: &Path, mut is_gone: impl FnMut(&Path) -> bool) {
        let below: Vec<PathBuf> = self.names.keys().filter(|name| name.starts_with(path)).cloned().collect();
        for name in below.iter().filter(|name| is_gone(name)) {
            self.names.remove(name);
            self.durable_names.remove(name);
        }
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
    /// Synced bytes.
    pub(super) fn new(bytes: Vec<u8>) -> Content {
        Content { written: bytes.len(), synced: bytes.len(), bytes, lost: None }
    }

    /// Appends bytes, over what was reserved and beyond it.
    pub(super) fn append(&mut self, bytes: &[u8]) {
        let (start, end) = (self.written, self.written + bytes.len());
        self.reserve(bytes.len());
        self.bytes[start..end].copy_from_slice(bytes);
        self.written = end;
    }

    /// Has zeros behind what was appended, so many at least.
    pub(super) fn reserve(&mut self, count: usize) {
        self.bytes.resize(self.bytes.len().max(self.written + count), 0);
    }

    /// What was lost, if anything.
    pub(super) fn crash(&mut self, random: &mut SmallRng) -> Option<&'static str> {
        let (synced, written) = (self.synced, self.written);
        let mut has_hole = false;
        if let Some(lost) = self.lost.take() {
            let end = lost.end.min(self.bytes.len());
            self.bytes[lost.start.min(end)..end].fill(0);
        }
        let kept = random.random_range(synced..=written);
        // The length of a file that has more than was appended is durable or not, and none of the file's business.
        if self.bytes.len() > written && random.random() {
            self.bytes[kept..].fill(0);
        } else {
            self.bytes.truncate(kept);
        }
        // Sectors reach the platter in any order; one that did not reads as zeros when a later one made the file long.
        let mut start = self.synced;
        while start < kept {
            let end = (start / SECTOR_BYTES + 1) * SECTOR_BYTES;
            if random.random_ratio(1, 4) {
                has_hole |= end < kept;
                self.bytes[start..end.min(kept)].fill(0);
            }
            start = end;
        }
        (self.written, self.synced) = (self.bytes.len(), self.bytes.len());
        if has_hole {
            Some("later unsynced block kept, earlier one lost")
        } else if kept == written {
            None
        } else if synced < kept {
            Some("unsynced suffix torn")
        } else {
            Some("unsynced suffix lost")
        }
    }
}
