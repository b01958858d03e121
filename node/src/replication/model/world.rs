//! A shard's replicas with everything around them that can go wrong, as one value.

use std::collections::BTreeSet;
use std::panic::AssertUnwindSafe;
use std::time::Duration;

use super::limits::{Limits, MAIL_MAX, RECORDS_MAX, STEP, TIMING};
use super::node::{Entry, Image, Node, Start};
use super::quiet;
use crate::ids::{Epoch, Lsn, ReplicaId, Revision, Session};
use crate::replication::{
    Change, Command, Configuration, Event, Member, Message, Now, Outcome, Rule, Standing,
};

/// Everything.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct World {
    /// Processes. Behind the first ones, one for each copy, those whose volume was taken away.
    pub(super) nodes: Vec<Node>,
    pub(super) record: Configuration,
    pub(super) mail: Vec<Mail>,
    pub(super) requests: Vec<Request>,
    pub(super) readers: Vec<Reader>,
    /// Nodes that are to give up their copies, and whether their volumes may be deleted.
    pub(super) drains: Vec<(usize, bool)>,
    /// What was acknowledged, in order of the log.
    pub(super) acknowledged: Vec<Entry>,
    /// Who led which reign.
    pub(super) reigns: BTreeSet<(Epoch, ReplicaId, Session)>,
    pub(super) time: u8,
    next_session: i64,
    next_id: u8,
    pub(super) happened: Happened,
    /// The first rule that was broken.
    pub(super) broken: Option<&'static str>,
}

/// How often things happened that are limited.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Happened {
    pub(super) writes: u8,
    pub(super) refusals: u8,
    pub(super) confirmations: u8,
    pub(super) elections: u8,
    pub(super) hand_overs: u8,
    pub(super) crashes: u8,
    pub(super) wipes: u8,
    pub(super) successors: u8,
}

/// A message on its way.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Mail {
    from: ReplicaId,
    pub(super) to: ReplicaId,
    message: Message,
    entries: Vec<Entry>,
}

/// A change of the record on its way.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Request {
    session: Session,
    number: u64,
    compared: Revision,
    change: Change,
    guards: Vec<(ReplicaId, Session)>,
    pub(super) timed_out: bool,
}

/// A reader that waits for a confirmation.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Reader {
    id: u64,
    session: Session,
    /// How much was acknowledged before it asked.
    acknowledged: usize,
    /// Of a refused write: what it was judged by.
    judged_by: Option<Lsn>,
}

/// What can happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Action {
    /// A client writes a batch.
    Write(usize),
    /// A client's write is refused for what the documents are.
    Refuse(usize),
    /// A reader asks for a confirmation.
    Confirm(usize),
    /// A message arrives; `again`: and stays on its way, to arrive once more.
    Deliver { mail: usize, node: usize, again: bool },
    /// Everything that a node has written is durable.
    Sync(usize),
    /// A process dies and is started again; `kept`: what it had written and not synced was on the disk already.
    Crash { node: usize, kept: bool },
    /// A node's disk is lost; its process is started again and knows nothing.
    Wipe(usize),
    /// A node's volume is taken away, and a process is started over it elsewhere.
    Succeed(usize),
    /// The Master gives a node that lost its disk a new copy.
    Replace(usize),
    /// A node is to give up its copy.
    Drain(usize),
    /// Somebody sees that a drained node's copy does not count any more.
    Inspect(usize),
    /// A drained node's volume is deleted.
    Discard(usize),
    /// The metadata store carries a change out; `answered`: whoever asked learns of it.
    Land { request: usize, answered: bool },
    /// Whoever asked gives up waiting; the change may be carried out later all the same.
    TimeOut(usize),
    /// A node learns what the record says.
    Watch(usize),
    /// The Master elects a copy in sync; `out`: the primary before leaves the set.
    Elect { node: usize, out: bool },
    /// Somebody wants another copy to lead.
    HandOver(usize),
    /// A node looks at its clock.
    Tick(usize),
    /// Time passes, everywhere.
    Time,
}

