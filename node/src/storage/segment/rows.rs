//! Where a segment's vectors are: in memory, or in its file, of which they are read page by page.
//!
//! Files have one checksum for about a mebibyte of vectors. Whoever reads or writes a file to its end therefore keeps a
//! checksum for each page ([`PageTable`]), four bytes for some KiB; a page that is read later is verified before anything
//! is made of it. So nothing of this is in the file, and rows in memory and on disk have the same files.

use std::borrow::Cow;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;

use crc32c::crc32c;
use vectorsphere_index::{Kernels, Query, RowAccess, Rows, RowsView, StorageType, TopK, scan};

use super::row_cache::{PageKey, RowCache};
use crate::runtime::disk::DiskReader;
use crate::storage::StorageError;

/// Most bytes of a page, but for one row that has more: what a search reads for one row.
const PAGE_BYTES: usize = 8 << 10;
/// Pages that a scan reads at once.
const SCAN_PAGES: u32 = 32;
/// A scan of so few pages looks for them in the cache.
const CACHED_SCAN_PAGES: u32 = 2;

/// Where the vectors of a table's segments are kept.
#[derive(Clone, Debug, Default)]
pub enum RowPlace {
    /// In memory.
    #[default]
    Memory,
    /// In the segments' files; what was read of late is in this cache.
    Disk(RowCache),
}

/// The vectors of a segment. Cheap to clone.
#[derive(Clone, Debug)]
pub enum SegmentRows {
    /// In memory.
    Memory(RowsView),
    /// In the segment's file.
    Disk(Arc<DiskRows>),
}

/// Vectors in a file.
pub struct DiskRows {
    reader: Box<dyn DiskReader>,
    path: PathBuf,
    pages: PageTable,
    cache: RowCache,
    /// The file's number there.
    file: u64,
}

/// Where the rows of a file are, and what their pages must be like.
#[derive(Debug)]
pub(super) struct PageTable {
    dimension: usize,
    storage_type: StorageType,
    rows_per_page: u32,
    stripes: Vec<Stripe>,
    checksums: Vec<u32>,
    rows: u32,
    /// Of each row's part in the content digest: who deletes a row must not have to read it.
    digests: Vec<u128>,
}

/// Rows that lie one after the other in the file.
#[derive(Clone, Copy, Debug)]
struct Stripe {
    first_row: u32,
    first_page: u32,
    /// In the file.
    offset: u64,
}

/// Pages of one stripe, one after the other.
struct Run {
    pages: Range<u32>,
    rows: Range<u32>,
    offset: u64,
}

impl PageTable {
    /// Of no rows yet.
    pub(super) fn new(storage_type: StorageType, dimension: usize) -> PageTable {
        let row_bytes = dimension * storage_type.value_bytes();
        let rows_per_page = (PAGE_BYTES / row_bytes).max(1) as u32;
        let (stripes, checksums, digests) = Default::default();
        PageTable { dimension, storage_type, rows_per_page, stripes, checksums, rows: 0, digests }
    }

    /// Takes note of the next rows, whose bytes lie at `offset` of the file, and of their digests.
    pub(super) fn push(&mut self, offset: u64, bytes: &[u8], digests: impl Iterator<Item = u128>) {
        let first_page = self.checksums.len() as u32;
        self.stripes.push(Stripe { first_row: self.rows, first_page, offset });
        let page_bytes = self.rows_per_page as usize * self.row_bytes();
        self.checksums.extend(bytes.chunks(page_bytes).map(crc32c));
        self.rows += (bytes.len() / self.row_bytes()) as u32;
        self.digests.extend(digests);
        assert_eq!(self.digests.len(), self.rows as usize, "a digest for each row");
    }

    /// Frees what was kept for more rows.
    pub(super) fn shrink(&mut self) {
        self.stripes.shrink_to_fit();
        self.checksums.shrink_to_fit();
        self.digests.shrink_to_fit();
    }

    fn row_bytes(&self) -> usize {
        self.dimension * self.storage_type.value_bytes()
    }

    /// The page of a row and those behind it in its stripe, `pages_max` at most.
    fn run_from(&self, row: u32, pages_max: u32) -> Run {
        assert!(row < self.rows, "row {row} of {}", self.rows);
        let index = self.stripes.partition_point(|stripe| stripe.first_row <= row) - 1;
        let stripe = self.stripes[index];
        let end = self.stripes.get(index + 1);
        let (end_row, end_page) =
            end.map_or((self.rows, self.checksums.len() as u32), |end| (end.first_row, end.first_page));
        let in_stripe = (row - stripe.first_row) / self.rows_per_page;
        let first_page = stripe.first_page + in_stripe;
        let first_row = stripe.first_row + in_stripe * self.rows_per_page;
        let pages = first_page..end_page.min(first_page.saturating_add(pages_max));
        let rows_max = pages.len() as u64 * u64::from(self.rows_per_page);
        let rows = first_row..u64::from(end_row).min(u64::from(first_row) + rows_max) as u32;
        let before = u64::from(first_row - stripe.first_row) * self.row_bytes() as u64;
        Run { pages, rows, offset: stripe.offset + before }
    }

