//! The file of the embedded store.
//!
//! | file `store.log`: record | size |
//! |---|---|
//! | length of the body | u32, little endian |
//! | CRC-32C of the body | u32, little endian |
//! | body: protobuf `Commit` | length bytes |
//!
//! A record that is cut short or damaged at the end is what a crash leaves of an unanswered change and is dropped;
//! anywhere else it is an error. A state that is written anew takes several records, all but the last of which say that
//! the state goes on, so that a cut in it is seen.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use bytes::Bytes;
use nix::fcntl::{Flock, FlockArg};
use prost::Message as _;

use super::super::{Change, Entry, LeaseId, MetaError};
use crate::ids::Revision;

const LOG: &str = "store.log";
/// Name of the file whose lock says that a process uses the folder.
const LOCK: &str = "lock";
/// Largest record: far more than the 128 operations of a change need.
const RECORD_BYTES_MAX: usize = 64 * 1024 * 1024;
/// Bytes after which a state goes on in the next record.
const CHUNK_BYTES: usize = 1024 * 1024;

/// The entries by key, and the revision of the last change.
pub(super) type Content = (BTreeMap<String, Entry>, Revision);

/// The open file. Its folder is locked as long as this lives.
pub(super) struct Log {
    folder: PathBuf,
    file: File,
    bytes: u64,
    /// The file is written anew beyond this size.
    rewrite_bytes: u64,
    rewrite_bytes_min: u64,
    /// Set by a failed write or sync: what the disk holds is unknown, so nothing more is accepted.
    poisoned: Option<String>,
    _lock: Flock<File>,
}

/// One change on disk, or a part of a state.
#[derive(Clone, PartialEq, prost::Message)]
struct Commit {
    #[prost(int64, tag = "1")]
    revision: i64,
    #[prost(message, repeated, tag = "2")]
    puts: Vec<Put>,
    #[prost(string, repeated, tag = "3")]
    deletes: Vec<String>,
    /// The next record belongs to this one.
    #[prost(bool, tag = "4")]
    goes_on: bool,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Put {
    #[prost(string, tag = "1")]
    key: String,
    #[prost(bytes = "bytes", tag = "2")]
    value: Bytes,
    #[prost(int64, tag = "3")]
    create_revision: i64,
    #[prost(int64, tag = "4")]
    mod_revision: i64,
    #[prost(int64, tag = "5")]
    lease: i64,
}

impl Log {
    /// Locks `folder`, which is made when missing, and reads the file in it. The file is written anew when it has twice
    /// the bytes that its content needs, and more than `rewrite_bytes_min`.
    pub(super) fn open(folder: &Path, rewrite_bytes_min: u64) -> io::Result<(Log, Content)> {
        fs::create_dir_all(folder)?;
        let lock = OpenOptions::new().create(true).truncate(false).write(true).open(folder.join(LOCK))?;
        let lock = Flock::lock(lock, FlockArg::LockExclusiveNonblock).map_err(|_| {
            let what = format!("{} is in use by another process", folder.display());
            io::Error::new(io::ErrorKind::ResourceBusy, what)
        })?;
        let content = replay(&folder.join(LOG))?;
        let file = OpenOptions::new().create(true).append(true).open(folder.join(LOG))?;
        let log = Log {
            folder: folder.to_owned(),
            bytes: file.metadata()?.len(),
            file,
            rewrite_bytes: rewrite_bytes_min,
            rewrite_bytes_min,
            poisoned: None,
            _lock: lock,
        };
        Ok((log, content))
    }

    /// Writes and syncs a change.
    pub(super) fn append(&mut self, revision: Revision, changes: &[Change]) -> Result<(), MetaError> {
        if let Some(why) = &self.poisoned {
            return Err(MetaError::Unavailable(why.clone()));
        }
        let mut commit = Commit { revision: revision.0, ..Commit::default() };
        for change in changes {
            match change {
                Change::Put(entry) => commit.puts.push(Put::from(entry)),
                Change::Deleted(key) => commit.deletes.push(key.clone()),
            }
        }
        let record = record(&commit);
        if record.len() > RECORD_BYTES_MAX {
            let bytes = record.len();
            let what = format!("the change has {bytes} bytes, at most {RECORD_BYTES_MAX} are allowed");
            return Err(MetaError::Refused(what));
        }
        let written = self.file.write_all(&record).and_then(|()| self.file.sync_data());
        written.map_err(|error| MetaError::Unavailable(self.poison(&error)))?;
        self.bytes += record.len() as u64;
        Ok(())
    }

