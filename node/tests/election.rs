//! Elections of several managers in one process, over the embedded store and over a real etcd that is killed.

mod support;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures::StreamExt as _;
use prost::Message as _;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use vectorsphere::cluster::distributed_manager::ElectionSettings;
use vectorsphere::cluster::meta_store::{EmbeddedStore, MetaStore, Operation, Txn, TxnOutcome};
use vectorsphere::cluster::{ClusterMetrics, DistributedManager, Role, ServiceDiscovery, StepBack};
use vectorsphere::ids::Epoch;
use vectorsphere::runtime::TaskGroup;
use vectorsphere_proto::keys::Keys;
use vectorsphere_proto::meta;

const PATIENCE: Duration = Duration::from_secs(30);

struct Candidate {
    role: watch::Receiver<Role>,
    step_back: StepBack,
    cancel: CancellationToken,
}

impl Candidate {
    fn start(tasks: &TaskGroup, meta: Arc<dyn MetaStore>, name: &str) -> Candidate {
        let keys = Keys::of_service("election");
        let discovery =
            Arc::new(ServiceDiscovery::new(meta.clone(), keys.clone(), ClusterMetrics::default()));
        let settings = ElectionSettings {
            session_ttl: Duration::from_secs(2),
            election_timeout: Duration::from_secs(1),
            retry_interval: Duration::from_millis(100),
            max_retry_count: 3,
        };
        let record = meta::MasterCandidate { node_id: name.to_owned(), ..Default::default() };
        let settings = move || settings.clone();
        let metrics = ClusterMetrics::default();
        let manager = DistributedManager::new(meta, keys, settings, record, discovery.subscribe(), metrics);
        let (role, step_back) = (manager.subscribe(), manager.step_back());
        let cancel = tasks.cancellation().child_token();
        let (follow, campaign) = (tasks.cancellation().clone(), cancel.clone());
        tasks.spawn("discovery", async move { discovery.run(follow).await });
        // Brief: a candidate of these tests ends alone.
        tasks.spawn_brief("election", async move { manager.run(campaign).await });
        Candidate { role, step_back, cancel }
    }

    async fn becomes(&mut self, what: &str, wanted: impl Fn(&Role) -> bool) -> Role {
        let became = self.role.wait_for(|role| wanted(role));
        if let Ok(role) = tokio::time::timeout(PATIENCE, became).await {
            return role.expect("the manager runs").clone();
        }
        panic!("not {what} in time, but {:?}", self.role.borrow())
    }

    async fn becomes_master(&mut self) -> Epoch {
        match self.becomes("Master", |role| matches!(role, Role::Master { .. })).await {
            Role::Master { epoch, .. } => epoch,
            role => panic!("{role:?}"),
        }
    }
}

/// Steps: three candidates, one after the other; the first leads, the others wait; the Master resigns; the next one leads
/// with a higher epoch; a write under the old guard fails.
#[tokio::test]
async fn one_leads_and_the_next_one_has_a_higher_epoch() {
    let folder = tempfile::tempdir().expect("a folder");
    let meta: Arc<dyn MetaStore> = Arc::new(EmbeddedStore::open(folder.path()).expect("opens"));
    let tasks = TaskGroup::new(CancellationToken::new());
    let mut first = Candidate::start(&tasks, meta.clone(), "a");
    let old = first.becomes_master().await;
    let old_guard = first.role.borrow().guard().expect("Master");
    let mut second = Candidate::start(&tasks, meta.clone(), "b");
    second.becomes("candidate", |role| matches!(role, Role::Candidate { .. })).await;
    let mut third = Candidate::start(&tasks, meta.clone(), "c");
    third.becomes("candidate", |role| matches!(role, Role::Candidate { .. })).await;

    first.cancel.cancel();
    first.becomes("detached", |role| *role == Role::Detached).await;
    let new = second.becomes_master().await;
    assert!(new > old, "{new} after {old}");
    assert!(matches!(*third.role.borrow(), Role::Candidate { .. }));

    let put = Operation::Put { key: "/decision".to_owned(), value: Vec::new().into(), lease: None };
    let stale = Txn { conditions: vec![old_guard], operations: vec![put] };
    assert_eq!(meta.commit(stale).await, Ok(TxnOutcome::ConditionFailed));
    tasks.cancellation().cancel();
    assert!(tasks.join(PATIENCE).await);
}

