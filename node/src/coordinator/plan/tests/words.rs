//! A cluster in a few words, and what [`plan`] says of it in a few words.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use crate::cluster::view::{ClusterView, Drain, Node, Replica, ReplicaRole, Shard};
use crate::coordinator::plan::{Action, Settings, Situation, plan};
use crate::ids::{Epoch, NodeId, ReplicaId, Revision, Session, ShardId, ShardIndex, TableId, TableName};
use crate::table::{IndexKind, Metric, Table, TableSchema, TableState};

pub(super) const UNIX_MS: u64 = 1_800_000_000_000;
const MINUTE: Duration = Duration::from_secs(60);
const NOW: Duration = Duration::from_secs(100_000);

/// A cluster with one table.
pub(super) struct Cluster {
    pub(super) view: ClusterView,
    pub(super) gone_since: BTreeMap<NodeId, Duration>,
    pub(super) suspects: BTreeSet<NodeId>,
    pub(super) unfit: BTreeSet<NodeId>,
    pub(super) settings: Settings,
}

impl Cluster {
    /// Nodes have names of one letter, a slash and a zone may follow: `a b/west`.
    ///
    /// A shard is a list of copies, each a node's name with marks: `*` the primary, `^` the primary in an older session of
    /// its node, `-` out of sync, `?` a learner, `x` leaving, `!` damaged, `>b` in place of the copy on `b`. All else is in
    /// sync. A digit behind the name tells a second copy on the node from the first.
    pub(super) fn new(nodes: &str, replicas: u32, shards: &[&str]) -> Cluster {
        let mut view = ClusterView::default();
        for word in nodes.split_whitespace() {
            let (name, zone) = word.split_once('/').unwrap_or((word, ""));
            let node = Node {
                id: node(name),
                session: session(name),
                node_type: "slave".to_owned(),
                endpoints: Vec::new(),
                version: String::new(),
                zone: zone.to_owned(),
                capacity_bytes: 0,
            };
            view.nodes.insert(node.id.clone(), Arc::new(node));
        }
        let schema = TableSchema {
            name: TableName::parse("docs").expect("valid"),
            dimension: 4,
            storage_type: Default::default(),
            rows: Default::default(),
            metric: Metric::L2,
            index: IndexKind::Flat,
            shards: shards.len() as u32,
            replicas,
            min_isr: 1,
            metadata_indexes: Default::default(),
            unknown_indexes: Default::default(),
            tenant_key: None,
        };
        let table = Table { id: table_id(), schema, state: TableState::Active };
        view.tables_by_id.insert(table.id, Arc::new(table));
        for (index, copies) in shards.iter().enumerate() {
            let shard = shard(index as u32, copies);
            view.shards.insert(shard.id, Arc::new(shard));
        }
        let (suspects, unfit) = (BTreeSet::new(), BTreeSet::new());
        Cluster { view, gone_since: BTreeMap::new(), suspects, unfit, settings: Settings::default() }
    }

    pub(super) fn gone(mut self, name: &str, minutes: u32) -> Cluster {
        self.view.nodes.remove(&node(name));
        self.gone_since.insert(node(name), NOW - MINUTE * minutes);
        self
    }

    pub(super) fn suspect(mut self, name: &str) -> Cluster {
        self.suspects.insert(node(name));
        self
    }

    pub(super) fn unfit(mut self, name: &str) -> Cluster {
        self.unfit.insert(node(name));
        self
    }

    pub(super) fn draining(self, name: &str) -> Cluster {
        self.drained_until(name, None)
    }

    pub(super) fn drained_until(mut self, name: &str, expires_unix_ms: Option<u64>) -> Cluster {
        let drain =
            Drain { requested_unix_ms: 1, expires_unix_ms, reason: String::new(), mod_revision: Revision(1) };
        self.view.drains.insert(node(name), drain);
        self
    }