impl World {
    /// All copies in sync, the first one leads.
    pub(super) fn new(limits: &Limits) -> World {
        let ids: Vec<ReplicaId> = (1..=limits.copies as u8).map(id).collect();
        let record = Configuration {
            revision: Revision(1),
            epoch: Epoch(1),
            primary: Some(ids[0]),
            primary_session: Session(1),
            isr: ids.clone(),
            min_isr: limits.min_isr,
            members: ids.iter().map(|id| Member { id: *id, damaged: false }).collect(),
        };
        let mut world = World {
            nodes: Vec::new(),
            record,
            mail: Vec::new(),
            requests: Vec::new(),
            readers: Vec::new(),
            drains: Vec::new(),
            acknowledged: Vec::new(),
            reigns: BTreeSet::new(),
            time: 10,
            next_session: 1,
            next_id: limits.copies as u8 + 1,
            happened: Happened::default(),
            broken: None,
        };
        for id in ids {
            let node = world.start(id, Image::default(), true, limits);
            world.nodes.push(node);
        }
        for node in 0..limits.copies {
            world.tell_session(node, Duration::MAX);
            world.watch(node);
            world.sync(node);
        }
        world
    }

    fn start(&mut self, id: ReplicaId, image: Image, predecessor_ended: bool, limits: &Limits) -> Node {
        let session = Session(self.next_session);
        self.next_session += 1;
        Node::start(Start { id, session, image, predecessor_ended, rules: limits.rules, now: self.now() })
    }

    fn tell_session(&mut self, node: usize, until: Duration) {
        let session = self.nodes[node].session;
        self.step(node, Event::Session(Some((session, until))), &[]);
    }

    pub(super) fn now(&self) -> Now {
        Now::at(STEP * u32::from(self.time))
    }

    /// Lets one thing happen.
    pub(super) fn act(&mut self, action: Action, limits: &Limits) {
        match action {
            Action::Write(node) => self.write(node, limits.batch),
            Action::Refuse(node) => self.refuse(node, limits),
            Action::Confirm(node) => {
                self.happened.confirmations += 1;
                self.ask(node, None);
            }
            Action::Deliver { mail, node, again } => {
                let mail = if again { self.mail[mail].clone() } else { self.mail.remove(mail) };
                self.step(node, Event::Received(mail.from, mail.message), &mail.entries);
            }
            Action::Sync(node) => self.sync(node),
            Action::Crash { node, kept } => self.crash(node, kept, limits),
            Action::Wipe(node) => self.wipe(node, limits),
            Action::Succeed(node) => self.succeed(node, limits),
            Action::Replace(node) => self.replace(node),
            Action::Drain(node) => self.drains.push((node, false)),
            Action::Inspect(node) => self.drains.iter_mut().for_each(|drain| drain.1 |= drain.0 == node),
            Action::Discard(node) => self.discard(node, limits),
            Action::Land { request, answered } => self.land(request, answered, limits),
            Action::TimeOut(request) => {
                self.requests[request].timed_out = true;
                self.answer(&self.requests[request].clone(), Outcome::Unknown);
            }
            Action::Watch(node) => self.watch(node),
            Action::Elect { node, out } => self.elect(node, out),
            Action::HandOver(node) => {
                self.happened.hand_overs += 1;
                self.step(node, Event::HandOver(None), &[]);
            }
            Action::Tick(node) => self.step(node, Event::Tick, &[]),
            Action::Time => self.time += 1,
        }
        let excess = self.mail.len().saturating_sub(MAIL_MAX);
        self.mail.drain(..excess);
        self.check();
    }

    fn write(&mut self, index: usize, batch: u8) {
        let now = self.now();
        let node = &mut self.nodes[index];
        let epoch = node.core.admit(true, now).expect("only asked for when it is admitted");
        self.happened.writes += 1;
        for part in 1..=batch {
            let value = self.happened.writes;
            node.written.log.push(Entry { epoch, value, batch_end: part == batch });
        }
        let end = node.end();
        self.step(index, Event::Staged(epoch, vec![end]), &[]);
    }

    /// A refusal is a read: it is told when this copy is known to lead after what it was judged by is committed.
    fn refuse(&mut self, index: usize, limits: &Limits) {
        self.happened.refusals += 1;
        let judged_by = self.nodes[index].end();
        if limits.rules.hold(Rule::RefusalsAreReads) {
            return self.ask(index, Some(judged_by));
        }
        if (judged_by.0 as usize) < self.acknowledged.len() {
            self.broken.get_or_insert("R4: a refusal is stale");
        }
    }

    fn ask(&mut self, index: usize, judged_by: Option<Lsn>) {
        let node = &self.nodes[index];
        let id = u64::from(self.happened.confirmations) * 16 + u64::from(self.happened.refusals);
        let acknowledged = self.acknowledged.len();
        self.readers.push(Reader { id, session: node.session, acknowledged, judged_by });
        self.step(index, Event::Confirm(id), &[]);
    }

