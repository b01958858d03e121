//! The task that owns a replica: it alone talks to the protocol's state machine and to the store.
//!
//! Everything that happens becomes an event of [`replication::Replica`]; its commands are carried out here. The store is
//! lent to a blocking thread for one turn at a time ([`Lane`]): while a group is being synced, further writes gather and
//! other replicas are answered.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{Semaphore, mpsc, oneshot, watch};
use tokio::task::{JoinSet, spawn_blocking};
use tokio_util::sync::CancellationToken;
use tracing::{debug, error, info, warn};

use super::answers::{Answers, WriteReply, refuse};
use super::catch_up::CatchUp;
use super::checkpointing::Checkpointing;
use super::digests::Digests;
use super::job::{Job, LogTask, Prelude};
use super::links::Links;
use super::metrics::ShardMetrics;
use super::readers::Readers;
use super::records::{Asked, RecordFailure, Records, configuration_of};
use super::replica::{
    BUSY_PAUSE, ReplicaState, Request, SharedGrant, WriteRequest, closed, not_primary, refused_by,
};
use super::tail::Tail;
use super::turn::{Done, Lane, PinReply, Progress};
use super::wire::Letter;
use super::write_room::TakenRoom;
use crate::cluster::HeldSession;
use crate::cluster::view::Shard;
use crate::error_code::{Error, ErrorCode};
use crate::ids::{Epoch, Lsn, ReplicaId, Revision, Session, ShardId};
use crate::replication::{
    Alarm, Command, DiskCondition, Event, LogOperation, Message, NotAdmitted, Now, Outcome, Replica,
    Standing, Ticket,
};
use crate::runtime::clock::{boot_time, monotonic_time};
use crate::storage::{Batch, Membership, Operation, Record, RecordKind, StorageError, Store};

/// Messages that may wait for one replica.
pub(super) const MAILBOX_MESSAGES: usize = 1_024;
/// Writes that may wait for one replica.
pub(super) const MAILBOX_WRITES: usize = 256;
/// A group takes no more batches when it has this many bytes of vectors and metadata.
const GROUP_BYTES: usize = 8 << 20;
/// How old the durable mark in `replica.meta` may get.
const MARK_INTERVAL: Duration = Duration::from_secs(1);
/// A log takes nothing more when it has this many times the size that starts a checkpoint.
const CHECKPOINT_LAG_MAX: u64 = 8;

/// The owner of one replica.
pub(super) struct Owner {
    pub(super) shard: ShardId,
    pub(super) id: ReplicaId,
    pub(super) core: Replica,
    pub(super) lane: Lane,
    /// Operations for the log that no turn has taken yet, and where the log will end after them.
    tasks: Vec<LogTask>,
    log_end: Lsn,
    pub(super) tail: Tail,
    pub(super) catch_up: CatchUp,
    writes: mpsc::Receiver<WriteRequest>,
    intake: VecDeque<WriteRequest>,
    /// The writes of the turn that is under way, in order.
    judged: Vec<(WriteReply, TakenRoom)>,
    answers: Answers,
    pub(super) readers: Readers,
    hand_overs: Vec<oneshot::Sender<Result<Epoch, NotAdmitted>>>,
    mailbox: mpsc::Receiver<Request>,
    pub(super) state: watch::Sender<ReplicaState>,
    pub(super) grant: SharedGrant,
    /// The node's session, and how it was told last.
    session: watch::Receiver<Option<HeldSession>>,
    known_session: Option<HeldSession>,
    pub(super) record: watch::Receiver<Arc<Shard>>,
    records: Records,
    changes: JoinSet<Changed>,
    pub(super) links: Arc<Links>,
    pub(super) checkpoint_log_bytes: watch::Receiver<u64>,
    /// Checkpoints of this node that may run at once.
    pub(super) checkpoint_permits: Arc<Semaphore>,
    pub(super) checkpoint: Checkpointing,
    pub(super) no_checkpoint_before: Option<Instant>,
    pins: VecDeque<PinReply>,
    pub(super) digests: Digests,
    /// How far other copies have applied, for people.
    pub(super) applied_at: HashMap<ReplicaId, Lsn>,
    /// Who was in sync when the primary was heard last; saved with the next turn (R3).
    membership: Option<Membership>,
    /// How far the last turn tried to apply: an open batch is no reason for another turn.
    apply_tried: Lsn,
    marked: Instant,
    debt_bytes: u64,
    pub(super) metrics: ShardMetrics,
    cancel: CancellationToken,
}

