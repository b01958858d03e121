//! Clients: each does one thing after another, sends it again when it gets no answer, and notes what it was told.

use std::collections::BTreeMap;
use std::time::Duration;

use vectorsphere_checker as checker;

use super::network::Place;
use super::random::Random;
use super::settings::{GROUP_KEYS, Settings};
use super::time::Time;
use super::world::{Body, Event, Parcel, World};
use crate::document::{Document as Stored, Metadata};
use crate::ids::{DocumentId, Epoch, Lsn, OpId, ShardId};
use crate::replication::driver::{NotWritten, WriteReceipt};
use crate::storage::{Batch, Operation, Refusal};

/// How long a client waits for an answer.
const ANSWER_LIMIT: Duration = Duration::from_millis(1_500);
/// Times that it sends something.
const ATTEMPTS_MAX: u32 = 8;

/// A client.
pub(super) struct Client {
    index: usize,
    /// Where it believes the primaries to be.
    routes: BTreeMap<ShardId, (Epoch, usize)>,
    /// The largest position that it has seen of each shard.
    token: BTreeMap<ShardId, Lsn>,
    /// Versions that it has seen.
    versions: BTreeMap<String, Lsn>,
    current: Option<Current>,
    writes: u64,
}

/// What a client is doing.
struct Current {
    shard: ShardId,
    wanted: Wanted,
    /// Notes of it, by key.
    notes: Vec<(String, Option<checker::OpRef>, Option<checker::OpRef>)>,
    attempts: u32,
    /// The attempt that an answer is awaited for.
    awaited: Option<u64>,
    /// An attempt may have been carried out, or may be later.
    is_unknown: bool,
    invoked: Time,
    /// What it must see at least.
    floor: Lsn,
}

/// What a client asks a node.
#[derive(Clone, Debug)]
pub(super) struct ClientRequest {
    pub(super) client: usize,
    pub(super) number: u64,
    pub(super) shard: ShardId,
    /// The reign that it believes in.
    pub(super) epoch: Epoch,
    pub(super) wanted: Wanted,
}

/// What it wants.
#[derive(Clone, Debug)]
pub(super) enum Wanted {
    Write(Box<Batch>),
    /// A document; `None`: all of the shard.
    Read(Level, Option<String>),
}

/// How much a read must see.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Level {
    Strong { without_clock: bool },
    Session(Lsn),
    Bounded(Duration),
}

/// What a node answers.
#[derive(Clone, Debug)]
pub(super) struct ClientAnswer {
    pub(super) number: u64,
    pub(super) outcome: Outcome,
}

/// What became of a request.
#[derive(Clone, Debug)]
pub(super) enum Outcome {
    Written(WriteReceipt),
    NotWritten(NotWritten),
    Found {
        documents: Vec<Document>,
        position: Lsn,
    },
    /// Nothing was begun here.
    Unavailable,
    NotPrimary,
}

/// A document as clients see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Document {
    pub(super) key: String,
    pub(super) value: u64,
    pub(super) version: Lsn,
}

impl Document {
    /// Reads what [`document`] made.
    pub(super) fn read(stored: &Stored, version: Lsn) -> Document {
        let value = stored.vector[0] as u64;
        assert_eq!(stored.metadata.as_json(), json(value), "vector and metadata are written together");
        Document { key: stored.id.as_str().to_owned(), value, version }
    }
}

fn document(key: &str, value: u64) -> Stored {
    let metadata = Metadata::from_stored(json(value).into()).expect("an object");
    Stored { id: DocumentId::parse(key).expect("valid"), vector: vec![value as f32], metadata }
}

fn json(value: u64) -> String {
    format!("{{\"value\":{value}}}")
}

impl Client {
    /// One that has done nothing yet.
    pub(super) fn new(index: usize) -> Client {
        Client {
            index,
            routes: BTreeMap::new(),
            token: BTreeMap::new(),
            versions: BTreeMap::new(),
            current: None,
            writes: 0,
        }
    }

    /// True while it waits for something.
    pub(super) fn is_busy(&self) -> bool {
        self.current.is_some()
    }

    /// It goes on asking a machine's process that has lost its name.
    pub(super) fn follow(&mut self, from: usize, to: usize) {
        for (_, node) in self.routes.values_mut().filter(|(_, node)| *node == from) {
            *node = to;
        }
    }

    /// Values are different for all writes, and exact as vectors.
    fn next_value(&mut self) -> u64 {
        self.writes += 1;
        self.writes * 16 + self.index as u64
    }

