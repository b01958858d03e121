//! A search's filter over the segments of one snapshot: by the indexes of those that have some, by reading the metadata of
//! the others.

use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::segment_indexes::SegmentIndexes;
use crate::filter::Matcher;
use crate::filter::index::{FieldIndexes, FilterReport, Selection};
use crate::storage::Snapshot;
use crate::storage::segment::SegmentView;

/// Rows between two that may pass which are read along: beginning anew costs as much.
const GAP_ROWS_MAX: u32 = 8;

/// A filter that knows which rows of each segment pass, as far as indexes do.
#[derive(Debug)]
pub struct SnapshotFilter {
    matcher: Arc<Matcher>,
    /// By the segment's place in the snapshot; `None`: it has no index.
    selections: Vec<Option<Selection>>,
    /// Time that each took.
    elapsed: Vec<Duration>,
}

impl SnapshotFilter {
    /// Asks the indexes: some hundred microseconds for a million rows, so not on the reactor unless there are none.
    pub fn new(matcher: Arc<Matcher>, snapshot: &Snapshot, indexes: &SegmentIndexes) -> SnapshotFilter {
        let count = snapshot.segments.len();
        let (mut selections, mut elapsed) = (Vec::with_capacity(count), Vec::with_capacity(count));
        for segment in &snapshot.segments {
            let started = Instant::now();
            selections.push(indexes.of(segment).map(|indexes| indexes.select(matcher.filter())));
            elapsed.push(started.elapsed());
        }
        SnapshotFilter { matcher, selections, elapsed }
    }

    /// What the indexes of a segment say, by its place in the snapshot; `None`: it has no index.
    pub fn selection(&self, place: usize) -> Option<&Selection> {
        self.selections[place].as_ref()
    }

    /// True when a row of the segment at this place in the snapshot passes.
    pub fn passes(&self, place: usize, segment: &SegmentView, row: u32) -> bool {
        match &self.selections[place] {
            Some(selection) => selection.passes(row, || segment.metadata_json(row)),
            None => self.matcher.matches(segment.metadata_json(row)),
        }
    }

    /// The rows of a range that are worth a look: those that may pass, with what lies in small gaps between them.
    pub fn runs(&self, place: usize, range: Range<u32>) -> Vec<Range<u32>> {
        let Some(selection) = &self.selections[place] else { return vec![range] };
        let mut runs: Vec<Range<u32>> = Vec::new();
        let mut possible = selection.possible().range(range);
        while let Some(next) = possible.next_range() {
            let end = next.end() + 1;
            match runs.last_mut() {
                Some(run) if next.start() - run.end <= GAP_ROWS_MAX => run.end = end,
                _ => runs.push(*next.start()..end),
            }
        }
        runs
    }

    /// How the filter is applied to each segment; reads the metadata of some rows where it is not known how many pass.
    pub fn reports(&self, snapshot: &Snapshot) -> Vec<FilterReport> {
        let segments = snapshot.segments.iter().zip(&self.selections).zip(&self.elapsed);
        let report = |((segment, selection), elapsed): ((&SegmentView, &Option<Selection>), &Duration)| {
            let started = Instant::now();
            let unknown = || FieldIndexes::none(segment.len()).select(self.matcher.filter());
            let without = selection.is_none().then(unknown);
            let selection = selection.as_ref().or(without.as_ref()).expect("one of them is there");
            let passing = selection.estimate(|row| segment.metadata_json(row));
            selection.report(passing, *elapsed + started.elapsed())
        };
        segments.map(report).collect()
    }
}
