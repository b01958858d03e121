//! When a replica gets the indexes of its segments: after it was opened and after each checkpoint, the largest segment
//! first, one build at a time on a node.

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::FutureExt as _;
use futures::future::BoxFuture;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};
use vectorsphere_index::faiss::Factory;
use vectorsphere_index::{Graph, Kernels};

use super::memory::MemoryLedger;
use super::metrics::ShardMetrics;
use super::owner::{Owner, chain};
use crate::ids::ShardId;
use crate::runtime::{in_background, spawn_blocking};
use crate::storage::StorageError;
use crate::storage::indexing::{BuildFailure, IndexPlace, IndexPlan, Recipe};
use crate::storage::segment::{SegmentIndex, SegmentView};
use crate::table::{IndexKind, TableSchema};

/// Segments with fewer bytes of vectors are scanned: reading 1 MiB takes about 100 us, a walk some tens.
const AUTO_BYTES_MIN: usize = 1 << 20;
/// The same where an index was asked for.
const ASKED_BYTES_MIN: usize = 256 << 10;
/// What is not in a segment yet is scanned: a log of this size starts a checkpoint, however long it may get elsewhere.
const SCANNED_LOG_BYTES_MAX: u64 = 8 << 20;
/// A replica that took no write for so long makes a segment of what would be worth an index.
const REST: Duration = Duration::from_secs(1);
/// Pause after an index did not fit into memory.
const SHORTAGE_PAUSE: Duration = Duration::from_secs(10);

/// How the indexes of a table are built; `None`: it has none.
///
/// # Panics
/// When this build has no indexes of the table's kind, which opening a replica checks before.
pub(super) fn index_plan(schema: &TableSchema, kernels: Kernels) -> Option<IndexPlan> {
    let metric = schema.metric;
    let (recipe, bytes_min) = match &schema.index {
        IndexKind::Flat => return None,
        IndexKind::Auto(options) => (Recipe::Graph(options.graph_options()), AUTO_BYTES_MIN),
        IndexKind::Hnsw(options) => (Recipe::Graph(options.graph_options()), ASKED_BYTES_MIN),
        IndexKind::Ivf => (Recipe::Ivf, ASKED_BYTES_MIN),
        IndexKind::Faiss(factory) => {
            let factory = Factory::parse(factory, schema.dimension as usize, metric);
            (Recipe::Faiss(factory.expect("checked before the replica was opened")), ASKED_BYTES_MIN)
        }
    };
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let tenant_key = schema.tenant_key.clone();
    Some(IndexPlan { kernels, metric, recipe, tenant_key, bytes_min, threads })
}

/// What a replica does about its indexes.
pub(super) struct Indexing {
    place: IndexPlace,
    /// `None`: the table is scanned.
    plan: Option<IndexPlan>,
    permits: Arc<Semaphore>,
    /// Segments may have come.
    is_due: bool,
    under_way: Option<UnderWay>,
}

struct UnderWay {
    work: BoxFuture<'static, ()>,
    stop: CancellationToken,
}

impl Indexing {
    pub(super) fn new(place: IndexPlace, plan: Option<IndexPlan>, permits: Arc<Semaphore>) -> Indexing {
        Indexing { place, plan, permits, is_due: true, under_way: None }
    }

    /// Segments may have come.
    pub(super) fn look_again(&mut self) {
        self.is_due = true;
    }

    /// The size of a log that starts a checkpoint, after so long without a write.
    pub(super) fn log_bytes_max(&self, rested: Duration) -> u64 {
        match &self.plan {
            None => u64::MAX,
            Some(plan) if rested >= REST => plan.bytes_min as u64,
            Some(_) => SCANNED_LOG_BYTES_MAX,
        }
    }

    /// Waits until an index is there; for ever when none is awaited. Cancel-safe.
    pub(super) async fn progress(&mut self) {
        match &mut self.under_way {
            Some(under_way) => (&mut under_way.work).await,
            None => std::future::pending().await,
        }
        self.under_way = None;
        self.is_due = true;
    }

    /// Returns when nothing is written any more, and no graph is built. An index of FAISS that is being built is left to end by
    /// itself, in memory only: it cannot be stopped.
    pub(super) async fn abandon(&mut self) {
        if let Some(under_way) = self.under_way.take() {
            under_way.stop.cancel();
            under_way.work.await;
        }
    }
}