    /// What it does next.
    fn choose(&mut self, settings: &Settings, random: &mut Random, op_id: OpId) -> (ShardId, Wanted) {
        let kinds = &settings.operations;
        let kind = *random.pick(kinds);
        let key = settings.key(random);
        let shard = settings.shard_of(&key);
        let id = DocumentId::parse(&key).expect("valid");
        let version = self.versions.get(&key).copied().unwrap_or(Lsn::ZERO);
        let strong = Level::Strong { without_clock: random.one_in(3) };
        let if_version = matches!(kind, Kind::ConditionalUpsert | Kind::ConditionalDelete).then_some(version);
        let wanted = match kind {
            Kind::Upsert | Kind::ConditionalUpsert => {
                let document = document(&key, self.next_value());
                self.write(shard, op_id, vec![Operation::Upsert { document, if_version }])
            }
            Kind::Delete | Kind::ConditionalDelete => {
                self.write(shard, op_id, vec![Operation::Delete { id, if_version }])
            }
            Kind::Get => Wanted::Read(strong, Some(key)),
            Kind::SessionGet => {
                let token = self.token.get(&shard).copied().unwrap_or_default();
                Wanted::Read(Level::Session(token), Some(key))
            }
            Kind::BoundedGet => Wanted::Read(Level::Bounded(random.between(ms(100), ms(3_000))), Some(key)),
            Kind::Scan => Wanted::Read(strong, None),
            Kind::Group => return self.choose_group(settings, random, op_id),
        };
        (shard, wanted)
    }

    /// All documents of a group get the same value, or go, in one batch.
    fn choose_group(&mut self, settings: &Settings, random: &mut Random, op_id: OpId) -> (ShardId, Wanted) {
        let keys = settings.group(random);
        let shard = settings.shard_of(&keys[0]);
        let value = self.next_value();
        let deletes = random.one_in(5);
        let operation = |key: &String| match deletes {
            true => Operation::Delete { id: DocumentId::parse(key).expect("valid"), if_version: None },
            false => Operation::Upsert { document: document(key, value), if_version: None },
        };
        (shard, self.write(shard, op_id, keys.iter().map(operation).collect()))
    }

    fn write(&self, shard: ShardId, op_id: OpId, operations: Vec<Operation>) -> Wanted {
        Wanted::Write(Box::new(Batch { op_id, base: self.token.get(&shard).copied(), operations }))
    }
}

/// What clients do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Upsert,
    ConditionalUpsert,
    Delete,
    ConditionalDelete,
    Get,
    SessionGet,
    BoundedGet,
    Scan,
    Group,
}

impl World {
    /// A client goes on: with what it is doing, or with the next thing.
    pub(super) fn act(&mut self, client: usize) {
        if self.clients[client].current.as_ref().is_some_and(|current| current.awaited.is_some()) {
            return;
        }
        if self.clients[client].current.is_none() {
            if self.is_resting() {
                return;
            }
            self.begin(client);
        }
        self.attempt(client);
    }

    fn begin(&mut self, client: usize) {
        let op_id = OpId(self.random.bytes());
        let (shard, wanted) = self.clients[client].choose(&self.settings, &mut self.random, op_id);
        let now = self.time;
        let notes = noted(&self.settings, shard, &wanted)
            .into_iter()
            .map(|(key, operation)| {
                let who = checker::Client(client as u32);
                let strong =
                    is_strong(&wanted).then(|| self.ledger.history.invoke(who, &key, operation, now.0));
                let session =
                    is_of_session(&wanted).then(|| self.ledger.sessions.invoke(who, &key, operation, now.0));
                (key, strong, session)
            })
            .collect();
        let floor = self.ledger.floor(shard, &wanted, now);
        self.clients[client].current = Some(Current {
            shard,
            wanted,
            notes,
            attempts: 0,
            awaited: None,
            is_unknown: false,
            invoked: now,
            floor,
        });
    }

    /// Sends what a client wants to whom it believes to be right.
    fn attempt(&mut self, client: usize) {
        let current = self.clients[client].current.as_mut().expect("it is doing something");
        current.attempts += 1;
        let (shard, wanted) = (current.shard, current.wanted.clone());
        let route = match &wanted {
            Wanted::Read(Level::Session(_) | Level::Bounded(_), _) => self.any_copy(shard),
            _ => self.route(client, shard),
        };
        let Some((epoch, node)) = route else { return self.not_now(client) };
        let request =
            |number| Body::Request(Box::new(ClientRequest { client, number, shard, epoch, wanted }));
        let number = self.ask(Place::Client(client), Place::Node(node), ANSWER_LIMIT, request);
        self.clients[client].current.as_mut().expect("it is doing something").awaited = Some(number);
    }

