//! Exact search by reading every row.
//!
//! A single-precision kernel gives each row an estimate e of the true value v. Summing n products of floats in any order,
//! fused or not, errs by at most γ·Σ|aᵢbᵢ| ≤ γ·|a|·|b| with γ = n·u/(1 − n·u), u = 2⁻²⁴ (Higham, Accuracy and Stability of
//! Numerical Algorithms, 2nd ed., 3.1), and by n times the smallest normal float where products underflow. A row can be
//! dropped when even the best value within that bound loses against the worst that is kept; every other row is scored
//! in double precision. The result is that of scoring all rows in double precision.

use std::ops::Range;

use crate::line::Line;
use crate::{Kernels, Metric, RowAccess, RowsView, StorageType, TopK, norm, score};

/// Rows that a kernel estimates in one call.
const BLOCK: usize = 64;

/// What a scan looks for.
#[derive(Clone, Copy, Debug)]
pub struct Query<'q> {
    vector: &'q [f32],
    norm: f64,
    metric: Metric,
    threshold: Option<f64>,
}

impl<'q> Query<'q> {
    /// A vector of finite values, and the score that hits must reach.
    pub fn new(metric: Metric, vector: &'q [f32], threshold: Option<f64>) -> Query<'q> {
        Query { vector, norm: norm(vector), metric, threshold }
    }

    /// Its norm.
    pub(crate) fn norm(&self) -> f64 {
        self.norm
    }

    /// What codes estimate, for a row of this score: −⟨q, x⟩, under cosine with x of length 1, or |x|² − 2⟨q, x⟩.
    pub(crate) fn value_of(&self, score: f64) -> f64 {
        match self.metric {
            Metric::Cosine => -score * self.norm,
            Metric::Dot => -score,
            Metric::L2 => score * score - self.norm * self.norm,
        }
    }

    /// The metric.
    #[cfg(test)]
    pub(crate) fn metric(&self) -> Metric {
        self.metric
    }

    /// The vector.
    pub(crate) fn vector(&self) -> &'q [f32] {
        self.vector
    }
}

/// Offers to `top` every row of `range` that is `visible`, reaches the threshold and could be among the best.
///
/// `key` names a row to the caller and decides ties. Scans of several parts may follow one another into the same `top`.
///
/// # Panics
/// When the dimensions of query and rows differ, or `range` ends after the last row.
pub fn scan<K: Ord>(
    kernels: Kernels,
    rows: &RowsView,
    range: Range<u32>,
    query: &Query<'_>,
    visible: impl Fn(u32) -> bool,
    key: impl Fn(u32) -> K,
    top: &mut TopK<K>,
) {
    assert_eq!(query.vector.len(), rows.dimension(), "a query of another dimension");
    assert!(range.end as usize <= rows.len(), "a range beyond the last row");
    if top.is_closed() {
        return;
    }
    let filter = Filter::new(query);
    let (mut vector, mut buffer) = (Vec::new(), Vec::new());
    rows.storage_type().append_query(query.vector, &mut vector);
    let stride = rows.stride();
    let mut estimates = [0.0f32; BLOCK];
    let mut first = range.start;
    while first < range.end {
        let (lines, norms) = rows.run_from(first);
        let count = norms.len().min(BLOCK).min((range.end - first) as usize);
        let block = &lines[..count * stride];
        estimate(kernels, rows.storage_type(), query.metric, &vector, block, &mut estimates[..count]);
        let mut bar = filter.bar(top.bar());
        for (index, (estimate, norm)) in estimates[..count].iter().zip(norms).enumerate() {
            let row = first + index as u32;
            if bar.excludes(*estimate, *norm) || !visible(row) {
                continue;
            }
            let row_lines = &block[index * stride..][..stride];
            let exact = kernels.vectorized(
                #[inline(always)]
                || {
                    let values = rows.values(row_lines, &mut buffer);
                    score(query.metric, query.vector, query.norm, values, *norm)
                },
            );
            if query.threshold.is_none_or(|threshold| query.metric.reaches(exact, threshold)) {
                top.offer(exact, key(row));
                bar = filter.bar(top.bar());
            }
        }
        first += count as u32;
    }
}

/// Estimates a query's products with rows, or its squared distances to them, whichever the metric needs.
#[inline(always)]
fn estimate(
    kernels: Kernels,
    storage_type: StorageType,
    metric: Metric,
    vector: &[Line],
    rows: &[Line],
    out: &mut [f32],
) {
    match (storage_type.half(), metric) {
        (None, Metric::Cosine | Metric::Dot) => kernels.dots(vector, rows, out),
        (None, Metric::L2) => kernels.squared_distances(vector, rows, out),
        (Some(kind), Metric::Cosine | Metric::Dot) => {
            kernels.half_dots(kind, vector, bytemuck::cast_slice(rows), out);
        }
        (Some(kind), Metric::L2) => {
            kernels.half_squared_distances(kind, vector, bytemuck::cast_slice(rows), out);
        }
    }
}

