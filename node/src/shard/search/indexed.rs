//! A search of one segment through its index, a graph or one of FAISS: which rows count, and how that is told to the index.

use std::cell::RefCell;
use std::sync::Once;

use tracing::error;
use vectorsphere_index::faiss::FaissIndex;
use vectorsphere_index::{Plan, Query, RowMask, Scratch, Selection, TopK, Touched, offer};

use super::super::snapshot_filter::SnapshotFilter;
use super::{Engine, ShardQuery};
use crate::filter::index::Selection as FilterSelection;
use crate::search::SearchPlan;
use crate::storage::segment::{SegmentIndex, SegmentView};
use crate::storage::{Snapshot, StorageError};

/// Rows whose metadata are looked at to see how many pass a filter, and how many of them make it worth looking at metadata
/// on the way only: elsewhere every row's are read before.
const FILTER_SAMPLE: u32 = 256;
const FILTER_COMMON: usize = 26;

static FAISS_FAILED: Once = Once::new();

thread_local! {
    static SCRATCH: RefCell<Scratch> = RefCell::default();
}

/// The plan of a graph, searched at a width, in the words of an answer.
fn plan(plan: Plan, width: usize) -> SearchPlan {
    let candidates = |width: usize| u32::try_from(width).unwrap_or(u32::MAX);
    match plan {
        Plan::Walk => SearchPlan::Walk(candidates(width)),
        Plan::WalkFor { width } => SearchPlan::FilteredWalk(candidates(width)),
        Plan::WalkWithin => SearchPlan::TwoHopWalk,
        Plan::Scan => SearchPlan::ScanCodes,
    }
}

/// A search of one segment through its index.
pub(super) struct Indexed<'w> {
    pub(super) engine: Engine,
    pub(super) segment: &'w SegmentView,
    pub(super) index: &'w SegmentIndex,
    pub(super) snapshot: &'w Snapshot,
    pub(super) query: &'w ShardQuery,
    /// With the segment's place in the snapshot.
    pub(super) filter: Option<(&'w SnapshotFilter, usize)>,
    pub(super) target: &'w Query<'w>,
}

impl Indexed<'_> {
    pub(super) fn run<K: Ord>(
        &self,
        is_wanted: impl Fn(u32) -> bool,
        key: impl Fn(u32) -> K,
        top: &mut TopK<K>,
    ) -> Result<(SearchPlan, Touched), StorageError> {
        let Indexed { segment, snapshot, .. } = self;
        let visible = |row: u32| segment.is_live(row, snapshot.lsn) && is_wanted(row);
        let Some((filter, place)) = self.filter else {
            let dead = segment.dead_rows() as usize;
            let selection = if dead == 0 { Selection::All } else { Selection::AllBut(dead) };
            return self.search(selection, visible, key, top);
        };
        if let Some(selection) = filter.selection(place) {
            return self.run_selected(selection, visible, key, top);
        }
        let passes = |row: u32| visible(row) && filter.passes(place, segment, row);
        let (rows, sampled) = (segment.len(), segment.len().min(FILTER_SAMPLE));
        let row_of = |index: u32| (u64::from(index) * u64::from(rows) / u64::from(sampled)) as u32;
        let passed = (0..sampled).filter(|index| passes(row_of(*index))).count();
        if passed >= FILTER_COMMON {
            // A sample in which all pass does not say that all do.
            let hidden = (rows as usize - rows as usize * passed / sampled as usize).max(1);
            return self.search(Selection::AllBut(hidden), passes, key, top);
        }
        let mask = RowMask::of(rows, passes);
        self.search(Selection::Mask(&mask), |_| true, key, top)
    }

    /// The same where indexes know which rows pass, or most that do not.
    fn run_selected<K: Ord>(
        &self,
        selected: &FilterSelection,
        visible: impl Fn(u32) -> bool,
        key: impl Fn(u32) -> K,
        top: &mut TopK<K>,
    ) -> Result<(SearchPlan, Touched), StorageError> {
        let segment = self.segment;
        let rows = segment.len();
        let metadata = |row: u32| segment.metadata_json(row);
        let passing = selected.estimate(metadata);
        if passing * u64::from(FILTER_SAMPLE) >= u64::from(rows) * FILTER_COMMON as u64 {
            // Indexes know deleted rows, too.
            let hidden = (u64::from(rows) - passing + u64::from(segment.dead_rows())).min(rows.into());
            let selection = match (selected.is_exact(), hidden as usize) {
                (true, 0) => Selection::All,
                // An estimate that all pass does not say that all do.
                (_, hidden) => Selection::AllBut(hidden.max(1)),
            };
            let passes = |row: u32| visible(row) && selected.passes(row, || metadata(row));
            return self.search(selection, passes, key, top);
        }
        let mut mask = RowMask::none(rows);
        let passes = |row: &u32| visible(*row) && selected.passes_possible(*row, || metadata(*row));
        selected.possible().iter().filter(passes).for_each(|row| mask.insert(row));
        self.search(Selection::Mask(&mask), |_| true, key, top)
    }

    fn search<K: Ord>(
        &self,
        selection: Selection<'_>,
        visible: impl Fn(u32) -> bool,
        key: impl Fn(u32) -> K,
        top: &mut TopK<K>,
    ) -> Result<(SearchPlan, Touched), StorageError> {
        match (self.index, selection) {
            (SegmentIndex::Graph(graph), _) => {
                let (kernels, rows) = (self.engine.kernels, self.segment.rows());
                let width = self.query.width(graph);
                let effort = (width, graph.calibration().entries());
                let touched = SCRATCH.with_borrow_mut(|scratch| {
                    graph.search(kernels, rows, self.target, effort, selection, visible, key, top, scratch)
                })?;
                Ok((plan(touched.plan, width), touched))
            }
            (SegmentIndex::Faiss(index), Selection::Mask(mask)) => {
                self.search_faiss(index, |row| mask.contains(row) && visible(row), key, top)
            }
            (SegmentIndex::Faiss(index), _) => self.search_faiss(index, visible, key, top),
        }
    }

    /// FAISS says which rows are worth a look, and the rows themselves which of them are best. A search that it fails costs
    /// a scan, and nothing else.
    fn search_faiss<K: Ord>(
        &self,
        index: &FaissIndex,
        visible: impl Fn(u32) -> bool,
        key: impl Fn(u32) -> K,
        top: &mut TopK<K>,
    ) -> Result<(SearchPlan, Touched), StorageError> {
        let (kernels, rows, query) = (self.engine.kernels, self.segment.rows(), self.query);
        let touched = |rows: usize| Touched { plan: Plan::Scan, hops: 0, vertices: 0, rows };
        match index.search(&query.vector, query.top_k, query.faiss_effort(), &visible) {
            Ok(candidates) => {
                let count = candidates.len();
                offer(kernels, rows, candidates, self.target, key, top)?;
                Ok((SearchPlan::Faiss, touched(count)))
            }
            Err(error) => {
                // Told once: every search may fail.
                FAISS_FAILED.call_once(|| error!(%error, "FAISS failed to search, segments are scanned"));
                rows.scan(kernels, 0..self.segment.len(), self.target, visible, key, top)?;
                Ok((SearchPlan::Scan, touched(rows.len())))
            }
        }
    }
}
