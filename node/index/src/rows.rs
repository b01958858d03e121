//! Vectors in memory: append-only, readable while more is appended.
//!
//! New rows go to small blocks; as many as make a chunk are copied into one. Chunks and full blocks never change and
//! are shared with every view; the last block is copied only if a view still holds it while a row is appended. So
//! a reader never waits and never sees a row that was appended after its view was taken, an append after a view copies
//! 64 KiB at most, and what is shared stays few pieces however many rows there are.

use std::borrow::Cow;
use std::convert::Infallible;
use std::sync::Arc;

use crate::line::{self, Line};
use crate::memory::{HugeSlice, prefetch};
use crate::{StorageType, norm};

/// Bytes of a block: what one append may have to copy.
const BLOCK_BYTES: usize = 64 * 1024;
/// Blocks that make a chunk.
const BLOCKS_PER_CHUNK: usize = 64;

/// Append-only rows of one dimension.
#[derive(Clone, Debug)]
pub struct Rows {
    view: RowsView,
}

/// The rows that were there when the view was taken. Cheap to clone.
#[derive(Clone, Debug)]
pub struct RowsView {
    dimension: usize,
    storage_type: StorageType,
    rows_per_block: usize,
    /// Pieces of `BLOCKS_PER_CHUNK` blocks' rows each.
    chunks: Arc<Vec<Arc<Chunk>>>,
    /// Pieces of `rows_per_block` rows, of which the last may have fewer; never a whole chunk of them.
    blocks: Arc<Vec<Arc<Piece>>>,
    len: usize,
}

/// Consecutive rows that never change, in huge pages: searches read them at random.
#[derive(Debug)]
struct Chunk {
    lines: HugeSlice<Line>,
    norms: Vec<f64>,
}

/// Consecutive rows. Each fills whole lines.
#[derive(Clone, Debug, Default)]
struct Piece {
    lines: Vec<Line>,
    norms: Vec<f64>,
}

/// Rows that searches score one by one: in memory, or fetched when they are wanted.
pub trait RowAccess {
    /// Why a row cannot be had.
    type Error;

    /// Values of each row.
    fn dimension(&self) -> usize;

    /// How values are kept.
    fn storage_type(&self) -> StorageType;

    /// Rows in memory that row `number` is among, and its number there.
    ///
    /// # Errors
    /// When it cannot be fetched, or is not what was stored.
    fn holding(&self, number: u32) -> Result<(Cow<'_, RowsView>, u32), Self::Error>;

    /// Asks for row `number` ahead of its use, if that costs nothing.
    fn prefetch(&self, number: u32);
}

impl RowAccess for RowsView {
    type Error = Infallible;

    fn dimension(&self) -> usize {
        self.dimension
    }

    fn storage_type(&self) -> StorageType {
        self.storage_type
    }

    #[inline]
    fn holding(&self, number: u32) -> Result<(Cow<'_, RowsView>, u32), Infallible> {
        Ok((Cow::Borrowed(self), number))
    }

    #[inline]
    fn prefetch(&self, number: u32) {
        prefetch(self.lines_of(number));
    }
}

impl Rows {
    /// No rows yet, of `dimension` values in single precision each, `1..=65_536`.
    ///
    /// # Panics
    /// When `dimension` is 0.
    pub fn new(dimension: usize) -> Rows {
        Rows::stored_as(StorageType::F32, dimension)
    }

    /// The same with values kept in another way. A row takes whole cache lines, of 64 bytes.
    ///
    /// # Panics
    /// When `dimension` is 0.
    pub fn stored_as(storage_type: StorageType, dimension: usize) -> Rows {
        assert!(dimension > 0, "rows have at least one value");
        let row_bytes = storage_type.lines_of(dimension) * size_of::<Line>();
        let rows_per_block = (BLOCK_BYTES / row_bytes).max(1);
        let (chunks, blocks) = Default::default();
        Rows { view: RowsView { dimension, storage_type, rows_per_block, chunks, blocks, len: 0 } }
    }

