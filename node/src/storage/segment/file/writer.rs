//! Writing a segment's file, row by row.

use std::path::Path;

use crc32c::crc32c;
use vectorsphere_index::{StorageType, norm};

use super::super::entries::Entries;
use super::super::row_cache::RowCache;
use super::super::rows::{DiskRows, PageTable};
use super::super::{Ancestor, SegmentId, SegmentView};
use super::{
    BLOCK_HEADER_BYTES, END, ENTRIES, FILE_HEADER_BYTES, MAGIC, STRIPE_BYTES, Shape, block_crc, numbers_of,
};
use crate::ids::Lsn;
use crate::runtime::disk::{Disk, DiskFile};
use crate::storage::{StorageError, digest};

/// A row as it is written.
pub(in crate::storage) struct FileRow<'r> {
    pub(in crate::storage) id: &'r str,
    pub(in crate::storage) vector: &'r [f32],
    pub(in crate::storage) metadata: &'r [u8],
    pub(in crate::storage) created: Lsn,
}

/// Writes a segment whose vectors stay in its file, row by row, ordered by id.
pub(in crate::storage) struct OnDiskWriter<'p> {
    writer: Writer<'p>,
    id: SegmentId,
    entries: Entries,
}

impl<'p> OnDiskWriter<'p> {
    pub(in crate::storage) fn create(
        disk: &dyn Disk,
        path: &'p Path,
        id: SegmentId,
        shape: Shape,
    ) -> Result<OnDiskWriter<'p>, StorageError> {
        let mut writer = Writer::create(disk, path, id, shape)?;
        writer.pages = Some(PageTable::new(shape.storage_type, shape.dimension as usize));
        Ok(OnDiskWriter { writer, id, entries: Entries::default() })
    }

    /// Adds a row. True when a stripe was written.
    pub(in crate::storage) fn push(&mut self, row: &FileRow<'_>) -> Result<bool, StorageError> {
        self.entries.push(row.id, row.metadata, row.created);
        self.writer.push(row)
    }

    /// Makes the file durable but for its name; returns the segment and the file's size.
    pub(in crate::storage) fn end(
        mut self,
        disk: &dyn Disk,
        cache: &RowCache,
        ancestor: Option<Ancestor>,
    ) -> Result<(SegmentView, u64), StorageError> {
        self.writer.end()?;
        let (path, pages) = (self.writer.path, self.writer.pages.expect("made with them"));
        let reader = disk.open(path).map_err(StorageError::read(path))?;
        let rows = DiskRows::new(reader, path.to_path_buf(), pages, cache.clone());
        Ok((SegmentView::on_disk(self.id, rows, &self.entries, ancestor), self.writer.bytes))
    }
}

/// Writes a file's header, stripes and end.
pub(super) struct Writer<'p> {
    file: Box<dyn DiskFile>,
    path: &'p Path,
    seed: u64,
    storage_type: StorageType,
    pub(super) bytes: u64,
    /// Rows that are written, and those of the stripe that is being made.
    written: u32,
    rows: u32,
    vectors: Vec<u8>,
    entries: Vec<u8>,
    texts: Vec<u8>,
    /// Filled when the vectors are to be read from the file, with the digests of the stripe's rows.
    pages: Option<PageTable>,
    digests: Vec<u128>,
}

impl<'p> Writer<'p> {
    pub(super) fn create(
        disk: &dyn Disk,
        path: &'p Path,
        id: SegmentId,
        shape: Shape,
    ) -> Result<Writer<'p>, StorageError> {
        let file = disk.create(path).map_err(StorageError::write(path))?;
        let (vectors, entries, texts, digests) = Default::default();
        let (seed, storage_type) = (rand::random(), shape.storage_type);
        let (bytes, written, rows, pages) = (0, 0, 0, None);
        let mut writer = Writer {
            file,
            path,
            seed,
            storage_type,
            bytes,
            written,
            rows,
            vectors,
            entries,
            texts,
            pages,
            digests,
        };
        writer.header(id, shape.dimension)?;
        Ok(writer)
    }

    fn append(&mut self, bytes: &[u8]) -> Result<(), StorageError> {
        self.bytes += bytes.len() as u64;
        self.file.append(bytes).map_err(StorageError::write(self.path))
    }

    fn header(&mut self, id: SegmentId, dimension: u32) -> Result<(), StorageError> {
        let mut bytes = Vec::with_capacity(FILE_HEADER_BYTES);
        bytes.extend_from_slice(&MAGIC);
        let (version, _) = numbers_of(self.storage_type);
        for number in [version, id.0, dimension] {
            bytes.extend_from_slice(&number.to_le_bytes());
        }
        bytes.extend_from_slice(&self.seed.to_le_bytes());
        bytes.extend_from_slice(&crc32c(&bytes).to_le_bytes());
        self.append(&bytes)
    }

    /// Adds a row to the stripe, and writes the stripe when it is full; true then.
    pub(super) fn push(&mut self, row: &FileRow<'_>) -> Result<bool, StorageError> {
        let FileRow { id, vector, metadata, created } = *row;
        self.storage_type.append_bytes(vector, &mut self.vectors);
        self.entries.extend_from_slice(&created.0.to_le_bytes());
        self.entries.extend_from_slice(&norm(vector).to_le_bytes());
        self.entries.extend_from_slice(&(id.len() as u32).to_le_bytes());
        self.entries.extend_from_slice(&(metadata.len() as u32).to_le_bytes());
        self.texts.extend_from_slice(id.as_bytes());
        self.texts.extend_from_slice(metadata);
        if self.pages.is_some() {
            self.digests.push(digest::of_row(id, created, vector, metadata));
        }
        self.rows += 1;
        let is_full = self.vectors.len() >= STRIPE_BYTES || self.texts.len() >= STRIPE_BYTES;
        if is_full {
            self.stripe()?;
        }
        Ok(is_full)
    }

    /// Writes the stripe's two blocks.
    fn stripe(&mut self) -> Result<(), StorageError> {
        let [vectors, mut entries, texts] =
            [&mut self.vectors, &mut self.entries, &mut self.texts].map(std::mem::take);
        entries.extend_from_slice(&texts);
        if let Some(pages) = &mut self.pages {
            pages.push(self.bytes + BLOCK_HEADER_BYTES as u64, &vectors, self.digests.drain(..));
        }
        let (first, rows) = (self.written, std::mem::take(&mut self.rows));
        self.block(numbers_of(self.storage_type).1, first, rows, &vectors)?;
        self.block(ENTRIES, first, rows, &entries)?;
        self.written += rows;
        Ok(())
    }

    pub(super) fn end(&mut self) -> Result<(), StorageError> {
        if self.rows > 0 {
            self.stripe()?;
        }
        self.block(END, self.written, 0, &[])?;
        self.file.sync().map_err(StorageError::sync(self.path))
    }

    fn block(&mut self, kind: u32, first: u32, rows: u32, payload: &[u8]) -> Result<(), StorageError> {
        let length = u32::try_from(payload.len()).expect("a stripe is small");
        let mut header = Vec::with_capacity(BLOCK_HEADER_BYTES);
        for number in [kind, first, rows, length] {
            header.extend_from_slice(&number.to_le_bytes());
        }
        header.extend_from_slice(&block_crc(self.seed, &header, payload).to_le_bytes());
        self.append(&header)?;
        self.append(payload)
    }
}
