//! The contract of `MetaStore`, on every implementation: the embedded store, a real etcd, and the model of etcd that
//! simulations use, behind the real client.

#[macro_use]
mod support;

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::StreamExt;
use futures::future::join_all;
use vectorsphere::cluster::MetaStore;
use vectorsphere::cluster::meta_store::{
    Change, ChangeBatch, Condition, LeaseId, MetaError, Operation, Txn, TxnOutcome, WatchEnd,
};
use vectorsphere::ids::Revision;

type Store = Arc<dyn MetaStore>;

/// The least TTL that etcd grants.
const TTL: Duration = Duration::from_secs(2);
const PATIENCE: Duration = Duration::from_secs(15);

on_all_stores!(
    a_transaction_happens_whole_or_not_at_all,
    conditions_fence,
    concurrent_compare_and_swaps_lose_nothing,
    a_lease_that_ends_takes_its_keys_in_one_change,
    a_revoked_lease_takes_its_keys_at_once,
    a_watch_sees_every_change_in_order,
    a_watch_resumes_from_a_revision,
    a_prefix_is_a_wall,
    what_etcd_refuses_is_refused,
    a_long_listing_is_one_state,
);

fn put(key: &str, value: &str) -> Operation {
    Operation::Put { key: key.to_owned(), value: Bytes::copy_from_slice(value.as_bytes()), lease: None }
}

fn bound(key: &str, lease: LeaseId) -> Operation {
    Operation::Put { key: key.to_owned(), value: Bytes::new(), lease: Some(lease) }
}

async fn commit(store: &Store, conditions: Vec<Condition>, operations: Vec<Operation>) -> TxnOutcome {
    store.commit(Txn { conditions, operations }).await.expect("answered")
}

async fn must(store: &Store, operations: Vec<Operation>) -> Revision {
    match commit(store, Vec::new(), operations).await {
        TxnOutcome::Committed(revision) => revision,
        TxnOutcome::ConditionFailed => panic!("there is no condition"),
    }
}

async fn keys(store: &Store, prefix: &str) -> Vec<String> {
    let listing = store.list(prefix).await.expect("listed");
    listing.entries.into_iter().map(|entry| entry.key).collect()
}

async fn a_transaction_happens_whole_or_not_at_all(store: Store) {
    let first = must(&store, vec![put("/a", "1"), put("/b", "2")]).await;
    let outcome = commit(
        &store,
        vec![Condition::ModifiedAt("/a".into(), first), Condition::Absent("/b".into())],
        vec![put("/a", "9"), Operation::Delete("/b".into())],
    );
    assert_eq!(outcome.await, TxnOutcome::ConditionFailed);
    let entry = store.get("/a").await.expect("answered").expect("there");
    assert_eq!((&entry.value[..], entry.create_revision, entry.mod_revision), (&b"1"[..], first, first));
    let second =
        must(&store, vec![put("/a", "3"), Operation::Delete("/b".into()), Operation::Delete("/none".into())]);
    let second = second.await;
    assert!(second > first);
    let entry = store.get("/a").await.expect("answered").expect("there");
    assert_eq!((entry.create_revision, entry.mod_revision), (first, second));
    assert_eq!(store.get("/b").await.expect("answered"), None);
    assert_eq!(store.list("/").await.expect("listed").revision, second);
}

async fn conditions_fence(store: Store) {
    let created = must(&store, vec![put("/k", "1")]).await;
    let modified = must(&store, vec![put("/k", "2")]).await;
    let holds = async |condition| {
        commit(&store, vec![condition], vec![put("/proof", "")]).await != TxnOutcome::ConditionFailed
    };
    assert!(holds(Condition::CreatedAt("/k".into(), created)).await);
    assert!(!holds(Condition::CreatedAt("/k".into(), modified)).await);
    assert!(holds(Condition::ModifiedAt("/k".into(), modified)).await);
    assert!(!holds(Condition::ModifiedAt("/k".into(), created)).await);
    assert!(!holds(Condition::Absent("/k".into())).await);
    must(&store, vec![Operation::Delete("/k".into())]).await;
    assert!(holds(Condition::Absent("/k".into())).await);
    must(&store, vec![put("/k", "3")]).await;
    assert!(!holds(Condition::CreatedAt("/k".into(), created)).await, "a key made anew is another one");
}

