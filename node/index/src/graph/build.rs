//! Building the graph: vertices are inserted in random order by all threads; each is linked to the diverse among the
//! nearest that a walk finds, and those back to it.
//!
//! The rule of diversity is that of Vamana (Subramanya et al., DiskANN, NeurIPS 2019, algorithm 2): a candidate is left out
//! when a neighbour that was chosen before is nearer to it, by a factor, than the vertex itself. All distances are
//! estimates from 8-bit codes: four times less memory traffic than rows, and the walk of a search decides by codes, too.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, PoisonError};

use super::kept::Kept;
use super::pivots::Finder;
use super::pool::Candidate;
use super::walk::{BATCH_MAX, DEGREE_MAX, Links, Space, WalkScratch};
use crate::codes::{self, EncodedQuery, Rotation};
use crate::distance::codes::{CodeLine, CodeWidth, code_of};
use crate::memory::{HugeSlice, prefetch};
use crate::{Kernels, Metric, norm};

/// Behind the last neighbour of a vertex.
pub(super) const NONE: u32 = u32::MAX;
/// Mutexes that guard the vertices' lists, each those of many.
const LOCKS: usize = 4_096;
/// Chosen neighbours that a candidate is compared with at once.
const COMPARED: usize = 8;

/// Where the vertices lie while the graph is built: in a space in which the squared distance is what counts.
#[derive(Debug)]
pub(super) struct Field {
    pub(super) kernels: Kernels,
    /// Lines of a vertex.
    pub(super) stride: usize,
    /// 8-bit codes.
    pub(super) lines: HugeSlice<CodeLine>,
    pub(super) places: Vec<Place>,
    /// Largest squared norm, where it counts.
    pub(super) largest: f64,
}

/// What a vertex' codes do not say.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Place {
    /// What an integer of a dot product with the codes is worth.
    pub(super) mul: f32,
    /// Squared norm.
    pub(super) square: f32,
    /// A value beyond the vector's own; see [`Place::of`].
    pub(super) lift: f32,
    /// Of the integers that stand for the vertex as a query.
    pub(super) sum: i32,
}

/// How a graph is built.
#[derive(Clone, Copy, Debug)]
pub(super) struct Shape {
    pub(super) degree: usize,
    pub(super) width: usize,
    /// A candidate is left out when a neighbour is nearer to it by this factor on squared distances, `1.0..`.
    pub(super) alpha: f32,
}

/// A graph while it grows. Readers see each list as it is being written: an entry is a vertex or [`NONE`].
pub(super) struct Builder<'f> {
    field: &'f Field,
    shape: Shape,
    /// Entries of a list: more than the degree, so that a list is chosen anew once for many that are added to it.
    capacity: usize,
    links: Vec<AtomicU32>,
    locks: Vec<Mutex<()>>,
}

/// One thread's memory.
#[derive(Default)]
pub(super) struct BuildScratch {
    walk: WalkScratch,
    query: EncodedQuery,
    compared: EncodedQuery,
    candidates: Vec<Candidate>,
    chosen: Vec<u32>,
    back: Vec<u32>,
    linked: Vec<u32>,
    gone: Vec<u32>,
}

/// Where the walk to a new vertex begins.
#[derive(Clone, Copy)]
pub(super) enum Entries<'e> {
    Vertex(u32),
    /// At the nearest pivot.
    Pivots(&'e Finder<'e>),
}

/// The space seen from a vertex.
pub(super) struct FieldSpace<'s> {
    pub(super) field: &'s Field,
    query: &'s EncodedQuery,
    place: Place,
}

impl Place {
    /// Squared distances under L2; under cosine those of the directions. A dot product is no distance: vectors get a value
    /// more, so that all are as long as the longest, whose squared norm is `largest`, and the nearest then are those with
    /// the largest product (Neyshabur and Srebro, On Symmetric and Asymmetric LSHs for Inner Product Search, ICML 2015, 3.1).
    pub(super) fn of(metric: Metric, codes: &[CodeLine], mul: f32, norm: f64, largest: f64) -> Place {
        let sum = codes::sum_of_halved(codes);
        match metric {
            Metric::L2 => Place { mul, square: (norm * norm) as f32, lift: 0.0, sum },
            Metric::Cosine if norm > 0.0 => {
                Place { mul: (f64::from(mul) / norm) as f32, square: 1.0, lift: 0.0, sum }
            }
            Metric::Cosine => Place::default(),
            Metric::Dot => {
                let lift = (largest - norm * norm).max(0.0).sqrt();
                Place { mul, square: largest as f32, lift: lift as f32, sum }
            }
        }
    }
}