    fn bytes(&self) -> usize {
        self.stripes.capacity() * size_of::<Stripe>()
            + self.checksums.capacity() * size_of::<u32>()
            + self.digests.capacity() * size_of::<u128>()
    }
}

impl std::fmt::Debug for DiskRows {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("DiskRows").field("path", &self.path).field("rows", &self.pages.rows).finish()
    }
}

impl DiskRows {
    /// The rows of a file that was read or written to its end.
    pub(super) fn new(
        reader: Box<dyn DiskReader>,
        path: PathBuf,
        mut pages: PageTable,
        cache: RowCache,
    ) -> DiskRows {
        pages.shrink();
        let file = cache.new_file();
        DiskRows { reader, path, pages, cache, file }
    }

    /// A row's part in the content digest.
    pub(super) fn digest(&self, row: u32) -> u128 {
        self.pages.digests[row as usize]
    }

    /// Reads pages and verifies each.
    fn read(&self, run: &Run) -> Result<RowsView, StorageError> {
        let PageTable { dimension, storage_type, checksums, rows_per_page, .. } = &self.pages;
        let mut bytes = vec![0; run.rows.len() * self.pages.row_bytes()];
        let page_bytes = *rows_per_page as usize * self.pages.row_bytes();
        let mut fill = || {
            self.reader.read_exact_at(&mut bytes, run.offset).map_err(StorageError::read(&self.path))?;
            let pages = bytes.chunks(page_bytes).zip(run.pages.clone());
            let differs = |(bytes, page): &(&[u8], u32)| crc32c(bytes) != checksums[*page as usize];
            Ok(pages.filter(differs).map(|(_, page)| page).next())
        };
        // Read again before the copy is given up for it: a transfer may go wrong once.
        if fill()?.is_some()
            && let Some(page) = fill()?
        {
            let first = run.rows.start + (page - run.pages.start) * rows_per_page;
            let reason = format!("has rows from {first} on whose checksum does not fit");
            return Err(StorageError::damaged(&self.path, reason));
        }
        let rows = RowsView::from_bytes(*storage_type, *dimension, &bytes);
        rows.ok_or_else(|| StorageError::damaged(&self.path, "has a value that is not finite"))
    }

    /// The page of a row, through the cache, and the row's number there.
    fn page_of(&self, row: u32) -> Result<(RowsView, u32), StorageError> {
        let run = self.pages.run_from(row, 1);
        let key: PageKey = (self.file, run.pages.start);
        let number = row - run.rows.start;
        if let Some(page) = self.cache.get(key) {
            return Ok((page, number));
        }
        let page = self.read(&run)?;
        self.cache.insert(key, page.clone());
        Ok((page, number))
    }

    /// Rows of `range` piece by piece: their numbers, and the rows in memory, of which those in the range count. What is read is not
    /// kept: a scan would drive everything else out of the cache.
    fn pieces(
        &self,
        range: Range<u32>,
    ) -> impl Iterator<Item = Result<(Range<u32>, RowsView), StorageError>> {
        let few = range.len() as u64 <= u64::from(CACHED_SCAN_PAGES) * u64::from(self.pages.rows_per_page);
        let mut next = range.start;
        std::iter::from_fn(move || {
            if next >= range.end {
                return None;
            }
            let run = self.pages.run_from(next, if few { 1 } else { SCAN_PAGES });
            next = run.rows.end;
            let kept = if few { self.cache.find((self.file, run.pages.start)) } else { None };
            if let Some(page) = kept {
                return Some(Ok((run.rows, page)));
            }
            self.cache.metrics().scanned_bytes.inc_by((run.rows.len() * self.pages.row_bytes()) as u64);
            Some(self.read(&run).map(|rows| (run.rows, rows)))
        })
    }
}

impl SegmentRows {
    /// Number of rows.
    pub fn len(&self) -> usize {
        match self {
            SegmentRows::Memory(rows) => rows.len(),
            SegmentRows::Disk(rows) => rows.pages.rows as usize,
        }
    }

    /// True when there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Values of each row.
    pub fn dimension(&self) -> usize {
        match self {
            SegmentRows::Memory(rows) => rows.dimension(),
            SegmentRows::Disk(rows) => rows.pages.dimension,
        }
    }

    /// How values are kept.
    pub fn storage_type(&self) -> StorageType {
        match self {
            SegmentRows::Memory(rows) => rows.storage_type(),
            SegmentRows::Disk(rows) => rows.pages.storage_type,
        }
    }

