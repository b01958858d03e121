//! This node's registration: a record under a lease, whose create-revision is the node's session.
//!
//! A starting process takes over from an older process of the same node id, whose lease it ends. A process whose record was
//! taken over does not fight: it waits until the name is free. So two processes of one name do not take turns.

use std::sync::Arc;
use std::time::Duration;

use prost::Message as _;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};
use uuid::Uuid;
use vectorsphere_proto::keys::Keys;
use vectorsphere_proto::meta;

use super::lease::{Beat, KeptLease};
use super::meta_store::{Condition, Entry, MetaError, MetaStore, Operation, Txn, TxnOutcome};
use super::metrics::ClusterMetrics;
use super::retry::Failures;
use crate::ids::{Revision, Session};
use crate::runtime::clock::boot_time;

/// Life of a node's lease without a keep-alive.
pub const NODE_TTL: Duration = Duration::from_secs(8);
/// Version of all records under the prefix.
const FORMAT_VERSION: u32 = 1;

/// What can keep a node out of its cluster.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SessionError {
    /// The store could not be asked.
    #[error(transparent)]
    Meta(#[from] MetaError),
    /// The data directory belongs to another cluster, or the store has lost its content.
    #[error("the data directory belongs to cluster {own}, but the metadata store says {found}")]
    OtherCluster {
        /// What the data directory says.
        own: String,
        /// What the store says.
        found: String,
    },
    /// The records were written by a newer version.
    #[error("the metadata has format {0}, this version reads {FORMAT_VERSION}")]
    NewerFormat(u32),
}

/// A session of this node, and how long it is certain without another keep-alive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeldSession {
    /// Which.
    pub session: Session,
    /// On the boot-time clock: it goes on while the machine is suspended and the session's tasks stand still.
    pub valid_until: Duration,
}

impl HeldSession {
    /// True while no other process can have taken over.
    pub fn is_valid(&self) -> bool {
        boot_time() < self.valid_until
    }
}

/// Settings of the registration.
#[derive(Clone, Debug)]
pub struct SessionSettings {
    /// Interval of keep-alives; at most a quarter of [`NODE_TTL`].
    pub heartbeat: Duration,
    /// Pause after a failed try to register.
    pub retry_interval: Duration,
    /// Failed tries after which the log level rises.
    pub retry_count: u32,
}

/// Registers this node and keeps it registered.
pub struct NodeSession {
    meta: Arc<dyn MetaStore>,
    keys: Keys,
    /// Asked at each use: some of them change while the node runs.
    settings: Box<dyn Fn() -> SessionSettings + Send + Sync>,
    /// What is registered; a change is registered again.
    record: watch::Receiver<meta::NodeRecord>,
    session: watch::Sender<Option<HeldSession>>,
    metrics: ClusterMetrics,
}

impl NodeSession {
    /// Registers nothing before [`NodeSession::run`].
    pub fn new(
        meta: Arc<dyn MetaStore>,
        keys: Keys,
        settings: impl Fn() -> SessionSettings + Send + Sync + 'static,
        record: watch::Receiver<meta::NodeRecord>,
        metrics: ClusterMetrics,
    ) -> NodeSession {
        let (session, _) = watch::channel(None);
        NodeSession { meta, keys, settings: Box::new(settings), record, session, metrics }
    }

    /// The session, while it is certain that no other process can have taken over: ask [`HeldSession::is_valid`] before
    /// counting on it. Only its begin and end wake who waits.
    pub fn subscribe(&self) -> watch::Receiver<Option<HeldSession>> {
        self.session.subscribe()
    }

    /// Reads the cluster's identity, or makes it when `own` is `None` and the store has none.
    ///
    /// # Errors
    /// When the store cannot be asked, or says something else than `own`: an empty store is not a new cluster for a
    /// node that has data.
    pub async fn join_cluster(
        meta: &dyn MetaStore,
        keys: &Keys,
        own: Option<&str>,
    ) -> Result<String, SessionError> {
        loop {
            let found = meta.get(&keys.meta()).await?;
            match (own, found) {
                (own, Some(entry)) => {
                    let record = meta::ClusterMeta::decode(entry.value)
                        .map_err(|error| MetaError::Refused(format!("{} is damaged: {error}", entry.key)))?;
                    if record.format_version > FORMAT_VERSION {
                        return Err(SessionError::NewerFormat(record.format_version));
                    }
                    return match own {
                        Some(own) if own != record.cluster_uid => {
                            Err(SessionError::OtherCluster { own: own.to_owned(), found: record.cluster_uid })
                        }
                        _ => Ok(record.cluster_uid),
                    };
                }
                (Some(own), None) => {
                    let found = "nothing: it was emptied or is another one".to_owned();
                    return Err(SessionError::OtherCluster { own: own.to_owned(), found });
                }
                (None, None) => make_identity(meta, keys).await?,
            }
        }
    }

    /// Keeps the node registered until `cancel`, then ends the session.
    pub async fn run(&self, cancel: CancellationToken) {
        let mut failures = Failures::default();
        let mut may_take_over = true;
        while !cancel.is_cancelled() {
            match self.register(may_take_over, &cancel).await {
                Ok(Some((lease, session))) => {
                    (failures, may_take_over) = (Failures::default(), false);
                    self.keep(lease, session, &cancel).await;
                    continue;
                }
                Ok(None) => {
                    warn!("another process is registered under this node's id, waiting until it ends");
                }
                Err(_) if cancel.is_cancelled() => return,
                Err(error) => failures.tell("register this node", error, (self.settings)().retry_count),
            }
            let _ = cancel.run_until_cancelled(tokio::time::sleep((self.settings)().retry_interval)).await;
        }
    }

