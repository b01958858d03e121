//! The best-first walk: expand the nearest candidate until none of the nearest is left to expand.

use super::pool::{Candidate, Pool};
use super::visited::Visited;

/// Most neighbours of a vertex.
pub(super) const DEGREE_MAX: usize = 64;
/// Vertices that are enough for one step, and most lists of neighbours that it takes them from. Where most neighbours were
/// seen already, one list would leave the memory idle: what several ask for is fetched at the same time. Expanding the
/// second to fourth nearest before the nearest's neighbours are known costs nearly nothing, as a walk expands almost all that
/// it keeps.
const STEP: usize = 16;
const LISTS: usize = 4;
/// Most entries of a list, in a graph that is being built.
pub(super) const LIST_MAX: usize = DEGREE_MAX / 2 * 3;
/// Most vertices that are compared at once: a step, and a list.
pub(super) const BATCH_MAX: usize = LIST_MAX + STEP;
/// Lists of this many of the next candidates are asked for ahead of their use.
const AHEAD: usize = 8;

/// Allowed vertices that are enough for one step of a walk among them.
const WITHIN: usize = 32;

/// Where the vertices lie, seen from one query.
pub(super) trait Space {
    /// Asks for a vertex' place ahead of its use.
    fn prefetch(&self, vertex: u32);

    /// Costs of up to [`BATCH_MAX`] vertices: the smaller the nearer.
    fn costs(&self, vertices: &[u32], out: &mut [f32]);
}

/// Who is next to whom.
pub(super) trait Links {
    /// The neighbours of a vertex.
    fn of(&self, vertex: u32) -> impl Iterator<Item = u32>;

    /// Asks for a vertex' neighbours ahead of their use.
    fn prefetch(&self, vertex: u32);
}

/// What a walk needs and the next one uses again.
#[derive(Debug)]
pub(super) struct WalkScratch {
    pub(super) pool: Pool,
    /// The nearest that are allowed, where not all are.
    pub(super) results: Pool,
    pub(super) visited: Visited,
    /// How many of those were passed and not compared: their neighbours stood in for them.
    passed: usize,
    batch: [u32; BATCH_MAX],
    costs: [f32; BATCH_MAX],
    pub(super) hops: usize,
    /// Allowed vertices that were seen by a walk for such.
    pub(super) seen_allowed: usize,
}

impl Default for WalkScratch {
    fn default() -> WalkScratch {
        WalkScratch {
            pool: Pool::default(),
            results: Pool::default(),
            visited: Visited::default(),
            passed: 0,
            batch: [0; BATCH_MAX],
            costs: [0.0; BATCH_MAX],
            hops: 0,
            seen_allowed: 0,
        }
    }
}

impl WalkScratch {
    /// Empties everything, for a walk over `vertices` that keeps the nearest `width`.
    pub(super) fn reset(&mut self, vertices: usize, width: usize) {
        self.pool.reset(width);
        self.results.reset(width);
        self.visited.reset(vertices);
        (self.passed, self.hops) = (0, 0);
    }

    /// Vertices that codes were compared with.
    pub(super) fn compared(&self) -> usize {
        self.visited.len() - self.passed
    }

    /// Where the walk begins; once each.
    pub(super) fn enter(&mut self, vertex: u32, cost: f32) {
        if self.visited.insert(vertex) {
            self.pool.insert(Candidate::new(vertex, cost));
        }
    }

    /// Walks from where it was entered. The pool holds what was found.
    #[inline(always)]
    pub(super) fn walk(&mut self, space: &impl Space, links: &impl Links) {
        while let Some(count) = self.step(|walk, vertex, count| walk.gather(vertex, count, space, links)) {
            let (batch, costs) = (&self.batch[..count], &mut self.costs[..count]);
            space.costs(batch, costs);
            for (vertex, cost) in batch.iter().zip(&*costs) {
                if *cost < self.pool.bar() && self.pool.insert(Candidate::new(*vertex, *cost)) < AHEAD {
                    links.prefetch(*vertex);
                }
            }
        }
    }

    /// The same, and keeps apart what is allowed: `results` holds the nearest of those. Gives up and returns false once
    /// `budget` vertices were seen.
    #[inline(always)]
    pub(super) fn walk_for(
        &mut self,
        space: &impl Space,
        links: &impl Links,
        allowed: impl Fn(u32) -> bool,
        budget: usize,
    ) -> bool {
        let gather = |walk: &mut WalkScratch, vertex, count| walk.gather(vertex, count, space, links);
        self.keep_allowed(&allowed, budget, space, gather)
    }