impl Owner {
    /// Begins with the next index, if there is one to get.
    pub(super) fn begin_indexing_if_due(&mut self) {
        let indexing = &mut self.indexing;
        if !indexing.is_due || indexing.under_way.is_some() {
            return;
        }
        indexing.is_due = false;
        let Some(plan) = &indexing.plan else { return };
        let Some(segment) = indexing.place.next(plan) else { return };
        let stop = CancellationToken::new();
        let job = Job {
            shard: self.shard,
            place: indexing.place.clone(),
            plan: plan.clone(),
            segment,
            permits: indexing.permits.clone(),
            stop: stop.clone(),
            memory: self.memory.clone(),
            metrics: self.metrics.clone(),
        };
        indexing.under_way = Some(UnderWay { work: job.run().boxed(), stop });
    }
}

/// Getting the index of one segment.
struct Job {
    shard: ShardId,
    place: IndexPlace,
    plan: IndexPlan,
    segment: SegmentView,
    permits: Arc<Semaphore>,
    stop: CancellationToken,
    memory: MemoryLedger,
    metrics: ShardMetrics,
}

impl Job {
    async fn run(self) {
        if self.load().await {
            return;
        }
        let permit = tokio::select! {
            () = self.stop.cancelled() => return,
            permit = self.permits.clone().acquire_owned() => permit.expect("never closed"),
        };
        match self.memory.try_reserve(self.plan.build_bytes(&self.segment) as u64) {
            Ok(_reserved) => self.build(permit).await,
            Err(shortage) => {
                // Others have their turn.
                drop(permit);
                let (shard, rows) = (self.shard, self.segment.len());
                warn!(%shard, rows, %shortage, "no memory for an index, a segment is scanned");
                self.stop.run_until_cancelled(tokio::time::sleep(SHORTAGE_PAUSE)).await;
            }
        }
    }

    async fn load(&self) -> bool {
        let (place, plan, segment) = (self.place.clone(), self.plan.clone(), self.segment.clone());
        let loaded = spawn_blocking(move || place.load(&segment, &plan)).await;
        loaded.is_ok_and(|loaded| self.told(loaded, "index of a segment is built again").unwrap_or(false))
    }

    async fn build(&self, permit: OwnedSemaphorePermit) {
        let started = Instant::now();
        let (place, plan, segment) = (self.place.clone(), self.plan.clone(), self.segment.clone());
        let stop = self.stop.clone();
        let built = in_background("index build", move || {
            // Until the end of the build, even if nobody waits for it any more.
            let _permit = permit;
            place.build(&segment, &plan, &|| stop.is_cancelled())
        });
        let built = tokio::select! {
            built = built => built,
            () = self.stop.cancelled(), if !self.plan.recipe.can_stop() => return,
        };
        let (shard, rows) = (self.shard, self.segment.len());
        match built {
            Some(Ok(())) => {}
            Some(Err(BuildFailure::Stopped)) => return,
            // Rows that cannot be read are met by a search, too, which tells.
            Some(Err(failure)) => {
                error!(%shard, rows, error = chain(&failure), "index of a segment was not built, it is scanned");
                return self.place.give_up(&self.segment);
            }
            None => {
                error!(%shard, rows, "building an index panicked, its segment is scanned");
                return self.place.give_up(&self.segment);
            }
        }
        let (place, segment) = (self.place.clone(), self.segment.clone());
        let saved = in_background("index save", move || place.save(&segment)).await;
        let saved = saved.and_then(|saved| self.told(saved, "index of a segment was not saved"));
        let Some(bytes) = saved else { return };
        let elapsed = started.elapsed();
        self.metrics.index_builds.inc();
        self.metrics.index_build_seconds.observe(elapsed.as_secs_f64());
        let elapsed_ms = elapsed.as_millis() as u64;
        let kind = self.segment.index().map(SegmentIndex::kind).unwrap_or_default();
        let taken_over = self.segment.graph().map_or(0, Graph::taken_over);
        info!(%shard, rows, kind, bytes, taken_over, elapsed_ms, "segment indexed");
    }

    fn told<T>(&self, outcome: Result<T, StorageError>, what: &str) -> Option<T> {
        outcome.inspect_err(|error| warn!(shard = %self.shard, error = chain(error), "{what}")).ok()
    }
}
