//! A metadata store that is known not to go back.
//!
//! etcd that was restored from an older snapshot tells of in-sync sets that have shrunk since, and of sessions that have ended:
//! whoever believes it may lose what was acknowledged (replication.md 2.20, R3). Revisions only grow, so a store whose
//! revision is below one that was seen before has lost changes. From the first such answer on every call fails.

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use futures::future::BoxFuture;
use futures::stream::BoxStream;
use tokio::sync::watch;

use super::{ChangeBatch, Entry, LeaseId, Listing, MetaError, MetaStore, Txn, TxnOutcome, WatchEnd};
use crate::ids::Revision;

/// Compares the revision of every linearizable answer with the highest one that was seen before the question.
pub struct ForwardOnly {
    inner: Arc<dyn MetaStore>,
    seen: Arc<Seen>,
}

struct Seen {
    highest: watch::Sender<Revision>,
    /// The first revision that was too low.
    too_low: watch::Sender<Option<Revision>>,
}

impl ForwardOnly {
    /// Over `inner`, of which nothing is known.
    pub fn new(inner: Arc<dyn MetaStore>) -> ForwardOnly {
        let seen = Seen { highest: watch::channel(Revision(0)).0, too_low: watch::channel(None).0 };
        ForwardOnly { inner, seen: Arc::new(seen) }
    }

    /// `revision` was seen, by an earlier process perhaps.
    pub fn remember(&self, revision: Revision) {
        self.seen.raise(revision);
    }

    /// The highest revision that was seen; tells when it grows.
    pub fn highest(&self) -> watch::Receiver<Revision> {
        self.seen.highest.subscribe()
    }

    /// Returns when the store has gone back, with the error of every call from then on.
    pub async fn gone_back(&self) -> MetaError {
        // The sender lives as long as `self`.
        let found =
            self.seen.too_low.subscribe().wait_for(Option::is_some).await.ok().and_then(|found| *found);
        MetaError::WentBack { seen: *self.seen.highest.borrow(), found: found.unwrap_or_default() }
    }
}

impl Seen {
    fn raise(&self, revision: Revision) {
        self.highest.send_if_modified(|highest| {
            let is_news = revision > *highest;
            *highest = revision.max(*highest);
            is_news
        });
    }

    fn guard(&self) -> Result<Revision, MetaError> {
        let seen = *self.highest.borrow();
        match *self.too_low.borrow() {
            None => Ok(seen),
            Some(found) => Err(MetaError::WentBack { seen, found }),
        }
    }

    /// An answer of revision `found` to a question that was asked when `seen` was the highest.
    fn compare(&self, seen: Revision, found: Revision) -> Result<(), MetaError> {
        if found < seen {
            self.too_low.send_if_modified(|known| known.is_none() && known.replace(found).is_none());
        } else {
            self.raise(found);
        }
        self.guard().map(drop)
    }
}

impl MetaStore for ForwardOnly {
    fn get<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<Option<Entry>, MetaError>> {
        Box::pin(async move {
            self.seen.guard()?;
            self.inner.get(key).await
        })
    }

    fn list<'a>(&'a self, prefix: &'a str) -> BoxFuture<'a, Result<Listing, MetaError>> {
        Box::pin(async move {
            let seen = self.seen.guard()?;
            let listing = self.inner.list(prefix).await?;
            self.seen.compare(seen, listing.revision)?;
            Ok(listing)
        })
    }

