//! Files of immutable rows.
//!
//! `segments/<id, 8 hex digits>.rows`; all numbers little-endian.
//!
//! | offset | bytes | file header |
//! |--:|--:|---|
//! | 0 | 8 | magic `VSROWS\r\n` |
//! | 8 | 4 | format version: 1; 2 when values have two bytes |
//! | 12 | 4 | segment id |
//! | 16 | 4 | dimension |
//! | 20 | 8 | random seed |
//! | 28 | 4 | CRC-32C of the 28 bytes before |
//!
//! Blocks follow, in stripes of a vector block and an entry block of the same rows, then one end block:
//!
//! | offset | bytes | block |
//! |--:|--:|---|
//! | 0 | 4 | kind: 1, 4 or 5 vectors, 2 entries, 3 end |
//! | 4 | 4 | number of its first row; of the end block: rows of the file |
//! | 8 | 4 | rows in it |
//! | 12 | 4 | length of the payload |
//! | 16 | 4 | CRC-32C over: seed, the 16 bytes before, payload |
//! | 20 | | payload |
//!
//! A vector block holds the rows' values, f32 in kind 1, f16 in kind 4, bf16 in kind 5: one kind in a file. An entry block
//! holds for each row: created position (8), norm (f64), bytes of its id (4), bytes of its metadata (4); then for each
//! row its id and its metadata. Rows are ordered by id. Which rows are deleted stands in the manifest.

mod writer;

use std::path::{Path, PathBuf};

use crc32c::{crc32c, crc32c_append};
use vectorsphere_index::StorageType;

use self::writer::Writer;
pub(in crate::storage) use self::writer::{FileRow, OnDiskWriter};
use super::entries::Entries;
use super::rows::{DiskRows, PageTable, RowPlace};
use super::{MutableSegment, SegmentId, SegmentView};
use crate::document::Metadata;
use crate::ids::{DocumentId, Lsn};
use crate::runtime::disk::{Disk, DiskReader};
use crate::storage::StorageError;
use crate::storage::checkpoint::StopFlag;

const MAGIC: [u8; 8] = *b"VSROWS\r\n";
/// Of files with values of four bytes, which earlier versions read, and of two.
const VERSIONS: [u32; 2] = [1, 2];
const FILE_HEADER_BYTES: usize = 32;
const BLOCK_HEADER_BYTES: usize = 20;
const ENTRY_BYTES: usize = 24;
/// A stripe ends when its vectors or its texts have this many bytes.
const STRIPE_BYTES: usize = 1 << 20;
/// Largest payload that is read: a stripe, and one more row of the largest kind.
const PAYLOAD_BYTES_MAX: usize = STRIPE_BYTES * 2 + (32 << 20);

const ENTRIES: u32 = 2;
const END: u32 = 3;

/// Version of a file and kind of its vector blocks.
fn numbers_of(storage_type: StorageType) -> (u32, u32) {
    match storage_type {
        StorageType::F32 => (VERSIONS[0], 1),
        StorageType::F16 => (VERSIONS[1], 4),
        StorageType::Bf16 => (VERSIONS[1], 5),
    }
}

/// Path of a segment's file in a replica's directory.
pub fn path_of(directory: &Path, id: SegmentId) -> PathBuf {
    directory.join("segments").join(format!("{:08x}.rows", id.0))
}

/// What is in a segment's file beside its number.
#[derive(Clone, Copy, Debug)]
pub(in crate::storage) struct Shape {
    /// Values of each vector.
    pub(in crate::storage) dimension: u32,
    /// How they are kept.
    pub(in crate::storage) storage_type: StorageType,
}

