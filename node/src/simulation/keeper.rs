//! A process and its copies: it opens, closes, fetches and deletes them as the records say.
//!
//! As `shard::keeper` does it, with the same decisions ([`next_step`], [`judge_directory`]).

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use super::meta_store::{Ask, DiskOpening, News};
use super::network::Place;
use super::node::{Checkpointing, CopyId, OpenCopy, Process, Purpose, Seen, SessionState, View};
use super::settings::{CLUSTER, DIMENSION, LEAVING_GRACE};
use super::world::{Body, Event, Parcel, World};
use crate::cluster::view::{Replica, Shard};
use crate::replication::driver::{Driver, Terms};
use crate::replication::{Change, Event as Happened};
use crate::runtime::disk::Disk;
use crate::shard::configuration::configuration_of;
use crate::shard::decide::{DirectoryVerdict, Facts, Step, copies_on, judge_directory, next_step};
use crate::storage::{OpenReport, ReplicaIdentity, ReplicaMeta, StorageError, Store, StorePlace, data_dir};
use crate::table::{StorageType, TableState};

/// How often a process looks after its copies.
const TICK: Duration = Duration::from_millis(500);

impl World {
    /// A machine starts its process.
    pub(super) fn start(&mut self, node: usize) {
        if self.nodes[node].process.is_some() || self.nodes[node].is_kept_down {
            return;
        }
        let number = self.number();
        let machine = &mut self.nodes[node];
        // Who cannot read how often a disk was opened cannot know whether it went back.
        let opened = match data_dir::count_opening(&machine.disk) {
            Err(failure) if failure.is_lasting() => data_dir::give_up_older_image(&machine.disk),
            opened => opened,
        };
        let Ok(disk) = opened else {
            // A process that cannot use its disk ends, and is started again.
            return self.schedule.at(self.time + Duration::from_secs(1), Event::Start(node));
        };
        let predecessor_ended = machine.volume_boot.is_none_or(|boot| boot == machine.boot);
        if predecessor_ended {
            machine.volume_boot = Some(machine.boot);
        }
        machine.process = Some(Process {
            number,
            session: SessionState::default(),
            disk: DiskOpening { disk: disk.disk_id, opens: disk.opens, process: number },
            disk_is_proven: false,
            predecessor_ended,
            view: View::default(),
            slots: Default::default(),
            asked: Default::default(),
            sending: Default::default(),
        });
        self.tell(|| format!("n{node} starts process {number}"));
        self.schedule.at(self.time, Event::Beat(node, number));
        self.schedule.at(self.time + TICK, Event::Keep(node, number));
        self.watch(node);
    }

    /// A message arrives at a machine.
    pub(super) fn arrive_at_node(&mut self, node: usize, parcel: Parcel) {
        if self.nodes[node].process.is_none() {
            return;
        }
        match parcel.body {
            Body::Letter(shard, letter) => self.letter_arrives(node, shard, *letter),
            Body::Told(question, told) => self.node_told(node, question, *told),
            Body::News(question, news) => self.news_arrive(node, question, *news),
            Body::Request(request) => self.serve(node, *request),
            Body::Probe(question) => self.send(Place::Node(node), parcel.from, Body::Alive(question)),
            Body::Describe(question, shard) => {
                let report = self.report(node, shard);
                self.send(Place::Node(node), parcel.from, Body::Described(question, report));
            }
            Body::HandOver(question, shard, to) => self.hand_over(node, parcel.from, question, shard, to),
            Body::Fetch(question, shard) => self.begin_sending(node, parcel.from, question, shard),
            Body::Part(question, part) => self.part_arrives(node, question, part),
            Body::Ask(..)
            | Body::Answer(..)
            | Body::Alive(..)
            | Body::Described(..)
            | Body::HandedOver(..) => {}
        }
    }

    fn news_arrive(&mut self, node: usize, question: u64, news: News) {
        let process = self.nodes[node].process.as_mut().expect("it runs");
        if process.asked.remove(&question).is_none() {
            return;
        }
        let changed: Vec<Arc<Shard>> = news.shards.clone();
        process.view.take(news);
        for shard in changed {
            let copies: Vec<CopyId> = process_copies(self.nodes[node].process.as_ref(), &shard);
            for copy in copies {
                self.tell_record(node, copy, None, &shard);
            }
        }
        self.look_after_copies(node);
        self.watch(node);
    }

    /// Lets an open copy know its record; `opening`: only that opening of it.
    pub(super) fn tell_record(&mut self, node: usize, copy: CopyId, opening: Option<u64>, shard: &Shard) {
        let process = self.nodes[node].process.as_mut().expect("it runs");
        let open = process.slots.get(&copy).and_then(|slot| slot.open.as_ref());
        if open.is_some_and(|open| opening.is_none_or(|opening| opening == open.opening)) {
            self.step(node, copy, Happened::Configured(configuration_of(shard)));
        }
    }

