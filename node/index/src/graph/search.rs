//! Searching a graph: a walk, or a scan of codes where few rows count.

use super::Graph;
use super::build::NONE;
use super::pivots::EntryScratch;
use super::pool::{Candidate, Pool};
use super::table::{TableQuery, TableSpace};
use super::vertices::VertexRows;
use super::walk::{BATCH_MAX, Links, Space, WalkScratch};
use crate::line::Line;
use crate::memory::{HugeSlice, prefetch};
use crate::scan::{Offers, Query};
use crate::{Kernels, RowAccess, RowMask, RowsView, TopK};

/// Candidates that a walk keeps when nothing else is said, and few hits are wanted.
pub const WIDTH_USUAL: usize = 96;

/// Candidates that a scan of codes keeps, at least, and for each hit that is wanted.
const SCORED_MIN: usize = 64;
const SCANNED_KEPT: usize = 8;
/// Candidates that a scan keeps however few hits are wanted, at most.
const SCANNED_KEPT_MAX: usize = 512;
/// A candidate is scored from its row unless its estimated cost is beyond the worst hit's by more than this many typical
/// errors.
const MARGIN: f64 = 2.5;
/// Rows that are asked for ahead of the one that is scored.
const AHEAD: usize = 3;
/// A walk looks at a vertex at random, a scan of matching rows at the codes of one after the other: so many of the latter
/// cost as much as one of the former.
const SCANNED_PER_VISITED: usize = 5;
/// Vertices that a walk of width 1 sees, about, and for each more of its width.
const VISITED_BASE: usize = 100;
const VISITED_PER_WIDTH: usize = 16;
/// When this share of rows counts, a plain walk finds enough of them on its way, in percent.
const PLAIN_PERCENT: usize = 30;
/// Candidates of the walk that finds out how many of the rows near the query count.
const PROBE_WIDTH: usize = 16;
/// Rows that count are so many times rarer near the query than everywhere: a walk would not find them.
const RARE_HERE: usize = 4;

/// Memory that a search needs and the next one uses again.
#[derive(Debug, Default)]
pub struct Scratch {
    rotated: Vec<f32>,
    query: TableQuery,
    entries: EntryScratch,
    walk: WalkScratch,
    lines: Vec<Line>,
}

/// Which rows count.
#[derive(Clone, Copy, Debug)]
pub enum Selection<'m> {
    /// All.
    All,
    /// All but so many, told apart by what is visible.
    AllBut(usize),
    /// Those of a mask.
    Mask(&'m RowMask),
}

/// How a graph is searched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Plan {
    /// A walk over everything.
    Walk,
    /// A walk over everything, of this width, that keeps the rows that count.
    WalkFor {
        /// Candidates.
        width: usize,
    },
    /// A walk from one row that counts to the next, in up to two steps.
    WalkWithin,
    /// Comparing with all rows that count.
    Scan,
}

/// What a search touched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Touched {
    /// How the search was done: a walk that does not find enough, or costs as much as a scan, is given up for one.
    pub plan: Plan,
    /// Vertices whose neighbours were looked at.
    pub hops: usize,
    /// Vertices that codes were compared with.
    pub vertices: usize,
    /// Rows that were scored exactly.
    pub rows: usize,
}

struct PlainLinks<'g> {
    degree: usize,
    links: &'g HugeSlice<u32>,
}

impl Links for PlainLinks<'_> {
    #[inline(always)]
    fn of(&self, vertex: u32) -> impl Iterator<Item = u32> {
        self.list(vertex).iter().copied().take_while(|link| *link != NONE)
    }

    #[inline(always)]
    fn prefetch(&self, vertex: u32) {
        prefetch(self.list(vertex));
    }
}

impl PlainLinks<'_> {
    #[inline(always)]
    fn list(&self, vertex: u32) -> &[u32] {
        &self.links[vertex as usize * self.degree..][..self.degree]
    }
}

/// A search on its way.
struct Search<'s, F> {
    graph: &'s Graph,
    kernels: Kernels,
    space: TableSpace<'s>,
    rotated: &'s [f32],
    /// Candidates of a walk over everything, and where it begins.
    width: usize,
    entries: usize,
    /// Hits that are wanted, and candidates that a scan keeps.
    wanted: usize,
    scored: usize,
    /// Rows that count, about.
    matches: usize,
    mask: Option<&'s RowMask>,
    counts: F,
    /// A vertex that walks never see.
    left_out: Option<u32>,
}

