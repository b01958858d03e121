//! An open copy: events go to its driver, effects come back, and its store does one turn after another.
//!
//! As `shard::owner` does it. A turn takes time, during which the store does nothing else and messages are answered.

use std::time::Duration;

use super::meta_store::{Ask, Told};
use super::network::Place;
use super::node::{Checkpointing, CopyId, OpenCopy, Purpose, Turn};
use super::serving::Reader;
use super::world::{At, Body, Event, Report, World};
use crate::ids::{ReplicaId, ShardId};
use crate::replication::driver::{Effect, Job, Letter, Write};
use crate::replication::{Event as Happened, Message, Outcome, Position};
use crate::storage::StorageError;

use super::serving::Writer;

/// Batches of one group.
const GROUP_BATCHES: usize = 16;
/// How old the marks in `replica.meta` may get.
const MARK_INTERVAL: Duration = Duration::from_secs(1);
/// Bytes of the log's files that are read at once.
const READ_BYTES: usize = 4 << 10;

impl World {
    /// A copy that is open.
    pub(super) fn copy(&mut self, node: usize, copy: CopyId) -> Option<&mut OpenCopy> {
        self.nodes[node].process.as_mut()?.slots.get_mut(&copy)?.open.as_mut()
    }

    /// A copy, if it is still this opening of it.
    pub(super) fn opening(&mut self, at: At) -> Option<&mut OpenCopy> {
        self.nodes[at.node].process.as_mut()?.open(at.copy, at.opening)
    }

    /// Lets a copy's protocol take an event.
    pub(super) fn step(&mut self, node: usize, copy: CopyId, event: Happened) {
        let now = self.nodes[node].now(self.time);
        let Some(open) = self.copy(node, copy) else { return };
        open.driver.step(event, now);
        self.proceed(node, copy);
    }

    /// A message of another copy.
    pub(super) fn letter_arrives(&mut self, node: usize, shard: ShardId, letter: Letter) {
        let now = self.nodes[node].now(self.time);
        let copy = (shard, letter.to);
        let Some(open) = self.copy(node, copy) else { return };
        open.driver.receive(letter, now);
        self.proceed(node, copy);
    }

    /// A copy looks at its clock.
    pub(super) fn tick(&mut self, at: At) {
        let Some(open) = self.opening(at) else { return };
        open.wake = None;
        self.step(at.node, at.copy, Happened::Tick);
    }

    /// Carries out what a driver wants, begins the next turn of its store, and sets its alarm clock.
    pub(super) fn proceed(&mut self, node: usize, copy: CopyId) {
        self.carry_out_all(node, copy);
        self.observe(node, copy);
        self.begin_turn(node, copy);
        self.carry_out_all(node, copy);
        self.observe(node, copy);
        let (now, clock, time) = (self.nodes[node].now(self.time), self.nodes[node].clock, self.time);
        let Some(open) = self.copy(node, copy) else { return };
        let wake = clock.when(time, open.driver.core().wakes_at(now)).max(time + Duration::from_millis(1));
        if open.wake.is_none_or(|planned| wake < planned) {
            open.wake = Some(wake);
            let at = At { node, copy, opening: open.opening };
            self.schedule.at(wake, Event::Tick(at));
        }
    }

    fn carry_out_all(&mut self, node: usize, copy: CopyId) {
        while let Some(effect) = self.copy(node, copy).and_then(|open| open.driver.next_effect()) {
            self.carry_out(node, copy, effect);
        }
    }

