//! Requests of clients at a node: writes wait in the driver, reads prove what they claim.
//!
//! As `shard::replica` does it: a strong read takes its snapshot first and then asks for the grant, with time in between.

use std::time::Duration;

use super::client::{ClientAnswer, ClientRequest, Document, Level, Outcome, Wanted};
use super::network::Place;
use super::node::{CopyId, OpenCopy};
use super::world::{At, Body, Event, World};
use crate::ids::{Epoch, Lsn, ReplicaId, ShardId};
use crate::replication::driver::{NotWritten, Write, WriteReceipt};
use crate::replication::{Event as Happened, NotAdmitted, Standing};

/// Writes that may wait for one copy.
const INTAKE_MAX: usize = 64;
/// How long a read waits for a position that its caller has seen.
const POSITION_WAIT: Duration = Duration::from_millis(100);
/// How long a read waits for what it was proven to need.
const CONFIRM_WAIT: Duration = Duration::from_secs(2);

/// Whom to tell of a write.
#[derive(Clone, Copy, Debug)]
pub(super) struct Writer {
    client: usize,
    number: u64,
}

/// A read that waits for a proof.
#[derive(Clone, Debug)]
pub(super) struct Reader(Box<Read>);

/// A read.
#[derive(Clone, Debug)]
pub(super) struct Read {
    client: usize,
    number: u64,
    epoch: Epoch,
    level: Level,
    key: Option<String>,
    seen: Lsn,
    found: Vec<Document>,
}

/// A read that waits for a position.
#[derive(Debug)]
pub(super) struct Waiting {
    read: Read,
    position: Lsn,
}

impl World {
    /// A request of a client arrives.
    pub(super) fn serve(&mut self, node: usize, request: ClientRequest) {
        let ClientRequest { client, number, shard, epoch, wanted } = request;
        let Some(copy) = self.served(node, shard) else {
            return self.answer(node, client, number, Outcome::Unavailable);
        };
        match wanted {
            Wanted::Write(batch) => {
                let open = self.copy(node, copy).expect("it is served");
                if open.intake.len() >= INTAKE_MAX {
                    return self.answer(node, client, number, Outcome::NotWritten(NotWritten::Overloaded));
                }
                open.intake.push_back(Write { epoch, batch: *batch, token: Writer { client, number } });
                self.proceed(node, copy);
            }
            Wanted::Read(level, key) => {
                let read = Read { client, number, epoch, level, key, seen: Lsn::ZERO, found: Vec::new() };
                self.begin_read(node, copy, read);
            }
        }
    }

    /// The copy of a shard that a node serves.
    fn served(&self, node: usize, shard: ShardId) -> Option<CopyId> {
        let process = self.nodes[node].process.as_ref()?;
        let mut open = process.slots.iter().filter(|(copy, slot)| copy.0 == shard && slot.open.is_some());
        open.next().map(|(copy, _)| *copy)
    }

    fn begin_read(&mut self, node: usize, copy: CopyId, mut read: Read) {
        let in_sync = self.is_in_sync_here(node, copy);
        let now = self.nodes[node].now(self.time);
        let open = self.copy(node, copy).expect("it is served");
        match read.level {
            Level::Strong { .. } if !leads(open, read.epoch) => {
                self.answer(node, read.client, read.number, Outcome::NotPrimary);
            }
            Level::Strong { .. } => {
                take(open, &mut read);
                let at = At { node, copy, opening: open.opening };
                let soon = self.random.between(Duration::ZERO, Duration::from_micros(200));
                self.schedule.at(self.time + soon, Event::ReadChecked(at, Box::new(read)));
            }
            Level::Session(_) if !in_sync => {
                self.answer(node, read.client, read.number, Outcome::Unavailable);
            }
            Level::Session(position) => self.await_position(node, copy, read, position, POSITION_WAIT),
            Level::Bounded(staleness) => {
                let known = staleness_of(open, now);
                match known.is_some_and(|known| known <= staleness) {
                    true => self.finish_read(node, copy, read),
                    false => self.answer(node, read.client, read.number, Outcome::Unavailable),
                }
            }
        }
    }

    /// A strong read that has its snapshot asks whether the copy leads.
    pub(super) fn read_checked(&mut self, at: At, read: Read) {
        let now = self.nodes[at.node].now(self.time);
        let Some(open) = self.opening(at) else { return };
        let grant = open.driver.core().grant(now);
        let is_granted = grant.is_some_and(|grant| grant.epoch == read.epoch && grant.covers(read.seen));
        if is_granted && read.level == (Level::Strong { without_clock: false }) {
            return self.answer_read(at.node, read);
        }
        open.driver.confirm(Reader(Box::new(read)), now);
        self.proceed(at.node, at.copy);
    }

    /// The other copies have said whether this one still leads.
    pub(super) fn confirmed(
        &mut self,
        node: usize,
        copy: CopyId,
        Reader(read): Reader,
        position: Option<Lsn>,
    ) {
        match position {
            Some(position) => self.await_position(node, copy, *read, position, CONFIRM_WAIT),
            None => self.answer(node, read.client, read.number, Outcome::Unavailable),
        }
    }

    fn await_position(&mut self, node: usize, copy: CopyId, read: Read, position: Lsn, limit: Duration) {
        let Some(open) = self.copy(node, copy) else { return };
        if open.applied >= position {
            return self.finish_read(node, copy, read);
        }
        let at = At { node, copy, opening: open.opening };
        let number = read.number;
        open.waiting.push(Waiting { read, position });
        self.schedule.at(self.time + limit, Event::ReadGivenUp(at, number));
    }

