//! The task behind [`super::IndexService`]: decides steps, starts them, takes in their results.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{Semaphore, watch};
use tokio::task::{JoinSet, spawn_blocking};
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use super::decide::{OpenFacts, Step, next_step, replica_on};
use super::disk_stage::{DiskStage, SharedDiskStage};
use super::index_service::{Found, IndexServiceParts, SharedTable};
use super::leadership::Leadership;
use super::owner::OwnerFailure;
use super::replica::Replica;
use super::step::{self, Opened, StepFailure};
use crate::cluster::view::{ClusterView, Shard};
use crate::error_code::{Error, ErrorCode};
use crate::ids::{Epoch, ReplicaId, Revision, Session, ShardId};
use crate::table::{Table, TableState};

/// How often disk space is looked at, and what failed is tried again.
const TICK: Duration = Duration::from_secs(1);
/// Replicas that are opened at once: they read at the disk's speed.
const OPENS_MAX: usize = 4;
/// Checkpoints that are written at once: each may hold a copy of the rows that it merges.
const CHECKPOINTS_MAX: usize = 1;
/// Pause after a step that failed, doubled with each failure in a row.
const RETRY_MIN: Duration = Duration::from_millis(500);
/// Longest pause between tries.
const RETRY_MAX: Duration = Duration::from_secs(60);

pub(super) struct Keeper {
    parts: IndexServiceParts,
    leadership: Leadership,
    table: SharedTable,
    slots: HashMap<ShardId, Slot>,
    steps: JoinSet<(ShardId, StepDone)>,
    owners: JoinSet<(ShardId, ReplicaId, Result<(), OwnerFailure>)>,
    open_permits: Arc<Semaphore>,
    checkpoint_permits: Arc<Semaphore>,
    disk_stage: SharedDiskStage,
    all_opened: watch::Sender<bool>,
    cancel: CancellationToken,
}

/// A shard of this node.
#[derive(Default)]
struct Slot {
    replica: Option<(Arc<Replica>, CancellationToken)>,
    /// A step is under way.
    is_busy: bool,
    failures: u32,
    not_before: Option<Instant>,
    /// The last step lost a race, begun with this in sight: the pause ends as soon as something else is in sight.
    lost_race: Option<Sight>,
    is_damaged: bool,
}

/// What a step that changes a shard's record goes by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Sight {
    record: Revision,
    session: Option<Session>,
}

enum StepDone {
    Opened(Result<Box<Opened>, StepFailure>),
    Led(Sight, Result<Epoch, StepFailure>),
    Closed,
    Removed(Sight, Result<(), StepFailure>),
}

