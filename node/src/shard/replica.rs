//! [`Replica`]: what requests hold of one open replica.

use std::sync::{Arc, PoisonError};
use std::time::Duration;

use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::timeout;
use vectorsphere_index::{Metric, StorageType};
use vectorsphere_proto::internal::ReplicaStatus;

use super::disk_stage::{DiskStage, SharedDiskStage};
use super::memory::MemoryLedger;
use super::owner::chain;
use super::segment_indexes::SegmentIndexes;
use super::turn::PinReply;
use super::write_room::TakenRoom;
use crate::document::Document;
use crate::error_code::{Error, ErrorCode};
use crate::ids::{Epoch, Lsn, ReplicaId, ShardId};
use crate::replication::driver::{Letter, WriteReceipt};
use crate::replication::{Grant, NotAdmitted};
use crate::runtime::clock::boot_time;
use crate::runtime::sync::{Mutex, spawn_blocking};
use crate::search::Consistency;
use crate::storage::{Batch, PinnedCheckpoint, Snapshot, StorageError, StoreReader, StoreStatistics};

/// How long a read waits for a position that the caller has seen, before it is sent to the primary.
const POSITION_WAIT: Duration = Duration::from_millis(100);
/// How long a read waits for a proof that the replica leads.
const CONFIRM_WAIT: Duration = Duration::from_secs(2);

/// When a caller should try again a shard that is busy.
pub(super) const BUSY_PAUSE: Duration = Duration::from_millis(100);

/// One open replica. Shared as `Arc<Replica>`.
pub struct Replica {
    pub(super) shard: ShardId,
    pub(super) id: ReplicaId,
    pub(super) dimension: u32,
    pub(super) storage_type: StorageType,
    pub(super) memory: MemoryLedger,
    pub(super) metric: Metric,
    pub(super) reader: StoreReader,
    /// Of metadata; the [`SegmentIndexer`](super::segment_indexes::SegmentIndexer) of this replica builds them.
    pub(super) indexes: SegmentIndexes,
    pub(super) state: watch::Receiver<ReplicaState>,
    pub(super) grant: SharedGrant,
    pub(super) writes: mpsc::Sender<WriteRequest>,
    pub(super) mailbox: mpsc::Sender<Request>,
    pub(super) disk: SharedDiskStage,
}

/// What the owner tells about the replica.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReplicaState {
    /// The last reign that it obeyed.
    pub epoch: Epoch,
    /// The reign that it leads; `None`: it does not.
    pub leads: Option<Epoch>,
    /// It is in the in-sync set, by the record that it knows.
    pub in_sync: bool,
    /// The shard has more copies in sync than a write needs.
    pub has_enough_others: bool,
    /// When it last heard of a position at which it knows everything that was acknowledged, on the monotonic clock, and
    /// that position.
    pub fresh: Option<(Lsn, Duration)>,
    /// How often the shard was forced to go on without a copy that has everything.
    pub incarnation: u64,
    /// Everything up to here is durable and visible.
    pub applied: Lsn,
    /// Bytes of log and segments on disk.
    pub disk_bytes: u64,
    /// Why it takes no more writes, for good.
    pub failure: Option<String>,
}

/// What a read must reflect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReadRule {
    /// How fresh it must be.
    pub consistency: Consistency,
    /// It sees everything up to here; [`Lsn::ZERO`]: no demand.
    pub min_lsn: Lsn,
    /// Incarnation of the shard when `min_lsn` was given out.
    pub incarnation: u64,
}

/// What the owner is asked to do.
pub(super) enum Request {
    /// A message of another replica.
    Letter(Box<Letter>),
    /// Prove that this replica leads.
    Confirm(ConfirmReply),
    /// Let another copy lead; `None`: any.
    HandOver(Option<ReplicaId>, oneshot::Sender<Result<Epoch, NotAdmitted>>),
    /// The node is about to stop: let another copy lead, then leave the in-sync set.
    Leave,
    /// Say where the replica stands.
    Describe(oneshot::Sender<ReplicaStatus>),
    /// Keep the newest checkpoint for somebody who fetches it.
    Pin(PinReply),
    /// A reader found rows in a file that cannot be read, or are not what was written.
    RowsFailed(StorageError),
}

pub(super) struct WriteRequest {
    /// The reign that the caller believes in.
    pub(super) epoch: Epoch,
    pub(super) batch: Batch,
    /// Held until the batch is on disk or refused.
    pub(super) room: TakenRoom,
    pub(super) reply: WriteReply,
}