    /// Appends a row of finite values, which are rounded to what is kept of them, and returns its number.
    ///
    /// # Panics
    /// When the row has another dimension, a value that is too large for the storage type, or is the 2³²-th.
    pub fn push(&mut self, row: &[f32]) -> u32 {
        let view = &mut self.view;
        assert_eq!(row.len(), view.dimension, "a row of another dimension");
        assert!(view.len < u32::MAX as usize, "fewer than 2^32 rows");
        let number = view.len as u32;
        let rows_per_chunk = view.rows_per_chunk();
        let blocks = Arc::make_mut(&mut view.blocks);
        if blocks.last().is_none_or(|last| last.norms.len() == view.rows_per_block) {
            blocks.push(Arc::default());
        }
        let last = blocks.last_mut().expect("a block was added if there was none");
        let mut row = Cow::Borrowed(row);
        if view.storage_type != StorageType::F32 {
            view.storage_type.round(row.to_mut()).expect("values that the storage type holds");
        }
        Arc::make_mut(last).push(view.storage_type, &row, view.rows_per_block);
        view.len += 1;
        if view.len.is_multiple_of(rows_per_chunk) {
            Arc::make_mut(&mut view.chunks).push(Arc::new(Chunk::joined(blocks)));
            blocks.clear();
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
    /// Rows from their bytes in files, as [`StorageType::append_bytes`] makes them: no more memory than they need. `None` when a
    /// value is not finite.
    ///
    /// # Panics
    /// When `dimension` is 0, or the last row is cut off.
    pub fn from_bytes(storage_type: StorageType, dimension: usize, bytes: &[u8]) -> Option<RowsView> {
        assert!(dimension > 0, "rows have at least one value");
        let row_bytes = dimension * storage_type.value_bytes();
        assert!(bytes.len().is_multiple_of(row_bytes), "whole rows");
        let len = bytes.len() / row_bytes;
        let mut piece = Piece {
            lines: Vec::with_capacity(len * storage_type.lines_of(dimension)),
            norms: Vec::with_capacity(len),
        };
        let mut row = vec![0.0; dimension];
        for bytes in bytes.chunks_exact(row_bytes) {
            if !storage_type.read_bytes(bytes, &mut row) {
                return None;
            }
            piece.push(storage_type, &row, len);
        }
        let blocks = Arc::new(vec![Arc::new(piece)]);
        let rows_per_block = len.max(1);
        Some(RowsView { dimension, storage_type, rows_per_block, chunks: Arc::default(), blocks, len })
    }

    /// Values of each row.
    pub fn dimension(&self) -> usize {
        self.dimension
    }

    /// How values are kept.
    pub fn storage_type(&self) -> StorageType {
        self.storage_type
    }

    /// Number of rows.
    pub fn len(&self) -> usize {
        self.len
    }

    /// True when there is none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Row `number`, `0..len`, as it is kept.
    ///
    /// # Panics
    /// When there is no such row.
    pub fn row(&self, number: u32) -> Cow<'_, [f32]> {
        let lines = self.lines_of(number);
        match self.storage_type.half() {
            None => Cow::Borrowed(&line::values(lines)[..self.dimension]),
            Some(kind) => {
                let mut values = Vec::new();
                kind.widen(bytemuck::cast_slice(lines), &mut values);
                values.truncate(self.dimension);
                Cow::Owned(values)
            }
        }
    }

    /// The lines of row `number`, `0..len`: equal for rows of equal values, and only for those.
    ///
    /// # Panics
    /// When there is no such row.
    pub(crate) fn lines_of(&self, number: u32) -> &[Line] {
        let (lines, _) = self.run_from(number);
        &lines[..self.stride()]
    }

    /// The values of a row's lines, in `buffer` if they have to be widened.
    #[inline(always)]
    pub(crate) fn values<'v>(&self, lines: &'v [Line], buffer: &'v mut Vec<f32>) -> &'v [f32] {
        match self.storage_type.half() {
            None => &line::values(lines)[..self.dimension],
            Some(kind) => {
                kind.widen(bytemuck::cast_slice(lines), buffer);
                &buffer[..self.dimension]
            }
        }
    }

    /// Lines of a row.
    pub(crate) fn stride(&self) -> usize {
        self.storage_type.lines_of(self.dimension)
    }

    /// Norm of row `number`, `0..len`, as [`norm`](crate::norm) gives it.
    ///
    /// # Panics
    /// When there is no such row.
    pub fn norm(&self, number: u32) -> f64 {
        let (_, norms) = self.run_from(number);
        norms[0]
    }

    /// Bytes that the rows hold in memory, unused space included.
    pub fn bytes(&self) -> usize {
        let chunks: usize = self.chunks.iter().map(|chunk| chunk.bytes()).sum();
        chunks + self.blocks.iter().map(|piece| piece.bytes()).sum::<usize>()
    }

    /// Lines and norms of the rows from `number` to the end of their piece, at least one row.
    ///
    /// # Panics
    /// When there is no row `number`.
    pub(crate) fn run_from(&self, number: u32) -> (&[Line], &[f64]) {
        let number = number as usize;
        assert!(number < self.len, "row {number} of {}", self.len);
        let (chunk, in_chunk) = (number / self.rows_per_chunk(), number % self.rows_per_chunk());
        let stride = self.stride();
        match self.chunks.get(chunk) {
            Some(chunk) => (&chunk.lines[in_chunk * stride..], &chunk.norms[in_chunk..]),
            None => {
                let block = &self.blocks[in_chunk / self.rows_per_block];
                let index = in_chunk % self.rows_per_block;
                (&block.lines[index * stride..], &block.norms[index..])
            }
        }
    }

    fn rows_per_chunk(&self) -> usize {
        self.rows_per_block * BLOCKS_PER_CHUNK
    }
}

impl Chunk {
    fn joined(pieces: &[Arc<Piece>]) -> Chunk {
        let mut lines = HugeSlice::zeroed(pieces.iter().map(|piece| piece.lines.len()).sum());
        let mut rest = &mut lines[..];
        for piece in pieces {
            let (into, after) = rest.split_at_mut(piece.lines.len());
            into.copy_from_slice(&piece.lines);
            rest = after;
        }
        let norms: Vec<&[f64]> = pieces.iter().map(|piece| piece.norms.as_slice()).collect();
        Chunk { lines, norms: norms.concat() }
    }