/// Offers to `top` those of `candidates` that reach the threshold and could be among the best, with exact scores: what a
/// scan of only these rows does.
///
/// # Errors
/// When a row cannot be had; what is in `top` then is not the best of all.
///
/// # Panics
/// When the dimensions of query and rows differ, or a candidate is no row.
pub fn offer<K: Ord, R: RowAccess>(
    kernels: Kernels,
    rows: &R,
    candidates: impl IntoIterator<Item = u32>,
    query: &Query<'_>,
    key: impl Fn(u32) -> K,
    top: &mut TopK<K>,
) -> Result<(), R::Error> {
    assert_eq!(query.vector.len(), rows.dimension(), "a query of another dimension");
    if top.is_closed() {
        return Ok(());
    }
    let mut lines = Vec::new();
    let mut offers = Offers::new(kernels, rows, query, &mut lines);
    for row in candidates {
        offers.offer(row, |_| true, &key, top)?;
    }
    Ok(())
}

/// Scores single rows exactly, those that could be among the best.
pub(crate) struct Offers<'o, R> {
    kernels: Kernels,
    rows: &'o R,
    query: &'o Query<'o>,
    filter: Filter,
    vector: &'o [Line],
    buffer: Vec<f32>,
    scored: usize,
}

impl<'o, R: RowAccess> Offers<'o, R> {
    /// `vector` keeps the query as the kernels take it.
    pub(crate) fn new(
        kernels: Kernels,
        rows: &'o R,
        query: &'o Query<'o>,
        vector: &'o mut Vec<Line>,
    ) -> Offers<'o, R> {
        vector.clear();
        rows.storage_type().append_query(query.vector, vector);
        Offers { kernels, rows, query, filter: Filter::new(query), vector, buffer: Vec::new(), scored: 0 }
    }

    /// Offers a row if it is visible and reaches the threshold.
    pub(crate) fn offer<K: Ord>(
        &mut self,
        row: u32,
        visible: impl Fn(u32) -> bool,
        key: impl Fn(u32) -> K,
        top: &mut TopK<K>,
    ) -> Result<(), R::Error> {
        if !visible(row) {
            return Ok(());
        }
        let Query { vector, norm: query_norm, metric, threshold } = *self.query;
        let (rows, number) = self.rows.holding(row)?;
        let (lines, norms) = rows.run_from(number);
        let (row_lines, norm) = (&lines[..rows.stride()], norms[0]);
        let needed = top.bar();
        if needed.or(threshold).is_some() {
            let mut value = [0.0];
            estimate(self.kernels, rows.storage_type(), metric, self.vector, row_lines, &mut value);
            if self.filter.bar(needed).excludes(value[0], norm) {
                return Ok(());
            }
        }
        self.scored += 1;
        let buffer = &mut self.buffer;
        let exact = self.kernels.vectorized(
            #[inline(always)]
            || score(metric, vector, query_norm, rows.values(row_lines, buffer), norm),
        );
        if threshold.is_none_or(|threshold| metric.reaches(exact, threshold)) {
            top.offer(exact, key(row));
        }
        Ok(())
    }

    /// Rows that were scored.
    pub(crate) fn scored(&self) -> usize {
        self.scored
    }
}

/// Knows how wrong an estimate can be.
struct Filter {
    metric: Metric,
    query_norm: f64,
    threshold: Option<f64>,
    /// Error of an estimate relative to the product of the norms, or to the squared distance itself.
    gamma: f64,
    /// Absolute error of an estimate where products underflow.
    underflow: f64,
}

/// Tells rows that certainly lose from those that must be scored exactly: a row loses when its closeness, the estimate
/// or under L2 the negated estimate, is below `floor + slope · |row|`.
///
/// One shape for all metrics keeps the test of a row, which runs for every row, to one multiplication and one comparison.
#[derive(Clone, Copy)]
struct Bar {
    sign: f64,
    floor: f64,
    slope: f64,
}

impl Filter {
    fn new(query: &Query<'_>) -> Filter {
        // Four more roundings than terms cover the differences of squared distances and the conversions here; 1 % more
        // covers 1/(1 − n·u) up to 65,536 dimensions and the rounding of this arithmetic itself.
        let terms = query.vector.len() as f64;
        let gamma = (terms + 4.0) * f64::from(f32::EPSILON) / 2.0 * 1.01;
        let underflow = terms * f64::from(f32::MIN_POSITIVE);
        Filter { metric: query.metric, query_norm: query.norm, threshold: query.threshold, gamma, underflow }
    }