/// Writes a segment that is in memory and ordered by id, durably but for its name. Returns the file's size. Gives up between
/// two stripes when `stop` is raised.
pub(in crate::storage) fn write(
    disk: &dyn Disk,
    path: &Path,
    segment: &SegmentView,
    stop: &StopFlag,
) -> Result<u64, StorageError> {
    assert!(segment.is_by_id(), "only ordered rows are written");
    let rows = segment.rows();
    let shape = Shape { dimension: rows.dimension() as u32, storage_type: rows.storage_type() };
    let mut writer = Writer::create(disk, path, segment.id(), shape)?;
    for row in 0..segment.len() {
        let (id, metadata, created) =
            (segment.document_id(row), segment.metadata_json(row), segment.created(row));
        if writer.push(&FileRow { id, vector: &rows.row(row)?, metadata, created })? {
            stop.check()?;
        }
    }
    writer.end()?;
    Ok(writer.bytes)
}

/// Reads a segment and checks every byte of it. Its vectors stay in memory, or in the file.
pub(in crate::storage) fn read(
    disk: &dyn Disk,
    path: &Path,
    id: SegmentId,
    shape: Shape,
    place: &RowPlace,
) -> Result<SegmentView, StorageError> {
    let Shape { dimension, storage_type } = shape;
    let mut reader = Reader::open(disk, path, id, shape)?;
    let cache = match place {
        RowPlace::Memory => {
            let mut segment = MutableSegment::new(id, dimension, storage_type);
            while reader.stripe(&mut segment)?.is_some() {}
            return Ok(segment.into_ordered(None));
        }
        RowPlace::Disk(cache) => cache,
    };
    let (mut pages, mut entries) = (PageTable::new(storage_type, dimension as usize), Entries::default());
    loop {
        let mut stripe = MutableSegment::new(id, dimension, storage_type);
        let Some(vectors) = reader.stripe(&mut stripe)? else { break };
        pages.push(vectors.offset, &vectors.bytes, (0..stripe.len() as u32).map(|row| stripe.digest(row)));
        stripe.copy_entries(&mut entries);
    }
    let rows = DiskRows::new(reader.reader, path.to_path_buf(), pages, cache.clone());
    Ok(SegmentView::on_disk(id, rows, &entries, None))
}

/// Checks every byte of a segment's file, a stripe at a time. Returns its rows.
pub(in crate::storage) fn check(
    disk: &dyn Disk,
    path: &Path,
    id: SegmentId,
    shape: Shape,
) -> Result<u32, StorageError> {
    let Shape { dimension, storage_type } = shape;
    let mut reader = Reader::open(disk, path, id, shape)?;
    while reader.stripe(&mut MutableSegment::new(id, dimension, storage_type))?.is_some() {}
    Ok(reader.rows)
}

struct Reader<'p> {
    reader: Box<dyn DiskReader>,
    path: &'p Path,
    offset: u64,
    length: u64,
    seed: u64,
    dimension: usize,
    storage_type: StorageType,
    /// Rows that were read, and the id of the last one.
    rows: u32,
    last_id: String,
}

/// The vectors of a stripe, as they are in the file.
struct StripeVectors {
    offset: u64,
    bytes: Vec<u8>,
}

struct Block {
    kind: u32,
    first: u32,
    rows: u32,
    payload: Vec<u8>,
}

