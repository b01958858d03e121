//! Indexes of metadata for a replica's sealed segments: built in the background, as the table's record wants them.
//!
//! Searches take what is there and never wait. The [`SegmentIndexer`] of a replica looks at its segments when something
//! changed, and reads those that lack an index on the compute pool, some rows at a time, so that no search waits long for a
//! thread; one segment at a time on a node, so that not all of them are held half-built.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use tokio::sync::{Semaphore, watch};
use tokio::time::timeout;
use tracing::{debug, error};

use super::metrics::ShardMetrics;
use super::replica::Replica;
use crate::filter::KeyPath;
use crate::filter::index::{FieldIndexes, FieldIndexesBuilder, FieldKind, IndexedFields};
use crate::runtime::{ComputePool, PoolError};
use crate::storage::segment::{SegmentId, SegmentView};

/// Values that a pass over a segment collects, about, before they are ordered: some hundred MiB. Fields beyond are left to
/// another pass.
const PASS_VALUES: u32 = 1 << 24;
/// Pause between two looks at the segments of a shard that is written to, and after a refusal of the pool.
const PAUSE: Duration = Duration::from_millis(100);

type Built = BTreeMap<SegmentId, Arc<FieldIndexes>>;

/// What is built. Cheap to clone; clones see the same.
#[derive(Clone, Default)]
pub struct SegmentIndexes(Arc<ArcSwap<Built>>);

impl SegmentIndexes {
    /// The indexes of a segment that is sealed; `None` while there are none.
    pub fn of(&self, segment: &SegmentView) -> Option<Arc<FieldIndexes>> {
        let built = self.0.load();
        built.get(&segment.id()).filter(|_| is_sealed(segment)).cloned()
    }

    /// True when there are none of any segment.
    pub fn is_empty(&self) -> bool {
        self.0.load().is_empty()
    }

    /// Bytes in memory.
    pub fn bytes(&self) -> usize {
        self.0.load().values().map(|indexes| indexes.bytes()).sum()
    }
}

/// True for a segment whose rows never change: one in a file.
fn is_sealed(segment: &SegmentView) -> bool {
    segment.is_by_id()
}

/// Keeps the indexes of one replica as they should be.
pub(super) struct SegmentIndexer {
    replica: Arc<Replica>,
    /// What the table's record wants.
    fields: watch::Receiver<IndexedFields>,
    compute: ComputePool,
    /// Held for a pass over a segment.
    permits: Arc<Semaphore>,
    metrics: ShardMetrics,
    counted_bytes: i64,
    /// Not tried again while they are wanted: building them panicked.
    failed: BTreeSet<(SegmentId, KeyPath, FieldKind)>,
}

/// A bug.
struct IndexingPanicked;

impl SegmentIndexer {
    pub(super) fn new(
        replica: Arc<Replica>,
        fields: watch::Receiver<IndexedFields>,
        compute: ComputePool,
        permits: Arc<Semaphore>,
        metrics: ShardMetrics,
    ) -> SegmentIndexer {
        let failed = BTreeSet::new();
        SegmentIndexer { replica, fields, compute, permits, metrics, counted_bytes: 0, failed }
    }

    /// Until the replica's owner has ended.
    pub(super) async fn run(mut self) {
        let mut state = self.replica.state.clone();
        loop {
            state.mark_unchanged();
            self.bring_up_to_date().await;
            let has_ended = tokio::select! {
                changed = self.fields.changed() => changed.is_err(),
                changed = state.changed() => changed.is_err(),
            };
            // A replica that is written to changes all the time, its sealed segments seldom.
            if has_ended || timeout(PAUSE, self.replica.ended()).await.is_ok() {
                break;
            }
        }
        self.metrics.metadata_index_bytes.dec_by(self.counted_bytes);
    }

    /// Forgets what is not wanted any more, and builds what is missing, pass by pass.
    async fn bring_up_to_date(&mut self) {
        while self.replica.state.has_changed().is_ok() {
            let fields = self.fields.borrow_and_update().clone();
            let sealed = self.sealed();
            self.forget(&fields, &sealed).await;
            let Some((segment, missing)) = self.next_pass(&fields, sealed) else { return };
            let id = segment.id();
            match self.pass(segment, &missing).await {
                Ok(None) => {}
                Ok(Some(more)) => {
                    let mut built = Built::clone(&self.replica.indexes.0.load());
                    let mut whole =
                        built.get(&id).map_or(FieldIndexes::none(more.rows()), |known| (**known).clone());
                    whole.take_over(more);
                    built.insert(id, Arc::new(whole));
                    self.publish(built).await;
                }
                Err(IndexingPanicked) => {
                    error!(shard = %self.replica.shard, segment = id.0, "indexing metadata panicked");
                    self.failed.extend(missing.into_iter().map(|(key, kind)| (id, key, kind)));
                }
            }
        }
    }

