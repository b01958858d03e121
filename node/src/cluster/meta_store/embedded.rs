//! The metadata store inside the process: for standalone nodes and for several nodes in one process.
//!
//! The whole state is in memory; every change is appended to a file and synced before it is answered or seen. Opening
//! reads the file, drops what leases held (no session outlives the process), and writes it anew.
//!
//! | file `store.log`: record | size |
//! |---|---|
//! | length of the body | u32, little endian |
//! | CRC-32C of the body | u32, little endian |
//! | body: protobuf `Commit` | length bytes |
//!
//! A record that is cut short or damaged at the end is what a crash leaves of an unanswered change and is dropped;
//! anywhere else it is an error.

use std::collections::{BTreeMap, VecDeque};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::future::BoxFuture;
use futures::stream::{self, BoxStream};
use prost::Message as _;
use tokio::sync::watch;

use super::{
    Change, ChangeBatch, Condition, Entry, LeaseId, Listing, MetaError, MetaStore, Operation, Txn,
    TxnOutcome, WatchEnd,
};
use crate::ids::Revision;

const LOG: &str = "store.log";
/// Revisions that a watch can go back.
const HISTORY: usize = 10_000;
/// Size at which the file is written anew while open.
const REWRITE_BYTES: u64 = 16 * 1024 * 1024;
/// Largest record: far more than 128 operations need.
const RECORD_BYTES_MAX: usize = 64 * 1024 * 1024;

/// The store; share it between the nodes of one process.
pub struct EmbeddedStore {
    state: Arc<Mutex<State>>,
    revision: watch::Receiver<Revision>,
}

struct State {
    folder: PathBuf,
    log: File,
    log_bytes: u64,
    /// Set by a failed write or sync: what the disk holds is unknown, so nothing more is accepted.
    poisoned: Option<String>,
    entries: BTreeMap<String, Entry>,
    revision: Revision,
    leases: BTreeMap<LeaseIdKey, Lease>,
    history: VecDeque<ChangeBatch>,
    announce: watch::Sender<Revision>,
}

type LeaseIdKey = i64;

struct Lease {
    ttl: Duration,
    ends: Instant,
}

/// One change on disk.
#[derive(Clone, PartialEq, prost::Message)]
struct Commit {
    #[prost(int64, tag = "1")]
    revision: i64,
    #[prost(message, repeated, tag = "2")]
    puts: Vec<Put>,
    #[prost(string, repeated, tag = "3")]
    deletes: Vec<String>,
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

impl EmbeddedStore {
    /// Opens the store in `folder`, which is made when missing.
    ///
    /// # Errors
    /// When the folder cannot be read or written, or its file is damaged before its end.
    pub fn open(folder: &Path) -> io::Result<EmbeddedStore> {
        fs::create_dir_all(folder)?;
        let (entries, revision) = replay(&folder.join(LOG))?;
        let (announce, seen) = watch::channel(revision);
        let mut state = State {
            folder: folder.to_owned(),
            log: OpenOptions::new().create(true).append(true).open(folder.join(LOG))?,
            log_bytes: 0,
            poisoned: None,
            entries,
            revision,
            leases: BTreeMap::new(),
            history: VecDeque::new(),
            announce,
        };
        state.entries.retain(|_, entry| entry.lease.is_none());
        // A revision of its own, so that no watcher resumes from before the restart without noticing.
        state.revision = Revision(state.revision.0 + 1);
        state.rewrite()?;
        state.announce.send_replace(state.revision);
        Ok(EmbeddedStore { state: Arc::new(Mutex::new(state)), revision: seen })
    }

    /// Runs `work` where blocking is allowed: it may sync the disk.
    fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut State) -> Result<T, MetaError> + Send + 'static,
    ) -> BoxFuture<'static, Result<T, MetaError>> {
        let state = self.state.clone();
        Box::pin(async move {
            let done = tokio::task::spawn_blocking(move || {
                let mut state = lock(&state);
                state.end_leases(Instant::now())?;
                work(&mut state)
            });
            done.await.map_err(|error| MetaError::Unavailable(error.to_string()))?
        })
    }
}

impl MetaStore for EmbeddedStore {
    fn get<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<Option<Entry>, MetaError>> {
        let key = key.to_owned();
        self.run(move |state| Ok(state.entries.get(&key).cloned()))
    }

    fn list<'a>(&'a self, prefix: &'a str) -> BoxFuture<'a, Result<Listing, MetaError>> {
        let prefix = prefix.to_owned();
        self.run(move |state| {
            let entries = state.under(&prefix).map(|(_, entry)| entry.clone()).collect();
            Ok(Listing { revision: state.revision, entries })
        })
    }

