//! A shard's replicas with everything around them that can go wrong, as one value.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use crate::ids::{Epoch, Lsn, ReplicaId, Revision, Session};
use crate::replication::{
    Change, Command, Configuration, EpochHistory, EtcdPolicy, Event, LogOperation, LogShape, Member, Message,
    Now, Opening, Outcome, Replica, Rules, Standing, Ticket, Timing,
};

/// Records of one message: the rest of a longer one stays behind, as when a connection is full.
const RECORDS_MAX: usize = 3;

/// One step of the model's clock.
const STEP: Duration = Duration::from_secs(1);

/// Intervals in steps of the clock: few, so that few states differ by time alone.
const TIMING: Timing = Timing {
    promise: Duration::from_secs(2),
    grant: Duration::from_secs(2),
    beacon: Duration::from_secs(1),
    silent: Duration::from_secs(3),
    slow: Duration::from_secs(4),
    resend: Duration::from_secs(1),
    propose_again: Duration::from_secs(1),
    hand_over: Duration::from_secs(4),
    readmission_min: Duration::from_secs(1),
    readmission_max: Duration::from_secs(2),
    flapping: Duration::from_secs(2),
    session: Duration::from_secs(3),
};

/// How large a world is.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    pub(super) rules: Rules,
    pub(super) copies: usize,
    pub(super) min_isr: usize,
    pub(super) writes: u8,
    pub(super) elections: u8,
    pub(super) crashes: u8,
    pub(super) wipes: u8,
    pub(super) hand_overs: u8,
    pub(super) confirmations: u8,
    /// Records of one batch.
    pub(super) batch: u8,
    pub(super) time_max: u8,
    /// More messages on their way push the oldest out.
    pub(super) mail_max: usize,
}

impl Limits {
    /// Three copies, of which two are needed.
    pub(super) const fn of_three(rules: Rules) -> Limits {
        Limits {
            rules,
            copies: 3,
            min_isr: 2,
            writes: 3,
            elections: 3,
            crashes: 1,
            wipes: 1,
            hand_overs: 1,
            confirmations: 2,
            batch: 1,
            time_max: 16,
            mail_max: 6,
        }
    }

    /// Two copies, of which one is needed.
    pub(super) const fn of_two(rules: Rules) -> Limits {
        Limits { copies: 2, min_isr: 1, wipes: 0, mail_max: 5, ..Limits::of_three(rules) }
    }
}

/// A record of a log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Entry {
    epoch: Epoch,
    /// 0: the record that begins a reign.
    value: u8,
    batch_end: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Node {
    pub(super) core: Replica,
    session: Session,
    log: Vec<Entry>,
    /// What a crash leaves.
    durable: Vec<Entry>,
    /// The promise that was handed to the disk, and the one that a crash leaves.
    promise: Epoch,
    durable_promise: Epoch,
    /// Everything handed to the log up to here is durable.
    synced: Ticket,
}

/// A message on its way.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Mail {
    from: ReplicaId,
    to: ReplicaId,
    message: Message,
    entries: Vec<Entry>,
}

/// A change of the record on its way.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Request {
    node: usize,
    session: Session,
    number: u64,
    compared: Revision,
    change: Change,
    guards: Vec<(ReplicaId, Session)>,
    timed_out: bool,
}

/// A reader that waits for a confirmation.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Reader {
    id: u64,
    node: usize,
    session: Session,
    /// What was acknowledged before it asked.
    acknowledged: usize,
}

/// Everything.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct World {
    pub(super) nodes: Vec<Node>,
    pub(super) record: Configuration,
    pub(super) mail: Vec<Mail>,
    pub(super) requests: Vec<Request>,
    readers: Vec<Reader>,
    /// What was acknowledged, in order of the log.
    acknowledged: Vec<Entry>,
    /// Who led which reign.
    reigns: Vec<(Epoch, ReplicaId, Session)>,
    pub(super) time: u8,
    next_session: i64,
    next_id: u8,
    pub(super) writes: u8,
    pub(super) elections: u8,
    pub(super) crashes: u8,
    pub(super) wipes: u8,
    pub(super) hand_overs: u8,
    pub(super) confirmations: u8,
    /// The first rule that was broken.
    pub(super) broken: Option<&'static str>,
}

