//! Keeps this node's view of the cluster: one listing, then a watch; a new listing when the watch cannot go on.
//!
//! Losing the metadata store keeps the last view: searches and writes go on by it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use futures::StreamExt;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};
use vectorsphere_proto::keys::Keys;

use super::meta_store::{Change, ChangeBatch, Listing, MetaError, MetaStore, WatchEnd};
use super::metrics::ClusterMetrics;
use super::view::{ClusterView, Master};
use crate::ids::Revision;

/// Pause before the next try to reach the store, doubled up to the maximum.
const RETRY_MIN: Duration = Duration::from_millis(50);
const RETRY_MAX: Duration = Duration::from_secs(2);
/// Batches that are taken in before the view is shown: a burst of changes costs one copy of the view.
const BURST: usize = 256;

/// The node's view of the cluster.
pub struct ServiceDiscovery {
    meta: Arc<dyn MetaStore>,
    keys: Keys,
    view: watch::Sender<Arc<ClusterView>>,
    reachable: AtomicBool,
    metrics: ClusterMetrics,
}

impl ServiceDiscovery {
    /// Empty until [`ServiceDiscovery::run`] has listed.
    pub fn new(meta: Arc<dyn MetaStore>, keys: Keys, metrics: ClusterMetrics) -> ServiceDiscovery {
        let (view, _) = watch::channel(Arc::default());
        ServiceDiscovery { meta, keys, view, reachable: AtomicBool::new(false), metrics }
    }

    /// The cluster as known at the moment.
    pub fn view(&self) -> Arc<ClusterView> {
        self.view.borrow().clone()
    }

    /// Tells of every new view.
    pub fn subscribe(&self) -> watch::Receiver<Arc<ClusterView>> {
        self.view.subscribe()
    }

    /// True while the watch stands.
    pub fn is_reachable(&self) -> bool {
        self.reachable.load(Ordering::Relaxed)
    }

    /// Waits until the view holds every change up to `revision`; `false` when `deadline` comes first.
    pub async fn await_revision(&self, revision: Revision, deadline: Instant) -> bool {
        let mut view = self.view.subscribe();
        let reached = view.wait_for(|view| view.revision >= revision);
        matches!(tokio::time::timeout_at(deadline.into(), reached).await, Ok(Ok(_)))
    }

    /// Keeps the view until `cancel`.
    pub async fn run(&self, cancel: CancellationToken) {
        tokio::select! {
            () = cancel.cancelled() => {}
            () = self.follow() => {}
        }
    }

    async fn follow(&self) {
        let (mut pause, mut told) = (RETRY_MIN, None);
        loop {
            match self.list_and_watch(&mut pause).await {
                Ok(WatchEnd::Compacted(oldest)) => info!(%oldest, "the watch fell behind, listing again"),
                Ok(WatchEnd::Lost(why)) => warn!(why, "lost the watch on the metadata store, listing again"),
                Err(error) if told.replace(error.clone()).as_ref() == Some(&error) => {
                    debug!(%error, "the metadata store is still away");
                }
                Err(error) => warn!(%error, "cannot follow the metadata store, going on by the last view"),
            }
            self.reachable.store(false, Ordering::Relaxed);
            self.metrics.watch_losses.inc();
            tokio::time::sleep(pause.mul_f64(0.5 + rand::random::<f64>() / 2.0)).await;
            pause = (pause * 2).min(RETRY_MAX);
        }
    }

    async fn list_and_watch(&self, pause: &mut Duration) -> Result<WatchEnd, MetaError> {
        let listing = self.meta.list(self.keys.prefix()).await?;
        let next = Revision(listing.revision.0 + 1);
        let mut changes = self.meta.watch(self.keys.prefix(), next).await?.ready_chunks(BURST);
        self.show(self.rebuild(listing));
        if !self.reachable.swap(true, Ordering::Relaxed) {
            info!("reached the metadata store");
        }
        *pause = RETRY_MIN;
        while let Some(burst) = changes.next().await {
            let mut view = ClusterView::clone(&self.view());
            for batch in burst {
                match batch {
                    Ok(batch) => self.take_in(&mut view, batch),
                    Err(end) => {
                        self.show(view);
                        return Ok(end);
                    }
                }
            }
            self.show(view);
        }
        Ok(WatchEnd::Lost("the stream ended".to_owned()))
    }

