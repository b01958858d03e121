//! Exact search by reading every row.
//!
//! A single-precision kernel gives each row an estimate e of the true value v. Summing n products of floats in any order,
//! fused or not, errs by at most γ·Σ|aᵢbᵢ| ≤ γ·|a|·|b| with γ = n·u/(1 − n·u), u = 2⁻²⁴ (Higham, Accuracy and Stability of
//! Numerical Algorithms, 2nd ed., 3.1), and by n times the smallest normal float where products underflow. A row can be
//! dropped when even the best value within that bound loses against the worst that is kept; every other row is scored
//! in double precision. The result is that of scoring all rows in double precision.

use std::ops::Range;

use crate::{Kernels, Metric, RowsView, TopK, norm, score};

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
    /// A vector of finite values (not all zero under cosine), and the score that hits must reach.
    pub fn new(metric: Metric, vector: &'q [f32], threshold: Option<f64>) -> Query<'q> {
        Query { vector, norm: norm(vector), metric, threshold }
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
    let filter = Filter::new(query);
    let mut estimates = [0.0f32; BLOCK];
    let mut first = range.start;
    while first < range.end {
        let (values, norms) = rows.run_from(first);
        let count = norms.len().min(BLOCK).min((range.end - first) as usize);
        let block = &values[..count * rows.dimension()];
        match query.metric {
            Metric::Cosine | Metric::Dot => kernels.dots(query.vector, block, &mut estimates[..count]),
            Metric::L2 => kernels.squared_distances(query.vector, block, &mut estimates[..count]),
        }
        let mut bar = filter.bar(top.bar());
        for (index, estimate) in estimates[..count].iter().enumerate() {
            let row = first + index as u32;
            if filter.loses(*estimate, norms[index], bar) || !visible(row) {
                continue;
            }
            let exact = score(query.metric, query.vector, query.norm, rows.row(row), norms[index]);
            if query.threshold.is_none_or(|threshold| query.metric.reaches(exact, threshold)) {
                top.offer(exact, key(row));
                bar = filter.bar(top.bar());
            }
        }
        first += count as u32;
    }
}

/// Tells rows that certainly lose from those that must be scored exactly.
struct Filter {
    metric: Metric,
    query_norm: f64,
    threshold: Option<f64>,
    /// Relative error of an estimate.
    gamma: f64,
    /// Absolute error of an estimate where products underflow.
    underflow: f64,
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

    /// The score that a row must reach: the worse one of the kept and the threshold does not matter.
    fn bar(&self, kept: Option<f64>) -> Option<f64> {
        match (kept, self.threshold) {
            (Some(kept), Some(threshold)) if self.metric.reaches(kept, threshold) => Some(kept),
            (Some(_), Some(threshold)) => Some(threshold),
            (kept, threshold) => kept.or(threshold),
        }
    }

    /// True when the row's score is certainly worse than `bar`. A value that overflowed is certain of nothing.
    fn loses(&self, estimate: f32, row_norm: f64, bar: Option<f64>) -> bool {
        let Some(bar) = bar else { return false };
        let estimate = f64::from(estimate);
        if !estimate.is_finite() {
            return false;
        }
        let norms = self.query_norm * row_norm;
        match self.metric {
            Metric::Dot => estimate + self.gamma * norms + self.underflow < bar,
            Metric::Cosine => estimate + self.gamma * norms + self.underflow < bar * norms,
            // All terms are positive, so the error is relative to the value itself.
            Metric::L2 => {
                let least = estimate * (1.0 - 2.0 * self.gamma) - self.underflow;
                bar < 0.0 || least > bar * bar
            }
        }
    }
}

#[cfg(test)]
mod tests {
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
                score: score(query.metric, query.vector, query.norm, rows.row(row), rows.norm(row)),
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

    fn check(rows: &RowsView, query: &Query<'_>, k: usize) {
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

    fn metric() -> impl Strategy<Value = Metric> {
        prop_oneof![Just(Metric::Cosine), Just(Metric::L2), Just(Metric::Dot)]
    }

    proptest! {
        #[test]
        fn a_scan_equals_scoring_everything(
            (dimension, values) in (1usize..40).prop_flat_map(|dimension| {
                (Just(dimension), prop::collection::vec(value(), dimension * 2..dimension * 120))
            }),
            metric in metric(),
            k in 0usize..20,
            threshold_of in prop::option::of(any::<prop::sample::Index>()),
        ) {
            let mut rows = Rows::new(dimension);
            for row in values.chunks_exact(dimension).filter(|row| row.iter().any(|x| *x != 0.0)) {
                rows.push(row);
            }
            prop_assume!(rows.len() >= 2);
            let vector = rows.row(0).to_vec();
            // A threshold that is exactly some row's score: the row must be in.
            let threshold = threshold_of.map(|index| {
                let row = index.index(rows.len()) as u32;
                score(metric, &vector, norm(&vector), rows.row(row), rows.norm(row))
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
}