impl<F: Fn(u32) -> bool> Search<'_, F> {
    fn links(&self) -> PlainLinks<'_> {
        PlainLinks { degree: self.graph.degree, links: &self.graph.links }
    }

    fn allowed(&self, vertex: u32) -> bool {
        self.graph.rows.rows(vertex).iter().any(|row| (self.counts)(*row))
    }

    /// A walk costs no more than the scan of the rows that count.
    fn budget(&self) -> usize {
        self.matches / SCANNED_PER_VISITED + VISITED_BASE
    }

    fn enter(&self, width: usize, entry_scratch: &mut EntryScratch, walk: &mut WalkScratch) {
        walk.reset(self.graph.vertices(), width.max(1));
        self.left_out.map(|vertex| walk.visited.insert(vertex));
        let enter = |vertex, cost| walk.enter(vertex, cost);
        let (space, pivots) = (&self.space, &self.graph.pivots);
        pivots.entries(self.kernels, self.rotated, space.query, self.entries, entry_scratch, enter);
    }

    fn run(&self, plan: Plan, entry_scratch: &mut EntryScratch, walk: &mut WalkScratch) -> Plan {
        let links = self.links();
        let allowed = |vertex: u32| self.allowed(vertex);
        match plan {
            Plan::Walk => {
                self.enter(self.width, entry_scratch, walk);
                walk.walk(&self.space, &links);
                return plan;
            }
            Plan::WalkFor { width } => {
                self.enter(width, entry_scratch, walk);
                if walk.walk_for(&self.space, &links, allowed, self.budget())
                    && walk.has_nearest(self.wanted.min(self.matches))
                {
                    return plan;
                }
            }
            Plan::WalkWithin => {
                self.enter(PROBE_WIDTH, entry_scratch, walk);
                walk.walk_for(&self.space, &links, allowed, usize::MAX);
                let here = walk.seen_allowed * self.graph.rows.row_count();
                let everywhere = walk.compared() * self.matches;
                if walk.seen_allowed * 100 >= walk.compared() * PLAIN_PERCENT {
                    let width = self.width * walk.compared() / walk.seen_allowed;
                    return self.run(Plan::WalkFor { width }, entry_scratch, walk);
                }
                if here * RARE_HERE >= everywhere {
                    self.enter(self.width, entry_scratch, walk);
                    let finished = walk.walk_within(&self.space, &links, allowed, self.budget());
                    if finished && walk.results.candidates().len() >= self.wanted.min(self.matches) {
                        return plan;
                    }
                }
            }
            Plan::Scan => walk.reset(self.graph.vertices(), 1),
        }
        // The fewer count, the farther they may be, where distances lie close together and codes cannot tell them apart.
        walk.results.reset(self.scored.max((self.matches / 4).min(SCANNED_KEPT_MAX)));
        let count = |row: &u32| (self.counts)(*row);
        let (vertex_rows, results) = (&self.graph.rows, &mut walk.results);
        match self.mask {
            Some(mask) => {
                scan_codes(&self.space, vertex_rows, mask.iter().filter(count), &self.counts, results);
            }
            None => {
                let rows = 0..vertex_rows.row_count() as u32;
                scan_codes(&self.space, vertex_rows, rows.filter(count), &self.counts, results);
            }
        }
        Plan::Scan
    }
}

impl Graph {
    /// How a search of `width` candidates is done best when `matches` of the rows count.
    fn plan(&self, matches: usize, width: usize) -> Plan {
        let rows = self.rows.row_count();
        let visited = VISITED_BASE + VISITED_PER_WIDTH * width;
        if visited >= rows {
            // So wide a walk would see every vertex, at random.
            Plan::Scan
        } else if matches == rows {
            Plan::Walk
        } else if matches <= visited * SCANNED_PER_VISITED {
            Plan::Scan
        } else if matches * 100 >= rows * PLAIN_PERCENT {
            Plan::WalkFor { width: width * rows / matches }
        } else {
            Plan::WalkWithin
        }
    }

    /// Offers to `top` the best rows that a search finds. `effort` is the number of candidates that a walk keeps, `1..`: a
    /// wider one finds more of the true best and takes longer; and the number of pivots that it begins at, `1..`. `rows` are those that the graph was built of.
    ///
    /// # Errors
    /// When a row cannot be had; what is in `top` then is not what the search would have found.
    #[expect(clippy::too_many_arguments, reason = "a search is said whole")]
    pub fn search<K: Ord, R: RowAccess>(
        &self,
        kernels: Kernels,
        rows: &R,
        query: &Query<'_>,
        effort: (usize, usize),
        selection: Selection<'_>,
        visible: impl Fn(u32) -> bool,
        key: impl Fn(u32) -> K,
        top: &mut TopK<K>,
        scratch: &mut Scratch,
    ) -> Result<Touched, R::Error> {
        self.searched(kernels, rows, query, effort, None, selection, visible, key, top, scratch)
    }

