//! Campaigns for mastership and says which role this node has.
//!
//! The epoch is the create-revision of the election key; every decision of a Master is written under the condition that
//! this key still exists ([`Role::guard`]), so a deposed Master decides nothing. Losing the lease ends the role before
//! anything else; losing the store never ends the process. A Master may be told to step back ([`StepBack`]): it then waits
//! at the end of the queue.

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
use super::meta_store::{Condition, MetaError, MetaStore, Operation, Txn};
use super::metrics::ClusterMetrics;
use super::retry::Failures;
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

/// Ends the reign of this node. Cheap to clone.
#[derive(Clone, Debug)]
pub struct StepBack(Arc<watch::Sender<Epoch>>);

impl StepBack {
    /// Lets the next candidate lead, if this node still leads in `epoch`, or in an earlier one. A later reign goes on, so
    /// that a call that comes late ends nothing.
    pub fn end_reign(&self, epoch: Epoch) {
        self.0.send_modify(|asked| *asked = epoch.max(*asked));
    }
}

impl Default for StepBack {
    fn default() -> StepBack {
        StepBack(Arc::new(watch::Sender::new(Epoch::default())))
    }
}

/// This node's part in the election.
pub struct DistributedManager {
    meta: Arc<dyn MetaStore>,
    keys: Keys,
    /// Asked at each use: some of them change while the node runs.
    settings: Box<dyn Fn() -> ElectionSettings + Send + Sync>,
    candidate: meta::MasterCandidate,
    view: watch::Receiver<Arc<ClusterView>>,
    role: watch::Sender<Role>,
    step_back: StepBack,
    metrics: ClusterMetrics,
}

impl DistributedManager {
    /// Campaigns for nothing before [`DistributedManager::run`].
    pub fn new(
        meta: Arc<dyn MetaStore>,
        keys: Keys,
        settings: impl Fn() -> ElectionSettings + Send + Sync + 'static,
        candidate: meta::MasterCandidate,
        view: watch::Receiver<Arc<ClusterView>>,
        metrics: ClusterMetrics,
    ) -> DistributedManager {
        let (role, _) = watch::channel(Role::Detached);
        let (settings, step_back) = (Box::new(settings), StepBack::default());
        DistributedManager { meta, keys, settings, candidate, view, role, step_back, metrics }
    }

    /// Tells of every change of role.
    pub fn subscribe(&self) -> watch::Receiver<Role> {
        self.role.subscribe()
    }

    /// Ends a reign of this node.
    pub fn step_back(&self) -> StepBack {
        self.step_back.clone()
    }

    /// Campaigns until `cancel`, then resigns: the next candidate leads at once.
    pub async fn run(&self, cancel: CancellationToken) {
        let mut failures = Failures::default();
        while !cancel.is_cancelled() {
            match self.enter(&cancel).await {
                Ok((lease, key, created)) => {
                    failures = Failures::default();
                    self.stand(lease, &key, created, &cancel).await;
                    continue;
                }
                Err(_) if cancel.is_cancelled() => return,
                Err(error) => failures.tell("stand for election", error, (self.settings)().max_retry_count),
            }
            let _ = cancel.run_until_cancelled(tokio::time::sleep((self.settings)().retry_interval)).await;
        }
    }

    /// Puts the election key into the queue.
    async fn enter(&self, cancel: &CancellationToken) -> Result<(KeptLease, String, Revision), MetaError> {
        let ElectionSettings { session_ttl, election_timeout, .. } = (self.settings)();
        let value = self.candidate.encode_to_vec().into();
        let entered = KeptLease::with_keys(&*self.meta, session_ttl, election_timeout, cancel, |lease| {
            let key = self.keys.master(lease.0);
            Txn {
                conditions: vec![Condition::Absent(key.clone())],
                operations: vec![Operation::Put { key, value, lease: Some(lease) }],
            }
        });
        match entered.await? {
            Some((lease, created)) => Ok((lease, self.keys.master(lease.id.0), created)),
            None => Err(MetaError::Refused("the election key exists already".to_owned())),
        }
    }

    /// Candidate or Master, until the lease ends or `cancel`.
    async fn stand(&self, mut lease: KeptLease, key: &str, created: Revision, cancel: &CancellationToken) {
        info!(key, "standing for election");
        let mut view = self.view.clone();
        let mut tick = tokio::time::interval((self.settings)().session_ttl / BEATS_PER_TTL);
        let mut asked = self.step_back.0.subscribe();
        loop {
            let is_due = tokio::select! {
                biased;
                () = cancel.cancelled() => break,
                () = self.told_to_step_back(&mut asked) => break,
                _ = tick.tick() => true,
                Ok(()) = view.changed() => false,
            };
            let now = view.borrow_and_update().clone();
            let step = async {
                let beat = if is_due { lease.beat(&*self.meta).await } else { Beat::Alive };
                match beat {
                    Beat::Alive if lease.is_valid() => self.take_role(&lease, &now, key, created).await,
                    Beat::Gone => false,
                    Beat::Silent(error) if lease.is_valid() => {
                        debug!(%error, "a keep-alive was not answered");
                        true
                    }
                    // The lease may live on in the store, but nobody may count on it: decisions stop first.
                    Beat::Silent(_) | Beat::Alive => {
                        self.become_role(Role::Detached);
                        true
                    }
                }
            };
            match cancel.run_until_cancelled(step).await {
                Some(true) => {}
                Some(false) => return self.become_role(Role::Detached),
                None => break,
            }
        }
        self.resign(lease).await;
    }

    /// Returns when the present reign is to end.
    async fn told_to_step_back(&self, asked: &mut watch::Receiver<Epoch>) {
        let is_meant =
            |asked: &Epoch| matches!(*self.role.borrow(), Role::Master { epoch, .. } if epoch <= *asked);
        let told = asked.wait_for(is_meant).await;
        told.map(drop).expect("the manager itself keeps the channel open");
    }

    /// `false`: the key is gone, the campaign starts anew.
    async fn take_role(&self, lease: &KeptLease, view: &ClusterView, key: &str, created: Revision) -> bool {
        match standing(&view.candidates, key) {
            Standing::Leads(epoch) => {
                let role = Role::Master { epoch, key: key.to_owned() };
                if *self.role.borrow() != role && self.proves(lease, key, created).await {
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

    /// Looks whether the key is still there: the view may be old. A read, since a transaction that writes nothing is
    /// answered by a member of etcd from what it knows itself. Keep-alives wait meanwhile, so it must be quick.
    async fn proves(&self, lease: &KeptLease, key: &str, created: Revision) -> bool {
        let found = tokio::time::timeout(lease.left() / 2, self.meta.get(key)).await;
        let is_there = matches!(found, Ok(Ok(Some(entry))) if entry.create_revision == created);
        is_there && lease.is_valid()
    }

    async fn resign(&self, lease: KeptLease) {
        self.become_role(Role::Detached);
        match lease.give_up(&*self.meta).await {
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
        let epoch = if let Role::Master { epoch, .. } = &role { epoch.0 } else { 0 };
        self.metrics.is_master.set(i64::from(epoch != 0));
        self.metrics.epoch.set(epoch as i64);
        if changed {
            match &role {
                Role::Master { epoch, .. } => {
                    self.metrics.elections_won.inc();
                    info!(%epoch, "elected Master");
                }
                Role::Candidate { leader } => {
                    info!(leader = ?leader.as_ref().map(|leader| leader.node.as_str()), "waiting behind the Master");
                }
                Role::Detached => info!("out of the election"),
            }
        }
    }
}