    /// True when they have to be read: not on the reactor.
    pub fn is_on_disk(&self) -> bool {
        matches!(self, SegmentRows::Disk(_))
    }

    /// Row `number`, `0..len`, as it is kept.
    ///
    /// # Errors
    /// When it cannot be read, or is not what was written.
    pub fn row(&self, number: u32) -> Result<Cow<'_, [f32]>, StorageError> {
        match self {
            SegmentRows::Memory(rows) => Ok(rows.row(number)),
            SegmentRows::Disk(rows) => {
                let (page, number) = rows.page_of(number)?;
                Ok(Cow::Owned(page.row(number).into_owned()))
            }
        }
    }

    /// All rows, in memory: those in a file are read, for who needs them at random for a while.
    ///
    /// # Errors
    /// As [`SegmentRows::row`].
    pub fn load(&self) -> Result<RowsView, StorageError> {
        match self {
            SegmentRows::Memory(rows) => Ok(rows.clone()),
            SegmentRows::Disk(on_disk) => {
                let mut rows = Rows::stored_as(self.storage_type(), self.dimension());
                for piece in on_disk.pieces(0..on_disk.pages.rows) {
                    let (_, piece) = piece?;
                    (0..piece.len() as u32).for_each(|number| _ = rows.push(&piece.row(number)));
                }
                Ok(rows.view())
            }
        }
    }

    /// As [`scan`].
    ///
    /// # Errors
    /// As [`SegmentRows::row`]; what is in `top` then is not the best of all.
    pub fn scan<K: Ord>(
        &self,
        kernels: Kernels,
        range: Range<u32>,
        query: &Query<'_>,
        visible: impl Fn(u32) -> bool,
        key: impl Fn(u32) -> K,
        top: &mut TopK<K>,
    ) -> Result<(), StorageError> {
        let on_disk = match self {
            SegmentRows::Memory(rows) => {
                scan(kernels, rows, range, query, visible, key, top);
                return Ok(());
            }
            SegmentRows::Disk(on_disk) => on_disk,
        };
        for piece in on_disk.pieces(range.clone()) {
            let (numbers, rows) = piece?;
            let first = numbers.start;
            let counts = range.start.max(first) - first..range.end.min(numbers.end) - first;
            scan(kernels, &rows, counts, query, |row| visible(first + row), |row| key(first + row), top);
        }
        Ok(())
    }

    /// Bytes in memory; pages in the cache are no part of them.
    pub fn bytes(&self) -> usize {
        match self {
            SegmentRows::Memory(rows) => rows.bytes(),
            SegmentRows::Disk(rows) => size_of::<DiskRows>() + rows.pages.bytes(),
        }
    }
}

impl RowAccess for SegmentRows {
    type Error = StorageError;

    fn dimension(&self) -> usize {
        SegmentRows::dimension(self)
    }

    fn storage_type(&self) -> StorageType {
        SegmentRows::storage_type(self)
    }

    #[inline]
    fn holding(&self, number: u32) -> Result<(Cow<'_, RowsView>, u32), StorageError> {
        match self {
            SegmentRows::Memory(rows) => Ok((Cow::Borrowed(rows), number)),
            SegmentRows::Disk(rows) => {
                let (page, number) = rows.page_of(number)?;
                Ok((Cow::Owned(page), number))
            }
        }
    }

    #[inline]
    fn prefetch(&self, number: u32) {
        if let SegmentRows::Memory(rows) = self {
            rows.prefetch(number);
        }
    }
}

/// Rows of a segment in ascending order, each piece read once and past the cache: what merges read.
pub(in crate::storage) struct RowCursor<'r> {
    rows: &'r SegmentRows,
    piece: Option<(Range<u32>, RowsView)>,
}

impl<'r> RowCursor<'r> {
    pub(in crate::storage) fn new(rows: &'r SegmentRows) -> RowCursor<'r> {
        RowCursor { rows, piece: None }
    }

    /// Row `number`; numbers ascend from call to call.
    pub(in crate::storage) fn row(&mut self, number: u32) -> Result<Cow<'_, [f32]>, StorageError> {
        let on_disk = match self.rows {
            SegmentRows::Memory(rows) => return Ok(rows.row(number)),
            SegmentRows::Disk(on_disk) => on_disk,
        };
        if self.piece.as_ref().is_none_or(|(rows, _)| !rows.contains(&number)) {
            let run = on_disk.pages.run_from(number, SCAN_PAGES);
            let rows = on_disk.read(&run)?;
            self.piece = Some((run.rows, rows));
        }
        let (rows, piece) = self.piece.as_ref().expect("read just now");
        Ok(piece.row(number - rows.start))
    }
}
