//! Random clusters: nodes come and go, are drained and get damaged, while the steps of [`plan`] are carried out late, in
//! any order, or not at all. No step does harm; and when the trouble ends, the cluster comes to rest as it should be.

use proptest::prelude::*;
use prost::Message as _;
use rand::rngs::SmallRng;
use rand::seq::{IndexedRandom, SliceRandom};
use rand::{RngExt, SeedableRng};
use vectorsphere_proto::keys::Keys;
use vectorsphere_proto::meta;

use super::*;
use crate::coordinator::edits;
use crate::ids::{Epoch, Lsn, Revision, Session, ShardIndex, TableId};

const TABLE: &str = "7f2c1c6e-6d5b-4b7e-9a53-0f6d4a3a2b1c";
const MINUTE: Duration = Duration::from_secs(60);
/// Rounds in which a cluster of this size must have come to rest.
const ROUNDS_MAX: usize = 200;

/// What a case is about.
#[derive(Clone, Copy, Debug)]
struct Shape {
    nodes: usize,
    /// 0: nodes have no zones.
    zones: usize,
    shards: u32,
    replicas: u32,
    min_isr: u32,
    trouble: usize,
}

struct Node {
    zone: String,
    /// `None` while it is away.
    session: Option<Session>,
    away_since: Duration,
    is_suspect: bool,
    drain_expires: Option<Option<u64>>,
}

/// A metadata store, and nodes that do what they should.
struct World {
    random: SmallRng,
    shape: Shape,
    nodes: BTreeMap<NodeId, Node>,
    shards: BTreeMap<ShardId, (meta::ShardRecord, Revision)>,
    now: Duration,
    revision: i64,
}

impl World {
    fn new(seed: u64, shape: Shape) -> World {
        let mut world = World {
            random: SmallRng::seed_from_u64(seed),
            shape,
            nodes: BTreeMap::new(),
            shards: BTreeMap::new(),
            now: MINUTE * 100,
            revision: 100,
        };
        for number in 0..shape.nodes {
            let zone = if shape.zones == 0 { String::new() } else { format!("z{}", number % shape.zones) };
            let session = Some(Session(number as i64 + 1));
            let node =
                Node { zone, session, away_since: Duration::ZERO, is_suspect: false, drain_expires: None };
            world.nodes.insert(NodeId::parse(&format!("n{number}")).expect("valid"), node);
        }
        for index in 0..shape.shards {
            let names: Vec<NodeId> = world.nodes.keys().cloned().collect();
            let homes: Vec<_> = names.sample(&mut world.random, shape.replicas as usize).collect();
            let replica = |node: &&NodeId| meta::Replica {
                replica_id: ReplicaId::random().0.to_vec(),
                node_id: node.to_string(),
                role: meta::ReplicaRole::Full.into(),
                ..meta::Replica::default()
            };
            let replicas: Vec<meta::Replica> = homes.iter().map(replica).collect();
            let record = meta::ShardRecord {
                epoch: 1,
                primary: replicas[0].replica_id.clone(),
                primary_session: world.nodes[homes[0]].session.expect("all are there").0,
                isr: replicas.iter().map(|replica| replica.replica_id.clone()).collect(),
                replicas,
                min_isr: shape.min_isr,
                ..meta::ShardRecord::default()
            };
            let table = TableId::parse(TABLE).expect("a UUID");
            world.shards.insert(ShardId { table, index: ShardIndex(index) }, (record, Revision(1)));
        }
        world
    }

    /// The view, as records make it.
    fn view(&self) -> ClusterView {
        let keys = Keys::of_service("s");
        let mut view = ClusterView::default();
        let mut put = |key: &str, value: Vec<u8>, created: Revision, modified: Revision| {
            view.put(&keys, key, &value, created, modified).expect("readable");
        };
        for (id, node) in &self.nodes {
            if let Some(session) = node.session {
                let record = meta::NodeRecord {
                    node_id: id.to_string(),
                    node_type: "slave".to_owned(),
                    zone: node.zone.clone(),
                    ..meta::NodeRecord::default()
                };
                let created = Revision(session.0);
                put(&keys.node(id.as_str()), record.encode_to_vec(), created, created);
            }
            if let Some(expires) = node.drain_expires {
                let record = meta::DrainRecord {
                    expires_unix_ms: expires.unwrap_or(0),
                    ..meta::DrainRecord::default()
                };
                put(&keys.drain(id.as_str()), record.encode_to_vec(), Revision(1), Revision(1));
            }
        }
        put(&keys.table(TABLE), self.table().encode_to_vec(), Revision(1), Revision(1));
        for (id, (record, modified)) in &self.shards {
            put(&keys.shard(TABLE, id.index.0), record.encode_to_vec(), Revision(1), *modified);
        }
        view
    }