    /// `None`: the name is taken by a process that came later.
    async fn register(
        &self,
        may_take_over: bool,
        cancel: &CancellationToken,
    ) -> Result<Option<(KeptLease, Session)>, MetaError> {
        let record = self.record.borrow().clone();
        let key = self.keys.node(&record.node_id);
        let Some(old) = cancel.run_until_cancelled(self.meta.get(&key)).await else { return Ok(None) };
        if let Some(old) = old? {
            match old.lease {
                Some(lease) if may_take_over || is_of(&old, &record.session) => {
                    info!("ending the session of an earlier process of this node");
                    self.meta.revoke_lease(lease).await?;
                }
                _ => return Ok(None),
            }
        }
        let registered = KeptLease::with_keys(&*self.meta, NODE_TTL, NODE_TTL, cancel, |lease| Txn {
            conditions: vec![Condition::Absent(key.clone())],
            operations: vec![Operation::Put {
                key,
                value: record.encode_to_vec().into(),
                lease: Some(lease),
            }],
        });
        Ok(registered.await?.map(|(lease, revision)| (lease, Session(revision.0))))
    }

    /// Until the session is lost or `cancel`.
    async fn keep(&self, mut lease: KeptLease, session: Session, cancel: &CancellationToken) {
        info!(session = session.0, "this node is registered");
        self.metrics.sessions.inc();
        self.announce(Some(HeldSession { session, valid_until: lease.valid_until() }));
        let mut record = self.record.clone();
        record.mark_unchanged();
        let mut is_stale = false;
        let mut tick = tokio::time::interval((self.settings)().heartbeat);
        loop {
            tokio::select! {
                biased;
                () = cancel.cancelled() => break,
                _ = tick.tick() => {}
                Ok(()) = record.changed() => is_stale = true,
            }
            let Some(beat) = cancel.run_until_cancelled(lease.beat(&*self.meta)).await else { break };
            match beat {
                // After a silence that seemed too long the lease may turn out to live: then so does the session.
                Beat::Alive if self.was_removed(&lease, session).await => {
                    // The Master took this node for lost, wrongly: others lead its shards by now.
                    warn!(session = session.0, "this node's registration was removed, registering again");
                    self.announce(None);
                    break;
                }
                Beat::Alive => {
                    self.announce(Some(HeldSession { session, valid_until: lease.valid_until() }));
                    if is_stale {
                        is_stale = !self.put_again(&lease, session).await;
                    }
                }
                Beat::Silent(error) => {
                    self.metrics.unanswered_keep_alives.inc();
                    if lease.is_valid() {
                        debug!(%error, "a keep-alive was not answered");
                        continue;
                    }
                    if self.session.borrow().is_some() {
                        warn!(%error, "the metadata store is silent, this node's session counts as ended");
                    }
                    self.announce(None);
                }
                Beat::Gone => {
                    warn!(session = session.0, "this node's session ended");
                    return self.announce(None);
                }
            }
        }
        self.announce(None);
        if let Err(error) = lease.give_up(&*self.meta).await {
            warn!(%error, "could not end this node's session, it will expire");
        }
    }

    /// True when the registration is gone although its lease lives.
    async fn was_removed(&self, lease: &KeptLease, session: Session) -> bool {
        let key = self.keys.node(&self.record.borrow().node_id);
        let found = tokio::time::timeout(lease.left() / 2, self.meta.get(&key)).await;
        // No answer is no proof.
        let Ok(Ok(found)) = found else { return false };
        found.is_none_or(|entry| entry.create_revision != Revision(session.0))
    }

    /// A session that only goes on wakes nobody.
    fn announce(&self, held: Option<HeldSession>) {
        self.metrics.has_session.set(i64::from(held.is_some()));
        self.session.send_if_modified(|current| {
            let before = std::mem::replace(current, held);
            before.map(|held| held.session) != held.map(|held| held.session)
        });
    }

    /// Registers a changed record; `false`: not done, to be tried again with the next keep-alive.
    async fn put_again(&self, lease: &KeptLease, session: Session) -> bool {
        let record = self.record.borrow().clone();
        let key = self.keys.node(&record.node_id);
        let value = record.encode_to_vec().into();
        let put = Operation::Put { key: key.clone(), value, lease: Some(lease.id) };
        let ours = Condition::CreatedAt(key, Revision(session.0));
        let txn = Txn { conditions: vec![ours], operations: vec![put] };
        // No keep-alive goes out meanwhile, so this gets a part of the time only.
        match tokio::time::timeout(lease.left() / 2, self.meta.commit(txn)).await {
            Ok(Ok(_)) => true,
            Ok(Err(error)) => {
                warn!(%error, "could not register a change of this node");
                false
            }
            Err(_) => {
                warn!("could not register a change of this node in time");
                false
            }
        }
    }
}

/// True for a record that the process with this session id wrote: its commit was carried out, the answer was lost.
fn is_of(entry: &Entry, session: &str) -> bool {
    meta::NodeRecord::decode(entry.value.clone()).is_ok_and(|record| record.session == session)
}

/// Creates the cluster's identity unless somebody else does first.
async fn make_identity(meta: &dyn MetaStore, keys: &Keys) -> Result<(), MetaError> {
    let record = meta::ClusterMeta {
        cluster_uid: Uuid::new_v4().to_string(),
        format_version: FORMAT_VERSION,
        min_node_version: String::new(),
        cluster_incarnation: 1,
        finalized_format: FORMAT_VERSION,
    };
    let put = Operation::Put { key: keys.meta(), value: record.encode_to_vec().into(), lease: None };
    let txn = Txn { conditions: vec![Condition::Absent(keys.meta())], operations: vec![put] };
    if let TxnOutcome::Committed(_) = meta.commit(txn).await? {
        info!(cluster_uid = record.cluster_uid, "made a new cluster");
    }
    Ok(())
}
