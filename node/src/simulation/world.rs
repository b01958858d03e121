//! [`World`]: machines, network, metadata store and clients, and the order in which things happen to them.

use std::time::Duration;

use super::client::{Client, ClientAnswer, ClientRequest};
use super::faults::Fault;
use super::ledger::Ledger;
use super::master::Master;
use super::meta_store::{Ask, MetaStore, News, Told};
use super::network::{Network, Place};
use super::node::{CopyId, Node, Transfer};
use super::random::Random;
use super::settings::Settings;
use super::time::{Schedule, Time};
use super::trace::Trace;
use crate::ids::{NodeId, ReplicaId, Revision, ShardId};
use crate::replication::Position;
use crate::replication::driver::Letter;
use crate::runtime::disk::Effects;

/// Everything.
pub(super) struct World {
    pub(super) settings: Settings,
    pub(super) time: Time,
    pub(super) schedule: Schedule<Event>,
    pub(super) random: Random,
    pub(super) network: Network,
    pub(super) store: MetaStore,
    /// Machines; behind those of the settings, ones whose volumes were taken away from them.
    pub(super) nodes: Vec<Node>,
    pub(super) masters: Vec<Master>,
    pub(super) clients: Vec<Client>,
    pub(super) ledger: Ledger,
    pub(super) trace: Trace,
    /// How often each fault took effect.
    pub(super) effects: Effects,
    /// Faults are over.
    pub(super) is_healing: bool,
    /// Clients begin nothing new.
    pub(super) is_quiet: bool,
    /// Records up to this revision were looked at.
    pub(super) checked: Revision,
    last_number: u64,
}

/// A copy that is open, by the number of its opening.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct At {
    pub(super) node: usize,
    pub(super) copy: CopyId,
    pub(super) opening: u64,
}

/// Something that happens.
#[derive(Debug)]
pub(super) enum Event {
    /// A message arrives.
    Arrive(Parcel),
    /// An answer did not come in time.
    TimeOut(Place, u64),
    /// A copy looks at its clock.
    Tick(At),
    /// A turn of a copy's store ends.
    TurnEnds(At),
    /// A copy's checkpoint is written.
    CheckpointWritten(At),
    /// A read that took its snapshot looks whether the copy still led.
    ReadChecked(At, Box<super::serving::Read>),
    /// A read has waited for its position long enough.
    ReadGivenUp(At, u64),
    /// The next part of a snapshot leaves.
    SendPart(usize, u64),
    /// A process looks at its session.
    Beat(usize, u64),
    /// A process looks after its copies.
    Keep(usize, u64),
    /// A machine that is down starts its process.
    Start(usize),
    /// A machine that stands still goes on.
    Resume(usize),
    /// A candidate for mastership acts.
    Govern(usize),
    /// A client acts.
    Act(usize),
    /// Leases of the store may be over.
    Expire,
    /// Something goes wrong.
    Trouble,
    /// Something that went wrong is over.
    Relief(Fault),
    /// Whoever let things happen wants to look.
    Halt,
}

/// A message on its way.
#[derive(Clone, Debug)]
pub(super) struct Parcel {
    pub(super) from: Place,
    pub(super) to: Place,
    pub(super) body: Body,
}

/// What a message says. Numbers are those of questions.
#[derive(Clone, Debug)]
pub(super) enum Body {
    Letter(ShardId, Box<Letter>),
    Ask(u64, Box<Ask>),
    Told(u64, Box<Told>),
    News(u64, Box<News>),
    Request(Box<ClientRequest>),
    Answer(Box<ClientAnswer>),
    Probe(u64),
    Alive(u64),
    Describe(u64, ShardId),
    Described(u64, Option<Report>),
    HandOver(u64, ShardId, Option<ReplicaId>),
    HandedOver(u64),
    Fetch(u64, ShardId),
    Part(u64, Transfer),
}

/// Where a copy says that it stands.
#[derive(Clone, Copy, Debug)]
pub(super) struct Report {
    pub(super) replica: ReplicaId,
    pub(super) last: Position,
    pub(super) commit: crate::ids::Lsn,
    pub(super) tail_was_cut: bool,
    pub(super) is_proven: bool,
}

