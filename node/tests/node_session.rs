//! Registration of nodes, over the embedded store and over a real etcd.

#[macro_use]
mod support;

use std::sync::Arc;
use std::time::Duration;

use prost::Message as _;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use vectorsphere::cluster::meta_store::{Operation, Txn};
use vectorsphere::cluster::node_session::SessionSettings;
use vectorsphere::cluster::{ClusterMetrics, HeldSession, MetaStore, NodeSession};
use vectorsphere::ids::Session;
use vectorsphere::runtime::TaskGroup;
use vectorsphere_proto::keys::Keys;
use vectorsphere_proto::meta;

type Store = Arc<dyn MetaStore>;

const PATIENCE: Duration = Duration::from_secs(30);
const LONG: Duration = Duration::from_secs(60);

on_all_stores!(
    the_later_process_takes_over_and_the_earlier_one_waits,
    a_process_takes_over_its_own_ghost,
    a_stop_ends_the_session_at_once,
    a_changed_record_is_registered_again,
    a_node_that_was_taken_for_lost_registers_again,
);

/// A process of the node `a`.
struct Process {
    session: watch::Receiver<Option<HeldSession>>,
    record: watch::Sender<meta::NodeRecord>,
    tasks: TaskGroup,
}

impl Process {
    fn start(store: &Store, uuid: &str) -> Process {
        let record = meta::NodeRecord { session: uuid.to_owned(), ..record() };
        let (record, registered) = watch::channel(record);
        let settings = || SessionSettings {
            heartbeat: Duration::from_millis(100),
            retry_interval: Duration::from_millis(50),
            retry_count: 3,
        };
        let session =
            NodeSession::new(store.clone(), keys(), settings, registered, ClusterMetrics::default());
        let (seen, tasks) = (session.subscribe(), TaskGroup::new(CancellationToken::new()));
        let cancel = tasks.cancellation().clone();
        tasks.spawn("session", async move { session.run(cancel).await });
        Process { session: seen, record, tasks }
    }

    async fn registers(&mut self) -> Session {
        let held = tokio::time::timeout(PATIENCE, self.session.wait_for(Option::is_some)).await;
        let held = held.expect("in time").expect("the session runs").expect("waited for");
        assert!(held.is_valid());
        held.session
    }

    async fn loses_its_session(&mut self) {
        let lost = tokio::time::timeout(PATIENCE, self.session.wait_for(Option::is_none)).await;
        lost.expect("in time").expect("the session runs");
    }

    async fn stop(self) {
        self.tasks.cancellation().cancel();
        assert!(self.tasks.join(PATIENCE).await);
    }
}

fn keys() -> Keys {
    Keys::of_service("sessions")
}

fn record() -> meta::NodeRecord {
    meta::NodeRecord { node_id: "a".to_owned(), ..meta::NodeRecord::default() }
}

/// Writes the node's record under a lease of its own, as another process would.
async fn register_by_hand(store: &Store, uuid: &str) {
    let lease = store.grant_lease(LONG).await.expect("granted");
    let value = meta::NodeRecord { session: uuid.to_owned(), ..record() }.encode_to_vec().into();
    let put = Operation::Put { key: keys().node("a"), value, lease: Some(lease) };
    store.commit(Txn { conditions: Vec::new(), operations: vec![put] }).await.expect("committed");
}

async fn registered(store: &Store) -> Option<meta::NodeRecord> {
    let entry = store.get(&keys().node("a")).await.expect("answered")?;
    Some(meta::NodeRecord::decode(entry.value).expect("readable"))
}

async fn the_later_process_takes_over_and_the_earlier_one_waits(store: Store) {
    let mut first = Process::start(&store, "1");
    let old = first.registers().await;
    let mut second = Process::start(&store, "2");
    let new = second.registers().await;
    assert!(new > old, "{new:?} after {old:?}");
    first.loses_its_session().await;
    assert_eq!(registered(&store).await.expect("there").session, "2", "the first does not fight");
    second.stop().await;
    assert!(first.registers().await > new);
    first.stop().await;
}

/// Steps: another process took over; then the name is held by a record that this process wrote, whose answer was lost.
async fn a_process_takes_over_its_own_ghost(store: Store) {
    let mut process = Process::start(&store, "1");
    let old = process.registers().await;
    let lease = store.get(&keys().node("a")).await.expect("answered").expect("there").lease;
    register_by_hand(&store, "2").await;
    store.revoke_lease(lease.expect("bound")).await.expect("revoked");
    process.loses_its_session().await;
    register_by_hand(&store, "1").await;
    assert!(process.registers().await > old);
    process.stop().await;
}

async fn a_stop_ends_the_session_at_once(store: Store) {
    let mut process = Process::start(&store, "1");
    process.registers().await;
    let seen = process.session.clone();
    process.stop().await;
    assert_eq!(*seen.borrow(), None);
    assert_eq!(registered(&store).await, None);
}

async fn a_node_that_was_taken_for_lost_registers_again(store: Store) {
    let mut process = Process::start(&store, "1");
    let session = process.registers().await;
    let removal = Operation::Delete(keys().node("a"));
    store.commit(Txn { conditions: Vec::new(), operations: vec![removal] }).await.expect("committed");
    let renewed = process.session.wait_for(|held| held.is_some_and(|held| held.session > session));
    tokio::time::timeout(PATIENCE, renewed).await.expect("in time").expect("it runs");
    process.stop().await;
}

async fn a_changed_record_is_registered_again(store: Store) {
    let mut process = Process::start(&store, "1");
    let session = process.registers().await;
    process.record.send_modify(|record| record.zone = "west".to_owned());
    let from = vectorsphere::ids::Revision(session.0);
    let mut changes = store.watch(&keys().nodes(), from).await.expect("watched");
    let seen = async {
        while registered(&store).await.is_none_or(|record| record.zone != "west") {
            futures::StreamExt::next(&mut changes).await.expect("goes on").expect("goes on");
        }
    };
    tokio::time::timeout(PATIENCE, seen).await.expect("in time");
    assert_eq!(process.registers().await, session, "in the same session");
    process.stop().await;
}

/// Steps: etcd is killed: the session ends although nobody says so; etcd comes back: so does a session.
#[tokio::test]
async fn silence_ends_the_session() {
    let mut etcd = support::Etcd::start().await;
    let store: Store = Arc::new(etcd.store());
    let mut process = Process::start(&store, "1");
    process.registers().await;
    etcd.kill();
    process.loses_its_session().await;
    etcd.start_again().await;
    process.registers().await;
    process.stop().await;
}