impl<'p> Reader<'p> {
    /// At the first stripe of a segment's file.
    fn open(
        disk: &dyn Disk,
        path: &'p Path,
        id: SegmentId,
        shape: Shape,
    ) -> Result<Reader<'p>, StorageError> {
        let Shape { dimension, storage_type } = shape;
        let reader = disk.open(path).map_err(StorageError::read(path))?;
        let length = reader.len().map_err(StorageError::read(path))?;
        let mut reader = Reader {
            reader,
            path,
            offset: 0,
            length,
            seed: 0,
            dimension: dimension as usize,
            storage_type,
            rows: 0,
            last_id: String::new(),
        };
        reader.header(id, dimension)?;
        Ok(reader)
    }

    fn damaged(&self, reason: impl Into<String>) -> StorageError {
        StorageError::damaged(self.path, reason)
    }

    fn take(&mut self, bytes: usize) -> Result<Vec<u8>, StorageError> {
        if self.length - self.offset < bytes as u64 {
            return Err(self.damaged(format!("is cut off at {}", self.length)));
        }
        let mut buffer = vec![0; bytes];
        self.reader.read_exact_at(&mut buffer, self.offset).map_err(StorageError::read(self.path))?;
        self.offset += bytes as u64;
        Ok(buffer)
    }

    fn header(&mut self, id: SegmentId, dimension: u32) -> Result<(), StorageError> {
        let bytes = self.take(FILE_HEADER_BYTES)?;
        if bytes[..8] != MAGIC || crc32c(&bytes[..28]) != u32_at(&bytes, 28) {
            return Err(self.damaged("header checksum does not fit"));
        }
        let version = u32_at(&bytes, 8);
        if !VERSIONS.contains(&version) {
            let reason = format!("segment format {version}, known are {VERSIONS:?}");
            return Err(StorageError::Newer { path: self.path.to_path_buf(), reason });
        }
        if version != numbers_of(self.storage_type).0 {
            let storage_type = self.storage_type.as_str();
            return Err(self.damaged(format!("has format {version}, which is not that of {storage_type}")));
        }
        let found = (u32_at(&bytes, 12), u32_at(&bytes, 16));
        if found != (id.0, dimension) {
            let reason = format!("holds segment {} of dimension {}", found.0, found.1);
            return Err(self.damaged(reason));
        }
        self.seed = u64_at(&bytes, 20);
        Ok(())
    }

    /// Appends the rows of the next stripe; `None` at the end block.
    fn stripe(&mut self, segment: &mut MutableSegment) -> Result<Option<StripeVectors>, StorageError> {
        let vectors = self.block()?;
        let offset = self.offset - vectors.payload.len() as u64;
        let row = self.rows;
        if vectors.first != row {
            return Err(self.damaged(format!("has row {} in place of row {row}", vectors.first)));
        }
        if vectors.kind == END {
            return if self.offset == self.length {
                Ok(None)
            } else {
                Err(self.damaged("goes on behind its end"))
            };
        }
        let entries = self.block()?;
        let fits = vectors.kind == numbers_of(self.storage_type).1
            && (entries.kind, entries.first, entries.rows) == (ENTRIES, vectors.first, vectors.rows)
            && vectors.payload.len() == vectors.rows as usize * self.row_bytes();
        if !fits {
            return Err(self.damaged(format!("has blocks at row {row} that do not belong together")));
        }
        self.push_rows(segment, &vectors, &entries)?;
        Ok(Some(StripeVectors { offset, bytes: vectors.payload }))
    }

    fn push_rows(
        &mut self,
        segment: &mut MutableSegment,
        vectors: &Block,
        entries: &Block,
    ) -> Result<(), StorageError> {
        let (path, dimension, storage_type) = (self.path, self.dimension, self.storage_type);
        let malformed =
            || StorageError::damaged(path, format!("has malformed entries at row {}", vectors.first));
        let count = entries.rows as usize;
        let (table, mut texts) =
            entries.payload.split_at_checked(count * ENTRY_BYTES).ok_or_else(malformed)?;
        let mut values = vec![0.0f32; dimension];
        let rows = vectors.payload.chunks_exact(self.row_bytes()).zip(table.chunks_exact(ENTRY_BYTES));
        for (vector, entry) in rows {
            let finite = storage_type.read_bytes(vector, &mut values);
            let (id, rest) = texts.split_at_checked(u32_at(entry, 16) as usize).ok_or_else(malformed)?;
            let (metadata, rest) = rest.split_at_checked(u32_at(entry, 20) as usize).ok_or_else(malformed)?;
            texts = rest;
            let id = std::str::from_utf8(id).map_err(|_| malformed())?;
            let known = DocumentId::parse(id).is_ok() && Metadata::is_stored_form(metadata);
            if !finite || !known || id <= self.last_id.as_str() {
                return Err(malformed());
            }
            self.last_id.replace_range(.., id);
            self.rows += 1;
            let row = segment.push(id, &values, metadata, Lsn(u64_at(entry, 0)));
            if segment.norm(row).to_bits() != u64_at(entry, 8) {
                return Err(self.damaged(format!("has a norm at row {row} that does not fit its vector")));
            }
        }
        if texts.is_empty() { Ok(()) } else { Err(malformed()) }
    }

    fn row_bytes(&self) -> usize {
        self.dimension * self.storage_type.value_bytes()
    }

    fn block(&mut self) -> Result<Block, StorageError> {
        let header = self.take(BLOCK_HEADER_BYTES)?;
        let length = u32_at(&header, 12) as usize;
        if length > PAYLOAD_BYTES_MAX {
            return Err(self.damaged(format!("has a block of {length} bytes")));
        }
        let payload = self.take(length)?;
        if block_crc(self.seed, &header[..16], &payload) != u32_at(&header, 16) {
            return Err(
                self.damaged(format!("has a block before {} whose checksum does not fit", self.offset))
            );
        }
        let (kind, first, rows) = (u32_at(&header, 0), u32_at(&header, 4), u32_at(&header, 8));
        Ok(Block { kind, first, rows, payload })
    }
}