    /// Where a client believes the primary to be; it looks again when that was wrong.
    fn route(&mut self, client: usize, shard: ShardId) -> Option<(Epoch, usize)> {
        if let Some(route) = self.clients[client].routes.get(&shard) {
            return Some(*route);
        }
        let record = self.store.content().shard(shard)?.clone();
        let node = self.index_of(record.primary_node()?);
        self.clients[client].routes.insert(shard, (record.epoch, node));
        Some((record.epoch, node))
    }

    /// Any copy that stays.
    fn any_copy(&mut self, shard: ShardId) -> Option<(Epoch, usize)> {
        let record = self.store.content().shard(shard)?.clone();
        let staying: Vec<_> = record.staying().collect();
        let node = self.random.pick(&staying).node.clone();
        Some((record.epoch, self.index_of(&node)))
    }

    /// A client tries again later, or gives up.
    fn not_now(&mut self, client: usize) {
        self.clients[client].routes.clear();
        let current = self.clients[client].current.as_mut().expect("it is doing something");
        current.awaited = None;
        if current.attempts >= ATTEMPTS_MAX {
            return self.finish(client, None);
        }
        // Now and then one that comes back when nobody expects it any more.
        let pause = if self.random.one_in(40) { ms(8_000) } else { ms(60) * current.attempts.min(6) };
        let pause = pause / 2 + self.random.about(pause / 2);
        self.schedule.at(self.time + pause, Event::Act(client));
    }

    /// No answer came.
    pub(super) fn client_timed_out(&mut self, client: usize, number: u64) {
        let Some(current) = &mut self.clients[client].current else { return };
        if current.awaited == Some(number) {
            current.is_unknown = true;
            self.not_now(client);
        }
    }

    /// An answer came.
    pub(super) fn arrive_at_client(&mut self, client: usize, parcel: Parcel) {
        let Body::Answer(answer) = parcel.body else { return };
        let Some(current) = &mut self.clients[client].current else { return };
        if current.awaited != Some(answer.number) {
            return;
        }
        match answer.outcome {
            Outcome::Unavailable | Outcome::NotPrimary => self.not_now(client),
            Outcome::NotWritten(NotWritten::Unknown(_)) => {
                current.is_unknown = true;
                self.not_now(client);
            }
            Outcome::NotWritten(NotWritten::Refused(Refusal::TooLate)) => {
                current.is_unknown = true;
                self.finish(client, None);
            }
            outcome @ (Outcome::Written(_)
            | Outcome::Found { .. }
            | Outcome::NotWritten(NotWritten::Refused(_))) => self.finish(client, Some(outcome)),
            Outcome::NotWritten(_) => self.not_now(client),
        }
    }

    /// A client notes what it was told, and does something else.
    fn finish(&mut self, client: usize, outcome: Option<Outcome>) {
        let current = self.clients[client].current.take().expect("it is doing something");
        self.judge(client, &current, outcome.as_ref());
        let now = self.time.0;
        let is_single = current.notes.len() == 1;
        for (key, strong, session) in current.notes {
            let known = self.learned(client, current.shard, &key, outcome.as_ref(), is_single);
            let known = match known {
                Some(known) => known,
                None if current.is_unknown || matches!(current.wanted, Wanted::Read(..)) => {
                    checker::Outcome::Unknown
                }
                None => checker::Outcome::Failed,
            };
            // What was refused now may have been sent before, and arrive and be done later.
            let is_final = !matches!(known, checker::Outcome::Mismatch(_) | checker::Outcome::Failed);
            let known = if current.is_unknown && !is_final { checker::Outcome::Unknown } else { known };
            if let Some(op) = strong {
                self.ledger.history.complete(op, known, now);
            }
            if let Some(op) = session {
                // A refusal brings no token: what it tells is true, and no part of the session.
                let is_refusal = matches!(known, checker::Outcome::Mismatch(_));
                let known = if is_refusal { checker::Outcome::Failed } else { known };
                self.ledger.sessions.complete(op, known, now);
            }
        }
        self.ledger.operations += 1;
        let pause = self.random.about(self.settings.think_time);
        self.schedule.at(self.time + pause, Event::Act(client));
    }