/// What an owner is made of, beside its store.
pub(super) struct OwnerParts {
    pub(super) shard: ShardId,
    pub(super) id: ReplicaId,
    pub(super) core: Replica,
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
    pub(super) catch_up_permits: Arc<Semaphore>,
    pub(super) metrics: ShardMetrics,
    pub(super) cancel: CancellationToken,
}

/// An answer of the metadata store.
enum Changed {
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
        let positions = store.positions();
        Owner {
            shard: parts.shard,
            id: parts.id,
            core: parts.core,
            catch_up: CatchUp::new(store.log_reader(), parts.catch_up_permits),
            debt_bytes: store.checkpoint_debt_bytes(),
            lane: Lane::new(store),
            tasks: Vec::new(),
            log_end: positions.end,
            tail: Tail::default(),
            writes: parts.writes,
            intake: VecDeque::new(),
            judged: Vec::new(),
            answers: Answers::default(),
            readers: Readers::default(),
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
            digests: Digests::default(),
            applied_at: HashMap::new(),
            membership: None,
            apply_tried: positions.applied,
            marked: Instant::now(),
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
        self.answers.give_up(self.shard.index, "the replica stopped before the write was committed");
        let judged = std::mem::take(&mut self.judged);
        for (reply, _) in judged {
            let message = format!("shard {} stopped before it answered", self.shard.index);
            let _ = reply.send(Err(Error::new(ErrorCode::OutcomeUnknown, message)));
        }
        self.writes.close();
        let late = closed(self.shard, &self.state.borrow());
        while let Some(write) = self.intake.pop_front().or_else(|| self.writes.try_recv().ok()) {
            // A caller that has gone needs no answer.
            let _ = write.reply.send(Err(late.clone()));
        }
    }

    async fn serve(&mut self) -> Result<Ending, OwnerFailure> {
        self.take_record();
        loop {
            self.take_session();
            if let Some(from) = self.core.wants_snapshot()
                && self.lane.store().is_some()
            {
                return Ok(Ending::NeedsSnapshot(from));
            }
            self.begin_turn_if_due();
            self.publish();
            if self.lane.is_in_prelude() {
                // Short, and the log is ahead of what the protocol knows: nothing comes in between.
                let progress = self.lane.progress().await?;
                self.on_progress(progress)?;
                continue;
            }
            let wake = self.core.wakes_at(now());
            let pause = wake.saturating_sub(monotonic_time());
            tokio::select! {
                biased;
                () = self.cancel.cancelled() => return Ok(Ending::Cancelled),
                progress = self.lane.progress() => self.on_progress(progress?)?,
                progress = self.checkpoint.progress() => self.checkpoint = progress,
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
                () = tokio::time::sleep(pause) => self.step(Event::Tick, Vec::new()),
            }
        }
    }

    fn take(&mut self, request: Request) -> Result<(), OwnerFailure> {
        match request {
            Request::Letter(letter) => self.on_letter(*letter)?,
            Request::Confirm(reply) => {
                if let Some(id) = self.readers.ask(reply) {
                    self.step(Event::Confirm(id), Vec::new());
                }
            }
            Request::HandOver(to, reply) => {
                self.hand_overs.push(reply);
                self.step(Event::HandOver(to), Vec::new());
            }
            Request::Leave => {
                self.step(Event::HandOver(None), Vec::new());
                self.step(Event::Disk(DiskCondition::Leaving), Vec::new());
            }
            Request::Describe(reply) => {
                let _ = reply.send(self.describe());
            }
            Request::Pin(reply) => self.pins.push_back(reply),
        }
        Ok(())
    }