    fn sync(&mut self, index: usize) {
        let node = &mut self.nodes[index];
        node.durable.clone_from(&node.written);
        node.synced = node.core.last_ticket();
        let ticket = node.synced;
        self.step(index, Event::Durable(ticket, Lsn::MAX), &[]);
    }

    fn crash(&mut self, index: usize, kept: bool, limits: &Limits) {
        self.happened.crashes += 1;
        let node = &self.nodes[index];
        let image = if kept { node.written.clone() } else { node.durable.clone() };
        self.restart(index, node.id(), image, limits);
    }

    fn wipe(&mut self, index: usize, limits: &Limits) {
        self.happened.wipes += 1;
        let is_new = limits.rules.hold(Rule::IdentityIsNew);
        let fresh = if is_new { id(self.next_id) } else { self.nodes[index].id() };
        self.next_id += 1;
        self.restart(index, fresh, Image::default(), limits);
    }

    /// Ends a process and starts another one over this image of the disk.
    pub(super) fn restart(&mut self, index: usize, id: ReplicaId, image: Image, limits: &Limits) {
        let session = self.nodes[index].session;
        self.nodes[index] = self.start(id, image, true, limits);
        self.forget_questions(session);
        self.tell_session(index, Duration::MAX);
    }

    /// The process of this session waits for nothing any more.
    fn forget_questions(&mut self, session: Session) {
        let asked = self.requests.iter_mut().filter(|request| request.session == session);
        asked.for_each(|request| request.timed_out = true);
        self.readers.retain(|reader| reader.session != session);
    }

    /// The process before goes on: it renewed its session at the last moment, and may still be heard.
    fn succeed(&mut self, index: usize, limits: &Limits) {
        self.happened.successors += 1;
        let node = &self.nodes[index];
        let (id, image) = (node.id(), node.durable.clone());
        let successor = self.start(id, image, false, limits);
        let mut before = std::mem::replace(&mut self.nodes[index], successor);
        (before.is_registered, before.has_volume) = (false, false);
        self.nodes.push(before);
        let until = self.now().boot + TIMING.session;
        self.tell_session(self.nodes.len() - 1, until);
        self.tell_session(index, Duration::MAX);
    }

    fn replace(&mut self, index: usize) {
        let fresh = self.nodes[index].id();
        let ids: Vec<ReplicaId> = self.nodes.iter().map(Node::id).collect();
        let members = &mut self.record.members;
        members
            .iter_mut()
            .filter(|member| !ids.contains(&member.id))
            .for_each(|member| member.damaged = true);
        members.push(Member { id: fresh, damaged: false });
        self.record.revision.0 += 1;
    }

    /// The node is gone for good, with its disk.
    fn discard(&mut self, index: usize, limits: &Limits) {
        if self.record.is_in_sync(self.nodes[index].id()) {
            self.broken.get_or_insert("I11: a copy in sync is deleted");
        }
        let gone = id(self.next_id);
        self.next_id += 1;
        self.restart(index, gone, Image::default(), limits);
        let node = &mut self.nodes[index];
        (node.is_registered, node.has_volume) = (false, false);
    }

    fn elect(&mut self, index: usize, out: bool) {
        self.happened.elections += 1;
        let node = &self.nodes[index];
        let before = self.record.primary;
        let record = &mut self.record;
        (record.primary, record.primary_session) = (Some(node.id()), node.session);
        record.epoch.0 += 1;
        record.revision.0 += 1;
        if out {
            record.isr.retain(|id| Some(*id) != before);
        }
    }

    fn watch(&mut self, index: usize) {
        let record = self.record.clone();
        self.step(index, Event::Configured(record), &[]);
    }

    fn land(&mut self, request: usize, answered: bool, limits: &Limits) {
        let request = self.requests.remove(request);
        let is_registered =
            |session: Session| self.nodes.iter().any(|node| node.session == session && node.is_registered);
        let is_drained = |id: ReplicaId| {
            let drains = limits.rules.hold(Rule::DrainsAreCompared).then_some(&self.drains);
            drains.into_iter().flatten().any(|(node, _)| self.nodes[*node].id() == id)
        };
        let guards_hold =
            request.guards.iter().all(|(id, session)| is_registered(*session) && !is_drained(*id));
        let is_made =
            request.compared == self.record.revision && guards_hold && is_registered(request.session);
        let outcome = if is_made {
            let revision = Revision(self.record.revision.0 + 1);
            self.record = self.record.with(&request.change, revision);
            Outcome::Made(revision)
        } else {
            Outcome::NotMade
        };
        if !request.timed_out {
            self.answer(&request, if answered { outcome } else { Outcome::Unknown });
        }
    }

