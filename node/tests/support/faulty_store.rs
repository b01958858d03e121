//! A metadata store whose answers get lost.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures::future::BoxFuture;
use futures::stream::BoxStream;
use vectorsphere::cluster::MetaStore;
use vectorsphere::cluster::meta_store::{
    ChangeBatch, Entry, LeaseId, Listing, MetaError, Txn, TxnOutcome, WatchEnd,
};
use vectorsphere::ids::Revision;

/// Passes every call on.
pub(crate) struct FaultyStore {
    inner: Arc<dyn MetaStore>,
    /// The next commit is carried out, but its answer never comes.
    pub(crate) swallow_next_commit: AtomicBool,
}

impl FaultyStore {
    pub(crate) fn over(inner: Arc<dyn MetaStore>) -> FaultyStore {
        FaultyStore { inner, swallow_next_commit: AtomicBool::new(false) }
    }
}

impl MetaStore for FaultyStore {
    fn get<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<Option<Entry>, MetaError>> {
        self.inner.get(key)
    }

    fn list<'a>(&'a self, prefix: &'a str) -> BoxFuture<'a, Result<Listing, MetaError>> {
        self.inner.list(prefix)
    }

    fn commit<'a>(&'a self, txn: Txn) -> BoxFuture<'a, Result<TxnOutcome, MetaError>> {
        Box::pin(async move {
            let outcome = self.inner.commit(txn).await;
            if self.swallow_next_commit.swap(false, Ordering::SeqCst) {
                std::future::pending::<()>().await;
            }
            outcome
        })
    }

    fn watch<'a>(
        &'a self,
        prefix: &'a str,
        from: Revision,
    ) -> BoxFuture<'a, Result<BoxStream<'static, Result<ChangeBatch, WatchEnd>>, MetaError>> {
        self.inner.watch(prefix, from)
    }

    fn grant_lease<'a>(&'a self, ttl: Duration) -> BoxFuture<'a, Result<LeaseId, MetaError>> {
        self.inner.grant_lease(ttl)
    }

    fn keep_alive<'a>(&'a self, lease: LeaseId) -> BoxFuture<'a, Result<bool, MetaError>> {
        self.inner.keep_alive(lease)
    }

    fn revoke_lease<'a>(&'a self, lease: LeaseId) -> BoxFuture<'a, Result<(), MetaError>> {
        self.inner.revoke_lease(lease)
    }
}