/// Where a write's answer goes.
pub(super) type WriteReply = oneshot::Sender<Result<WriteReceipt, Error>>;

/// Where the answer to a reader goes: the position that its snapshot must have; `None`: the replica may lead no more.
pub(super) type ConfirmReply = oneshot::Sender<Option<Lsn>>;

/// The grant of the owner's protocol; read by every strong read.
#[derive(Clone, Default)]
pub(super) struct SharedGrant(Arc<Mutex<Option<Grant>>>);

impl SharedGrant {
    /// Held for an assignment; a panic leaves it whole.
    pub(super) fn set(&self, grant: Option<Grant>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = grant;
    }

    /// The grant, if it lasts at this very moment.
    fn now(&self) -> Option<Grant> {
        let grant = *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        grant.filter(|grant| boot_time() < grant.until)
    }
}

impl Replica {
    /// Which shard.
    pub fn shard(&self) -> ShardId {
        self.shard
    }

    /// Which copy.
    pub fn id(&self) -> ReplicaId {
        self.id
    }

    /// Values of each vector.
    pub fn dimension(&self) -> u32 {
        self.dimension
    }

    /// How their values are kept.
    pub fn storage_type(&self) -> StorageType {
        self.storage_type
    }

    /// How vectors are compared.
    pub fn metric(&self) -> Metric {
        self.metric
    }

    /// Its state now.
    pub fn state(&self) -> ReplicaState {
        self.state.borrow().clone()
    }

