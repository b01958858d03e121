//! A metadata store, a Master that carries steps out, and nodes that do what they should.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use prost::Message as _;
use rand::rngs::SmallRng;
use rand::seq::IndexedRandom;
use rand::{RngExt, SeedableRng};
use vectorsphere_proto::keys::Keys;
use vectorsphere_proto::meta::{self, Replica, ReplicaRole, ShardRecord};

use crate::cluster::view::ClusterView;
use crate::coordinator::edits;
use crate::coordinator::plan::{Action, CandidateReport, Settings, Situation, elect, plan};
use crate::ids::{Epoch, Lsn, NodeId, ReplicaId, Revision, Session, ShardId, ShardIndex, TableId};

const TABLE: &str = "7f2c1c6e-6d5b-4b7e-9a53-0f6d4a3a2b1c";

/// How large a cluster is.
#[derive(Clone, Copy, Debug)]
pub(super) struct Shape {
    pub(super) nodes: usize,
    /// 0: nodes have no zones.
    pub(super) zones: usize,
    pub(super) shards: u32,
    pub(super) replicas: u32,
    pub(super) min_isr: u32,
}

/// A node.
pub(super) struct Node {
    pub(super) zone: String,
    /// `None` while it is away.
    pub(super) session: Option<Session>,
    pub(super) away_since: Duration,
    pub(super) is_suspect: bool,
    /// Milliseconds at which its drain ends; 0: never. `None` when it is not to be emptied.
    pub(super) drain: Option<u64>,
}

/// The cluster.
pub(super) struct World {
    pub(super) random: SmallRng,
    pub(super) shape: Shape,
    pub(super) nodes: BTreeMap<NodeId, Node>,
    pub(super) shards: BTreeMap<ShardId, (ShardRecord, Revision)>,
    pub(super) now: Duration,
    /// Of the last change.
    pub(super) revision: Revision,
}

impl World {
    /// A cluster where all copies are there, but nobody leads and nothing is evenly spread.
    pub(super) fn new(seed: u64, shape: Shape) -> World {
        let mut random = SmallRng::seed_from_u64(seed);
        let node = |number: usize| {
            let zone = if shape.zones == 0 { String::new() } else { format!("z{}", number % shape.zones) };
            let session = Some(Session(number as i64 + 1));
            let id = NodeId::parse(&format!("n{number}")).expect("valid");
            (id, Node { zone, session, away_since: Duration::ZERO, is_suspect: false, drain: None })
        };
        let nodes: BTreeMap<NodeId, Node> = (0..shape.nodes).map(node).collect();
        let names: Vec<&NodeId> = nodes.keys().collect();
        let mut shard = |index: u32| {
            let homes = names.sample(&mut random, shape.replicas as usize);
            let replicas: Vec<Replica> = homes.map(|node| full_copy(node)).collect();
            let record = ShardRecord {
                epoch: 1,
                primary: replicas[0].replica_id.clone(),
                isr: replicas.iter().map(|replica| replica.replica_id.clone()).collect(),
                replicas,
                min_isr: shape.min_isr,
                ..ShardRecord::default()
            };
            let table = TableId::parse(TABLE).expect("a UUID");
            (ShardId { table, index: ShardIndex(index) }, (record, Revision(1)))
        };
        let shards = (0..shape.shards).map(&mut shard).collect();
        let (now, revision) = (Duration::from_secs(10_000), Revision(100));
        World { random, shape, nodes, shards, now, revision }
    }

    /// The view, as records make it.
    pub(super) fn view(&self) -> ClusterView {
        let keys = Keys::of_service("s");
        let mut view = ClusterView::default();
        let mut put = |key: &str, value: Vec<u8>, created: i64, modified: Revision| {
            view.put(&keys, key, &value, Revision(created), modified).expect("readable");
        };
        for (id, node) in &self.nodes {
            let (node_id, zone) = (id.to_string(), node.zone.clone());
            let record = meta::NodeRecord {
                node_id,
                zone,
                node_type: "slave".to_owned(),
                ..meta::NodeRecord::default()
            };
            if let Some(session) = node.session {
                put(&keys.node(id.as_str()), record.encode_to_vec(), session.0, Revision(1));
            }
            if let Some(expires_unix_ms) = node.drain {
                let record = meta::DrainRecord { expires_unix_ms, ..meta::DrainRecord::default() };
                put(&keys.drain(id.as_str()), record.encode_to_vec(), 1, Revision(1));
            }
        }
        put(&keys.table(TABLE), table(self.shape).encode_to_vec(), 1, Revision(1));
        for (id, (record, modified)) in &self.shards {
            put(&keys.shard(TABLE, id.index.0), record.encode_to_vec(), 1, *modified);
        }
        view
    }

