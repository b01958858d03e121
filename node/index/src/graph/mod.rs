//! The graph of a segment: finds the nearest rows by walking from neighbour to neighbour.
//!
//! One flat layer with entry points in place of upper layers. The walk decides by codes ([`CodeWidth`]); what it finds is
//! scored again from the rows themselves, so scores are exact and only the choice of rows is approximate. A vertex is a
//! vector, not a row: rows with identical vectors share one, so that thousands of copies neither hide each other nor
//! fill a search's candidates.
//!
//! A graph never changes; one of other rows can be built from it ([`Graph::build_from`]). It knows rows by number and
//! nothing of documents, deletions or files: a search says which rows are visible.

mod build;
mod calibration;
mod kept;
mod order;
mod pivots;
mod pool;
mod search;
mod stored;
mod table;
#[cfg(test)]
mod tests;
mod vertices;
mod visited;
mod walk;

use std::sync::Mutex;

use self::build::{BuildScratch, Builder, Entries, Field, NONE, Place, Shape};
pub use self::calibration::Calibration;
use self::kept::Kept;
pub use self::kept::{Earlier, GONE};
use self::pivots::{Chosen, Finder, Pivots};
pub use self::search::{Plan, Scratch, Selection, Touched, WIDTH_USUAL};
pub use self::stored::LoadError;
use self::table::{CodeTable, Factors};
use self::vertices::VertexRows;
use crate::codes::{self, Rotation, padded};
use crate::distance::codes::{CodeLine, CodeWidth};
use crate::memory::HugeSlice;
use crate::{Kernels, Metric, RowsView};

/// Vertices that a thread takes at once.
const SHARE: usize = 64;

/// Largest dimension whose codes have eight bits.
const EIGHT_BITS_DIMENSION_MAX: usize = 256;
/// Norms whose squares, and sums of those, are far from the ends of single precision.
const NORMS: std::ops::RangeInclusive<f64> = 1e-12..=1e15;

/// How a graph is built.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct GraphOptions {
    /// Most neighbours of a vertex, `4..=64`.
    pub degree: usize,
    /// Candidates that are looked at for each vertex, `8..=2_048`: more make a better graph and a longer build.
    pub width: usize,
    /// Keeps a neighbour unless another is nearer to it by this factor on squared distances, `1.0..=2.0`.
    pub alpha: f32,
    /// Codes that searches decide by. `None`: eight bits up to 256 values, where they tell apart what four bits do not, four
    /// beyond, where errors even out and memory counts.
    pub codes: Option<CodeWidth>,
    /// Of the rotation and of the order in which vertices are inserted.
    pub seed: u64,
}

impl Default for GraphOptions {
    fn default() -> GraphOptions {
        GraphOptions { degree: 32, width: 128, alpha: 1.1, codes: None, seed: 0x5eed }
    }
}

impl GraphOptions {
    /// Bytes of a vertex in memory, about: its code, what makes a cost of it, its links, and the row that it stands for.
    pub fn bytes_per_vertex(&self, dimension: usize) -> usize {
        let lines = self.code_width(dimension).lines_of(padded(dimension));
        let code = lines * size_of::<CodeLine>();
        code + size_of::<Factors>() + (self.degree + 2) * size_of::<u32>()
    }

    fn code_width(&self, dimension: usize) -> CodeWidth {
        let usual = if dimension <= EIGHT_BITS_DIMENSION_MAX { CodeWidth::Eight } else { CodeWidth::Four };
        self.codes.unwrap_or(usual)
    }
}

/// A graph over rows.
#[derive(Debug)]
pub struct Graph {
    metric: Metric,
    rotation: Rotation,
    table: CodeTable,
    degree: usize,
    /// `degree` entries a vertex, the rest [`NONE`].
    links: HugeSlice<u32>,
    rows: VertexRows,
    pivots: Pivots,
    calibration: Calibration,
    /// Vertices that an earlier graph had.
    taken_over: usize,
}

/// What is known of rows before a graph of them is built.
#[derive(Clone, Copy, Debug, Default)]
pub struct Hints<'h> {
    /// A graph that some of them were in.
    pub earlier: Option<Earlier<'h>>,
    /// For each row the number of its group: vertices of one lie together, so that comparing all of them reads memory in order.
    pub groups: Option<&'h [u32]>,
}