    /// Writes one batch, whose parts were checked. Cancel-safe in that a dropped write happens as a whole or not at
    /// all.
    ///
    /// # Errors
    /// [`ErrorCode::OutcomeUnknown`] when it may have been written; after any other it was not.
    pub(super) async fn write(
        &self,
        epoch: Epoch,
        batch: Batch,
        room: TakenRoom,
    ) -> Result<WriteReceipt, Error> {
        if self.disk.get() == DiskStage::Refuse && batch.adds() {
            let message = "the data volume is nearly full: only deletes are accepted";
            return Err(Error::new(ErrorCode::DiskFull, message));
        }
        if batch.adds() {
            self.memory.admit_write(batch.bytes() as u64)?;
        }
        let (reply, answer) = oneshot::channel();
        self.writes.try_send(WriteRequest { epoch, batch, room, reply }).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => {
                let message = format!("shard {} has too many writes waiting", self.shard.index);
                Error::new(ErrorCode::Overloaded, message).retry_after(BUSY_PAUSE)
            }
            mpsc::error::TrySendError::Closed(_) => self.closed(),
        })?;
        answer.await.unwrap_or_else(|_| {
            let message = format!("shard {} stopped before it answered", self.shard.index);
            Err(Error::new(ErrorCode::OutcomeUnknown, message))
        })
    }

    /// How often the shard was forced to go on without a copy that had everything.
    pub fn incarnation(&self) -> u64 {
        self.state.borrow().incarnation
    }

    /// The newest snapshot, which satisfies `rule`. The caller's epoch counts where the primary is to answer.
    pub async fn snapshot(&self, epoch: Epoch, rule: ReadRule) -> Result<Arc<Snapshot>, Error> {
        self.satisfies(epoch, rule).await?;
        let snapshot = self.reader.snapshot();
        // In this order: the grant covers the moment at which the snapshot was taken.
        if !rule.consistency.needs_primary() || self.is_granted(epoch, rule, snapshot.lsn) {
            return Ok(snapshot);
        }
        self.confirm(epoch).await?;
        Ok(self.reader.snapshot())
    }

    /// The newest version of a document, and its number, as [`Replica::snapshot`] would show it.
    pub async fn get(
        &self,
        epoch: Epoch,
        rule: ReadRule,
        id: &str,
        with_vector: bool,
    ) -> Result<Option<(Document, Lsn)>, Error> {
        self.satisfies(epoch, rule).await?;
        let seen = self.reader.snapshot().lsn;
        let found = self.look_up(id, with_vector).await?;
        if !rule.consistency.needs_primary() || self.is_granted(epoch, rule, seen) {
            return Ok(found);
        }
        self.confirm(epoch).await?;
        self.look_up(id, with_vector).await
    }

    async fn look_up(&self, id: &str, with_vector: bool) -> Result<Option<(Document, Lsn)>, Error> {
        if let Some(found) = self.reader.try_get(id, with_vector) {
            return Ok(found);
        }
        // A large group may be applied for some milliseconds, a file may keep us waiting: that is nothing for the reactor.
        let (reader, id) = (self.reader.clone(), id.to_owned());
        let found = spawn_blocking(move || reader.get(&id, with_vector)).await;
        let found = found.map_err(|_| Error::new(ErrorCode::Internal, "a look-up panicked"))?;
        found.map_err(|error| self.rows_failed(error))
    }

    /// The answer to a reader whose rows could not be read, or are not what was written. The replica ends for it: it is opened
    /// again, which reads every byte, or given up.
    pub(super) fn rows_failed(&self, error: StorageError) -> Error {
        let code = match error.is_lasting() {
            true => ErrorCode::ShardDamaged,
            false => ErrorCode::ShardUnavailable,
        };
        let message = format!("shard {}: {}", self.shard.index, chain(&error));
        // A full mailbox is no loss: the next reader comes to the same.
        let _ = self.mailbox.try_send(Request::RowsFailed(error));
        Error::new(code, message)
    }

    /// Counts and sizes.
    pub fn statistics(&self) -> StoreStatistics {
        self.reader.statistics()
    }

    /// Bytes in memory: rows with their metadata, where documents are, indexes.
    pub(super) fn memory_bytes(&self) -> u64 {
        (self.reader.bytes() + self.indexes.bytes()) as u64
    }

    /// Hands a message of another replica over; it may be lost.
    pub(super) fn deliver(&self, letter: Letter) {
        // A full mailbox is like a bad connection: the protocol sends again.
        let _ = self.mailbox.try_send(Request::Letter(Box::new(letter)));
    }

    /// Where the replica stands.
    pub(super) async fn describe(&self) -> Result<ReplicaStatus, Error> {
        self.ask(Request::Describe).await
    }

    /// Lets another copy lead; `None`: any.
    pub(super) async fn hand_over(&self, to: Option<ReplicaId>) -> Result<Epoch, Error> {
        let outcome = self.ask(|reply| Request::HandOver(to, reply)).await?;
        outcome.map_err(|why| refused_by(self.shard, why))
    }

    /// Lets another copy lead, and leaves the in-sync set, so that nobody waits for this one when its node stops. Returns
    /// when that is done; never, when there are too few other copies.
    pub(super) async fn leave(&self) {
        let mut state = self.state.clone();
        if self.mailbox.send(Request::Leave).await.is_ok() {
            // An owner that ends has left, too.
            let _ = state.wait_for(|state| !state.in_sync && state.leads.is_none()).await;
        }
    }

    /// The newest checkpoint, kept while the answer lives.
    pub(super) async fn pin(&self) -> Result<Option<PinnedCheckpoint>, Error> {
        self.ask(Request::Pin).await
    }

    /// Waits until the owner has ended and its store is closed.
    pub(super) async fn ended(&self) {
        let mut state = self.state.clone();
        while state.changed().await.is_ok() {}
    }

    async fn ask<T>(&self, request: impl FnOnce(oneshot::Sender<T>) -> Request) -> Result<T, Error> {
        let (reply, answer) = oneshot::channel();
        // A request that comes back has the other end of the answer in it: it must go before the answer is awaited.
        self.mailbox.send(request(reply)).await.map_err(|_| self.closed())?;
        answer.await.map_err(|_| self.closed())
    }

    /// True when everything that was acknowledged before now is at or before `seen`, and the clocks may be trusted.
    fn is_granted(&self, epoch: Epoch, rule: ReadRule, seen: Lsn) -> bool {
        let granted = self.grant.now().is_some_and(|grant| grant.epoch == epoch && grant.covers(seen));
        granted && rule.consistency == Consistency::Strong
    }

    /// Asks the other copies whether this one still leads; afterwards everything acknowledged before is visible.
    async fn confirm(&self, epoch: Epoch) -> Result<(), Error> {
        let confirmed = timeout(CONFIRM_WAIT, self.ask(Request::Confirm)).await;
        let Ok(Ok(Some(position))) = confirmed else {
            let message = format!("shard {} cannot prove at the moment that it leads", self.shard.index);
            return Err(Error::new(ErrorCode::ShardUnavailable, message));
        };
        self.await_applied(position, CONFIRM_WAIT).await?;
        self.check_leads(epoch)
    }

    /// Waits until the copy is what `rule` asks for; that a primary still leads is for its callers to find out.
    async fn satisfies(&self, epoch: Epoch, rule: ReadRule) -> Result<(), Error> {
        let ReadRule { consistency, min_lsn, incarnation } = rule;
        if min_lsn > Lsn::ZERO && incarnation < self.incarnation() {
            return Err(session_expired(self.shard));
        }
        match consistency {
            Consistency::Strong | Consistency::StrongNoClock => self.check_leads(epoch)?,
            Consistency::Session if !self.state.borrow().in_sync => {
                let message = format!("the copy of shard {} here is not in sync", self.shard.index);
                return Err(Error::new(ErrorCode::ShardUnavailable, message));
            }
            Consistency::Bounded(most) => self.check_staleness(most)?,
            Consistency::Session | Consistency::Eventual => {}
        }
        self.await_applied(min_lsn, POSITION_WAIT).await
    }

    fn check_staleness(&self, most: Duration) -> Result<(), Error> {
        let known = self.staleness();
        if known.is_some_and(|known| known <= most) {
            return Ok(());
        }
        let shard = self.shard.index;
        let age = known.map_or("an unknown time".to_owned(), |known| format!("{} ms", known.as_millis()));
        let message = format!("the copy of shard {shard} here is {age} behind");
        Err(Error::new(ErrorCode::ShardUnavailable, message))
    }

    /// Everything that was acknowledged this long ago is visible here; `None`: nobody knows.
    pub fn staleness(&self) -> Option<Duration> {
        let state = self.state.borrow();
        // A primary that has just begun may have committed what it has not applied yet.
        if self.grant.now().is_some_and(|grant| grant.covers(state.applied)) {
            return Some(Duration::ZERO);
        }
        let (position, heard) = state.fresh?;
        (state.applied >= position).then(|| boot_time().saturating_sub(heard))
    }

    async fn await_applied(&self, position: Lsn, limit: Duration) -> Result<(), Error> {
        let mut state = self.state.clone();
        match timeout(limit, state.wait_for(|state| state.applied >= position)).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(_)) if self.reader.snapshot().lsn >= position => Ok(()),
            Ok(Err(_)) => Err(self.closed()),
            Err(_) => {
                let (applied, shard) = (self.state.borrow().applied, self.shard.index);
                let message = format!("shard {shard} is at position {applied} here, {position} is wanted");
                Err(Error::new(ErrorCode::ShardUnavailable, message))
            }
        }
    }

    /// A caller with another reign in mind has a stale map, or we have stale data.
    fn check_leads(&self, epoch: Epoch) -> Result<(), Error> {
        let state = self.state.borrow();
        if state.leads == Some(epoch) { Ok(()) } else { Err(not_primary(self.shard, epoch, state.epoch)) }
    }

    fn closed(&self) -> Error {
        closed(self.shard, &self.state.borrow())
    }
}