    pub(super) fn in_state(mut self, state: TableState) -> Cluster {
        let table = Table::clone(&self.view.tables_by_id[&table_id()]);
        self.view.tables_by_id.insert(table_id(), Arc::new(Table { state, ..table }));
        self
    }

    pub(super) fn with(mut self, settings: Settings) -> Cluster {
        self.settings = settings;
        self
    }

    /// The steps: `elect 0`, `elect 0 without a` (which is lost), `add 0 c for b`, `retire 0 b`, `hand over 0 b`, `withdraw 0 b`, `end drain a`.
    pub(super) fn plan(&self) -> Vec<String> {
        let situation = Situation {
            view: &self.view,
            now: NOW,
            gone_since: &self.gone_since,
            suspects: &self.suspects,
            unfit: &self.unfit,
            unix_ms: UNIX_MS,
        };
        plan(&situation, &self.settings).iter().map(describe).collect()
    }
}

fn describe(action: &Action) -> String {
    match action {
        Action::Elect { shard, lost } if lost.is_empty() => format!("elect {}", shard.index),
        Action::Elect { shard, lost } => {
            let lost: Vec<String> = lost.iter().map(|lost| name_of(*lost)).collect();
            format!("elect {} without {}", shard.index, lost.join(" "))
        }
        Action::Add { shard, node, replaces: None } => format!("add {} {node}", shard.index),
        Action::Add { shard, node, replaces: Some(replaced) } => {
            format!("add {} {node} for {}", shard.index, name_of(*replaced))
        }
        Action::Retire { shard, replica } => format!("retire {} {}", shard.index, name_of(*replica)),
        Action::HandOver { shard, to } => format!("hand over {} {}", shard.index, name_of(*to)),
        Action::Withdraw { shard, replica } => format!("withdraw {} {}", shard.index, name_of(*replica)),
        Action::EndDrain { node } => format!("end drain {node}"),
    }
}

pub(super) fn node(name: &str) -> NodeId {
    NodeId::parse(name).expect("valid")
}

fn session(name: &str) -> Session {
    Session(i64::from(name.as_bytes()[0]))
}

fn table_id() -> TableId {
    TableId::parse(&"0".repeat(32)).expect("a UUID")
}

/// The copy on node `a` is `a`, a second one `a2`.
pub(super) fn replica_id(name: &str) -> ReplicaId {
    let mut id = [0; 16];
    id[..name.len()].copy_from_slice(name.as_bytes());
    ReplicaId(id)
}

pub(super) fn name_of(id: ReplicaId) -> String {
    id.0.iter().take_while(|byte| **byte != 0).map(|byte| char::from(*byte)).collect()
}

pub(super) fn shard(index: u32, copies: &str) -> Shard {
    let mut shard = Shard {
        id: ShardId { table: table_id(), index: ShardIndex(index) },
        epoch: Epoch(3),
        primary: None,
        primary_session: Session(0),
        replicas: Vec::new(),
        isr: Vec::new(),
        min_isr: 1,
        incarnation: 0,
        mod_revision: Revision(1),
    };
    for word in copies.split_whitespace() {
        let (word, replaces) = word.split_once('>').map_or((word, None), |(word, name)| (word, Some(name)));
        let name = word.trim_end_matches(['*', '^', '-', '?', 'x', '!']);
        let marks = &word[name.len()..];
        let (id, home) = (replica_id(name), &name[..1]);
        let role = match marks {
            marks if marks.contains('?') => ReplicaRole::Learner,
            marks if marks.contains('x') => ReplicaRole::Leaving,
            _ => ReplicaRole::Full,
        };
        if role == ReplicaRole::Full && !marks.contains('-') {
            shard.isr.push(id);
        }
        if marks.contains(['*', '^']) {
            shard.primary = Some(id);
            shard.primary_session = if marks.contains('^') { Session(1) } else { session(home) };
        }
        shard.replicas.push(Replica {
            id,
            node: node(home),
            role,
            damaged: marks.contains('!'),
            replaces: replaces.map(replica_id),
        });
    }
    shard
}