impl World {
    /// A world of this kind, in which nothing has happened yet.
    pub(super) fn new(settings: Settings, trace: Trace) -> World {
        let mut random = Random::new(settings.seed);
        let network = Network::new(random.fork(), settings.weather);
        let mut world = World {
            time: Time(0),
            schedule: Schedule::default(),
            network,
            store: MetaStore::default(),
            nodes: Vec::new(),
            masters: Vec::new(),
            clients: Vec::new(),
            ledger: Ledger::default(),
            trace,
            effects: Effects::new(),
            is_healing: false,
            is_quiet: false,
            checked: Revision(0),
            last_number: 0,
            random,
            settings,
        };
        world.populate();
        world
    }

    fn populate(&mut self) {
        for index in 0..self.settings.nodes {
            let node = Node::new(node_id(index), &mut self.random);
            self.nodes.push(node);
            let soon = self.random.between(Duration::ZERO, Duration::from_millis(200));
            self.schedule.at(self.time + soon, Event::Start(index));
        }
        for shard in self.settings.shards() {
            let record = self.settings.fresh_record(shard, &mut self.random);
            self.store.place(shard, record);
        }
        for index in 0..self.settings.masters {
            self.masters.push(Master::new(index));
            self.schedule.at(self.time, Event::Govern(index));
        }
        for index in 0..self.settings.clients {
            self.clients.push(Client::new(index));
            let soon = self.random.between(Duration::from_secs(1), Duration::from_secs(2));
            self.schedule.at(self.time + soon, Event::Act(index));
        }
        self.schedule.at(self.time + Duration::from_secs(1), Event::Expire);
    }

    /// Lets everything happen up to this time. False: something is broken.
    pub(super) fn run_until(&mut self, until: Time) -> bool {
        self.schedule.at(until, Event::Halt);
        while let Some((at, event)) = self.schedule.next() {
            assert!(at >= self.time, "time does not go back");
            self.time = at;
            if matches!(event, Event::Halt) {
                break;
            }
            self.happen(event);
            self.check();
            if self.ledger.broken.is_some() {
                return false;
            }
        }
        true
    }

    fn happen(&mut self, event: Event) {
        match event.machine() {
            Some(Place::Node(node)) if self.nodes[node].stands_still => {
                return self.nodes[node].backlog.push(event);
            }
            Some(Place::Master(master)) if self.masters[master].stands_still => {
                return self.masters[master].backlog.push(event);
            }
            _ => {}
        }
        self.trace.mix(self.time.0);
        match event {
            Event::Arrive(parcel) => self.arrive(parcel),
            Event::TimeOut(place, number) => self.timed_out(place, number),
            Event::Tick(at) => self.tick(at),
            Event::TurnEnds(at) => self.turn_ends(at),
            Event::CheckpointWritten(at) => self.checkpoint_written(at),
            Event::ReadChecked(at, read) => self.read_checked(at, *read),
            Event::ReadGivenUp(at, number) => self.read_given_up(at, number),
            Event::SendPart(node, number) => self.send_part(node, number),
            Event::Beat(node, process) => self.beat(node, process),
            Event::Keep(node, process) => self.keep(node, process),
            Event::Start(node) => self.start(node),
            Event::Resume(node) => self.resume(node),
            Event::Govern(master) => self.govern(master),
            Event::Act(client) => self.act(client),
            Event::Expire => self.expire_leases(),
            Event::Trouble => self.trouble(),
            Event::Relief(fault) => self.relieve(fault),
            Event::Halt => unreachable!("seen by who asked for it"),
        }
    }

    fn arrive(&mut self, parcel: Parcel) {
        match parcel.to {
            Place::Node(node) => self.arrive_at_node(node, parcel),
            Place::Master(master) => self.arrive_at_master(master, parcel),
            Place::Client(client) => self.arrive_at_client(client, parcel),
            Place::Store => self.arrive_at_store(parcel),
        }
    }

    fn timed_out(&mut self, place: Place, number: u64) {
        match place {
            Place::Node(node) => self.node_timed_out(node, number),
            Place::Master(master) => self.master_timed_out(master, number),
            Place::Client(client) => self.client_timed_out(client, number),
            Place::Store => {}
        }
    }