    fn commit<'a>(&'a self, txn: Txn) -> BoxFuture<'a, Result<TxnOutcome, MetaError>> {
        self.run(move |state| state.commit(txn))
    }

    fn watch<'a>(
        &'a self,
        prefix: &'a str,
        from: Revision,
    ) -> BoxFuture<'a, Result<BoxStream<'static, Result<ChangeBatch, WatchEnd>>, MetaError>> {
        let watcher = Watcher {
            state: self.state.clone(),
            revision: self.revision.clone(),
            prefix: prefix.to_owned(),
            next: from,
        };
        let changes = stream::unfold(Some(watcher), async |watcher| {
            let mut watcher = watcher?;
            match watcher.next().await {
                Ok(batch) => Some((Ok(batch), Some(watcher))),
                Err(end) => Some((Err(end), None)),
            }
        });
        let changes: BoxStream<'static, _> = Box::pin(changes);
        Box::pin(async { Ok(changes) })
    }

    fn grant_lease<'a>(&'a self, ttl: Duration) -> BoxFuture<'a, Result<LeaseId, MetaError>> {
        self.run(move |state| {
            let id = loop {
                let id = rand::random::<i64>() & i64::MAX;
                if id != 0 && !state.leases.contains_key(&id) {
                    break id;
                }
            };
            state.leases.insert(id, Lease { ttl, ends: Instant::now() + ttl });
            // A watcher that sleeps must learn when the earliest lease ends now.
            state.announce.send_modify(|_| {});
            Ok(LeaseId(id))
        })
    }

    fn keep_alive<'a>(&'a self, lease: LeaseId) -> BoxFuture<'a, Result<bool, MetaError>> {
        self.run(move |state| match state.leases.get_mut(&lease.0) {
            Some(lease) => {
                lease.ends = Instant::now() + lease.ttl;
                Ok(true)
            }
            None => Ok(false),
        })
    }

    fn revoke_lease<'a>(&'a self, lease: LeaseId) -> BoxFuture<'a, Result<(), MetaError>> {
        self.run(move |state| {
            if state.leases.remove(&lease.0).is_some() {
                state.drop_keys_of(&[lease])?;
            }
            Ok(())
        })
    }
}

impl State {
    fn commit(&mut self, txn: Txn) -> Result<TxnOutcome, MetaError> {
        if !txn.conditions.iter().all(|condition| self.holds(condition)) {
            return Ok(TxnOutcome::ConditionFailed);
        }
        let next = Revision(self.revision.0 + 1);
        let mut changes = Vec::new();
        for operation in txn.operations {
            match operation {
                Operation::Put { key, value, lease } => {
                    if let Some(lease) = lease.filter(|lease| !self.leases.contains_key(&lease.0)) {
                        return Err(MetaError::Refused(format!("lease {:x} does not exist", lease.0)));
                    }
                    let create_revision = self.entries.get(&key).map_or(next, |entry| entry.create_revision);
                    changes.push(Change::Put(Entry {
                        key,
                        value,
                        create_revision,
                        mod_revision: next,
                        lease,
                    }));
                }
                Operation::Delete(key) if self.entries.contains_key(&key) => {
                    changes.push(Change::Deleted(key));
                }
                Operation::Delete(_) => {}
                Operation::DeletePrefix(prefix) => {
                    let keys: Vec<_> = self.under(&prefix).map(|(key, _)| key.clone()).collect();
                    changes.extend(keys.into_iter().map(Change::Deleted));
                }
            }
        }
        self.make(changes)?;
        Ok(TxnOutcome::Committed(self.revision))
    }

    fn holds(&self, condition: &Condition) -> bool {
        match condition {
            Condition::Absent(key) => !self.entries.contains_key(key),
            Condition::CreatedAt(key, revision) => {
                self.entries.get(key).is_some_and(|entry| entry.create_revision == *revision)
            }
            Condition::ModifiedAt(key, revision) => {
                self.entries.get(key).is_some_and(|entry| entry.mod_revision == *revision)
            }
        }
    }

    /// Ends the leases that are over, each with all its keys in one change.
    fn end_leases(&mut self, now: Instant) -> Result<(), MetaError> {
        let over = |lease: &Lease| lease.ends <= now;
        let ended: Vec<_> =
            self.leases.iter().filter(|(_, lease)| over(lease)).map(|(id, _)| LeaseId(*id)).collect();
        for lease in ended {
            self.leases.remove(&lease.0);
            self.drop_keys_of(&[lease])?;
        }
        Ok(())
    }