    /// Lets the protocol take an event, and carries its commands out.
    pub(super) fn step(&mut self, event: Event, records: Vec<Record>) {
        let mut commands = Vec::new();
        self.core.step(event, now(), &mut commands);
        let mut records = records;
        for command in commands {
            self.carry_out(command, &mut records);
        }
    }

    fn carry_out(&mut self, command: Command, records: &mut Vec<Record>) {
        match command {
            Command::Log(_, operation) => self.queue(operation, records),
            Command::Send(to, message) => self.send(to, message),
            // The next turn applies it.
            Command::Commit(_) => {}
            Command::Propose { number, compared, change, guards } => {
                let Some(held) = self.known_session else {
                    return self.step(Event::Proposed(number, Outcome::NotMade), Vec::new());
                };
                debug!(shard = %self.shard, ?change, "asks for a change of the record");
                let (records, shard) = (self.records.clone(), self.shard);
                let asked = Asked { compared, change, guards, session: held.session };
                self.changes
                    .spawn(async move { Changed::Proposed(number, records.change(shard, asked).await) });
            }
            Command::Reload => {
                let (records, shard) = (self.records.clone(), self.shard);
                self.changes.spawn(async move { Changed::Reloaded(records.read(shard).await) });
            }
            Command::Lead(epoch) => {
                self.metrics.epochs.inc();
                info!(shard = %self.shard, %epoch, replica = %self.id, "reign begun");
            }
            Command::Resign(epoch) => {
                warn!(shard = %self.shard, %epoch, replica = %self.id, "reign ended");
                self.answers.give_up(self.shard.index, "its primary changed before the write was committed");
            }
            Command::Confirmed(id, position) => {
                if let Some(next) = self.readers.answer(id, position) {
                    self.step(Event::Confirm(next), Vec::new());
                }
            }
            Command::HandedOver(outcome) => {
                for reply in self.hand_overs.drain(..) {
                    let _ = reply.send(outcome);
                }
            }
            // Seen by `wants_snapshot`.
            Command::Fetch(from) => info!(shard = %self.shard, %from, "log is too old, a snapshot is needed"),
            Command::Alarm(alarm) => self.alarm(alarm),
        }
    }

    fn alarm(&mut self, alarm: Alarm) {
        self.metrics.alarms.inc();
        match alarm {
            Alarm::DiskLied(replica) => {
                error!(shard = %self.shard, %replica, "a replica came back without records that it had said to be durable");
            }
            Alarm::LacksCommitted => {
                error!(shard = %self.shard, replica = %self.id, "this copy lacks records that are committed: its volume went back in time");
            }
            Alarm::StoreWentBack { shown, promised } => {
                error!(shard = %self.shard, %shown, %promised, "the metadata store was put back to an older state");
            }
        }
    }

    fn queue(&mut self, operation: LogOperation, records: &mut Vec<Record>) {
        match operation {
            LogOperation::Promise(epoch) => self.tasks.push(LogTask::Promise(epoch)),
            LogOperation::Cut(to) => {
                warn!(shard = %self.shard, %to, end = %self.log_end, "cuts records that are not in the primary's log");
                self.tail.cut(to);
                self.log_end = self.log_end.min(to);
                self.tasks.push(LogTask::Cut(to));
            }
            LogOperation::Receive(last) => {
                let end = self.log_end;
                let missing: Vec<Record> = records.drain(..).filter(|record| record.lsn > end).collect();
                assert_eq!(
                    missing.last().map(|record| record.lsn),
                    Some(last),
                    "a message carries its records"
                );
                self.tail.push(missing.iter().cloned());
                self.log_end = last;
                self.tasks.push(LogTask::Receive(missing));
            }
            LogOperation::StartEpoch(epoch) => {
                self.log_end = self.log_end.next();
                self.tasks.push(LogTask::StartEpoch(epoch));
            }
        }
    }

