//! An index of FAISS over rows that we keep.

use std::io::{Read, Write};
use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use ::faiss::MetricType;

use super::error::FaissError;
use super::factory::{EffortRange, Factory};
use super::mask::Mask;
use super::native::{Native, Parameters};
use super::stored::{self, Header};
use crate::{Metric, RowsView, norm};

/// Bytes of rows that are handed to FAISS at once.
pub(super) const BATCH_BYTES: usize = 16 << 20;
/// How much more than it wants a search takes when most results are hidden, before it filters.
const OVERFETCH_MAX: usize = 8;
/// Share of the wanted candidates that is enough, if it has as many as the caller must get: 3/4.
const ENOUGH: (usize, usize) = (3, 4);

/// An index of FAISS. It finds candidates: their scores are to be computed from the rows.
///
/// Its results have the numbers that the rows had in the view it was built from. Any number of threads may search at the
/// same time; each search uses its caller's thread alone.
#[derive(Debug)]
pub struct FaissIndex {
    header: Header,
    /// Searches read. Only one of a graph with another effort than the last one's writes first, since FAISS' C interface
    /// has no parameters of a single search for graphs.
    native: RwLock<Tuned>,
    /// True while lists may have room for twice what is in them.
    grown: bool,
}

#[derive(Debug)]
struct Tuned {
    native: Native,
    effort: u32,
}

/// What one search wants.
#[derive(Clone, Copy)]
struct Wanted {
    /// Rows that must be found if they are there.
    least: usize,
    /// Candidates to return, `least` or more.
    most: usize,
}

impl FaissIndex {
    /// Parses a factory string and lets FAISS make an index of it.
    ///
    /// # Errors
    /// When it is none that a table can have, or FAISS refuses it.
    pub fn validate_factory(text: &str, dimension: usize, metric: Metric) -> Result<Factory, FaissError> {
        let factory = Factory::parse(text, dimension, metric)?;
        empty(&factory)?;
        Ok(factory)
    }

    /// Trains an index with the rows and adds all of them.
    ///
    /// # Errors
    /// When there are too few rows to train it, or FAISS refuses.
    ///
    /// # Panics
    /// When the factory is for rows of another dimension.
    pub fn build(rows: &RowsView, factory: &Factory) -> Result<FaissIndex, FaissError> {
        assert_eq!(rows.dimension(), factory.dimension(), "a factory for rows of another dimension");
        if rows.len() < factory.rows_needed() {
            let (rows, needed) = (rows.len(), factory.rows_needed());
            return Err(FaissError::TooFewRows { factory: factory.to_string(), rows, needed });
        }
        let header = Header {
            factory: factory.clone(),
            rows: rows.len() as u32,
            scale: scale(rows, factory.metric()),
        };
        let mut native = empty(factory)?;
        if let Some(effort) = factory.centroid_effort() {
            native
                .set("quantizer_efSearch", effort)
                .map_err(|refusal| refusal.into_error("set up the search for lists"))?;
        }
        let sample = header.sample(rows, factory.rows_for_training());
        native.train(&sample).map_err(|refusal| refusal.into_error("train an index"))?;
        drop(sample);
        for batch in header.batches(rows) {
            native.add(&batch).map_err(|refusal| refusal.into_error("add rows"))?;
        }
        Ok(FaissIndex::new(header, native, true))
    }

    /// Row numbers of candidates for the `top_k` best rows that are `visible`, the most promising first.
    ///
    /// At least min(`top_k`, visible rows) are found, whatever is hidden; more than `top_k`, so that scoring them exactly
    /// makes up for what codes lost. `effort` is limited to [`Factory::effort`]; without one a middling value is taken.
    ///
    /// # Errors
    /// When FAISS refuses.
    ///
    /// # Panics
    /// When the vector has another dimension than the rows.
    pub fn search(
        &self,
        vector: &[f32],
        top_k: usize,
        effort: Option<u32>,
        visible: impl Fn(u32) -> bool,
    ) -> Result<Vec<u32>, FaissError> {
        assert_eq!(vector.len(), self.header.factory.dimension(), "a query of another dimension");
        let rows = self.rows();
        let top_k = top_k.min(rows);
        if top_k == 0 {
            return Ok(Vec::new());
        }
        let vector = self.header.prepared(vector);
        let mut wanted = Wanted { least: top_k, most: self.header.factory.candidates(top_k).min(rows) };
        let effort = self.effort(effort, wanted.most);
        if let Some(found) = self.overfetched(&vector, wanted, effort, &visible)? {
            return Ok(found);
        }
        let mask = Mask::new(rows as u32, &visible);
        wanted = Wanted { least: wanted.least.min(mask.count()), most: wanted.most.min(mask.count()) };
        if mask.count() <= wanted.most * OVERFETCH_MAX {
            // To score them all is cheaper than to search among them.
            return Ok(mask.rows().collect());
        }
        if self.header.factory.can_filter() {
            self.filtered(&vector, wanted, effort, &mask)
        } else {
            self.exhausted(&vector, wanted, effort, &mask)
        }
    }

