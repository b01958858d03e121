//! The metadata store: a small, linearizable, watchable key-value store with leases. etcd, or embedded.
//!
//! The contract, checked by one suite on every implementation:
//! - a transaction is atomic and linearizable; each successful change has a larger [`Revision`] than all before;
//! - a watch from revision r sees every change at or after r, in order, all changes of one revision in one batch,
//!   or ends with [`WatchEnd::Compacted`];
//! - when a lease ends, its keys are gone in one change.

mod embedded;
mod etcd;
mod forward_only;

use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
use futures::stream::BoxStream;

pub use embedded::EmbeddedStore;
pub use etcd::EtcdStore;
pub use forward_only::ForwardOnly;

use crate::ids::Revision;

/// A connection to the metadata store; cheap to share as `Arc<dyn MetaStore>`. All calls are cancel-safe in the
/// sense that a dropped write may or may not have happened.
pub trait MetaStore: Send + Sync + 'static {
    /// One key, linearizable.
    fn get<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<Option<Entry>, MetaError>>;

    /// Every key under `prefix` at one revision, ascending.
    fn list<'a>(&'a self, prefix: &'a str) -> BoxFuture<'a, Result<Listing, MetaError>>;

    /// Applies `txn.operations` if all its conditions hold. At most 128 operations.
    fn commit<'a>(&'a self, txn: Txn) -> BoxFuture<'a, Result<TxnOutcome, MetaError>>;

    /// Changes under `prefix` at or after `from`.
    fn watch<'a>(
        &'a self,
        prefix: &'a str,
        from: Revision,
    ) -> BoxFuture<'a, Result<BoxStream<'static, Result<ChangeBatch, WatchEnd>>, MetaError>>;

    /// A new lease of at least `ttl` (whole seconds, 2 or more).
    fn grant_lease<'a>(&'a self, ttl: Duration) -> BoxFuture<'a, Result<LeaseId, MetaError>>;

    /// Prolongs a lease once; `false`: the lease is gone.
    fn keep_alive<'a>(&'a self, lease: LeaseId) -> BoxFuture<'a, Result<bool, MetaError>>;

    /// Ends a lease and removes its keys. A lease that is gone already is no error.
    fn revoke_lease<'a>(&'a self, lease: LeaseId) -> BoxFuture<'a, Result<(), MetaError>>;
}

/// Number of a lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct LeaseId(pub i64);

/// One stored key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The whole key.
    pub key: String,
    /// The value.
    pub value: Bytes,
    /// Revision at which the key came to exist.
    pub create_revision: Revision,
    /// Revision of its last change.
    pub mod_revision: Revision,
    /// The lease it is bound to.
    pub lease: Option<LeaseId>,
}

/// The answer of [`MetaStore::list`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listing {
    /// The store's revision at which the entries were read.
    pub revision: Revision,
    /// Ascending by key.
    pub entries: Vec<Entry>,
}

/// A guarded change.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Txn {
    /// All must hold.
    pub conditions: Vec<Condition>,
    /// Applied in order when they do; no key twice.
    pub operations: Vec<Operation>,
}

/// What must hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Condition {
    /// The key does not exist.
    Absent(String),
    /// The key exists and came to exist at this revision: fencing by a session or an election.
    CreatedAt(String, Revision),
    /// The key's last change was at this revision: compare and swap.
    ModifiedAt(String, Revision),
}

/// What is changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Operation {
    /// Writes a key.
    Put {
        /// The key.
        key: String,
        /// Its value.
        value: Bytes,
        /// Removes the key when this lease ends.
        lease: Option<LeaseId>,
    },
    /// Removes a key; an absent key is no error.
    Delete(String),
    /// Removes every key under a prefix.
    DeletePrefix(String),
}

/// How a transaction ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TxnOutcome {
    /// Applied, at this revision.
    Committed(Revision),
    /// A condition did not hold; nothing changed.
    ConditionFailed,
}

/// Changes of one revision.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChangeBatch {
    /// The revision; everything up to it has been delivered.
    pub revision: Revision,
    /// In order; empty for a progress report.
    pub changes: Vec<Change>,
}

/// One change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// Written.
    Put(Entry),
    /// Removed, by a call or by the end of a lease.
    Deleted(String),
}

/// Why a watch ended. The watcher lists again (`Compacted`) or resumes after the last revision (`Lost`).
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WatchEnd {
    /// The wanted revision is no longer kept.
    #[error("revision was compacted, the oldest kept is {0}")]
    Compacted(Revision),
    /// The connection ended.
    #[error("watch was lost: {0}")]
    Lost(String),
}

/// Why a call failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MetaError {
    /// Not reached, or no answer in time: a write may or may not have happened.
    #[error("metadata store did not answer: {0}")]
    Unavailable(String),
    /// User, password or role is wrong.
    #[error("metadata store refused the credentials: {0}")]
    Denied(String),
    /// The store refused the request: nothing happened.
    #[error("metadata store refused the request: {0}")]
    Refused(String),
    /// It has lost changes: nothing that it says is believed.
    #[error(
        "metadata store went back to revision {found}, and is believed from {seen} on: it was restored from an older state; \
         docs/how-to/replication.md says how to restore etcd"
    )]
    WentBack {
        /// The lowest revision that is believed.
        seen: Revision,
        /// The revision of an answer after that.
        found: Revision,
    },
}