    fn answer(&mut self, request: &Request, outcome: Outcome) {
        if let Some(node) = self.nodes.iter().position(|node| node.session == request.session) {
            self.step(node, Event::Proposed(request.number, outcome), &[]);
        }
    }

    /// Lets a replica take an event and carries its commands out.
    fn step(&mut self, index: usize, event: Event, entries: &[Entry]) {
        let now = self.now();
        let mut commands = Vec::new();
        let core = &mut self.nodes[index].core;
        let outcome = quiet::catch(AssertUnwindSafe(|| core.step(event, now, &mut commands)));
        if outcome.is_err() {
            self.broken = Some("an assertion of the replica");
            return;
        }
        for command in commands {
            self.carry_out(index, command, entries);
        }
    }

    fn carry_out(&mut self, index: usize, command: Command, entries: &[Entry]) {
        match command {
            Command::Log(_, operation) => self.nodes[index].write(operation, entries),
            Command::Send(to, message) => self.send(index, to, message),
            Command::Commit(lsn) => self.committed(index, lsn),
            Command::Propose { number, compared, change, guards } => {
                let session = self.nodes[index].session;
                self.requests.push(Request { session, number, compared, change, guards, timed_out: false });
            }
            Command::Lead(epoch) => self.lead(index, epoch),
            Command::Confirmed(id, sees) => self.confirmed(index, id, sees),
            // It learns of the record sooner or later, and nothing else here asks for a snapshot.
            Command::Reload
            | Command::Resign(_)
            | Command::HandedOver(_)
            | Command::Fetch(_)
            | Command::Alarm(_) => {}
        }
    }

    fn lead(&mut self, index: usize, epoch: Epoch) {
        let (id, session) = (self.nodes[index].id(), self.nodes[index].session);
        if self.reigns.iter().any(|(led, by, within)| *led == epoch && (*by != id || *within != session)) {
            self.broken.get_or_insert("I1: two lead a reign");
        }
        self.reigns.insert((epoch, id, session));
    }

    fn confirmed(&mut self, index: usize, id: u64, sees: Option<Lsn>) {
        let session = self.nodes[index].session;
        let is_asked = |reader: &Reader| reader.id == id && reader.session == session;
        let Some(at) = self.readers.iter().position(is_asked) else { return };
        let Reader { acknowledged, judged_by, .. } = self.readers.remove(at);
        let Some(sees) = sees else { return };
        match judged_by {
            None if (sees.0 as usize) < acknowledged => {
                self.broken.get_or_insert("a confirmed read is stale");
            }
            // What is not committed yet is judged again: the client only waits longer.
            Some(judged_by) if judged_by <= sees && (judged_by.0 as usize) < acknowledged => {
                self.broken.get_or_insert("R4: a refusal is stale");
            }
            None | Some(_) => {}
        }
    }

    fn send(&mut self, index: usize, to: ReplicaId, message: Message) {
        let node = &self.nodes[index];
        let from = node.id();
        let mut message = message;
        let (mut entries, mut unsent) = (Vec::new(), None);
        if let Message::Append(append) = &mut message {
            let first = append.prev.lsn.0 as usize;
            let last = (append.last.0 as usize).min(first + RECORDS_MAX);
            entries.extend_from_slice(&node.written.log[first..last]);
            if (last as u64) < append.last.0 {
                unsent = Some(Lsn(last as u64 + 1));
                append.last = Lsn(last as u64);
                append.starts.retain(|(_, start)| *start <= append.last);
            }
        }
        let mail = Mail { from, to, message, entries };
        if !self.mail.contains(&mail) {
            self.mail.push(mail);
        }
        if let Some(unsent) = unsent {
            self.step(index, Event::Unsent(to, unsent), &[]);
        }
    }

    /// True when a node leads, as far as it knows.
    pub(super) fn leads(&self, index: usize) -> bool {
        matches!(self.nodes[index].core.standing(), Standing::Primary(_))
    }
}

pub(super) fn id(number: u8) -> ReplicaId {
    ReplicaId([number; 16])
}
