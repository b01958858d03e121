//! Vectors in memory: append-only, readable while more is appended.
//!
//! Rows lie one after the other in chunks. A full chunk never changes and is shared with every view; the last chunk is
//! copied only if a view still holds it while a row is appended, and it is small. So a reader never waits and never
//! sees a row that was appended after its view was taken.

use std::sync::Arc;

use crate::score::norm;

/// Bytes of a chunk that rows are appended to: what one append may have to copy.
const CHUNK_BYTES: usize = 256 * 1024;

/// Append-only rows of one dimension.
#[derive(Clone, Debug)]
pub struct Rows {
    view: RowsView,
}

/// The rows that were there when the view was taken. Cheap to clone.
#[derive(Clone, Debug)]
pub struct RowsView {
    dimension: usize,
    rows_per_chunk: usize,
    full: Arc<Vec<Arc<Chunk>>>,
    last: Arc<Chunk>,
}

#[derive(Clone, Debug, Default)]
struct Chunk {
    values: Vec<f32>,
    norms: Vec<f64>,
}

impl Rows {
    /// No rows yet, of `dimension` values each, `1..=65_536`.
    ///
    /// # Panics
    /// When `dimension` is 0.
    pub fn new(dimension: usize) -> Rows {
        assert!(dimension > 0, "rows have at least one value");
        let rows_per_chunk = (CHUNK_BYTES / (dimension * size_of::<f32>())).max(1);
        let view =
            RowsView { dimension, rows_per_chunk, full: Arc::default(), last: Arc::new(Chunk::default()) };
        Rows { view }
    }

    /// Appends a row of finite values and returns its number.
    ///
    /// # Panics
    /// When the row has another dimension, or is the 2³²-th.
    pub fn push(&mut self, row: &[f32]) -> u32 {
        let view = &mut self.view;
        assert_eq!(row.len(), view.dimension, "a row of another dimension");
        let number = u32::try_from(view.len()).expect("fewer than 2^32 rows");
        let last = Arc::make_mut(&mut view.last);
        last.values.reserve_exact(if last.norms.is_empty() { view.rows_per_chunk * row.len() } else { 0 });
        last.values.extend_from_slice(row);
        last.norms.push(norm(row));
        if last.norms.len() == view.rows_per_chunk {
            let full = std::mem::take(&mut view.last);
            Arc::make_mut(&mut view.full).push(full);
        }
        number
    }

    /// The rows as they are now, for readers.
    pub fn view(&self) -> RowsView {
        self.view.clone()
    }
}

impl std::ops::Deref for Rows {
    type Target = RowsView;

    fn deref(&self) -> &RowsView {
        &self.view
    }
}

impl RowsView {
    /// Values of each row.
    pub fn dimension(&self) -> usize {
        self.dimension
    }

    /// Number of rows.
    pub fn len(&self) -> usize {
        self.full.len() * self.rows_per_chunk + self.last.norms.len()
    }

    /// True when there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Row `number`, `0..len`.
    ///
    /// # Panics
    /// When there is no such row.
    pub fn row(&self, number: u32) -> &[f32] {
        let (chunk, index) = self.locate(number);
        &chunk.values[index * self.dimension..][..self.dimension]
    }

    /// Norm of row `number`, `0..len`, as [`norm`] gives it.
    ///
    /// # Panics
    /// When there is no such row.
    pub fn norm(&self, number: u32) -> f64 {
        let (chunk, index) = self.locate(number);
        chunk.norms[index]
    }

    /// Bytes that the rows hold in memory, unused space included.
    pub fn bytes(&self) -> usize {
        let chunks = self.full.iter().chain([&self.last]);
        chunks.map(|chunk| chunk.values.capacity() * 4 + chunk.norms.capacity() * 8).sum()
    }

    /// Values and norms of the rows from `number` to the end of their chunk, at least one row.
    ///
    /// # Panics
    /// When there is no row `number`.
    pub(crate) fn run_from(&self, number: u32) -> (&[f32], &[f64]) {
        let (chunk, index) = self.locate(number);
        (&chunk.values[index * self.dimension..], &chunk.norms[index..])
    }

    fn locate(&self, number: u32) -> (&Chunk, usize) {
        let (chunk, index) = (number as usize / self.rows_per_chunk, number as usize % self.rows_per_chunk);
        (self.full.get(chunk).unwrap_or(&self.last), index)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_view_keeps_what_it_saw() {
        let mut rows = Rows::new(20_000);
        let mut views = Vec::new();
        for i in 0..20 {
            assert_eq!(rows.push(&vec![i as f32; 20_000]), i);
            views.push(rows.view());
        }
        for (taken, view) in views.iter().enumerate() {
            assert_eq!(view.len(), taken + 1);
            for i in 0..view.len() as u32 {
                assert!(view.row(i).iter().all(|x| *x == i as f32));
                assert_eq!(view.norm(i), norm(view.row(i)));
            }
        }
    }

    #[test]
    fn a_dimension_larger_than_a_chunk_has_chunks_of_one_row() {
        let mut rows = Rows::new(70_000);
        rows.push(&vec![1.0; 70_000]);
        rows.push(&vec![2.0; 70_000]);
        assert_eq!((rows.row(0)[0], rows.row(1)[69_999], rows.len()), (1.0, 2.0, 2));
    }
}