    fn rebuild(&self, listing: Listing) -> ClusterView {
        let mut view = ClusterView::default();
        for entry in listing.entries {
            let put =
                view.put(&self.keys, &entry.key, &entry.value, entry.create_revision, entry.mod_revision);
            if let Err(error) = put {
                warn!(%error, "left out of the view");
            }
        }
        view.revision = listing.revision;
        view
    }

    fn take_in(&self, view: &mut ClusterView, batch: ChangeBatch) {
        for change in batch.changes {
            match change {
                Change::Put(entry) => {
                    let put = view.put(
                        &self.keys,
                        &entry.key,
                        &entry.value,
                        entry.create_revision,
                        entry.mod_revision,
                    );
                    if let Err(error) = put {
                        warn!(%error, "left out of the view");
                    }
                }
                Change::Deleted(key) => view.delete(&self.keys, &key),
            }
        }
        view.revision = view.revision.max(batch.revision);
    }

    fn show(&self, view: ClusterView) {
        self.metrics.nodes.set(view.nodes.len() as i64);
        let before = self.view.send_replace(Arc::new(view));
        log_differences(&before, &self.view());
    }
}

fn log_differences(before: &ClusterView, now: &ClusterView) {
    for (id, node) in &now.nodes {
        match before.nodes.get(id) {
            None => info!(node = %id, node_type = node.node_type, zone = node.zone, "node joined"),
            Some(old) if old.session != node.session => info!(node = %id, "node came back in a new session"),
            Some(_) => {}
        }
    }
    for id in before.nodes.keys().filter(|id| !now.nodes.contains_key(*id)) {
        warn!(node = %id, "node left");
    }
    if before.master != now.master {
        let name = |master: &Option<Master>| master.as_ref().map(|master| master.node.to_string());
        let epoch = now.master.as_ref().map(|master| master.epoch.0);
        info!(master = ?name(&now.master), epoch, before = ?name(&before.master), "the Master changed");
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use futures::future::BoxFuture;
    use futures::stream::{self, BoxStream};
    use proptest::prelude::*;

    use super::super::meta_store::{EmbeddedStore, Entry, LeaseId, Operation, Txn, TxnOutcome};
    use super::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]

        /// The view kept by changes equals the one built from a listing, whatever happened.
        #[test]
        fn following_changes_equals_listing_again(steps in prop::collection::vec((0u8..6, 0u8..5, any::<bool>()), 1..40)) {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            runtime.block_on(async move {
                let folder = tempfile::tempdir().expect("a folder");
                let meta: Arc<dyn MetaStore> = Arc::new(EmbeddedStore::open(folder.path()).expect("opens"));
                let keys = Keys::of_service("s");
                let discovery = Arc::new(ServiceDiscovery::new(meta.clone(), keys.clone(), ClusterMetrics::default()));
                let cancel = CancellationToken::new();
                let follow = discovery.run(cancel.clone());
                let change = async {
                    // Of the commits and not of the entries: a deletion leaves none.
                    let mut last = Revision(0);
                    for (kind, name, delete) in steps {
                        match meta.commit(random_change(&keys, kind, name, delete)).await.expect("committed") {
                            TxnOutcome::Committed(revision) => last = revision,
                            TxnOutcome::ConditionFailed => panic!("there is no condition"),
                        }
                    }
                    let listing = meta.list(keys.prefix()).await.expect("listed");
                    assert!(discovery.await_revision(last, Instant::now() + Duration::from_secs(10)).await);
                    let (expected, found) = (discovery.rebuild(listing), discovery.view());
                    assert_eq!(format!("{:?}", (&expected.candidates, &expected.nodes, &expected.master)),
                               format!("{:?}", (&found.candidates, &found.nodes, &found.master)));
                    cancel.cancel();
                };
                tokio::join!(follow, change);
            });
        }
    }

    /// A store whose first watches end at once, each after a change that they do not show.
    struct Ending {
        inner: EmbeddedStore,
        ends: Mutex<Vec<WatchEnd>>,
        keys: Keys,
    }

    impl MetaStore for Ending {
        fn watch<'a>(
            &'a self,
            prefix: &'a str,
            from: Revision,
        ) -> BoxFuture<'a, Result<BoxStream<'static, Result<ChangeBatch, WatchEnd>>, MetaError>> {
            let end = self.ends.lock().expect("no panic").pop();
            Box::pin(async move {
                let Some(end) = end else { return self.inner.watch(prefix, from).await };
                let missed = self.ends.lock().expect("no panic").len() as u8;
                self.inner.commit(random_change(&self.keys, 0, missed, false)).await?;
                let ended: BoxStream<'static, _> = Box::pin(stream::iter([Err(end)]));
                Ok(ended)
            })
        }

        fn get<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<Option<Entry>, MetaError>> {
            self.inner.get(key)
        }

        fn list<'a>(&'a self, prefix: &'a str) -> BoxFuture<'a, Result<Listing, MetaError>> {
            self.inner.list(prefix)
        }

        fn commit<'a>(&'a self, txn: Txn) -> BoxFuture<'a, Result<TxnOutcome, MetaError>> {
            self.inner.commit(txn)
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

    #[tokio::test]
    async fn a_watch_that_was_compacted_or_lost_misses_nothing() {
        let folder = tempfile::tempdir().expect("a folder");
        let keys = Keys::of_service("s");
        let ends = vec![WatchEnd::Lost("on purpose".to_owned()), WatchEnd::Compacted(Revision(7))];
        let inner = EmbeddedStore::open(folder.path()).expect("opens");
        let meta = Arc::new(Ending { inner, ends: Mutex::new(ends), keys: keys.clone() });
        let metrics = ClusterMetrics::default();
        let discovery = ServiceDiscovery::new(meta.clone(), keys.clone(), metrics.clone());
        let cancel = CancellationToken::new();
        let mut view = discovery.subscribe();
        let seen = async {
            let all = view.wait_for(|view| view.nodes.len() == 2);
            tokio::time::timeout(Duration::from_secs(10), all).await.expect("in time").expect("it runs");
            let deleted = meta.commit(random_change(&keys, 0, 0, true)).await.expect("committed");
            assert!(matches!(deleted, TxnOutcome::Committed(_)));
            let one = view.wait_for(|view| view.nodes.len() == 1);
            tokio::time::timeout(Duration::from_secs(10), one).await.expect("in time").expect("it runs");
            cancel.cancel();
        };
        tokio::join!(discovery.run(cancel.clone()), seen);
        assert_eq!(metrics.watch_losses.get(), 2);
    }

    fn random_change(keys: &Keys, kind: u8, name: u8, delete: bool) -> Txn {
        use prost::Message as _;
        use vectorsphere_proto::meta;
        let node_id = format!("n{name}");
        let (key, value) = match kind % 2 {
            0 => (keys.node(&node_id), meta::NodeRecord { node_id, ..Default::default() }.encode_to_vec()),
            _ => (
                keys.master(i64::from(name) + 1),
                meta::MasterCandidate { node_id, ..Default::default() }.encode_to_vec(),
            ),
        };
        let operation = match delete {
            true => Operation::Delete(key),
            false => Operation::Put { key, value: value.into(), lease: None },
        };
        Txn { conditions: Vec::new(), operations: vec![operation] }
    }
}