    fn drop_keys_of(&mut self, leases: &[LeaseId]) -> Result<(), MetaError> {
        let bound = |entry: &&Entry| entry.lease.is_some_and(|lease| leases.contains(&lease));
        let keys: Vec<_> = self.entries.values().filter(bound).map(|entry| entry.key.clone()).collect();
        self.make(keys.into_iter().map(Change::Deleted).collect())
    }

    /// Writes and syncs a change, then lets everybody see it.
    fn make(&mut self, changes: Vec<Change>) -> Result<(), MetaError> {
        if changes.is_empty() {
            return Ok(());
        }
        let revision = Revision(self.revision.0 + 1);
        let (mut puts, mut deletes) = (Vec::new(), Vec::new());
        for change in &changes {
            match change {
                Change::Put(entry) => puts.push(Put::from(entry)),
                Change::Deleted(key) => deletes.push(key.clone()),
            }
        }
        self.append(&Commit { revision: revision.0, puts, deletes })?;
        self.revision = revision;
        for change in &changes {
            match change {
                Change::Put(entry) => drop(self.entries.insert(entry.key.clone(), entry.clone())),
                Change::Deleted(key) => drop(self.entries.remove(key)),
            }
        }
        self.history.push_back(ChangeBatch { revision, changes });
        if self.history.len() > HISTORY {
            self.history.pop_front();
        }
        self.announce.send_replace(revision);
        Ok(())
    }

    fn append(&mut self, commit: &Commit) -> Result<(), MetaError> {
        if let Some(why) = &self.poisoned {
            return Err(MetaError::Unavailable(why.clone()));
        }
        let record = record(commit);
        let written = self.log.write_all(&record).and_then(|()| self.log.sync_data());
        let rewritten = written.and_then(|()| {
            self.log_bytes += record.len() as u64;
            if self.log_bytes > REWRITE_BYTES { self.rewrite() } else { Ok(()) }
        });
        rewritten.map_err(|error| {
            let why = format!("the embedded store's disk failed, restart the node: {error}");
            self.poisoned = Some(why.clone());
            MetaError::Unavailable(why)
        })
    }

    /// Writes the state as one record into a new file and puts it in the place of the old one.
    fn rewrite(&mut self) -> io::Result<()> {
        let puts = self.entries.values().map(Put::from).collect();
        let record = record(&Commit { revision: self.revision.0, puts, deletes: Vec::new() });
        let (path, fresh) = (self.folder.join(LOG), self.folder.join("store.log.new"));
        let mut file = File::create(&fresh)?;
        file.write_all(&record)?;
        file.sync_all()?;
        fs::rename(&fresh, &path)?;
        File::open(&self.folder)?.sync_all()?;
        self.log = OpenOptions::new().append(true).open(&path)?;
        self.log_bytes = record.len() as u64;
        Ok(())
    }

    fn under<'s>(&'s self, prefix: &'s str) -> impl Iterator<Item = (&'s String, &'s Entry)> {
        self.entries.range(prefix.to_owned()..).take_while(move |(key, _)| key.starts_with(prefix))
    }
}

/// One watch: reads the history and sleeps until there is more or a lease ends.
struct Watcher {
    state: Arc<Mutex<State>>,
    revision: watch::Receiver<Revision>,
    prefix: String,
    next: Revision,
}

impl Watcher {
    async fn next(&mut self) -> Result<ChangeBatch, WatchEnd> {
        loop {
            self.revision.mark_unchanged();
            let (batch, lease_ends) = self.look()?;
            if let Some(batch) = batch {
                return Ok(batch);
            }
            let changed = self.revision.changed();
            let woken = match lease_ends {
                Some(ends) => tokio::time::timeout_at(ends.into(), changed).await,
                None => Ok(changed.await),
            };
            match woken {
                Ok(Ok(())) => {}
                Ok(Err(_)) => return Err(WatchEnd::Lost("the store was closed".to_owned())),
                Err(_) => self.end_leases().await?,
            }
        }
    }

