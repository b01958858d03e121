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
}

impl ServiceDiscovery {
    /// Empty until [`ServiceDiscovery::run`] has listed.
    pub fn new(meta: Arc<dyn MetaStore>, keys: Keys) -> ServiceDiscovery {
        let (view, _) = watch::channel(Arc::default());
        ServiceDiscovery { meta, keys, view, reachable: AtomicBool::new(false) }
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
        let mut pause = RETRY_MIN;
        loop {
            match self.list_and_watch(&mut pause).await {
                Ok(WatchEnd::Compacted(oldest)) => info!(%oldest, "the watch fell behind, listing again"),
                Ok(WatchEnd::Lost(why)) => warn!(why, "lost the watch on the metadata store, listing again"),
                Err(error) => {
                    let was_reachable = self.reachable.swap(false, Ordering::Relaxed);
                    match was_reachable {
                        true => warn!(%error, "lost the metadata store, going on by the last view"),
                        false => debug!(%error, "the metadata store is still away"),
                    }
                }
            }
            self.reachable.store(false, Ordering::Relaxed);
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
    use proptest::prelude::*;

    use super::super::meta_store::{EmbeddedStore, Operation, Txn};
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
                let discovery = Arc::new(ServiceDiscovery::new(meta.clone(), keys.clone()));
                let cancel = CancellationToken::new();
                let follow = discovery.run(cancel.clone());
                let change = async {
                    for (kind, name, delete) in steps {
                        meta.commit(random_change(&keys, kind, name, delete)).await.expect("committed");
                    }
                    let listing = meta.list(keys.prefix()).await.expect("listed");
                    let changed = listing.entries.iter().map(|entry| entry.mod_revision).max().unwrap_or_default();
                    assert!(discovery.await_revision(changed, Instant::now() + Duration::from_secs(10)).await);
                    let (expected, found) = (discovery.rebuild(listing), discovery.view());
                    assert_eq!(format!("{:?}", (&expected.candidates, &expected.nodes, &expected.master)),
                               format!("{:?}", (&found.candidates, &found.nodes, &found.master)));
                    cancel.cancel();
                };
                tokio::join!(follow, change);
            });
        }
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
