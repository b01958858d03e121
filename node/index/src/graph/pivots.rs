//! Where walks begin: vertices that stand for the parts of the data, found through a table of two levels.
//!
//! Two-level k-means on a sample: a query is compared with at most 64 centres, then with the up to 64 pivots below each of
//! the nearest centres, whose codes lie together. On clustered data the entries decide: with a few of thousands of
//! pivots a walk is several times as fast as from one of some hundred.

use super::build::{Field, FieldSpace};
use super::pool::Candidate;
use super::table::{self, CodeTable, Factors, TableQuery, TableSpace};
use super::walk::{BATCH_MAX, Space};
use crate::codes::Rotation;
use crate::distance::codes::CodeWidth;
use crate::line::{self, Line, lines_of};
use crate::memory::HugeSlice;
use crate::{Kernels, Metric, RowsView};

/// Most centres, and most pivots of a centre.
const FAN_OUT: usize = 64;
/// Vertices that one pivot stands for, about.
const VERTICES_PER_PIVOT: usize = 16;
/// Vertices of the sample for each pivot.
const SAMPLE_PER_PIVOT: usize = 16;
/// Most bytes of the sample.
const SAMPLE_BYTES: usize = 128 << 20;
/// Rounds of k-means.
const ROUNDS: usize = 6;
/// Centres whose pivots are looked at.
const CENTRES: usize = 2;

/// Entry points of a graph.
#[derive(Debug)]
pub(super) struct Pivots {
    /// 8-bit codes of the centres.
    pub(super) centres: CodeTable,
    /// The pivots of centre i are those from `starts[i]` to `starts[i + 1]`.
    pub(super) starts: Vec<u32>,
    /// Copies of the pivots' codes.
    codes: CodeTable,
    /// Vertices of the pivots.
    pub(super) vertices: Vec<u32>,
}

/// What looking for entries needs.
#[derive(Debug, Default)]
pub(super) struct EntryScratch {
    centre_query: TableQuery,
    centres: Vec<Candidate>,
    entries: Vec<Candidate>,
}

/// A set of vectors for k-means: a sample, or a part of it.
struct Points {
    lines: Vec<Line>,
    stride: usize,
}

impl Points {
    fn len(&self) -> usize {
        self.lines.len() / self.stride
    }

    fn point(&self, index: usize) -> &[Line] {
        &self.lines[index * self.stride..][..self.stride]
    }

    fn select(&self, members: &[u32]) -> Points {
        let lines = members.iter().flat_map(|member| self.point(*member as usize)).copied().collect();
        Points { lines, stride: self.stride }
    }
}

/// Vertices chosen as pivots, by centre.
pub(super) struct Chosen {
    /// Vectors of the centres.
    pub(super) centres: Vec<Vec<f32>>,
    /// Vertices of the pivots of each.
    pub(super) groups: Vec<Vec<u32>>,
}

impl Chosen {
    /// Adds a pivot to the centre that is nearest to its vector.
    pub(super) fn add(&mut self, kernels: Kernels, vertex: u32, vector: &[f32]) {
        let (mut point, mut lines) = (Vec::new(), Vec::new());
        line::append(vector, &mut point);
        self.centres.iter().for_each(|centre| line::append(centre, &mut lines));
        let mut distances = vec![0.0; self.centres.len()];
        kernels.squared_distances(&point, &lines, &mut distances);
        let nearest = distances.iter().enumerate().min_by(|a, b| a.1.total_cmp(b.1));
        self.groups[nearest.map_or(0, |(centre, _)| centre)].push(vertex);
    }

    /// Those pivots for which `stays` is true, and the centres that have any.
    pub(super) fn only(&self, stays: impl Fn(u32) -> bool) -> Chosen {
        let mut chosen = Chosen { centres: Vec::new(), groups: Vec::new() };
        for (centre, group) in self.centres.iter().zip(&self.groups) {
            let group: Vec<u32> = group.iter().copied().filter(|pivot| stays(*pivot)).collect();
            if !group.is_empty() {
                chosen.centres.push(centre.clone());
                chosen.groups.push(group);
            }
        }
        chosen
    }

    /// True when there are none.
    pub(super) fn is_empty(&self) -> bool {
        self.groups.is_empty()
    }

    /// All pivots.
    pub(super) fn vertices(&self) -> impl Iterator<Item = u32> {
        self.groups.iter().flatten().copied()
    }
}

/// Finds the pivot of a vertex while the graph is built.
pub(super) struct Finder<'c> {
    chosen: &'c Chosen,
    centres: Field,
}