async fn concurrent_compare_and_swaps_lose_nothing(store: Store) {
    must(&store, vec![put("/counter", "0")]).await;
    let add = async |_| {
        loop {
            let entry = store.get("/counter").await.expect("answered").expect("there");
            let count: u32 = str::from_utf8(&entry.value).expect("text").parse().expect("a number");
            let unchanged = Condition::ModifiedAt("/counter".into(), entry.mod_revision);
            let outcome = commit(&store, vec![unchanged], vec![put("/counter", &(count + 1).to_string())]);
            if outcome.await != TxnOutcome::ConditionFailed {
                break;
            }
        }
    };
    join_all((0..20).map(add)).await;
    assert_eq!(&store.get("/counter").await.expect("answered").expect("there").value[..], b"20");
}

async fn a_lease_that_ends_takes_its_keys_in_one_change(store: Store) {
    let lease = store.grant_lease(TTL).await.expect("granted");
    let written = must(&store, vec![bound("/l/a", lease), bound("/l/b", lease), put("/l/c", "")]).await;
    assert!(store.keep_alive(lease).await.expect("answered"));
    let mut changes = store.watch("/l/", Revision(written.0 + 1)).await.expect("watched");
    let batch = tokio::time::timeout(PATIENCE, next_changes(&mut changes)).await.expect("the lease ends");
    let mut deleted: Vec<_> = batch.changes.into_iter().map(deleted_key).collect();
    deleted.sort();
    assert_eq!(deleted, ["/l/a", "/l/b"]);
    assert!(!store.keep_alive(lease).await.expect("answered"), "an ended lease stays ended");
    assert_eq!(keys(&store, "/l/").await, ["/l/c"]);
}

async fn a_revoked_lease_takes_its_keys_at_once(store: Store) {
    let lease = store.grant_lease(Duration::from_secs(60)).await.expect("granted");
    must(&store, vec![bound("/r/a", lease)]).await;
    store.revoke_lease(lease).await.expect("revoked");
    assert!(keys(&store, "/r/").await.is_empty());
    store.revoke_lease(lease).await.expect("revoking again is no error");
    let refused = store.commit(Txn { conditions: Vec::new(), operations: vec![bound("/r/b", lease)] }).await;
    assert!(refused.is_err(), "a key cannot be bound to a lease that is gone");
}

async fn a_watch_sees_every_change_in_order(store: Store) {
    let start = must(&store, vec![put("/w/start", "")]).await;
    let mut changes = store.watch("/w/", Revision(start.0 + 1)).await.expect("watched");
    for i in 0..50 {
        must(&store, vec![put(&format!("/w/{i}"), "x"), put("/w/last", &i.to_string()), put("/other", "")])
            .await;
    }
    let mut before = start;
    for i in 0..50 {
        let batch = tokio::time::timeout(PATIENCE, next_changes(&mut changes)).await.expect("in time");
        assert!(batch.revision > before, "revisions grow");
        before = batch.revision;
        let keys: Vec<_> = batch.changes.iter().map(put_key).collect();
        assert_eq!(keys.len(), 2, "all changes of one revision come together: {keys:?}");
        assert!(keys.contains(&format!("/w/{i}").as_str()), "in order: {keys:?}");
    }
}

async fn a_watch_resumes_from_a_revision(store: Store) {
    let mut revisions = Vec::new();
    for i in 0..5 {
        revisions.push(must(&store, vec![put("/s/k", &i.to_string())]).await);
    }
    let mut changes = store.watch("/s/", revisions[2]).await.expect("watched");
    for revision in &revisions[2..] {
        let batch = tokio::time::timeout(PATIENCE, next_changes(&mut changes)).await.expect("in time");
        assert_eq!(batch.revision, *revision);
    }
}

async fn a_prefix_is_a_wall(store: Store) {
    must(&store, vec![put("/x/a", ""), put("/x/b", ""), put("/xy", ""), put("/y/a", "")]).await;
    assert_eq!(keys(&store, "/x/").await, ["/x/a", "/x/b"]);
    must(&store, vec![Operation::DeletePrefix("/x/".into())]).await;
    assert_eq!(keys(&store, "/").await, ["/xy", "/y/a"]);
}

