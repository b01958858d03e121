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
pub use memory::{DiskImage, DiskOperation, Effects, MemoryDisk};

/// A tree of files. Shared as `Arc<dyn Disk>`.
pub trait Disk: Send + Sync + 'static {
    /// Creates an empty file to append to; an error if it exists.
    fn create(&self, path: &Path) -> io::Result<Box<dyn DiskFile>>;

    /// Opens a file that is there to append to. What an earlier handle appended and did not sync is made durable by
    /// [`DiskFile::sync`] of this one, too.
    fn reopen(&self, path: &Path) -> io::Result<Box<dyn DiskFile>>;

    /// Opens a file for reading at any place.
    fn open(&self, path: &Path) -> io::Result<Box<dyn DiskReader>>;

    /// Gives a file another name in the same directory, in place of a file that has it already. Atomic.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// Removes a file.
    fn remove(&self, path: &Path) -> io::Result<()>;

    /// Removes a directory and everything in it; an absent one is no error. Durable on return; after a failure or crash any
    /// part of it may be gone.
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

    /// Writes `bytes` zeros behind the end. Appends go over them, into blocks that the file has: syncing those writes no more
    /// than them, where a file that grows has its length and its map of blocks to be written, too. Readers see the zeros; who
    /// opens the file after a crash sees all, some or none of them. No failure of it loses what was appended.
    fn reserve(&mut self, bytes: u64) -> io::Result<()>;

    /// Makes everything appended so far durable. After a failure nothing is known about what was appended since the
    /// last success; a later success says nothing about it either.
    fn sync(&mut self) -> io::Result<()>;
}

/// A file that is being read.
pub trait DiskReader: Send + Sync {
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

#[cfg(test)]
mod tests {
    use super::*;

    /// What every disk does; `disk` is empty.
    fn check_contract(disk: &dyn Disk) {
        let path = |name: &str| Path::new("a/b").join(name);
        let kind = |outcome: io::Result<()>| outcome.expect_err("refused").kind();
        assert_eq!(disk.list(Path::new("a/b")).expect("absent"), Vec::<String>::new());
        assert!(disk.create(&path("x")).is_err(), "the directory is not there");
        disk.create_dir_all(Path::new("a/b")).expect("created");
        disk.create_dir_all(Path::new("a/b")).expect("there already");

        let mut file = disk.create(&path("x")).expect("created");
        file.append(b"hello ").expect("written");
        file.append(b"world").expect("written");
        file.sync().expect("synced");
        disk.sync_dir(Path::new("a/b")).expect("synced");
        assert_eq!(kind(disk.create(&path("x")).map(drop)), io::ErrorKind::AlreadyExists);
        assert_eq!(disk.read(&path("x")).expect("read"), b"hello world");
        assert_eq!(kind(disk.reopen(&path("y")).map(drop)), io::ErrorKind::NotFound);
        let mut file = disk.reopen(&path("x")).expect("there");
        file.append(b"!").expect("written");
        file.sync().expect("synced");
        assert_eq!(disk.read(&path("x")).expect("read"), b"hello world!");
        let reader = disk.open(&path("x")).expect("opened");
        let mut bytes = [0; 5];
        reader.read_exact_at(&mut bytes, 6).expect("within");
        assert_eq!((&bytes, reader.len().expect("known")), (b"world", 12));
        assert_eq!(kind(reader.read_exact_at(&mut bytes, 8)), io::ErrorKind::UnexpectedEof);

        let mut file = disk.create(&path("z")).expect("created");
        file.append(b"before ").expect("written");
        file.reserve(6).expect("written");
        assert_eq!(disk.read(&path("z")).expect("read"), b"before \0\0\0\0\0\0");
        file.append(b"over").expect("written");
        file.sync().expect("synced");
        assert_eq!(disk.read(&path("z")).expect("read"), b"before over\0\0");
        file.append(b" and on").expect("written");
        assert_eq!(disk.read(&path("z")).expect("read"), b"before over and on");
        disk.remove(&path("z")).expect("removed");

        disk.create(&path("y")).expect("created").append(b"new").expect("written");
        disk.rename(&path("y"), &path("x")).expect("replaced");
        assert_eq!(disk.read(&path("x")).expect("read"), b"new");
        drop(disk.create(&path("a")).expect("created"));
        assert_eq!(disk.list(Path::new("a/b")).expect("listed"), ["a", "x"]);
        assert_eq!(disk.list(Path::new("a")).expect("listed"), ["b"]);
        disk.remove(&path("a")).expect("removed");
        assert_eq!(kind(disk.remove(&path("a"))), io::ErrorKind::NotFound);
        assert_eq!(kind(disk.read(&path("a")).map(drop)), io::ErrorKind::NotFound);
        disk.remove_dir_all(Path::new("a")).expect("removed");
        disk.remove_dir_all(Path::new("a")).expect("absent is fine");
        assert!(disk.read(&path("x")).is_err() && disk.list(Path::new("a")).expect("absent").is_empty());
    }

    #[test]
    fn files_and_memory_keep_one_contract() {
        check_contract(&MemoryDisk::new(1));
        let root = tempfile::tempdir().expect("temporary directory");
        check_contract(&FileDisk::open(root.path()).expect("free"));
    }
}
