//! Candidates for mastership: the one whose key is the oldest decides, by the same pure functions as in a node.
//!
//! Two may believe to be it at the same time; each of its writes is guarded by its key.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use vectorsphere_proto::meta;

use super::meta_store::{Ask, Decision, Lease, Told};
use super::network::Place;
use super::node::View;
use super::settings::Settings;
use super::time::Time;
use super::trace::short;
use super::world::{Body, Event, Parcel, Report, World};
use crate::cluster::view::{ClusterView, Drain, Node, Shard};
use crate::coordinator::edits;
use crate::coordinator::plan::{self, Action, CandidateReport, Situation};
use crate::ids::{NodeId, ReplicaId, Revision, Session, ShardId};
use crate::table::Table;

/// Life of a Master's lease.
const MASTER_TTL: Duration = Duration::from_secs(5);
/// How often a candidate acts.
const TICK: Duration = Duration::from_millis(250);
/// An answer of the store that takes longer is given up.
const ANSWER_LIMIT: Duration = Duration::from_secs(2);
/// How long candidates for a shard have to say where they are.
const REPORT_LIMIT: Duration = Duration::from_millis(300);
/// A node that answers no probe for so long is lost.
const SUSPICION: Duration = Duration::from_secs(2);
/// After this time without its node a copy is made anew elsewhere.
const REREPLICATE_AFTER: Duration = Duration::from_secs(8);

/// A candidate.
pub(super) struct Master {
    index: usize,
    pub(super) stands_still: bool,
    pub(super) backlog: Vec<Event>,
    lease: Option<Lease>,
    /// Create-revision of its key.
    key: Option<Revision>,
    /// Its lease is not to be counted on any longer then. Its clock is the world's: nothing rests on it.
    until: Time,
    beat: Time,
    view: View,
    asked: BTreeMap<u64, Purpose>,
    /// When each node answered last, in this session.
    alive: BTreeMap<(NodeId, Session), Time>,
    gone_since: BTreeMap<NodeId, Duration>,
    elections: BTreeMap<ShardId, Election>,
    /// Shards for which a step is under way.
    busy: BTreeSet<ShardId>,
}

/// What it asked for.
#[derive(Clone, Debug)]
enum Purpose {
    Lease,
    Campaign,
    KeepAlive,
    Watch,
    Probe((NodeId, Session)),
    Decide(Option<ShardId>),
    Describe(ShardId),
    HandOver(ShardId),
}

/// Candidates are saying where they are.
#[derive(Debug)]
struct Election {
    shard: Arc<Shard>,
    lost: Vec<ReplicaId>,
    asked: BTreeSet<u64>,
    reports: Vec<Report>,
}

impl Master {
    /// One that knows nothing yet.
    pub(super) fn new(index: usize) -> Master {
        Master {
            index,
            stands_still: false,
            backlog: Vec::new(),
            lease: None,
            key: None,
            until: Time(0),
            beat: Time(0),
            view: View::default(),
            asked: BTreeMap::new(),
            alive: BTreeMap::new(),
            gone_since: BTreeMap::new(),
            elections: BTreeMap::new(),
            busy: BTreeSet::new(),
        }
    }

    /// Its key, while it believes to be the Master.
    fn guard(&self, now: Time) -> Option<Revision> {
        let leads = self.view.master.is_some_and(|(first, _)| Some(first) == self.key);
        self.key.filter(|_| leads && now < self.until)
    }

    /// Where it stands, for people.
    pub(super) fn describe(&self, now: Time) -> String {
        let Master { index, key, asked, busy, elections, view, .. } = self;
        let (leads, at) = (self.guard(now).is_some(), view.revision.0);
        format!(
            "m{index} leads {leads}, key {key:?} of {:?}, at {at}, asks {asked:?}, {busy:?}, {elections:?}",
            view.master
        )
    }