    /// Walks among the allowed vertices only: where a neighbour is not, its neighbours stand in for it (Patel et al.,
    /// ACORN, SIGMOD 2024, 5). Else as [`WalkScratch::walk_for`].
    #[inline(always)]
    pub(super) fn walk_within(
        &mut self,
        space: &impl Space,
        links: &impl Links,
        allowed: impl Fn(u32) -> bool,
        budget: usize,
    ) -> bool {
        let gather =
            |walk: &mut WalkScratch, vertex, count| walk.gather_within(vertex, count, space, links, &allowed);
        self.keep_allowed(&allowed, budget, space, gather)
    }

    /// A walk over what `gather` puts into the batch for each vertex.
    #[inline(always)]
    fn keep_allowed(
        &mut self,
        allowed: &impl Fn(u32) -> bool,
        budget: usize,
        space: &impl Space,
        gather: impl Fn(&mut WalkScratch, u32, usize) -> usize,
    ) -> bool {
        self.seen_allowed = 0;
        for entry in self.pool.candidates() {
            if allowed(entry.vertex()) {
                self.seen_allowed += 1;
                self.results.insert(*entry);
            }
        }
        while let Some(count) = self.step(&gather) {
            if self.compared() > budget {
                return false;
            }
            let (batch, costs) = (&self.batch[..count], &mut self.costs[..count]);
            space.costs(batch, costs);
            for (vertex, cost) in batch.iter().zip(&*costs) {
                if *cost < self.pool.bar() {
                    self.pool.insert(Candidate::new(*vertex, *cost));
                }
                if allowed(*vertex) {
                    self.seen_allowed += 1;
                    if *cost < self.results.bar() {
                        self.results.insert(Candidate::new(*vertex, *cost));
                    }
                }
            }
        }
        true
    }

    /// Expands the nearest candidates until the batch has enough. `gather` adds to the `count` vertices of the batch what a
    /// vertex leads to, and returns how many there are then. `None` when nothing is left to expand.
    #[inline(always)]
    fn step(&mut self, gather: impl Fn(&mut WalkScratch, u32, usize) -> usize) -> Option<usize> {
        let (mut count, mut lists) = (0, 0);
        while count < STEP
            && lists < LISTS
            && let Some(vertex) = self.pool.expand()
        {
            count = gather(self, vertex, count);
            lists += 1;
        }
        self.hops += lists;
        (lists > 0).then_some(count)
    }

    /// True when the walk has looked at everything that is nearer than the first `wanted` results, as far as a walk of its
    /// width can tell.
    pub(super) fn has_nearest(&self, wanted: usize) -> bool {
        match self.results.candidates().get(wanted.saturating_sub(1)) {
            Some(last) => last.cost <= self.pool.bar(),
            None => false,
        }
    }

    /// Puts the neighbours that were not seen yet into the batch and asks for their codes.
    #[inline(always)]
    fn gather(&mut self, vertex: u32, count: usize, space: &impl Space, links: &impl Links) -> usize {
        let WalkScratch { visited, batch, .. } = self;
        let end = visited.insert_all(links.of(vertex), batch, count);
        batch[count..end].iter().for_each(|neighbour| space.prefetch(*neighbour));
        end
    }

    /// The same with the allowed vertices within two steps, as many as fit.
    #[inline(always)]
    fn gather_within(
        &mut self,
        vertex: u32,
        mut count: usize,
        space: &impl Space,
        links: &impl Links,
        allowed: &impl Fn(u32) -> bool,
    ) -> usize {
        let mut others = 0;
        let mut passed = [0; BATCH_MAX];
        for neighbour in links.of(vertex) {
            if self.visited.contains(neighbour) {
                continue;
            }
            if allowed(neighbour) {
                self.visited.insert(neighbour);
                space.prefetch(neighbour);
                self.batch[count] = neighbour;
                count += 1;
            } else {
                links.prefetch(neighbour);
                passed[others] = neighbour;
                others += 1;
            }
        }
        for other in &passed[..others] {
            if count >= WITHIN {
                break;
            }
            // Once is enough: all that it leads to is in the batch then.
            self.visited.insert(*other);
            self.passed += 1;
            for neighbour in links.of(*other) {
                if count < BATCH_MAX && !self.visited.contains(neighbour) && allowed(neighbour) {
                    self.visited.insert(neighbour);
                    space.prefetch(neighbour);
                    self.batch[count] = neighbour;
                    count += 1;
                }
            }
        }
        count
    }
}