    fn table(&self) -> meta::TableRecord {
        meta::TableRecord {
            table_id: TABLE.to_owned(),
            name: "docs".to_owned(),
            dimension: 4,
            metric: meta::Metric::L2.into(),
            index_type: "flat".to_owned(),
            shards: self.shape.shards,
            replicas: self.shape.replicas,
            min_isr: self.shape.min_isr,
            state: meta::TableState::Active.into(),
            shard_hash: 1,
            vector_type: "f32".to_owned(),
        }
    }

    fn unix_ms(&self) -> u64 {
        self.now.as_millis() as u64
    }

    fn plan(&self, view: &ClusterView) -> Vec<Action> {
        let away = self.nodes.iter().filter(|(_, node)| node.session.is_none());
        let gone_since = away.map(|(id, node)| (id.clone(), node.away_since)).collect();
        let suspects =
            self.nodes.iter().filter(|(_, node)| node.is_suspect).map(|(id, _)| id.clone()).collect();
        let situation = Situation {
            view,
            now: self.now,
            gone_since: &gone_since,
            suspects: &suspects,
            unix_ms: self.unix_ms(),
        };
        plan(&situation, &Settings::default())
    }

    fn node(&self, name: &str) -> &Node {
        &self.nodes[&NodeId::parse(name).expect("valid")]
    }

    fn is_there(&self, replica: &meta::Replica) -> bool {
        self.node(&replica.node_id).session.is_some()
    }

    fn is_drained(&self, node: &Node) -> bool {
        node.drain_expires.is_some_and(|expires| expires.is_none_or(|expires| self.unix_ms() < expires))
    }

    /// In sync and well, on nodes that are there.
    fn whole(&self, record: &meta::ShardRecord) -> usize {
        let is_whole = |replica: &&meta::Replica| {
            record.isr.contains(&replica.replica_id) && !replica.damaged && self.is_there(replica)
        };
        record.replicas.iter().filter(is_whole).count()
    }

    fn is_led(&self, record: &meta::ShardRecord) -> bool {
        let primary = record.replicas.iter().find(|replica| replica.replica_id == record.primary);
        primary.is_some_and(|primary| {
            let session = self.node(&primary.node_id).session;
            !primary.damaged && session == Some(Session(record.primary_session))
        })
    }

    fn put(&mut self, id: ShardId, record: meta::ShardRecord) {
        self.revision += 1;
        self.shards.insert(id, (record, Revision(self.revision)));
    }
}

/// What the Master does.
impl World {
    /// Carries a step out, unless the record has changed since it was planned.
    fn carry_out(&mut self, action: &Action, view: &ClusterView) {
        if let Action::EndDrain { node } = action {
            self.nodes.get_mut(node).expect("one of ours").drain_expires = None;
        }
        let Some(shard) = shard_of(action) else { return };
        let (before, modified) = self.shards[&shard].clone();
        if view.shards[&shard].mod_revision != modified {
            return;
        }
        let Some(after) = self.edited(action, view, &before) else { return };
        let (was, is) = (self.whole(&before), self.whole(&after));
        match action {
            // What leaves is made up for.
            Action::Retire { .. } => {
                assert!(is >= was.min(self.shape.replicas as usize), "{action:?} {}", describe(&before));
            }
            Action::Elect { .. } => assert!(is + 1 >= was, "{action:?} {}", describe(&before)),
            _ => assert_eq!(is, was, "{action:?} {}", describe(&before)),
        }
        self.check(&after);
        self.put(shard, after);
    }