impl Keeper {
    pub(super) fn new(
        parts: IndexServiceParts,
        table: SharedTable,
        all_opened: watch::Sender<bool>,
        cancel: CancellationToken,
    ) -> Keeper {
        let leadership =
            Leadership { meta: parts.meta.clone(), keys: parts.keys.clone(), node: parts.node_id.clone() };
        Keeper {
            parts,
            leadership,
            table,
            slots: HashMap::new(),
            steps: JoinSet::new(),
            owners: JoinSet::new(),
            open_permits: Arc::new(Semaphore::new(OPENS_MAX)),
            checkpoint_permits: Arc::new(Semaphore::new(CHECKPOINTS_MAX)),
            disk_stage: SharedDiskStage::default(),
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
                _ = tick.tick() => self.look_at_disk().await,
            }
            self.start_steps();
            self.tell_when_all_opened();
        }
        self.stop().await;
    }

    async fn stop(mut self) {
        for (_, cancel) in self.slots.values().filter_map(|slot| slot.replica.as_ref()) {
            cancel.cancel();
        }
        // A step that was begun ends by itself: disk and metadata store answer or fail.
        while self.steps.join_next().await.is_some() {}
        while let Some(end) = self.owners.join_next().await {
            if let Ok((shard, _, Err(failure))) = end {
                warn!(%shard, error = %failure, "replica was not closed in order");
            }
        }
    }

    /// Starts the next step of every shard that has one and is not busy.
    fn start_steps(&mut self) {
        let view = self.parts.view.borrow_and_update().clone();
        let session = self.parts.session.borrow_and_update().map(|held| held.session);
        if view.cluster_uid.is_empty() {
            // A new directory is marked with it.
            return;
        }
        let mine = view.shards.values().filter(|record| replica_on(record, &self.parts.node_id).is_some());
        let shards: BTreeSet<ShardId> =
            mine.map(|record| record.id).chain(self.slots.keys().copied()).collect();
        for shard in shards {
            // A record that is absent is no reason to do anything.
            let Some(record) = view.shards.get(&shard) else { continue };
            // Those that are being deleted are found by id only.
            let table = view.tables_by_id.get(&shard.table);
            let sight = Sight { record: record.mod_revision, session };
            let slot = self.slots.entry(shard).or_default();
            if slot.is_busy || slot.is_resting(sight) {
                continue;
            }
            let state = table.map(|table| table.state);
            let step = next_step(record, state, &self.parts.node_id, session, slot.open_facts());
            match (step, table) {
                (Step::Wait, _) | (Step::Open(_), None) => {}
                (Step::Open(replica), Some(table)) => self.begin_open(&view, record, table, replica),
                (Step::Lead(replica), _) => self.begin_lead(shard, replica, sight),
                (Step::Close, _) => self.begin_close(shard),
                (Step::Remove(replica), _) => self.begin_remove(shard, replica, sight),
            }
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
            is_there && replica_on(record, &self.parts.node_id).is_some()
        };
        let is_settled = |record: &Arc<Shard>| {
            matches!(self.table.get(record.id), Some(Found::Open(_) | Found::Failed(_)))
        };
        if view.shards.values().filter(is_wanted).all(is_settled) {
            self.all_opened.send_replace(true);
        }
    }

    fn begin_open(&mut self, view: &ClusterView, record: &Shard, table: &Table, replica: ReplicaId) {
        let shard = record.id;
        let wanted = step::Wanted {
            cluster_uid: view.cluster_uid.clone(),
            record: record.clone(),
            schema: table.schema.clone(),
            replica,
        };
        self.slot(shard).is_busy = true;
        let serves_reads = matches!(self.table.get(shard), Some(Found::Open(_)));
        if !serves_reads {
            self.table.set(shard, Found::Opening);
        }
        let (disk, permits) = (self.parts.disk.clone(), self.open_permits.clone());
        let served = self.table.clone();
        self.steps.spawn(async move {
            let _permit = permits.acquire_owned().await.expect("never closed");
            if serves_reads {
                // Its disk failed. While that lasts it serves reads; then it goes first, to be in memory only once.
                if let Err(failure) = step::probe(disk.clone(), shard).await {
                    return (shard, StepDone::Opened(Err(failure)));
                }
                served.set(shard, Found::Opening);
            }
            (shard, StepDone::Opened(step::open(disk, wanted).await.map(Box::new)))
        });
    }

    fn begin_lead(&mut self, shard: ShardId, replica: ReplicaId, sight: Sight) {
        let Some(session) = sight.session else { return };
        let slot = self.slot(shard);
        let Some((open, _)) = slot.replica.clone() else { return };
        slot.is_busy = true;
        let leadership = self.leadership.clone();
        self.steps.spawn(async move {
            (shard, StepDone::Led(sight, step::lead(&leadership, &open, replica, session).await))
        });
    }

    fn begin_remove(&mut self, shard: ShardId, replica: ReplicaId, sight: Sight) {
        let Some(session) = sight.session else { return };
        let open = self.slot(shard).replica.take();
        self.slot(shard).is_busy = true;
        self.table.remove(shard);
        let (leadership, disk) = (self.leadership.clone(), self.parts.disk.clone());
        self.steps.spawn(async move {
            end(open).await;
            let removed = step::remove(&leadership, disk, shard, replica, session).await;
            (shard, StepDone::Removed(sight, removed))
        });
    }

    fn begin_close(&mut self, shard: ShardId) {
        info!(%shard, "replica is no longer placed on this node");
        self.table.remove(shard);
        let slot = self.slot(shard);
        slot.is_busy = true;
        let open = slot.replica.take();
        self.steps.spawn(async move {
            end(open).await;
            (shard, StepDone::Closed)
        });
    }

    fn step_done(&mut self, (shard, done): (ShardId, StepDone)) {
        self.slot(shard).is_busy = false;
        match done {
            StepDone::Opened(Ok(opened)) => self.opened(shard, *opened),
            StepDone::Opened(Err(failure)) => self.failed(shard, &failure),
            StepDone::Led(_, Ok(_)) => self.slot(shard).succeeded(),
            // The replica goes on serving reads.
            StepDone::Led(sight, Err(failure)) if failure.is_race() => self.slot(shard).rest_at(sight),
            StepDone::Led(_, Err(failure)) => {
                warn!(%shard, error = %failure, "could not become primary");
                self.slot(shard).rest();
            }
            StepDone::Closed => {
                self.slots.remove(&shard);
            }
            StepDone::Removed(_, Ok(())) => {
                info!(%shard, "replica deleted with its table");
                self.slots.remove(&shard);
            }
            StepDone::Removed(sight, Err(failure)) if failure.is_race() => self.slot(shard).rest_at(sight),
            StepDone::Removed(_, Err(failure)) => {
                warn!(%shard, error = %failure, "replica could not be deleted");
                self.slot(shard).rest();
            }
        }
        self.count();
    }

    fn opened(&mut self, shard: ShardId, opened: Opened) {
        let Opened { store, report, formatted, elapsed, schema } = opened;
        self.parts.metrics.open_seconds.observe(elapsed.as_secs_f64());
        self.parts.metrics.replayed_records.inc_by(report.records);
        let elapsed_ms = elapsed.as_millis() as u64;
        info!(
            %shard, formatted, documents = report.documents, records = report.records, lsn = %report.lsn,
            cut_bytes = report.cut_bytes, clean_stop = report.clean_stop, elapsed_ms, "replica opened"
        );
        let cancel = self.cancel.child_token();
        let context = step::OwnerContext {
            shard,
            metric: schema.metric,
            session: self.parts.session.clone(),
            checkpoint_log_bytes: self.parts.settings.checkpoint_log_bytes.clone(),
            checkpoint_permits: self.checkpoint_permits.clone(),
            disk_stage: self.disk_stage.clone(),
            metrics: self.parts.metrics.clone(),
            cancel: cancel.clone(),
        };
        let (replica, owner) = step::employ(store, context);
        let id = replica.id();
        self.owners.spawn(async move { (shard, id, owner.run().await) });
        self.table.set(shard, Found::Open(replica.clone()));
        let slot = self.slot(shard);
        slot.replica = Some((replica, cancel));
        slot.is_damaged = false;
        slot.not_before = None;
    }

    fn failed(&mut self, shard: ShardId, failure: &StepFailure) {
        let code = match failure.is_damage() {
            true => ErrorCode::ShardDamaged,
            false => ErrorCode::ShardUnavailable,
        };
        error!(%shard, error = %failure, "replica could not be opened");
        let message = format!("shard {}: {failure}", shard.index);
        // A replica that failed while it served goes on serving reads.
        if !matches!(self.table.get(shard), Some(Found::Open(_))) {
            self.table.set(shard, Found::Failed(Error::new(code, message)));
        }
        let slot = self.slot(shard);
        slot.is_damaged = failure.is_damage();
        slot.rest();
    }

    /// An owner ended by itself: its storage failed. The replica is opened again, from the disk, and takes a new epoch.
    fn owner_ended(&mut self, (shard, replica, outcome): (ShardId, ReplicaId, Result<(), OwnerFailure>)) {
        let Err(failure) = outcome else { return };
        let slot = self.slot(shard);
        if slot.replica.as_ref().is_some_and(|(open, _)| open.id() == replica) {
            slot.replica = None;
            slot.rest();
            warn!(%shard, error = %failure, "replica will be opened again");
        }
        self.count();
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
            (_, DiskStage::Refuse) => {
                error!(free_bytes, capacity_bytes, "data volume is nearly full, upserts are refused");
            }
        }
    }

    fn slot(&mut self, shard: ShardId) -> &mut Slot {
        self.slots.entry(shard).or_default()
    }

    fn count(&self) {
        let open = self.slots.values().filter(|slot| slot.replica.is_some()).count();
        let damaged = self.slots.values().filter(|slot| slot.is_damaged).count();
        self.parts.metrics.open.set(open as i64);
        self.parts.metrics.damaged.set(damaged as i64);
    }
}

