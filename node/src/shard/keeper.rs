//! The task behind [`super::IndexService`]: decides steps, starts them, takes in their results.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use super::decide::{Step, copies_on, next_step, served_on, snapshot_source};
use super::describing::describe_closed;
use super::disk_stage::{DiskStage, SharedDiskStage};
use super::fetch::fetch;
use super::index_service::{Found, IndexServiceParts, SharedTable};
use super::indexing::index_plan;
use super::links::Links;
use super::memory::NodeMemory;
use super::owner::{Ending, OwnerFailure};
use super::pace::Pace;
use super::records::Records;
use super::segment_indexes::SegmentIndexer;
use super::slot::{OpenCopy, Sight, Slot, end};
use super::step::{self, Opened, StepFailure};
use crate::cluster::view::{self, ClusterView, Shard};
use crate::error_code::{Error, ErrorCode};
use crate::ids::{ReplicaId, ShardId};
use crate::runtime::spawn_blocking;
use crate::table::{Table, TableState};

/// How often disk space is looked at, and what failed is tried again.
const TICK: Duration = Duration::from_secs(1);
/// Replicas that are opened at once: they read at the disk's speed.
const OPENS_MAX: usize = 4;
/// Reads of old log records for copies that are behind, at once.
const CATCH_UP_READS_MAX: usize = 2;
/// Graphs that are built at once: a build uses all cores.
const INDEX_BUILDS_MAX: usize = 1;
/// Segments whose metadata are indexed at once: what is half-built takes memory.
const METADATA_PASSES_MAX: usize = 1;
/// Snapshots that are fetched at once.
const FETCHES_MAX: usize = 1;

pub(super) struct Keeper {
    parts: IndexServiceParts,
    records: Records,
    links: Arc<Links>,
    table: SharedTable,
    slots: HashMap<CopyId, Slot>,
    steps: JoinSet<(CopyId, StepDone)>,
    owners: JoinSet<(CopyId, Result<Ending, OwnerFailure>)>,
    open_permits: Arc<Semaphore>,
    checkpoint_permits: Arc<Semaphore>,
    index_permits: Arc<Semaphore>,
    metadata_permits: Arc<Semaphore>,
    catch_up_permits: Arc<Semaphore>,
    pace: Pace,
    fetch_permits: Arc<Semaphore>,
    disk_stage: SharedDiskStage,
    all_opened: watch::Sender<bool>,
    cancel: CancellationToken,
}

/// A copy of a shard.
type CopyId = (ShardId, ReplicaId);

enum StepDone {
    Opened(Result<Box<Opened>, StepFailure>),
    Fetched(Result<(), StepFailure>),
    Marked(Sight, Result<(), StepFailure>),
    Abdicated(Sight, Result<(), StepFailure>),
    Closed,
    Removed(Sight, Result<(), StepFailure>),
}

impl Keeper {
    pub(super) fn new(
        parts: IndexServiceParts,
        table: SharedTable,
        links: Arc<Links>,
        (checkpoint_permits, pace, disk_stage): (Arc<Semaphore>, Pace, SharedDiskStage),
        all_opened: watch::Sender<bool>,
        cancel: CancellationToken,
    ) -> Keeper {
        let records = Records {
            meta: parts.meta.clone(),
            keys: parts.keys.clone(),
            node: parts.node_id.clone(),
            view: parts.view.clone(),
        };
        let permits = |count| Arc::new(Semaphore::new(count));
        Keeper {
            parts,
            records,
            links,
            table,
            slots: HashMap::new(),
            steps: JoinSet::new(),
            owners: JoinSet::new(),
            open_permits: permits(OPENS_MAX),
            checkpoint_permits,
            index_permits: permits(INDEX_BUILDS_MAX),
            metadata_permits: permits(METADATA_PASSES_MAX),
            catch_up_permits: permits(CATCH_UP_READS_MAX),
            pace,
            fetch_permits: permits(FETCHES_MAX),
            disk_stage,
            all_opened,
            cancel,
        }
    }