impl Field {
    fn codes(&self, vertex: u32) -> &[CodeLine] {
        code_of(&self.lines, self.stride, vertex)
    }

    fn place(&self, vertex: u32) -> Place {
        self.places[vertex as usize]
    }

    /// What is seen from a vertex, with `query` to keep its codes in.
    fn seen_from<'s>(&'s self, vertex: u32, query: &'s mut EncodedQuery) -> FieldSpace<'s> {
        let place = self.place(vertex);
        query.decode(self.kernels, self.codes(vertex), place.mul, place.sum);
        FieldSpace { field: self, query, place }
    }

    /// Other vectors in the same space.
    pub(super) fn beside(&self, vectors: &[Vec<f32>], rotation: &Rotation, metric: Metric) -> Field {
        let Field { kernels, stride, largest, .. } = *self;
        let mut lines = HugeSlice::zeroed(stride * vectors.len());
        let mut rotated = Vec::new();
        let places = lines.chunks_exact_mut(stride).zip(vectors).map(|(lines, vector)| {
            rotation.rotate(kernels, vector, &mut rotated);
            let mul = codes::encode(kernels, CodeWidth::Eight, &rotated, lines).factor;
            Place::of(metric, lines, mul, norm(vector), largest)
        });
        let places = places.collect();
        Field { kernels, stride, lines, places, largest }
    }
}

impl FieldSpace<'_> {
    /// The nearest of vertices of `field`, which lies in the same space.
    pub(super) fn nearest_of(&self, field: &Field, vertices: impl Iterator<Item = u32>) -> Option<u32> {
        let space = FieldSpace { field, ..*self };
        let mut nearest: Option<Candidate> = None;
        let mut part = [0; BATCH_MAX];
        let mut costs = [0.0; BATCH_MAX];
        let mut vertices = vertices.peekable();
        while vertices.peek().is_some() {
            let mut count = 0;
            for (slot, vertex) in part.iter_mut().zip(vertices.by_ref()) {
                *slot = vertex;
                space.prefetch(vertex);
                count += 1;
            }
            space.costs(&part[..count], &mut costs[..count]);
            for (vertex, cost) in part[..count].iter().zip(&costs) {
                if nearest.is_none_or(|nearest| *cost < nearest.cost) {
                    nearest = Some(Candidate::new(*vertex, *cost));
                }
            }
        }
        nearest.map(Candidate::vertex)
    }
}

impl Space for FieldSpace<'_> {
    #[inline(always)]
    fn prefetch(&self, vertex: u32) {
        prefetch(self.field.codes(vertex));
        prefetch(&self.field.places[vertex as usize..=vertex as usize]);
    }

    #[inline(always)]
    fn costs(&self, vertices: &[u32], out: &mut [f32]) {
        let mut dots = [0; BATCH_MAX];
        let dots = &mut dots[..vertices.len()];
        let Field { kernels, lines, places, .. } = self.field;
        kernels.code_dots(CodeWidth::Eight, &self.query.lines, lines, vertices, dots);
        for ((vertex, dot), out) in vertices.iter().zip(&*dots).zip(out) {
            let other = places[*vertex as usize];
            let product = self.query.scale * other.mul * (*dot as f32 - self.query.offset);
            *out = self.place.square + other.square - 2.0 * (product + self.place.lift * other.lift);
        }
    }
}

impl Links for Builder<'_> {
    #[inline(always)]
    fn of(&self, vertex: u32) -> impl Iterator<Item = u32> {
        let links = self.list(vertex).iter();
        links.map(|link| link.load(Ordering::Acquire)).take_while(|link| *link != NONE)
    }

    #[inline(always)]
    fn prefetch(&self, vertex: u32) {
        prefetch(self.list(vertex));
    }
}