    /// What the Master would do.
    pub(super) fn plan(&self, view: &ClusterView) -> Vec<Action> {
        let away = self.nodes.iter().filter(|(_, node)| node.session.is_none());
        let gone_since = away.map(|(id, node)| (id.clone(), node.away_since)).collect();
        let suspects = self.nodes.iter().filter(|(_, node)| node.is_suspect);
        let suspects = suspects.map(|(id, _)| id.clone()).collect();
        let unix_ms = self.unix_ms();
        let situation = Situation {
            view,
            now: self.now,
            gone_since: &gone_since,
            suspects: &suspects,
            unfit: &BTreeSet::new(),
            unix_ms,
        };
        plan(&situation, &Settings::default())
    }

    pub(super) fn unix_ms(&self) -> u64 {
        self.now.as_millis() as u64
    }

    pub(super) fn put(&mut self, id: ShardId, record: ShardRecord) {
        self.revision.0 += 1;
        self.shards.insert(id, (record, self.revision));
    }

    pub(super) fn node_of(&self, replica: &Replica) -> &Node {
        &self.nodes[&NodeId::parse(&replica.node_id).expect("valid")]
    }

    fn is_well(&self, replica: &Replica) -> bool {
        !replica.damaged && self.node_of(replica).session.is_some()
    }

    /// How many copies are in sync and well.
    pub(super) fn whole(&self, record: &ShardRecord) -> usize {
        record.replicas.iter().filter(|replica| is_in_sync(record, replica) && self.is_well(replica)).count()
    }

    pub(super) fn is_led(&self, record: &ShardRecord) -> bool {
        let primary = record.replicas.iter().find(|replica| replica.replica_id == record.primary);
        primary.is_some_and(|primary| {
            self.is_well(primary) && self.node_of(primary).session == Some(Session(record.primary_session))
        })
    }
}

/// What the Master does.
impl World {
    /// Carries a step out, unless its transaction would fail because the view is old. No step does harm.
    pub(super) fn carry_out(&mut self, action: &Action, view: &ClusterView) {
        let shard = match action {
            Action::EndDrain { node } => {
                self.nodes.get_mut(node).expect("one of ours").drain = None;
                return;
            }
            Action::Elect { shard, .. }
            | Action::Add { shard, .. }
            | Action::Retire { shard, .. }
            | Action::HandOver { shard, .. }
            | Action::Withdraw { shard, .. } => *shard,
        };
        let (before, modified) = &self.shards[&shard];
        if view.shards[&shard].mod_revision != *modified {
            return;
        }
        let Some(after) = self.edited(action, before, view) else { return };
        let (was, is) = (self.whole(before), self.whole(&after));
        let all_is_well = match action {
            Action::Retire { .. } => is >= was.min(self.shape.replicas as usize),
            Action::Elect { .. } => is + 1 >= was,
            _ => is == was,
        };
        assert!(all_is_well, "{action:?}\n{}\n{}", describe(before), describe(&after));
        check_places(&after);
        self.put(shard, after);
    }

    /// The record after the step; `None` when a condition of its transaction does not hold.
    fn edited(&self, action: &Action, record: &ShardRecord, view: &ClusterView) -> Option<ShardRecord> {
        let session = |id: &ReplicaId| {
            let replica = record.replicas.iter().find(|replica| replica.replica_id == id.0)?;
            self.node_of(replica).session
        };
        match action {
            Action::EndDrain { .. } => None,
            Action::Elect { shard, lost } => {
                let there = view.shards[shard].isr.iter().filter(|member| session(member).is_some());
                let reports: Vec<CandidateReport> = there.map(|member| report(*member)).collect();
                let elected = elect(&view.shards[shard], &reports, lost)?;
                Some(edits::with_primary(record, elected, session(&elected)?))
            }
            Action::Add { node, replaces, .. } => {
                let home = &self.nodes[node];
                let may_come = home.session.is_some() && home.drain.is_none();
                may_come.then(|| edits::with_learner(record, ReplicaId::random(), node, *replaces))
            }
            Action::Retire { shard, replica } => {
                let seen = &view.shards[shard];
                let others = seen.isr.iter().filter(|member| *member != replica);
                let mut nodes = others.map(|member| &seen.replica(*member).expect("a copy").node);
                let is_as_seen =
                    |node| view.nodes.get(node).map(|node| node.session) == self.nodes[node].session;
                nodes.all(is_as_seen).then(|| edits::with_leaving(record, *replica))
            }
            Action::Withdraw { replica, .. } => {
                session(replica).is_none().then(|| edits::without(record, *replica))
            }
            // The primary's own step: it refuses when the other one is not in sync any more.
            Action::HandOver { to, .. } => {
                let next = record.replicas.iter().find(|replica| replica.replica_id == to.0)?;
                let may_lead = self.is_led(record) && is_in_sync(record, next) && self.is_well(next);
                let session = session(to).filter(|_| may_lead)?;
                let (epoch, primary) = (record.epoch + 1, to.0.to_vec());
                Some(ShardRecord { epoch, primary, primary_session: session.0, ..record.clone() })
            }
        }
    }
}