impl<'c> Finder<'c> {
    /// `centres` are those that were chosen.
    pub(super) fn new(chosen: &'c Chosen, centres: Field) -> Finder<'c> {
        Finder { chosen, centres }
    }

    /// The nearest pivot of the nearest centre.
    pub(super) fn entry(&self, space: &FieldSpace<'_>) -> Option<u32> {
        let centres = 0..self.chosen.centres.len() as u32;
        let centre = space.nearest_of(&self.centres, centres)?;
        space.nearest_of(space.field, self.chosen.groups[centre as usize].iter().copied())
    }
}

/// Chooses pivots among `vertices`, whose vectors are rows; under cosine by direction.
pub(super) fn choose(
    kernels: Kernels,
    rows: &RowsView,
    vertex_rows: impl Fn(u32) -> u32,
    vertices: usize,
    metric: Metric,
    threads: usize,
) -> Chosen {
    let stride = lines_of(rows.dimension());
    let wanted = (vertices / VERTICES_PER_PIVOT).clamp(1, FAN_OUT * FAN_OUT);
    let sample_max = (SAMPLE_BYTES / (stride * size_of::<Line>())).max(wanted);
    let sample_len = vertices.min(wanted * SAMPLE_PER_PIVOT).min(sample_max).max(1);
    // Every n-th vertex; the order of rows is unrelated to where vectors lie, or groups what is alike.
    let sample: Vec<u32> =
        (0..sample_len).map(|index| (index as u64 * vertices as u64 / sample_len as u64) as u32).collect();
    let mut points = Points { lines: Vec::with_capacity(sample_len * stride), stride };
    for vertex in &sample {
        let row = vertex_rows(*vertex);
        let scale = match metric {
            Metric::Cosine if rows.norm(row) > 0.0 => (1.0 / rows.norm(row)) as f32,
            _ => 1.0,
        };
        let scaled: Vec<f32> = rows.row(row).iter().map(|x| x * scale).collect();
        line::append(&scaled, &mut points.lines);
    }
    let top = (wanted as f64).sqrt().ceil() as usize;
    let (centres, members) = cluster(kernels, &points, top.min(FAN_OUT), threads);
    let mut chosen = Chosen { centres: Vec::new(), groups: Vec::new() };
    for (centre, members) in members.iter().enumerate().filter(|(_, members)| !members.is_empty()) {
        let part = points.select(members);
        let share = (wanted * members.len()).div_ceil(sample_len).clamp(1, FAN_OUT);
        let (part_centres, part_members) = cluster(kernels, &part, share, threads);
        let nearest = part_members.iter().enumerate().filter_map(|(index, inner)| {
            let centre = part_centres.point(index);
            let mut distances = vec![0.0; inner.len()];
            let lines = part.select(inner);
            kernels.squared_distances(centre, &lines.lines, &mut distances);
            let nearest = inner.iter().zip(&distances).min_by(|a, b| a.1.total_cmp(b.1))?.0;
            Some(sample[members[*nearest as usize] as usize])
        });
        let group: Vec<u32> = nearest.collect();
        chosen.centres.push(line::values(centres.point(centre))[..rows.dimension()].to_vec());
        chosen.groups.push(group);
    }
    chosen
}

/// Lloyd's k-means: at most `count` centres and the members of each.
fn cluster(kernels: Kernels, points: &Points, count: usize, threads: usize) -> (Points, Vec<Vec<u32>>) {
    let count = count.min(points.len()).max(1);
    let first: Vec<u32> =
        (0..count).map(|index| (index as u64 * points.len() as u64 / count as u64) as u32).collect();
    let mut centres = points.select(&first);
    let mut nearest = vec![0u32; points.len()];
    for _ in 0..ROUNDS {
        assign(kernels, points, &centres, &mut nearest, threads);
        centres = means(points, &nearest, &centres);
    }
    assign(kernels, points, &centres, &mut nearest, threads);
    let mut members = vec![Vec::new(); centres.len()];
    for (point, centre) in nearest.iter().enumerate() {
        members[*centre as usize].push(point as u32);
    }
    (centres, members)
}

fn assign(kernels: Kernels, points: &Points, centres: &Points, nearest: &mut [u32], threads: usize) {
    let share = points.len().div_ceil(threads).max(1);
    std::thread::scope(|scope| {
        for (part, nearest) in nearest.chunks_mut(share).enumerate() {
            scope.spawn(move || {
                let mut distances = vec![0.0; centres.len()];
                for (index, nearest) in nearest.iter_mut().enumerate() {
                    let point = points.point(part * share + index);
                    kernels.squared_distances(point, &centres.lines, &mut distances);
                    let least = distances.iter().enumerate().min_by(|a, b| a.1.total_cmp(b.1));
                    *nearest = least.map_or(0, |(centre, _)| centre as u32);
                }
            });
        }
    });
}

/// The means of the points of each centre; a centre without points stays.
fn means(points: &Points, nearest: &[u32], centres: &Points) -> Points {
    let values = points.stride * line::LINE;
    let mut sums = vec![0.0f64; centres.len() * values];
    let mut counts = vec![0usize; centres.len()];
    for (index, centre) in nearest.iter().enumerate() {
        let centre = *centre as usize;
        counts[centre] += 1;
        let sum = &mut sums[centre * values..][..values];
        for (sum, x) in sum.iter_mut().zip(line::values(points.point(index))) {
            *sum += f64::from(*x);
        }
    }
    let mut lines = Vec::with_capacity(centres.lines.len());
    for (centre, count) in counts.iter().enumerate() {
        if *count == 0 {
            lines.extend_from_slice(centres.point(centre));
            continue;
        }
        let sum = &sums[centre * values..][..values];
        let mean: Vec<f32> = sum.iter().map(|sum| (sum / *count as f64) as f32).collect();
        line::append(&mean, &mut lines);
    }
    Points { lines, stride: points.stride }
}

impl Pivots {
    /// The table of chosen pivots, whose codes are in `table`; `renumbered` gives a vertex' number there.
    pub(super) fn new(
        kernels: Kernels,
        chosen: &Chosen,
        metric: Metric,
        rotation: &Rotation,
        table: &CodeTable,
        renumbered: impl Fn(u32) -> u32,
    ) -> Pivots {
        let mut centres = CodeTable::zeroed(CodeWidth::Eight, rotation.padded(), chosen.centres.len());
        let (stride, mut rotated) = (centres.stride, Vec::new());
        for (index, centre) in chosen.centres.iter().enumerate() {
            rotation.rotate(kernels, centre, &mut rotated);
            let lines = &mut centres.lines[index * stride..][..stride];
            centres.factors[index] = table::encode(kernels, CodeWidth::Eight, metric, &rotated, lines).0;
        }
        let vertices: Vec<u32> = chosen.vertices().map(renumbered).collect();
        let mut starts = vec![0];
        for group in &chosen.groups {
            starts.push(starts[starts.len() - 1] + group.len() as u32);
        }
        Pivots::of(centres, starts, table, vertices)
    }

