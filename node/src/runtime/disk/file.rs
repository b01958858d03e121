//! [`Disk`] on a real file system.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use nix::libc::O_NOFOLLOW;
use nix::sys::statvfs::statvfs;

use super::{Disk, DiskFile, DiskReader, DiskSpace, parent};

/// Name of the file whose lock says that a process uses the directory.
const LOCK_FILE: &str = "lock";

/// Why a data directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Not there and not to be made.
    #[error("data directory {path} cannot be created")]
    Create {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Its lock file cannot be written.
    #[error("data directory {path} cannot be written")]
    Write {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Its volume cannot lock files.
    #[error("data directory {path} cannot be locked")]
    Lock {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Another process has it.
    #[error("data directory {path} is in use by another process")]
    InUse {
        /// Which.
        path: PathBuf,
    },
}

/// A directory of a real file system, held by a lock as long as the value lives.
#[derive(Debug)]
pub struct FileDisk {
    root: PathBuf,
    /// The kernel drops the lock with the process, however it ends.
    _lock: Flock<File>,
}

impl FileDisk {
    /// Creates `root` when it is absent and locks it against other processes.
    pub fn open(root: &Path) -> Result<FileDisk, OpenError> {
        let path = root.to_path_buf();
        create_durably(root).map_err(|source| OpenError::Create { path: path.clone(), source })?;
        let lock = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .custom_flags(O_NOFOLLOW)
            .open(root.join(LOCK_FILE))
            .map_err(|source| OpenError::Write { path: path.clone(), source })?;
        let lock = Flock::lock(lock, FlockArg::LockExclusiveNonblock).map_err(|(_, errno)| match errno {
            Errno::EWOULDBLOCK => OpenError::InUse { path: path.clone() },
            errno => OpenError::Lock { path: path.clone(), source: errno.into() },
        })?;
        Ok(FileDisk { root: path, _lock: lock })
    }

    fn at(&self, path: &Path) -> PathBuf {
        debug_assert!(path.is_relative(), "{} is not below the root", path.display());
        self.root.join(path)
    }
}

/// Creates a directory and those above it; the names of the new ones are durable on return.
fn create_durably(directory: &Path) -> io::Result<()> {
    let directory = std::path::absolute(directory)?;
    let absent: Vec<&Path> = directory.ancestors().take_while(|path| !path.exists()).collect();
    fs::create_dir_all(&directory)?;
    absent.iter().filter_map(|path| path.parent()).try_for_each(|above| File::open(above)?.sync_all())
}

impl Disk for FileDisk {
    fn create(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        let file = OpenOptions::new().write(true).create_new(true).open(self.at(path))?;
        Ok(Box::new(WrittenFile { file, end: 0 }))
    }

    fn reopen(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        let file = OpenOptions::new().write(true).custom_flags(O_NOFOLLOW).open(self.at(path))?;
        let end = file.metadata()?.len();
        Ok(Box::new(WrittenFile { file, end }))
    }

    fn open(&self, path: &Path) -> io::Result<Box<dyn DiskReader>> {
        let file = OpenOptions::new().read(true).custom_flags(O_NOFOLLOW).open(self.at(path))?;
        Ok(Box::new(ReadFile(file)))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        assert_eq!(from.parent(), to.parent(), "a rename stays in its directory");
        fs::rename(self.at(from), self.at(to))
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(self.at(path))
    }

    fn remove_dir_all(&self, path: &Path) -> io::Result<()> {
        match fs::remove_dir_all(self.at(path)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(error),
            Ok(()) => self.sync_dir(&parent(path)),
        }
    }

    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        fs::create_dir_all(self.at(path))?;
        path.ancestors().skip(1).try_for_each(|above| self.sync_dir(above))
    }

    fn list(&self, path: &Path) -> io::Result<Vec<String>> {
        let entries = match fs::read_dir(self.at(path)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries?,
        };
        let mut names = Vec::new();
        for entry in entries {
            // A name that is not UTF-8 is not one of ours.
            names.extend(entry?.file_name().into_string());
        }
        names.sort();
        Ok(names)
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        File::open(self.at(path))?.sync_all()
    }

    fn space(&self) -> io::Result<DiskSpace> {
        let stat = statvfs(&self.root)?;
        let block = stat.fragment_size();
        Ok(DiskSpace {
            capacity_bytes: block.saturating_mul(stat.blocks()),
            free_bytes: block.saturating_mul(stat.blocks_available()),
        })
    }
}

/// Zeros that are written at once.
static ZEROS: [u8; 64 << 10] = [0; 64 << 10];

struct WrittenFile {
    file: File,
    /// Where the next append goes: behind it are zeros, if anything.
    end: u64,
}

impl DiskFile for WrittenFile {
    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.file.write_all_at(bytes, self.end)?;
        self.end += bytes.len() as u64;
        Ok(())
    }

    fn reserve(&mut self, bytes: u64) -> io::Result<()> {
        let end = self.end + bytes;
        (self.end..end).step_by(ZEROS.len()).try_for_each(|start| {
            let count = (end - start).min(ZEROS.len() as u64) as usize;
            self.file.write_all_at(&ZEROS[..count], start)
        })
    }

    fn sync(&mut self) -> io::Result<()> {
        self.file.sync_data()
    }
}

struct ReadFile(File);

impl DiskReader for ReadFile {
    fn len(&self) -> io::Result<u64> {
        Ok(self.0.metadata()?.len())
    }

    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        self.0.read_exact_at(buffer, offset)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_process_is_refused_while_the_first_lives() {
        let root = tempfile::tempdir().expect("temporary directory");
        let first = FileDisk::open(root.path()).expect("free");
        assert!(matches!(FileDisk::open(root.path()), Err(OpenError::InUse { .. })));
        drop(first);
        assert!(FileDisk::open(root.path()).is_ok());
    }

    #[test]
    fn a_link_in_place_of_a_file_is_not_followed() {
        let root = tempfile::tempdir().expect("temporary directory");
        let disk = FileDisk::open(root.path()).expect("free");
        std::os::unix::fs::symlink("/etc/hostname", root.path().join("meta")).expect("link");
        assert!(disk.read(Path::new("meta")).is_err());
        assert!(disk.create(Path::new("meta")).is_err());
    }

    #[test]
    fn the_space_of_the_volume_is_known() {
        let root = tempfile::tempdir().expect("temporary directory");
        let space = FileDisk::open(root.path()).expect("free").space().expect("known");
        assert!(space.capacity_bytes > 0 && (0.0..=1.0).contains(&space.used_ratio()));
    }

    #[test]
    fn directories_above_the_root_are_made() {
        let root = tempfile::tempdir().expect("temporary directory");
        let below = root.path().join("a/b/c");
        drop(FileDisk::open(&below).expect("made"));
        drop(FileDisk::open(&below).expect("there already"));
        fs::write(root.path().join("file"), b"").expect("written");
        let refused = FileDisk::open(&root.path().join("file/data"));
        assert!(matches!(refused, Err(OpenError::Create { .. })));
    }
}