    /// Until cancelled; then closes everything.
    pub(super) async fn run(mut self) {
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                biased;
                () = self.cancel.cancelled() => break,
                Some(done) = self.steps.join_next() => self.step_done(done.expect("steps do not panic")),
                Some(end) = self.owners.join_next() => self.owner_ended(end.expect("owners do not panic")),
                // The senders live as long as the node; without them there is nothing new.
                Ok(()) = self.parts.view.changed() => {}
                Ok(()) = self.parts.session.changed() => {}
                _ = tick.tick() => {
                    self.look_at_memory();
                    self.look_at_disk().await;
                }
            }
            self.start_steps();
            self.tell_when_all_opened();
        }
        self.stop().await;
    }

    async fn stop(mut self) {
        for open in self.slots.values().filter_map(|slot| slot.open.as_ref()) {
            open.cancel.cancel();
        }
        // A step that was begun ends by itself: disk and metadata store answer or fail. A snapshot may take long.
        self.fetch_permits.close();
        while self.steps.join_next().await.is_some() {}
        while let Some(end) = self.owners.join_next().await {
            if let Ok(((shard, _), Err(failure))) = end {
                warn!(%shard, error = %failure, "replica was not closed in order");
            }
        }
    }

    /// Tells every open copy its record, and starts the next step of every copy that has one and is not busy.
    fn start_steps(&mut self) {
        let view = self.parts.view.borrow_and_update().clone();
        let session = self.parts.session.borrow_and_update().map(|held| held.session);
        if view.cluster_uid.is_empty() {
            // A new directory is marked with it.
            return;
        }
        let node = &self.parts.node_id;
        let placed =
            view.shards.values().flat_map(|record| copies_on(record, node).map(|copy| (record.id, copy.id)));
        let copies: BTreeSet<CopyId> = placed.chain(self.slots.keys().copied()).collect();
        for copy in copies {
            // A record that is absent is no reason to do anything.
            let Some(record) = view.shards.get(&copy.0) else { continue };
            let entry = record.replica(copy.1).filter(|entry| entry.node == self.parts.node_id);
            // Those that are being deleted are found by id only.
            let table = view.tables_by_id.get(&copy.0.table);
            let sight = Sight { record: record.mod_revision, session };
            let slot = self.slots.entry(copy).or_default();
            slot.tell(record);
            slot.tell_fields(table.map(Arc::as_ref));
            slot.note_leaving(entry);
            if slot.is_busy || slot.is_resting(sight) {
                continue;
            }
            let state = table.map(|table| table.state);
            let grace = self.parts.settings.leaving_grace;
            let step = next_step(record, copy.1, state, session, grace, slot.facts());
            self.begin(step, copy, &view, record, (entry, table.map(Arc::as_ref)), sight);
        }
    }

    fn begin(
        &mut self,
        step: Step,
        copy: CopyId,
        view: &ClusterView,
        record: &Arc<Shard>,
        (entry, table): (Option<&view::Replica>, Option<&Table>),
        sight: Sight,
    ) {
        let wanted = || {
            let (entry, table) = (entry?.clone(), table?);
            let (cluster_uid, schema) = (view.cluster_uid.clone(), table.schema.clone());
            let row_cache = self.parts.row_cache.clone();
            Some(step::Wanted { cluster_uid, record: record.clone(), entry, schema, row_cache })
        };
        match step {
            Step::Wait => {}
            Step::Open => {
                if let Some(wanted) = wanted() {
                    self.begin_open(copy, wanted);
                }
            }
            Step::Fetch(from) => {
                if let Some(wanted) = wanted() {
                    self.begin_fetch(copy, wanted, from);
                }
            }
            Step::MarkDamaged => self.begin_mark(copy, sight),
            Step::Abdicate => self.begin_abdicate(copy, sight),
            Step::Close => self.begin_close(copy),
            Step::Remove => self.begin_remove(copy, sight),
        }
    }

    /// Every replica of this node is open, or cannot be opened: then requests are welcome. Said once, on the first view
    /// that holds this node's session.
    fn tell_when_all_opened(&self) {
        let view = self.parts.view.borrow();
        let is_current = self.parts.session.borrow().is_some_and(|held| view.revision.0 >= held.session.0);
        if *self.all_opened.borrow() || !is_current {
            return;
        }
        let is_wanted = |record: &&Arc<Shard>| {
            let table = view.tables_by_id.get(&record.id.table);
            let is_there = table.is_some_and(|table| table.state != TableState::Deleting);
            is_there && served_on(record, &self.parts.node_id).is_some()
        };
        let is_settled = |record: &Arc<Shard>| {
            matches!(self.table.get(record.id), Some(Found::Open(_) | Found::Failed { .. }))
        };
        if view.shards.values().filter(is_wanted).all(is_settled) {
            self.all_opened.send_replace(true);
        }
    }

    fn begin_open(&mut self, copy: CopyId, wanted: step::Wanted) {
        self.slot(copy).is_busy = true;
        let shard = copy.0;
        let serves_reads = matches!(self.table.get(shard), Some(Found::Open(open)) if open.id() == copy.1);
        if !serves_reads {
            self.table.set(shard, Found::Opening);
        }
        let (disk, permits) = (self.parts.disk.clone(), self.open_permits.clone());
        let served = self.table.clone();
        self.steps.spawn(async move {
            let _permit = permits.acquire_owned().await.expect("never closed");
            if serves_reads {
                // Its disk failed. While that lasts it serves reads; then it goes first, to be in memory only once.
                if let Err(failure) = step::probe(disk.clone(), &wanted).await {
                    return (copy, StepDone::Opened(Err(failure)));
                }
                served.set(shard, Found::Opening);
            }
            (copy, StepDone::Opened(step::open(disk, wanted).await.map(Box::new)))
        });
    }

    /// Fetches a snapshot; every second try goes to the primary. `from`: who said that one is needed.
    fn begin_fetch(&mut self, copy: CopyId, wanted: step::Wanted, from: ReplicaId) {
        let asks_primary = &mut self.slot(copy).asks_primary;
        let is_turn_of_primary = std::mem::replace(asks_primary, !*asks_primary);
        let record = wanted.record.clone();
        let view = self.parts.view.borrow().clone();
        let source =
            snapshot_source(&record, copy.1, is_turn_of_primary, |node| view.nodes.contains_key(node));
        let Some(source) = source.or_else(|| record.replica(from)).map(|source| source.node.clone()) else {
            return;
        };
        self.slot(copy).is_busy = true;
        self.table.set(copy.0, Found::Opening);
        let (disk, comm) = (self.parts.disk.clone(), self.parts.comm.clone());
        let permits = self.fetch_permits.clone();
        self.steps.spawn(async move {
            // Closed when the node stops.
            let Ok(_permit) = permits.acquire_owned().await else {
                return (copy, StepDone::Fetched(Err(StepFailure::Panicked)));
            };
            let fetched = fetch(&comm, disk, &wanted, &source).await;
            (copy, StepDone::Fetched(fetched.map_err(StepFailure::Fetch)))
        });
    }

    fn begin_mark(&mut self, copy: CopyId, sight: Sight) {
        let Some(session) = sight.session else { return };
        self.slot(copy).is_busy = true;
        let records = self.records.clone();
        self.steps.spawn(async move {
            let marked = records.mark_damaged(copy.0, copy.1, session).await;
            (copy, StepDone::Marked(sight, marked.map_err(StepFailure::Record)))
        });
    }

    fn begin_abdicate(&mut self, copy: CopyId, sight: Sight) {
        let Some(session) = sight.session else { return };
        self.slot(copy).is_busy = true;
        let records = self.records.clone();
        self.steps.spawn(async move {
            let done = records.abdicate(copy.0, copy.1, session).await;
            (copy, StepDone::Abdicated(sight, done.map_err(StepFailure::Record)))
        });
    }

    fn begin_remove(&mut self, copy: CopyId, sight: Sight) {
        let Some(session) = sight.session else { return };
        let open = self.slot(copy).open.take();
        self.slot(copy).is_busy = true;
        self.forget_served(copy);
        let (records, disk) = (self.records.clone(), self.parts.disk.clone());
        self.steps.spawn(async move {
            end(open).await;
            let removed = step::remove(&records, disk, copy.0, copy.1, session).await;
            (copy, StepDone::Removed(sight, removed))
        });
    }

    fn begin_close(&mut self, copy: CopyId) {
        info!(shard = %copy.0, replica = %copy.1, "replica is not served here any more");
        self.forget_served(copy);
        let slot = self.slot(copy);
        slot.is_busy = true;
        let open = slot.open.take();
        self.steps.spawn(async move {
            end(open).await;
            (copy, StepDone::Closed)
        });
    }

    /// Requests find nothing more of the copy.
    fn forget_served(&mut self, copy: CopyId) {
        if matches!(self.table.get(copy.0), Some(Found::Open(open)) if open.id() == copy.1) {
            self.table.remove(copy.0);
        }
    }

    fn step_done(&mut self, (copy, done): (CopyId, StepDone)) {
        let shard = copy.0;
        self.slot(copy).is_busy = false;
        match done {
            StepDone::Opened(Ok(opened)) => self.opened(copy, *opened),
            StepDone::Opened(Err(failure)) => self.failed(copy, &failure),
            StepDone::Fetched(Ok(())) => self.slot(copy).needs_snapshot = None,
            StepDone::Fetched(Err(failure)) => {
                warn!(%shard, error = %failure, "snapshot could not be fetched");
                self.slot(copy).note_failure(false, failure.is_of_disk());
            }
            StepDone::Marked(_, Ok(())) => {
                warn!(%shard, replica = %copy.1, "replica is lost, and marked as damaged");
            }
            StepDone::Abdicated(_, Ok(())) => {
                warn!(%shard, replica = %copy.1, "its disk fails: another copy is to lead");
            }
            StepDone::Closed => {
                self.slots.remove(&copy);
            }
            StepDone::Removed(_, Ok(())) => {
                info!(%shard, replica = %copy.1, "replica deleted");
                self.slots.remove(&copy);
            }
            StepDone::Removed(sight, Err(failure))
            | StepDone::Marked(sight, Err(failure))
            | StepDone::Abdicated(sight, Err(failure))
                if failure.is_race() =>
            {
                self.slot(copy).rest_at(sight);
            }
            StepDone::Removed(_, Err(failure))
            | StepDone::Marked(_, Err(failure))
            | StepDone::Abdicated(_, Err(failure)) => {
                warn!(%shard, error = %failure, "replica could not be given up");
                self.slot(copy).rest();
            }
        }
        self.count();
    }

    fn opened(&mut self, copy: CopyId, opened: Opened) {
        let Opened { store, report, formatted, elapsed, wanted } = opened;
        let shard = copy.0;
        self.parts.metrics.open_seconds.observe(elapsed.as_secs_f64());
        self.parts.metrics.replayed_records.inc_by(report.records);
        let elapsed_ms = elapsed.as_millis() as u64;
        info!(
            %shard, replica = %copy.1, formatted, documents = report.documents, records = report.records,
            lsn = %report.applied, cut_bytes = report.cut_bytes, clean_stop = report.clean_stop, elapsed_ms,
            "replica opened"
        );
        let cancel = self.cancel.child_token();
        let index = index_plan(&wanted.schema, self.parts.kernels);
        let (tell, record) = watch::channel(wanted.record);
        let (tell_fields, fields) = watch::channel(wanted.schema.metadata_indexes);
        let settings = &self.parts.settings;
        let context = step::OwnerContext {
            shard,
            metric: wanted.schema.metric,
            session: self.parts.session.clone(),
            record,
            records: self.records.clone(),
            links: self.links.clone(),
            checkpoint_log_bytes: settings.checkpoint_log_bytes.clone(),
            checkpoint_permits: self.checkpoint_permits.clone(),
            index,
            index_permits: self.index_permits.clone(),
            catch_up_permits: self.catch_up_permits.clone(),
            pace: self.pace.clone(),
            disk_stage: self.disk_stage.clone(),
            memory: settings.memory.clone(),
            policy: settings.policy,
            timing: settings.timing,
            predecessor_ended: settings.predecessor_ended || report.clean_stop || formatted,
            tail_was_cut: report.tail_was_cut,
            metrics: self.parts.metrics.clone(),
            cancel: cancel.clone(),
        };
        let (replica, owner) = step::employ(store, context);
        let (compute, metrics) = (self.parts.compute.clone(), self.parts.metrics.clone());
        let permits = self.metadata_permits.clone();
        let indexer = SegmentIndexer::new(replica.clone(), fields, compute, permits, metrics);
        // A task of its own, so that it never holds up the owner; it ends with it.
        let mut indexing = JoinSet::new();
        indexing.spawn(indexer.run());
        self.owners.spawn(async move {
            let end = owner.run().await;
            if let Some(Err(failure)) = indexing.join_next().await {
                error!(%shard, error = %failure, "the task that indexes metadata panicked");
            }
            (copy, end)
        });
        self.table.set(shard, Found::Open(replica.clone()));
        let slot = self.slot(copy);
        slot.open = Some(OpenCopy { replica, record: tell, fields: tell_fields, cancel });
        (slot.is_damaged, slot.failing_since, slot.not_before) = (false, None, None);
    }

    fn failed(&mut self, copy: CopyId, failure: &StepFailure) {
        let code = match failure.is_damage() {
            true => ErrorCode::ShardDamaged,
            false => ErrorCode::ShardUnavailable,
        };
        let shard = copy.0;
        error!(%shard, replica = %copy.1, error = %failure, "replica could not be opened");
        let message = format!("shard {}: {failure}", shard.index);
        // A replica that failed while it served goes on serving reads.
        if !matches!(self.table.get(shard), Some(Found::Open(_))) {
            let status = match failure {
                StepFailure::Refused { meta, .. } => Some(describe_closed(meta, message.clone()).into()),
                _ => None,
            };
            self.table.set(shard, Found::Failed { error: Error::new(code, message), status });
        }
        let slot = self.slot(copy);
        slot.note_failure(failure.is_damage(), failure.is_of_disk());
    }

    /// An owner ended by itself: its storage failed, or it needs a snapshot. The replica is opened again.
    fn owner_ended(&mut self, (copy, outcome): (CopyId, Result<Ending, OwnerFailure>)) {
        let shard = copy.0;
        let slot = self.slot(copy);
        if slot.open.is_none() {
            return;
        }
        match outcome {
            Ok(Ending::Cancelled) => {}
            Ok(Ending::NeedsSnapshot(from)) => {
                slot.open = None;
                slot.needs_snapshot = Some(from);
                self.forget_served(copy);
            }
            Err(failure) => {
                slot.open = None;
                slot.note_failure(failure.is_damage(), failure.is_of_disk());
                warn!(%shard, error = %failure, "replica will be opened again");
            }
        }
        self.count();
    }

    fn look_at_memory(&self) {
        let open = self.slots.values().filter_map(|slot| slot.open.as_ref());
        let ledger = &self.parts.settings.memory;
        ledger.note_held(open.map(|open| open.replica.memory_bytes()).sum());
        let NodeMemory { limit, held, reserved } = ledger.memory();
        self.parts.metrics.memory_limit_bytes.set(limit as i64);
        self.parts.metrics.memory_held_bytes.set(held as i64);
        self.parts.metrics.memory_reserved_bytes.set(reserved as i64);
    }

    async fn look_at_disk(&mut self) {
        let disk = self.parts.disk.clone();
        let space = match spawn_blocking(move || disk.space()).await {
            Ok(Ok(space)) => space,
            Ok(Err(failure)) => return warn!(error = %failure, "space of the data volume is unknown"),
            Err(_) => return,
        };
        let stage = self.parts.settings.disk_thresholds.stage(space);
        let before = self.disk_stage.set(stage);
        self.parts.metrics.disk_free_bytes.set(space.free_bytes as i64);
        self.parts.metrics.disk_stage.set(stage as i64);
        let (free_bytes, capacity_bytes) = (space.free_bytes, space.capacity_bytes);
        match (before, stage) {
            (before, stage) if before == stage => {}
            (_, DiskStage::Normal) => info!(free_bytes, capacity_bytes, "data volume has room again"),
            (_, DiskStage::Warn) => warn!(free_bytes, capacity_bytes, "data volume fills up"),
            (_, DiskStage::NoCopies) => {
                warn!(free_bytes, capacity_bytes, "data volume fills up, the node takes no new copies");
            }
            (_, DiskStage::Refuse) => {
                error!(free_bytes, capacity_bytes, "data volume is nearly full, upserts are refused");
            }
        }
    }

    fn slot(&mut self, copy: CopyId) -> &mut Slot {
        self.slots.entry(copy).or_default()
    }

    fn count(&self) {
        let open = self.slots.values().filter(|slot| slot.open.is_some()).count();
        let damaged = self.slots.values().filter(|slot| slot.is_damaged).count();
        self.parts.metrics.open.set(open as i64);
        self.parts.metrics.damaged.set(damaged as i64);
    }
}
