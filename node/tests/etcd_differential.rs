//! Random calls to a real etcd and to the model of it: every answer and every event must be the same.
//!
//! `VECTORSPHERE_ETCD_CALLS` makes more of them, `VECTORSPHERE_ETCD_SEED` other ones.

mod support;

use std::collections::BTreeMap;
use std::time::Duration;

use etcd_client::{
    Client, Compare, CompareOp, DeleteOptions, Error, EventType, GetOptions, KeyValue, PutOptions, Txn,
    TxnOp, TxnOpResponse, WatchOptions,
};
use futures::StreamExt as _;
use rand::rngs::SmallRng;
use rand::{RngExt as _, SeedableRng as _};

use support::{Etcd, ModelServer};

const CALLS: u32 = 1_500;
const KEYS: u32 = 12;
const PATIENCE: Duration = Duration::from_secs(20);
/// Longer than the test: leases end here only when they are told to.
const TTL: i64 = 600;

/// Something to ask an etcd. Leases are told by their number in the test, since each etcd numbers them as it likes.
#[derive(Clone, Debug)]
enum Call {
    Get(Range, i64, i64),
    Put(String, String, Option<usize>),
    Delete(Range),
    Txn(Vec<Check>, Vec<Step>, Vec<Step>),
    Grant,
    Revoke(usize),
    Compact(i64),
}

#[derive(Clone, Debug)]
struct Range {
    key: String,
    end: Option<String>,
}

#[derive(Clone, Debug)]
enum Check {
    Version(String, CompareOp, i64),
    Created(String, CompareOp, i64),
    Modified(String, CompareOp, i64),
    Value(String, CompareOp, String),
    Lease(String, CompareOp, Option<usize>),
}

#[derive(Clone, Debug)]
enum Step {
    Put(String, String, Option<usize>),
    Delete(Range),
    Get(Range),
}

/// One side: a client, and its names of the leases.
struct Side {
    client: Client,
    leases: Vec<i64>,
}

impl Side {
    async fn connect(endpoint: String) -> Side {
        let client = Client::connect([endpoint], None).await.expect("connects");
        Side { client, leases: Vec::new() }
    }

    /// The lease of a number; one that was never granted for a number that is not known.
    fn lease(&self, number: usize) -> i64 {
        self.leases.get(number).copied().unwrap_or(i64::MAX - 7)
    }

    fn number_of(&self, lease: i64) -> Option<usize> {
        self.leases.iter().position(|known| *known == lease)
    }

    /// The answer in words that both sides share.
    async fn answer(&mut self, call: &Call) -> String {
        self.ask(call).await.unwrap_or_else(|error| match error {
            Error::GRpcStatus(status) => format!("{:?}: {}", status.code(), status.message()),
            other => panic!("{call:?} failed on the way: {other}"),
        })
    }

    async fn ask(&mut self, call: &Call) -> Result<String, Error> {
        let mut client = self.client.clone();
        Ok(match call {
            Call::Get(range, revision, limit) => {
                let options = range.get().with_revision(*revision).with_limit(*limit);
                let answer = client.get(range.key.as_str(), Some(options)).await?;
                let revision = answer.header().expect("a header").revision();
                format!("{revision} {} {} {}", answer.count(), answer.more(), self.pairs(answer.kvs()))
            }
            Call::Put(key, value, lease) => {
                let options = self.put(*lease).with_prev_key();
                let answer = client.put(key.as_str(), value.as_str(), Some(options)).await?;
                let revision = answer.header().expect("a header").revision();
                format!("{revision} {:?}", answer.prev_key().map(|kv| self.pair(kv)))
            }
            Call::Delete(range) => {
                let options = range.delete().with_prev_key();
                let answer = client.delete(range.key.as_str(), Some(options)).await?;
                let revision = answer.header().expect("a header").revision();
                format!("{revision} {} {}", answer.deleted(), self.pairs(answer.prev_kvs()))
            }
            Call::Txn(checks, then, otherwise) => {
                let checks: Vec<_> = checks.iter().map(|check| self.check(check)).collect();
                let steps = |steps: &[Step]| steps.iter().map(|step| self.step(step)).collect::<Vec<_>>();
                let txn = Txn::new().when(checks).and_then(steps(then)).or_else(steps(otherwise));
                let answer = client.txn(txn).await?;
                let revision = answer.header().expect("a header").revision();
                let parts: Vec<_> = answer.op_responses().into_iter().map(|part| self.part(&part)).collect();
                format!("{revision} {} {parts:?}", answer.succeeded())
            }
            Call::Grant => {
                let answer = client.lease_grant(TTL, None).await?;
                self.leases.push(answer.id());
                format!("{}", answer.ttl())
            }
            Call::Revoke(number) => {
                let answer = client.lease_revoke(self.lease(*number)).await?;
                format!("{}", answer.header().expect("a header").revision())
            }
            Call::Compact(revision) => {
                client.compact(*revision, None).await?;
                "compacted".to_owned()
            }
        })
    }

