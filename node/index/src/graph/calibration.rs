//! How wide a walk has to be for a recall: measured on a graph's own rows when it is built.
//!
//! Rows stand in for queries. Each is left out of its own search, walk included: a walk that may step on the row itself
//! reads off its neighbours, which no query of a user can. What is promised is the lower bound of the mean over the sampled
//! rows, not the mean. Queries that are distributed unlike the rows may find less.

use std::borrow::Cow;
use std::collections::HashSet;

use super::search::Scratch;
use super::{Graph, in_parallel};
use crate::{Kernels, Query, RowsView, TopK, scan};

/// Rows that stand in for queries, at most.
const QUERIES: usize = 512;
/// Rows of which one thread finds the exact answers at the same time, so that the others are read from memory once for all
/// of them.
const TOGETHER: usize = 64;
/// Rows that are scanned for one after the other of those: they stay in the second cache.
const BLOCK_BYTES: usize = 256 << 10;
/// Numbers of hits that recall is measured for.
const HITS: [usize; 3] = [1, 10, 100];
/// Widths that are measured, until the mean leaves nothing to gain.
pub(super) const WIDTHS: [usize; 12] = [10, 16, 24, 36, 54, 80, 120, 180, 270, 400, 600, 900];
/// A mean from which on wider walks are not measured.
const ENOUGH: f64 = 0.9995;
/// Numbers of pivots that walks could begin at, and the width and hits by which they are compared.
const ENTRIES: [usize; 4] = [1, 2, 4, 8];
const ENTRIES_WIDTH: usize = 24;
/// Fewer entries are taken where more find no more than this beyond them.
const ENTRIES_GAIN: f64 = 0.002;
/// Entries where nothing was measured.
const ENTRIES_USUAL: usize = 4;
/// Of a normal distribution, 95 % lie above this many standard deviations below the mean.
const ONE_SIDED: f64 = 1.645;
/// Scores that differ by less than this share are the same: rows are ranked, not their last bits.
const SAME: f64 = 1e-9;

/// Recall by width, as it was measured.
#[derive(Clone, Debug, PartialEq)]
pub struct Calibration {
    pub(super) entries: u32,
    /// Rows that stood in for queries; 0: nothing was measured.
    pub(super) queries: u32,
    /// For each of [`HITS`], for each of [`WIDTHS`]: the mean recall and its lower bound. What was not measured is as good as
    /// the width before.
    pub(super) recalls: [[[f32; 2]; WIDTHS.len()]; HITS.len()],
}

impl Default for Calibration {
    fn default() -> Calibration {
        Calibration { entries: ENTRIES_USUAL as u32, queries: 0, recalls: Default::default() }
    }
}

impl Calibration {
    /// Pivots that walks begin at.
    pub fn entries(&self) -> usize {
        self.entries as usize
    }

    /// Rows that stood in for queries; 0 where nothing was measured.
    pub fn queries(&self) -> usize {
        self.queries as usize
    }

    /// The narrowest width at which a search for `hits` rows reaches a mean recall of `target`, by its lower bound; the widest
    /// that was measured where none does. `None` where nothing was measured.
    pub fn width_for(&self, target: f64, hits: usize) -> Option<usize> {
        if self.queries == 0 {
            return None;
        }
        let at = |index: usize| self.width_at(index, target);
        let last = HITS.len() - 1;
        let width = match HITS.iter().position(|measured| hits <= *measured) {
            None => at(last) * hits as f64 / HITS[last] as f64,
            Some(0) => at(0),
            Some(above) => {
                let (from, to) = (HITS[above - 1] as f64, HITS[above] as f64);
                let share = (hits.max(1) as f64 / from).ln() / (to / from).ln();
                at(above - 1).powf(1.0 - share) * at(above).powf(share)
            }
        };
        Some((width.ceil() as usize).max(hits))
    }

    /// Mean recall of a search for ten rows at a width, as measured. `None` where nothing was measured.
    pub fn recall_at_ten(&self, width: usize) -> Option<f64> {
        let means = self.recalls[1].map(|[mean, _]| f64::from(mean));
        let above = WIDTHS.iter().position(|measured| width <= *measured);
        let recall = match above {
            None => means[WIDTHS.len() - 1],
            Some(0) => means[0],
            Some(above) => {
                let share = log_share(width as f64, WIDTHS[above - 1], WIDTHS[above]);
                means[above - 1] + (means[above] - means[above - 1]) * share
            }
        };
        (self.queries > 0).then_some(recall)
    }

