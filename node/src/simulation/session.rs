//! A process and the metadata store: its registration, which is its node's session, and what it learns by watching.
//!
//! As `cluster::node_session` does it. Its disk comes first: an older image is given up. Then a starting process ends the lease of an earlier one of its name; one that was
//! registered before does not.

use std::time::Duration;

use super::meta_store::{Ask, DiskOpening, Lease, NodeKey, Told};
use super::network::Place;
use super::node::Purpose;
use super::world::{Body, Event, World};
use crate::ids::Session;
use crate::replication::Event as Happened;
use crate::storage::data_dir::{self, DiskIdentity};

/// Life of a node's lease.
pub(super) const NODE_TTL: Duration = Duration::from_secs(8);
/// Between two keep-alives.
const HEARTBEAT: Duration = Duration::from_secs(2);
/// Between two tries to register.
const RETRY: Duration = Duration::from_millis(500);
/// An answer of the store that takes longer is given up.
const ANSWER_LIMIT: Duration = Duration::from_secs(2);

/// Part of a lease that its holder trusts.
fn trusted(ttl: Duration) -> Duration {
    ttl * 99 / 100 - Duration::from_millis(500)
}

impl World {
    /// A process asks the store.
    pub(super) fn ask_store(&mut self, node: usize, purpose: Purpose, ask: Ask) {
        let limit = if matches!(purpose, Purpose::Watch) { ANSWER_LIMIT * 2 } else { ANSWER_LIMIT };
        let question =
            self.ask(Place::Node(node), Place::Store, limit, |number| Body::Ask(number, Box::new(ask)));
        if let Some(process) = &mut self.nodes[node].process {
            process.asked.insert(question, purpose);
        }
    }

    /// A process looks at its session: asks for one, or to go on.
    pub(super) fn beat(&mut self, node: usize, process: u64) {
        if self.nodes[node].process.as_ref().is_none_or(|running| running.number != process) {
            return;
        }
        let now = self.nodes[node].now(self.time);
        let name = self.nodes[node].id.clone();
        let running = self.nodes[node].process.as_mut().expect("it is there");
        let session = &mut running.session;
        if session.held.is_some_and(|(_, until)| now.boot >= until) {
            session.held = None;
            self.tell_session(node);
        }
        let session_life = self.settings.timing.session;
        let machine = &mut self.nodes[node];
        let running = machine.process.as_mut().expect("it is there");
        if running.session.since.is_some_and(|since| now.monotonic >= since + session_life) {
            // By now an earlier process over this volume, wherever it ran, has noticed its end.
            machine.volume_boot = Some(machine.boot);
        }
        running.session.sent = now.boot;
        let (pause, purpose, ask) = match running.session.registered {
            Some((lease, _)) => (HEARTBEAT, Purpose::KeepAlive, Ask::KeepAlive(lease)),
            None if !running.disk_is_proven => {
                (RETRY, Purpose::OpenDisk, Ask::OpenDisk { node: name, opening: running.disk })
            }
            None => (RETRY, Purpose::LookUp, Ask::Node(name)),
        };
        let is_waiting = running.asked.values().any(|asked| {
            matches!(
                asked,
                Purpose::OpenDisk
                    | Purpose::LookUp
                    | Purpose::TakeOver
                    | Purpose::Lease
                    | Purpose::Register(_)
            )
        });
        if !is_waiting {
            self.ask_store(node, purpose, ask);
        }
        self.schedule.at(self.time + pause, Event::Beat(node, process));
    }

    /// The store answered a process.
    pub(super) fn node_told(&mut self, node: usize, question: u64, told: Told) {
        let Some(process) = &mut self.nodes[node].process else { return };
        let Some(purpose) = process.asked.remove(&question) else { return };
        match (purpose, told) {
            (Purpose::OpenDisk, told) => self.disk_opened(node, matches!(told, Told::Done(_))),
            (Purpose::LookUp, Told::Node(key)) => self.looked_up(node, key),
            (Purpose::TakeOver, Told::Done(_) | Told::NoLease) => self.ask_for_lease(node),
            (Purpose::Lease, Told::Lease(lease)) => self.register(node, lease),
            (Purpose::Register(lease), Told::Done(revision)) => {
                self.registered(node, lease, Session(revision.0));
            }
            (Purpose::KeepAlive, Told::Lease(_)) => self.kept_alive(node),
            (Purpose::KeepAlive, Told::NoLease) => self.session_ended(node),
            (Purpose::Propose(copy, opening, number), told) => {
                self.proposed(node, (copy, opening), number, &told);
            }
            (Purpose::Reload(copy, opening), Told::Shard(Some(shard))) => {
                self.tell_record(node, copy, Some(opening), &shard);
            }
            (Purpose::Entry(copy), told) => self.entry_changed(node, copy, matches!(told, Told::Done(_))),
            _ => {}
        }
    }