    /// A number that nothing else has.
    pub(super) fn number(&mut self) -> u64 {
        self.last_number += 1;
        self.last_number
    }

    /// Sends a message.
    pub(super) fn send(&mut self, from: Place, to: Place, body: Body) {
        let is_letter = matches!(body, Body::Letter(..));
        let mut arrivals = self.network.send(from, to, self.time);
        if !is_letter {
            // A call is carried out once, or not.
            arrivals.truncate(1);
        }
        if from == Place::Store && arrivals.is_empty() {
            self.took_effect("lost answer of the metadata store");
        }
        let parcel = Parcel { from, to, body };
        for at in arrivals {
            self.schedule.at(at, Event::Arrive(parcel.clone()));
        }
    }

    /// Sends a question, whose answer does not come or comes in time. Its number.
    pub(super) fn ask(
        &mut self,
        from: Place,
        to: Place,
        limit: Duration,
        body: impl FnOnce(u64) -> Body,
    ) -> u64 {
        let number = self.number();
        self.send(from, to, body(number));
        self.schedule.at(self.time + limit, Event::TimeOut(from, number));
        number
    }

    fn arrive_at_store(&mut self, parcel: Parcel) {
        let Body::Ask(number, ask) = parcel.body else { return };
        if self.time < self.store.away_until {
            self.took_effect("question to a metadata store that is away");
            // Lost, or carried out when the store is back: then nobody waits for the answer any more.
            if self.random.one_in(2) {
                let back = self.store.away_until;
                let parcel = Parcel { body: Body::Ask(number, ask), ..parcel };
                self.schedule.at(back, Event::Arrive(parcel));
            }
            return;
        }
        let guard = match &*ask {
            Ask::Decide { guard, .. } => Some(*guard),
            _ => None,
        };
        let told = self.store.answer(parcel.from, number, *ask, self.time);
        if let (Some(guard), Some(Told::Done(_))) = (guard, &told) {
            self.check_master(guard);
        }
        if let Some(told) = told {
            self.send(Place::Store, parcel.from, Body::Told(number, Box::new(told)));
        }
        self.tell_news();
    }

    /// Tells whoever watches the store what is new.
    pub(super) fn tell_news(&mut self) {
        for (place, number, news) in self.store.take_news() {
            self.send(Place::Store, place, Body::News(number, Box::new(news)));
        }
    }

    fn expire_leases(&mut self) {
        if self.time >= self.store.away_until {
            self.store.expire(self.time);
            self.tell_news();
        }
        self.schedule.at(self.time + Duration::from_millis(250), Event::Expire);
    }

    /// A fault took effect.
    pub(super) fn took_effect(&mut self, fault: &'static str) {
        *self.effects.entry(fault).or_default() += 1;
    }

    /// The same, of many.
    pub(super) fn note_effects(&mut self, effects: &Effects) {
        for (effect, count) in effects {
            *self.effects.entry(effect).or_default() += count;
        }
    }

    /// The machine of a node.
    pub(super) fn index_of(&self, node: &NodeId) -> usize {
        self.nodes.iter().position(|machine| machine.id == *node).expect("records name nodes that there are")
    }
}

impl Event {
    /// The machine that it happens on, if it can wait there.
    fn machine(&self) -> Option<Place> {
        match self {
            Event::Arrive(parcel) => Some(parcel.to),
            Event::TimeOut(place, _) => Some(*place),
            Event::Tick(at)
            | Event::TurnEnds(at)
            | Event::CheckpointWritten(at)
            | Event::ReadChecked(at, _)
            | Event::ReadGivenUp(at, _) => Some(Place::Node(at.node)),
            Event::SendPart(node, _) | Event::Beat(node, _) | Event::Keep(node, _) => {
                Some(Place::Node(*node))
            }
            Event::Govern(master) => Some(Place::Master(*master)),
            Event::Start(_)
            | Event::Resume(_)
            | Event::Act(_)
            | Event::Expire
            | Event::Trouble
            | Event::Relief(_)
            | Event::Halt => None,
        }
    }
}

/// The name of a machine.
pub(super) fn node_id(index: usize) -> NodeId {
    NodeId::parse(&format!("n{index}")).expect("valid")
}