    /// Recall bends down over the logarithm of the width, so what lies on a line between two measurements is reached.
    fn width_at(&self, hits: usize, target: f64) -> f64 {
        let bounds = self.recalls[hits].map(|[_, bound]| f64::from(bound));
        let Some(above) = bounds.iter().position(|bound| *bound >= target) else {
            return WIDTHS[WIDTHS.len() - 1] as f64;
        };
        if above == 0 {
            return WIDTHS[0] as f64;
        }
        let share = (target - bounds[above - 1]) / (bounds[above] - bounds[above - 1]);
        let (from, to) = (WIDTHS[above - 1] as f64, WIDTHS[above] as f64);
        from * (to / from).powf(share)
    }
}

fn log_share(width: f64, from: usize, to: usize) -> f64 {
    (width / from as f64).ln() / (to as f64 / from as f64).ln()
}

/// A row that stands in for a query, and what the best scores without it are.
struct Sample {
    vertex: u32,
    row: u32,
    /// Best first, [`HITS`]' largest at most.
    scores: Vec<f64>,
}

impl Graph {
    /// What was measured of it.
    pub fn calibration(&self) -> &Calibration {
        &self.calibration
    }

    /// Measures which width gives which recall, and where walks should begin. `rows` are those that it was built of.
    /// `None` when `stop` became true meanwhile.
    ///
    /// Costs up to 512 exact searches and twelve times as many walks: 5 to 15 % of the build.
    pub fn calibrate(
        &mut self,
        kernels: Kernels,
        rows: &RowsView,
        threads: usize,
        stop: &(dyn Fn() -> bool + Sync),
    ) -> Option<()> {
        let samples = self.samples(kernels, rows, threads, stop);
        if stop() {
            return None;
        }
        let recalls = |width, entries| self.recalls(kernels, rows, &samples, (width, entries), threads, stop);
        let mut calibration = Calibration::default();
        if samples.is_empty() {
            self.calibration = calibration;
            return Some(());
        }
        let by_entries = ENTRIES.map(|entries| Moments::of(&recalls(ENTRIES_WIDTH, entries), 1).mean);
        let best = by_entries.iter().fold(0.0, |best: f64, mean| best.max(*mean));
        let chosen = ENTRIES.iter().zip(by_entries).find(|(_, mean)| *mean >= best - ENTRIES_GAIN);
        let entries = chosen.map_or(ENTRIES_USUAL, |(entries, _)| *entries);
        let mut measured = [[[0.0; 2]; WIDTHS.len()]; HITS.len()];
        for (index, width) in WIDTHS.into_iter().enumerate() {
            let before = index.checked_sub(1).map(|before| measured.map(|of_hits| of_hits[before]));
            if let Some(before) =
                before.filter(|before| before.iter().all(|[mean, _]| f64::from(*mean) >= ENOUGH))
            {
                (0..HITS.len()).for_each(|hits| measured[hits][index] = before[hits]);
                continue;
            }
            let recalls = recalls(width, entries);
            for (hits, of_hits) in measured.iter_mut().enumerate() {
                let moments = Moments::of(&recalls, hits);
                let least = before.map_or([0.0; 2], |before| before[hits]);
                // A wider walk finds no less; what the sample says else is chance.
                of_hits[index] =
                    [(moments.mean as f32).max(least[0]), (moments.bound() as f32).max(least[1])];
            }
        }
        if stop() {
            return None;
        }
        calibration.entries = entries as u32;
        calibration.queries = samples.len() as u32;
        calibration.recalls = measured;
        self.calibration = calibration;
        Some(())
    }