    /// The next batch with changes under the prefix, or when the earliest lease ends.
    fn look(&mut self) -> Result<(Option<ChangeBatch>, Option<Instant>), WatchEnd> {
        let state = lock(&self.state);
        let oldest = state.history.front().map_or(state.revision.0 + 1, |batch| batch.revision.0);
        if self.next.0 < oldest {
            return Err(WatchEnd::Compacted(Revision(oldest)));
        }
        for batch in state.history.range((self.next.0 - oldest).min(state.history.len() as i64) as usize..) {
            self.next = Revision(batch.revision.0 + 1);
            let ours = |change: &&Change| match change {
                Change::Put(entry) => entry.key.starts_with(&self.prefix),
                Change::Deleted(key) => key.starts_with(&self.prefix),
            };
            let changes: Vec<_> = batch.changes.iter().filter(ours).cloned().collect();
            if !changes.is_empty() {
                return Ok((Some(ChangeBatch { revision: batch.revision, changes }), None));
            }
        }
        Ok((None, state.leases.values().map(|lease| lease.ends).min()))
    }

    async fn end_leases(&self) -> Result<(), WatchEnd> {
        let state = self.state.clone();
        let ended = tokio::task::spawn_blocking(move || lock(&state).end_leases(Instant::now())).await;
        match ended {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(WatchEnd::Lost(error.to_string())),
            Err(error) => Err(WatchEnd::Lost(error.to_string())),
        }
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

/// The state that a file holds.
fn replay(path: &Path) -> io::Result<(BTreeMap<String, Entry>, Revision)> {
    let bytes = match fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
        Err(error) => return Err(error),
    };
    let (mut entries, mut revision) = (BTreeMap::new(), Revision(0));
    let mut rest = &bytes[..];
    while let Some((commit, after)) = next_record(rest) {
        revision = Revision(commit.revision);
        entries.extend(commit.puts.into_iter().map(|put| (put.key.clone(), Entry::from(put))));
        for key in commit.deletes {
            entries.remove(&key);
        }
        rest = after;
    }
    // Whatever follows the first bad record must not be readable, else good changes would be dropped.
    if let Some(at) = (1..rest.len()).find(|at| next_record(&rest[*at..]).is_some()) {
        let offset = bytes.len() - rest.len();
        let what = format!(
            "{} is damaged at byte {offset}; a good record follows at {}",
            path.display(),
            offset + at
        );
        return Err(io::Error::new(io::ErrorKind::InvalidData, what));
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

/// A panic under the lock leaves the state as it was before or after a change, both whole.
fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(key: &str, value: &'static [u8]) -> Txn {
        let value = Bytes::from_static(value);
        Txn {
            conditions: Vec::new(),
            operations: vec![Operation::Put { key: key.to_owned(), value, lease: None }],
        }
    }

    #[tokio::test]
    async fn changes_outlive_the_process_and_leases_do_not() {
        let folder = tempfile::tempdir().expect("a folder");
        let store = EmbeddedStore::open(folder.path()).expect("opens");
        store.commit(put("a", b"1")).await.expect("committed");
        let lease = store.grant_lease(Duration::from_secs(60)).await.expect("granted");
        let bound = Operation::Put { key: "b".to_owned(), value: Bytes::new(), lease: Some(lease) };
        store.commit(Txn { conditions: Vec::new(), operations: vec![bound] }).await.expect("committed");
        let before = store.list("").await.expect("listed");
        drop(store);
        let store = EmbeddedStore::open(folder.path()).expect("opens");
        let after = store.list("").await.expect("listed");
        assert_eq!(after.entries, before.entries[..1]);
        assert!(after.revision > before.revision);
    }

    #[tokio::test]
    async fn a_torn_tail_is_dropped_and_damage_before_it_is_told() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join(LOG);
        let store = EmbeddedStore::open(folder.path()).expect("opens");
        for (key, value) in [("a", b"1"), ("b", b"2")] {
            store.commit(put(key, value)).await.expect("committed");
        }
        drop(store);
        let whole = fs::read(&path).expect("readable");
        let second = whole.len() - record_length(&whole);
        for cut in second..whole.len() {
            fs::write(&path, &whole[..cut]).expect("writable");
            let (entries, _) = replay(&path).expect("a torn tail is no error");
            assert_eq!(entries.keys().collect::<Vec<_>>(), ["a"]);
        }
        let mut damaged = whole.clone();
        damaged[9] ^= 1;
        fs::write(&path, &damaged).expect("writable");
        assert!(replay(&path).expect_err("damaged").to_string().contains("is damaged at byte 0"));
    }

    /// Length of the last record of the file: the one that put `b`.
    fn record_length(bytes: &[u8]) -> usize {
        let mut rest = bytes;
        let mut last = 0;
        while let Some((_, after)) = next_record(rest) {
            last = rest.len() - after.len();
            rest = after;
        }
        last
    }
}