    fn suspects(&self, now: Time) -> BTreeSet<NodeId> {
        let heard = |(node, session): (&NodeId, &Session)| self.alive.get(&(node.clone(), *session)).copied();
        let is_silent =
            |node: &(&NodeId, &Session)| heard(*node).is_some_and(|heard| now > heard + SUSPICION);
        self.view.nodes.iter().filter(is_silent).map(|(node, _)| node.clone()).collect()
    }

    /// What the planner sees.
    fn cluster(&self, settings: &Settings) -> ClusterView {
        let table = settings.table();
        let node = |(id, session): (&NodeId, &Session)| {
            let node = Node {
                id: id.clone(),
                session: *session,
                node_type: "slave".to_owned(),
                endpoints: Vec::new(),
                version: String::new(),
                zone: String::new(),
                capacity_bytes: 0,
            };
            (id.clone(), Arc::new(node))
        };
        let drain = |id: &NodeId| {
            let drain = Drain {
                requested_unix_ms: 0,
                expires_unix_ms: None,
                reason: String::new(),
                mod_revision: Revision(1),
            };
            (id.clone(), drain)
        };
        ClusterView {
            revision: self.view.revision,
            nodes: self.view.nodes.iter().map(node).collect(),
            tables_by_id: BTreeMap::from([(table.id, Arc::new(table))]),
            shards: self.view.shards.clone(),
            drains: self.view.drains.iter().map(drain).collect(),
            ..ClusterView::default()
        }
    }
}

impl World {
    /// A candidate acts.
    pub(super) fn govern(&mut self, master: usize) {
        self.keep_mastership(master);
        if self.masters[master].guard(self.time).is_some() {
            self.probe(master);
            self.decide(master);
        }
        self.schedule.at(self.time + TICK, Event::Govern(master));
    }

    fn ask_as_master(
        &mut self,
        master: usize,
        to: Place,
        limit: Duration,
        purpose: Purpose,
        body: impl FnOnce(u64) -> Body,
    ) -> u64 {
        let number = self.ask(Place::Master(master), to, limit, body);
        self.masters[master].asked.insert(number, purpose);
        number
    }

    fn ask_store_as_master(&mut self, master: usize, purpose: Purpose, ask: Ask) {
        let body = |number| Body::Ask(number, Box::new(ask));
        self.ask_as_master(master, Place::Store, ANSWER_LIMIT, purpose, body);
    }

    fn keep_mastership(&mut self, master: usize) {
        let candidate = &self.masters[master];
        if self.time < candidate.beat {
            return;
        }
        let is_campaigning =
            candidate.asked.values().any(|asked| matches!(asked, Purpose::Lease | Purpose::Campaign));
        let (purpose, ask) = match (candidate.lease, candidate.key) {
            _ if is_campaigning => return,
            (None, _) => (Purpose::Lease, Ask::Grant(MASTER_TTL)),
            (Some(lease), None) => (Purpose::Campaign, Ask::Campaign { master, lease }),
            (Some(lease), Some(_)) => (Purpose::KeepAlive, Ask::KeepAlive(lease)),
        };
        self.masters[master].beat = self.time + MASTER_TTL / 5;
        self.ask_store_as_master(master, purpose, ask);
        if !self.masters[master].asked.values().any(|asked| matches!(asked, Purpose::Watch)) {
            let known = self.masters[master].view.revision;
            self.ask_store_as_master(master, Purpose::Watch, Ask::Watch(known));
        }
    }

    fn probe(&mut self, master: usize) {
        let candidate = &mut self.masters[master];
        let nodes: Vec<(NodeId, Session)> =
            candidate.view.nodes.iter().map(|(node, session)| (node.clone(), *session)).collect();
        candidate.alive.retain(|node, _| nodes.contains(node));
        for node in nodes {
            let to = Place::Node(self.index_of(&node.0));
            self.masters[master].alive.entry(node.clone()).or_insert(self.time);
            self.ask_as_master(master, to, ANSWER_LIMIT, Purpose::Probe(node), Body::Probe);
        }
    }

