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
use super::meta_store::{Condition, MetaError, MetaStore, Operation, Txn, TxnOutcome};
use crate::ids::{Revision, Session};

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
    settings: SessionSettings,
    /// What is registered; a change is registered again.
    record: watch::Receiver<meta::NodeRecord>,
    session: watch::Sender<Option<Session>>,
}

impl NodeSession {
    /// Registers nothing before [`NodeSession::run`].
    pub fn new(
        meta: Arc<dyn MetaStore>,
        keys: Keys,
        settings: SessionSettings,
        record: watch::Receiver<meta::NodeRecord>,
    ) -> NodeSession {
        let (session, _) = watch::channel(None);
        NodeSession { meta, keys, settings, record, session }
    }

    /// The session, while it is certain that no other process can have taken over.
    pub fn subscribe(&self) -> watch::Receiver<Option<Session>> {
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
        let mut failures = 0;
        let mut may_take_over = true;
        while !cancel.is_cancelled() {
            let registered = tokio::select! {
                () = cancel.cancelled() => return,
                registered = self.register(may_take_over) => registered,
            };
            match registered {
                Ok(Some((lease, session))) => {
                    (failures, may_take_over) = (0, false);
                    self.keep(lease, session, &cancel).await;
                    continue;
                }
                Ok(None) => {
                    warn!("another process is registered under this node's id, waiting until it ends");
                }
                Err(error) => {
                    failures += 1;
                    match failures > self.settings.retry_count {
                        true => warn!(%error, failures, "cannot register this node"),
                        false => debug!(%error, failures, "cannot register this node yet"),
                    }
                }
            }
            tokio::select! {
                () = cancel.cancelled() => {}
                () = tokio::time::sleep(self.settings.retry_interval) => {}
            }
        }
    }

    /// `None`: the name is taken by a process that came later.
    async fn register(&self, may_take_over: bool) -> Result<Option<(KeptLease, Session)>, MetaError> {
        let record = self.record.borrow().clone();
        let key = self.keys.node(&record.node_id);
        if let Some(old) = self.meta.get(&key).await? {
            match old.lease {
                Some(lease) if may_take_over => {
                    info!("ending the session of an earlier process of this node");
                    self.meta.revoke_lease(lease).await?;
                }
                _ => return Ok(None),
            }
        }
        let lease = KeptLease::grant(&*self.meta, NODE_TTL).await?;
        let value = record.encode_to_vec().into();
        let put = Operation::Put { key: key.clone(), value, lease: Some(lease.id) };
        match self
            .meta
            .commit(Txn { conditions: vec![Condition::Absent(key)], operations: vec![put] })
            .await?
        {
            TxnOutcome::Committed(revision) => Ok(Some((lease, Session(revision.0)))),
            TxnOutcome::ConditionFailed => {
                self.meta.revoke_lease(lease.id).await?;
                Ok(None)
            }
        }
    }

    /// Until the session is lost or `cancel`.
    async fn keep(&self, mut lease: KeptLease, session: Session, cancel: &CancellationToken) {
        info!(session = session.0, "this node is registered");
        self.session.send_replace(Some(session));
        let mut record = self.record.clone();
        record.mark_unchanged();
        let mut tick = tokio::time::interval(self.settings.heartbeat);
        loop {
            tokio::select! {
                biased;
                () = cancel.cancelled() => {
                    self.session.send_replace(None);
                    if let Err(error) = self.meta.revoke_lease(lease.id).await {
                        warn!(%error, "could not end this node's session, it will expire");
                    }
                    return;
                }
                _ = tick.tick() => {}
                Ok(()) = record.changed() => {
                    if let Err(error) = self.put_again(&lease, session).await {
                        warn!(%error, "could not register a change of this node");
                    }
                    continue;
                }
            }
            match lease.beat(&*self.meta).await {
                // After a silence that seemed too long the lease may turn out to live: then so does the session.
                Beat::Alive => self.announce(Some(session)),
                Beat::Silent(error) if lease.is_valid() => debug!(%error, "a keep-alive was not answered"),
                Beat::Silent(error) => {
                    if self.session.borrow().is_some() {
                        warn!(%error, "the metadata store is silent, this node's session counts as ended");
                    }
                    self.announce(None);
                }
                Beat::Gone => {
                    warn!(session = session.0, "this node's session ended");
                    self.announce(None);
                    return;
                }
            }
        }
    }

    fn announce(&self, session: Option<Session>) {
        self.session.send_if_modified(|current| std::mem::replace(current, session) != session);
    }

    async fn put_again(&self, lease: &KeptLease, session: Session) -> Result<(), MetaError> {
        let record = self.record.borrow().clone();
        let key = self.keys.node(&record.node_id);
        let value = record.encode_to_vec().into();
        let put = Operation::Put { key: key.clone(), value, lease: Some(lease.id) };
        let ours = Condition::CreatedAt(key, Revision(session.0));
        self.meta.commit(Txn { conditions: vec![ours], operations: vec![put] }).await?;
        Ok(())
    }
}

/// Creates the cluster's identity unless somebody else does first.
async fn make_identity(meta: &dyn MetaStore, keys: &Keys) -> Result<(), MetaError> {
    let record = meta::ClusterMeta {
        cluster_uid: Uuid::new_v4().to_string(),
        format_version: FORMAT_VERSION,
        min_node_version: String::new(),
        cluster_incarnation: 1,
    };
    let put = Operation::Put { key: keys.meta(), value: record.encode_to_vec().into(), lease: None };
    let txn = Txn { conditions: vec![Condition::Absent(keys.meta())], operations: vec![put] };
    if let TxnOutcome::Committed(_) = meta.commit(txn).await? {
        info!(cluster_uid = record.cluster_uid, "made a new cluster");
    }
    Ok(())
}