    /// A walk over everything but `left_out`, as if that vertex were not there.
    #[expect(clippy::too_many_arguments, reason = "a search is said whole")]
    pub(super) fn walk_without(
        &self,
        kernels: Kernels,
        rows: &RowsView,
        query: &Query<'_>,
        effort: (usize, usize),
        left_out: u32,
        top: &mut TopK<u32>,
        scratch: &mut Scratch,
    ) -> Touched {
        let is_other = |row| self.rows.vertex(row) != left_out;
        let all = Selection::All;
        let Ok(touched) = self.searched(
            kernels,
            rows,
            query,
            effort,
            Some(left_out),
            all,
            is_other,
            |row| row,
            top,
            scratch,
        );
        touched
    }

    #[expect(clippy::too_many_arguments, reason = "as a search")]
    fn searched<K: Ord, R: RowAccess>(
        &self,
        kernels: Kernels,
        rows: &R,
        query: &Query<'_>,
        (width, entries): (usize, usize),
        left_out: Option<u32>,
        selection: Selection<'_>,
        visible: impl Fn(u32) -> bool,
        key: impl Fn(u32) -> K,
        top: &mut TopK<K>,
        scratch: &mut Scratch,
    ) -> Result<Touched, R::Error> {
        let Scratch { rotated, query: table_query, entries: entry_scratch, walk, lines } = scratch;
        self.rotation.rotate(kernels, query.vector(), rotated);
        table_query.encode(kernels, self.table.width, rotated);
        let (mask, matches) = match selection {
            Selection::All => (None, self.rows.row_count()),
            Selection::AllBut(hidden) => (None, self.rows.row_count().saturating_sub(hidden)),
            Selection::Mask(mask) => (Some(mask), mask.count()),
        };
        let counts = |row: u32| mask.is_none_or(|mask| mask.contains(row)) && visible(row);
        let scored = (SCANNED_KEPT * top.wanted()).max(SCORED_MIN);
        let space = TableSpace { kernels, table: &self.table, query: table_query };
        let (graph, wanted) = (self, top.wanted());
        let search = Search {
            graph,
            kernels,
            space,
            rotated,
            width,
            entries,
            wanted,
            scored,
            matches,
            mask,
            counts: &counts,
            left_out,
        };
        let plan = search.run(self.plan(matches, width), entry_scratch, walk);
        let found = if plan == Plan::Walk { &walk.pool } else { &walk.results };
        let found = found.candidates();
        for candidate in &found[..found.len().min(wanted + AHEAD)] {
            rows.prefetch(self.rows.first(candidate.vertex()));
        }
        let cost_of = |value: f64| space.query.cost_of(value).unwrap_or(f64::INFINITY);
        let margin = MARGIN * space.query.error(&self.table, query.norm());
        let mut offers = Offers::new(kernels, rows, query, lines);
        for (index, candidate) in found.iter().enumerate() {
            if let Some(bar) = top.bar()
                && f64::from(candidate.cost) > cost_of(query.value_of(bar) + margin)
            {
                break;
            }
            if let Some(ahead) = found.get(index + AHEAD).filter(|_| index >= wanted) {
                rows.prefetch(self.rows.first(ahead.vertex()));
            }
            for row in self.rows.rows(candidate.vertex()) {
                offers.offer(*row, counts, &key, top)?;
            }
        }
        Ok(Touched { plan, hops: walk.hops, vertices: walk.compared(), rows: offers.scored() })
    }
}

/// Compares with the codes of all of `rows`, which are those that count.
fn scan_codes(
    space: &TableSpace<'_>,
    vertex_rows: &VertexRows,
    mut rows: impl Iterator<Item = u32>,
    counts: impl Fn(u32) -> bool,
    results: &mut Pool,
) {
    let (mut batch, mut costs) = ([0; BATCH_MAX], [0.0; BATCH_MAX]);
    loop {
        let mut count = 0;
        while count < BATCH_MAX
            && let Some(row) = rows.next()
        {
            let vertex = vertex_rows.vertex(row);
            // Of rows that share a vertex, the first stands for all.
            let shares = vertex_rows.rows(vertex);
            if shares.len() > 1 && shares.iter().find(|row| counts(**row)) != Some(&row) {
                continue;
            }
            space.prefetch(vertex);
            batch[count] = vertex;
            count += 1;
        }
        if count == 0 {
            break;
        }
        let (batch, costs) = (&batch[..count], &mut costs[..count]);
        space.costs(batch, costs);
        for (vertex, cost) in batch.iter().zip(&*costs) {
            if *cost < results.bar() {
                results.insert(Candidate::new(*vertex, *cost));
            }
        }
    }
}