    /// Rows from all over, with the best scores of the others.
    fn samples(
        &self,
        kernels: Kernels,
        rows: &RowsView,
        threads: usize,
        stop: &(dyn Fn() -> bool + Sync),
    ) -> Vec<Sample> {
        let (vertices, count) = (self.vertices(), QUERIES.min(self.vertices()));
        // Vertices lie in the order of a walk: these come from all over it.
        let vertex_of = |index: usize| (index as u64 * vertices as u64 / count as u64) as u32;
        // Without a pivot, what is near it would have no entry.
        let pivots: HashSet<u32> = self.pivots.vertices.iter().copied().collect();
        let mut samples: Vec<Sample> = (0..count)
            .filter_map(|index| (vertex_of(index)..vertices as u32).find(|vertex| !pivots.contains(vertex)))
            .map(|vertex| Sample { vertex, row: self.rows.first(vertex), scores: Vec::new() })
            // Nothing is near a vector without direction.
            .filter(|sample| rows.norm(sample.row) > 0.0)
            .collect();
        let block = (BLOCK_BYTES / (rows.dimension() * size_of::<f32>())).max(1);
        in_parallel(samples.chunks_mut(TOGETHER), threads, |part: &mut [Sample], _: &mut ()| {
            let vectors: Vec<Cow<'_, [f32]>> = part.iter().map(|sample| rows.row(sample.row)).collect();
            let queries: Vec<Query<'_>> =
                vectors.iter().map(|vector| Query::new(self.metric, vector, None)).collect();
            let wanted = HITS[HITS.len() - 1];
            let mut tops: Vec<TopK<u32>> = part.iter().map(|_| TopK::new(self.metric, wanted)).collect();
            for first in (0..rows.len()).step_by(block).take_while(|_| !stop()) {
                let range = first as u32..(first + block).min(rows.len()) as u32;
                for ((sample, query), top) in part.iter().zip(&queries).zip(&mut tops) {
                    let is_other = |row| self.rows.vertex(row) != sample.vertex;
                    scan(kernels, rows, range.clone(), query, is_other, |row| row, top);
                }
            }
            for (sample, top) in part.iter_mut().zip(tops) {
                sample.scores = top.into_sorted().into_iter().map(|ranked| ranked.score).collect();
            }
        });
        samples.dedup_by_key(|sample| sample.vertex);
        samples.retain(|sample| !sample.scores.is_empty());
        samples
    }

    /// Recall of each sample for each of [`HITS`].
    fn recalls(
        &self,
        kernels: Kernels,
        rows: &RowsView,
        samples: &[Sample],
        effort: (usize, usize),
        threads: usize,
        stop: &(dyn Fn() -> bool + Sync),
    ) -> Vec<[f64; HITS.len()]> {
        let mut recalls = vec![[0.0; HITS.len()]; samples.len()];
        let parts = recalls.chunks_mut(TOGETHER).zip(samples.chunks(TOGETHER));
        in_parallel(parts, threads, |(recalls, samples), scratch: &mut Scratch| {
            for (recalls, sample) in recalls.iter_mut().zip(samples).take_while(|_| !stop()) {
                let vector = rows.row(sample.row);
                let query = Query::new(self.metric, &vector, None);
                let mut top = TopK::new(self.metric, HITS[HITS.len() - 1]);
                self.walk_without(kernels, rows, &query, effort, sample.vertex, &mut top, scratch);
                let found: Vec<f64> = top.into_sorted().into_iter().map(|ranked| ranked.score).collect();
                *recalls = HITS.map(|hits| self.recall(&found, &sample.scores, hits));
            }
        });
        recalls
    }

    /// Share of the best `hits` that were found, by score: of rows that are equally good, any will do.
    fn recall(&self, found: &[f64], best: &[f64], hits: usize) -> f64 {
        let wanted = hits.min(best.len());
        let last = best[wanted - 1];
        let reaches = |score: &&f64| {
            self.metric.reaches(**score, last) || (**score - last).abs() <= SAME * last.abs().max(SAME)
        };
        found.iter().take(wanted).filter(reaches).count() as f64 / wanted as f64
    }
}

/// Mean and variance over samples.
struct Moments {
    mean: f64,
    variance: f64,
    count: f64,
}

impl Moments {
    fn of(recalls: &[[f64; HITS.len()]], hits: usize) -> Moments {
        let count = recalls.len() as f64;
        let mean = recalls.iter().map(|recall| recall[hits]).sum::<f64>() / count;
        let variance = recalls.iter().map(|recall| (recall[hits] - mean).powi(2)).sum::<f64>() / count;
        Moments { mean, variance, count }
    }

    /// The mean is above this with a probability of 95 %. A sample without a miss does not show that there are none: one in
    /// as many queries is reckoned with.
    fn bound(&self) -> f64 {
        let variance = self.variance + 1.0 / self.count;
        (self.mean - ONE_SIDED * (variance / self.count).sqrt()).max(0.0)
    }
}