fn block_crc(seed: u64, header: &[u8], payload: &[u8]) -> u32 {
    crc32c_append(crc32c_append(crc32c(&seed.to_le_bytes()), header), payload)
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"))
}

#[cfg(test)]
mod tests {
    use super::super::row_cache::RowCache;
    use super::*;
    use crate::runtime::disk::MemoryDisk;

    fn segment(rows: u32, storage_type: StorageType) -> SegmentView {
        let mut segment = MutableSegment::new(SegmentId(3), 5, storage_type);
        for row in 0..rows {
            let metadata = format!("{{\"row\":{row}}}");
            let mut vector = [row as f32 / 2.0, -0.0, 1e-40, 0.1, -1.0];
            storage_type.round(&mut vector).expect("fits");
            segment.push(&format!("id{row:05}"), &vector, metadata.as_bytes(), Lsn(u64::from(row) * 2 + 1));
        }
        segment.into_ordered(None)
    }

    fn shape(storage_type: StorageType) -> Shape {
        Shape { dimension: 5, storage_type }
    }

    /// Vectors in memory, and in the file.
    fn places() -> [RowPlace; 2] {
        [RowPlace::Memory, RowPlace::Disk(RowCache::new(1 << 20, Default::default()))]
    }

    fn equal(a: &SegmentView, b: &SegmentView) -> bool {
        let bits = |view: &SegmentView, row| -> Vec<u32> {
            view.rows().row(row).expect("readable").iter().map(|value| value.to_bits()).collect()
        };
        a.len() == b.len()
            && (0..a.len()).all(|row| {
                a.document_id(row) == b.document_id(row)
                    && a.metadata_json(row) == b.metadata_json(row)
                    && a.created(row) == b.created(row)
                    && a.digest(row) == b.digest(row)
                    && bits(a, row) == bits(b, row)
            })
    }

    #[test]
    fn rows_round_trip_bit_for_bit() {
        let disk = MemoryDisk::new(1);
        let all = StorageType::ALL.map(|storage_type| [0, 1, 70_000].map(|rows| (rows, storage_type)));
        for (rows, storage_type) in all.into_iter().flatten() {
            let path = PathBuf::from(format!("{rows}.{}.rows", storage_type.as_str()));
            let written = segment(rows, storage_type);
            let bytes = write(&disk, &path, &written, &StopFlag::default()).expect("written");
            assert_eq!(bytes, disk.read(&path).expect("there").len() as u64);
            for place in places() {
                let whole = read(&disk, &path, SegmentId(3), shape(storage_type), &place).expect("whole");
                assert!(equal(&written, &whole), "{rows} rows as {storage_type:?} in {place:?}");
            }
            assert_eq!(check(&disk, &path, SegmentId(3), shape(storage_type)).expect("whole"), rows);
            for other in StorageType::ALL.into_iter().filter(|other| rows > 0 && *other != storage_type) {
                let read = read(&disk, &path, SegmentId(3), shape(other), &RowPlace::Memory);
                assert!(matches!(read, Err(StorageError::Damaged { .. })), "{storage_type:?} as {other:?}");
            }
        }
    }