    /// The record after the step; `None` when its transaction would fail.
    fn edited(
        &self,
        action: &Action,
        view: &ClusterView,
        record: &meta::ShardRecord,
    ) -> Option<meta::ShardRecord> {
        let shard = shard_of(action)?;
        let seen = &view.shards[&shard];
        let session = |id: ReplicaId| seen.replica(id).and_then(|replica| self.nodes[&replica.node].session);
        match action {
            Action::Elect { .. } => {
                let there = seen.replicas.iter().filter(|replica| session(replica.id).is_some());
                let reports: Vec<CandidateReport> = there.map(|replica| report(replica.id)).collect();
                let elected = elect(seen, &reports)?;
                Some(edits::with_primary(record, elected, session(elected)?))
            }
            Action::Add { node, replaces, .. } => {
                let home = &self.nodes[node];
                // The conditions of the transaction: the node is there, and not to be emptied (R11).
                let may_come = home.session.is_some() && home.drain_expires.is_none();
                may_come.then(|| edits::with_learner(record, ReplicaId::random(), node, *replaces))
            }
            Action::Retire { replica, .. } => {
                // A condition of the transaction: the nodes of the others are there as they were.
                let others = seen.isr.iter().filter(|member| *member != replica);
                let mut nodes = others.filter_map(|member| Some(&seen.replica(*member)?.node));
                let is_same =
                    |node| view.nodes.get(node).map(|node| node.session) == self.nodes[node].session;
                nodes.all(is_same).then(|| edits::with_leaving(record, *replica))
            }
            Action::Withdraw { replica, .. } => Some(edits::without(record, *replica)),
            Action::HandOver { to, .. } => {
                let next = seen.replica(*to).expect("one of the shard's");
                let session = session(*to).filter(|_| seen.is_in_sync(*to) && !next.damaged)?;
                self.is_led(record).then(|| meta::ShardRecord {
                    epoch: record.epoch + 1,
                    primary: to.0.to_vec(),
                    primary_session: session.0,
                    ..record.clone()
                })
            }
            Action::EndDrain { .. } => None,
        }
    }

    /// What holds after each step of the Master.
    fn check(&self, record: &meta::ShardRecord) {
        let stays = |replica: &&meta::Replica| replica.role() != meta::ReplicaRole::Leaving;
        let staying: Vec<_> = record.replicas.iter().filter(stays).collect();
        for (index, replica) in staying.iter().enumerate() {
            let is_shared = |other: &&&meta::Replica| other.node_id == replica.node_id && !other.damaged;
            if !replica.damaged {
                assert!(!staying[index + 1..].iter().any(|other| is_shared(&other)), "{}", describe(record));
            }
        }
        let learners = staying.iter().filter(|replica| replica.role() == meta::ReplicaRole::Learner);
        assert!(learners.count() <= 1, "{}", describe(record));
        assert!(record.isr.len() >= record.min_isr as usize, "{}", describe(record));
    }
}

fn shard_of(action: &Action) -> Option<ShardId> {
    match action {
        Action::EndDrain { .. } => None,
        Action::Elect { shard }
        | Action::Add { shard, .. }
        | Action::Retire { shard, .. }
        | Action::HandOver { shard, .. }
        | Action::Withdraw { shard, .. } => Some(*shard),
    }
}

fn report(replica: ReplicaId) -> CandidateReport {
    CandidateReport {
        replica,
        last_epoch: Epoch(1),
        flushed: Lsn(1),
        commit: Lsn(1),
        is_damaged: false,
        tail_was_cut: false,
        primaries: 0,
    }
}

/// What nodes do.
impl World {
    /// Each shard's primary looks after its in-sync set, and each node deletes what is leaving; or some of them.
    fn nodes_act(&mut self, share: f64) {
        for id in self.shards.keys().copied().collect::<Vec<_>>() {
            if !self.random.random_bool(share) {
                continue;
            }
            let (before, _) = self.shards[&id].clone();
            let mut record = before.clone();
            let leaves = |replica: &meta::Replica| replica.role() == meta::ReplicaRole::Leaving;
            record.replicas.retain(|replica| !(leaves(replica) && self.is_there(replica)));
            if self.is_led(&record) {
                self.evict(&mut record);
                self.admit(&mut record);
            }
            if record != before {
                self.put(id, record);
            }
        }
    }

