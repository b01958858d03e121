//! Files of indexes of FAISS, beside those of the rows that they were built of.
//!
//! `segments/<id, 8 hex digits>.faiss`; all numbers little-endian. As with [graphs](super::graph_file), nothing names these
//! files and one that is absent or damaged costs time, not truth.
//!
//! | offset | bytes | |
//! |--:|--:|---|
//! | 0 | 8 | magic `VSFAIX\r\n` |
//! | 8 | 4 | format version, 1 |
//! | 12 | 4 | segment id |
//! | 16 | 4 | CRC-32C of the 16 bytes before |
//! | 20 | | what [`FaissIndex::save`] writes, with checksums of its own |

use std::io;
use std::path::{Path, PathBuf};

use crc32c::crc32c;
use vectorsphere_index::Metric;
use vectorsphere_index::faiss::{FaissError, FaissIndex};

use super::{SegmentId, SegmentView};
use crate::runtime::disk::{Disk, DiskFile, DiskReader};
use crate::storage::StorageError;

const MAGIC: [u8; 8] = *b"VSFAIX\r\n";
const VERSION: u32 = 1;
const HEADER_BYTES: usize = 20;
/// Ending of their names.
pub(in crate::storage) const EXTENSION: &str = ".faiss";

/// Path of a segment's index in a replica's directory.
pub(in crate::storage) fn path_of(directory: &Path, id: SegmentId) -> PathBuf {
    directory.join("segments").join(format!("{:08x}{EXTENSION}", id.0))
}

/// Writes an index, durably, in place of what is there. Returns its size.
pub(in crate::storage) fn write(
    disk: &dyn Disk,
    directory: &Path,
    id: SegmentId,
    index: &FaissIndex,
) -> Result<u64, StorageError> {
    let path = path_of(directory, id);
    let temporary = path.with_extension("faiss.tmp");
    // What a crash left; nobody else writes it.
    let _: io::Result<()> = disk.remove(&temporary);
    let file = disk.create(&temporary).map_err(StorageError::write(&temporary))?;
    let mut writer = Writer { file, bytes: 0 };
    io::Write::write_all(&mut writer, &header(id)).map_err(StorageError::write(&temporary))?;
    index.save(&mut writer).map_err(|error| storage_error(&temporary, error))?;
    let Writer { mut file, bytes } = writer;
    file.sync().map_err(StorageError::sync(&temporary))?;
    disk.rename(&temporary, &path).map_err(StorageError::write(&path))?;
    let folder = directory.join("segments");
    disk.sync_dir(&folder).map_err(StorageError::sync(&folder))?;
    Ok(bytes)
}

/// Reads the index of a segment and checks every byte of it. `None` when there is no file.
///
/// # Errors
/// [`StorageError::Damaged`] when it is cut off or changed, was written by another version, or does not fit the rows.
pub(in crate::storage) fn read(
    disk: &dyn Disk,
    directory: &Path,
    segment: &SegmentView,
    metric: Metric,
) -> Result<Option<FaissIndex>, StorageError> {
    let path = path_of(directory, segment.id());
    let file = match disk.open(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        file => file.map_err(StorageError::read(&path))?,
    };
    let length = file.len().map_err(StorageError::read(&path))?;
    let mut reader = Reader { file, offset: 0, length };
    let mut found = [0; HEADER_BYTES];
    if length < HEADER_BYTES as u64 {
        return Err(StorageError::damaged(&path, format!("is cut off at {length}")));
    }
    io::Read::read_exact(&mut reader, &mut found).map_err(StorageError::read(&path))?;
    if found != header(segment.id()) {
        return Err(StorageError::damaged(&path, "its header is not the one of this segment's index"));
    }
    let index = FaissIndex::load(&mut reader).map_err(|error| storage_error(&path, error))?;
    if reader.offset != length {
        return Err(StorageError::damaged(&path, format!("goes on behind {}", reader.offset)));
    }
    let (factory, rows) = (index.factory(), segment.rows());
    if (index.rows(), factory.dimension(), factory.metric()) != (rows.len(), rows.dimension(), metric) {
        return Err(StorageError::damaged(&path, "is an index of other rows"));
    }
    Ok(Some(index))
}

fn header(id: SegmentId) -> [u8; HEADER_BYTES] {
    let mut header = [0; HEADER_BYTES];
    header[..8].copy_from_slice(&MAGIC);
    header[8..12].copy_from_slice(&VERSION.to_le_bytes());
    header[12..16].copy_from_slice(&id.0.to_le_bytes());
    let crc = crc32c(&header[..16]);
    header[16..].copy_from_slice(&crc.to_le_bytes());
    header
}

/// An error of the disk stays one; every other says that the file is not what it should be.
fn storage_error(path: &Path, error: FaissError) -> StorageError {
    match error {
        FaissError::Write(source) => StorageError::write(path)(source),
        FaissError::Read(source) => StorageError::read(path)(source),
        other => StorageError::damaged(path, other.to_string()),
    }
}

struct Writer {
    file: Box<dyn DiskFile>,
    bytes: u64,
}

impl io::Write for Writer {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.append(bytes)?;
        self.bytes += bytes.len() as u64;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

struct Reader {
    file: Box<dyn DiskReader>,
    offset: u64,
    length: u64,
}

impl io::Read for Reader {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let count = into.len().min(usize::try_from(self.length - self.offset).unwrap_or(usize::MAX));
        self.file.read_exact_at(&mut into[..count], self.offset)?;
        self.offset += count as u64;
        Ok(count)
    }
}
