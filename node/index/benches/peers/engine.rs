//! Our engine as the benchmark sees it. Everything that knows the engine's interface is here.

use vectorsphere_index::{
    Graph, GraphOptions, Kernels, Metric, Query, RowMask, Rows, Scratch, Selection, TopK, scan,
};

/// Pivots that walks begin at, as a node has it.
const ENTRIES: usize = 4;

/// The engine over one set.
pub(crate) struct Engine {
    kernels: Kernels,
    metric: Metric,
    rows: Rows,
    graph: Graph,
}

/// Copies of some rows and their numbers. A scan of these is faster than one of rows that lie apart can be: what a plan is
/// held against.
pub(crate) struct Gathered {
    rows: Rows,
    numbers: Vec<u32>,
}

impl Engine {
    /// How the engine is named in the tables.
    pub(crate) const NAME: &str = "vectorsphere";

    /// Builds on `threads` threads, as a node does.
    pub(crate) fn build(
        kernels: Kernels,
        rows: Rows,
        metric: Metric,
        options: &GraphOptions,
        threads: usize,
    ) -> Engine {
        let graph = Graph::build(kernels, &rows, metric, options, threads, &|| false);
        Engine { kernels, metric, rows, graph: graph.expect("nothing stops the build") }
    }

    /// The `k` best rows of the mask, or of all, found with the effort `ef`.
    pub(crate) fn search(
        &self,
        query: &[f32],
        k: usize,
        ef: usize,
        mask: Option<&RowMask>,
        scratch: &mut Scratch,
    ) -> Vec<u32> {
        let mut top = TopK::new(self.metric, k);
        let query = Query::new(self.metric, query, None);
        let selection = mask.map_or(Selection::All, Selection::Mask);
        let (visible, key) = (|_| true, |row| row);
        let effort = (ef, ENTRIES);
        let Engine { kernels, rows, graph, .. } = self;
        let Ok(_) =
            graph.search(*kernels, &**rows, &query, effort, selection, visible, key, &mut top, scratch);
        numbers(top)
    }

    /// Copies the rows of a mask, so that they can be read one after the other.
    pub(crate) fn gather(&self, mask: &RowMask) -> Gathered {
        let mut rows = Rows::new(self.rows.dimension());
        mask.iter().for_each(|row| {
            rows.push(&self.rows.row(row));
        });
        Gathered { rows, numbers: mask.iter().collect() }
    }

    /// The `k` best of gathered rows, found by reading all of them.
    pub(crate) fn scan(&self, query: &[f32], k: usize, gathered: &Gathered) -> Vec<u32> {
        let mut top = TopK::new(self.metric, k);
        let query = Query::new(self.metric, query, None);
        let Gathered { rows, numbers: names } = gathered;
        scan(
            self.kernels,
            rows,
            0..names.len() as u32,
            &query,
            |_| true,
            |row| names[row as usize],
            &mut top,
        );
        numbers(top)
    }

    pub(crate) fn rows(&self) -> &Rows {
        &self.rows
    }

    /// Bytes that stay in memory: index and rows.
    pub(crate) fn bytes(&self) -> usize {
        self.rows.bytes() + self.graph.bytes()
    }
}

fn numbers(top: TopK<u32>) -> Vec<u32> {
    top.into_sorted().into_iter().map(|hit| hit.key).collect()
}
