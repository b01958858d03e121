//! The metadata store inside the process: for standalone nodes and for several nodes in one process.
//!
//! The whole state is in memory; every change is appended to a file ([`log`]) and synced before it is answered or seen.
//! Opening reads the file, drops what leases held (no session outlives the process), and writes it anew. Calls wait for
//! the disk in threads of their own; watchers read what was published after the sync and never wait for it.

mod log;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use futures::future::BoxFuture;
use futures::stream::{self, BoxStream};
use tokio::sync::watch;
use tracing::error;

use super::{
    Change, ChangeBatch, Condition, Entry, LeaseId, Listing, MetaError, MetaStore, Operation, Txn,
    TxnOutcome, WatchEnd,
};
use crate::ids::Revision;
use log::Log;

/// Revisions that a watch can go back.
const HISTORY_MAX: usize = 10_000;
/// Size below which the file is never written anew while open.
const REWRITE_BYTES_MIN: u64 = 16 * 1024 * 1024;
/// Operations and conditions of one transaction: as many as etcd takes.
const OPERATIONS_MAX: usize = 128;

/// The store; share it between the nodes of one process.
pub struct EmbeddedStore {
    state: Arc<Mutex<State>>,
    published: Arc<Mutex<Published>>,
    revision: watch::Receiver<Revision>,
}

struct State {
    log: Log,
    entries: BTreeMap<String, Entry>,
    revision: Revision,
    leases: BTreeMap<LeaseIdKey, Lease>,
    history_max: usize,
    published: Arc<Mutex<Published>>,
    announce: watch::Sender<Revision>,
}

/// What watchers read; its lock is never held over the disk.
struct Published {
    revision: Revision,
    history: VecDeque<ChangeBatch>,
    /// When the earliest lease ends.
    lease_ends: Option<Instant>,
}

type LeaseIdKey = i64;

struct Lease {
    ttl: Duration,
    ends: Instant,
}

impl EmbeddedStore {
    /// Opens the store in `folder`, which is made when missing.
    ///
    /// # Errors
    /// When another process has it open, the folder cannot be read or written, or its file is damaged before its end.
    pub fn open(folder: &Path) -> io::Result<EmbeddedStore> {
        EmbeddedStore::open_with(folder, REWRITE_BYTES_MIN, HISTORY_MAX)
    }

    fn open_with(folder: &Path, rewrite_bytes_min: u64, history_max: usize) -> io::Result<EmbeddedStore> {
        let (mut log, (mut entries, last)) = Log::open(folder, rewrite_bytes_min)?;
        entries.retain(|_, entry| entry.lease.is_none());
        // A revision of its own, so that no watcher resumes from before the restart without noticing.
        let revision = Revision(last.0 + 1);
        log.rewrite(&entries, revision)?;
        let published = Published { revision, history: VecDeque::new(), lease_ends: None };
        let published = Arc::new(Mutex::new(published));
        let (announce, seen) = watch::channel(revision);
        let leases = BTreeMap::new();
        let state =
            State { log, entries, revision, leases, history_max, published: published.clone(), announce };
        Ok(EmbeddedStore { state: Arc::new(Mutex::new(state)), published, revision: seen })
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
            published: self.published.clone(),
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
            state.publish_lease_end();
            // A watcher that sleeps must learn when the earliest lease ends now.
            state.announce.send_modify(|_| {});
            Ok(LeaseId(id))
        })
    }

    fn keep_alive<'a>(&'a self, lease: LeaseId) -> BoxFuture<'a, Result<bool, MetaError>> {
        self.run(move |state| match state.leases.get_mut(&lease.0) {
            Some(lease) => {
                lease.ends = Instant::now() + lease.ttl;
                state.publish_lease_end();
                Ok(true)
            }
            None => Ok(false),
        })
    }

    fn revoke_lease<'a>(&'a self, lease: LeaseId) -> BoxFuture<'a, Result<(), MetaError>> {
        self.run(move |state| match state.leases.remove(&lease.0) {
            Some(_) => state.drop_keys_of(lease),
            None => Ok(()),
        })
    }
}