    /// Asks for more and more rows and drops what is not visible; none when that would be too many.
    fn overfetched(
        &self,
        vector: &[f32],
        wanted: Wanted,
        effort: u32,
        visible: &impl Fn(u32) -> bool,
    ) -> Result<Option<Vec<u32>>, FaissError> {
        let limit = match self.header.factory.effort(self.rows()) {
            // A graph gives no more than it walks over.
            EffortRange::Candidates(_) => effort as usize,
            EffortRange::Lists(_) | EffortRange::None => wanted.most * OVERFETCH_MAX,
        };
        let mut fetch = wanted.most;
        loop {
            let mut found = self.native_search(vector, fetch, effort, None)?;
            let all = found.len() < fetch;
            found.retain(|row| visible(*row));
            if found.len() >= if all { wanted.least } else { wanted.enough() } {
                found.truncate(wanted.most);
                return Ok(Some(found));
            }
            fetch = (fetch * 2).max(fetch * wanted.most / found.len().max(1));
            if all || fetch > limit.min(self.rows()) {
                return Ok(None);
            }
        }
    }

    /// Searches among the visible rows, harder and harder.
    fn filtered(
        &self,
        vector: &[f32],
        wanted: Wanted,
        effort: u32,
        mask: &Mask,
    ) -> Result<Vec<u32>, FaissError> {
        let hardest = self.effort(Some(u32::MAX), wanted.most);
        let mut effort = effort;
        loop {
            let found = self.native_search(vector, wanted.most, effort, Some(mask))?;
            if found.len() >= wanted.least {
                return Ok(found);
            }
            if effort == hardest {
                // What is left is not to be reached: parts of a graph, or rows whose distance is beyond its numbers.
                return Ok(mask.rows().collect());
            }
            effort = effort.saturating_mul(4).min(hardest);
        }
    }

    /// For kinds without filters, which read everything in any case: takes as many as it must.
    fn exhausted(
        &self,
        vector: &[f32],
        wanted: Wanted,
        effort: u32,
        mask: &Mask,
    ) -> Result<Vec<u32>, FaissError> {
        let mut fetch = self.rows() / mask.count().max(1) * wanted.most;
        loop {
            fetch = (fetch * 2).min(self.rows());
            let mut found = self.native_search(vector, fetch, effort, None)?;
            found.retain(|row| mask.contains(*row));
            if found.len() >= wanted.enough() {
                found.truncate(wanted.most);
                return Ok(found);
            }
            if fetch == self.rows() {
                return Ok(mask.rows().collect());
            }
        }
    }

    fn native_search(
        &self,
        vector: &[f32],
        count: usize,
        effort: u32,
        mask: Option<&Mask>,
    ) -> Result<Vec<u32>, FaissError> {
        let mask = mask.map(Mask::bits);
        let search = |native: &Native, lists: Option<usize>| {
            native
                .search(vector, count, Parameters { lists, mask })
                .map_err(|refusal| refusal.into_error("search an index"))
        };
        match self.header.factory.effort(self.rows()) {
            EffortRange::None => search(&self.read().native, None),
            EffortRange::Lists(_) => search(&self.read().native, Some(effort as usize)),
            EffortRange::Candidates(_) => {
                let tuned = self.read();
                if tuned.effort == effort {
                    return search(&tuned.native, None);
                }
                drop(tuned);
                let mut tuned = self.native.write().unwrap_or_else(PoisonError::into_inner);
                tuned.tune(effort)?;
                search(&RwLockWriteGuard::downgrade(tuned).native, None)
            }
        }
    }

    /// Writes the index, with checksums.
    ///
    /// # Errors
    /// When the writer fails.
    pub fn save(&self, writer: &mut dyn Write) -> Result<(), FaissError> {
        stored::write(&self.header, &self.read().native, writer)
    }

    /// Reads an index that [`FaissIndex::save`] wrote, and no byte behind it.
    ///
    /// # Errors
    /// When the reader fails or gives anything else than what was written.
    pub fn load(reader: &mut dyn Read) -> Result<FaissIndex, FaissError> {
        let (header, native) = stored::read(reader)?;
        Ok(FaissIndex::new(header, native, false))
    }

    /// What it was built as.
    pub fn factory(&self) -> &Factory {
        &self.header.factory
    }

    /// Number of rows.
    pub fn rows(&self) -> usize {
        self.header.rows as usize
    }

    /// Bytes of memory that it takes, to a few percent. One that was built takes up to twice what it does once loaded.
    pub fn bytes(&self) -> usize {
        let bytes = self.header.factory.bytes(self.rows());
        if self.grown { 2 * bytes } else { bytes }
    }

