//! Which rows of a segment pass a filter, as far as its indexes know.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use roaring::RoaringBitmap;

use super::FieldIndexes;
use super::bounds::Bounds;
use crate::filter::{Condition, Filter, KeyPath, Matcher};

/// Rows that an estimate looks at.
const SAMPLE_ROWS: u64 = 128;
/// Most keys of [`FilterReport::unindexed`]: a filter has up to a thousand, a shard many segments.
pub const UNINDEXED_MAX: usize = 16;

/// The rows of one segment that pass a filter. Those in `sure` do; of those that are only in `possible`, the ones whose
/// metadata passes `rest`.
#[derive(Debug)]
pub struct Selection {
    rows: u32,
    bounds: Bounds,
    rest: Option<Matcher>,
    unindexed: Vec<KeyPath>,
}

/// How a filter was applied to a segment.
#[derive(Clone, Debug, PartialEq)]
pub struct FilterReport {
    /// Rows of the segment, deleted ones too.
    pub rows: u64,
    /// Those that pass; an estimate unless `how` is [`Applied::Index`].
    pub passing: u64,
    /// How it is found out which.
    pub how: Applied,
    /// Keys that no index answers for, or not for what the filter asks of them; at most [`UNINDEXED_MAX`].
    pub unindexed: Vec<KeyPath>,
    /// Time that the indexes took.
    pub elapsed: Duration,
}

/// How it is found out which rows pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Applied {
    /// The indexes know all of them.
    Index,
    /// The indexes leave some rows whose metadata is read.
    IndexAndMetadata,
    /// The metadata of every row is read.
    Metadata,
}

impl Applied {
    const ALL: [Applied; 3] = [Applied::Index, Applied::IndexAndMetadata, Applied::Metadata];

    /// The word that users read.
    pub const fn as_str(self) -> &'static str {
        match self {
            Applied::Index => "index",
            Applied::IndexAndMetadata => "index_and_metadata",
            Applied::Metadata => "metadata",
        }
    }

    /// The one of a word.
    pub fn parse(word: &str) -> Option<Applied> {
        Applied::ALL.into_iter().find(|applied| applied.as_str() == word)
    }
}

impl FieldIndexes {
    /// Which rows pass a filter.
    pub fn select(&self, filter: &Filter) -> Selection {
        let mut all = RoaringBitmap::new();
        all.insert_range(0..self.rows());
        let mut plan = Plan { indexes: self, all, unindexed: BTreeSet::new() };
        let (bounds, rest) = plan.filter(filter);
        let unindexed = plan.unindexed.into_iter().collect();
        let rest = rest.filter(|_| !bounds.is_exact()).map(|rest| Matcher::new(Arc::new(rest)));
        Selection { rows: self.rows(), bounds, rest, unindexed }
    }
}

struct Plan<'i> {
    indexes: &'i FieldIndexes,
    all: RoaringBitmap,
    unindexed: BTreeSet<KeyPath>,
}

impl Plan<'_> {
    /// What is known of a filter, and what of it is left to look at in the rows that it may pass: conditions whose rows are
    /// known hold for all of those.
    fn filter(&mut self, filter: &Filter) -> (Bounds, Option<Filter>) {
        let mut bounds = Bounds::exact(self.all.clone());
        let mut rest = Filter::default();
        for condition in &filter.must {
            let (of_condition, left) = self.condition(condition);
            bounds = bounds.and(&of_condition);
            rest.must.extend(left);
        }
        for condition in &filter.must_not {
            let (of_condition, _) = self.condition(condition);
            if !of_condition.is_exact() {
                rest.must_not.push(condition.clone());
            }
            bounds = bounds.and_not(&of_condition);
        }
        if !filter.should.is_empty() {
            let mut any = Bounds::exact(RoaringBitmap::new());
            for condition in &filter.should {
                any = any.or(&self.condition(condition).0);
            }
            if !any.is_exact() {
                rest.should.clone_from(&filter.should);
            }
            bounds = bounds.and(&any);
        }
        (bounds, (!rest.is_empty()).then_some(rest))
    }

    fn condition(&mut self, condition: &Condition) -> (Bounds, Option<Condition>) {
        match condition {
            Condition::Field(key, test) => {
                let bounds = match self.indexes.field(key) {
                    Some(field) => {
                        let bounds = field.bounds(test, &self.all);
                        if !bounds.is_exact() && !field.is_for(test) {
                            self.note(key);
                        }
                        bounds
                    }
                    None => self.unknown(key),
                };
                let left = (!bounds.is_exact()).then(|| condition.clone());
                (bounds, left)
            }
            // Which of a row's values belong to one element is not in the indexes.
            Condition::Nested(key, _) => (self.unknown(key), Some(condition.clone())),
            Condition::Filter(filter) => {
                let (bounds, rest) = self.filter(filter);
                let rest = rest.filter(|_| !bounds.is_exact()).map(Condition::Filter);
                (bounds, rest)
            }
        }
    }

    fn unknown(&mut self, key: &KeyPath) -> Bounds {
        self.note(key);
        Bounds::between(RoaringBitmap::new(), &self.all)
    }

    fn note(&mut self, key: &KeyPath) {
        if self.unindexed.len() < UNINDEXED_MAX && !self.unindexed.contains(key) {
            self.unindexed.insert(key.clone());
        }
    }
}