impl State {
    fn commit(&mut self, txn: Txn) -> Result<TxnOutcome, MetaError> {
        check(&txn)?;
        if !txn.conditions.iter().all(|condition| self.holds(condition)) {
            return Ok(TxnOutcome::ConditionFailed);
        }
        let next = Revision(self.revision.0 + 1);
        let (mut changes, mut deleted) = (Vec::new(), BTreeSet::new());
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
                Operation::Delete(key) => deleted.extend(self.entries.contains_key(&key).then_some(key)),
                Operation::DeletePrefix(prefix) => {
                    deleted.extend(self.under(&prefix).map(|(key, _)| key.clone()));
                }
            }
        }
        changes.extend(deleted.into_iter().map(Change::Deleted));
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
            self.drop_keys_of(lease)?;
        }
        Ok(())
    }

    /// Removes all keys of a lease that is gone.
    fn drop_keys_of(&mut self, lease: LeaseId) -> Result<(), MetaError> {
        self.publish_lease_end();
        let bound = |entry: &&Entry| entry.lease == Some(lease);
        let keys: Vec<_> = self.entries.values().filter(bound).map(|entry| entry.key.clone()).collect();
        self.make(keys.into_iter().map(Change::Deleted).collect())
    }

    fn publish_lease_end(&self) {
        lock(&self.published).lease_ends = self.leases.values().map(|lease| lease.ends).min();
    }

    /// Writes and syncs a change, then lets everybody see it.
    fn make(&mut self, changes: Vec<Change>) -> Result<(), MetaError> {
        if changes.is_empty() {
            return Ok(());
        }
        let revision = Revision(self.revision.0 + 1);
        self.log.append(revision, &changes)?;
        self.revision = revision;
        for change in &changes {
            match change {
                Change::Put(entry) => drop(self.entries.insert(entry.key.clone(), entry.clone())),
                Change::Deleted(key) => drop(self.entries.remove(key)),
            }
        }
        lock(&self.published).push(ChangeBatch { revision, changes }, self.history_max);
        self.announce.send_replace(revision);
        // After the change is in: what is written is the state. The change itself is safe whatever comes of this.
        if self.log.wants_rewrite()
            && let Err(error) = self.log.rewrite(&self.entries, self.revision)
        {
            error!(%error, "the embedded store's file could not be written anew, restart the node");
        }
        Ok(())
    }

    fn under<'s>(&'s self, prefix: &'s str) -> impl Iterator<Item = (&'s String, &'s Entry)> {
        self.entries.range(prefix.to_owned()..).take_while(move |(key, _)| key.starts_with(prefix))
    }
}

impl Published {
    /// Keeps the last `most` batches.
    fn push(&mut self, batch: ChangeBatch, most: usize) {
        self.revision = batch.revision;
        self.history.push_back(batch);
        while self.history.len() > most {
            self.history.pop_front();
        }
    }
}

/// What etcd refuses is refused here, so that nobody learns it first in production.
fn check(txn: &Txn) -> Result<(), MetaError> {
    let most = txn.operations.len().max(txn.conditions.len());
    if most > OPERATIONS_MAX {
        return Err(MetaError::Refused(format!("{most} operations, at most {OPERATIONS_MAX} are allowed")));
    }
    let mut written = BTreeSet::new();
    for operation in &txn.operations {
        if let Operation::Put { key, .. } = operation
            && !written.insert(key.as_str())
        {
            return Err(MetaError::Refused(format!("key {key} twice in one transaction")));
        }
    }
    let is_deleted = |key: &&&str| {
        txn.operations.iter().any(|operation| match operation {
            Operation::Put { .. } => false,
            Operation::Delete(deleted) => deleted == **key,
            Operation::DeletePrefix(prefix) => key.starts_with(prefix.as_str()),
        })
    };
    match written.iter().find(is_deleted) {
        Some(key) => Err(MetaError::Refused(format!("key {key} is written and deleted in one transaction"))),
        None => Ok(()),
    }
}

/// One watch: reads the history and sleeps until there is more or a lease ends.
struct Watcher {
    state: Arc<Mutex<State>>,
    published: Arc<Mutex<Published>>,
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
        let published = lock(&self.published);
        let oldest = published.history.front().map_or(published.revision.0 + 1, |batch| batch.revision.0);
        if self.next.0 < oldest {
            return Err(WatchEnd::Compacted(Revision(oldest)));
        }
        let seen = (self.next.0 - oldest).min(published.history.len() as i64) as usize;
        for batch in published.history.range(seen..) {
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
        Ok((None, published.lease_ends))
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

/// A panic under the lock leaves the state as it was before or after a change, both whole.
fn lock<T>(state: &Mutex<T>) -> MutexGuard<'_, T> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use futures::StreamExt as _;

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

    /// Steps: commit over a file that is written anew again and again, then reopen: every answered change is there.
    #[tokio::test]
    async fn a_file_that_was_written_anew_holds_the_last_change() {
        let folder = tempfile::tempdir().expect("a folder");
        for round in 0..3 {
            let store = EmbeddedStore::open_with(folder.path(), 100, HISTORY_MAX).expect("opens");
            for number in 0..20 {
                store.commit(put(&format!("{round}-{number:02}"), b"value")).await.expect("committed");
                let listing = store.list("").await.expect("listed");
                assert_eq!(listing.entries.len(), round * 20 + number + 1);
            }
            let before = store.list("").await.expect("listed");
            drop(store);
            let store = EmbeddedStore::open_with(folder.path(), 100, HISTORY_MAX).expect("opens");
            assert_eq!(store.list("").await.expect("listed").entries, before.entries);
        }
    }

    #[tokio::test]
    async fn a_watch_from_a_forgotten_revision_is_told_so() {
        let folder = tempfile::tempdir().expect("a folder");
        let store = EmbeddedStore::open_with(folder.path(), REWRITE_BYTES_MIN, 2).expect("opens");
        let mut revisions = Vec::new();
        for value in [b"1", b"2", b"3"] {
            let TxnOutcome::Committed(at) = store.commit(put("a", value)).await.expect("committed") else {
                panic!("there is no condition")
            };
            revisions.push(at);
        }
        let mut changes = store.watch("", revisions[0]).await.expect("watched");
        assert_eq!(changes.next().await, Some(Err(WatchEnd::Compacted(revisions[1]))));
        let mut changes = store.watch("", revisions[1]).await.expect("watched");
        for revision in &revisions[1..] {
            assert_eq!(changes.next().await.expect("goes on").expect("kept").revision, *revision);
        }
    }
}