async fn what_etcd_refuses_is_refused(store: Store) {
    let refused = async |operations| {
        let outcome = store.commit(Txn { conditions: Vec::new(), operations }).await;
        assert!(matches!(outcome, Err(MetaError::Refused(_))), "{outcome:?}");
    };
    refused(vec![put("/d/a", "1"), put("/d/a", "2")]).await;
    refused(vec![put("/d/a", "1"), Operation::Delete("/d/a".into())]).await;
    refused(vec![Operation::DeletePrefix("/d/".into()), put("/d/a", "1")]).await;
    refused((0..129).map(|i| put(&format!("/d/{i}"), "")).collect()).await;
    assert!(keys(&store, "/d/").await.is_empty(), "nothing happened");
    must(&store, (0..128).map(|i| put(&format!("/d/{i}"), "")).collect()).await;
}

/// More keys than one page of etcd's has.
async fn a_long_listing_is_one_state(store: Store) {
    for batch in 0..20 {
        let keys = (0..128).map(|i| put(&format!("/long/{:04}", batch * 128 + i), "x"));
        must(&store, keys.collect()).await;
    }
    let last = must(&store, vec![put("/longer", ""), put("/lon", "")]).await;
    let listing = store.list("/long/").await.expect("listed");
    assert_eq!((listing.entries.len(), listing.revision), (2560, last));
    assert!(listing.entries.is_sorted_by(|a, b| a.key < b.key));
    assert_eq!(store.list("").await.expect("listed").entries.len(), 2562);
}

/// Steps: the revision that a watch wants is forgotten: the watch says so, and a listing and a new watch go on.
#[tokio::test]
async fn a_compacted_etcd_sends_a_watch_back_to_the_listing() {
    let etcd = support::Etcd::start().await;
    let store: Store = Arc::new(etcd.store());
    let first = must(&store, vec![put("/c", "1")]).await;
    must(&store, vec![put("/c", "2")]).await;
    let last = must(&store, vec![put("/c", "3")]).await;
    etcd.compact(last).await;
    let mut changes = store.watch("/c", first).await.expect("watched");
    let end = tokio::time::timeout(PATIENCE, changes.next()).await.expect("in time");
    assert_eq!(end, Some(Err(WatchEnd::Compacted(last))));
    let listing = store.list("/c").await.expect("listed");
    assert_eq!(listing.entries.len(), 1);
    let mut changes = store.watch("/c", Revision(listing.revision.0 + 1)).await.expect("watched");
    let next = must(&store, vec![put("/c", "4")]).await;
    assert_eq!(next_changes(&mut changes).await.revision, next);
}

async fn next_changes(
    changes: &mut (impl futures::Stream<Item = Result<ChangeBatch, WatchEnd>> + Unpin),
) -> ChangeBatch {
    loop {
        let batch = changes.next().await.expect("the watch goes on").expect("the watch goes on");
        if !batch.changes.is_empty() {
            return batch;
        }
    }
}

fn deleted_key(change: Change) -> String {
    match change {
        Change::Deleted(key) => key,
        Change::Put(entry) => panic!("{} was written", entry.key),
    }
}

fn put_key(change: &Change) -> &str {
    match change {
        Change::Put(entry) => &entry.key,
        Change::Deleted(key) => panic!("{key} was removed"),
    }
}

/// Steps: watch, kill etcd, see calls fail in time and the watch end, start etcd again, go on with the same connection.
#[tokio::test]
async fn a_killed_etcd_is_an_error_and_comes_back() {
    let mut etcd = support::Etcd::start().await;
    let store: Store = Arc::new(etcd.store());
    let before = must(&store, vec![put("/k", "1")]).await;
    let mut changes = store.watch("/", before).await.expect("watched");
    assert_eq!(next_changes(&mut changes).await.revision, before);
    etcd.kill();
    let asked = Instant::now();
    assert!(matches!(store.get("/k").await, Err(MetaError::Unavailable(_))));
    assert!(asked.elapsed() < PATIENCE, "a dead etcd is no hang");
    let end =
        tokio::time::timeout(PATIENCE, changes.filter_map(async |batch| batch.err()).boxed().next()).await;
    assert!(matches!(end, Ok(Some(WatchEnd::Lost(_)) | None)), "{end:?}");
    etcd.start_again().await;
    let until = Instant::now() + PATIENCE;
    while let Err(error) = store.get("/k").await {
        assert!(Instant::now() < until, "{error}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    must(&store, vec![put("/k", "2")]).await;
    let mut changes = store.watch("/", Revision(before.0 + 1)).await.expect("watched");
    assert_eq!(next_changes(&mut changes).await.changes.len(), 1);
}