/// Closes a replica and waits until nothing of it is under way.
async fn end(open: Option<(Arc<Replica>, CancellationToken)>) {
    if let Some((replica, cancel)) = open {
        cancel.cancel();
        replica.ended().await;
    }
}

impl Slot {
    fn open_facts(&self) -> Option<OpenFacts> {
        let (replica, _) = self.replica.as_ref()?;
        let state = replica.state();
        Some(OpenFacts { replica: replica.id(), epoch: state.epoch, leads: state.leads })
    }

    fn is_resting(&self, sight: Sight) -> bool {
        self.not_before.is_some_and(|time| Instant::now() < time)
            && self.lost_race.is_none_or(|lost| lost == sight)
    }

    fn succeeded(&mut self) {
        self.failures = 0;
        self.not_before = None;
    }

    /// Waits before the next try, longer each time.
    fn rest(&mut self) {
        let pause = RETRY_MIN.saturating_mul(1 << self.failures.min(10)).min(RETRY_MAX);
        self.failures += 1;
        self.not_before = Some(Instant::now() + pause);
        self.lost_race = None;
    }

    /// Waits until what made the step lose a race is in sight.
    fn rest_at(&mut self, sight: Sight) {
        self.rest();
        self.lost_race = Some(sight);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lost_race_is_run_again_as_soon_as_something_else_is_in_sight() {
        let sight = Sight { record: Revision(7), session: Some(Session(1)) };
        let mut slot = Slot::default();
        slot.rest_at(sight);
        assert!(slot.is_resting(sight), "asking again would tell the same");
        assert!(!slot.is_resting(Sight { record: Revision(8), ..sight }));
        assert!(!slot.is_resting(Sight { session: None, ..sight }));
        slot.rest();
        assert!(slot.is_resting(Sight { record: Revision(8), ..sight }), "a failure waits in any case");
    }
}
