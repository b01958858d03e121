//! The way into the cluster.

use std::sync::Arc;
use std::time::Duration;

use prost::Message as _;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::{error, warn};
use vectorsphere_proto::keys::Keys;
use vectorsphere_proto::meta::DiskRecord;

use super::LaunchError;
use crate::cluster::meta_store::{Condition, ForwardOnly, MetaError, Operation, Txn, TxnOutcome};
use crate::cluster::node_session::SessionError;
use crate::cluster::{Failures, HeldSession, MetaStore, NodeSession, ServiceDiscovery};
use crate::config::Config;
use crate::ids::{NodeId, Revision};
use crate::runtime::disk::Disk;
use crate::runtime::{Readiness, spawn_blocking};
use crate::storage::data_dir::{self, SeenStore};

/// Pause between two tries to reach the metadata store.
const PAUSE: Duration = Duration::from_millis(500);
/// False once the metadata store has failed more often than the configuration calls normal.
const REACHED: &str = "reached the metadata store";

/// At most so often the highest revision of the metadata store is kept on the disk.
const KEEP: Duration = Duration::from_secs(5);

/// By so many revisions at least is a restored metadata store raised beyond all that was seen.
const RAISED: i64 = 1_000_000;

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
    let joining = || NodeSession::join_cluster(store, keys, own.as_deref());
    let cluster_uid = patiently("join the cluster", joining, readiness, live, stop).await?;
    Ok(data_dir::join_cluster(disk, &cluster_uid)?)
}

/// Refuses a metadata store that is older than what an earlier process has seen of it (R3): waits until it is not. When it
/// was restored since and raised, that is written down in it, before this node does anything by its records.
pub(super) async fn prove_store(
    store: &ForwardOnly,
    keys: &Keys,
    disk: &dyn Disk,
    readiness: &Readiness,
    live: &watch::Receiver<Arc<Config>>,
    stop: &CancellationToken,
) -> Result<(), LaunchError> {
    let seen = data_dir::seen_store(disk)?;
    store.remember(seen.believed_from);
    let comparing = || async move {
        let found = store.list(&keys.meta()).await?.revision;
        let is_far_beyond = seen.believed_from > Revision(0) && found.0 >= seen.believed_from.0 + RAISED;
        match seen.went_back || is_far_beyond {
            true => note_restore(store, keys, seen.believed_from).await,
            false => Ok(()),
        }
    };
    patiently("compare the metadata store with what was seen of it", comparing, readiness, live, stop).await
}

/// Writes down that the store was restored, unless somebody has since `before`.
async fn note_restore(store: &ForwardOnly, keys: &Keys, before: Revision) -> Result<(), SessionError> {
    let key = keys.restored();
    loop {
        let condition = match store.get(&key).await? {
            Some(entry) if entry.mod_revision > before => return Ok(()),
            Some(entry) => Condition::ModifiedAt(key.clone(), entry.mod_revision),
            None => Condition::Absent(key.clone()),
        };
        let value = bytes::Bytes::new();
        let operations = vec![Operation::Put { key: key.clone(), value, lease: None }];
        if let TxnOutcome::Committed(revision) =
            store.commit(Txn { conditions: vec![condition], operations }).await?
        {
            warn!(%revision, "the metadata store was restored: shards are led only by what all their copies say");
            return Ok(());
        }
    }
}

/// Keeps on the disk what was seen of the metadata store, until `cancel` or until the store goes back.
pub(super) async fn keep_seen(store: Arc<ForwardOnly>, disk: Arc<dyn Disk>, cancel: CancellationToken) {
    let mut highest = store.highest();
    let keep = async |believed_from, went_back| {
        let (disk, seen) = (disk.clone(), SeenStore { believed_from, went_back });
        let kept = spawn_blocking(move || data_dir::keep_seen_store(&*disk, seen)).await;
        if let Ok(Err(error)) = kept {
            warn!(%error, "cannot keep what was seen of the metadata store");
        }
    };
    loop {
        let seen = *highest.borrow_and_update();
        keep(seen, false).await;
        let news = async {
            tokio::time::sleep(KEEP).await;
            // The sender lives as long as the store.
            let _ = highest.changed().await;
        };
        tokio::select! {
            () = news => {}
            () = cancel.cancelled() => break,
            went_back = store.gone_back() => {
                error!(error = %went_back, "nothing that the metadata store says is believed");
                // It goes on from where it is, and would soon be where it was: only a restored one that was raised is far beyond.
                let raised = Revision(highest.borrow().0 + RAISED);
                return keep(raised, true).await;
            }
        }
    }
    let seen = *highest.borrow();
    keep(seen, false).await;
}