    fn bytes(&self) -> usize {
        self.lines.bytes() + self.norms.capacity() * size_of::<f64>()
    }
}

impl Piece {
    /// Appends a row of values as they are kept; there will be `rows_at_most`.
    fn push(&mut self, storage_type: StorageType, row: &[f32], rows_at_most: usize) {
        if self.lines.len() == self.lines.capacity() {
            // Doubles, as a vector would, but never beyond the block: small tables stay small, full blocks have no slack.
            let stride = storage_type.lines_of(row.len());
            let room = (rows_at_most - self.norms.len()) * stride;
            self.lines.reserve_exact(self.lines.len().max(stride).min(room));
        }
        storage_type.append(row, &mut self.lines);
        self.norms.push(norm(row));
    }

    fn bytes(&self) -> usize {
        self.lines.capacity() * size_of::<Line>() + self.norms.capacity() * size_of::<f64>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_view_keeps_what_it_saw() {
        // Dimensions with several rows a block, with one, and one whose row is larger than a block.
        for (dimension, count) in [(1_000, 2_500), (9_000, 150), (70_000, 70)] {
            let mut rows = Rows::new(dimension);
            let mut views = Vec::new();
            for i in 0..count {
                assert_eq!(rows.push(&vec![i as f32; dimension]), i);
                if i % 97 == 0 || i < 3 {
                    views.push((rows.len(), rows.view()));
                }
            }
            views.push((count as usize, rows.view()));
            for (len, view) in views {
                assert_eq!(view.len(), len);
                for i in 0..len as u32 {
                    assert_eq!((view.row(i).len(), view.row(i)[0]), (dimension, i as f32));
                    assert_eq!((view.row(i)[dimension - 1], view.norm(i)), (i as f32, norm(&view.row(i))));
                }
            }
        }
    }

    #[test]
    fn rows_from_bytes_are_those_that_were_written_and_take_no_more_memory() {
        for storage_type in StorageType::ALL {
            for (dimension, count) in [(1, 0u32), (3, 1), (384, 700), (70_000, 2)] {
                let (mut rows, mut bytes) = (Rows::stored_as(storage_type, dimension), Vec::new());
                for number in 0..count {
                    rows.push(&vec![number as f32 - 0.5; dimension]);
                    storage_type.append_bytes(&rows.row(number), &mut bytes);
                }
                let read = RowsView::from_bytes(storage_type, dimension, &bytes).expect("finite");
                assert_eq!(read.len(), count as usize);
                for number in 0..count {
                    assert_eq!((read.row(number), read.norm(number)), (rows.row(number), rows.norm(number)));
                }
                let lines = count as usize * storage_type.lines_of(dimension);
                assert_eq!(read.bytes(), lines * size_of::<Line>() + count as usize * size_of::<f64>());
            }
            let infinite = vec![0xff; storage_type.value_bytes()];
            assert!(RowsView::from_bytes(storage_type, 1, &infinite).is_none(), "{storage_type:?}");
        }
    }

    #[test]
    fn a_row_beyond_a_view_is_not_there() {
        let mut rows = Rows::new(3);
        rows.push(&[1.0, 2.0, 3.0]);
        let view = rows.view();
        rows.push(&[4.0, 5.0, 6.0]);
        assert!(std::panic::catch_unwind(|| view.row(1).to_vec()).is_err());
    }

    #[test]
    fn views_between_appends_cost_no_memory_that_stays() {
        let (dimension, count) = (384, 20_000);
        let mut rows = Rows::new(dimension);
        for _ in 0..count {
            let _held = rows.view();
            rows.push(&vec![1.0; dimension]);
        }
        let needed = count * (dimension * size_of::<f32>() + size_of::<f64>());
        assert!(rows.bytes() < needed + needed / 50, "{} bytes for {needed}", rows.bytes());
    }
}