    /// The bar while the worst kept score, if it counts already, is `kept`: scores that are kept reach the threshold.
    fn bar(&self, kept: Option<f64>) -> Bar {
        let needed = kept.or(self.threshold);
        let sign = if self.metric.higher_is_better() { 1.0 } else { -1.0 };
        let Some(needed) = needed else { return Bar { sign, floor: f64::NEG_INFINITY, slope: 0.0 } };
        let (floor, slope) = match self.metric {
            Metric::Dot => (needed - self.underflow, -self.gamma * self.query_norm),
            Metric::Cosine => (-self.underflow, (needed - self.gamma) * self.query_norm),
            // No distance is negative. All terms of one are positive, so its error is relative to itself.
            Metric::L2 if needed < 0.0 => (f64::INFINITY, 0.0),
            Metric::L2 => (-(needed * needed * (1.0 + self.gamma) + self.underflow), 0.0),
        };
        Bar { sign, floor, slope }
    }
}

impl Bar {
    /// True when the row certainly loses. An estimate that overflowed is certain of nothing.
    #[inline]
    fn excludes(self, estimate: f32, row_norm: f64) -> bool {
        self.sign * f64::from(estimate) < self.floor + self.slope * row_norm && estimate.is_finite()
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use proptest::prelude::*;

    use super::*;
    use crate::{Ranked, Rows};

    /// The slow and obvious way: score everything in double precision, sort, cut.
    fn reference(
        rows: &RowsView,
        query: &Query<'_>,
        k: usize,
        visible: impl Fn(u32) -> bool,
    ) -> Vec<Ranked<u32>> {
        let mut all: Vec<Ranked<u32>> = (0..rows.len() as u32)
            .filter(|row| visible(*row))
            .map(|row| Ranked {
                score: score(query.metric, query.vector, query.norm, &rows.row(row), rows.norm(row)),
                key: row,
            })
            .filter(|ranked| query.threshold.is_none_or(|t| query.metric.reaches(ranked.score, t)))
            .collect();
        all.sort_by(|a, b| {
            let by_score = a.score.partial_cmp(&b.score).expect("no NaN");
            let by_score = if query.metric.higher_is_better() { by_score.reverse() } else { by_score };
            by_score.then(a.key.cmp(&b.key))
        });
        all.truncate(k);
        all
    }

    /// Checks scans of rows, and of the same rows in two bytes where those can hold them.
    fn check(rows: &RowsView, query: &Query<'_>, k: usize) {
        check_stored(rows, query, k);
        for storage_type in [StorageType::F16, StorageType::Bf16] {
            let mut stored = Rows::stored_as(storage_type, rows.dimension());
            let fits = |row| storage_type.round(&mut rows.row(row).into_owned()).is_ok();
            (0..rows.len() as u32).filter(|row| fits(*row)).for_each(|row| _ = stored.push(&rows.row(row)));
            check_stored(&stored, query, k);
        }
    }

    fn check_stored(rows: &RowsView, query: &Query<'_>, k: usize) {
        let visible = |row: u32| row % 5 != 3;
        let expected = reference(rows, query, k, visible);
        for kernels in Kernels::available() {
            let mut top = TopK::new(query.metric, k);
            let middle = rows.len() as u32 / 3;
            for range in [middle..rows.len() as u32, 0..middle] {
                scan(kernels, rows, range, query, visible, |row| row, &mut top);
            }
            assert_eq!(top.into_sorted(), expected, "{} {query:?}", kernels.name());
        }
    }

    fn value() -> impl Strategy<Value = f32> {
        prop_oneof![
            8 => -1.0f32..1.0,
            4 => prop_oneof![Just(0.5f32), Just(-0.5), Just(0.25)],
            1 => prop_oneof![Just(0.0f32), Just(-0.0), Just(1e18), Just(-1e18), Just(1e-40), Just(1e-20)],
        ]
    }

    /// Rows of one dimension, in one of several ranges of magnitude, with duplicates.
    fn rows() -> impl Strategy<Value = Rows> {
        let dimension = prop_oneof![3 => 1usize..40, 1 => 40usize..=300];
        let scale = prop_oneof![4 => Just(1.0f32), 1 => Just(1e-30), 1 => Just(1e-20), 1 => Just(1e18)];
        (dimension, scale).prop_flat_map(|(dimension, scale)| {
            let row = prop::collection::vec(value(), dimension);
            let copies = prop_oneof![4 => Just(1usize), 1 => 2usize..9];
            prop::collection::vec((row, copies), 2..100).prop_map(move |distinct| {
                let mut rows = Rows::new(dimension);
                for (mut row, copies) in distinct {
                    // Up to the largest magnitude that the product accepts: sums of squares beyond single precision.
                    row.iter_mut().for_each(|x| *x = (*x * scale).clamp(-1e19, 1e19));
                    (0..copies).for_each(|_| _ = rows.push(&row));
                }
                rows
            })
        })
    }

    fn metric() -> impl Strategy<Value = Metric> {
        prop_oneof![Just(Metric::Cosine), Just(Metric::L2), Just(Metric::Dot)]
    }

    proptest! {
        #[test]
        fn a_scan_equals_scoring_everything(
            rows in rows(),
            metric in metric(),
            k in 0usize..20,
            threshold_of in prop::option::of(any::<prop::sample::Index>()),
        ) {
            let vector = rows.row(0).to_vec();
            // A threshold that is exactly some row's score: the row must be in.
            let threshold = threshold_of.map(|index| {
                let row = index.index(rows.len()) as u32;
                score(metric, &vector, norm(&vector), &rows.row(row), rows.norm(row))
            });
            check(&rows, &Query::new(metric, &vector, threshold), k);
        }

        #[test]
        fn near_ties_are_told_apart(seed in any::<u64>(), metric in metric()) {
            // Copies of one row that differ in the last bit of a few values: closer than single precision can tell.
            let base: Vec<f32> = (0..257).map(|i| ((i as u64 ^ seed) % 1000) as f32 / 999.0 + 0.001).collect();
            let mut rows = Rows::new(base.len());
            for copy in 0..200usize {
                let mut row = base.clone();
                let place = (copy * 31) % row.len();
                row[place] = f32::from_bits(row[place].to_bits() + (copy as u32 % 3));
                rows.push(&row);
            }
            check(&rows, &Query::new(metric, &base, None), 7);
        }
    }

    #[test]
    fn more_wanted_than_there_is_gives_all() {
        let mut rows = Rows::new(2);
        rows.push(&[1.0, 0.0]);
        check(&rows, &Query::new(Metric::L2, &[1.0, 0.0], None), 1_000);
        check(&Rows::new(2), &Query::new(Metric::L2, &[1.0, 0.0], None), 10);
    }

    #[test]
    fn sums_beyond_single_precision_are_still_exact() {
        // Every estimate overflows: of dot products to either infinity or to none, of distances to infinity.
        let value = |i: usize| [3e19f32, -2e19, 1e19][i % 3] * (1.0 + (i * 7 % 11) as f32 / 16.0);
        let mut rows = Rows::new(37);
        for row in 0..150 {
            rows.push(&(0..37).map(|i| value(row * row + i * (row % 4))).collect::<Vec<f32>>());
        }
        let vector: Vec<f32> = (0..37).map(|i| value(2 * i)).collect();
        for metric in [Metric::Cosine, Metric::L2, Metric::Dot] {
            check(&rows, &Query::new(metric, &vector, None), 12);
        }
    }

    #[test]
    fn odd_dimensions_up_to_4096_are_exact() {
        for dimension in [1, 15, 17, 383, 385, 1_023, 4_095, 4_096] {
            let value = |i: usize| ((i * 2_654_435_761) % 10_007) as f32 / 5_003.5 - 1.0;
            let mut rows = Rows::new(dimension);
            for row in 0..80 {
                rows.push(&(0..dimension).map(|i| value(row * dimension + i)).collect::<Vec<f32>>());
            }
            let vector: Vec<f32> = (0..dimension).map(|i| value(i + 31)).collect();
            for metric in [Metric::Cosine, Metric::L2, Metric::Dot] {
                check(&rows, &Query::new(metric, &vector, None), 10);
            }
        }
    }

    #[test]
    fn a_scan_scores_few_rows_in_double_precision() {
        // The filter is worth nothing if it lets most rows through. Visibility is asked for what it lets through only.
        let value = |i: usize| ((i * 2_654_435_761) % 10_007) as f32 / 5_003.5 - 1.0;
        let mut rows = Rows::new(64);
        for row in 0..20_000 {
            rows.push(&(0..64).map(|i| value(row * 64 + i)).collect::<Vec<f32>>());
        }
        let vector = &*rows.row(77);
        for metric in [Metric::Cosine, Metric::L2, Metric::Dot] {
            let tenth = reference(&rows, &Query::new(metric, vector, None), 10, |_| true)[9].score;
            for (k, threshold) in [(10, None), (10_000, Some(tenth))] {
                for kernels in Kernels::available() {
                    let (scored, mut top) = (Cell::new(0), TopK::new(metric, k));
                    let counted = |_| {
                        scored.set(scored.get() + 1);
                        true
                    };
                    let query = Query::new(metric, vector, threshold);
                    scan(kernels, &rows, 0..20_000, &query, counted, |row| row, &mut top);
                    assert_eq!(top.into_sorted().len(), 10);
                    assert!(scored.get() < 400, "{metric:?}: {} rows on {}", scored.get(), kernels.name());
                }
            }
        }
    }
}