    fn evict(&self, record: &mut meta::ShardRecord) {
        for replica in &record.replicas {
            let fails = replica.damaged || !self.is_there(replica);
            if fails && record.isr.len() > record.min_isr as usize {
                record.isr.retain(|member| *member != replica.replica_id);
            }
        }
    }

    /// Takes in a copy that has caught up, in place of a member that is away if there are too few without it.
    fn admit(&mut self, record: &mut meta::ShardRecord) {
        let fails = |world: &World, member: &Vec<u8>| {
            let replica = record.replicas.iter().find(|replica| replica.replica_id == *member);
            replica.is_none_or(|replica| replica.damaged || !world.is_there(replica))
        };
        let failed = record.isr.iter().find(|member| fails(self, member)).cloned();
        let may_join = |replica: &&mut meta::Replica| {
            replica.role() != meta::ReplicaRole::Leaving
                && !record.isr.contains(&replica.replica_id)
                && !replica.damaged
                && self.is_there(replica)
                && self.node(&replica.node_id).drain_expires.is_none()
        };
        let Some(replica) = record.replicas.iter_mut().find(may_join) else { return };
        replica.set_role(meta::ReplicaRole::Full);
        if let Some(failed) = failed.filter(|_| record.isr.len() == record.min_isr as usize) {
            record.isr.retain(|member| *member != failed);
        }
        record.isr.push(replica.replica_id.clone());
    }
}

/// What goes wrong.
impl World {
    fn trouble(&mut self) {
        let names: Vec<NodeId> = self.nodes.keys().cloned().collect();
        let name = names.choose(&mut self.random).expect("nodes").clone();
        match self.random.random_range(0..10) {
            0 | 1 => {
                let node = self.nodes.get_mut(&name).expect("one of ours");
                if node.session.take().is_some() {
                    node.away_since = self.now;
                    node.is_suspect = false;
                }
            }
            2 | 3 => self.come_back(&name),
            4 => {
                let drained = self.nodes.values().filter(|node| node.drain_expires.is_some()).count();
                let may_drain = drained < self.spare_nodes();
                let expires = self.random.random::<bool>().then(|| self.unix_ms() + 600_000);
                let node = self.nodes.get_mut(&name).expect("one of ours");
                node.drain_expires = match node.drain_expires {
                    None if may_drain => Some(expires),
                    _ => None,
                };
            }
            5 => {
                let node = self.nodes.get_mut(&name).expect("one of ours");
                node.is_suspect = node.session.is_some() && !node.is_suspect;
            }
            6 => self.damage(),
            _ => self.now += MINUTE * self.random.random_range(1..5),
        }
    }

    /// Nodes beyond those that one shard needs, less one that may be lost.
    fn spare_nodes(&self) -> usize {
        (self.shape.nodes - self.shape.replicas as usize).saturating_sub(1)
    }

    fn come_back(&mut self, name: &NodeId) {
        self.revision += 1;
        let session = Session(self.revision);
        let node = self.nodes.get_mut(name).expect("one of ours");
        node.session = Some(session);
        node.is_suspect = false;
    }

    /// Breaks a copy of which there is another one.
    fn damage(&mut self) {
        let ids: Vec<ShardId> = self.shards.keys().copied().collect();
        let id = *ids.choose(&mut self.random).expect("shards");
        let mut record = self.shards[&id].0.clone();
        let index = self.random.random_range(0..record.replicas.len());
        if survives(&record, |replica| *replica != record.replicas[index]) {
            record.replicas[index].damaged = true;
            self.put(id, record);
        }
    }

    /// All that is wrong ends, but for a node that stays away if nothing is lost with it.
    fn end_trouble(&mut self) {
        let names: Vec<NodeId> = self.nodes.keys().cloned().collect();
        let drained = self.nodes.values().filter(|node| node.drain_expires.is_some()).count();
        let may_go = |name: &&NodeId| {
            drained <= self.spare_nodes()
                && self
                    .shards
                    .values()
                    .all(|(record, _)| survives(record, |replica| replica.node_id != name.as_str()))
        };
        let lost =
            names.iter().filter(|_| self.shape.nodes > self.shape.replicas as usize).find(may_go).cloned();
        for name in names {
            self.come_back(&name);
            if Some(&name) == lost.as_ref() {
                let node = self.nodes.get_mut(&name).expect("one of ours");
                (node.session, node.away_since) = (None, self.now);
            }
        }
    }
}