    /// Names lost nodes, and takes the next steps.
    fn decide(&mut self, master: usize) {
        let now = self.time.since(Time(0));
        let suspects = self.masters[master].suspects(self.time);
        for node in &suspects {
            let session = self.masters[master].view.nodes[node];
            self.tell(|| format!("m{master} expels {node}"));
            self.write_as_master(master, None, Decision::Expel(node.clone(), session));
            // It is not expelled again before it had a chance.
            self.masters[master].alive.insert((node.clone(), session), self.time);
        }
        let view = self.masters[master].cluster(&self.settings);
        let candidate = &mut self.masters[master];
        let holders =
            view.shards.values().flat_map(|shard| shard.replicas.iter().map(|replica| &replica.node));
        let gone: BTreeSet<&NodeId> = holders.filter(|node| !view.nodes.contains_key(node)).collect();
        candidate.gone_since.retain(|node, _| gone.contains(node));
        for node in gone {
            candidate.gone_since.entry(node.clone()).or_insert(now);
        }
        let situation = Situation {
            view: &view,
            now,
            gone_since: &candidate.gone_since,
            suspects: &suspects,
            unfit: &BTreeSet::new(),
            unix_ms: now.as_millis() as u64,
        };
        let settings = plan::Settings { rereplicate_after: REREPLICATE_AFTER, ..plan::Settings::default() };
        let actions = plan::plan(&situation, &settings);
        if !actions.is_empty() {
            self.tell(|| format!("m{master} plans {actions:?}"));
        }
        for action in actions {
            self.take_step(master, action);
        }
    }

    fn take_step(&mut self, master: usize, action: Action) {
        type Edit<'a> = &'a dyn Fn(&meta::ShardRecord, ReplicaId) -> meta::ShardRecord;
        let (shard, step): (ShardId, Edit<'_>) = match &action {
            Action::EndDrain { node } => {
                return self.write_as_master(master, None, Decision::EndDrain(node.clone()));
            }
            Action::Elect { shard, lost } => return self.begin_election(master, *shard, lost),
            Action::HandOver { shard, to } => return self.ask_for_hand_over(master, *shard, *to),
            Action::Add { shard, node, replaces } => {
                (*shard, &|record, fresh| edits::with_learner(record, fresh, node, *replaces))
            }
            Action::Retire { shard, replica } => (*shard, &|record, _| edits::with_leaving(record, *replica)),
            Action::Withdraw { shard, replica } => (*shard, &|record, _| edits::without(record, *replica)),
        };
        let Some(seen) = self.masters[master].view.shards.get(&shard).cloned() else { return };
        let Some(record) = self.record_as_seen(&seen) else { return };
        let fresh = ReplicaId(self.random.bytes());
        let record = Box::new(step(&record, fresh));
        let (sessions, undrained) = match &action {
            Action::Add { node, .. } => {
                let session = self.masters[master].view.nodes.get(node).copied();
                (session.map(|session| (node.clone(), session)).into_iter().collect(), vec![node.clone()])
            }
            _ => (Vec::new(), Vec::new()),
        };
        self.took_effect(name_of(&action));
        let decision = Decision::Record { shard, compared: seen.mod_revision, record, sessions, undrained };
        self.write_as_master(master, Some(shard), decision);
    }

    /// The stored record, if it is still the one that was seen.
    fn record_as_seen(&self, seen: &Shard) -> Option<meta::ShardRecord> {
        let current = self.store.content().shard(seen.id)?;
        (current.mod_revision == seen.mod_revision)
            .then(|| self.store.content().record(seen.id).cloned())
            .flatten()
    }