impl Selection {
    /// True when the indexes know every row that passes.
    pub fn is_exact(&self) -> bool {
        self.bounds.is_exact()
    }

    /// Rows that pass, and, unless the selection is exact, others.
    pub fn possible(&self) -> &RoaringBitmap {
        self.bounds.possible()
    }

    /// Rows that pass for certain.
    pub fn sure(&self) -> &RoaringBitmap {
        &self.bounds.sure
    }

    /// What rows that are possible but not sure have to pass.
    pub fn rest_filter(&self) -> Option<&Filter> {
        self.rest.as_ref().map(|rest| &**rest.filter())
    }

    /// True when a row passes; `metadata` gives its JSON text, which is read only where the indexes do not know.
    pub fn passes<'m>(&self, row: u32, metadata: impl FnOnce() -> &'m [u8]) -> bool {
        self.possible().contains(row) && self.passes_possible(row, metadata)
    }

    /// True when a row of [`Selection::possible`], passes.
    pub fn passes_possible<'m>(&self, row: u32, metadata: impl FnOnce() -> &'m [u8]) -> bool {
        match &self.rest {
            None => true,
            Some(rest) => self.bounds.sure.contains(row) || rest.matches(metadata()),
        }
    }

    /// About how many rows pass, exactly when the selection is exact. `metadata` gives a row's JSON text; some are read.
    pub fn estimate<'m>(&self, metadata: impl Fn(u32) -> &'m [u8]) -> u64 {
        let (sure, possible) = (self.bounds.sure.len(), self.possible());
        let Some(rest) = &self.rest else { return possible.len() };
        let unsure = possible.len() - sure;
        let looked_at = possible.len().min(SAMPLE_ROWS);
        let (mut asked, mut passed) = (0, 0);
        for sample in 0..looked_at {
            let place = (possible.len() * (2 * sample + 1) / (2 * looked_at)) as u32;
            let row = possible.select(place).expect("fewer than there are");
            if !self.bounds.sure.contains(row) {
                asked += 1;
                passed += u64::from(rest.matches(metadata(row)));
            }
        }
        // Without a sample one half is the best guess.
        sure + (unsure * passed).checked_div(asked).unwrap_or(unsure / 2)
    }

    /// Puts a known row set in place of what has to be read: looks at every row that may pass.
    pub fn resolve<'m>(&mut self, metadata: impl Fn(u32) -> &'m [u8]) {
        let Some(rest) = self.rest.take() else { return };
        let unsure = self.possible() - &self.bounds.sure;
        let passing = unsure.iter().filter(|row| rest.matches(metadata(*row)));
        let passing = RoaringBitmap::from_sorted_iter(passing).expect("rows ascend");
        self.bounds = Bounds::exact(&self.bounds.sure | passing);
    }

    /// How the filter was applied, `passing` being what [`Selection::estimate`] gave, and `elapsed` the time that all that
    /// took.
    pub fn report(&self, passing: u64, elapsed: Duration) -> FilterReport {
        let how = match &self.rest {
            None => Applied::Index,
            Some(_) if self.possible().len() < u64::from(self.rows) || !self.bounds.sure.is_empty() => {
                Applied::IndexAndMetadata
            }
            Some(_) => Applied::Metadata,
        };
        FilterReport { rows: u64::from(self.rows), passing, how, unindexed: self.unindexed.clone(), elapsed }
    }
}
