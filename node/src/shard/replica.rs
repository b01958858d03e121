//! [`Replica`]: what requests hold of one open replica.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot, watch};
use vectorsphere_index::Metric;

use super::disk_stage::{DiskStage, SharedDiskStage};
use super::write_room::TakenRoom;
use crate::document::Document;
use crate::error_code::{Error, ErrorCode};
use crate::ids::{Epoch, Lsn, ReplicaId, Session, ShardId};
use crate::search::Consistency;
use crate::storage::{Batch, Snapshot, StoreReader, StoreStatistics};

/// How long a read waits for a position that the caller has seen. A primary has applied what it acknowledged, so only
/// a token from elsewhere waits.
const POSITION_WAIT: Duration = Duration::from_millis(100);

/// When a caller should try again a shard that is busy.
pub(super) const BUSY_PAUSE: Duration = Duration::from_millis(100);

/// One open replica. Shared as `Arc<Replica>`.
pub struct Replica {
    pub(super) shard: ShardId,
    pub(super) id: ReplicaId,
    pub(super) dimension: u32,
    pub(super) metric: Metric,
    pub(super) reader: StoreReader,
    pub(super) state: watch::Receiver<ReplicaState>,
    pub(super) mailbox: mpsc::Sender<Message>,
    pub(super) disk: SharedDiskStage,
}

/// What the owner tells about the replica.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReplicaState {
    /// The last reign that it obeyed.
    pub epoch: Epoch,
    /// The node session in which it leads this reign; `None`: it does not, and serves reads only.
    pub leads: Option<Session>,
    /// Everything up to here is durable and visible.
    pub applied: Lsn,
    /// Bytes of log and segments on disk.
    pub disk_bytes: u64,
    /// Why it takes no more writes, for good.
    pub failure: Option<String>,
}

/// What the owner is asked to do.
pub(super) enum Message {
    /// Write a batch.
    Write(WriteRequest),
    /// Begin a reign in the node session given.
    Lead(Epoch, Session, oneshot::Sender<()>),
}

pub(super) struct WriteRequest {
    /// The reign that the caller believes in.
    pub(super) epoch: Epoch,
    pub(super) batch: Batch,
    /// Held until the batch is on disk or refused.
    pub(super) room: TakenRoom,
    pub(super) reply: oneshot::Sender<Result<WriteReceipt, Error>>,
}

/// The answer of a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WriteReceipt {
    /// Position of the batch's last record.
    pub lsn: Lsn,
    /// Documents written, or that existed and were deleted.
    pub affected: u64,
    /// Disks that it is on.
    pub durable_copies: u32,
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
        self.check_epoch(epoch)?;
        if self.disk.get() == DiskStage::Refuse && batch.adds() {
            let message = "the data volume is nearly full: only deletes are accepted";
            return Err(Error::new(ErrorCode::DiskFull, message));
        }
        let (reply, answer) = oneshot::channel();
        let request = Message::Write(WriteRequest { epoch, batch, room, reply });
        self.mailbox.try_send(request).map_err(|error| match error {
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

    /// How often the shard went on without a copy that had everything: never, since it has one copy.
    pub fn incarnation(&self) -> u64 {
        0
    }

    /// The newest snapshot, which satisfies `rule`. The caller's epoch counts where the primary is to answer.
    pub async fn snapshot(&self, epoch: Epoch, rule: ReadRule) -> Result<Arc<Snapshot>, Error> {
        self.satisfies(epoch, rule).await?;
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
        if let Ok(found) = self.reader.try_get(id, with_vector) {
            return Ok(found);
        }
        // A large group may be applied for some milliseconds: that wait is nothing for the reactor.
        let (reader, id) = (self.reader.clone(), id.to_owned());
        let found = tokio::task::spawn_blocking(move || reader.get(&id, with_vector)).await;
        found.map_err(|_| Error::new(ErrorCode::Internal, "a look-up panicked"))
    }

    /// Counts and sizes.
    pub fn statistics(&self) -> StoreStatistics {
        self.reader.statistics()
    }

    /// Lets the owner begin a reign; returns when it is durable.
    pub(super) async fn lead(&self, epoch: Epoch, session: Session) -> Result<(), Error> {
        let (reply, done) = oneshot::channel();
        let sent = self.mailbox.send(Message::Lead(epoch, session, reply)).await;
        if sent.is_err() || done.await.is_err() {
            return Err(self.closed());
        }
        Ok(())
    }

    /// Waits until the owner has ended and its store is closed.
    pub(super) async fn ended(&self) {
        let mut state = self.state.clone();
        while state.changed().await.is_ok() {}
    }

    async fn satisfies(&self, epoch: Epoch, rule: ReadRule) -> Result<(), Error> {
        let ReadRule { consistency, min_lsn, incarnation } = rule;
        if consistency.needs_primary() {
            self.check_epoch(epoch)?;
        }
        if min_lsn > Lsn::ZERO && incarnation < self.incarnation() {
            return Err(session_expired(self.shard));
        }
        let mut state = self.state.clone();
        let reached = tokio::time::timeout(POSITION_WAIT, state.wait_for(|state| state.applied >= min_lsn));
        match reached.await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(_)) if self.reader.snapshot().lsn >= min_lsn => Ok(()),
            Ok(Err(_)) => Err(self.closed()),
            Err(_) => {
                let applied = self.state.borrow().applied;
                let shard = self.shard.index;
                let message =
                    format!("shard {shard} is at position {applied}, the session token at {min_lsn}");
                Err(Error::new(ErrorCode::ShardUnavailable, message))
            }
        }
    }

    /// A caller with another reign in mind has a stale map, or we have stale data.
    fn check_epoch(&self, epoch: Epoch) -> Result<(), Error> {
        let current = self.state.borrow().epoch;
        if current == epoch { Ok(()) } else { Err(not_primary(self.shard, epoch, current)) }
    }

    fn closed(&self) -> Error {
        closed(self.shard, &self.state.borrow())
    }
}

/// The answer to a write that came too late: it was not begun.
pub(super) fn closed(shard: ShardId, state: &ReplicaState) -> Error {
    let reason = state.failure.as_deref().unwrap_or("the node is stopping");
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
