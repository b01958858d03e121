//! Files of graphs, beside those of the rows that they were built of.
//!
//! `segments/<id, 8 hex digits>.graph`; all numbers little-endian. A graph can be built again from its rows, so nothing
//! names these files and one that is absent or damaged costs time, not truth.
//!
//! | offset | bytes | |
//! |--:|--:|---|
//! | 0 | 8 | magic `VSGRPH\r\n` |
//! | 8 | 4 | format version, 1 |
//! | 12 | 4 | segment id |
//! | 16 | 8 | random seed |
//! | 24 | 104 | head, see [`Graph::head`] |
//! | 128 | 4 | CRC-32C of the 128 bytes before |
//! | 132 | | the sections of [`Graph::sections`], each in pieces of 1 MiB at most |
//!
//! Behind each piece stands a CRC-32C over: seed (8), number of the piece in the file (8), its bytes.

use std::path::{Path, PathBuf};

use crc32c::{crc32c, crc32c_append};
use vectorsphere_index::{Graph, LoadError, Metric};

use super::{SegmentId, SegmentView};
use crate::runtime::disk::{Disk, DiskReader};
use crate::storage::StorageError;

const MAGIC: [u8; 8] = *b"VSGRPH\r\n";
const VERSION: u32 = 1;
const PREFIX_BYTES: usize = 24;
const HEADER_BYTES: usize = PREFIX_BYTES + Graph::HEAD_BYTES + 4;
const PIECE_BYTES: usize = 1 << 20;
/// Ending of their names.
pub(in crate::storage) const EXTENSION: &str = ".graph";

/// Path of a segment's graph in a replica's directory.
pub(in crate::storage) fn path_of(directory: &Path, id: SegmentId) -> PathBuf {
    directory.join("segments").join(format!("{:08x}{EXTENSION}", id.0))
}

/// Writes a graph, durably, in place of what is there.
pub(in crate::storage) fn write(
    disk: &dyn Disk,
    directory: &Path,
    id: SegmentId,
    graph: &Graph,
) -> Result<u64, StorageError> {
    let path = path_of(directory, id);
    let temporary = path.with_extension("graph.tmp");
    // What a crash left; nobody else writes it.
    let _: std::io::Result<()> = disk.remove(&temporary);
    let mut file = disk.create(&temporary).map_err(StorageError::write(&temporary))?;
    let seed: u64 = rand::random();
    let mut header = Vec::with_capacity(HEADER_BYTES);
    header.extend_from_slice(&MAGIC);
    header.extend_from_slice(&VERSION.to_le_bytes());
    header.extend_from_slice(&id.0.to_le_bytes());
    header.extend_from_slice(&seed.to_le_bytes());
    header.extend_from_slice(&graph.head());
    header.extend_from_slice(&crc32c(&header).to_le_bytes());
    let (mut bytes, mut pieces) = (header.len() as u64, 0u64);
    file.append(&header).map_err(StorageError::write(&temporary))?;
    graph.sections(|section| {
        for piece in section.chunks(PIECE_BYTES) {
            file.append(piece).map_err(StorageError::write(&temporary))?;
            let crc = crc_of(seed, pieces, piece).to_le_bytes();
            file.append(&crc).map_err(StorageError::write(&temporary))?;
            bytes += (piece.len() + crc.len()) as u64;
            pieces += 1;
        }
        Ok(())
    })?;
    file.sync().map_err(StorageError::sync(&temporary))?;
    disk.rename(&temporary, &path).map_err(StorageError::write(&path))?;
    let folder = directory.join("segments");
    disk.sync_dir(&folder).map_err(StorageError::sync(&folder))?;
    Ok(bytes)
}

/// Reads the graph of a segment and checks every byte of it. `None` when there is no file.
///
/// # Errors
/// [`StorageError::Damaged`] when it is cut off or changed, was written by another version, or does not fit the rows.
pub(in crate::storage) fn read(
    disk: &dyn Disk,
    directory: &Path,
    segment: &SegmentView,
    metric: Metric,
) -> Result<Option<Graph>, StorageError> {
    let path = path_of(directory, segment.id());
    let reader = match disk.open(&path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        reader => reader.map_err(StorageError::read(&path))?,
    };
    let length = reader.len().map_err(StorageError::read(&path))?;
    let mut reader = Reader { reader, path: &path, offset: 0, length, seed: 0, pieces: 0 };
    let head = reader.head(segment.id())?;
    let rows = segment.rows();
    let graph = Graph::load(&head, metric, rows.dimension(), rows.len(), |into| reader.fill(into));
    let graph = graph.map_err(|error| match error {
        LoadError::Read { source, .. } => source,
        unfit => StorageError::damaged(&path, unfit.to_string()),
    })?;
    if reader.offset != length {
        return Err(StorageError::damaged(&path, format!("goes on behind {}", reader.offset)));
    }
    Ok(Some(graph))
}

struct Reader<'p> {
    reader: Box<dyn DiskReader>,
    path: &'p Path,
    offset: u64,
    length: u64,
    seed: u64,
    pieces: u64,
}

impl Reader<'_> {
    fn take(&mut self, into: &mut [u8]) -> Result<(), StorageError> {
        if self.length - self.offset < into.len() as u64 {
            return Err(StorageError::damaged(self.path, format!("is cut off at {}", self.length)));
        }
        self.reader.read_exact_at(into, self.offset).map_err(StorageError::read(self.path))?;
        self.offset += into.len() as u64;
        Ok(())
    }

    fn head(&mut self, id: SegmentId) -> Result<Vec<u8>, StorageError> {
        let mut header = [0; HEADER_BYTES];
        self.take(&mut header)?;
        let (covered, crc) = header.split_at(HEADER_BYTES - 4);
        if covered[..8] != MAGIC || crc32c(covered).to_le_bytes() != *crc {
            return Err(StorageError::damaged(self.path, "its header is not one of a graph"));
        }
        let number =
            |at: usize| u32::from_le_bytes([covered[at], covered[at + 1], covered[at + 2], covered[at + 3]]);
        if (number(8), number(12)) != (VERSION, id.0) {
            let reason = format!("is version {} of segment {}", number(8), number(12));
            return Err(StorageError::damaged(self.path, reason));
        }
        self.seed = u64::from(number(16)) | u64::from(number(20)) << 32;
        Ok(covered[PREFIX_BYTES..].to_vec())
    }

    fn fill(&mut self, into: &mut [u8]) -> Result<(), StorageError> {
        for piece in into.chunks_mut(PIECE_BYTES) {
            let at = self.offset;
            self.take(piece)?;
            let mut crc = [0; 4];
            self.take(&mut crc)?;
            if crc_of(self.seed, self.pieces, piece).to_le_bytes() != crc {
                return Err(StorageError::damaged(self.path, format!("a checksum does not fit at {at}")));
            }
            self.pieces += 1;
        }
        Ok(())
    }
}

fn crc_of(seed: u64, number: u64, piece: &[u8]) -> u32 {
    let crc = crc32c_append(crc32c(&seed.to_le_bytes()), &number.to_le_bytes());
    crc32c_append(crc, piece)
}