    fn sealed(&self) -> Vec<SegmentView> {
        let segments = self.replica.reader.snapshot();
        segments.segments.iter().filter(|segment| is_sealed(segment)).cloned().collect()
    }

    /// Forgets indexes of segments that are no more, and of fields that shall have none.
    async fn forget(&mut self, fields: &IndexedFields, sealed: &[SegmentView]) {
        let is_there = |id: SegmentId| sealed.iter().any(|segment| segment.id() == id);
        self.failed.retain(|(id, key, kind)| is_there(*id) && fields.get(key) == Some(kind));
        let mut built = Built::clone(&self.replica.indexes.0.load());
        let mut has_changed = false;
        built.retain(|id, indexes| {
            if let Some(wanted) = indexes.only(fields) {
                *indexes = Arc::new(wanted);
                has_changed = true;
            }
            let stays = is_there(*id) && !indexes.is_empty();
            has_changed |= !stays;
            stays
        });
        if has_changed {
            self.publish(built).await;
        }
    }

    /// A segment that lacks indexes of some fields, and those that come next.
    fn next_pass(
        &self,
        fields: &IndexedFields,
        sealed: Vec<SegmentView>,
    ) -> Option<(SegmentView, IndexedFields)> {
        let built = self.replica.indexes.0.load();
        sealed.into_iter().find_map(|segment| {
            let id = segment.id();
            let mut missing = built.get(&id).map_or_else(|| fields.clone(), |known| known.missing(fields));
            missing.retain(|key, kind| !self.failed.contains(&(id, key.clone(), *kind)));
            let missing: IndexedFields = missing.into_iter().take(fields_of_a_pass(segment.len())).collect();
            (!missing.is_empty()).then_some((segment, missing))
        })
    }

    /// Lets searches use these, in place of those that are there. Memory is freed on the compute pool: of a large segment that
    /// takes long.
    async fn publish(&mut self, built: Built) {
        let before = self.replica.indexes.0.swap(Arc::new(built));
        let bytes = self.replica.indexes.bytes() as i64;
        self.metrics.metadata_index_bytes.inc_by(bytes - self.counted_bytes);
        self.counted_bytes = bytes;
        // A pool that refuses drops it here.
        let _ = self.compute.run(move || drop(before)).await;
    }

    /// The indexes of a segment; `None` when they, or the segment, are not wanted any more.
    async fn pass(
        &self,
        segment: SegmentView,
        fields: &IndexedFields,
    ) -> Result<Option<FieldIndexes>, IndexingPanicked> {
        let _permit = tokio::select! {
            () = self.replica.ended() => return Ok(None),
            permit = self.permits.acquire() => permit.expect("never closed"),
        };
        let started = Instant::now();
        let (id, rows) = (segment.id(), segment.len());
        // Not lost when the pool refuses a step.
        let builder = Arc::new(Mutex::new(FieldIndexesBuilder::new(fields, rows)));
        let finished = loop {
            if !self.is_wanted(id, fields) {
                let _ = self.compute.run(move || drop(builder)).await;
                return Ok(None);
            }
            let (builder, segment) = (builder.clone(), segment.clone());
            let step = self.compute.run(move || {
                let mut builder = builder.lock().expect("a step that panicked is the last");
                builder.step(|row| segment.metadata_json(row))
            });
            match step.await {
                Ok(None) => {}
                Ok(Some(finished)) => break finished,
                Err(PoolError::Overloaded) => tokio::time::sleep(PAUSE).await,
                Err(PoolError::Panicked) => return Err(IndexingPanicked),
            }
        };
        let (bytes, elapsed_ms) = (finished.bytes(), started.elapsed().as_millis() as u64);
        let (shard, count) = (self.replica.shard, fields.len());
        debug!(%shard, segment = id.0, rows, fields = count, bytes, elapsed_ms, "metadata indexed");
        Ok(Some(finished))
    }

    /// True while the replica is open, the segment is one of it, and all of these fields shall have such indexes.
    fn is_wanted(&self, id: SegmentId, fields: &IndexedFields) -> bool {
        let wanted = self.fields.borrow();
        self.replica.state.has_changed().is_ok()
            && fields.iter().all(|(key, kind)| wanted.get(key) == Some(kind))
            && self.replica.reader.snapshot().segments.iter().any(|segment| segment.id() == id)
    }
}

/// Fields whose indexes are built by one pass over a segment with so many rows: one at least.
fn fields_of_a_pass(rows: u32) -> usize {
    PASS_VALUES.checked_div(rows).map_or(usize::MAX, |fields| fields.max(1) as usize)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pass_over_a_large_segment_is_for_few_fields() {
        let fields = [0, 1, 1 << 20, 10_000_000, u32::MAX].map(fields_of_a_pass);
        assert_eq!(fields, [usize::MAX, 1 << 24, 16, 1, 1]);
    }
}
