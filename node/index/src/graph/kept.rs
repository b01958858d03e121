//! What a graph keeps of an earlier one, some of whose rows are among its own.

use super::build::NONE;
use super::vertices::VertexRows;
use super::{Graph, GraphOptions};
use crate::{Metric, RowsView};

/// Stands for a row that is not among the new ones.
pub const GONE: u32 = u32::MAX;

/// An earlier graph is not worth its repair when it lost more than half of its vertices, or those that stay are fewer than
/// this share of the new ones.
const KEPT_OF_EARLIER: usize = 2;
const KEPT_OF_NEW: usize = 4;

/// An earlier graph, and what became of its rows.
#[derive(Clone, Copy, Debug)]
pub struct Earlier<'e> {
    /// The graph.
    pub graph: &'e Graph,
    /// For each of its rows the number of the same vector among the new rows, or [`GONE`]. No two have the same number.
    pub moved: &'e [u32],
}

impl Earlier<'_> {
    /// True when building from it saves time, as far as rows tell, `rows` being the number of the new ones.
    pub fn is_worth(&self, rows: usize) -> bool {
        let stay = self.moved.iter().filter(|row| **row != GONE).count();
        is_worth(stay, self.moved.len(), rows)
    }
}

fn is_worth(stay: usize, earlier: usize, new: usize) -> bool {
    stay * KEPT_OF_EARLIER >= earlier && stay * KEPT_OF_NEW >= new
}

/// Vertices of an earlier graph that are vertices of a new one.
pub(super) struct Kept<'e> {
    pub(super) graph: &'e Graph,
    /// For each new vertex the earlier one, or [`NONE`].
    earlier: Vec<u32>,
    /// For each earlier vertex the new one, or [`NONE`].
    new: Vec<u32>,
    count: usize,
}

impl<'e> Kept<'e> {
    /// `None` when a graph of nothing is as good: options or rows are of another kind, or too few vertices stay.
    ///
    /// # Panics
    /// When `moved` does not have a number for each row, or one that is not a new row's.
    pub(super) fn of(
        earlier: &Earlier<'e>,
        rows: &RowsView,
        vertices: &VertexRows,
        metric: Metric,
        options: &GraphOptions,
    ) -> Option<Kept<'e>> {
        let Earlier { graph, moved } = *earlier;
        assert_eq!(moved.len(), graph.rows.row_count(), "a number for each row of the earlier graph");
        let is_alike = graph.metric == metric
            && graph.degree == options.degree
            && graph.rotation.dimension() == rows.dimension()
            && graph.rotation.seed() == options.seed
            && graph.table.width == options.code_width(rows.dimension());
        if !is_alike {
            return None;
        }
        let mut kept =
            Kept { graph, earlier: vec![NONE; vertices.len()], new: vec![NONE; graph.vertices()], count: 0 };
        for old in 0..graph.vertices() as u32 {
            let stays = graph.rows.rows(old).iter().map(|row| moved[*row as usize]).find(|row| *row != GONE);
            let Some(new) = stays.map(|row| vertices.vertex(row)) else { continue };
            if kept.earlier[new as usize] == NONE {
                kept.earlier[new as usize] = old;
                kept.new[old as usize] = new;
                kept.count += 1;
            }
        }
        is_worth(kept.count, graph.vertices(), vertices.len()).then_some(kept)
    }

    /// How many stay.
    pub(super) fn count(&self) -> usize {
        self.count
    }

    /// The earlier vertex that a new one was.
    #[inline(always)]
    pub(super) fn earlier(&self, new: u32) -> Option<u32> {
        Some(self.earlier[new as usize]).filter(|old| *old != NONE)
    }

    /// The new vertex that an earlier one is.
    #[inline(always)]
    pub(super) fn new_of(&self, old: u32) -> Option<u32> {
        Some(self.new[old as usize]).filter(|new| *new != NONE)
    }

    /// The neighbours that an earlier vertex had, in the earlier numbers.
    #[inline(always)]
    pub(super) fn neighbours(&self, old: u32) -> impl Iterator<Item = u32> + use<'e> {
        let degree = self.graph.degree;
        let graph: &'e Graph = self.graph;
        let list = &graph.links[old as usize * degree..][..degree];
        list.iter().copied().take_while(|link| *link != NONE)
    }

    /// The same where new vertex i is what vertex `order[i]` was. Only [`Kept::earlier`] makes sense after this.
    pub(super) fn reordered(self, order: &[u32]) -> Kept<'e> {
        let earlier = order.iter().map(|vertex| self.earlier[*vertex as usize]).collect();
        Kept { earlier, new: Vec::new(), ..self }
    }
}