    /// True when most of the file is no longer needed.
    pub(super) fn wants_rewrite(&self) -> bool {
        self.bytes > self.rewrite_bytes && self.poisoned.is_none()
    }

    /// Writes the whole state into a new file and puts it in the place of the old one.
    pub(super) fn rewrite(
        &mut self,
        entries: &BTreeMap<String, Entry>,
        revision: Revision,
    ) -> io::Result<()> {
        self.try_rewrite(entries, revision).inspect_err(|error| drop(self.poison(error)))
    }

    fn try_rewrite(&mut self, entries: &BTreeMap<String, Entry>, revision: Revision) -> io::Result<()> {
        let (path, fresh) = (self.folder.join(LOG), self.folder.join("store.log.new"));
        let mut file = File::create(&fresh)?;
        let mut bytes = 0;
        let mut write = |puts: Vec<Put>, goes_on: bool| {
            let record = record(&Commit { revision: revision.0, puts, deletes: Vec::new(), goes_on });
            bytes += record.len() as u64;
            file.write_all(&record)
        };
        let (mut chunk, mut chunk_bytes) = (Vec::new(), 0);
        for entry in entries.values() {
            chunk_bytes += entry.key.len() + entry.value.len();
            chunk.push(Put::from(entry));
            if chunk_bytes > CHUNK_BYTES {
                chunk_bytes = 0;
                write(std::mem::take(&mut chunk), true)?;
            }
        }
        write(chunk, true)?;
        // The end stands alone, so that damage to any part of the state has a good record behind it.
        write(Vec::new(), false)?;
        file.sync_all()?;
        fs::rename(&fresh, &path)?;
        File::open(&self.folder)?.sync_all()?;
        self.file = OpenOptions::new().append(true).open(&path)?;
        self.bytes = bytes;
        self.rewrite_bytes = self.rewrite_bytes_min.max(2 * bytes);
        Ok(())
    }

    fn poison(&mut self, error: &io::Error) -> String {
        let why = format!("the embedded store's disk failed, restart the node: {error}");
        self.poisoned.insert(why).clone()
    }
}

impl From<&Entry> for Put {
    fn from(entry: &Entry) -> Put {
        Put {
            key: entry.key.clone(),
            value: entry.value.clone(),
            create_revision: entry.create_revision.0,
            mod_revision: entry.mod_revision.0,
            lease: entry.lease.map_or(0, |lease| lease.0),
        }
    }
}

impl From<Put> for Entry {
    fn from(put: Put) -> Entry {
        Entry {
            key: put.key,
            value: put.value,
            create_revision: Revision(put.create_revision),
            mod_revision: Revision(put.mod_revision),
            lease: (put.lease != 0).then_some(LeaseId(put.lease)),
        }
    }
}

fn record(commit: &Commit) -> Vec<u8> {
    let body = commit.encode_to_vec();
    let mut record = Vec::with_capacity(body.len() + 8);
    record.extend_from_slice(&u32::try_from(body.len()).expect("a record is far below 4 GiB").to_le_bytes());
    record.extend_from_slice(&crc32c::crc32c(&body).to_le_bytes());
    record.extend_from_slice(&body);
    record
}

/// What a file holds.
fn replay(path: &Path) -> io::Result<Content> {
    let bytes = match fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
        Err(error) => return Err(error),
    };
    let (mut entries, mut revision) = (BTreeMap::new(), Revision(0));
    let (mut rest, mut goes_on) = (&bytes[..], false);
    while let Some((commit, after)) = next_record(rest) {
        revision = Revision(commit.revision);
        entries.extend(commit.puts.into_iter().map(|put| (put.key.clone(), Entry::from(put))));
        for key in commit.deletes {
            entries.remove(&key);
        }
        (rest, goes_on) = (after, commit.goes_on);
    }
    let offset = bytes.len() - rest.len();
    let damaged = |why: String| {
        let what = format!("{} is damaged at byte {offset}: {why}", path.display());
        io::Error::new(io::ErrorKind::InvalidData, what)
    };
    if goes_on {
        return Err(damaged("the state ends in the middle".to_owned()));
    }
    // Whatever follows the first bad record must not be readable, else good changes would be dropped.
    if let Some(at) = (1..rest.len()).find(|at| next_record(&rest[*at..]).is_some()) {
        return Err(damaged(format!("a good record follows at {}", offset + at)));
    }
    Ok((entries, revision))
}