    /// Serves reads whose position is applied.
    pub(super) fn serve_waiting(&mut self, node: usize, copy: CopyId) {
        let Some(open) = self.copy(node, copy) else { return };
        let applied = open.applied;
        let (ready, waiting) =
            std::mem::take(&mut open.waiting).into_iter().partition(|read| read.position <= applied);
        open.waiting = waiting;
        let ready: Vec<Waiting> = ready;
        ready.into_iter().for_each(|waiting| self.finish_read(node, copy, waiting.read));
    }

    /// A read has waited long enough.
    pub(super) fn read_given_up(&mut self, at: At, number: u64) {
        let Some(open) = self.opening(at) else { return };
        let Some(index) = open.waiting.iter().position(|waiting| waiting.read.number == number) else {
            return;
        };
        let read = open.waiting.remove(index).read;
        self.answer(at.node, read.client, read.number, Outcome::Unavailable);
    }

    fn finish_read(&mut self, node: usize, copy: CopyId, mut read: Read) {
        let open = self.copy(node, copy).expect("it is open");
        if matches!(read.level, Level::Strong { .. }) && !leads(open, read.epoch) {
            return self.answer(node, read.client, read.number, Outcome::NotPrimary);
        }
        take(open, &mut read);
        self.answer_read(node, read);
    }

    fn answer_read(&mut self, node: usize, read: Read) {
        let found = Outcome::Found { documents: read.found, position: read.seen };
        self.answer(node, read.client, read.number, found);
    }

    /// Tells a client what became of its write.
    pub(super) fn answer_write(
        &mut self,
        node: usize,
        Writer { client, number }: Writer,
        outcome: Result<WriteReceipt, NotWritten>,
    ) {
        self.answer(node, client, number, outcome.map_or_else(Outcome::NotWritten, Outcome::Written));
    }

    /// Answers all writes that wait at a copy: nobody will know here what becomes of them.
    pub(super) fn give_up_writes(&mut self, node: usize, copy: CopyId, why: &'static str) {
        let Some(open) = self.copy(node, copy) else { return };
        open.driver.give_up(why);
        let late = std::mem::take(&mut open.intake);
        let mut answers = Vec::new();
        while let Some(effect) = open.driver.next_effect() {
            if let crate::replication::driver::Effect::Answer(writer, outcome) = effect {
                answers.push((writer, outcome));
            }
        }
        for (writer, outcome) in answers {
            self.answer_write(node, writer, outcome);
        }
        for Write { token, .. } in late {
            self.answer(node, token.client, token.number, Outcome::Unavailable);
        }
    }

    /// Somebody wants another copy to lead.
    pub(super) fn hand_over(
        &mut self,
        node: usize,
        from: Place,
        question: u64,
        shard: ShardId,
        to: Option<ReplicaId>,
    ) {
        let Some(copy) = self.served(node, shard) else {
            return self.send(Place::Node(node), from, Body::HandedOver(question));
        };
        let open = self.copy(node, copy).expect("it is served");
        open.hand_overs.push((from, question));
        self.step(node, copy, Happened::HandOver(to));
    }

    /// A hand-over was made, or not.
    pub(super) fn handed_over(&mut self, node: usize, copy: CopyId, outcome: Result<(), NotAdmitted>) {
        let open = self.copy(node, copy).expect("it answers");
        for (from, question) in std::mem::take(&mut open.hand_overs) {
            self.send(Place::Node(node), from, Body::HandedOver(question));
        }
        if outcome.is_ok() {
            self.took_effect("hand-over");
        }
    }

    fn answer(&mut self, node: usize, client: usize, number: u64, outcome: Outcome) {
        let answer = ClientAnswer { number, outcome };
        self.send(Place::Node(node), Place::Client(client), Body::Answer(Box::new(answer)));
    }

    fn is_in_sync_here(&self, node: usize, copy: CopyId) -> bool {
        let process = self.nodes[node].process.as_ref();
        process
            .and_then(|process| process.view.shards.get(&copy.0))
            .is_some_and(|record| record.is_in_sync(copy.1))
    }
}

fn leads(open: &OpenCopy, epoch: Epoch) -> bool {
    matches!(open.driver.core().standing(), Standing::Primary(primary) if primary.epoch == epoch)
}

/// Takes a snapshot, and of it what is asked for.
fn take(open: &OpenCopy, read: &mut Read) {
    read.seen = open.reader.snapshot().lsn;
    read.found = match &read.key {
        Some(key) => {
            let found = open.reader.get(key, true).expect("rows are in memory");
            found.map(|found| Document::read(&found.0, found.1)).into_iter().collect()
        }
        None => {
            let snapshot = open.reader.snapshot();
            let (documents, more) = snapshot.list("", 1 << 20, usize::MAX, true).expect("rows are in memory");
            assert!(!more && documents.len() as u64 == snapshot.documents, "a snapshot lists what it counts");
            documents.iter().map(|document| Document::read(document, Lsn::ZERO)).collect()
        }
    };
}

/// Everything that was acknowledged this long ago is visible here; `None`: nobody knows.
fn staleness_of(open: &OpenCopy, now: crate::replication::Now) -> Option<Duration> {
    let core = open.driver.core();
    if core.grant(now).is_some_and(|grant| grant.covers(open.applied)) {
        return Some(Duration::ZERO);
    }
    let (position, heard) = core.freshness()?;
    (open.applied >= position).then(|| now.boot.saturating_sub(heard))
}