/// What nodes do.
impl World {
    /// The primaries of a share of the shards look after their in-sync sets, and nodes delete what is leaving.
    pub(super) fn nodes_act(&mut self, share: f64) {
        for id in self.shards.keys().copied().collect::<Vec<_>>() {
            if !self.random.random_bool(share) {
                continue;
            }
            let (before, _) = &self.shards[&id];
            let mut record = before.clone();
            record.replicas.retain(|replica| {
                replica.role() != ReplicaRole::Leaving || self.node_of(replica).session.is_none()
            });
            if self.is_led(&record) {
                self.evict(&mut record);
                self.admit(&mut record);
            }
            if record != *before {
                self.put(id, record);
            }
        }
    }

    fn evict(&self, record: &mut ShardRecord) {
        for replica in record.replicas.iter().filter(|replica| !self.is_well(replica)) {
            if record.isr.len() > record.min_isr as usize {
                record.isr.retain(|member| *member != replica.replica_id);
            }
        }
    }

    /// Takes in a copy that has caught up; in place of a member that is away if there are too few without it.
    fn admit(&self, record: &mut ShardRecord) {
        let may_join = |replica: &&Replica| {
            replica.role() != ReplicaRole::Leaving
                && !is_in_sync(record, replica)
                && self.is_well(replica)
                && self.node_of(replica).drain.is_none()
        };
        let Some(joins) = record.replicas.iter().find(may_join).map(|replica| replica.replica_id.clone())
        else {
            return;
        };
        let fails = |replica: &&Replica| is_in_sync(record, replica) && !self.is_well(replica);
        if let Some(failed) = record.replicas.iter().find(fails) {
            record.isr.retain(|member| *member != failed.replica_id);
        }
        let mut replicas = record.replicas.iter_mut();
        replicas
            .find(|replica| replica.replica_id == joins)
            .expect("found above")
            .set_role(ReplicaRole::Full);
        record.isr.push(joins);
    }
}

/// No two copies of a shard that stay are on one node, but for damaged ones.
fn check_places(record: &ShardRecord) {
    let stays = |replica: &&Replica| replica.role() != ReplicaRole::Leaving && !replica.damaged;
    let mut nodes: Vec<&str> =
        record.replicas.iter().filter(stays).map(|replica| replica.node_id.as_str()).collect();
    nodes.sort_unstable();
    assert!(nodes.windows(2).all(|pair| pair[0] != pair[1]), "{}", describe(record));
}

/// True when the copy is in sync, as the record says.
pub(super) fn is_in_sync(record: &ShardRecord, replica: &Replica) -> bool {
    record.isr.contains(&replica.replica_id)
}

/// A record in words: copies by node, `*` the primary, `+` in sync, `?` a learner, `x` leaving, `!` damaged, `>` what it
/// replaces.
pub(super) fn describe(record: &ShardRecord) -> String {
    let copies = record.replicas.iter().map(|replica| {
        let marks = [
            (record.primary == replica.replica_id, "*"),
            (is_in_sync(record, replica), "+"),
            (replica.role() == ReplicaRole::Learner, "?"),
            (replica.role() == ReplicaRole::Leaving, "x"),
            (replica.damaged, "!"),
        ];
        let marks: String = marks.into_iter().filter(|(is_so, _)| *is_so).map(|(_, mark)| mark).collect();
        let replaced = record.replicas.iter().find(|other| other.replica_id == replica.replaces);
        let replaced = replaced.map(|other| format!(">{}", other.node_id)).unwrap_or_default();
        format!("{}{marks}{replaced}", replica.node_id)
    });
    format!("{} (min {}, {})", copies.collect::<Vec<_>>().join(" "), record.min_isr, record.reason)
}

fn full_copy(node: &NodeId) -> Replica {
    Replica {
        replica_id: ReplicaId::random().0.to_vec(),
        node_id: node.to_string(),
        role: ReplicaRole::Full.into(),
        ..Replica::default()
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
        is_proven: false,
        primaries: 0,
    }
}

fn table(shape: Shape) -> meta::TableRecord {
    meta::TableRecord {
        table_id: TABLE.to_owned(),
        name: "docs".to_owned(),
        dimension: 4,
        metric: meta::Metric::L2.into(),
        index_type: "flat".to_owned(),
        shards: shape.shards,
        replicas: shape.replicas,
        min_isr: shape.min_isr,
        state: meta::TableState::Active.into(),
        shard_hash: 1,
        vector_type: "f32".to_owned(),
        rows: String::new(),
        metadata_indexes: Vec::new(),
        index_options: None,
        tenant_key: String::new(),
    }
}