fn next_record(bytes: &[u8]) -> Option<(Commit, &[u8])> {
    let (length, rest) = bytes.split_first_chunk::<4>()?;
    let (crc, rest) = rest.split_first_chunk::<4>()?;
    let length = u32::from_le_bytes(*length) as usize;
    if length == 0 || length > RECORD_BYTES_MAX {
        return None;
    }
    let (body, rest) = rest.split_at_checked(length)?;
    if crc32c::crc32c(body) != u32::from_le_bytes(*crc) {
        return None;
    }
    Some((Commit::decode(body).ok()?, rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(key: &str, value: Vec<u8>, revision: i64) -> Change {
        let revision = Revision(revision);
        let (create_revision, mod_revision) = (revision, revision);
        Change::Put(Entry {
            key: key.to_owned(),
            value: value.into(),
            create_revision,
            mod_revision,
            lease: None,
        })
    }

    /// A file with a state of several records and two changes behind it.
    fn written(folder: &Path) -> Vec<u8> {
        let (mut log, _) = Log::open(folder, u64::MAX).expect("opens");
        let mut state = BTreeMap::new();
        for key in ["x", "y", "z"] {
            let Change::Put(entry) = put(key, vec![7; CHUNK_BYTES], 1) else { panic!("made as a put") };
            state.insert(key.to_owned(), entry);
        }
        log.rewrite(&state, Revision(1)).expect("written");
        log.append(Revision(2), &[put("a", b"1".to_vec(), 2)]).expect("written");
        log.append(Revision(3), &[put("b", b"2".to_vec(), 3)]).expect("written");
        fs::read(folder.join(LOG)).expect("readable")
    }

    /// Where each record begins.
    fn records(bytes: &[u8]) -> Vec<usize> {
        let (mut rest, mut starts) = (bytes, Vec::new());
        while let Some((_, after)) = next_record(rest) {
            starts.push(bytes.len() - rest.len());
            rest = after;
        }
        starts
    }

    #[test]
    fn a_torn_tail_is_dropped_and_damage_before_it_is_told() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join(LOG);
        let whole = written(folder.path());
        let starts = records(&whole);
        assert!(starts.len() > 5, "the state has several records: {starts:?}");
        for cut in starts[starts.len() - 1]..whole.len() {
            fs::write(&path, &whole[..cut]).expect("writable");
            let (entries, _) = replay(&path).expect("a torn tail is no error");
            assert_eq!(entries.keys().collect::<Vec<_>>(), ["a", "x", "y", "z"]);
        }
        for start in &starts[..starts.len() - 1] {
            let mut damaged = whole.clone();
            damaged[start + 9] ^= 1;
            fs::write(&path, &damaged).expect("writable");
            let error = replay(&path).expect_err("damaged").to_string();
            assert!(error.contains(&format!("is damaged at byte {start}")), "{error}");
        }
    }

    #[test]
    fn a_state_that_ends_in_the_middle_is_damage() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join(LOG);
        let whole = written(folder.path());
        for start in &records(&whole)[1..4] {
            fs::write(&path, &whole[..*start]).expect("writable");
            let error = replay(&path).expect_err("damaged").to_string();
            assert!(error.contains("ends in the middle"), "{error}");
        }
    }

    #[test]
    fn a_folder_belongs_to_one_process() {
        let folder = tempfile::tempdir().expect("a folder");
        let open = Log::open(folder.path(), 0).expect("opens");
        let error = Log::open(folder.path(), 0).map(drop).expect_err("locked").to_string();
        assert!(error.contains("in use by another process"), "{error}");
        drop(open);
        Log::open(folder.path(), 0).map(drop).expect("the lock ends with its holder");
    }
}