    fn put(&self, lease: Option<usize>) -> PutOptions {
        PutOptions::new().with_lease(lease.map_or(0, |number| self.lease(number)))
    }

    fn check(&self, check: &Check) -> Compare {
        match check.clone() {
            Check::Version(key, op, version) => Compare::version(key, op, version),
            Check::Created(key, op, revision) => Compare::create_revision(key, op, revision),
            Check::Modified(key, op, revision) => Compare::mod_revision(key, op, revision),
            Check::Value(key, op, value) => Compare::value(key, op, value),
            // Numbers have no order that both sides share.
            Check::Lease(key, op, lease) => {
                Compare::lease(key, op, lease.map_or(0, |lease| self.lease(lease)))
            }
        }
    }

    fn step(&self, step: &Step) -> TxnOp {
        match step {
            Step::Put(key, value, lease) => TxnOp::put(key.as_str(), value.as_str(), Some(self.put(*lease))),
            Step::Delete(range) => TxnOp::delete(range.key.as_str(), Some(range.delete())),
            Step::Get(range) => TxnOp::get(range.key.as_str(), Some(range.get())),
        }
    }

    fn part(&self, part: &TxnOpResponse) -> String {
        match part {
            TxnOpResponse::Put(_) => "put".to_owned(),
            TxnOpResponse::Delete(deleted) => format!("deleted {}", deleted.deleted()),
            TxnOpResponse::Get(found) => self.pairs(found.kvs()),
            TxnOpResponse::Txn(_) => unreachable!("none was asked for"),
        }
    }

    fn pairs(&self, kvs: &[KeyValue]) -> String {
        kvs.iter().map(|kv| self.pair(kv)).collect::<Vec<_>>().join(", ")
    }

    fn pair(&self, kv: &KeyValue) -> String {
        let lease = (kv.lease() != 0).then(|| self.number_of(kv.lease()));
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        format!(
            "{}={} {}/{}/{} {lease:?}",
            text(kv.key()),
            text(kv.value()),
            kv.create_revision(),
            kv.mod_revision(),
            kv.version()
        )
    }

    /// Every event under a prefix from a revision on, until the one of `last`; by revision, each revision's in the order of
    /// its keys: a lease removes its own in any order.
    async fn events(&mut self, prefix: &str, from: i64, last: &str) -> BTreeMap<i64, Vec<String>> {
        let options = WatchOptions::new().with_prefix().with_start_revision(from).with_prev_key();
        let mut stream = self.client.watch(prefix, Some(options)).await.expect("watched");
        let mut events: BTreeMap<i64, Vec<String>> = BTreeMap::new();
        let whole = async {
            while let Some(answer) = stream.next().await {
                let answer = answer.expect("the watch goes on");
                assert_eq!(answer.compact_revision(), 0, "nothing from {from} on is compacted");
                for event in answer.events() {
                    let kv = event.kv().expect("of a key");
                    let before = event.prev_kv().map(|kv| self.pair(kv));
                    let what = match event.event_type() {
                        EventType::Put => self.pair(kv),
                        EventType::Delete => format!("{} deleted", kv.key_str().expect("text")),
                    };
                    let told = format!("{what} after {before:?}");
                    events.entry(kv.mod_revision()).or_default().push(told);
                    if kv.key() == last.as_bytes() {
                        return;
                    }
                }
            }
            panic!("the watch ended");
        };
        tokio::time::timeout(PATIENCE, whole).await.expect("the last event comes");
        events.values_mut().for_each(|told| told.sort());
        events
    }
}

impl Range {
    fn get(&self) -> GetOptions {
        self.end.iter().fold(GetOptions::new(), |options, end| options.with_range(end.as_str()))
    }

    fn delete(&self) -> DeleteOptions {
        self.end.iter().fold(DeleteOptions::new(), |options, end| options.with_range(end.as_str()))
    }
}

/// Makes up calls.
struct Calls {
    random: SmallRng,
    revision: i64,
    compacted: i64,
    leases: usize,
}

impl Calls {
    fn next(&mut self) -> Call {
        match self.random.random_range(0..100) {
            0..15 => {
                let back = self.random.random_range(0..40);
                let revision = if self.random.random_range(0..3) == 0 { 0 } else { self.revision + 2 - back };
                Call::Get(self.range(), revision.max(0), self.random.random_range(0..5))
            }
            15..30 => Call::Put(self.key(), self.value(), self.lease()),
            30..38 => Call::Delete(self.range()),
            38..88 => {
                let checks = self.some(|calls| calls.check());
                let (then, otherwise) = (self.some(|calls| calls.step()), self.some(|calls| calls.step()));
                Call::Txn(checks, then, otherwise)
            }
            88..92 => {
                self.leases += 1;
                Call::Grant
            }
            92..96 => Call::Revoke(self.random.random_range(0..=self.leases)),
            _ => Call::Compact(self.random.random_range(self.compacted - 1..=self.revision + 1)),
        }
    }