    /// A process looks after its copies.
    pub(super) fn keep(&mut self, node: usize, process: u64) {
        if self.nodes[node].process.as_ref().is_none_or(|running| running.number != process) {
            return;
        }
        self.look_after_copies(node);
        self.schedule.at(self.time + TICK, Event::Keep(node, process));
    }

    fn look_after_copies(&mut self, node: usize) {
        let name = self.nodes[node].id.clone();
        let process = self.nodes[node].process.as_ref().expect("it runs");
        if !process.disk_is_proven {
            return;
        }
        let records: Vec<Arc<Shard>> = process.view.shards.values().cloned().collect();
        for record in records {
            let process = self.nodes[node].process.as_ref().expect("it runs");
            let known = process.slots.keys().filter(|copy| copy.0 == record.id).copied();
            let placed = copies_on(&record, &name).map(|replica| (record.id, replica.id));
            let copies: BTreeSet<CopyId> = known.chain(placed).collect();
            for copy in copies {
                self.look_after(node, copy, &record);
            }
        }
    }

    fn look_after(&mut self, node: usize, copy: CopyId, record: &Arc<Shard>) {
        let now = self.nodes[node].now(self.time);
        let name = self.nodes[node].id.clone();
        let entry = record.replica(copy.1).filter(|entry| entry.node == name).cloned();
        let process = self.nodes[node].process.as_mut().expect("it runs");
        let session = process.session.held.map(|(session, _)| session);
        let slot = process.slots.entry(copy).or_default();
        let leaves =
            entry.as_ref().is_some_and(|entry| entry.role == crate::cluster::view::ReplicaRole::Leaving);
        slot.leaving_since = if leaves { slot.leaving_since.or(Some(now.monotonic)) } else { None };
        if slot.is_busy || now.monotonic < slot.not_before {
            return;
        }
        let facts = Facts {
            is_open: slot.open.is_some(),
            is_damaged: slot.is_damaged,
            needs_snapshot: slot.needs_snapshot,
            leaving_for: slot.leaving_since.map(|since| now.monotonic.saturating_sub(since)),
            failing_for: slot.failing_since.map(|since| now.monotonic.saturating_sub(since)),
        };
        match next_step(record, copy.1, Some(TableState::Active), session, LEAVING_GRACE, facts) {
            Step::Wait => {}
            Step::Open => self.open(node, copy, record, &entry.expect("it is placed here")),
            Step::Fetch(from) => self.fetch(node, copy, record, from),
            Step::MarkDamaged => {
                let by = (name, session.expect("decided with one"));
                self.change_entry(node, copy, Ask::MarkDamaged { shard: copy.0, replica: copy.1, by });
            }
            Step::Abdicate => {
                let by = (name, session.expect("decided with one"));
                let (shard, compared, change) = (copy.0, record.mod_revision, Change::Abdicate);
                self.change_entry(
                    node,
                    copy,
                    Ask::Change { shard, by, compared, change, guards: Vec::new() },
                );
            }
            Step::Close => self.close(node, copy),
            Step::Remove => {
                self.close(node, copy);
                self.ledger.deleted(copy, self.store.content());
                let place = self.place(node, copy);
                if Store::remove(place.disk.as_ref(), &place.directory).is_ok() {
                    let by = (name, session.expect("decided with one"));
                    self.change_entry(node, copy, Ask::Withdraw { shard: copy.0, replica: copy.1, by });
                }
            }
        }
    }

    fn change_entry(&mut self, node: usize, copy: CopyId, ask: Ask) {
        let process = self.nodes[node].process.as_mut().expect("it runs");
        process.slots.entry(copy).or_default().is_busy = true;
        self.ask_store(node, Purpose::Entry(copy), ask);
    }

    /// A process was told whether its entry in a record was changed.
    pub(super) fn entry_changed(&mut self, node: usize, copy: CopyId, is_changed: bool) {
        let now = self.nodes[node].now(self.time);
        let process = self.nodes[node].process.as_mut().expect("it asked");
        let slot = process.slots.entry(copy).or_default();
        slot.is_busy = false;
        if !is_changed {
            slot.rest(now);
        }
    }

    /// Where a copy lies.
    pub(super) fn place(&self, node: usize, (shard, replica): CopyId) -> StorePlace {
        let disk: Arc<dyn Disk> = Arc::new(self.nodes[node].disk.clone());
        StorePlace { disk, directory: data_dir::replica_directory(shard, replica), rows: Default::default() }
    }

    /// Who a copy is.
    pub(super) fn identity(&self, (shard, replica): CopyId) -> ReplicaIdentity {
        ReplicaIdentity {
            cluster_uid: CLUSTER.to_owned(),
            shard,
            replica,
            dimension: DIMENSION,
            storage_type: StorageType::F32,
        }
    }

