//! The metadata store of the world: one linearizable store with leases, transactions and watches, that is away at times.
//!
//! It does what etcd does to the keys that the data path uses, with the records that a cluster stores. Requests reach it by
//! the network, so they are lost, late, or answered too late, as any message. Its leases may end early or late.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use vectorsphere_proto::meta::ShardRecord;

use super::network::Place;
use super::time::Time;
use crate::cluster::view::Shard;
use crate::ids::{NodeId, ReplicaId, Revision, Session, ShardId};
use crate::replication::Change;
use crate::shard::configuration::{configuration_of, write_configuration};

/// A lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Lease(pub(super) u64);

/// What the store is asked.
#[derive(Clone, Debug)]
pub(super) enum Ask {
    /// A new lease.
    Grant(Duration),
    /// Prolongs a lease.
    KeepAlive(Lease),
    /// Ends a lease, and removes its keys.
    Revoke(Lease),
    /// The key of a node: its session, its lease, and the process that wrote it.
    Node(NodeId),
    /// Writes down that a disk was opened, unless a later opening of it is known: then the disk went back.
    OpenDisk { node: NodeId, opening: DiskOpening },
    /// Writes the key of a node under a lease, if it is absent.
    Register { node: NodeId, process: u64, lease: Lease },
    /// Writes a key of the election under a lease.
    Campaign { master: usize, lease: Lease },
    /// A shard's record.
    Shard(ShardId),
    /// Everything that changed behind this revision; answered when something has.
    Watch(Revision),
    /// A replica's change of its record.
    Change {
        /// Which shard.
        shard: ShardId,
        /// Who asks, in which session.
        by: (NodeId, Session),
        /// The record that was seen.
        compared: Revision,
        /// What to change.
        change: Change,
        /// Replicas that it counts on.
        guards: Vec<(ReplicaId, Session)>,
    },
    /// A node says that its copy is lost.
    MarkDamaged { shard: ShardId, replica: ReplicaId, by: (NodeId, Session) },
    /// A node has deleted its copy.
    Withdraw { shard: ShardId, replica: ReplicaId, by: (NodeId, Session) },
    /// A decision of the Master.
    Decide {
        /// Create-revision of its key.
        guard: Revision,
        /// What it writes.
        decision: Decision,
    },
}

/// What a Master writes.
#[derive(Clone, Debug)]
pub(super) enum Decision {
    /// A shard's record in place of the one that it saw.
    Record {
        /// Which shard.
        shard: ShardId,
        /// The record that was seen.
        compared: Revision,
        /// Its next content.
        record: Box<ShardRecord>,
        /// Sessions that it counts on.
        sessions: Vec<(NodeId, Session)>,
        /// Nodes that must not be drained.
        undrained: Vec<NodeId>,
    },
    /// Removes the key of a node that is lost.
    Expel(NodeId, Session),
    /// Ends a drain.
    EndDrain(NodeId),
}

/// The answer.
#[derive(Clone, Debug)]
pub(super) enum Told {
    /// Done, at this revision.
    Done(Revision),
    /// A condition did not hold.
    Failed,
    /// The lease, or that it was prolonged.
    Lease(Lease),
    /// There is no such lease.
    NoLease,
    /// The key of a node.
    Node(Option<NodeKey>),
    /// A shard's record.
    Shard(Option<Arc<Shard>>),
}

/// Keys that have changed, as they are now, and the revision up to which that is everything.
#[derive(Clone, Debug)]
pub(super) struct News {
    pub(super) revision: Revision,
    pub(super) shards: Vec<Arc<Shard>>,
    /// All nodes, drains and candidates: they are few.
    pub(super) nodes: BTreeMap<NodeId, Session>,
    pub(super) drains: Vec<NodeId>,
    /// Create-revision of its key, and which one.
    pub(super) master: Option<(Revision, usize)>,
}

/// The key of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct NodeKey {
    pub(super) session: Session,
    pub(super) process: u64,
    pub(super) lease: Lease,
}

/// A disk, how often it was opened, and the process that opened it last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct DiskOpening {
    pub(super) disk: u128,
    pub(super) opens: u64,
    pub(super) process: u64,
}

#[derive(Clone, Copy, Debug)]
struct LeaseState {
    ttl: Duration,
    until: Time,
    /// It ends so much later than it should.
    late: Duration,
}