/// What a graph is built of.
#[derive(Clone, Copy)]
struct Source<'s> {
    kernels: Kernels,
    rows: &'s RowsView,
    rotation: &'s Rotation,
    metric: Metric,
    threads: usize,
}

impl Graph {
    /// Builds the graph of all of `rows`, with up to `threads` threads. `None` when `stop` became true meanwhile.
    ///
    /// # Panics
    /// When there are no rows, or 2³¹ or more, or options are out of range.
    pub fn build(
        kernels: Kernels,
        rows: &RowsView,
        metric: Metric,
        options: &GraphOptions,
        threads: usize,
        stop: &(dyn Fn() -> bool + Sync),
    ) -> Option<Graph> {
        Graph::build_from(kernels, rows, metric, options, threads, stop, &Hints::default())
    }

    /// The same with what is known of the rows. From an earlier graph: vertices whose rows are among the new ones stay, links to those that are gone are
    /// repaired, and the others are inserted. Takes less time the more stay, and finds as much. Builds from nothing when less
    /// than half of the earlier vertices stay, or they would be less than a quarter of the new ones, or options, metric or
    /// dimension are not those of the earlier graph. It is not calibrated.
    ///
    /// # Panics
    /// As [`Graph::build`], and when the hints do not have a number for each row, or name one that is not there.
    pub fn build_from(
        kernels: Kernels,
        rows: &RowsView,
        metric: Metric,
        options: &GraphOptions,
        threads: usize,
        stop: &(dyn Fn() -> bool + Sync),
        hints: &Hints<'_>,
    ) -> Option<Graph> {
        assert!(!rows.is_empty() && rows.len() < 1 << 31, "some rows, fewer than 2^31");
        let threads = threads.max(1);
        let vertex_rows = VertexRows::of(rows);
        let kept = hints.earlier.and_then(|earlier| Kept::of(&earlier, rows, &vertex_rows, metric, options));
        let rotation = Rotation::new(rows.dimension(), options.seed);
        let source = Source { kernels, rows, rotation: &rotation, metric, threads };
        let mut chosen =
            pivots::choose(kernels, rows, |v| vertex_rows.first(v), vertex_rows.len(), metric, threads);
        let field = field(source, &vertex_rows, kept.as_ref());
        let shape = Shape { degree: options.degree, width: options.width, alpha: options.alpha };
        let roots: Vec<u32> = chosen.vertices().collect();
        let mut links = link(source, &field, shape, &chosen, kept.as_ref(), options.seed, stop)?;
        drop(field);
        let (mut order, islands) = order::breadth_first(&mut links, options.degree, &roots);
        if let Some(groups) = hints.groups {
            assert_eq!(groups.len(), rows.len(), "a group for each row");
            order.sort_by_key(|vertex| groups[vertex_rows.first(*vertex) as usize]);
        }
        for island in islands {
            chosen.add(kernels, island, &rows.row(vertex_rows.first(island)));
        }
        let mut numbers = vec![0; order.len()];
        for (number, vertex) in order.iter().enumerate() {
            numbers[*vertex as usize] = number as u32;
        }
        let links = renumber(&links, options.degree, &order, &numbers);
        let vertex_rows = vertex_rows.reordered(&order);
        let kept = kept.map(|kept| kept.reordered(&order));
        let table = encode(source, &vertex_rows, options.code_width(rows.dimension()), kept.as_ref());
        let renumbered = |vertex: u32| numbers[vertex as usize];
        let pivots = Pivots::new(kernels, &chosen, metric, &rotation, &table, renumbered);
        Some(Graph {
            metric,
            rotation,
            table,
            degree: options.degree,
            links,
            rows: vertex_rows,
            pivots,
            calibration: Calibration::default(),
            taken_over: kept.map_or(0, |kept| kept.count()),
        })
    }

    /// True when single precision can tell the distances of these rows: under L2 and dot, vectors of very different lengths
    /// would lose what the shorter ones say.
    pub fn fits(rows: &RowsView, metric: Metric) -> bool {
        let is_usual = |row| rows.norm(row) == 0.0 || NORMS.contains(&rows.norm(row));
        metric == Metric::Cosine || (0..rows.len() as u32).all(is_usual)
    }