    /// The table of pivots whose codes are in `table`.
    pub(super) fn of(centres: CodeTable, starts: Vec<u32>, table: &CodeTable, vertices: Vec<u32>) -> Pivots {
        let stride = table.stride;
        let mut codes = CodeTable {
            width: table.width,
            stride,
            lines: HugeSlice::zeroed(stride * vertices.len()),
            factors: HugeSlice::zeroed(vertices.len()),
            error: table.error,
            length: table.length,
        };
        for (index, vertex) in vertices.iter().enumerate() {
            let source = &table.lines[*vertex as usize * stride..][..stride];
            codes.lines[index * stride..][..stride].copy_from_slice(source);
            codes.factors[index] = table.factors[*vertex as usize];
        }
        Pivots { centres, starts, codes, vertices }
    }

    /// Calls `each` with the `count` nearest pivots' vertices and costs.
    pub(super) fn entries(
        &self,
        kernels: Kernels,
        rotated: &[f32],
        query: &TableQuery,
        count: usize,
        scratch: &mut EntryScratch,
        mut each: impl FnMut(u32, f32),
    ) {
        let EntryScratch { centre_query, centres, entries } = scratch;
        centres.clear();
        if self.centres.len() > CENTRES {
            centre_query.encode(kernels, CodeWidth::Eight, rotated);
            costs_of_all(kernels, &self.centres, centre_query, 0..self.centres.len() as u32, centres);
            keep_nearest(centres, CENTRES);
        } else {
            centres.extend((0..self.centres.len() as u32).map(|centre| Candidate::new(centre, 0.0)));
        }
        entries.clear();
        for centre in centres.iter() {
            let centre = centre.vertex() as usize;
            let range = self.starts[centre]..self.starts[centre + 1];
            costs_of_all(kernels, &self.codes, query, range, entries);
        }
        keep_nearest(entries, count);
        entries.iter().for_each(|entry| each(self.vertices[entry.vertex() as usize], entry.cost));
    }

    /// Bytes in memory.
    pub(super) fn bytes(&self) -> usize {
        let numbers = (self.starts.len() + self.vertices.len()) * size_of::<u32>();
        self.centres.bytes() + self.codes.bytes() + numbers
    }
}

fn costs_of_all(
    kernels: Kernels,
    table: &CodeTable,
    query: &TableQuery,
    range: std::ops::Range<u32>,
    out: &mut Vec<Candidate>,
) {
    let space = TableSpace { kernels, table, query };
    let (mut numbers, mut costs) = ([0; BATCH_MAX], [0.0; BATCH_MAX]);
    let mut first = range.start;
    while first < range.end {
        let count = BATCH_MAX.min((range.end - first) as usize);
        numbers.iter_mut().zip(first..).for_each(|(number, at)| *number = at);
        space.costs(&numbers[..count], &mut costs[..count]);
        out.extend((first..).zip(&costs[..count]).map(|(number, cost)| Candidate::new(number, *cost)));
        first += count as u32;
    }
}

fn keep_nearest(candidates: &mut Vec<Candidate>, count: usize) {
    if candidates.len() > count {
        candidates.select_nth_unstable_by(count, |a, b| a.cost.total_cmp(&b.cost));
        candidates.truncate(count);
    }
}

const _: () = assert!(size_of::<Factors>() == 8);
