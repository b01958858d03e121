//! The task that owns a replica: the only one that writes.
//!
//! While a group is being synced, further writes gather in the mailbox and become the next group. Checkpoints are
//! written beside. The store blocks, so it is lent to a blocking thread for each step and comes back.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{Semaphore, mpsc, watch};
use tokio::task::spawn_blocking;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;
use tracing::{debug, error, info, warn};

use super::checkpointing::Checkpointing;
use super::metrics::ShardMetrics;
use super::replica::{BUSY_PAUSE, Message, ReplicaState, WriteReceipt, WriteRequest, closed, not_primary};
use crate::cluster::HeldSession;
use crate::error_code::{Error, ErrorCode};
use crate::ids::{Epoch, Session, ShardId};
use crate::storage::{Batch, Operation, Receipt, Refusal, StorageError, Store};

/// Writes that may wait for one replica.
pub(super) const MAILBOX_WRITES: usize = 256;
/// A group takes no more batches when it has this many bytes of vectors and metadata.
const GROUP_BYTES: usize = 8 << 20;
/// How old the durable mark in `replica.meta` may get.
const MARK_INTERVAL: Duration = Duration::from_secs(1);
/// Copies of an acknowledged write, until shards are replicated.
const DURABLE_COPIES: u32 = 1;
/// A log takes nothing more when it has this many times the size that starts a checkpoint.
const CHECKPOINT_LAG_MAX: u64 = 8;

/// The owner of one replica.
pub(super) struct Owner {
    pub(super) shard: ShardId,
    /// Away while a blocking thread works on it.
    pub(super) store: Option<Store>,
    pub(super) mailbox: mpsc::Receiver<Message>,
    pub(super) state: watch::Sender<ReplicaState>,
    /// The node's session; writes are acknowledged only in the one that the reign was begun in.
    pub(super) session: watch::Receiver<Option<HeldSession>>,
    pub(super) checkpoint_log_bytes: watch::Receiver<u64>,
    /// Checkpoints of this node that may run at once.
    pub(super) checkpoint_permits: Arc<Semaphore>,
    pub(super) checkpoint: Checkpointing,
    pub(super) no_checkpoint_before: Option<Instant>,
    pub(super) metrics: ShardMetrics,
    pub(super) cancel: CancellationToken,
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
}

/// An error with its causes, on one line.
pub(super) fn chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(error.source(), |error| error.source());
    causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}

impl Owner {
    /// Serves the mailbox until cancelled (then the replica is closed in order) or until storage fails.
    pub(super) async fn run(mut self) -> Result<(), OwnerFailure> {
        let outcome = self.serve().await;
        if let Err(failure) = &outcome {
            error!(shard = %self.shard, error = %failure, "replica takes no more writes");
            let text = failure.to_string();
            self.state.send_modify(|state| {
                state.leads = None;
                state.failure = Some(text);
            });
        }
        self.refuse_waiting().await;
        // It writes files that nothing names yet; whoever opens the replica next must not meet it.
        std::mem::take(&mut self.checkpoint).abandon().await;
        outcome?;
        let store = self.store.take().expect("no step is under way");
        let closed = spawn_blocking(move || store.close()).await.map_err(|_| OwnerFailure::Panicked)?;
        closed.map_err(OwnerFailure::Storage)
    }

    /// Answers what waits: nothing of it was begun.
    async fn refuse_waiting(&mut self) {
        self.mailbox.close();
        while let Some(message) = self.mailbox.recv().await {
            if let Message::Write(write) = message {
                let answer = closed(self.shard, &self.state.borrow());
                // A caller that has gone needs no answer.
                let _ = write.reply.send(Err(answer));
            }
        }
    }