    fn open(&mut self, node: usize, copy: CopyId, record: &Arc<Shard>, entry: &Replica) {
        let now = self.nodes[node].now(self.time);
        match self.try_open(node, copy, record, entry) {
            Ok((store, report, is_new)) => self.opened(node, copy, record, store, report, is_new),
            Err(failure) => {
                self.tell_of(node, copy, || format!("cannot be opened: {failure:?}"));
                let process = self.nodes[node].process.as_mut().expect("it runs");
                let slot = process.slots.entry(copy).or_default();
                if failure.is_some() {
                    slot.failing_since.get_or_insert(now.monotonic);
                }
                slot.is_damaged = failure.is_none_or(|failure| failure.is_lasting());
                slot.rest(now);
            }
        }
    }

    /// The error is `None` when the copy's data is lost.
    fn try_open(
        &mut self,
        node: usize,
        copy: CopyId,
        record: &Shard,
        entry: &Replica,
    ) -> Result<(Store, OpenReport, bool), Option<StorageError>> {
        let (place, identity) = (self.place(node, copy), self.identity(copy));
        let mut meta = ReplicaMeta::read(place.disk.as_ref(), &place.directory)?;
        let is_new = match judge_directory(record, entry, meta.as_ref()) {
            DirectoryVerdict::Lost(_) => return Err(None),
            DirectoryVerdict::Refuse(reason) => {
                return Err(Some(StorageError::refused("opening".to_owned(), reason)));
            }
            DirectoryVerdict::Open => false,
            DirectoryVerdict::Format => {
                Store::format(&place, identity.clone())?;
                self.ledger.formatted(copy.1);
                meta = ReplicaMeta::read(place.disk.as_ref(), &place.directory)?;
                true
            }
        };
        let meta = meta.filter(|meta| meta.identity == identity).ok_or(None)?;
        let (store, report) = Store::open(place, meta)?;
        Ok((store, report, is_new))
    }

    fn opened(
        &mut self,
        node: usize,
        copy: CopyId,
        record: &Arc<Shard>,
        store: Store,
        report: OpenReport,
        is_new: bool,
    ) {
        let opening = self.number();
        self.tell_of(node, copy, || format!("opens: {report:?}"));
        let now = self.nodes[node].now(self.time);
        let process = self.nodes[node].process.as_mut().expect("it runs");
        let terms = Terms {
            tail_was_cut: report.tail_was_cut,
            predecessor_ended: process.predecessor_ended || report.clean_stop || is_new,
            timing: self.settings.timing,
            policy: self.settings.policy,
            rules: self.settings.rules,
            message_bytes: self.settings.message_bytes,
        };
        let positions = store.positions();
        let mut log_reader = store.log_reader();
        if let Err(failure) = self.ledger.opened(copy, &positions, &mut log_reader) {
            return self.failed(node, copy, &failure);
        }
        let open = OpenCopy {
            opening,
            driver: Driver::new(copy.1, &positions, terms, now),
            reader: store.reader(),
            log_reader,
            store,
            turn: None,
            intake: Default::default(),
            checkpoint: Checkpointing::Idle,
            wake: None,
            marked: now.monotonic,
            waiting: Vec::new(),
            hand_overs: Vec::new(),
            applied: positions.applied,
            seen: Seen { commit: positions.applied, cut: None },
        };
        let slot = process.slots.entry(copy).or_default();
        (slot.open, slot.is_damaged, slot.failing_since, slot.failures) = (Some(open), false, None, 0);
        let held = process.session.held;
        self.step(node, copy, Happened::Configured(configuration_of(record)));
        self.step(node, copy, Happened::Session(held));
    }

    /// Closes a copy in order.
    pub(super) fn close(&mut self, node: usize, copy: CopyId) {
        self.give_up_writes(node, copy, "the replica stopped before the write was committed");
        let process = self.nodes[node].process.as_mut().expect("it runs");
        let Some(open) = process.slots.get_mut(&copy).and_then(|slot| slot.open.take()) else { return };
        // What cannot be closed in order is opened as after a crash.
        let _ = open.store.close();
    }

    /// A copy's disk failed: it is opened again.
    pub(super) fn failed(&mut self, node: usize, copy: CopyId, failure: &StorageError) {
        self.tell_of(node, copy, || format!("fails: {failure} {}", cause_of(failure)));
        let now = self.nodes[node].now(self.time);
        self.give_up_writes(node, copy, "the replica failed before the write was committed");
        let process = self.nodes[node].process.as_mut().expect("it runs");
        let slot = process.slots.entry(copy).or_default();
        slot.open = None;
        slot.is_damaged = failure.is_lasting();
        slot.failing_since.get_or_insert(now.monotonic);
        slot.rest(now);
    }
}

fn cause_of(failure: &StorageError) -> String {
    std::error::Error::source(failure).map(ToString::to_string).unwrap_or_default()
}

fn process_copies(process: Option<&Process>, shard: &Shard) -> Vec<CopyId> {
    let slots = process.into_iter().flat_map(|process| process.slots.keys());
    slots.filter(|copy| copy.0 == shard.id).copied().collect()
}