    fn carry_out(&mut self, node: usize, copy: CopyId, effect: Effect<Writer, Reader>) {
        match effect {
            Effect::Post { to, message, records, enclosed } => {
                let letter = Letter { from: copy.1, to, message, records, enclosed };
                self.post(node, copy, letter);
            }
            Effect::Read(to, append) => {
                let now = self.nodes[node].now(self.time);
                let (first, bytes) = (append.prev.lsn.next(), READ_BYTES.min(self.settings.message_bytes));
                let open = self.copy(node, copy).expect("it has an effect");
                let read = open.log_reader.read(first, bytes);
                let open = self.copy(node, copy).expect("it has an effect");
                match read {
                    Err(failure) if failure.is_lasting() => self.failed(node, copy, &failure),
                    read => open.driver.on_read(to, append, read.ok(), now),
                }
            }
            Effect::Propose { number, compared, change, guards } => {
                self.propose(
                    node,
                    copy,
                    number,
                    Ask::Change {
                        shard: copy.0,
                        by: (self.nodes[node].id.clone(), crate::ids::Session(0)),
                        compared,
                        change,
                        guards,
                    },
                );
            }
            Effect::Reload => {
                let opening = self.copy(node, copy).expect("it has an effect").opening;
                self.ask_store(node, Purpose::Reload(copy, opening), Ask::Shard(copy.0));
            }
            Effect::Answer(writer, outcome) => self.answer_write(node, writer, outcome),
            Effect::Confirmed(reader, position) => self.confirmed(node, copy, reader, position),
            Effect::HandedOver(outcome) => self.handed_over(node, copy, outcome.map(drop)),
            Effect::Lead(epoch) => {
                let process = self.nodes[node].process.as_ref().expect("it runs").number;
                self.took_effect("reign");
                self.tell_of(node, copy, || format!("leads {epoch}"));
                self.ledger.leads(copy, epoch, process);
            }
            Effect::Resign(epoch) => self.tell_of(node, copy, || format!("leads {epoch} no more")),
            Effect::Fetch(from) => {
                let open = self.copy(node, copy).expect("it has an effect");
                if open.turn.is_none() {
                    self.close(node, copy);
                    let process = self.nodes[node].process.as_mut().expect("it runs");
                    process.slots.entry(copy).or_default().needs_snapshot = Some(from);
                }
            }
            Effect::Cut { to, end } => {
                self.tell_of(node, copy, || format!("cuts {end} to {to}"));
                let open = self.copy(node, copy).expect("it has an effect");
                open.seen.cut = Some(open.seen.cut.map_or(to, |cut| cut.min(to)));
            }
            Effect::Alarm(alarm) => {
                self.tell_of(node, copy, || format!("{alarm:?}"));
                self.ledger.alarm(copy, alarm);
            }
            Effect::Differs { other, at, .. } => self.ledger.differs(copy, other, at),
        }
    }

    fn post(&mut self, node: usize, copy: CopyId, letter: Letter) {
        let process = self.nodes[node].process.as_ref().expect("it runs");
        let record = process.view.shards.get(&copy.0);
        let to = record.and_then(|record| record.replica(letter.to)).map(|replica| replica.node.clone());
        if let Message::Reply(reply) = &letter.message {
            let promised =
                process.slots[&copy].open.as_ref().expect("it has an effect").store.meta().promised_epoch;
            self.ledger.replied(copy, reply.epoch, promised);
        }
        let is_full =
            self.settings.full_queue_one_in > 0 && self.random.one_in(self.settings.full_queue_one_in);
        match to.filter(|_| !is_full) {
            Some(to) => {
                let to = self.index_of(&to);
                self.send(Place::Node(node), Place::Node(to), Body::Letter(copy.0, Box::new(letter)));
            }
            None => {
                let now = self.nodes[node].now(self.time);
                let open = self.copy(node, copy).expect("it has an effect");
                open.driver.not_sent(letter.to, &letter.message, now);
            }
        }
    }

    fn propose(&mut self, node: usize, copy: CopyId, number: u64, ask: Ask) {
        let process = self.nodes[node].process.as_ref().expect("it runs");
        let opening = process.slots[&copy].open.as_ref().expect("it asks").opening;
        let Some((session, _)) = process.session.held else {
            return self.step(node, copy, Happened::Proposed(number, Outcome::NotMade));
        };
        let Ask::Change { shard, by: (name, _), compared, change, guards } = ask else {
            unreachable!("asked above")
        };
        let ask = Ask::Change { shard, by: (name, session), compared, change, guards };
        self.ask_store(node, Purpose::Propose(copy, opening, number), ask);
    }