    fn new(header: Header, native: Native, built: bool) -> FaissIndex {
        let grown = built && matches!(header.factory.effort(1), EffortRange::Lists(_));
        // 0 is no effort: the first search of a graph sets its own.
        FaissIndex { header, native: RwLock::new(Tuned { native, effort: 0 }), grown }
    }

    /// The effort that is spent when so much is asked for, and so many candidates are wanted.
    fn effort(&self, asked: Option<u32>, wanted: usize) -> u32 {
        let asked = self.header.factory.effort_of(asked);
        match self.header.factory.effort(self.rows()) {
            EffortRange::None => 1,
            EffortRange::Lists(range) => asked.clamp(*range.start(), *range.end()),
            EffortRange::Candidates(range) => asked.max(wanted as u32).clamp(*range.start(), *range.end()),
        }
    }

    fn read(&self) -> RwLockReadGuard<'_, Tuned> {
        self.native.read().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Tuned {
    fn tune(&mut self, effort: u32) -> Result<(), FaissError> {
        if self.effort != effort {
            self.native.set("efSearch", effort).map_err(|refusal| refusal.into_error("set up a search"))?;
            self.effort = effort;
        }
        Ok(())
    }
}

impl Wanted {
    fn enough(self) -> usize {
        self.least.max(self.most * ENOUGH.0 / ENOUGH.1)
    }
}

impl Header {
    /// A vector as FAISS is to see it: its sums of squares must neither overflow nor vanish in single precision, so rows are
    /// scaled by a power of two. Under cosine all are normalised; under dot product a query's length changes no order.
    fn prepared(&self, vector: &[f32]) -> Vec<f32> {
        let factor = match self.factory.metric() {
            Metric::Cosine => inverse(norm(vector)),
            Metric::L2 => f64::from(self.scale),
            Metric::Dot => power_of_two_below_inverse(largest(vector)),
        };
        scaled(vector, factor).collect()
    }

    fn prepared_row(&self, rows: &RowsView, row: u32) -> Vec<f32> {
        let factor = match self.factory.metric() {
            Metric::Cosine => inverse(rows.norm(row)),
            Metric::L2 | Metric::Dot => f64::from(self.scale),
        };
        scaled(&rows.row(row), factor).collect()
    }

    /// At most `count` rows, spread evenly.
    fn sample(&self, rows: &RowsView, count: usize) -> Vec<f32> {
        let count = count.min(rows.len());
        let mut sample = Vec::with_capacity(count * rows.dimension());
        (0..count)
            .for_each(|index| sample.extend(self.prepared_row(rows, (index * rows.len() / count) as u32)));
        sample
    }

    fn batches(&self, rows: &RowsView) -> impl Iterator<Item = Vec<f32>> {
        let batch = (BATCH_BYTES / (rows.dimension() * size_of::<f32>())).max(1);
        (0..rows.len()).step_by(batch).map(move |first| {
            let last = (first + batch).min(rows.len());
            let mut values = Vec::with_capacity((last - first) * rows.dimension());
            (first..last).for_each(|row| values.extend(self.prepared_row(rows, row as u32)));
            values
        })
    }
}

/// What FAISS compares by. Normalised rows are in the same order by distance as by cosine, and graphs and codes suit
/// distances better.
pub(super) fn native_metric(metric: Metric) -> MetricType {
    match metric {
        Metric::Cosine | Metric::L2 => MetricType::L2,
        Metric::Dot => MetricType::InnerProduct,
    }
}

fn empty(factory: &Factory) -> Result<Native, FaissError> {
    Native::new(factory.dimension(), &factory.native(), native_metric(factory.metric()))
        .map_err(|refusal| refusal.into_error("make such an index"))
}

fn scaled(vector: &[f32], factor: f64) -> impl Iterator<Item = f32> {
    vector.iter().map(move |value| (f64::from(*value) * factor) as f32)
}

/// The scale of all rows, under which no value is above 1.
fn scale(rows: &RowsView, metric: Metric) -> f32 {
    match metric {
        Metric::Cosine => 1.0,
        Metric::L2 | Metric::Dot => {
            let largest = (0..rows.len() as u32).map(|row| largest(&rows.row(row))).fold(0.0, f32::max);
            power_of_two_below_inverse(largest) as f32
        }
    }
}

fn largest(vector: &[f32]) -> f32 {
    vector.iter().fold(0.0, |largest, value| largest.max(value.abs()))
}

/// A power of two, a normal single-precision number, that brings `largest` into 0.5..1 or near it; 1 for zero.
fn power_of_two_below_inverse(largest: f32) -> f64 {
    if largest == 0.0 { 1.0 } else { 2f64.powi((-(largest.log2().floor() as i32) - 1).clamp(-126, 126)) }
}

fn inverse(norm: f64) -> f64 {
    if norm == 0.0 { 1.0 } else { norm.recip() }
}
