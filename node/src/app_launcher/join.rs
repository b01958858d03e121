//! The way into the cluster.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::warn;
use vectorsphere_proto::keys::Keys;

use super::LaunchError;
use crate::cluster::node_session::SessionError;
use crate::cluster::{Failures, HeldSession, MetaStore, NodeSession, ServiceDiscovery};
use crate::config::Config;
use crate::runtime::Readiness;
use crate::runtime::disk::Disk;
use crate::storage::data_dir;

/// Pause between two tries to reach the metadata store.
const PAUSE: Duration = Duration::from_millis(500);
/// False once the metadata store has failed more often than the configuration calls normal.
const REACHED: &str = "reached the metadata store";

/// Finds out which cluster this is, and binds the data directory to it. Waits for a metadata store that does not answer or
/// refuses, and says so.
pub(super) async fn join(
    store: &dyn MetaStore,
    keys: &Keys,
    disk: &dyn Disk,
    readiness: &Readiness,
    live: &watch::Receiver<Arc<Config>>,
    stop: &CancellationToken,
) -> Result<(), LaunchError> {
    let own = data_dir::cluster_uid(disk)?;
    let mut failures = Failures::default();
    let cluster_uid = loop {
        let joining = NodeSession::join_cluster(store, keys, own.as_deref());
        match stop.run_until_cancelled(joining).await {
            None => return Err(LaunchError::Stopped),
            Some(Ok(cluster_uid)) => break cluster_uid,
            Some(Err(SessionError::Meta(error))) => {
                let retry_count = live.borrow().slave.register_retry_count;
                failures.tell("join the cluster", error, retry_count);
                if failures.count() > retry_count {
                    readiness.set(REACHED, false);
                }
            }
            Some(Err(error)) => return Err(error.into()),
        }
        if stop.run_until_cancelled(tokio::time::sleep(PAUSE)).await.is_none() {
            return Err(LaunchError::Stopped);
        }
    };
    if failures.count() > 0 {
        warn!(failures = failures.count(), "the metadata store answers now");
    }
    readiness.set(REACHED, true);
    Ok(data_dir::join_cluster(disk, &cluster_uid)?)
}

/// Returns when this node is registered and its view has seen it.
pub(super) async fn await_session(
    discovery: &ServiceDiscovery,
    mut session: watch::Receiver<Option<HeldSession>>,
    stop: &CancellationToken,
) -> Result<(), LaunchError> {
    let mut view = discovery.subscribe();
    let registered = async {
        // The sender lives as long as the node; a closed channel means that it stops.
        let held = session.wait_for(Option::is_some).await.ok().and_then(|held| *held);
        match held {
            Some(held) => view.wait_for(|view| view.revision.0 >= held.session.0).await.is_ok(),
            None => false,
        }
    };
    match stop.run_until_cancelled(registered).await {
        Some(true) => Ok(()),
        Some(false) | None => Err(LaunchError::Stopped),
    }
}
