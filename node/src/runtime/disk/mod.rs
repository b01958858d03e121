//! The seam between us and disks: what storage needs of a file system, and nothing more.
//!
//! [`FileDisk`] is the real one, [`MemoryDisk`] the one that breaks on purpose. All calls block: they are made from
//! threads that may wait, never from the async reactor. Paths are relative to the disk's root and made by us from ids,
//! never from names that came over the wire.
//!
//! What a crash leaves behind, and therefore what callers must do:
//!
//! | call | survives a power cut when |
//! |---|---|
//! | [`DiskFile::append`] | [`DiskFile::sync`] returned after it |
//! | [`Disk::create`], [`Disk::rename`], [`Disk::remove`] | [`Disk::sync_dir`] of the directory returned after it |
//! | [`Disk::create_dir_all`] | it returned |

mod file;
mod memory;

use std::io;
use std::path::{Path, PathBuf};

pub use file::{FileDisk, OpenError};
pub use memory::{DiskOperation, MemoryDisk};

/// A tree of files. Shared as `Arc<dyn Disk>`.
pub trait Disk: Send + Sync + 'static {
    /// Creates an empty file to append to; an error if it exists.
    fn create(&self, path: &Path) -> io::Result<Box<dyn DiskFile>>;

    /// Opens a file for reading at any place.
    fn open(&self, path: &Path) -> io::Result<Box<dyn DiskReader>>;

    /// Gives a file another name in the same directory, in place of a file that has it already. Atomic.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// Removes a file.
    fn remove(&self, path: &Path) -> io::Result<()>;

    /// Removes a directory and everything in it; an absent one is no error. Durable on return.
    fn remove_dir_all(&self, path: &Path) -> io::Result<()>;

    /// Creates a directory and those above it, durably.
    fn create_dir_all(&self, path: &Path) -> io::Result<()>;

    /// Names in a directory, ascending; an absent directory has none.
    fn list(&self, path: &Path) -> io::Result<Vec<String>>;

    /// Makes created, renamed and removed names of a directory durable.
    fn sync_dir(&self, path: &Path) -> io::Result<()>;

    /// How full the volume is.
    fn space(&self) -> io::Result<DiskSpace>;

    /// Reads a whole file.
    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        let reader = self.open(path)?;
        let length = usize::try_from(reader.len()?).map_err(|_| io::ErrorKind::FileTooLarge)?;
        let mut bytes = vec![0; length];
        reader.read_exact_at(&mut bytes, 0)?;
        Ok(bytes)
    }
}

/// A file that is being written.
pub trait DiskFile: Send {
    /// Appends all bytes, or fails having appended any part of them.
    fn append(&mut self, bytes: &[u8]) -> io::Result<()>;

    /// Makes everything appended so far durable. After a failure nothing is known about what was appended since the
    /// last success; a later success says nothing about it either.
    fn sync(&mut self) -> io::Result<()>;
}

/// A file that is being read.
pub trait DiskReader: Send {
    /// The file's size, bytes.
    fn len(&self) -> io::Result<u64>;

    /// True when the file has no byte.
    fn is_empty(&self) -> io::Result<bool> {
        Ok(self.len()? == 0)
    }

    /// Fills `buffer` from `offset` on; an error if the file ends before.
    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()>;
}

/// How full a volume is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DiskSpace {
    /// Size of the volume, bytes.
    pub capacity_bytes: u64,
    /// What we can still write, bytes.
    pub free_bytes: u64,
}

impl DiskSpace {
    /// Share of the volume in use, `0.0..=1.0`; 0 when the size is not known.
    pub fn used_ratio(self) -> f64 {
        if self.capacity_bytes == 0 {
            return 0.0;
        }
        1.0 - self.free_bytes.min(self.capacity_bytes) as f64 / self.capacity_bytes as f64
    }
}

/// The directory of a path; the root for a bare name.
fn parent(path: &Path) -> PathBuf {
    path.parent().map(Path::to_path_buf).unwrap_or_default()
}