    /// Vertices: distinct vectors.
    pub fn vertices(&self) -> usize {
        self.rows.len()
    }

    /// How many of them an earlier graph had that this one was built from; 0 for one that was built from nothing or loaded.
    pub fn taken_over(&self) -> usize {
        self.taken_over
    }

    /// Bytes in memory.
    pub fn bytes(&self) -> usize {
        self.table.bytes() + self.links.bytes() + self.rows.bytes() + self.pivots.bytes()
    }
}

/// Runs `work` on all parts, on all threads, each with its own scratch.
fn in_parallel<T: Send, S: Default>(
    parts: impl Iterator<Item = T> + Send,
    threads: usize,
    work: impl Fn(T, &mut S) + Sync,
) {
    let parts = Mutex::new(parts);
    let next = || parts.lock().expect("no panic under this lock").next();
    let run = || {
        let mut scratch = S::default();
        while let Some(part) = next() {
            work(part, &mut scratch);
        }
    };
    std::thread::scope(|scope| {
        (1..threads).for_each(|_| _ = scope.spawn(run));
        run();
    });
}

/// The vectors as the build sees them.
fn field(source: Source<'_>, vertices: &VertexRows, kept: Option<&Kept<'_>>) -> Field {
    let Source { kernels, rows, rotation, metric, threads } = source;
    let count = vertices.len();
    let stride = CodeWidth::Eight.lines_of(rotation.padded());
    let largest = match metric {
        Metric::Dot => (0..rows.len() as u32).map(|row| rows.norm(row).powi(2)).fold(0.0, f64::max),
        Metric::L2 | Metric::Cosine => 0.0,
    };
    // The codes that searches decide by serve the build, too, where they have eight bits.
    let coded = kept.filter(|kept| kept.graph.table.width == CodeWidth::Eight);
    let mut lines = HugeSlice::zeroed(stride * count);
    let mut places = vec![Place::default(); count];
    let parts = lines.chunks_mut(stride * SHARE).zip(places.chunks_mut(SHARE)).enumerate();
    in_parallel(parts, threads, |(part, (lines, places)), rotated: &mut Vec<f32>| {
        for (index, (lines, place)) in lines.chunks_mut(stride).zip(places).enumerate() {
            let vertex = (part * SHARE + index) as u32;
            let row = vertices.first(vertex);
            let norm = rows.norm(row);
            let mul = match coded.and_then(|kept| Some((kept.graph, kept.earlier(vertex)?))) {
                Some((graph, earlier)) => {
                    let (codes, factors) = graph.table.of(earlier);
                    lines.copy_from_slice(codes);
                    factors.worth(metric, norm)
                }
                None => {
                    rotation.rotate(kernels, &rows.row(row), rotated);
                    codes::encode(kernels, CodeWidth::Eight, rotated, lines).factor
                }
            };
            *place = Place::of(metric, lines, mul, norm, largest);
        }
    });
    Field { kernels, stride, lines, places, largest }
}

