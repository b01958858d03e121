//! What every search must find: exact neighbours by a scan, unfiltered and filtered, and recall by score.

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use vectorsphere_index::{Kernels, Metric, Query, Ranked, Rows, TopK, norm, scan, score};

use crate::sets::{SEED, Set};

/// Neighbours that are kept for each query.
pub(crate) const DEPTH: usize = 100;
/// Scores this close are the same: rows of 32-bit floats are scored by others in 32-bit floats.
const SAME: f64 = 1e-6;

/// Which rows a search may return.
#[derive(Clone, Debug)]
pub(crate) struct Mask {
    pub(crate) name: String,
    pub(crate) rows: usize,
    /// One bitmap for all queries, or one for each; a bit a row, the lowest first.
    pub(crate) bitmaps: Vec<Vec<u8>>,
}

impl Mask {
    pub(crate) fn of_query(&self, query: usize) -> &[u8] {
        &self.bitmaps[if self.bitmaps.len() == 1 { 0 } else { query }]
    }

    /// Each row matches with a chance of `percent`, whatever the query.
    pub(crate) fn random(rows: usize, percent: u32) -> Mask {
        let mut random = ChaCha8Rng::seed_from_u64(SEED + u64::from(percent));
        let bitmap = bitmap(rows, |_| random.random_range(0..100) < percent);
        Mask { name: format!("random-{percent}"), rows, bitmaps: vec![bitmap] }
    }

    /// A tenth of those rows that lie farther from the query than half of all: 5 %, and none where a walk arrives.
    pub(crate) fn far(set: &Set) -> Mask {
        let bitmaps = in_parallel(set.queries.len(), |query| {
            let vector = &set.queries.row(query as u32);
            let closeness: Vec<f64> = (0..set.base.len() as u32)
                .map(|row| {
                    let score =
                        score(set.metric, vector, norm(vector), &set.base.row(row), set.base.norm(row));
                    if set.metric.higher_is_better() { score } else { -score }
                })
                .collect();
            let mut sorted = closeness.clone();
            let (_, half, _) = sorted.select_nth_unstable_by(closeness.len() / 2, f64::total_cmp);
            let mut random = ChaCha8Rng::seed_from_u64(SEED + 1_000 + query as u64);
            bitmap(closeness.len(), |row| random.random_range(0..10) == 0 && closeness[row] < *half)
        });
        Mask { name: "far-5".to_owned(), rows: set.base.len(), bitmaps }
    }
}

pub(crate) fn matches(bitmap: &[u8], row: u32) -> bool {
    bitmap[row as usize / 8] >> (row % 8) & 1 == 1
}

fn bitmap(rows: usize, mut matches: impl FnMut(usize) -> bool) -> Vec<u8> {
    let mut bytes = vec![0; rows.div_ceil(8)];
    (0..rows).for_each(|row| bytes[row / 8] |= u8::from(matches(row)) << (row % 8));
    bytes
}

/// The exact neighbours of every query among the rows that `mask` lets through, best first.
pub(crate) fn neighbours(kernels: Kernels, set: &Set, mask: Option<&Mask>) -> Vec<Vec<Ranked<u32>>> {
    in_parallel(set.queries.len(), |query| {
        let visible = |row| mask.is_none_or(|mask| matches(mask.of_query(query), row));
        let mut top = TopK::new(set.metric, DEPTH);
        let row = set.queries.row(query as u32);
        let vector = Query::new(set.metric, &row, None);
        scan(kernels, &set.base, 0..set.base.len() as u32, &vector, visible, |row| row, &mut top);
        top.into_sorted()
    })
}

/// Share of the `k` best that was found: a row counts when its exact score is as good as the k-th best, once.
pub(crate) fn recall(
    metric: Metric,
    base: &Rows,
    query: &[f32],
    found: &[u32],
    best: &[f64],
    k: usize,
) -> f64 {
    let Some(bar) = best.get(k.min(best.len()).wrapping_sub(1)) else { return 1.0 };
    let bar = if metric.higher_is_better() { bar - SAME } else { bar + SAME };
    let mut distinct = found.to_vec();
    distinct.sort_unstable();
    distinct.dedup();
    let length = norm(query);
    let hits = distinct
        .iter()
        .filter(|row| metric.reaches(score(metric, query, length, &base.row(**row), base.norm(**row)), bar));
    hits.count().min(k) as f64 / k.min(best.len()) as f64
}

/// The results of `work` for `0..count`, on all cores.
fn in_parallel<T: Send>(count: usize, work: impl Fn(usize) -> T + Sync) -> Vec<T> {
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let share = count.div_ceil(threads).max(1);
    std::thread::scope(|scope| {
        let parts: Vec<_> = (0..count)
            .step_by(share)
            .map(|first| {
                let work = &work;
                scope.spawn(move || (first..(first + share).min(count)).map(work).collect::<Vec<T>>())
            })
            .collect();
        let joined = parts.into_iter().flat_map(|part| part.join().expect("no part panics"));
        joined.collect()
    })
}
