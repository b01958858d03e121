//! [`LogReader`]: reads the durable log on another thread while its owner goes on writing.

use std::path::PathBuf;

use bytes::Bytes;

use super::LogPlace;
use super::extent::{Place, Segment, SharedExtent};
use super::record::{BadRecord, Chain, HEADER_BYTES, Record};
use super::segment::{self, SEGMENT_HEADER_BYTES, SegmentHeader};
use crate::ids::Lsn;
use crate::runtime::disk::DiskReader;
use crate::storage::StorageError;

/// Bytes that are read from the disk at once, at most; a larger record is read whole.
const READ_BYTES_MAX: usize = 1 << 20;
/// And at least: shorter reads cost as much.
const READ_BYTES_MIN: usize = 4 << 10;

/// Reads a log from any position on. Going on where the last read ended is cheap; any other position costs a way through
/// the segment that holds it. A clone has a place of its own.
///
/// After a cut of the log the next read says so, once: what was read before and what will be read are two histories.
pub struct LogReader {
    place: LogPlace,
    extent: SharedExtent,
    /// Cuts of the log that the reader knows of.
    cuts: u64,
    cursor: Option<Cursor>,
}

/// What a reader found.
#[derive(Debug, PartialEq, Eq)]
pub enum LogRead {
    /// Records from the position on that are durable; none when the log ends before it.
    Records(Vec<Record>),
    /// The log does not reach back to the position any more, or is closed; or it was cut since the last read.
    Gone,
}

/// The place behind a record.
struct Cursor {
    segment: u64,
    path: PathBuf,
    file: Box<dyn DiskReader>,
    /// Bytes of the file before the buffer's end.
    offset: u64,
    /// Bytes that were read and not decoded.
    buffer: Bytes,
    chain: Chain,
    next: Lsn,
}

impl Clone for LogReader {
    fn clone(&self) -> LogReader {
        LogReader::new(self.place.clone(), self.extent.clone())
    }
}

impl LogReader {
    pub(super) fn new(place: LogPlace, extent: SharedExtent) -> LogReader {
        let cuts = extent.lock().cuts;
        LogReader { place, extent, cuts, cursor: None }
    }

    /// Reads durable records from `from` on until they have `bytes_max` bytes together, or a file of the log ends; at
    /// least one if there is one.
    ///
    /// # Errors
    /// [`StorageError::Damaged`] when durable records are missing or changed.
    pub fn read(&mut self, from: Lsn, bytes_max: usize) -> Result<LogRead, StorageError> {
        let (segment, last) = match self.find(from) {
            Place::Gone => return Ok(self.gone()),
            Place::Ahead => return Ok(LogRead::Records(Vec::new())),
            Place::In { segment, last } => (segment, last),
        };
        let outcome = self.read_segment(segment, from, last, bytes_max);
        // Files that are cut or released disappear under the reader: whatever it made of them does not count.
        match self.find(from) {
            Place::Gone => Ok(self.gone()),
            Place::Ahead | Place::In { .. } => outcome.map(LogRead::Records),
        }
    }

    fn find(&self, lsn: Lsn) -> Place {
        self.extent.lock().find(lsn, self.cuts)
    }

    fn gone(&mut self) -> LogRead {
        (self.cuts, self.cursor) = (self.extent.lock().cuts, None);
        LogRead::Gone
    }

    fn read_segment(
        &mut self,
        segment: Segment,
        from: Lsn,
        last: Lsn,
        bytes_max: usize,
    ) -> Result<Vec<Record>, StorageError> {
        let mut cursor = match self.cursor.take() {
            Some(cursor) if (cursor.segment, cursor.next) == (segment.number, from) => cursor,
            _ => Cursor::open(&self.place, segment.number)?,
        };
        let read_bytes = bytes_max.clamp(READ_BYTES_MIN, READ_BYTES_MAX);
        let (mut records, mut bytes) = (Vec::new(), 0);
        while cursor.next <= last && bytes < bytes_max.max(1) {
            let record =
                cursor.next(segment.bytes, if cursor.next < from { READ_BYTES_MAX } else { read_bytes })?;
            if record.lsn >= from {
                bytes += HEADER_BYTES + record.body.len();
                records.push(record);
            }
        }
        cursor.put_back();
        self.cursor = Some(cursor);
        Ok(records)
    }
}

impl Cursor {
    /// The place of the first record of a segment.
    fn open(place: &LogPlace, number: u64) -> Result<Cursor, StorageError> {
        let path = segment::path_of(&place.directory, number);
        let file = place.disk.open(&path).map_err(segment::read_error(&path))?;
        let header = SegmentHeader::read(&path, file.as_ref())?;
        let (offset, chain) = (SEGMENT_HEADER_BYTES as u64, header.chain());
        Ok(Cursor { segment: number, path, file, offset, buffer: Bytes::new(), chain, next: header.first })
    }

    /// The next record of a segment of `segment_bytes`. Reads `read_bytes` when the buffer has no whole record.
    fn next(&mut self, segment_bytes: u64, read_bytes: usize) -> Result<Record, StorageError> {
        loop {
            let needed = match Record::decode(&self.buffer, 0, self.chain) {
                Ok(Some(decoded)) if decoded.record.lsn == self.next => {
                    let _ = self.buffer.split_to(decoded.bytes);
                    (self.chain, self.next) = (decoded.chain, self.next.next());
                    return Ok(decoded.record);
                }
                Ok(Some(decoded)) => {
                    return Err(self.damaged(&format!("holds {} in its place", decoded.record.lsn)));
                }
                Ok(None) => HEADER_BYTES,
                Err(BadRecord::CutOff { bytes }) => bytes,
                Err(bad) => return Err(self.damaged(&bad.to_string())),
            };
            if self.offset >= segment_bytes {
                return Err(self.damaged("is missing"));
            }
            self.fill(needed.max(read_bytes), segment_bytes)?;
        }
    }

    /// Reads on until the buffer has `wanted` bytes or the segment ends.
    fn fill(&mut self, wanted: usize, segment_bytes: u64) -> Result<(), StorageError> {
        let rest =
            (segment_bytes - self.offset).min(wanted.saturating_sub(self.buffer.len()) as u64) as usize;
        let mut bytes = vec![0; self.buffer.len() + rest];
        let (old, new) = bytes.split_at_mut(self.buffer.len());
        old.copy_from_slice(&self.buffer);
        self.file.read_exact_at(new, self.offset).map_err(segment::read_error(&self.path))?;
        self.offset += rest as u64;
        self.buffer = bytes.into();
        Ok(())
    }

    /// Keeps the place but no bytes: a reader that waits for more takes no memory.
    fn put_back(&mut self) {
        self.offset -= self.buffer.len() as u64;
        self.buffer = Bytes::new();
    }

    fn damaged(&self, reason: &str) -> StorageError {
        StorageError::damaged(&self.path, format!("record {}: {reason}", self.next))
    }
}
