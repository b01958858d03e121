//! Campaigns for mastership and says which role this node has.
//!
//! The epoch is the create-revision of the election key; every decision of a Master is written under the condition that
//! this key still exists ([`Role::guard`]), so a deposed Master decides nothing. Losing the lease ends the role before
//! anything else; losing the store never ends the process.

use std::sync::Arc;
use std::time::Duration;

use prost::Message as _;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};
use vectorsphere_proto::keys::Keys;
use vectorsphere_proto::meta;

use super::election::{Standing, standing};
use super::lease::{Beat, KeptLease};
use super::meta_store::{Condition, MetaError, MetaStore, Operation, Txn, TxnOutcome};
use super::view::{ClusterView, Master};
use crate::ids::{Epoch, Revision};

/// Keep-alives of a lease: each quarter of its TTL.
const BEATS_PER_TTL: u32 = 4;

/// What this node is in the election.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Role {
    /// No lease: it decides nothing.
    Detached,
    /// In the queue; somebody else leads.
    Candidate {
        /// Who.
        leader: Option<Master>,
    },
    /// Elected.
    Master {
        /// Its reign.
        epoch: Epoch,
        /// Its election key.
        key: String,
    },
}

impl Role {
    /// The condition that guards every decision; `None` unless this node is Master.
    pub fn guard(&self) -> Option<Condition> {
        match self {
            Role::Master { epoch, key } => {
                let created = i64::try_from(epoch.0).expect("an epoch is a revision");
                Some(Condition::CreatedAt(key.clone(), Revision(created)))
            }
            Role::Detached | Role::Candidate { .. } => None,
        }
    }
}

/// Settings of the election.
#[derive(Clone, Debug)]
pub struct ElectionSettings {
    /// Life of the Master's lease without a keep-alive; whole seconds, at least 2.
    pub session_ttl: Duration,
    /// One attempt to enter the queue.
    pub election_timeout: Duration,
    /// Pause after a failed attempt.
    pub retry_interval: Duration,
    /// Failed attempts after which the log level rises.
    pub max_retry_count: u32,
}

/// This node's part in the election.
pub struct DistributedManager {
    meta: Arc<dyn MetaStore>,
    keys: Keys,
    settings: ElectionSettings,
    candidate: meta::MasterCandidate,
    view: watch::Receiver<Arc<ClusterView>>,
    role: watch::Sender<Role>,
}

impl DistributedManager {
    /// Campaigns for nothing before [`DistributedManager::run`].
    pub fn new(
        meta: Arc<dyn MetaStore>,
        keys: Keys,
        settings: ElectionSettings,
        candidate: meta::MasterCandidate,
        view: watch::Receiver<Arc<ClusterView>>,
    ) -> DistributedManager {
        let (role, _) = watch::channel(Role::Detached);
        DistributedManager { meta, keys, settings, candidate, view, role }
    }

    /// Tells of every change of role.
    pub fn subscribe(&self) -> watch::Receiver<Role> {
        self.role.subscribe()
    }

    /// Campaigns until `cancel`, then resigns: the next candidate leads at once.
    pub async fn run(&self, cancel: CancellationToken) {
        let mut failures = 0;
        while !cancel.is_cancelled() {
            let entered = tokio::select! {
                () = cancel.cancelled() => return,
                entered = tokio::time::timeout(self.settings.election_timeout, self.enter()) => entered,
            };
            let error = match entered {
                Ok(Ok((lease, key, created))) => {
                    failures = 0;
                    self.stand(lease, &key, created, &cancel).await;
                    continue;
                }
                Ok(Err(error)) => error,
                Err(_) => {
                    MetaError::Unavailable(format!("no answer within {:?}", self.settings.election_timeout))
                }
            };
            failures += 1;
            match failures > self.settings.max_retry_count {
                true => warn!(%error, failures, "cannot stand for election"),
                false => debug!(%error, failures, "cannot stand for election yet"),
            }
            tokio::select! {
                () = cancel.cancelled() => {}
                () = tokio::time::sleep(self.settings.retry_interval) => {}
            }
        }
    }

    /// Puts the election key into the queue.
    async fn enter(&self) -> Result<(KeptLease, String, Revision), MetaError> {
        let lease = KeptLease::grant(&*self.meta, self.settings.session_ttl).await?;
        let key = self.keys.master(lease.id.0);
        let value = self.candidate.encode_to_vec().into();
        let put = Operation::Put { key: key.clone(), value, lease: Some(lease.id) };
        let txn = Txn { conditions: vec![Condition::Absent(key.clone())], operations: vec![put] };
        match self.meta.commit(txn).await? {
            TxnOutcome::Committed(created) => Ok((lease, key, created)),
            TxnOutcome::ConditionFailed => Err(MetaError::Refused(format!("key {key} exists already"))),
        }
    }

    /// Candidate or Master, until the lease ends or `cancel`.
    async fn stand(&self, mut lease: KeptLease, key: &str, created: Revision, cancel: &CancellationToken) {
        info!(key, "standing for election");
        let mut view = self.view.clone();
        let mut tick = tokio::time::interval(self.settings.session_ttl / BEATS_PER_TTL);
        loop {
            let beat = tokio::select! {
                biased;
                () = cancel.cancelled() => break self.resign(lease).await,
                _ = tick.tick() => lease.beat(&*self.meta).await,
                Ok(()) = view.changed() => Beat::Alive,
            };
            match beat {
                Beat::Alive if lease.is_valid() => {
                    let now = view.borrow_and_update().clone();
                    if !self.take_role(&now, key, created).await {
                        break self.become_role(Role::Detached);
                    }
                }
                Beat::Gone => break self.become_role(Role::Detached),
                Beat::Silent(error) if lease.is_valid() => debug!(%error, "a keep-alive was not answered"),
                // The lease may live on in the store, but nobody may count on it: decisions stop first.
                Beat::Silent(_) | Beat::Alive => self.become_role(Role::Detached),
            }
        }
    }

    /// `false`: the key is gone, the campaign starts anew.
    async fn take_role(&self, view: &ClusterView, key: &str, created: Revision) -> bool {
        match standing(&view.candidates, key) {
            Standing::Leads(epoch) => {
                let role = Role::Master { epoch, key: key.to_owned() };
                if *self.role.borrow() != role && self.proves(&role).await {
                    self.become_role(role);
                }
                true
            }
            Standing::Follows(leader) => {
                self.become_role(Role::Candidate { leader: Some(leader) });
                true
            }
            // The view may be older than the key.
            Standing::Gone => view.revision < created,
        }
    }

    /// A linearizable look: the view may be old.
    async fn proves(&self, role: &Role) -> bool {
        let proof = Txn { conditions: role.guard().into_iter().collect(), operations: Vec::new() };
        matches!(self.meta.commit(proof).await, Ok(TxnOutcome::Committed(_)))
    }

    async fn resign(&self, lease: KeptLease) {
        self.become_role(Role::Detached);
        match self.meta.revoke_lease(lease.id).await {
            Ok(()) => info!("resigned"),
            Err(error) => warn!(%error, "could not resign, the lease will expire"),
        }
    }

    fn become_role(&self, role: Role) {
        let changed = self.role.send_if_modified(|current| {
            let changed = *current != role;
            current.clone_from(&role);
            changed
        });
        if changed {
            match &role {
                Role::Master { epoch, .. } => info!(%epoch, "elected Master"),
                Role::Candidate { leader } => {
                    info!(leader = ?leader.as_ref().map(|leader| leader.node.as_str()), "waiting behind the Master");
                }
                Role::Detached => info!("out of the election"),
            }
        }
    }
}