    fn write_as_master(&mut self, master: usize, shard: Option<ShardId>, decision: Decision) {
        let candidate = &mut self.masters[master];
        let Some(guard) = candidate.guard(self.time) else { return };
        if shard.is_some_and(|shard| !candidate.busy.insert(shard)) {
            return;
        }
        self.ask_store_as_master(master, Purpose::Decide(shard), Ask::Decide { guard, decision });
    }

    fn ask_for_hand_over(&mut self, master: usize, shard: ShardId, to: ReplicaId) {
        let Some(seen) = self.masters[master].view.shards.get(&shard).cloned() else { return };
        let Some(node) = seen.primary_node() else { return };
        if !self.masters[master].busy.insert(shard) {
            return;
        }
        let place = Place::Node(self.index_of(node));
        let body = |number| Body::HandOver(number, shard, Some(to));
        self.ask_as_master(master, place, ANSWER_LIMIT * 2, Purpose::HandOver(shard), body);
    }

    fn begin_election(&mut self, master: usize, shard: ShardId, lost: &[ReplicaId]) {
        let candidate = &self.masters[master];
        let Some(seen) = candidate.view.shards.get(&shard).cloned() else { return };
        if candidate.elections.contains_key(&shard) || candidate.busy.contains(&shard) {
            return;
        }
        let in_sync = seen.staying().filter(|replica| seen.is_in_sync(replica.id) && !replica.damaged);
        let nodes: Vec<NodeId> = in_sync.map(|replica| replica.node.clone()).collect();
        let mut asked = BTreeSet::new();
        for node in nodes {
            let to = Place::Node(self.index_of(&node));
            let body = |number| Body::Describe(number, shard);
            asked.insert(self.ask_as_master(master, to, REPORT_LIMIT, Purpose::Describe(shard), body));
        }
        let election = Election { shard: seen, lost: lost.to_vec(), asked, reports: Vec::new() };
        self.masters[master].elections.insert(shard, election);
    }

    fn reported(&mut self, master: usize, question: u64, shard: ShardId, report: Option<Report>) {
        let Some(election) = self.masters[master].elections.get_mut(&shard) else { return };
        if !election.asked.remove(&question) {
            return;
        }
        election.reports.extend(report);
        if election.asked.is_empty() {
            let election = self.masters[master].elections.remove(&shard).expect("it is there");
            self.end_election(master, &election);
        }
    }

    fn end_election(&mut self, master: usize, election: &Election) {
        let Election { shard, lost, reports, .. } = election;
        let report = |report: &Report| CandidateReport {
            replica: report.replica,
            last_epoch: report.last.epoch,
            flushed: report.last.lsn,
            commit: report.commit,
            is_damaged: false,
            tail_was_cut: report.tail_was_cut,
            is_proven: report.is_proven,
            primaries: 0,
        };
        let reports: Vec<CandidateReport> = reports.iter().map(report).collect();
        self.tell(|| format!("m{master} elects in {} by {}", shard.id.index, text_of_reports(&reports)));
        let Some(elected) = plan::elect(shard, &reports, lost) else { return };
        let Some(record) = self.record_as_seen(shard) else { return };
        let node = &shard.replica(elected).expect("it is in the record").node;
        let Some(session) = self.masters[master].view.nodes.get(node).copied() else { return };
        let decision = Decision::Record {
            shard: shard.id,
            compared: shard.mod_revision,
            record: Box::new(edits::with_primary(&record, elected, session)),
            sessions: vec![(node.clone(), session)],
            undrained: Vec::new(),
        };
        self.took_effect("election");
        self.write_as_master(master, Some(shard.id), decision);
    }