impl<'f> Builder<'f> {
    pub(super) fn new(field: &'f Field, shape: Shape) -> Builder<'f> {
        assert!((4..=DEGREE_MAX).contains(&shape.degree), "a degree within bounds");
        let count = field.places.len();
        let capacity = shape.degree / 2 * 3;
        let links = (0..count * capacity).map(|_| AtomicU32::new(NONE)).collect();
        let locks = (0..LOCKS.min(count)).map(|_| Mutex::new(())).collect();
        Builder { field, shape, capacity, links, locks }
    }

    /// Links a vertex to what a walk finds, beyond what it is linked to already.
    pub(super) fn insert(&self, vertex: u32, entries: Entries<'_>, scratch: &mut BuildScratch) {
        let BuildScratch { walk, query, compared, candidates, chosen, back, .. } = scratch;
        let space = self.field.seen_from(vertex, query);
        walk.reset(self.field.places.len(), self.shape.width);
        let entry = match entries {
            Entries::Vertex(entry) => Some(entry),
            Entries::Pivots(finder) => finder.entry(&space),
        };
        if let Some(entry) = entry.filter(|entry| *entry != vertex) {
            let mut cost = [0.0];
            space.costs(&[entry], &mut cost);
            walk.enter(entry, cost[0]);
        }
        walk.walk(&space, self);
        candidates.clear();
        candidates.extend(walk.pool.candidates().iter().filter(|found| found.vertex() != vertex));
        self.choose(candidates, compared, chosen);
        self.publish(vertex, chosen);
        for neighbour in chosen.iter() {
            self.link_back(*neighbour, vertex, query, compared, candidates, back);
        }
    }

    /// Links a vertex as it was linked in an earlier graph. Where neighbours are gone, those of theirs that stay are
    /// candidates beside its own (Singh et al., FreshDiskANN, 2021, algorithm 4). False for a vertex that was not there,
    /// and where so much is gone around one that it has to be inserted.
    ///
    /// Reads nothing of other vertices' new lists: what comes out is the same on any number of threads.
    pub(super) fn take_over(&self, vertex: u32, kept: &Kept<'_>, scratch: &mut BuildScratch) -> bool {
        let BuildScratch { walk, query, compared, candidates, chosen, linked, gone, .. } = scratch;
        let Some(earlier) = kept.earlier(vertex) else { return false };
        let seen = &mut walk.visited;
        seen.reset(self.field.places.len());
        seen.insert(vertex);
        linked.clear();
        gone.clear();
        for neighbour in kept.neighbours(earlier) {
            match kept.new_of(neighbour) {
                None => gone.push(neighbour),
                Some(neighbour) if seen.insert(neighbour) => linked.push(neighbour),
                Some(_) => {}
            }
        }
        let (stay, had) = (linked.len(), linked.len() + gone.len());
        let theirs = gone.iter().flat_map(|gone| kept.neighbours(*gone));
        linked.extend(theirs.filter_map(|other| kept.new_of(other)).filter(|other| seen.insert(*other)));
        if linked.len() > stay && linked.len() >= had {
            self.choose_anew(vertex, linked, query, compared, candidates, chosen);
            return true;
        }
        linked.truncate(stay);
        for (link, neighbour) in self.list(vertex).iter().zip(linked.iter()) {
            link.store(*neighbour, Ordering::Release);
        }
        gone.is_empty() && stay > 0
    }

    fn list(&self, vertex: u32) -> &[AtomicU32] {
        &self.links[vertex as usize * self.capacity..][..self.capacity]
    }

    fn lock(&self, vertex: u32) -> &Mutex<()> {
        &self.locks[vertex as usize % self.locks.len()]
    }

    /// Chooses neighbours from candidates in ascending order of distance.
    fn choose(&self, candidates: &[Candidate], compared: &mut EncodedQuery, chosen: &mut Vec<u32>) {
        chosen.clear();
        for candidate in candidates {
            if chosen.len() == self.shape.degree {
                break;
            }
            if chosen.is_empty() || !self.is_hidden(*candidate, chosen, compared) {
                chosen.push(candidate.vertex());
            }
        }
    }

    /// True when one of the chosen is so near to the candidate that a walk goes through it.
    fn is_hidden(&self, candidate: Candidate, chosen: &[u32], compared: &mut EncodedQuery) -> bool {
        let space = self.field.seen_from(candidate.vertex(), compared);
        let mut costs = [0.0; COMPARED];
        chosen.chunks(COMPARED).any(|chosen| {
            let costs = &mut costs[..chosen.len()];
            space.costs(chosen, costs);
            costs.iter().any(|cost| self.shape.alpha * cost <= candidate.cost)
        })
    }

    /// Writes the first list of a vertex, behind what others may have linked to it already.
    fn publish(&self, vertex: u32, chosen: &[u32]) {
        let _guard = self.lock(vertex).lock().unwrap_or_else(PoisonError::into_inner);
        let list = self.list(vertex);
        let taken: Vec<u32> =
            list.iter().map(|link| link.load(Ordering::Relaxed)).take_while(|link| *link != NONE).collect();
        let fresh = chosen.iter().filter(|neighbour| !taken.contains(neighbour));
        for (link, neighbour) in list[taken.len()..].iter().zip(fresh) {
            link.store(*neighbour, Ordering::Release);
        }
    }

    /// Links `vertex` to `fresh`; a full list is chosen anew.
    fn link_back(
        &self,
        vertex: u32,
        fresh: u32,
        query: &mut EncodedQuery,
        compared: &mut EncodedQuery,
        candidates: &mut Vec<Candidate>,
        chosen: &mut Vec<u32>,
    ) {
        let _guard = self.lock(vertex).lock().unwrap_or_else(PoisonError::into_inner);
        let list = self.list(vertex);
        let mut linked = [NONE; BATCH_MAX + 1];
        let mut count = 0;
        for link in list {
            let neighbour = link.load(Ordering::Relaxed);
            if neighbour == fresh {
                return;
            }
            if neighbour == NONE {
                link.store(fresh, Ordering::Release);
                return;
            }
            linked[count] = neighbour;
            count += 1;
        }
        linked[count] = fresh;
        self.choose_anew(vertex, &linked[..=count], query, compared, candidates, chosen);
    }

    /// Writes a list of the diverse among `linked`.
    fn choose_anew(
        &self,
        vertex: u32,
        linked: &[u32],
        query: &mut EncodedQuery,
        compared: &mut EncodedQuery,
        candidates: &mut Vec<Candidate>,
        chosen: &mut Vec<u32>,
    ) {
        let space = self.field.seen_from(vertex, query);
        linked.iter().for_each(|neighbour| space.prefetch(*neighbour));
        candidates.clear();
        for chunk in linked.chunks(BATCH_MAX) {
            let mut costs = [0.0; BATCH_MAX];
            space.costs(chunk, &mut costs[..chunk.len()]);
            candidates.extend(chunk.iter().zip(costs).map(|(vertex, cost)| Candidate::new(*vertex, cost)));
        }
        candidates.sort_unstable_by(|a, b| a.cost.total_cmp(&b.cost));
        candidates.truncate(self.shape.width.max(BATCH_MAX + 1));
        self.choose(candidates, compared, chosen);
        let ends = chosen.iter().copied().chain(std::iter::repeat(NONE));
        for (link, neighbour) in self.list(vertex).iter().zip(ends) {
            link.store(neighbour, Ordering::Release);
        }
    }

    /// Shortens a list to the degree.
    pub(super) fn finish(&self, vertex: u32, scratch: &mut BuildScratch) {
        let BuildScratch { query, compared, candidates, chosen, .. } = scratch;
        let list = self.list(vertex);
        if list[self.shape.degree].load(Ordering::Relaxed) == NONE {
            return;
        }
        let linked: Vec<u32> =
            list.iter().map(|link| link.load(Ordering::Relaxed)).take_while(|link| *link != NONE).collect();
        self.choose_anew(vertex, &linked, query, compared, candidates, chosen);
    }

    /// The finished lists, each of `degree` entries.
    pub(super) fn into_links(self) -> Vec<u32> {
        let lists = self.links.chunks_exact(self.capacity).map(|list| &list[..self.shape.degree]);
        lists.flatten().map(|link| link.load(Ordering::Relaxed)).collect()
    }
}