    /// The store answered a change that a copy asked for.
    pub(super) fn proposed(&mut self, node: usize, (copy, opening): (CopyId, u64), number: u64, told: &Told) {
        let outcome = match told {
            Told::Done(revision) => Outcome::Made(*revision),
            _ => Outcome::NotMade,
        };
        if self.opening(At { node, copy, opening }).is_some() {
            self.step(node, copy, Happened::Proposed(number, outcome));
        }
    }

    /// Nobody knows what became of a change that a copy asked for.
    pub(super) fn proposal_unknown(&mut self, node: usize, (copy, opening): (CopyId, u64), number: u64) {
        self.took_effect("unknown outcome of a change");
        if self.opening(At { node, copy, opening }).is_some() {
            self.step(node, copy, Happened::Proposed(number, Outcome::Unknown));
        }
    }

    /// Begins a turn of the store when none is under way and there is something to do.
    fn begin_turn(&mut self, node: usize, copy: CopyId) {
        let now = self.nodes[node].now(self.time);
        let checkpoint_bytes = self.settings.checkpoint_bytes;
        let Some(open) = self.copy(node, copy) else { return };
        if open.turn.is_some() {
            return;
        }
        let writes: Vec<Write<Writer>> = (0..GROUP_BATCHES).map_while(|_| open.intake.pop_front()).collect();
        if let Some(job) = open.driver.next_job(writes, now) {
            return self.begin_job(node, copy, job);
        }
        match std::mem::take(&mut open.checkpoint) {
            Checkpointing::Idle if open.store.checkpoint_debt_bytes() >= checkpoint_bytes => {
                self.begin_checkpoint(node, copy);
            }
            Checkpointing::Written(written) => {
                let finished = open.store.finish_checkpoint(written);
                self.other_turn(node, copy, finished.map(drop), "checkpoint");
            }
            other => {
                open.checkpoint = other;
                if now.monotonic >= open.marked + MARK_INTERVAL {
                    open.marked = now.monotonic;
                    let needed = open.driver.needed_from(now);
                    let saved = open.store.keep_from(needed).and_then(|()| open.store.save_marks());
                    self.other_turn(node, copy, saved, "marks");
                }
            }
        }
    }

    fn begin_job(&mut self, node: usize, copy: CopyId, job: Job) {
        let now = self.nodes[node].now(self.time);
        let open = self.copy(node, copy).expect("it has a job");
        let (begun, commit) = (job.begin(&mut open.store), open.driver.core().commit());
        if let Some(to) = open.seen.cut.take() {
            // Files hold whole batches; and a cut that failed may have been done.
            let kept = if begun.is_ok() { to.min(open.store.durable()) } else { to.min(commit) };
            self.ledger.cut(copy, kept);
        }
        let open = self.copy(node, copy).expect("it has a job");
        match begun {
            Ok(prelude) => {
                open.applied = prelude.applied;
                let (digest, applied) = (open.store.digest(), prelude.applied);
                let ticket = open.driver.on_prelude(prelude, now);
                open.turn = Some(Turn::Sync(ticket));
                self.ledger.applied(copy, applied, digest);
                self.plan_end_of_turn(node, copy);
                self.serve_waiting(node, copy);
            }
            Err(failure) => self.failed(node, copy, &failure),
        }
    }

    fn plan_end_of_turn(&mut self, node: usize, copy: CopyId) {
        let sync_time = self.nodes[node].sync_time;
        let takes = sync_time / 2 + self.random.about(sync_time / 2);
        if takes > Duration::from_millis(200) {
            self.took_effect("slow sync");
        }
        let opening = self.copy(node, copy).expect("it has a turn").opening;
        self.schedule.at(self.time + takes, Event::TurnEnds(At { node, copy, opening }));
    }