/// Steps: the Master is told to step back: the next candidate leads with a higher epoch, and the old Master waits behind it;
/// told again for the old reign when it leads anew, it goes on.
#[tokio::test]
async fn a_master_that_steps_back_waits_at_the_end_of_the_queue() {
    let folder = tempfile::tempdir().expect("a folder");
    let meta: Arc<dyn MetaStore> = Arc::new(EmbeddedStore::open(folder.path()).expect("opens"));
    let tasks = TaskGroup::new(CancellationToken::new());
    let mut first = Candidate::start(&tasks, meta.clone(), "a");
    let old = first.becomes_master().await;
    let mut second = Candidate::start(&tasks, meta, "b");
    second.becomes("candidate", |role| matches!(role, Role::Candidate { .. })).await;

    first.step_back.end_reign(old);
    let new = second.becomes_master().await;
    assert!(new > old, "{new} after {old}");
    first.becomes("behind the new Master", |role| matches!(role, Role::Candidate { .. })).await;
    second.cancel.cancel();
    let again = first.becomes_master().await;
    first.step_back.end_reign(old);
    let lost = first.role.wait_for(|role| !matches!(role, Role::Master { .. }));
    assert!(tokio::time::timeout(Duration::from_secs(1), lost).await.is_err(), "reign {again} goes on");
    tasks.cancellation().cancel();
    assert!(tasks.join(PATIENCE).await);
}

/// Steps: a Master over a real etcd; etcd is killed: the role ends although nobody says so; etcd comes back: Master again,
/// in the same process, and with a higher epoch when the lease had ended meanwhile.
#[tokio::test]
async fn losing_etcd_ends_the_role_and_not_the_process() {
    let mut etcd = support::Etcd::start().await;
    let meta: Arc<dyn MetaStore> = Arc::new(etcd.store());
    let tasks = TaskGroup::new(CancellationToken::new());
    let mut candidate = Candidate::start(&tasks, meta, "a");
    let before = candidate.becomes_master().await;
    etcd.kill();
    candidate.becomes("detached", |role| *role == Role::Detached).await;
    etcd.start_again().await;
    let after = candidate.becomes_master().await;
    assert!(after >= before, "{after} after {before}");
    tasks.cancellation().cancel();
    assert!(tasks.join(PATIENCE).await);
}

/// Steps: the answer of the first try to stand never comes, though the key was written: no ghost stays in the queue, and
/// the next try leads. The same when the candidate is told to stop while it waits.
#[tokio::test]
async fn a_try_without_an_answer_leaves_no_candidate_behind() {
    let folder = tempfile::tempdir().expect("a folder");
    let store: Arc<dyn MetaStore> = Arc::new(EmbeddedStore::open(folder.path()).expect("opens"));
    let faulty = Arc::new(support::FaultyStore::over(store.clone()));
    let tasks = TaskGroup::new(CancellationToken::new());
    faulty.swallow_next_commit.store(true, Ordering::SeqCst);
    let mut candidate = Candidate::start(&tasks, faulty.clone(), "a");
    candidate.becomes_master().await;
    let queue = Keys::of_service("election").masters();
    assert_eq!(store.list(&queue).await.expect("listed").entries.len(), 1);
    tasks.cancellation().cancel();
    assert!(tasks.join(PATIENCE).await);

    let tasks = TaskGroup::new(CancellationToken::new());
    let mut changes =
        store.watch(&queue, store.list("").await.expect("listed").revision).await.expect("watched");
    faulty.swallow_next_commit.store(true, Ordering::SeqCst);
    let _candidate = Candidate::start(&tasks, faulty, "b");
    let written = async {
        while store.list(&queue).await.expect("listed").entries.is_empty() {
            changes.next().await.expect("goes on").expect("goes on");
        }
    };
    tokio::time::timeout(PATIENCE, written).await.expect("the key is written");
    tasks.cancellation().cancel();
    assert!(tasks.join(PATIENCE).await);
    assert!(store.list(&queue).await.expect("listed").entries.is_empty());
}

#[test]
fn a_candidate_of_the_first_version_stays_readable() {
    let bytes = [0x0a, 1, b'a', 0x12, 1, b's'];
    let record = meta::MasterCandidate::decode(&bytes[..]).expect("readable");
    assert_eq!((record.node_id.as_str(), record.session.as_str()), ("a", "s"));
}