    /// Begins a turn of the store when it is here and there is something to do.
    fn begin_turn_if_due(&mut self) {
        let Some(store) = self.lane.store() else { return };
        let applied = store.applied();
        let commit = self.core.commit().min(self.core.log().durable);
        let intake = self.take_intake();
        if !self.tasks.is_empty() || intake.is_some() || commit > self.apply_tried.max(applied) {
            self.apply_tried = commit;
            let (tasks, membership) = (std::mem::take(&mut self.tasks), self.membership.take());
            let job = Job { commit, tasks, intake, membership };
            return self.lane.begin_job(job, self.core.last_ticket());
        }
        if let Some(reply) = self.pins.pop_front() {
            return self.lane.begin_other(move |store| Done::Pinned(store.pin_checkpoint(), reply));
        }
        if self.begin_checkpoint_turn_if_due() {
            return;
        }
        if self.marked.elapsed() >= MARK_INTERVAL {
            self.marked = Instant::now();
            let keep_from = self.needed_from();
            self.lane.begin_other(move |store| {
                Done::Marked(store.keep_from(keep_from).and_then(|()| store.save_marks()))
            });
        }
    }

    /// Writes that may be added to the log now; the others are refused.
    fn take_intake(&mut self) -> Option<(Epoch, Vec<Batch>)> {
        let (mut batches, mut bytes, mut epoch) = (Vec::new(), 0, Epoch::default());
        while bytes < GROUP_BYTES
            && let Some(write) = self.intake.pop_front()
        {
            match self.may_write(&write) {
                _ if write.reply.is_closed() => {}
                Err(refused) => {
                    // A caller that has gone needs no answer.
                    let _ = write.reply.send(Err(refused));
                }
                Ok(admitted) => {
                    epoch = admitted;
                    bytes += bytes_of(&write.batch);
                    batches.push(write.batch);
                    self.judged.push((write.reply, write.room));
                }
            }
        }
        (!batches.is_empty()).then(|| {
            self.metrics.commit_batches.observe(batches.len() as f64);
            (epoch, batches)
        })
    }

    /// Refuses before anything is appended: a definite failure.
    fn may_write(&self, write: &WriteRequest) -> Result<Epoch, Error> {
        let adds = write.batch.adds();
        let epoch = self.core.admit(adds, now()).map_err(|why| refused_by(self.shard, why))?;
        if epoch != write.epoch {
            return Err(not_primary(self.shard, write.epoch, epoch));
        }
        // Deletes go on: they may be what makes a checkpoint possible again.
        let limit = self.checkpoint_log_bytes.borrow().saturating_mul(CHECKPOINT_LAG_MAX);
        if self.debt_bytes >= limit && adds {
            let (shard, debt) = (self.shard.index, self.debt_bytes);
            let message = format!("shard {shard} has {debt} bytes that wait for a checkpoint");
            return Err(Error::new(ErrorCode::Overloaded, message).retry_after(BUSY_PAUSE));
        }
        Ok(epoch)
    }

    fn on_progress(&mut self, progress: Progress) -> Result<(), OwnerFailure> {
        match progress {
            Progress::Prelude(prelude) => self.on_prelude(prelude),
            Progress::Done(done, ticket) => return self.on_done(done, ticket),
        }
        Ok(())
    }

    fn on_prelude(&mut self, prelude: Prelude) {
        let Prelude { applied, verdicts, records } = prelude;
        self.tail.push(records.iter().cloned());
        self.state.send_if_modified(|state| std::mem::replace(&mut state.applied, applied) != applied);
        self.answer_up_to(applied);
        for ((reply, room), verdict) in std::mem::take(&mut self.judged).into_iter().zip(verdicts) {
            self.answers.push(verdict, reply, room);
        }
        // A repeat of what was applied long ago waits for nothing.
        self.answer_up_to(applied);
        let added = |record: &&Record| record.batch_end && record.kind != RecordKind::EpochStart;
        let ends: Vec<Lsn> = records.iter().filter(added).map(|record| record.lsn).collect();
        if let (Some(last), Some(record)) = (ends.last(), records.last()) {
            self.log_end = *last;
            self.step(Event::Staged(record.epoch, ends), Vec::new());
            self.lane.set_ticket(self.core.last_ticket());
        }
    }