/// Links every vertex: those that are kept by their earlier neighbours, then the pivots, from which all others are found.
fn link(
    source: Source<'_>,
    field: &Field,
    shape: Shape,
    chosen: &Chosen,
    kept: Option<&Kept<'_>>,
    seed: u64,
    stop: &(dyn Fn() -> bool + Sync),
) -> Option<Vec<u32>> {
    let Source { rotation, metric, threads, .. } = source;
    let builder = Builder::new(field, shape);
    let mut is_linked = vec![false; field.places.len()];
    if let Some(kept) = kept {
        let parts = is_linked.chunks_mut(SHARE).enumerate();
        in_parallel(parts, threads, |(part, is_linked), scratch: &mut BuildScratch| {
            for (index, is_linked) in is_linked.iter_mut().enumerate().take_while(|_| !stop()) {
                *is_linked = builder.take_over((part * SHARE + index) as u32, kept, scratch);
            }
        });
    }
    let linked = chosen.only(|pivot| is_linked[pivot as usize]);
    let first = is_linked.iter().position(|is_linked| *is_linked).map(|vertex| vertex as u32);
    let roots: Vec<u32> =
        chosen.vertices().filter(|root| !std::mem::replace(&mut is_linked[*root as usize], true)).collect();
    let finder = Finder::new(&linked, field.beside(&linked.centres, rotation, metric));
    in_parallel(roots.chunks(SHARE), threads, |roots_part, scratch: &mut BuildScratch| {
        for root in roots_part {
            let entries = match linked.is_empty() {
                true => Entries::Vertex(first.unwrap_or(roots[0])),
                false => Entries::Pivots(&finder),
            };
            builder.insert(*root, entries, scratch);
        }
    });
    let finder = Finder::new(chosen, field.beside(&chosen.centres, rotation, metric));
    let mut others: Vec<u32> = (0..field.places.len() as u32).filter(|v| !is_linked[*v as usize]).collect();
    codes::shuffle(&mut others, seed);
    in_parallel(others.chunks(SHARE), threads, |others, scratch: &mut BuildScratch| {
        for vertex in others.iter().take_while(|_| !stop()) {
            builder.insert(*vertex, Entries::Pivots(&finder), scratch);
        }
    });
    let vertices: Vec<u32> = (0..field.places.len() as u32).collect();
    in_parallel(vertices.chunks(SHARE), threads, |vertices, scratch: &mut BuildScratch| {
        for vertex in vertices.iter().take_while(|_| !stop()) {
            builder.finish(*vertex, scratch);
        }
    });
    (!stop()).then(|| builder.into_links())
}

/// The lists in the vertices' new order and numbers.
fn renumber(links: &[u32], degree: usize, order: &[u32], numbers: &[u32]) -> HugeSlice<u32> {
    let mut renumbered = HugeSlice::zeroed(links.len());
    for (list, vertex) in renumbered.chunks_exact_mut(degree).zip(order) {
        let old = &links[*vertex as usize * degree..][..degree];
        for (link, old) in list.iter_mut().zip(old) {
            *link = if *old == NONE { NONE } else { numbers[*old as usize] };
        }
    }
    renumbered
}

/// Square of what an error of the query's counts in a cost.
fn weight(metric: Metric, norm: f64) -> f64 {
    match metric {
        Metric::Cosine => 1.0,
        Metric::L2 => 4.0 * norm * norm,
        Metric::Dot => norm * norm,
    }
}

/// The codes that searches decide by.
fn encode(source: Source<'_>, vertices: &VertexRows, width: CodeWidth, kept: Option<&Kept<'_>>) -> CodeTable {
    let Source { kernels, rows, rotation, metric, threads } = source;
    let mut table = CodeTable::zeroed(width, rotation.padded(), vertices.len());
    let CodeTable { stride, lines, factors, .. } = &mut table;
    let stride = *stride;
    let variances = Mutex::new((0.0, 0.0));
    let parts = lines.chunks_mut(stride * SHARE).zip(factors.chunks_mut(SHARE)).enumerate();
    in_parallel(parts, threads, |(part, (lines, factors)), rotated: &mut Vec<f32>| {
        let mut sums = (0.0, 0.0);
        for (index, (lines, factors)) in lines.chunks_mut(stride).zip(factors).enumerate() {
            let vertex = (part * SHARE + index) as u32;
            let row = vertices.first(vertex);
            let (coded, variance) = match kept.and_then(|kept| Some((kept.graph, kept.earlier(vertex)?))) {
                Some((graph, earlier)) => {
                    let (codes, factors) = graph.table.of(earlier);
                    lines.copy_from_slice(codes);
                    (factors, f64::from(graph.table.error).powi(2))
                }
                None => {
                    rotation.rotate(kernels, &rows.row(row), rotated);
                    table::encode(kernels, width, metric, rotated, lines)
                }
            };
            *factors = coded;
            sums.0 += variance;
            sums.1 += weight(metric, rows.norm(row));
        }
        let mut all = variances.lock().expect("no panic under this lock");
        *all = (all.0 + sums.0, all.1 + sums.1);
    });
    let (variance, square) = variances.into_inner().expect("no panic under this lock");
    table.error = (variance / vertices.len() as f64).sqrt() as f32;
    table.length = (square / vertices.len() as f64).sqrt() as f32;
    table
}
