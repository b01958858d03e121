//! Our engine as the benchmark sees it. Everything that knows the engine's interface is here.

use vectorsphere_index::{Graph, GraphOptions, Kernels, Metric, Query, RowMask, Rows, Selection, TopK, scan};

/// Pivots that a walk begins at.
const ENTRIES: usize = 4;

/// The engine over one set.
pub(crate) struct Engine {
    kernels: Kernels,
    metric: Metric,
    rows: Rows,
    graph: Graph,
}

/// What one thread needs to search, kept between queries.
#[derive(Default)]
pub(crate) struct Scratch(vectorsphere_index::Scratch);

impl Engine {
    /// How the engine is named in the tables.
    pub(crate) const NAME: &str = "vectorsphere";

    /// Builds on `threads` threads.
    pub(crate) fn build(kernels: Kernels, rows: Rows, metric: Metric, threads: usize) -> Engine {
        let graph = Graph::build(kernels, &rows, metric, &GraphOptions::default(), threads, &|| false);
        let graph = graph.expect("nobody stops it");
        Engine { kernels, metric, rows, graph }
    }

    /// The `k` best rows, of those in `mask` if there is one, found with the effort `ef`.
    pub(crate) fn search(
        &self,
        query: &[f32],
        k: usize,
        ef: usize,
        mask: Option<&RowMask>,
        scratch: &mut Scratch,
    ) -> Vec<u32> {
        let (query, mut top) = (Query::new(self.metric, query, None), TopK::new(self.metric, k));
        let selection = mask.map_or(Selection::All, Selection::Mask);
        let (rows, width) = (&self.rows, (ef, ENTRIES));
        let scratch = &mut scratch.0;
        self.graph.search(
            self.kernels,
            rows,
            &query,
            width,
            selection,
            |_| true,
            |row| row,
            &mut top,
            scratch,
        );
        top.into_sorted().into_iter().map(|hit| hit.key).collect()
    }

    /// The `k` best rows of a mask, found by reading all of them: the other plan of a filtered search.
    pub(crate) fn scan(&self, query: &[f32], k: usize, mask: &RowMask) -> Vec<u32> {
        let mut top = TopK::new(self.metric, k);
        let query = Query::new(self.metric, query, None);
        let (all, visible) = (0..self.rows.len() as u32, |row| mask.contains(row));
        scan(self.kernels, &self.rows, all, &query, visible, |row| row, &mut top);
        top.into_sorted().into_iter().map(|hit| hit.key).collect()
    }

    pub(crate) fn rows(&self) -> &Rows {
        &self.rows
    }

    /// Bytes that stay in memory: index and rows.
    pub(crate) fn bytes(&self) -> usize {
        self.rows.bytes() + self.graph.bytes()
    }
}