/// What can happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Action {
    /// A client writes a batch.
    Write(usize),
    /// A message arrives; `again`: and stays on its way, to arrive once more.
    Deliver { mail: usize, again: bool },
    /// Everything that a node has written is durable.
    Sync(usize),
    /// A process dies and is started again; `kept`: what it had written and not synced was on the disk already.
    Crash { node: usize, kept: bool },
    /// A node's disk is lost; its process is started again and knows nothing.
    Wipe(usize),
    /// The Master gives a node that lost its disk a new copy.
    Replace(usize),
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
    /// A reader asks for a confirmation.
    Confirm(usize),
    /// A node looks at its clock.
    Tick(usize),
    /// Time passes, everywhere.
    Time,
}

impl World {
    pub(super) fn new(limits: &Limits) -> World {
        let ids: Vec<ReplicaId> = (0..limits.copies).map(|index| id(index as u8 + 1)).collect();
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
            acknowledged: Vec::new(),
            reigns: Vec::new(),
            time: 0,
            next_session: 1,
            next_id: limits.copies as u8 + 1,
            writes: 0,
            elections: 0,
            crashes: 0,
            wipes: 0,
            hand_overs: 0,
            confirmations: 0,
            broken: None,
        };
        for id in ids {
            let node = world.start(id, Vec::new(), Epoch::default(), limits);
            world.nodes.push(node);
        }
        for node in 0..limits.copies {
            world.tell_session(node);
            let record = world.record.clone();
            world.step(node, Event::Configured(record), &[]);
            world.sync(node);
        }
        world
    }

    /// A process over what its disk holds.
    fn start(&mut self, id: ReplicaId, log: Vec<Entry>, promised: Epoch, limits: &Limits) -> Node {
        let mut epochs = EpochHistory::default();
        for (index, entry) in log.iter().enumerate() {
            if epochs.last().is_none_or(|(last, _)| last != entry.epoch) {
                epochs.begin(entry.epoch, Lsn(index as u64 + 1));
            }
        }
        let end = Lsn(log.len() as u64);
        let opening = Opening {
            id,
            log: LogShape { epochs, first: Lsn(1), end, durable: end },
            commit: Lsn::ZERO,
            promised,
            tail_was_cut: false,
            predecessor_ended: true,
            timing: TIMING,
            policy: EtcdPolicy::Strict,
            rules: limits.rules,
        };
        let session = Session(self.next_session);
        self.next_session += 1;
        Node {
            core: Replica::open(opening, self.now()),
            session,
            durable: log.clone(),
            log,
            promise: promised,
            durable_promise: promised,
            synced: Ticket(0),
        }
    }

    fn tell_session(&mut self, node: usize) {
        let session = self.nodes[node].session;
        self.step(node, Event::Session(Some((session, Duration::MAX))), &[]);
    }

    fn now(&self) -> Now {
        Now::at(STEP * u32::from(self.time) + STEP * 10)
    }

    /// Everything that may happen next.
    pub(super) fn actions(&self, limits: &Limits, actions: &mut Vec<Action>) {
        if self.broken.is_some() {
            return;
        }
        for (index, node) in self.nodes.iter().enumerate() {
            let leads = matches!(node.core.standing(), Standing::Primary(_));
            if leads && self.writes < limits.writes && node.core.admit(true, self.now()).is_ok() {
                actions.push(Action::Write(index));
            }
            if node.synced < node.core.last_ticket() {
                actions.push(Action::Sync(index));
            }
            if self.crashes < limits.crashes {
                actions.extend([false, true].map(|kept| Action::Crash { node: index, kept }));
            }
            if self.wipes < limits.wipes {
                actions.push(Action::Wipe(index));
            }
            if self.record.member(node.core.id()).is_none() {
                actions.push(Action::Replace(index));
            }
            if node.core.configuration().is_none_or(|known| known.revision < self.record.revision) {
                actions.push(Action::Watch(index));
            }
            let is_candidate =
                self.record.primary != Some(node.core.id()) && self.record.is_in_sync(node.core.id());
            if is_candidate && self.elections < limits.elections {
                actions.push(Action::Elect { node: index, out: false });
                if self.record.isr.len() > self.record.min_isr || !limits.rules.hold_min_isr() {
                    actions.push(Action::Elect { node: index, out: true });
                }
            }
            if leads && self.hand_overs < limits.hand_overs {
                actions.push(Action::HandOver(index));
            }
            if leads && self.confirmations < limits.confirmations {
                actions.push(Action::Confirm(index));
            }
            actions.push(Action::Tick(index));
        }
        for mail in 0..self.mail.len() {
            actions.extend([false, true].map(|again| Action::Deliver { mail, again }));
        }
        for (request, asked) in self.requests.iter().enumerate() {
            actions.extend([false, true].map(|answered| Action::Land { request, answered }));
            if !asked.timed_out {
                actions.push(Action::TimeOut(request));
            }
        }
        if self.time < limits.time_max {
            actions.push(Action::Time);
        }
    }

    /// Lets one thing happen.
    pub(super) fn act(&mut self, action: Action, limits: &Limits) {
        match action {
            Action::Write(node) => self.write(node, limits.batch),
            Action::Deliver { mail, again } => {
                let mail = if again { self.mail[mail].clone() } else { self.mail.remove(mail) };
                let to = self.nodes.iter().position(|node| node.core.id() == mail.to);
                if let Some(to) = to {
                    self.step(to, Event::Received(mail.from, mail.message), &mail.entries);
                }
            }
            Action::Sync(node) => self.sync(node),
            Action::Crash { node, kept } => self.crash(node, kept, limits),
            Action::Wipe(node) => self.wipe(node, limits),
            Action::Replace(node) => self.replace(node),
            Action::Land { request, answered } => self.land(request, answered),
            Action::TimeOut(request) => {
                self.requests[request].timed_out = true;
                self.answer(&self.requests[request].clone(), Outcome::Unknown);
            }
            Action::Watch(node) => {
                let record = self.record.clone();
                self.step(node, Event::Configured(record), &[]);
            }
            Action::Elect { node, out } => self.elect(node, out),
            Action::HandOver(node) => {
                self.hand_overs += 1;
                self.step(node, Event::HandOver(None), &[]);
            }
            Action::Confirm(node) => self.confirm(node),
            Action::Tick(node) => self.step(node, Event::Tick, &[]),
            Action::Time => self.time += 1,
        }
        self.check();
    }

    fn write(&mut self, index: usize, batch: u8) {
        let node = &mut self.nodes[index];
        let epoch = node.core.admit(true, Now::at(STEP * u32::from(self.time) + STEP * 10));
        let Ok(epoch) = epoch else { return };
        self.writes += 1;
        for part in 1..=batch {
            node.log.push(Entry { epoch, value: self.writes, batch_end: part == batch });
        }
        let end = Lsn(node.log.len() as u64);
        self.step(index, Event::Staged(epoch, vec![end]), &[]);
    }

    fn sync(&mut self, index: usize) {
        let node = &mut self.nodes[index];
        node.durable.clone_from(&node.log);
        node.durable_promise = node.promise;
        node.synced = node.core.last_ticket();
        let ticket = node.synced;
        self.step(index, Event::Durable(ticket), &[]);
    }

    fn crash(&mut self, index: usize, kept: bool, limits: &Limits) {
        self.crashes += 1;
        let node = &self.nodes[index];
        let (log, promised) = match kept {
            true => (node.log.clone(), node.promise),
            false => (node.durable.clone(), node.durable_promise),
        };
        let id = node.core.id();
        self.nodes[index] = self.start(id, log, promised, limits);
        self.requests.iter_mut().filter(|request| request.node == index).for_each(|r| r.timed_out = true);
        self.tell_session(index);
    }

    fn wipe(&mut self, index: usize, limits: &Limits) {
        // With fewer whole copies than a write needs, what is lost is outside the claim.
        let ids: Vec<ReplicaId> = self.nodes.iter().map(|node| node.core.id()).collect();
        let whole = self.record.isr.iter().filter(|id| ids.contains(id)).count();
        if whole < 2 {
            return;
        }
        self.wipes += 1;
        let fresh = if limits.rules.hold_identity() { id(self.next_id) } else { self.nodes[index].core.id() };
        self.next_id += 1;
        self.nodes[index] = self.start(fresh, Vec::new(), Epoch::default(), limits);
        self.requests.iter_mut().filter(|request| request.node == index).for_each(|r| r.timed_out = true);
        self.tell_session(index);
    }

    fn replace(&mut self, index: usize) {
        let fresh = self.nodes[index].core.id();
        let ids: Vec<ReplicaId> = self.nodes.iter().map(|node| node.core.id()).collect();
        let members = &mut self.record.members;
        members
            .iter_mut()
            .filter(|member| !ids.contains(&member.id))
            .for_each(|member| member.damaged = true);
        members.push(Member { id: fresh, damaged: false });
        self.record.revision.0 += 1;
    }

    fn elect(&mut self, index: usize, out: bool) {
        self.elections += 1;
        let node = &self.nodes[index];
        let before = self.record.primary;
        let record = &mut self.record;
        (record.primary, record.primary_session) = (Some(node.core.id()), node.session);
        record.epoch.0 += 1;
        record.revision.0 += 1;
        if out {
            record.isr.retain(|id| Some(*id) != before);
        }
    }

    fn land(&mut self, request: usize, answered: bool) {
        let request = self.requests.remove(request);
        let guards_hold = request.guards.iter().all(|(id, session)| {
            self.nodes.iter().any(|node| node.core.id() == *id && node.session == *session)
        });
        let own_session = self.nodes[request.node].session == request.session;
        let is_made = request.compared == self.record.revision && guards_hold && own_session;
        let outcome = if is_made {
            let revision = Revision(self.record.revision.0 + 1);
            self.record = self.record.with(&request.change, revision);
            Outcome::Made(revision)
        } else {
            Outcome::NotMade
        };
        if answered && !request.timed_out {
            self.answer(&request, outcome);
        } else if !request.timed_out {
            self.answer(&request, Outcome::Unknown);
        }
    }

    fn answer(&mut self, request: &Request, outcome: Outcome) {
        if self.nodes[request.node].session == request.session {
            self.step(request.node, Event::Proposed(request.number, outcome), &[]);
        }
    }

    fn confirm(&mut self, index: usize) {
        self.confirmations += 1;
        let node = &self.nodes[index];
        let reader = Reader {
            id: u64::from(self.confirmations),
            node: index,
            session: node.session,
            acknowledged: self.acknowledged.len(),
        };
        let id = reader.id;
        self.readers.push(reader);
        self.step(index, Event::Confirm(id), &[]);
    }

    /// Lets a replica take an event and carries its commands out.
    fn step(&mut self, index: usize, event: Event, entries: &[Entry]) {
        let now = self.now();
        let mut commands = Vec::new();
        let core = &mut self.nodes[index].core;
        let outcome = catch_unwind(AssertUnwindSafe(|| core.step(event, now, &mut commands)));
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
            Command::Log(_, operation) => self.write_log(index, operation, entries),
            Command::Send(to, message) => self.send(index, to, message),
            Command::Commit(lsn) => self.committed(index, lsn),
            Command::Propose { number, compared, change, guards } => {
                let session = self.nodes[index].session;
                let timed_out = false;
                self.requests.push(Request {
                    node: index,
                    session,
                    number,
                    compared,
                    change,
                    guards,
                    timed_out,
                });
            }
            Command::Lead(epoch) => {
                let (id, session) = (self.nodes[index].core.id(), self.nodes[index].session);
                let another = self
                    .reigns
                    .iter()
                    .any(|(led, by, in_session)| *led == epoch && (*by != id || *in_session != session));
                if another {
                    self.broken.get_or_insert("I1: one primary in a reign");
                }
                self.reigns.push((epoch, id, session));
            }
            Command::Confirmed(id, sees) => {
                let session = self.nodes[index].session;
                let at = self
                    .readers
                    .iter()
                    .position(|reader| reader.id == id && reader.node == index && reader.session == session);
                if let Some(at) = at {
                    let reader = self.readers.remove(at);
                    if sees.is_some_and(|sees| (sees.0 as usize) < reader.acknowledged) {
                        self.broken.get_or_insert("a confirmed read is stale");
                    }
                }
            }
            Command::Reload => {}
            Command::Resign(_) | Command::HandedOver(_) | Command::Fetch(_) | Command::Alarm(_) => {}
        }
    }

    fn write_log(&mut self, index: usize, operation: LogOperation, entries: &[Entry]) {
        let Node { log, promise, .. } = &mut self.nodes[index];
        match operation {
            LogOperation::Promise(epoch) => *promise = epoch,
            LogOperation::Cut(to) => log.truncate(to.0 as usize),
            LogOperation::Receive(last) => {
                let missing = last.0 as usize - log.len();
                log.extend_from_slice(&entries[entries.len() - missing..]);
            }
            LogOperation::StartEpoch(epoch) => log.push(Entry { epoch, value: 0, batch_end: true }),
        }
    }

    fn send(&mut self, index: usize, to: ReplicaId, message: Message) {
        let node = &self.nodes[index];
        let from = node.core.id();
        let mut message = message;
        let (mut entries, mut unsent) = (Vec::new(), None);
        if let Message::Append(append) = &mut message {
            let first = append.prev.lsn.0 as usize;
            let last = (append.last.0 as usize).min(first + RECORDS_MAX);
            entries.extend_from_slice(&node.log[first..last]);
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

    /// A replica may apply up to here; a primary acknowledges it.
    fn committed(&mut self, index: usize, lsn: Lsn) {
        let node = &self.nodes[index];
        let committed = &node.log[..lsn.0 as usize];
        let common = committed.len().min(self.acknowledged.len());
        if committed[..common] != self.acknowledged[..common] {
            self.broken.get_or_insert("I4: committed records differ");
        }
        if !matches!(node.core.standing(), Standing::Primary(_)) {
            if committed.len() > self.acknowledged.len() {
                self.broken.get_or_insert("I7: applied beyond what was committed");
            }
            return;
        }
        if committed.len() < self.acknowledged.len() {
            return;
        }
        if committed.last().is_some_and(|entry| !entry.batch_end) {
            self.broken.get_or_insert("half a batch is visible");
        }
        let committed = committed.to_vec();
        let has_all = |node: &&Node| node.durable.starts_with(&committed);
        // A disk that was emptied may have had it.
        if self.nodes.iter().filter(has_all).count() + usize::from(self.wipes) < self.record.min_isr {
            self.broken.get_or_insert("I6: acknowledged on too few disks");
        }
        self.acknowledged = committed;
    }

    /// What must hold in every state.
    fn check(&mut self) {
        let excess = self.mail.len().saturating_sub(8);
        self.mail.drain(..excess);
        if self.broken.is_some() {
            return;
        }
        let in_sync = |node: &&Node| self.record.is_in_sync(node.core.id());
        let mut members = self.nodes.iter().filter(in_sync);
        if !members.clone().all(|node| node.durable.starts_with(&self.acknowledged)) {
            self.broken = Some("I2: a copy in sync lacks what was acknowledged");
        } else if members.next().is_none() {
            self.broken = Some("no copy in sync is left");
        } else if self.record.isr.len() < self.record.min_isr {
            self.broken = Some("I13: too few copies in sync");
        }
        let now = self.now();
        let holders: Vec<&Node> = self.nodes.iter().filter(|node| node.core.grant(now).is_some()).collect();
        if holders.len() > 1 {
            self.broken = Some("I9: two hold a whole lease");
        }
        if holders.iter().any(|node| (node.core.commit().0 as usize) < self.acknowledged.len()) {
            self.broken = Some("a read under a lease is stale");
        }
    }

    /// What the tests want to have seen.
    pub(super) fn has_acknowledged(&self, writes: u8) -> bool {
        self.acknowledged.iter().any(|entry| entry.value == writes)
    }
}

fn id(number: u8) -> ReplicaId {
    ReplicaId([number; 16])
}