    /// What an answer says of one document; the client remembers it.
    fn learned(
        &mut self,
        client: usize,
        shard: ShardId,
        key: &str,
        outcome: Option<&Outcome>,
        is_single: bool,
    ) -> Option<checker::Outcome> {
        let client = &mut self.clients[client];
        match outcome? {
            Outcome::Written(receipt) => {
                let token = client.token.entry(shard).or_default();
                *token = (*token).max(receipt.lsn);
                if is_single {
                    client.versions.insert(key.to_owned(), receipt.lsn);
                }
                let version = is_single.then_some(checker::Version(receipt.lsn.0));
                Some(checker::Outcome::Done(version))
            }
            Outcome::NotWritten(NotWritten::Refused(Refusal::VersionMismatch { found, .. })) => {
                client.versions.insert(key.to_owned(), *found);
                Some(checker::Outcome::Mismatch(checker::Version(found.0)))
            }
            Outcome::Found { documents, position } => {
                let token = client.token.entry(shard).or_default();
                *token = (*token).max(*position);
                let found = documents.iter().find(|document| document.key == key);
                let version = found.map_or(Lsn::ZERO, |found| found.version);
                if is_single {
                    client.versions.insert(key.to_owned(), version);
                }
                let seen = |document: &Document| checker::Seen {
                    value: checker::Value(document.value),
                    version: (document.version > Lsn::ZERO).then_some(checker::Version(document.version.0)),
                };
                Some(checker::Outcome::Found(found.map(seen)))
            }
            Outcome::NotWritten(_) | Outcome::Unavailable | Outcome::NotPrimary => None,
        }
    }

    /// What an answer shows at once to be wrong.
    fn judge(&mut self, _client: usize, current: &Current, outcome: Option<&Outcome>) {
        let Current { shard, wanted, floor, invoked, .. } = current;
        match outcome {
            Some(Outcome::Written(receipt)) => self.ledger.told(*shard, receipt.lsn, self.time),
            Some(Outcome::Found { documents, position }) => {
                if position < floor {
                    let took = self.time.since(*invoked);
                    self.ledger.break_with(format!(
                        "a read of {shard} at {position} is stale: {floor} was acknowledged before it, {wanted:?}, {took:?}"
                    ));
                }
                if let (Wanted::Read(_, None), Some(group)) = (wanted, half_group(documents)) {
                    self.ledger.break_with(format!("half a batch is visible: {group}"));
                }
            }
            _ => {}
        }
    }
}

/// A group of which not all documents are there with one value.
fn half_group(documents: &[Document]) -> Option<String> {
    let mut groups: BTreeMap<&str, Vec<u64>> = BTreeMap::new();
    for document in documents {
        if let Some((group, _)) = document.key.split_once('.') {
            groups.entry(group).or_default().push(document.value);
        }
    }
    let is_half =
        |values: &Vec<u64>| values.len() != GROUP_KEYS || values.iter().any(|value| *value != values[0]);
    groups
        .into_iter()
        .find(|(_, values)| is_half(values))
        .map(|(group, values)| format!("{group} {values:?}"))
}

/// What the checker is told of an operation, by key.
fn noted(settings: &Settings, shard: ShardId, wanted: &Wanted) -> Vec<(String, checker::Operation)> {
    let version = |lsn: &Lsn| checker::Version(lsn.0);
    match wanted {
        Wanted::Read(_, Some(key)) => vec![(key.clone(), checker::Operation::Read)],
        Wanted::Read(_, None) => {
            let keys = settings.keys().into_iter().filter(|key| settings.shard_of(key) == shard);
            keys.map(|key| (key, checker::Operation::Read)).collect()
        }
        Wanted::Write(batch) => {
            let note = |operation: &Operation| match operation {
                Operation::Upsert { document, if_version } => (
                    document.id.as_str().to_owned(),
                    checker::Operation::Write {
                        value: checker::Value(document.vector[0] as u64),
                        condition: if_version.as_ref().map(version),
                    },
                ),
                Operation::Delete { id, if_version } => (
                    id.as_str().to_owned(),
                    checker::Operation::Delete { condition: if_version.as_ref().map(version) },
                ),
                Operation::SetMetadata { .. } => unreachable!("clients here set no metadata"),
            };
            batch.operations.iter().map(note).collect()
        }
    }
}

fn is_strong(wanted: &Wanted) -> bool {
    matches!(wanted, Wanted::Write(_) | Wanted::Read(Level::Strong { .. }, _))
}

/// A bounded read may go back.
fn is_of_session(wanted: &Wanted) -> bool {
    !matches!(wanted, Wanted::Read(Level::Bounded(_), _))
}

const fn ms(milliseconds: u64) -> Duration {
    Duration::from_millis(milliseconds)
}