    /// Answers writes that are committed and applied.
    fn answer_up_to(&mut self, applied: Lsn) {
        if !matches!(self.core.standing(), Standing::Primary(_)) {
            return;
        }
        if !self.core.may_acknowledge(now()) {
            return self.answers.give_up(self.shard.index, "the node's session ended meanwhile");
        }
        let core = &self.core;
        self.answers.committed(applied, |lsn| core.durable_copies(lsn));
        if self.answers.has_doubtful() {
            self.settle_doubtful();
        }
    }

    /// Tells refusals if this replica is known to lead at this moment; else asks the others first.
    fn settle_doubtful(&mut self) {
        let doubtful = self.answers.take_doubtful();
        if self.core.grant(now()).is_some() {
            return refuse(doubtful);
        }
        if let Some(id) = self.readers.ask_for_refusals(doubtful) {
            self.step(Event::Confirm(id), Vec::new());
        }
    }

    fn on_done(&mut self, done: Done, ticket: Ticket) -> Result<(), OwnerFailure> {
        match done {
            Done::Job(outcome) => {
                if let Err(error) = outcome {
                    return Err(OwnerFailure::Storage(error));
                }
                self.look_at_store();
                let durable = self.lane.store().map_or(Lsn::ZERO, Store::durable);
                self.step(Event::Durable(ticket, durable), Vec::new());
                self.release_tail();
                self.queue_checkpoint_if_due();
            }
            Done::Marked(outcome) => {
                if let Err(error) = outcome {
                    warn!(shard = %self.shard, error = chain(&error), "durable mark could not be saved");
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

    /// Takes in what changed in the store: its sizes, its digest, where its log begins.
    fn look_at_store(&mut self) {
        let Some(store) = self.lane.store() else { return };
        let (disk_bytes, first) = (store.disk_bytes(), store.positions().first);
        self.debt_bytes = store.checkpoint_debt_bytes();
        self.digests.note(store);
        self.state
            .send_if_modified(|state| std::mem::replace(&mut state.disk_bytes, disk_bytes) != disk_bytes);
        if first > self.core.log().first {
            self.step(Event::Released(first), Vec::new());
        }
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
            self.step(Event::Session(held), Vec::new());
        }
    }

    fn take_record(&mut self) {
        let record = self.record.borrow_and_update().clone();
        self.step(Event::Configured(configuration_of(&record)), Vec::new());
    }

    fn on_changed(&mut self, changed: Changed) {
        match changed {
            Changed::Proposed(number, outcome) => self.step(Event::Proposed(number, outcome), Vec::new()),
            Changed::Reloaded(Ok(record)) => {
                self.step(Event::Configured(configuration_of(&record)), Vec::new());
            }
            Changed::Reloaded(Err(error)) => debug!(shard = %self.shard, %error, "record was not read"),
        }
    }

    /// A message of another replica.
    fn on_letter(&mut self, letter: Letter) -> Result<(), OwnerFailure> {
        let Letter { from, to, message, records, enclosed, .. } = letter;
        if to != self.id {
            return Ok(());
        }
        if let (Message::Reply(_), Some(digest)) = (&message, &enclosed.digest)
            && self.digests.differ(digest)
        {
            self.on_difference(from, digest.lsn)?;
        }
        if let (Message::Append(append), Some((revision, isr))) = (&message, enclosed.membership) {
            self.membership =
                Some(Membership { epoch: append.epoch, configuration: Revision(revision), isr });
        }
        self.applied_at.insert(from, enclosed.applied);
        self.step(Event::Received(from, message), records);
        Ok(())
    }
}

fn bytes_of(batch: &Batch) -> usize {
    let bytes = |operation: &Operation| match operation {
        Operation::Upsert { document, .. } => document.vector.len() * 4 + document.metadata.as_json().len(),
        Operation::SetMetadata { metadata, .. } => metadata.as_json().len(),
        Operation::Delete { id, .. } => id.as_str().len(),
    };
    batch.operations.iter().map(bytes).sum()
}
