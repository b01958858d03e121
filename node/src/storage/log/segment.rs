//! One file of the log.

use std::io;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use crc32c::crc32c;

use super::record::Chain;
use crate::ids::{Epoch, Lsn, ReplicaId};
use crate::runtime::disk::{Disk, DiskFile};
use crate::storage::StorageError;

/// Bytes of a segment before its first record.
pub(super) const SEGMENT_HEADER_BYTES: usize = 64;

const MAGIC: [u8; 8] = *b"VSLOG\r\n\0";
const VERSION: u32 = 1;

/// The first 64 bytes of a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct SegmentHeader {
    pub(super) replica: ReplicaId,
    /// Counts up by one from segment to segment.
    pub(super) number: u64,
    /// Position of the first record. What the segment before says about this position and later ones is void.
    pub(super) first: Lsn,
    /// Reign in which the segment was begun.
    pub(super) epoch: Epoch,
    /// Random: makes bytes of other segments invalid here.
    pub(super) seed: u64,
}

impl SegmentHeader {
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
        Ok(SegmentHeader {
            replica: ReplicaId(bytes[12..28].try_into().expect("sixteen bytes")),
            number: u64_at(28),
            first: Lsn(u64_at(36)),
            epoch: Epoch(u64_at(44)),
            seed: u64_at(52),
        })
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

/// Makes a segment that begins with `records` (encoded with the header's chain). It gets its name when all of it is
/// durable, so that there is never a half-made segment.
pub(super) fn create(
    disk: &dyn Disk,
    directory: &Path,
    header: &SegmentHeader,
    records: &[u8],
) -> Result<Box<dyn DiskFile>, StorageError> {
    let path = path_of(directory, header.number);
    let draft = path.with_extension("tmp");
    match disk.remove(&draft) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            return Err(StorageError::write(&draft)(error));
        }
        _ => {}
    }
    let mut file = disk.create(&draft).map_err(StorageError::write(&draft))?;
    file.append(&header.encode()).map_err(StorageError::write(&draft))?;
    if !records.is_empty() {
        file.append(records).map_err(StorageError::write(&draft))?;
    }
    file.sync().map_err(StorageError::sync(&draft))?;
    disk.rename(&draft, &path).map_err(StorageError::write(&path))?;
    disk.sync_dir(directory).map_err(StorageError::sync(directory))?;
    Ok(file)
}

/// Reads a segment: its header and all its bytes.
pub(super) fn read(
    disk: &dyn Disk,
    directory: &Path,
    number: u64,
) -> Result<(SegmentHeader, Bytes), StorageError> {
    let path = path_of(directory, number);
    let bytes = disk.read(&path).map_err(StorageError::read(&path))?;
    let header = SegmentHeader::decode(&path, &bytes)?;
    if header.number != number {
        return Err(StorageError::damaged(&path, format!("holds segment {}", header.number)));
    }
    Ok((header, bytes.into()))
}