/// Counts this opening of the data directory, on the disk and in the metadata store: so a volume that was put back to an older
/// image shows, and nothing that it holds counts any more (R8). `session`: the identity of this process.
pub(super) async fn prove_disk(
    store: &dyn MetaStore,
    (keys, node): (&Keys, &NodeId),
    disk: &dyn Disk,
    session: &str,
    readiness: &Readiness,
    live: &watch::Receiver<Arc<Config>>,
    stop: &CancellationToken,
) -> Result<(), LaunchError> {
    let mut opened = data_dir::count_opening(disk)?;
    let key = keys.disk(node.as_str());
    loop {
        let claim = OpeningClaim { disk_id: opened.disk_id, opens: opened.opens, session };
        let claiming = || claim_opening(store, &key, &claim);
        if patiently("register the data directory", claiming, readiness, live, stop).await? {
            return Ok(());
        }
        error!(
            "the data volume was put back to an older image: acknowledged writes may be missing from its copies, so all of \
             them are given up and made anew from other nodes"
        );
        opened = data_dir::give_up_older_image(disk)?;
    }
}

/// An opening of a data directory, by a process.
struct OpeningClaim<'s> {
    disk_id: u128,
    opens: u64,
    session: &'s str,
}

/// Writes the opening into the metadata store; `false`: it knows a later one of the same disk.
async fn claim_opening(
    store: &dyn MetaStore,
    key: &str,
    claim: &OpeningClaim<'_>,
) -> Result<bool, SessionError> {
    let disk_id = format!("{:032x}", claim.disk_id);
    loop {
        let found = store.get(key).await?;
        let condition = match &found {
            None => Condition::Absent(key.to_owned()),
            Some(entry) => {
                let known = DiskRecord::decode(entry.value.clone())
                    .map_err(|error| MetaError::Refused(format!("{key} is damaged: {error}")))?;
                let is_own = known.session == claim.session;
                if known.disk_id == disk_id && !is_own && known.opens >= claim.opens {
                    return Ok(false);
                }
                Condition::ModifiedAt(key.to_owned(), entry.mod_revision)
            }
        };
        let session = claim.session.to_owned();
        let record = DiskRecord { disk_id: disk_id.clone(), opens: claim.opens, session };
        let value = record.encode_to_vec().into();
        let operations = vec![Operation::Put { key: key.to_owned(), value, lease: None }];
        if let TxnOutcome::Committed(_) =
            store.commit(Txn { conditions: vec![condition], operations }).await?
        {
            return Ok(true);
        }
    }
}

/// Tries until the metadata store answers; says so when it does not.
async fn patiently<T, F>(
    what: &'static str,
    mut attempt: impl FnMut() -> F,
    readiness: &Readiness,
    live: &watch::Receiver<Arc<Config>>,
    stop: &CancellationToken,
) -> Result<T, LaunchError>
where
    F: Future<Output = Result<T, SessionError>>,
{
    let mut failures = Failures::default();
    let value = loop {
        match stop.run_until_cancelled(attempt()).await {
            None => return Err(LaunchError::Stopped),
            Some(Ok(value)) => break value,
            Some(Err(SessionError::Meta(error))) => {
                let retry_count = live.borrow().slave.register_retry_count;
                failures.tell(what, error, retry_count);
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
    Ok(value)
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::meta_store::EmbeddedStore;

    #[tokio::test]
    async fn an_opening_that_was_there_before_is_an_older_image() {
        let folder = tempfile::tempdir().expect("a folder");
        let store = EmbeddedStore::open(folder.path()).expect("opens");
        let claim = |disk_id, opens, session| OpeningClaim { disk_id, opens, session };
        for (disk, opens, session, is_newest) in [
            (1, 1, "a", true),
            (1, 1, "a", true), // its answer was lost
            (1, 2, "b", true),
            (1, 5, "c", true), // processes that died before they could say so
            (1, 5, "d", false),
            (1, 3, "e", false),
            (1, 6, "f", true),
            (2, 1, "g", true), // another volume
            (1, 7, "h", true),
        ] {
            let claimed = claim_opening(&store, "disk/n", &claim(disk, opens, session)).await;
            assert_eq!(claimed, Ok(is_newest), "disk {disk}, opening {opens}");
        }
    }
}