    /// Nobody answered a process in time.
    pub(super) fn node_timed_out(&mut self, node: usize, question: u64) {
        let Some(process) = &mut self.nodes[node].process else { return };
        match process.asked.remove(&question) {
            Some(Purpose::Watch) => self.watch(node),
            Some(Purpose::Propose(copy, opening, number)) => {
                self.proposal_unknown(node, (copy, opening), number);
            }
            Some(Purpose::Entry(copy)) => self.entry_changed(node, copy, false),
            Some(Purpose::Fetch(copy)) => self.fetch_failed(node, copy),
            _ => {}
        }
    }

    /// A process was told whether its opening of its disk is the last one. If not, it gives up what the disk holds.
    fn disk_opened(&mut self, node: usize, is_last: bool) {
        let machine = &mut self.nodes[node];
        let process = machine.process.as_mut().expect("it asked");
        if is_last {
            process.disk_is_proven = true;
            let ask = Ask::Node(machine.id.clone());
            return self.ask_store(node, Purpose::LookUp, ask);
        }
        match data_dir::give_up_older_image(&machine.disk) {
            Ok(DiskIdentity { disk_id, opens }) => {
                process.disk = DiskOpening { disk: disk_id, opens, process: process.number };
                self.took_effect("older image given up");
                self.tell(|| format!("n{node} gives up an older image"));
            }
            // A process that cannot use its disk ends, and is started again.
            Err(_) => drop(self.kill(node)),
        }
    }

    fn looked_up(&mut self, node: usize, key: Option<NodeKey>) {
        let process = self.nodes[node].process.as_mut().expect("it asked");
        match key {
            None => self.ask_for_lease(node),
            Some(key) if !process.session.was_registered || key.process == process.number => {
                self.ask_store(node, Purpose::TakeOver, Ask::Revoke(key.lease));
            }
            Some(_) => {}
        }
    }

    fn ask_for_lease(&mut self, node: usize) {
        let now = self.nodes[node].now(self.time);
        self.nodes[node].process.as_mut().expect("it asked").session.sent = now.boot;
        self.ask_store(node, Purpose::Lease, Ask::Grant(NODE_TTL));
    }

    fn register(&mut self, node: usize, lease: Lease) {
        let name = self.nodes[node].id.clone();
        let process = self.nodes[node].process.as_ref().expect("it asked").number;
        let ask = Ask::Register { node: name, process, lease };
        self.ask_store(node, Purpose::Register(lease), ask);
    }

    fn registered(&mut self, node: usize, lease: Lease, session: Session) {
        let now = self.nodes[node].now(self.time);
        let process = self.nodes[node].process.as_mut().expect("it asked");
        let state = &mut process.session;
        state.registered = Some((lease, session));
        state.was_registered = true;
        state.since.get_or_insert(now.monotonic);
        state.held = Some((session, state.sent + trusted(NODE_TTL)));
        self.tell_session(node);
    }

    /// After a silence that seemed too long the lease may turn out to live: then so does the session.
    fn kept_alive(&mut self, node: usize) {
        let state = &mut self.nodes[node].process.as_mut().expect("it asked").session;
        let until = state.sent + trusted(NODE_TTL);
        state.held = state.registered.map(|(_, session)| (session, until));
        self.tell_session(node);
    }

    fn session_ended(&mut self, node: usize) {
        let state = &mut self.nodes[node].process.as_mut().expect("it asked").session;
        (state.registered, state.held) = (None, None);
        self.tell_session(node);
    }

    /// Tells every open copy what session its node has.
    fn tell_session(&mut self, node: usize) {
        let process = self.nodes[node].process.as_ref().expect("it has a session");
        let held = process.session.held;
        let open: Vec<_> =
            process.slots.iter().filter(|(_, slot)| slot.open.is_some()).map(|(copy, _)| *copy).collect();
        for copy in open {
            self.step(node, copy, Happened::Session(held));
        }
    }

    /// A process asks what is new.
    pub(super) fn watch(&mut self, node: usize) {
        let Some(process) = &self.nodes[node].process else { return };
        let known = process.view.revision;
        self.ask_store(node, Purpose::Watch, Ask::Watch(known));
    }
}
