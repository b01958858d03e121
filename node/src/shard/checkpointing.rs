//! When a replica writes a checkpoint: its log is long enough, and it is its turn among the node's replicas.

use std::time::{Duration, Instant};

use futures::FutureExt as _;
use futures::future::BoxFuture;
use tokio::sync::OwnedSemaphorePermit;
use tokio::task::JoinHandle;
use tracing::{info, warn};

use super::memory::Reservation;
use super::owner::{Owner, OwnerFailure, chain};
use super::turn::Done;
use crate::ids::Lsn;
use crate::runtime::spawn_blocking;
use crate::storage::checkpoint::{Checkpoint, CheckpointJob, CheckpointReport, StopFlag};
use crate::storage::{StorageError, Store};

/// Pause after a checkpoint that failed.
const CHECKPOINT_PAUSE: Duration = Duration::from_secs(10);

/// How far a replica's next checkpoint is.
#[derive(Default)]
pub(super) enum Checkpointing {
    /// None is due.
    #[default]
    Idle,
    /// It waits for its turn; whoever waits longest is next.
    Queued(BoxFuture<'static, OwnedSemaphorePermit>),
    /// It is its turn, as soon as the store is here.
    Permitted(OwnedSemaphorePermit),
    /// The store prepares it.
    Preparing(OwnedSemaphorePermit),
    /// It is being written.
    Writing(Job),
    /// It was written in this time, or not; it counts when the store has taken it in.
    Written(Result<Checkpoint, StorageError>, Duration),
}

pub(super) struct Job {
    handle: JoinHandle<Result<Checkpoint, StorageError>>,
    stop: StopFlag,
    started: Instant,
    _permit: OwnedSemaphorePermit,
    /// The new segment is there before the old ones go.
    _memory: Reservation,
}

impl Checkpointing {
    /// Waits until something happens, and returns what comes next; for ever when nothing is awaited. Cancel-safe.
    pub(super) async fn progress(&mut self) -> Checkpointing {
        match self {
            Checkpointing::Queued(turn) => Checkpointing::Permitted(turn.await),
            Checkpointing::Writing(job) => {
                // A panic while writing is as if the disk had failed: nothing of it counts.
                let outcome =
                    (&mut job.handle).await.unwrap_or(Err(StorageError::Poisoned { end: Lsn::ZERO }));
                Checkpointing::Written(outcome, job.started.elapsed())
            }
            Checkpointing::Idle
            | Checkpointing::Permitted(_)
            | Checkpointing::Preparing(_)
            | Checkpointing::Written(..) => std::future::pending().await,
        }
    }

    /// Lets nothing of it come to count, and returns when nothing of it is written any more.
    pub(super) async fn abandon(self) {
        if let Checkpointing::Writing(job) = self {
            job.stop.raise();
            // Its files are removed when the replica is opened.
            let _ = job.handle.await;
        }
    }
}

impl Owner {
    /// Queues for a checkpoint when the log is long enough.
    pub(super) fn queue_checkpoint_if_due(&mut self) {
        let is_paused = self.no_checkpoint_before.is_some_and(|time| Instant::now() < time);
        let is_idle = matches!(self.checkpoint, Checkpointing::Idle);
        if self.wants_checkpoint() && is_idle && !is_paused {
            let permits = self.checkpoint_permits.clone();
            let turn = async move { permits.acquire_owned().await.expect("never closed") };
            self.checkpoint = Checkpointing::Queued(turn.boxed());
        }
    }

    /// True when the log is long enough, and the store here and well.
    pub(super) fn wants_checkpoint(&self) -> bool {
        let scanned = self.indexing.log_bytes_max(self.sync_began.elapsed());
        let long = scanned.min(*self.checkpoint_log_bytes.borrow());
        self.lane.store().is_some_and(|store| !store.is_poisoned() && store.checkpoint_debt_bytes() >= long)
    }