    #[test]
    fn every_flipped_bit_and_every_cut_is_seen() {
        let disk = MemoryDisk::new(1);
        for storage_type in StorageType::ALL {
            let path = PathBuf::from(storage_type.as_str());
            write(&disk, &path, &segment(3, storage_type), &StopFlag::default()).expect("written");
            let bytes = disk.read(&path).expect("there");
            let is_damaged = |bytes: Vec<u8>| {
                disk.overwrite(&path, bytes);
                let checked = check(&disk, &path, SegmentId(3), shape(storage_type));
                for place in places() {
                    let read = read(&disk, &path, SegmentId(3), shape(storage_type), &place);
                    assert_eq!(checked.is_ok(), read.is_ok());
                }
                matches!(checked, Err(StorageError::Damaged { .. }))
            };
            for bit in 0..bytes.len() * 8 {
                let mut flipped = bytes.clone();
                flipped[bit / 8] ^= 1 << (bit % 8);
                assert!(is_damaged(flipped), "bit {bit}");
            }
            assert!((0..bytes.len()).all(|length| is_damaged(bytes[..length].to_vec())));
            assert!(is_damaged([&bytes[..], &[0]].concat()));
            assert!(!is_damaged(bytes));
        }
    }

    #[test]
    fn a_segment_written_to_stay_on_disk_has_the_same_file_and_rows() {
        let disk = MemoryDisk::new(1);
        let cache = RowCache::new(1 << 20, Default::default());
        for (rows, storage_type) in StorageType::ALL.map(|storage_type| (70_000, storage_type)) {
            let source = segment(rows, storage_type);
            let [path, other] =
                ["a", "b"].map(|name| PathBuf::from(format!("{}.{name}", storage_type.as_str())));
            let mut writer =
                OnDiskWriter::create(&disk, &path, SegmentId(3), shape(storage_type)).expect("created");
            for row in 0..rows {
                let vector = source.rows().row(row).expect("in memory");
                let (id, metadata, created) =
                    (source.document_id(row), source.metadata_json(row), source.created(row));
                writer.push(&FileRow { id, vector: &vector, metadata, created }).expect("written");
            }
            let (written, bytes) = writer.end(&disk, &cache, None).expect("written");
            assert!(written.rows().is_on_disk() && equal(&source, &written), "{storage_type:?}");
            assert_eq!(write(&disk, &other, &source, &StopFlag::default()).expect("written"), bytes);
            let back = read(&disk, &path, SegmentId(3), shape(storage_type), &RowPlace::Memory);
            assert!(equal(&source, &back.expect("whole")));
        }
    }

    #[test]
    fn every_bit_that_flips_in_a_vector_after_it_was_checked_is_seen_when_it_is_read() {
        let disk = MemoryDisk::new(1);
        for storage_type in StorageType::ALL {
            let path = PathBuf::from(storage_type.as_str());
            write(&disk, &path, &segment(3, storage_type), &StopFlag::default()).expect("written");
            let bytes = disk.read(&path).expect("there");
            // No page stays in memory.
            let place = RowPlace::Disk(RowCache::new(0, Default::default()));
            let rows = read(&disk, &path, SegmentId(3), shape(storage_type), &place).expect("whole");
            let [first, vectors] =
                [FILE_HEADER_BYTES + BLOCK_HEADER_BYTES, 3 * 5 * storage_type.value_bytes()];
            for bit in first * 8..(first + vectors) * 8 {
                let mut flipped = bytes.clone();
                flipped[bit / 8] ^= 1 << (bit % 8);
                disk.overwrite(&path, flipped);
                assert!(matches!(rows.rows().row(1), Err(StorageError::Damaged { .. })), "bit {bit}");
                assert!(matches!(rows.rows().load(), Err(StorageError::Damaged { .. })), "bit {bit}");
            }
            disk.overwrite(&path, bytes[..first + vectors - 1].to_vec());
            assert!(matches!(rows.rows().row(1), Err(StorageError::Read { .. })), "cut off");
            disk.overwrite(&path, bytes);
            assert!(rows.rows().row(1).is_ok());
        }
    }
}