/// Everything that is stored.
#[derive(Clone, Debug, Default)]
pub(super) struct Content {
    revision: Revision,
    shards: BTreeMap<ShardId, (ShardRecord, Arc<Shard>)>,
    nodes: BTreeMap<NodeId, NodeKey>,
    drains: BTreeMap<NodeId, Revision>,
    /// The last opening of each node's disk; no lease.
    disks: BTreeMap<NodeId, DiskOpening>,
    masters: BTreeMap<Revision, (usize, Lease)>,
}

/// The store.
#[derive(Debug, Default)]
pub(super) struct MetaStore {
    content: Content,
    leases: BTreeMap<Lease, LeaseState>,
    last_lease: u64,
    /// Leases that ended late.
    pub(super) late_ends: u64,
    /// Who waits for news, with what it knows.
    watches: Vec<(Place, u64, Revision)>,
    /// It does nothing before.
    pub(super) away_until: Time,
}

impl MetaStore {
    /// A shard that was just placed.
    pub(super) fn place(&mut self, shard: ShardId, record: ShardRecord) {
        let revision = self.content.next();
        self.content.put(shard, record, revision);
    }

    /// What is stored.
    pub(super) fn content(&self) -> &Content {
        &self.content
    }

    /// A node is to be emptied.
    pub(super) fn drain(&mut self, node: NodeId) {
        let revision = self.content.next();
        self.content.drains.insert(node, revision);
    }

    /// A node is not to be emptied any more.
    pub(super) fn end_drain(&mut self, node: &NodeId) {
        if self.content.drains.remove(node).is_some() {
            self.content.next();
        }
    }

    /// Somebody ends a node's lease too early.
    pub(super) fn end_lease_of(&mut self, node: &NodeId) -> bool {
        let lease = self.content.nodes.get(node).map(|key| key.lease);
        lease.is_some_and(|lease| self.revoke(lease))
    }

    /// A node's lease will end later than it should.
    pub(super) fn delay_lease_of(&mut self, node: &NodeId, late: Duration) -> bool {
        let lease = self.content.nodes.get(node).map(|key| key.lease);
        let state = lease.and_then(|lease| self.leases.get_mut(&lease));
        state.map(|state| state.late = late).is_some()
    }

    /// Leases end in time from now on.
    pub(super) fn delay_no_lease(&mut self) {
        self.leases.values_mut().for_each(|lease| lease.late = Duration::ZERO);
    }

    /// All leases begin anew, as after a change of its leader.
    pub(super) fn renew_leases(&mut self, now: Time) {
        self.leases.values_mut().for_each(|lease| lease.until = lease.until.max(now + lease.ttl));
    }

    /// Ends leases that are over. When the next one will be.
    pub(super) fn expire(&mut self, now: Time) -> Option<Time> {
        let is_over = |(_, state): &(&Lease, &LeaseState)| state.until + state.late <= now;
        let over: Vec<Lease> = self.leases.iter().filter(is_over).map(|(lease, _)| *lease).collect();
        self.late_ends += over.iter().filter(|lease| self.leases[lease].late > Duration::ZERO).count() as u64;
        over.into_iter().for_each(|lease| {
            self.revoke(lease);
        });
        self.leases.values().map(|state| state.until).min()
    }

    /// Those who wait for news that there are, with the number of their question.
    pub(super) fn take_news(&mut self) -> Vec<(Place, u64, News)> {
        let current = self.content.revision;
        let (ready, waiting) =
            std::mem::take(&mut self.watches).into_iter().partition(|watch| watch.2 < current);
        self.watches = waiting;
        let ready: Vec<(Place, u64, Revision)> = ready;
        ready.into_iter().map(|(place, number, known)| (place, number, self.content.news(known))).collect()
    }

