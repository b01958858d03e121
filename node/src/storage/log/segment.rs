//! One file of the log.

use std::io;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use crc32c::crc32c;

use super::record::Chain;
use crate::ids::{Epoch, Lsn, ReplicaId};
use crate::runtime::disk::{Disk, DiskFile, DiskReader};
use crate::storage::StorageError;

/// Bytes of a segment before its first record.
pub(super) const SEGMENT_HEADER_BYTES: usize = 64;

const MAGIC: [u8; 8] = *b"VSLOG\r\n\0";
const VERSION: u32 = 1;
/// No log has so many segments.
const NUMBER_LIMIT: u64 = 1 << 62;

/// The first 64 bytes of a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct SegmentHeader {
    pub(super) replica: ReplicaId,
    /// Counts up by one from segment to segment.
    pub(super) number: u64,
    /// Position of the first record. What the segment before says about this position and later ones is void.
    pub(super) first: Lsn,
    /// Reign of the record before the first one.
    pub(super) epoch: Epoch,
    /// Random: makes bytes of other segments invalid here.
    pub(super) seed: u64,
}

impl SegmentHeader {
    /// Of a new segment.
    pub(super) fn new(replica: ReplicaId, number: u64, first: Lsn, epoch: Epoch) -> SegmentHeader {
        SegmentHeader { replica, number, first, epoch, seed: rand::random() }
    }

    fn encode(&self) -> [u8; SEGMENT_HEADER_BYTES] {
        let mut bytes = Vec::with_capacity(SEGMENT_HEADER_BYTES);
        bytes.extend_from_slice(&MAGIC);
        bytes.extend_from_slice(&VERSION.to_le_bytes());
        bytes.extend_from_slice(&self.replica.0);
        for number in [self.number, self.first.0, self.epoch.0, self.seed] {
            bytes.extend_from_slice(&number.to_le_bytes());
        }
        bytes.extend_from_slice(&crc32c(&bytes).to_le_bytes());
        bytes.try_into().expect("64 bytes")
    }

    pub(super) fn decode(path: &Path, bytes: &[u8]) -> Result<SegmentHeader, StorageError> {
        let damaged = |reason: &str| StorageError::damaged(path, reason);
        let bytes: &[u8; SEGMENT_HEADER_BYTES] =
            bytes.first_chunk().ok_or_else(|| damaged("header is cut off"))?;
        let crc = u32::from_le_bytes(bytes[60..].try_into().expect("four bytes"));
        if bytes[..8] != MAGIC || crc != crc32c(&bytes[..60]) {
            return Err(damaged("header checksum does not fit"));
        }
        let version = u32::from_le_bytes(bytes[8..12].try_into().expect("four bytes"));
        if version != VERSION {
            let reason = format!("log format {version}, known is {VERSION}");
            return Err(StorageError::Newer { path: path.to_path_buf(), reason });
        }
        let u64_at = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"));
        let header = SegmentHeader {
            replica: ReplicaId(bytes[12..28].try_into().expect("sixteen bytes")),
            number: u64_at(28),
            first: Lsn(u64_at(36)),
            epoch: Epoch(u64_at(44)),
            seed: u64_at(52),
        };
        // There is a position before the first record, and a number for the next segment.
        if header.first == Lsn::ZERO || header.first > Lsn::LIMIT || header.number > NUMBER_LIMIT {
            return Err(damaged("header names an impossible position or number"));
        }
        Ok(header)
    }

    /// Reads the header of an open segment.
    pub(super) fn read(path: &Path, reader: &dyn DiskReader) -> Result<SegmentHeader, StorageError> {
        let mut bytes = [0; SEGMENT_HEADER_BYTES];
        reader.read_exact_at(&mut bytes, 0).map_err(read_error(path))?;
        SegmentHeader::decode(path, &bytes)
    }