    fn commit<'a>(&'a self, txn: Txn) -> BoxFuture<'a, Result<TxnOutcome, MetaError>> {
        Box::pin(async move {
            let seen = self.seen.guard()?;
            let outcome = self.inner.commit(txn).await?;
            if let TxnOutcome::Committed(revision) = outcome {
                self.seen.compare(seen, revision)?;
            }
            Ok(outcome)
        })
    }

    fn watch<'a>(
        &'a self,
        prefix: &'a str,
        from: Revision,
    ) -> BoxFuture<'a, Result<BoxStream<'static, Result<ChangeBatch, WatchEnd>>, MetaError>> {
        Box::pin(async move {
            self.seen.guard()?;
            let seen = self.seen.clone();
            let changes = self.inner.watch(prefix, from).await?;
            // A watch may lag behind: what it tells was seen, but proves nothing.
            let noted = changes.inspect(move |batch| {
                if let Ok(batch) = batch {
                    seen.raise(batch.revision);
                }
            });
            Ok(noted.boxed())
        })
    }

    fn grant_lease<'a>(&'a self, ttl: Duration) -> BoxFuture<'a, Result<LeaseId, MetaError>> {
        Box::pin(async move {
            self.seen.guard()?;
            self.inner.grant_lease(ttl).await
        })
    }

    fn keep_alive<'a>(&'a self, lease: LeaseId) -> BoxFuture<'a, Result<bool, MetaError>> {
        Box::pin(async move {
            self.seen.guard()?;
            self.inner.keep_alive(lease).await
        })
    }

    fn revoke_lease<'a>(&'a self, lease: LeaseId) -> BoxFuture<'a, Result<(), MetaError>> {
        Box::pin(async move {
            self.seen.guard()?;
            self.inner.revoke_lease(lease).await
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::{EmbeddedStore, Operation};
    use super::*;

    fn put(key: &str) -> Txn {
        let operations =
            vec![Operation::Put { key: key.to_owned(), value: key.to_owned().into(), lease: None }];
        Txn { conditions: Vec::new(), operations }
    }

    /// Steps: three changes are seen; the store is exchanged for one that has only the first; later it has more than before.
    #[tokio::test]
    async fn a_store_that_went_back_is_not_believed_any_more() {
        let folders = [tempfile::tempdir().expect("a folder"), tempfile::tempdir().expect("a folder")];
        let [whole, older] = folders.each_ref().map(|folder| -> Arc<dyn MetaStore> {
            Arc::new(EmbeddedStore::open(folder.path()).expect("opens"))
        });
        let store = ForwardOnly::new(whole.clone());
        for key in ["a", "b", "c"] {
            store.commit(put(key)).await.expect("committed");
        }
        let seen = store.list("").await.expect("listed").revision;
        assert_eq!(*store.highest().borrow(), seen);

        let store = ForwardOnly::new(older.clone());
        store.remember(seen);
        let found = match older.commit(put("a")).await.expect("committed") {
            TxnOutcome::Committed(revision) => revision,
            TxnOutcome::ConditionFailed => unreachable!("there is none"),
        };
        let refused = Err(MetaError::WentBack { seen, found });
        assert_eq!(store.list("").await, refused.clone());
        for key in ["b", "c", "d", "e"] {
            older.commit(put(key)).await.expect("committed");
        }
        assert_eq!(store.list("").await, refused.clone(), "what was lost is lost");
        assert_eq!(store.keep_alive(LeaseId(1)).await, refused.map(|_: Listing| true));
        assert_eq!(store.gone_back().await, MetaError::WentBack { seen, found });
    }

    /// Steps: a watch delivers a change; a store that lacks it is not believed.
    #[tokio::test]
    async fn what_a_watch_delivered_was_seen() {
        let folder = tempfile::tempdir().expect("a folder");
        let inner = Arc::new(EmbeddedStore::open(folder.path()).expect("opens"));
        let store = ForwardOnly::new(inner.clone());
        let begun = inner.list("").await.expect("listed").revision;
        let mut changes = store.watch("", Revision(begun.0 + 1)).await.expect("watched");
        inner.commit(put("a")).await.expect("committed");
        let told = changes.next().await.expect("a change").expect("well");
        assert_eq!(*store.highest().borrow(), told.revision);
        assert!(told.revision > begun);
        let older = tempfile::tempdir().expect("a folder");
        let older = EmbeddedStore::open(older.path()).expect("opens");
        let refused = ForwardOnly { inner: Arc::new(older), ..store };
        assert!(matches!(refused.list("").await, Err(MetaError::WentBack { .. })), "it lacks the change");
    }
}