/// True when a copy that has everything is among those that are kept.
fn survives(record: &meta::ShardRecord, is_kept: impl Fn(&meta::Replica) -> bool) -> bool {
    let holds_all = |replica: &meta::Replica| !replica.damaged && record.isr.contains(&replica.replica_id);
    record.replicas.iter().any(|replica| holds_all(replica) && is_kept(replica))
}

/// How it must end.
impl World {
    /// Looks, carries out, lets the nodes act, until nothing changes any more.
    fn settle(&mut self) {
        let mut still = 0;
        for _ in 0..ROUNDS_MAX {
            let view = self.view();
            let mut actions = self.plan(&view);
            actions.shuffle(&mut self.random);
            let before = self.revision;
            actions.iter().for_each(|action| self.carry_out(action, &view));
            self.nodes_act(0.7);
            self.now += MINUTE;
            still = if actions.is_empty() && before == self.revision { still + 1 } else { 0 };
            // Longer than any wait.
            if still > 15 {
                return;
            }
        }
        panic!("there is always something to do: {:?}", self.plan(&self.view()));
    }

    fn check_rest(&self) {
        let view = self.view();
        let hosts = self.nodes.iter().filter(|(_, node)| node.session.is_some() && !self.is_drained(node));
        let mut held: BTreeMap<&str, usize> = hosts.map(|(id, _)| (id.as_str(), 0)).collect();
        for (record, _) in self.shards.values() {
            assert!(self.is_led(record), "{}", describe(record));
            assert_eq!(self.whole(record), self.shape.replicas as usize, "{}", describe(record));
            assert_eq!(record.replicas.len(), self.shape.replicas as usize, "{}", describe(record));
            for replica in &record.replicas {
                *held.get_mut(replica.node_id.as_str()).expect("drained nodes are empty") += 1;
            }
        }
        for (id, node) in &self.nodes {
            if self.is_drained(node) {
                assert_eq!(drain_progress(&view, id), DrainProgress::default());
            }
        }
        if self.shape.zones == 0 {
            let (min, max) = (held.values().min().expect("nodes"), held.values().max().expect("nodes"));
            assert!(max - min <= 1, "{held:?}");
        }
    }
}

/// A record in the words of `tests.rs`: copies by node, `*` the primary, `+` in sync, `?` a learner, `x` leaving, `!` damaged.
fn describe(record: &meta::ShardRecord) -> String {
    let copies = record.replicas.iter().map(|replica| {
        let mark = |is: bool, mark| if is { mark } else { "" };
        let replaces = record.replicas.iter().find(|other| other.replica_id == replica.replaces);
        let marks = [
            mark(record.primary == replica.replica_id, "*"),
            mark(record.isr.contains(&replica.replica_id), "+"),
            mark(replica.role() == meta::ReplicaRole::Learner, "?"),
            mark(replica.role() == meta::ReplicaRole::Leaving, "x"),
            mark(replica.damaged, "!"),
        ];
        let replaces = replaces.map(|other| format!(">{}", other.node_id)).unwrap_or_default();
        format!("{}{}{replaces}", replica.node_id, marks.concat())
    });
    format!("{} (min {}, {})", copies.collect::<Vec<_>>().join(" "), record.min_isr, record.reason)
}

fn shape() -> impl Strategy<Value = Shape> {
    (1u32..4, 1usize..5, 0usize..4, 1u32..9, 0usize..150).prop_flat_map(
        |(replicas, more, zones, shards, trouble)| {
            (1..=replicas).prop_map(move |min_isr| {
                let nodes = replicas as usize + more;
                Shape { nodes, zones, shards, replicas, min_isr, trouble }
            })
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn no_step_does_harm_and_the_cluster_comes_to_rest(seed: u64, shape in shape()) {
        let mut world = World::new(seed, shape);
        for _ in 0..shape.trouble {
            let view = world.view();
            let mut actions = world.plan(&view);
            actions.shuffle(&mut world.random);
            actions.truncate(world.random.random_range(0..5));
            world.trouble();
            world.nodes_act(0.3);
            actions.iter().for_each(|action| world.carry_out(action, &view));
        }
        world.end_trouble();
        world.settle();
        world.check_rest();
    }
}