    /// Answers a question; `None`: later.
    pub(super) fn answer(&mut self, from: Place, number: u64, ask: Ask, now: Time) -> Option<Told> {
        Some(match ask {
            Ask::Grant(ttl) => {
                self.last_lease += 1;
                let lease = Lease(self.last_lease);
                self.leases.insert(lease, LeaseState { ttl, until: now + ttl, late: Duration::ZERO });
                Told::Lease(lease)
            }
            Ask::KeepAlive(lease) => match self.leases.get_mut(&lease) {
                Some(state) => {
                    state.until = now + state.ttl;
                    Told::Lease(lease)
                }
                None => Told::NoLease,
            },
            Ask::Revoke(lease) => match self.revoke(lease) {
                true => Told::Done(self.content.revision),
                false => Told::NoLease,
            },
            Ask::Node(node) => Told::Node(self.content.nodes.get(&node).copied()),
            Ask::OpenDisk { node, opening } => told(self.content.open_disk(node, opening)),
            Ask::Shard(shard) => Told::Shard(self.content.shard(shard).cloned()),
            Ask::Watch(known) => {
                self.watches.retain(|(place, _, _)| *place != from);
                self.watches.push((from, number, known));
                return None;
            }
            Ask::Register { node, process, lease } => self.register(node, process, lease),
            Ask::Campaign { master, lease } => self.campaign(master, lease),
            Ask::Change { shard, by, compared, change, guards } => {
                told(self.content.change(shard, &by, compared, &change, &guards))
            }
            Ask::MarkDamaged { shard, replica, by } => told(self.content.mark_damaged(shard, replica, &by)),
            Ask::Withdraw { shard, replica, by } => told(self.content.withdraw(shard, replica, &by)),
            Ask::Decide { guard, decision } => {
                let is_master =
                    self.content.masters.first_key_value().is_some_and(|(first, _)| *first == guard);
                match (is_master, decision) {
                    (false, _) => Told::Failed,
                    (true, Decision::Expel(node, session)) => self.expel(&node, session),
                    (true, decision) => told(self.content.decide(decision)),
                }
            }
        })
    }

    fn register(&mut self, node: NodeId, process: u64, lease: Lease) -> Told {
        if !self.leases.contains_key(&lease) {
            return Told::NoLease;
        }
        if self.content.nodes.contains_key(&node) {
            return Told::Failed;
        }
        let revision = self.content.next();
        self.content.nodes.insert(node, NodeKey { session: Session(revision.0), process, lease });
        Told::Done(revision)
    }

    /// There is one key for each lease: one who campaigns again is told of the key that it has.
    fn campaign(&mut self, master: usize, lease: Lease) -> Told {
        if !self.leases.contains_key(&lease) {
            return Told::NoLease;
        }
        let held = self.content.masters.iter().find(|(_, (_, held))| *held == lease);
        if let Some((revision, _)) = held {
            return Told::Done(*revision);
        }
        let revision = self.content.next();
        self.content.masters.insert(revision, (master, lease));
        Told::Done(revision)
    }

    fn expel(&mut self, node: &NodeId, session: Session) -> Told {
        match self.content.nodes.get(node).filter(|key| key.session == session).map(|key| key.lease) {
            Some(lease) if self.revoke(lease) => Told::Done(self.content.revision),
            _ => Told::Failed,
        }
    }

    fn revoke(&mut self, lease: Lease) -> bool {
        if self.leases.remove(&lease).is_none() {
            return false;
        }
        self.content.next();
        self.content.nodes.retain(|_, key| key.lease != lease);
        self.content.masters.retain(|_, (_, held)| *held != lease);
        true
    }
}

fn told(outcome: Option<Revision>) -> Told {
    outcome.map_or(Told::Failed, Told::Done)
}

impl Content {
    /// The newest revision.
    pub(super) fn revision(&self) -> Revision {
        self.revision
    }

    /// A shard's record.
    pub(super) fn shard(&self, shard: ShardId) -> Option<&Arc<Shard>> {
        self.shards.get(&shard).map(|(_, parsed)| parsed)
    }

    /// A shard's record as it is stored.
    pub(super) fn record(&self, shard: ShardId) -> Option<&ShardRecord> {
        self.shards.get(&shard).map(|(record, _)| record)
    }

    /// All shards.
    pub(super) fn shards(&self) -> impl Iterator<Item = &Arc<Shard>> {
        self.shards.values().map(|(_, parsed)| parsed)
    }

    /// The session of a node.
    pub(super) fn session(&self, node: &NodeId) -> Option<Session> {
        self.nodes.get(node).map(|key| key.session)
    }

