//! Indexes of metadata for a replica's sealed segments: built in the background, as the table's record wants them.
//!
//! Searches take what is there and never wait. The [`SegmentIndexer`] of a replica looks at its segments when something
//! changed, and reads those that lack an index on the compute pool, some rows at a time, so that no search waits long for a
//! thread.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use tokio::sync::watch;
use tokio::time::timeout;
use tracing::{debug, error};

use super::metrics::ShardMetrics;
use super::replica::Replica;
use crate::filter::index::{FieldIndexes, FieldIndexesBuilder, IndexedFields};
use crate::runtime::{ComputePool, PoolError};
use crate::storage::segment::{SegmentId, SegmentView};

/// Rows that are read without a pause: some milliseconds.
const ROWS_A_STEP: u32 = 4_096;
/// Pause between two looks at the segments of a shard that is written to, and after a refusal of the pool.
const PAUSE: Duration = Duration::from_millis(100);

/// What is built. Cheap to clone; clones see the same.
#[derive(Clone, Default)]
pub struct SegmentIndexes(Arc<ArcSwap<BTreeMap<SegmentId, Arc<FieldIndexes>>>>);

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

    fn set(&self, built: BTreeMap<SegmentId, Arc<FieldIndexes>>) {
        self.0.store(Arc::new(built));
    }
}

/// True for a segment whose rows never change: one in a file.
fn is_sealed(segment: &SegmentView) -> bool {
    segment.is_by_id()
}

/// Keeps the indexes of one replica as they should be.
pub(super) struct SegmentIndexer {
    pub(super) replica: Arc<Replica>,
    /// What the table's record wants.
    pub(super) fields: watch::Receiver<IndexedFields>,
    pub(super) compute: ComputePool,
    pub(super) metrics: ShardMetrics,
}

/// A bug: the segment is left without an index until something changes.
struct IndexingPanicked;

impl SegmentIndexer {
    /// Until the replica's owner has ended.
    pub(super) async fn run(mut self) {
        let mut state = self.replica.state.clone();
        let mut counted_bytes = 0;
        loop {
            state.mark_unchanged();
            let is_done = self.bring_up_to_date().await;
            let bytes = self.replica.indexes.bytes() as i64;
            self.metrics.metadata_index_bytes.inc_by(bytes - counted_bytes);
            counted_bytes = bytes;
            let has_ended = is_done
                && tokio::select! {
                    changed = self.fields.changed() => changed.is_err(),
                    changed = state.changed() => changed.is_err(),
                };
            // A replica that is written to changes all the time, its sealed segments seldom.
            if has_ended || timeout(PAUSE, self.replica.ended()).await.is_ok() {
                break;
            }
        }
        self.metrics.metadata_index_bytes.dec_by(counted_bytes);
    }

    /// Builds what is missing, segment by segment, and forgets what is not wanted any more. False: it is worth another look
    /// soon.
    async fn bring_up_to_date(&mut self) -> bool {
        let fields = self.fields.borrow_and_update().clone();
        let segments = self.replica.reader.snapshot().segments.clone();
        let sealed: Vec<SegmentView> = segments.into_iter().filter(is_sealed).collect();
        let mut built = BTreeMap::clone(&self.replica.indexes.0.load());
        built.retain(|id, _| !fields.is_empty() && sealed.iter().any(|segment| segment.id() == *id));
        self.replica.indexes.set(built.clone());
        for segment in sealed {
            let id = segment.id();
            let known =
                built.get(&id).cloned().unwrap_or_else(|| Arc::new(FieldIndexes::none(segment.len())));
            if known.are_for(&fields) {
                continue;
            }
            let more = match self.build(segment, known.missing(&fields)).await {
                Ok(Some(more)) => more,
                Ok(None) => return false,
                Err(IndexingPanicked) => {
                    error!(shard = %self.replica.shard, segment = id.0, "indexing metadata panicked");
                    continue;
                }
            };
            // Those that are there serve until then.
            let mut whole = FieldIndexes::clone(&known);
            whole.take_over(more, &fields);
            built.insert(id, Arc::new(whole));
            self.replica.indexes.set(built.clone());
        }
        true
    }

    /// The indexes of a segment; `None` when others are wanted meanwhile, or nobody wants any.
    async fn build(
        &self,
        segment: SegmentView,
        fields: IndexedFields,
    ) -> Result<Option<FieldIndexes>, IndexingPanicked> {
        let started = Instant::now();
        let (id, rows) = (segment.id(), segment.len());
        // Not lost when the pool refuses a step.
        let builder = Arc::new(Mutex::new(Some(FieldIndexesBuilder::new(&fields, rows))));
        let finished = loop {
            if self.fields.has_changed().unwrap_or(true) || self.replica.state.has_changed().is_err() {
                return Ok(None);
            }
            let (builder, segment) = (builder.clone(), segment.clone());
            let step = self.compute.run(move || {
                let mut held = builder.lock().expect("a step that panicked is the last");
                let is_read = held.as_mut()?.read(ROWS_A_STEP, |row| segment.metadata_json(row));
                if is_read { held.take().map(FieldIndexesBuilder::finish) } else { None }
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
}