    /// That it is the header of segment `number`, whose name the file has.
    pub(super) fn check_number(&self, path: &Path, number: u64) -> Result<(), StorageError> {
        if self.number == number {
            return Ok(());
        }
        Err(StorageError::damaged(path, format!("holds segment {}", self.number)))
    }

    /// What the first record's checksum starts from.
    pub(super) fn chain(&self) -> Chain {
        Chain { seed: self.seed, previous: crc32c(&self.encode()) }
    }
}

/// Path of a segment in the log's directory.
pub(super) fn path_of(directory: &Path, number: u64) -> PathBuf {
    directory.join(format!("{number:016x}.log"))
}

/// Number of a segment's file name.
pub(super) fn number_of(name: &str) -> Option<u64> {
    let digits = name.strip_suffix(".log").filter(|digits| digits.len() == 16)?;
    u64::from_str_radix(digits, 16).ok()
}

/// Numbers of all segments in a directory, ascending. Drafts of segments that were never named are removed.
pub(super) fn list(disk: &dyn Disk, directory: &Path) -> Result<Vec<u64>, StorageError> {
    let names = disk.list(directory).map_err(StorageError::read(directory))?;
    for draft in names.iter().filter(|name| name.ends_with(".tmp")) {
        let path = directory.join(draft);
        disk.remove(&path).map_err(StorageError::write(&path))?;
    }
    Ok(names.iter().filter_map(|name| number_of(name)).collect())
}

/// Reads a segment: its header and all its bytes.
pub(super) fn read(
    disk: &dyn Disk,
    directory: &Path,
    number: u64,
) -> Result<(SegmentHeader, Bytes), StorageError> {
    let path = path_of(directory, number);
    let bytes = disk.read(&path).map_err(read_error(&path))?;
    let header = SegmentHeader::decode(&path, &bytes)?;
    header.check_number(&path, number)?;
    Ok((header, bytes.into()))
}

/// What a failed read of a segment that must be there says.
pub(super) fn read_error(path: &Path) -> impl FnOnce(io::Error) -> StorageError {
    |error| match error.kind() {
        io::ErrorKind::NotFound => StorageError::damaged(path, "is missing"),
        io::ErrorKind::UnexpectedEof => StorageError::damaged(path, "is cut off"),
        _ => StorageError::read(path)(error),
    }
}

/// A segment that is being made. It gets its name when all of it is durable, so that there is never a half-made one.
pub(super) struct Draft<'d> {
    disk: &'d dyn Disk,
    directory: &'d Path,
    draft: PathBuf,
    path: PathBuf,
    file: Box<dyn DiskFile>,
}

impl<'d> Draft<'d> {
    /// Begins a segment with its header.
    pub(super) fn begin(
        disk: &'d dyn Disk,
        directory: &'d Path,
        header: &SegmentHeader,
    ) -> Result<Draft<'d>, StorageError> {
        let path = path_of(directory, header.number);
        let draft = path.with_extension("tmp");
        match disk.remove(&draft) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(StorageError::write(&draft)(error));
            }
            _ => {}
        }
        let file = disk.create(&draft).map_err(StorageError::write(&draft))?;
        let mut segment = Draft { disk, directory, draft, path, file };
        segment.append(&header.encode())?;
        Ok(segment)
    }

    /// Adds records, encoded with the header's chain.
    pub(super) fn append(&mut self, records: &[u8]) -> Result<(), StorageError> {
        if records.is_empty() {
            return Ok(());
        }
        self.file.append(records).map_err(StorageError::write(&self.draft))
    }

    /// Lets the segment count, durably.
    pub(super) fn finish(mut self) -> Result<Box<dyn DiskFile>, StorageError> {
        self.file.sync().map_err(StorageError::sync(&self.draft))?;
        self.disk.rename(&self.draft, &self.path).map_err(StorageError::write(&self.path))?;
        self.disk.sync_dir(self.directory).map_err(StorageError::sync(self.directory))?;
        Ok(self.file)
    }
}