    /// True while a node is to be emptied.
    pub(super) fn is_drained(&self, node: &NodeId) -> bool {
        self.drains.contains_key(node)
    }

    fn open_disk(&mut self, node: NodeId, opening: DiskOpening) -> Option<Revision> {
        let is_later = |known: &DiskOpening| {
            known.disk == opening.disk && known.process != opening.process && known.opens >= opening.opens
        };
        if self.disks.get(&node).is_some_and(is_later) {
            return None;
        }
        self.disks.insert(node, opening);
        Some(self.next())
    }

    fn next(&mut self) -> Revision {
        self.revision = Revision(self.revision.0 + 1);
        self.revision
    }

    fn put(&mut self, shard: ShardId, record: ShardRecord, revision: Revision) {
        let parsed = Shard::from_record(shard, &record, revision).expect("records here are well-formed");
        self.shards.insert(shard, (record, Arc::new(parsed)));
    }

    fn news(&self, known: Revision) -> News {
        let changed = self.shards().filter(|shard| shard.mod_revision > known);
        News {
            revision: self.revision,
            shards: changed.cloned().collect(),
            nodes: self.nodes.iter().map(|(node, key)| (node.clone(), key.session)).collect(),
            drains: self.drains.keys().cloned().collect(),
            master: self.masters.first_key_value().map(|(created, (master, _))| (*created, *master)),
        }
    }

    fn is_session(&self, (node, session): &(NodeId, Session)) -> bool {
        self.session(node) == Some(*session)
    }

    fn change(
        &mut self,
        shard: ShardId,
        by: &(NodeId, Session),
        compared: Revision,
        change: &Change,
        guards: &[(ReplicaId, Session)],
    ) -> Option<Revision> {
        let (record, parsed) = self.shards.get(&shard)?;
        let holds = |(replica, session): &(ReplicaId, Session)| {
            let node = parsed.replica(*replica).map(|replica| replica.node.clone());
            node.is_some_and(|node| !self.is_drained(&node) && self.is_session(&(node, *session)))
        };
        if parsed.mod_revision != compared || !self.is_session(by) || !guards.iter().all(holds) {
            return None;
        }
        let after = configuration_of(parsed).with(change, Revision(self.revision.0 + 1));
        let record = write_configuration(record.clone(), &after, change);
        let revision = self.next();
        self.put(shard, record, revision);
        Some(revision)
    }

    fn mark_damaged(
        &mut self,
        shard: ShardId,
        replica: ReplicaId,
        by: &(NodeId, Session),
    ) -> Option<Revision> {
        self.edit(shard, by, |record| {
            let entry = record.replicas.iter_mut().find(|entry| entry.replica_id == replica.0)?;
            (!std::mem::replace(&mut entry.damaged, true)).then_some(())
        })
    }

    fn withdraw(&mut self, shard: ShardId, replica: ReplicaId, by: &(NodeId, Session)) -> Option<Revision> {
        self.edit(shard, by, |record| {
            record.replicas.retain(|entry| entry.replica_id != replica.0);
            record.isr.retain(|member| *member != replica.0);
            if record.primary == replica.0 {
                record.primary.clear();
                record.primary_session = 0;
            }
            Some(())
        })
    }

    fn edit(
        &mut self,
        shard: ShardId,
        by: &(NodeId, Session),
        edit: impl FnOnce(&mut ShardRecord) -> Option<()>,
    ) -> Option<Revision> {
        if !self.is_session(by) {
            return None;
        }
        let mut record = self.record(shard)?.clone();
        edit(&mut record)?;
        let revision = self.next();
        self.put(shard, record, revision);
        Some(revision)
    }

    fn decide(&mut self, decision: Decision) -> Option<Revision> {
        match decision {
            Decision::Record { shard, compared, record, sessions, undrained } => {
                let is_current = self.shard(shard)?.mod_revision == compared;
                let sessions_last = sessions.iter().all(|session| self.is_session(session));
                if !is_current || !sessions_last || undrained.iter().any(|node| self.is_drained(node)) {
                    return None;
                }
                let revision = self.next();
                self.put(shard, *record, revision);
                Some(revision)
            }
            Decision::EndDrain(node) => {
                self.drains.remove(&node)?;
                Some(self.next())
            }
            Decision::Expel(..) => None,
        }
    }
}