    /// A message arrives at a candidate.
    pub(super) fn arrive_at_master(&mut self, master: usize, parcel: Parcel) {
        let question = match &parcel.body {
            Body::Told(question, _)
            | Body::News(question, _)
            | Body::Alive(question)
            | Body::Described(question, _)
            | Body::HandedOver(question) => *question,
            _ => return,
        };
        let Some(purpose) = self.masters[master].asked.remove(&question) else { return };
        match (purpose, parcel.body) {
            (Purpose::Probe(node), Body::Alive(_)) => {
                self.masters[master].alive.insert(node, self.time);
            }
            (Purpose::Describe(shard), Body::Described(_, report)) => {
                self.reported(master, question, shard, report);
            }
            (Purpose::HandOver(shard), _) | (Purpose::Decide(Some(shard)), _) => {
                self.masters[master].busy.remove(&shard);
            }
            (Purpose::Watch, Body::News(_, news)) => {
                self.masters[master].view.take(*news);
                let known = self.masters[master].view.revision;
                self.ask_store_as_master(master, Purpose::Watch, Ask::Watch(known));
            }
            (purpose, Body::Told(_, told)) => self.master_told(master, &purpose, &told),
            _ => {}
        }
    }

    fn master_told(&mut self, master: usize, purpose: &Purpose, told: &Told) {
        let now = self.time;
        let candidate = &mut self.masters[master];
        match (purpose, told) {
            (Purpose::Lease, Told::Lease(lease)) => (candidate.lease, candidate.beat) = (Some(*lease), now),
            (Purpose::Campaign, Told::Done(revision)) => {
                (candidate.key, candidate.until) = (Some(*revision), now + MASTER_TTL / 2);
            }
            (Purpose::KeepAlive, Told::Lease(_)) => candidate.until = now + MASTER_TTL / 2,
            (Purpose::KeepAlive | Purpose::Campaign, Told::NoLease) => {
                (candidate.lease, candidate.key) = (None, None);
            }
            _ => {}
        }
    }

    /// Nobody answered a candidate in time.
    pub(super) fn master_timed_out(&mut self, master: usize, question: u64) {
        match self.masters[master].asked.remove(&question) {
            Some(Purpose::Describe(shard)) => self.reported(master, question, shard, None),
            Some(Purpose::HandOver(shard) | Purpose::Decide(Some(shard))) => {
                self.masters[master].busy.remove(&shard);
            }
            Some(Purpose::Watch) => {
                let known = self.masters[master].view.revision;
                self.ask_store_as_master(master, Purpose::Watch, Ask::Watch(known));
            }
            _ => {}
        }
    }
}

impl Settings {
    /// The table of all shards.
    pub(super) fn table(&self) -> Table {
        let record = meta::TableRecord {
            table_id: self.shards()[0].table.to_string(),
            name: "docs".to_owned(),
            dimension: super::settings::DIMENSION,
            metric: meta::Metric::L2.into(),
            index_type: "flat".to_owned(),
            shards: self.shard_count,
            replicas: self.replicas as u32,
            min_isr: self.min_isr,
            state: meta::TableState::Active.into(),
            shard_hash: 1,
            vector_type: "f32".to_owned(),
            rows: String::new(),
            metadata_indexes: Vec::new(),
            index_options: None,
            tenant_key: String::new(),
        };
        Table::from_record(&record).expect("a valid table")
    }
}

fn text_of_reports(reports: &[CandidateReport]) -> String {
    let text = |report: &CandidateReport| {
        let CandidateReport { replica, last_epoch, flushed, commit, tail_was_cut, is_proven, .. } = report;
        let marks =
            [(*tail_was_cut, " cut"), (*is_proven, " proven")].map(|(is, mark)| if is { mark } else { "" });
        format!("{} at {last_epoch}/{flushed}, {commit} committed{}", short(*replica), marks.concat())
    };
    reports.iter().map(text).collect::<Vec<String>>().join("; ")
}

fn name_of(action: &Action) -> &'static str {
    match action {
        Action::Add { .. } => "copy added",
        Action::Retire { .. } => "copy retired",
        Action::Withdraw { .. } => "copy withdrawn",
        Action::Elect { .. } | Action::HandOver { .. } | Action::EndDrain { .. } => "decision",
    }
}