    /// Lets the store prepare a checkpoint, or take one in. False: there is nothing of that to do.
    pub(super) fn begin_checkpoint_turn_if_due(&mut self) -> bool {
        match std::mem::take(&mut self.checkpoint) {
            Checkpointing::Permitted(permit) => {
                self.checkpoint = Checkpointing::Preparing(permit);
                self.lane.begin_other(|store| Done::CheckpointBegun(store.begin_checkpoint()));
                true
            }
            Checkpointing::Written(outcome, elapsed) => {
                self.lane.begin_other(move |store| {
                    Done::CheckpointEnded(store.finish_checkpoint(outcome), elapsed)
                });
                true
            }
            other => {
                self.checkpoint = other;
                false
            }
        }
    }

    /// Starts to write a checkpoint that the store has prepared.
    pub(super) fn checkpoint_begun(
        &mut self,
        outcome: Result<Option<CheckpointJob>, StorageError>,
    ) -> Result<(), OwnerFailure> {
        let Checkpointing::Preparing(permit) = std::mem::take(&mut self.checkpoint) else { return Ok(()) };
        match outcome {
            Ok(Some(job)) => {
                let (stop, started) = (job.stop_flag(), Instant::now());
                let memory = self.memory.reserve(job.bytes() as u64);
                let handle = spawn_blocking(move || job.run());
                let job = Job { handle, stop, started, _permit: permit, _memory: memory };
                self.checkpoint = Checkpointing::Writing(job);
                Ok(())
            }
            Ok(None) => Ok(()),
            Err(error) => self.checkpoint_failed(error),
        }
    }

    /// Tells of a checkpoint that the store has taken in.
    pub(super) fn checkpoint_ended(
        &mut self,
        outcome: Result<CheckpointReport, StorageError>,
        elapsed: Duration,
    ) -> Result<(), OwnerFailure> {
        let report = match outcome {
            Ok(report) => report,
            Err(error) => return self.checkpoint_failed(error),
        };
        self.indexing.look_again();
        self.metrics.checkpoints.inc();
        self.metrics.checkpoint_seconds.observe(elapsed.as_secs_f64());
        self.metrics.merged_segments.inc_by(report.merged as u64);
        let elapsed_ms = elapsed.as_millis() as u64;
        info!(
            shard = %self.shard, lsn = %report.lsn, rows = report.rows, merged = report.merged,
            segments = report.segments, released_bytes = report.released_bytes, elapsed_ms, "checkpoint"
        );
        if let Some(error) = &report.not_removed {
            warn!(shard = %self.shard, error = chain(error), "files before the checkpoint could not be removed");
        }
        Ok(())
    }

    fn checkpoint_failed(&mut self, error: StorageError) -> Result<(), OwnerFailure> {
        self.metrics.checkpoint_failures.inc();
        self.no_checkpoint_before = Some(Instant::now() + CHECKPOINT_PAUSE);
        warn!(shard = %self.shard, error = chain(&error), "checkpoint failed");
        let is_poisoned = self.lane.store().is_some_and(Store::is_poisoned);
        // A merge that meets damage would meet it again.
        if is_poisoned || error.is_lasting() { Err(OwnerFailure::Storage(error)) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::tests::{World, code, upsert};
    use vectorsphere_proto::internal::operation::Kind;

    use crate::error_code::ErrorCode;

    const PATIENCE: Duration = Duration::from_secs(20);

    #[tokio::test]
    async fn a_replica_whose_turn_does_not_come_takes_deletes_only_until_it_does() {
        let world = World::with_checkpoints_of(1_000).await;
        let held = world.service.checkpoint_permits.clone().acquire_owned().await.expect("never closed");
        let epoch = world.leads().await;
        let refused = loop {
            match world.write(epoch, upsert("a", 1.0)).await {
                Ok(answer) => assert!(answer.lsn < 1_000, "the log grows without bound"),
                Err(status) => break status,
            }
        };
        assert_eq!(code(&refused), ErrorCode::Overloaded.grpc_status(), "{refused}");
        let deleted = world.write(epoch, Kind::Delete("a".to_owned())).await.expect("deletes go on");
        assert_eq!(deleted.affected, 1);
        drop(held);
        let accepted = async {
            while world.write(epoch, upsert("a", 1.0)).await.is_err() {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(PATIENCE, accepted).await.expect("its turn came");
        world.service.stop().await;
    }
}