    async fn serve(&mut self) -> Result<(), OwnerFailure> {
        let mut mark = tokio::time::interval(MARK_INTERVAL);
        mark.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                biased;
                () = self.cancel.cancelled() => return Ok(()),
                _ = mark.tick() => {
                    self.save_mark().await?;
                    self.queue_checkpoint_if_due();
                }
                progress = self.checkpoint.progress() => self.advance_checkpoint(progress).await?,
                message = self.mailbox.recv() => match message {
                    Some(message) => self.take(message).await?,
                    None => return Ok(()),
                },
            }
        }
    }

    /// Takes this message and those that wait behind it. Runs to its end once begun.
    async fn take(&mut self, message: Message) -> Result<(), OwnerFailure> {
        let mut waiting = VecDeque::from([message]);
        while let Some(message) = waiting.pop_front() {
            match message {
                Message::Lead(epoch, session, reply) => {
                    self.lead(epoch, session).await?;
                    // Nobody may wait for it any more; the reign has begun all the same.
                    let _ = reply.send(());
                }
                Message::Write(first) => {
                    let group = self.gather(first, &mut waiting);
                    self.commit(group).await?;
                    self.queue_checkpoint_if_due();
                }
            }
        }
        Ok(())
    }

    /// The writes of one group: what waits, up to a size. What is no write comes after the group.
    fn gather(&mut self, first: WriteRequest, rest: &mut VecDeque<Message>) -> Vec<WriteRequest> {
        let mut bytes = bytes_of(&first.batch);
        let mut group = vec![first];
        while bytes < GROUP_BYTES && group.len() < MAILBOX_WRITES {
            match self.mailbox.try_recv() {
                Ok(Message::Write(write)) => {
                    bytes += bytes_of(&write.batch);
                    group.push(write);
                }
                Ok(other) => {
                    rest.push_back(other);
                    break;
                }
                Err(_) => break,
            }
        }
        group
    }

    async fn lead(&mut self, epoch: Epoch, session: Session) -> Result<(), OwnerFailure> {
        let lsn = self.with_store(move |store| store.start_epoch(epoch)).await?;
        let lsn = lsn.map_err(OwnerFailure::Storage)?;
        self.tell(|state| {
            state.epoch = epoch;
            state.leads = Some(session);
        });
        self.metrics.epochs.inc();
        info!(shard = %self.shard, %epoch, %lsn, session = session.0, "reign begun");
        Ok(())
    }

    async fn commit(&mut self, group: Vec<WriteRequest>) -> Result<(), OwnerFailure> {
        let started = Instant::now();
        let (mut batches, mut replies) = (Vec::with_capacity(group.len()), Vec::with_capacity(group.len()));
        let mut rooms = Vec::with_capacity(group.len());
        for write in group {
            if let Err(refused) = self.may_write(&write) {
                // A caller that has gone needs no answer.
                let _ = write.reply.send(Err(refused));
            } else if !write.reply.is_closed() {
                batches.push(write.batch);
                replies.push(write.reply);
                rooms.push(write.room);
            }
        }
        if batches.is_empty() {
            return Ok(());
        }
        self.metrics.commit_batches.observe(batches.len() as f64);
        let committed = self.with_store(move |store| store.commit(batches)).await?;
        drop(rooms);
        match committed {
            Ok(outcomes) => {
                self.tell(|_| {});
                if !self.leads_now() {
                    // Another process may have taken over meanwhile and not know of this group.
                    let message = format!("shard {}: the node's session ended meanwhile", self.shard.index);
                    for reply in replies {
                        let _ = reply.send(Err(Error::new(ErrorCode::OutcomeUnknown, &message)));
                    }
                    return Ok(());
                }
                for (reply, outcome) in replies.into_iter().zip(outcomes) {
                    let _ = reply.send(outcome.map(receipt).map_err(|refusal| self.refused(&refusal)));
                }
                self.metrics.commit_seconds.observe(started.elapsed().as_secs_f64());
                Ok(())
            }
            Err(error) => {
                let code = match error {
                    StorageError::Poisoned { .. } => ErrorCode::ShardUnavailable,
                    _ => ErrorCode::OutcomeUnknown,
                };
                let answer = Error::new(code, format!("shard {}: {}", self.shard.index, chain(&error)));
                for reply in replies {
                    let _ = reply.send(Err(answer.clone()));
                }
                Err(OwnerFailure::Storage(error))
            }
        }
    }

    /// Refuses before anything is appended: a definite failure.
    fn may_write(&self, write: &WriteRequest) -> Result<(), Error> {
        let state = self.state.borrow();
        if state.epoch != write.epoch {
            return Err(not_primary(self.shard, write.epoch, state.epoch));
        }
        // Deletes go on: they may be what makes a checkpoint possible again.
        let debt = self.store.as_ref().expect("no step is under way").checkpoint_debt_bytes();
        if debt >= self.checkpoint_log_bytes.borrow().saturating_mul(CHECKPOINT_LAG_MAX) && write.batch.adds()
        {
            let shard = self.shard.index;
            let message = format!("shard {shard} has {debt} bytes that wait for a checkpoint");
            return Err(Error::new(ErrorCode::Overloaded, message).retry_after(BUSY_PAUSE));
        }
        drop(state);
        if !self.leads_now() {
            let shard = self.shard.index;
            let message = format!("shard {shard} takes no writes: the node's session has ended");
            return Err(Error::new(ErrorCode::ShardUnavailable, message));
        }
        Ok(())
    }

    /// True while the session in which the reign was begun is certain, at this very moment.
    fn leads_now(&self) -> bool {
        let held = self.session.borrow().filter(HeldSession::is_valid);
        held.is_some_and(|held| self.state.borrow().leads == Some(held.session))
    }

    fn refused(&self, refusal: &Refusal) -> Error {
        let code = match refusal {
            Refusal::NoSuchDocument(_) => ErrorCode::DocumentNotFound,
            Refusal::OtherBatch => ErrorCode::RequestIdReused,
            Refusal::TooLarge { .. } => ErrorCode::PayloadTooLarge,
        };
        Error::new(code, refusal.to_string())
    }

    async fn save_mark(&mut self) -> Result<(), OwnerFailure> {
        if let Err(error) = self.with_store(Store::save_durable_mark).await? {
            warn!(shard = %self.shard, error = chain(&error), "durable mark could not be saved");
        }
        Ok(())
    }

    /// Publishes position and sizes with `change`.
    pub(super) fn tell(&self, change: impl FnOnce(&mut ReplicaState)) {
        let store = self.store.as_ref().expect("no step is under way");
        let (applied, disk_bytes) = (store.applied(), store.disk_bytes());
        self.state.send_modify(|state| {
            (state.applied, state.disk_bytes) = (applied, disk_bytes);
            change(state);
        });
        debug!(shard = %self.shard, lsn = %applied, "applied");
    }

    /// Lends the store to a blocking thread. Not cancel-safe: the store is away until it returns, so nobody selects
    /// over this.
    pub(super) async fn with_store<T: Send + 'static>(
        &mut self,
        work: impl FnOnce(&mut Store) -> T + Send + 'static,
    ) -> Result<T, OwnerFailure> {
        let mut store = self.store.take().ok_or(OwnerFailure::Panicked)?;
        let run = move || {
            let done = work(&mut store);
            (store, done)
        };
        let (store, done) = spawn_blocking(run).await.map_err(|_| OwnerFailure::Panicked)?;
        self.store = Some(store);
        Ok(done)
    }
}

fn receipt(receipt: Receipt) -> WriteReceipt {
    WriteReceipt { lsn: receipt.lsn, affected: receipt.affected, durable_copies: DURABLE_COPIES }
}

fn bytes_of(batch: &Batch) -> usize {
    let bytes = |operation: &Operation| match operation {
        Operation::Upsert(document) => document.vector.len() * 4 + document.metadata.as_json().len(),
        Operation::SetMetadata(_, metadata) => metadata.as_json().len(),
        Operation::Delete(id) => id.as_str().len(),
    };
    batch.operations.iter().map(bytes).sum()
}
