//! The task that owns a replica: it alone talks to the protocol's state machine and to the store.
//!
//! Everything that happens becomes an event of [`replication::Replica`]; its commands are carried out here. The store is
//! lent to a blocking thread for one turn at a time ([`Lane`]): while a group is being synced, further writes gather and
//! other replicas are answered.

use std::collections::{HashMap, VecDeque};
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{Semaphore, mpsc, oneshot, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::{debug, error, warn};

use super::answers::not_written;
use super::catch_up::CatchUp;
use super::checkpointing::Checkpointing;
use super::configuration::configuration_of;
use super::disk_stage::{DiskStage, SharedDiskStage};
use super::indexing::Indexing;
use super::links::Links;
use super::marks::Marks;
use super::memory::MemoryLedger;
use super::metrics::ShardMetrics;
use super::pace::Pace;
use super::records::{RecordFailure, Records};
use super::replica::{ConfirmReply, ReplicaState, Request, SharedGrant, WriteReply, WriteRequest, closed};
use super::slow_disk::SlowDisk;
use super::turn::{Done, Lane, PinReply, Progress};
use super::write_room::TakenRoom;
use crate::cluster::HeldSession;
use crate::cluster::view::Shard;
use crate::ids::{Epoch, Lsn, ReplicaId, Session, ShardId};
use crate::replication::driver::{Driver, Letter, NotWritten, Prelude, Write};
use crate::replication::{DiskCondition, Event, NotAdmitted, Now, Outcome, Standing, Ticket};
use crate::runtime::clock::{boot_time, monotonic_time};
use crate::runtime::sync::spawn_blocking;
use crate::storage::indexing::IndexPlan;
use crate::storage::{StorageError, Store};

/// Messages that may wait for one replica.
pub(super) const MAILBOX_MESSAGES: usize = 1_024;
/// Writes that may wait for one replica.
pub(super) const MAILBOX_WRITES: usize = 256;
/// Bytes of records of one message.
pub(super) const MESSAGE_BYTES: usize = 1 << 20;
/// Timers count in milliseconds, and setting one wakes the thread that waits for the network: one that rings this much later
/// than it might is left as it is.
const ALARM_SLACK: Duration = Duration::from_millis(2);
/// A group takes no more batches when it has this many bytes of vectors and metadata.
const GROUP_BYTES: usize = 8 << 20;
/// A log takes nothing more when it has this many times the size that starts a checkpoint.
const CHECKPOINT_LAG_MAX: u64 = 8;

/// The owner of one replica.
pub(super) struct Owner {
    pub(super) shard: ShardId,
    pub(super) id: ReplicaId,
    pub(super) driver: Driver<Writer, ConfirmReply>,
    pub(super) lane: Lane,
    pub(super) catch_up: CatchUp,
    writes: mpsc::Receiver<WriteRequest>,
    intake: VecDeque<WriteRequest>,
    pub(super) hand_overs: Vec<oneshot::Sender<Result<Epoch, NotAdmitted>>>,
    mailbox: mpsc::Receiver<Request>,
    pub(super) state: watch::Sender<ReplicaState>,
    pub(super) grant: SharedGrant,
    /// The node's session, and how it was told last.
    session: watch::Receiver<Option<HeldSession>>,
    known_session: Option<HeldSession>,
    pub(super) record: watch::Receiver<Arc<Shard>>,
    pub(super) records: Records,
    pub(super) changes: JoinSet<Changed>,
    pub(super) links: Arc<Links>,
    pub(super) checkpoint_log_bytes: watch::Receiver<u64>,
    /// Checkpoints of this node that may run at once.
    pub(super) checkpoint_permits: Arc<Semaphore>,
    pub(super) checkpoint: Checkpointing,
    pub(super) no_checkpoint_before: Option<Instant>,
    pub(super) indexing: Indexing,
    pins: VecDeque<PinReply>,
    /// Its content differs from that of another copy: it stops.
    pub(super) diverged: Option<OwnerFailure>,
    /// How far other copies have applied, for people.
    pub(super) applied_at: HashMap<ReplicaId, Lsn>,
    pub(super) marks: Marks,
    /// How full the volume is, and whether this copy said that it leaves.
    disk_stage: SharedDiskStage,
    pub(super) memory: MemoryLedger,
    told_condition: DiskCondition,
    slow_disk: SlowDisk,
    pub(super) sync_began: Instant,
    debt_bytes: u64,
    pub(super) metrics: ShardMetrics,
    cancel: CancellationToken,
}

/// Whom to tell of a write, and the room that it holds until then.
pub(super) type Writer = (WriteReply, TakenRoom);

/// What an owner is made of, beside its store.
pub(super) struct OwnerParts {
    pub(super) shard: ShardId,
    pub(super) id: ReplicaId,
    pub(super) driver: Driver<Writer, ConfirmReply>,
    pub(super) writes: mpsc::Receiver<WriteRequest>,
    pub(super) mailbox: mpsc::Receiver<Request>,
    pub(super) state: watch::Sender<ReplicaState>,
    pub(super) grant: SharedGrant,
    pub(super) session: watch::Receiver<Option<HeldSession>>,
    pub(super) record: watch::Receiver<Arc<Shard>>,
    pub(super) records: Records,
    pub(super) links: Arc<Links>,
    pub(super) checkpoint_log_bytes: watch::Receiver<u64>,
    pub(super) checkpoint_permits: Arc<Semaphore>,
    pub(super) index: Option<IndexPlan>,
    pub(super) index_permits: Arc<Semaphore>,
    pub(super) catch_up_permits: Arc<Semaphore>,
    pub(super) pace: Pace,
    pub(super) disk_stage: SharedDiskStage,
    pub(super) memory: MemoryLedger,
    pub(super) metrics: ShardMetrics,
    pub(super) cancel: CancellationToken,
}

/// An answer of the metadata store.
pub(super) enum Changed {
    Proposed(u64, Outcome),
    Reloaded(Result<Shard, RecordFailure>),
}

/// How an owner ends when nothing failed.
#[derive(Debug)]
pub(super) enum Ending {
    /// It was told to.
    Cancelled,
    /// Its log is too old: it needs a snapshot of this replica, or of another one in sync.
    NeedsSnapshot(ReplicaId),
}

/// The replica cannot go on; it has to be opened again.
#[derive(Debug, thiserror::Error)]
pub(super) enum OwnerFailure {
    /// Its disk failed.
    #[error("storage failed: {}", chain(.0))]
    Storage(#[source] StorageError),
    /// A bug of ours.
    #[error("the storage thread panicked")]
    Panicked,
    /// Its content differs from the primary's.
    #[error("the content at position {0} differs from the primary's")]
    Diverged(Lsn),
}

impl OwnerFailure {
    /// The data itself is the problem.
    pub(super) fn is_damage(&self) -> bool {
        match self {
            OwnerFailure::Storage(error) => error.is_lasting(),
            OwnerFailure::Panicked | OwnerFailure::Diverged(_) => false,
        }
    }

    /// The disk did not do what it was told.
    pub(super) fn is_of_disk(&self) -> bool {
        matches!(self, OwnerFailure::Storage(_))
    }
}

/// An error with its causes, on one line.
pub(super) fn chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(error.source(), |error| error.source());
    causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}

pub(super) fn now() -> Now {
    Now { monotonic: monotonic_time(), boot: boot_time() }
}

impl Owner {
    pub(super) fn new(parts: OwnerParts, store: Store) -> Owner {
        Owner {
            shard: parts.shard,
            id: parts.id,
            driver: parts.driver,
            catch_up: CatchUp::new(store.log_reader(), parts.catch_up_permits, parts.pace),
            debt_bytes: store.checkpoint_debt_bytes(),
            indexing: Indexing::new(store.index_place(), parts.index, parts.index_permits),
            lane: Lane::new(store),
            writes: parts.writes,
            intake: VecDeque::new(),
            hand_overs: Vec::new(),
            mailbox: parts.mailbox,
            state: parts.state,
            grant: parts.grant,
            session: parts.session,
            known_session: None,
            record: parts.record,
            records: parts.records,
            changes: JoinSet::new(),
            links: parts.links,
            checkpoint_log_bytes: parts.checkpoint_log_bytes,
            checkpoint_permits: parts.checkpoint_permits,
            checkpoint: Checkpointing::default(),
            no_checkpoint_before: None,
            pins: VecDeque::new(),
            diverged: None,
            applied_at: HashMap::new(),
            marks: Marks::default(),
            disk_stage: parts.disk_stage,
            memory: parts.memory,
            told_condition: DiskCondition::Well,
            slow_disk: SlowDisk::default(),
            sync_began: Instant::now(),
            metrics: parts.metrics,
            cancel: parts.cancel,
        }
    }

    /// Serves until cancelled or until it needs a snapshot (then the replica is closed in order), or until storage fails.
    pub(super) async fn run(mut self) -> Result<Ending, OwnerFailure> {
        let outcome = self.serve().await;
        if let Err(failure) = &outcome {
            error!(shard = %self.shard, error = %failure, "replica takes no more writes");
        }
        let why = match &outcome {
            Err(failure) => Some(failure.to_string()),
            Ok(_) => None,
        };
        self.grant.set(None);
        self.state.send_modify(|state| {
            state.leads = None;
            state.failure = why;
        });
        self.refuse_waiting();
        // It writes files that nothing names yet; whoever opens the replica next must not meet it.
        std::mem::take(&mut self.checkpoint).abandon().await;
        self.indexing.abandon().await;
        let ending = outcome?;
        while self.lane.store().is_none() {
            self.lane.progress().await?;
        }
        let store = self.lane.into_store().expect("it is here");
        let closed = spawn_blocking(move || store.close()).await.map_err(|_| OwnerFailure::Panicked)?;
        closed.map_err(OwnerFailure::Storage)?;
        Ok(ending)
    }

    /// Answers what waits: of what came late nothing was begun.
    fn refuse_waiting(&mut self) {
        self.driver.give_up("the replica stopped before the write was committed");
        self.carry_out_all();
        self.writes.close();
        let late = closed(self.shard, &self.state.borrow());
        while let Some(write) = self.intake.pop_front().or_else(|| self.writes.try_recv().ok()) {
            // A caller that has gone needs no answer.
            let _ = write.reply.send(Err(late.clone()));
        }
    }

    async fn serve(&mut self) -> Result<Ending, OwnerFailure> {
        self.take_record();
        let mut alarm = pin!(tokio::time::sleep(Duration::ZERO));
        loop {
            self.take_session();
            self.take_disk_stage();
            if let Some(failure) = self.diverged.take() {
                return Err(failure);
            }
            if let Some(from) = self.driver.core().wants_snapshot()
                && self.lane.store().is_some()
            {
                return Ok(Ending::NeedsSnapshot(from));
            }
            self.begin_turn_if_due()?;
            self.begin_indexing_if_due();
            self.publish();
            if self.lane.is_in_prelude() {
                // Short, and the log is ahead of what the protocol knows: nothing comes in between.
                let progress = self.lane.progress().await?;
                self.on_progress(progress)?;
                continue;
            }
            let wake = self.driver.core().wakes_at(now());
            let due = tokio::time::Instant::now() + wake.saturating_sub(monotonic_time());
            if alarm.is_elapsed() || due + ALARM_SLACK < alarm.deadline() {
                alarm.as_mut().reset(due);
            }
            tokio::select! {
                biased;
                () = self.cancel.cancelled() => return Ok(Ending::Cancelled),
                progress = self.lane.progress() => self.on_progress(progress?)?,
                progress = self.checkpoint.progress() => self.checkpoint = progress,
                () = self.indexing.progress() => {}
                Ok(()) = self.record.changed() => self.take_record(),
                Ok(()) = self.session.changed() => {}
                Some(changed) = self.changes.join_next() => self.on_changed(changed.map_err(|_| OwnerFailure::Panicked)?),
                Some(read) = self.catch_up.next() => self.on_read(read)?,
                request = self.mailbox.recv() => match request {
                    Some(request) => self.take(request)?,
                    None => return Ok(Ending::Cancelled),
                },
                Some(write) = self.writes.recv(), if self.intake.len() < MAILBOX_WRITES => {
                    self.intake.push_back(write);
                    while self.intake.len() < MAILBOX_WRITES && let Ok(write) = self.writes.try_recv() {
                        self.intake.push_back(write);
                    }
                }
                () = &mut alarm => self.step(Event::Tick),
            }
        }
    }

    fn take(&mut self, request: Request) -> Result<(), OwnerFailure> {
        match request {
            Request::Letter(letter) => self.on_letter(*letter),
            Request::Confirm(reply) => {
                self.driver.confirm(reply, now());
                self.carry_out_all();
            }
            Request::HandOver(to, reply) => {
                self.hand_overs.push(reply);
                self.step(Event::HandOver(to));
            }
            Request::Leave => {
                self.step(Event::HandOver(None));
                self.tell_condition(DiskCondition::Leaving);
            }
            Request::Describe(reply) => {
                let _ = reply.send(self.describe());
            }
            Request::Pin(reply) => self.pins.push_back(reply),
            Request::RowsFailed(error) => return Err(OwnerFailure::Storage(error)),
        }
        Ok(())
    }

    /// Other copies are told when the volume is too full to take more.
    fn take_disk_stage(&mut self) {
        if self.told_condition == DiskCondition::Leaving {
            return;
        }
        self.tell_condition(match self.disk_stage.get() {
            DiskStage::Normal | DiskStage::Warn | DiskStage::NoCopies => DiskCondition::Well,
            DiskStage::Refuse => DiskCondition::Full,
        });
    }

    fn tell_condition(&mut self, condition: DiskCondition) {
        if self.told_condition != condition {
            self.told_condition = condition;
            self.step(Event::Disk(condition));
        }
    }

    /// A primary whose disk has become slow lets another copy lead, if there is one.
    fn look_at_sync(&mut self) {
        let took = self.sync_began.elapsed();
        let is_slow = self.slow_disk.synced(took, monotonic_time());
        let others = self.driver.core().configuration().is_some_and(|known| known.isr.len() > 1);
        if is_slow && others && matches!(self.driver.core().standing(), Standing::Primary(_)) {
            let took_ms = took.as_millis() as u64;
            warn!(shard = %self.shard, took_ms, "the disk has become slow, another copy is to lead");
            self.step(Event::HandOver(None));
        }
    }

    /// Begins a turn of the store when it is here and there is something to do.
    fn begin_turn_if_due(&mut self) -> Result<(), OwnerFailure> {
        if self.lane.store().is_none() {
            return Ok(());
        }
        let writes = self.take_intake();
        let mut next = self.driver.next_job(writes, now());
        self.carry_out_all();
        while let Some(job) = next {
            if job.batches() > 0 {
                self.metrics.commit_batches.observe(job.batches() as f64);
            }
            let prelude = match self.lane.do_at_once(job) {
                Ok(done) => done.map_err(OwnerFailure::Storage)?,
                Err(job) => {
                    self.lane.begin_job(job);
                    return Ok(());
                }
            };
            let ticket = self.on_prelude(prelude);
            self.on_durable(ticket);
            next = self.driver.next_job([], now());
            self.carry_out_all();
        }
        if let Some(reply) = self.pins.pop_front() {
            self.lane.begin_other(move |store| Done::Pinned(store.pin_checkpoint(), reply));
        } else if !self.begin_checkpoint_turn_if_due() {
            self.begin_mark_if_due();
        }
        Ok(())
    }

    /// Writes of one group. A caller that has gone needs nothing; one that adds too much is refused.
    fn take_intake(&mut self) -> Vec<Write<Writer>> {
        let (mut writes, mut bytes) = (Vec::new(), 0);
        while bytes < GROUP_BYTES
            && let Some(write) = self.intake.pop_front()
        {
            if write.reply.is_closed() {
                continue;
            }
            if self.is_behind_with_checkpoints() && write.batch.adds() {
                let _ = write.reply.send(Err(not_written(self.shard, NotWritten::Overloaded)));
                continue;
            }
            bytes += write.batch.bytes();
            let WriteRequest { epoch, batch, room, reply } = write;
            writes.push(Write { epoch, batch, token: (reply, room) });
        }
        writes
    }

    /// Then deletes go on: they may be what makes a checkpoint possible again.
    fn is_behind_with_checkpoints(&self) -> bool {
        let limit = self.checkpoint_log_bytes.borrow().saturating_mul(CHECKPOINT_LAG_MAX);
        self.debt_bytes >= limit && matches!(self.driver.core().standing(), Standing::Primary(_))
    }

    fn on_progress(&mut self, progress: Progress) -> Result<(), OwnerFailure> {
        match progress {
            Progress::Prelude(prelude) => {
                let ticket = self.on_prelude(prelude);
                self.lane.set_ticket(ticket);
            }
            Progress::Done(done, ticket) => return self.on_done(done, ticket),
        }
        Ok(())
    }

    fn on_prelude(&mut self, prelude: Prelude) -> Ticket {
        let applied = prelude.applied;
        self.state.send_if_modified(|state| std::mem::replace(&mut state.applied, applied) != applied);
        let ticket = self.driver.on_prelude(prelude, now());
        self.sync_began = Instant::now();
        self.carry_out_all();
        ticket
    }

    fn on_done(&mut self, done: Done, ticket: Ticket) -> Result<(), OwnerFailure> {
        match done {
            Done::Job(outcome) => {
                if let Err(error) = outcome {
                    return Err(OwnerFailure::Storage(error));
                }
                self.look_at_sync();
                self.on_durable(ticket);
            }
            Done::Marked(outcome) => {
                if let Err(error) = outcome {
                    warn!(shard = %self.shard, error = chain(&error), "durable mark could not be saved");
                    self.marks.failed();
                }
                self.look_at_store();
                self.queue_checkpoint_if_due();
            }
            Done::CheckpointBegun(outcome) => self.checkpoint_begun(outcome)?,
            Done::CheckpointEnded(outcome, elapsed) => {
                self.checkpoint_ended(outcome, elapsed)?;
                self.look_at_store();
            }
            // Whoever asked may have gone: then it is not kept.
            Done::Pinned(pinned, reply) => drop(reply.send(pinned)),
        }
        Ok(())
    }

    /// A job is done, and the store is here.
    fn on_durable(&mut self, ticket: Ticket) {
        self.look_at_store();
        let durable = self.lane.store().map_or(Lsn::ZERO, Store::durable);
        self.driver.on_durable(ticket, durable, now());
        self.carry_out_all();
        self.queue_checkpoint_if_due();
    }

    /// Takes in what changed in the store: its sizes, its digest, where its log begins.
    fn look_at_store(&mut self) {
        let Some(store) = self.lane.store() else { return };
        let disk_bytes = store.disk_bytes();
        self.debt_bytes = store.checkpoint_debt_bytes();
        self.driver.look_at(store, now());
        self.state
            .send_if_modified(|state| std::mem::replace(&mut state.disk_bytes, disk_bytes) != disk_bytes);
        self.carry_out_all();
    }

    /// The node's session.
    pub(super) fn session(&self) -> Option<Session> {
        self.known_session.map(|held| held.session)
    }

    fn take_session(&mut self) {
        let held = *self.session.borrow_and_update();
        if held != self.known_session {
            self.known_session = held;
            let held = held.map(|held| (held.session, held.valid_until));
            self.step(Event::Session(held));
        }
    }

    fn take_record(&mut self) {
        let record = self.record.borrow_and_update().clone();
        self.step(Event::Configured(configuration_of(&record)));
    }

    fn on_changed(&mut self, changed: Changed) {
        match changed {
            Changed::Proposed(number, outcome) => self.step(Event::Proposed(number, outcome)),
            Changed::Reloaded(Ok(record)) => {
                self.step(Event::Configured(configuration_of(&record)));
            }
            Changed::Reloaded(Err(error)) => debug!(shard = %self.shard, %error, "record was not read"),
        }
    }

    /// A message of another replica.
    fn on_letter(&mut self, letter: Letter) {
        self.applied_at.insert(letter.from, letter.enclosed.applied);
        self.driver.receive(letter, now());
        self.carry_out_all();
    }
}