    fn some<T>(&mut self, make: impl Fn(&mut Calls) -> T) -> Vec<T> {
        (0..self.random.random_range(0..4)).map(|_| make(self)).collect()
    }

    fn check(&mut self) -> Check {
        let op = self.op();
        let revision = self.random.random_range((self.revision - 20).max(0)..=self.revision);
        match self.random.random_range(0..5) {
            0 => Check::Version(self.key(), op, self.random.random_range(0..4)),
            1 if self.random.random_range(0..2) == 0 => Check::Created(self.key(), op, 0),
            1 => Check::Created(self.key(), op, revision),
            2 => Check::Modified(self.key(), op, revision),
            3 => Check::Value(self.key(), op, self.value()),
            _ => {
                let op =
                    if self.random.random_range(0..2) == 0 { CompareOp::Equal } else { CompareOp::NotEqual };
                Check::Lease(self.key(), op, self.lease())
            }
        }
    }

    fn step(&mut self) -> Step {
        match self.random.random_range(0..4) {
            0 => Step::Delete(self.range()),
            1 => Step::Get(self.range()),
            _ => Step::Put(self.key(), self.value(), self.lease()),
        }
    }

    fn op(&mut self) -> CompareOp {
        let ops = [CompareOp::Equal, CompareOp::Greater, CompareOp::Less, CompareOp::NotEqual];
        ops[self.random.random_range(0..ops.len())]
    }

    fn key(&mut self) -> String {
        format!("/k/{:02}", self.random.random_range(0..KEYS))
    }

    fn value(&mut self) -> String {
        format!("v{}", self.random.random_range(0..6))
    }

    fn lease(&mut self) -> Option<usize> {
        (self.random.random_range(0..3) == 0).then(|| self.random.random_range(0..=self.leases))
    }

    fn range(&mut self) -> Range {
        let key = self.key();
        match self.random.random_range(0..4) {
            0 => Range { key, end: Some(self.key()) },
            1 => Range { key, end: Some("\0".to_owned()) },
            _ => Range { key, end: None },
        }
    }
}

fn number(name: &str, default: u64) -> u64 {
    let told = std::env::vars().find(|(key, _)| key == name);
    told.map_or(default, |(_, text)| text.parse().expect("a number"))
}

/// Steps: both are empty; the same calls go to both, one after the other; the answers are the same, and in the end so are
/// all events since the last compaction.
#[tokio::test]
async fn the_model_answers_as_etcd_does() {
    let (etcd, model) = (Etcd::start().await, ModelServer::start().await);
    let (mut real, mut modelled) =
        (Side::connect(etcd.endpoint()).await, Side::connect(model.endpoint()).await);
    let random = SmallRng::seed_from_u64(number("VECTORSPHERE_ETCD_SEED", 1));
    let mut calls = Calls { random, revision: 1, compacted: 0, leases: 0 };
    let mut done = BTreeMap::<&str, u32>::new();
    for step in 0..number("VECTORSPHERE_ETCD_CALLS", CALLS.into()) {
        let call = calls.next();
        let (expected, answered) = (real.answer(&call).await, modelled.answer(&call).await);
        assert_eq!(answered, expected, "step {step}: {call:?}");
        let kind = match (&call, expected.starts_with(|letter: char| letter.is_ascii_uppercase())) {
            (_, true) => "refused",
            (Call::Txn(..), false) if expected.contains("true") => "transaction held",
            (Call::Txn(..), false) => "transaction did not hold",
            (Call::Compact(revision), false) => {
                calls.compacted = *revision;
                "compacted"
            }
            (Call::Revoke(_), false) => "revoked",
            _ => "other",
        };
        *done.entry(kind).or_default() += 1;
        calls.revision = model.etcd.revision();
    }
    let last = Call::Put("/k/end".to_owned(), String::new(), None);
    assert_eq!(modelled.answer(&last).await, real.answer(&last).await);
    let from = calls.compacted.max(1) + 1;
    let expected = real.events("/k/", from, "/k/end").await;
    assert_eq!(modelled.events("/k/", from, "/k/end").await, expected);
    let enough = |kind| done.get(kind).is_some_and(|count| *count >= 10);
    let kinds = ["refused", "transaction held", "transaction did not hold", "compacted", "revoked"];
    assert!(kinds.into_iter().all(enough), "not everything was tried: {done:?}");
}
