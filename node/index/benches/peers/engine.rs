//! Our engine as the benchmark sees it. Everything that knows the engine's interface is here.

use vectorsphere_index::{Kernels, Metric, Query, Rows, TopK, scan};

/// The engine over one set.
pub(crate) struct Engine {
    kernels: Kernels,
    metric: Metric,
    rows: Rows,
}

/// What one thread needs to search, kept between queries.
#[derive(Default)]
pub(crate) struct Scratch {}

impl Engine {
    /// How the engine is named in the tables.
    pub(crate) const NAME: &str = "vectorsphere";

    /// Builds on `threads` threads.
    pub(crate) fn build(kernels: Kernels, rows: Rows, metric: Metric, _threads: usize) -> Engine {
        Engine { kernels, metric, rows }
    }

    /// The `k` best rows that are visible, found with the effort `ef`.
    pub(crate) fn search(
        &self,
        query: &[f32],
        k: usize,
        _ef: usize,
        visible: impl Fn(u32) -> bool,
        _scratch: &mut Scratch,
    ) -> Vec<u32> {
        self.scan(query, k, visible)
    }

    /// The `k` best rows that are visible, found by reading all that are: the other plan of a filtered search.
    pub(crate) fn scan(&self, query: &[f32], k: usize, visible: impl Fn(u32) -> bool) -> Vec<u32> {
        let mut top = TopK::new(self.metric, k);
        let query = Query::new(self.metric, query, None);
        scan(self.kernels, &self.rows, 0..self.rows.len() as u32, &query, visible, |row| row, &mut top);
        top.into_sorted().into_iter().map(|hit| hit.key).collect()
    }

    pub(crate) fn rows(&self) -> &Rows {
        &self.rows
    }

    /// Bytes that stay in memory: index and rows.
    pub(crate) fn bytes(&self) -> usize {
        self.rows.bytes()
    }
}