    /// A turn that is over but for the time it takes.
    fn other_turn(
        &mut self,
        node: usize,
        copy: CopyId,
        outcome: Result<(), StorageError>,
        what: &'static str,
    ) {
        let open = self.copy(node, copy).expect("it has a turn");
        let is_poisoned = open.store.is_poisoned();
        open.turn = Some(Turn::Other);
        match outcome {
            Err(failure) if is_poisoned => self.failed(node, copy, &failure),
            Err(_) => {
                self.took_effect(what);
                self.plan_end_of_turn(node, copy);
            }
            Ok(()) => self.plan_end_of_turn(node, copy),
        }
    }

    /// A turn of a copy's store ends.
    pub(super) fn turn_ends(&mut self, at: At) {
        let (node, copy) = (at.node, at.copy);
        let now = self.nodes[node].now(self.time);
        let process = self.nodes[node].process.as_mut();
        let Some(open) = process.and_then(|process| process.open(copy, at.opening)) else { return };
        let Some(turn) = open.turn.take() else { return };
        let ended = match turn {
            Turn::Sync(_) => open.store.sync(),
            Turn::Other => Ok(()),
        };
        if let Err(failure) = ended {
            return self.failed(node, copy, &failure);
        }
        let durable = open.store.durable();
        let OpenCopy { log_reader, store, driver, .. } = open;
        let read = self.ledger.durable(copy, durable, log_reader);
        driver.look_at(store, now);
        if let Turn::Sync(ticket) = turn {
            driver.on_durable(ticket, durable, now);
        }
        if let Err(failure) = read {
            return self.failed(node, copy, &failure);
        }
        let wants = driver.core().wants_snapshot();
        if let Some(from) = wants {
            self.close(node, copy);
            let process = self.nodes[node].process.as_mut().expect("it runs");
            process.slots.entry(copy).or_default().needs_snapshot = Some(from);
        }
        self.proceed(node, copy);
    }

    fn begin_checkpoint(&mut self, node: usize, copy: CopyId) {
        let open = self.copy(node, copy).expect("it has a checkpoint");
        match open.store.begin_checkpoint() {
            Ok(Some(job)) => {
                open.checkpoint = Checkpointing::Writing(Some(Box::new(job)));
                let at = At { node, copy, opening: open.opening };
                let takes = self.random.between(Duration::from_millis(5), Duration::from_millis(300));
                self.schedule.at(self.time + takes, Event::CheckpointWritten(at));
            }
            Ok(None) => {}
            Err(failure) if open.store.is_poisoned() => self.failed(node, copy, &failure),
            Err(_) => self.took_effect("checkpoint that could not begin"),
        }
    }

    /// The files of a checkpoint are written.
    pub(super) fn checkpoint_written(&mut self, at: At) {
        let Some(open) = self.opening(at) else { return };
        let Checkpointing::Writing(job) = &mut open.checkpoint else { return };
        let job = job.take().expect("it is written once");
        open.checkpoint = Checkpointing::Written(job.run());
        self.proceed(at.node, at.copy);
    }

    /// Where a copy of a shard on a node says that it stands.
    pub(super) fn report(&mut self, node: usize, shard: ShardId) -> Option<Report> {
        let process = self.nodes[node].process.as_ref()?;
        let open = process
            .slots
            .iter()
            .filter(|(copy, _)| copy.0 == shard)
            .find_map(|(copy, slot)| Some((copy.1, slot.open.as_ref()?)));
        let (replica, open): (ReplicaId, &OpenCopy) = open?;
        let core = open.driver.core();
        let last = core.log().position(core.log().durable).unwrap_or_default();
        let last = Position { epoch: last.epoch, lsn: last.lsn };
        let (tail_was_cut, is_proven) = (core.tail_was_cut(), core.is_proven());
        Some(Report { replica, last, commit: core.commit(), tail_was_cut, is_proven })
    }
}