/// The answer to a write that came too late: it was not begun.
pub(super) fn closed(shard: ShardId, state: &ReplicaState) -> Error {
    let reason = state.failure.as_deref().unwrap_or("the replica is stopping");
    Error::new(ErrorCode::ShardUnavailable, format!("shard {} takes no writes: {reason}", shard.index))
}

/// The answer to a caller whose token may name writes that were lost.
fn session_expired(shard: ShardId) -> Error {
    let message = format!(
        "shard {} was recovered by force after the session token was given out, what the token names may be lost: read without it",
        shard.index
    );
    Error::new(ErrorCode::SessionExpired, message)
}

/// The answer to a caller that believes in another reign.
pub(super) fn not_primary(shard: ShardId, wanted: Epoch, current: Epoch) -> Error {
    let message =
        format!("shard {} is in epoch {current} here, the request is for epoch {wanted}", shard.index);
    Error::new(ErrorCode::NotPrimary, message)
}

/// The answer to a request that the protocol does not admit; nothing of it was begun.
pub(super) fn refused_by(shard: ShardId, why: NotAdmitted) -> Error {
    let code = match why {
        NotAdmitted::NotPrimary | NotAdmitted::HandingOver => ErrorCode::NotPrimary,
        NotAdmitted::SessionEnded | NotAdmitted::TooFewInSync { .. } | NotAdmitted::NobodyElse => {
            ErrorCode::ShardUnavailable
        }
        NotAdmitted::DiskFull => ErrorCode::DiskFull,
    };
    Error::new(code, format!("shard {}: {why}", shard.index))
}
