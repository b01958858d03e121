//! The log of one replica: what was written is durable before it is acknowledged, and read back exactly.
//!
//! # Files
//! `<number, 16 hex digits>.log`, in ascending order. A segment gets its name when its header (and what recovery puts
//! behind it) is durable, and is made only when everything in the segment before it is durable.
//!
//! | offset | bytes | segment header |
//! |--:|--:|---|
//! | 0 | 8 | magic `VSLOG\r\n\0` |
//! | 8 | 4 | format version, 1 |
//! | 12 | 16 | replica id |
//! | 28 | 8 | segment number |
//! | 36 | 8 | position of its first record; the segment before is void from there on |
//! | 44 | 8 | epoch in which it was begun |
//! | 52 | 8 | random seed |
//! | 60 | 4 | CRC-32C of the 60 bytes before |
//!
//! Records follow without gaps, all numbers little-endian:
//!
//! | offset | bytes | record |
//! |--:|--:|---|
//! | 0 | 4 | length of the body, at most 16 MiB |
//! | 4 | 1 | kind: 1 upsert, 2 delete, 3 set metadata, 4 epoch start, 7 no-op; 5 and 6 are reserved |
//! | 5 | 1 | flags: 1 end of a batch, 2 all before it was durable when it was written (first record of a group) |
//! | 6 | 8 | epoch |
//! | 14 | 8 | position (LSN), dense |
//! | 22 | 4 | header CRC-32C over: CRC of the record before (its body CRC; for the first the CRC of the 64 header bytes), seed, the 22 bytes before |
//! | 26 | 4 | body CRC-32C: the header CRC continued over seed, operation id, digest and body |
//! | 30 | 16 | operation id |
//! | 46 | 8 | digest of the request |
//! | 54 | | body |
//!
//! # Torn or damaged
//! Records are written in groups: write, sync, and only then the next group. So when a record does not fit its
//! checksums, it was torn by a crash if it belongs to the last group, and damaged otherwise. It does not belong to the
//! last group when it is at or below the *durable mark*: the largest position known from `replica.meta`, from a later
//! segment's header, or from a later record with flag 2. Damaged logs are refused and left as they are.
//!
//! # Recovery
//! cuts the torn tail and an open batch by beginning a new segment behind the last whole batch. Records that are not
//! proven durable are written again into that segment: what an earlier process could not sync can sit in the kernel's
//! cache, readable and lost.
//!
//! # Failures
//! After a failed write or sync the log is poisoned: it takes nothing more until it is recovered from the disk.

mod record;
mod recovery;
mod segment;

use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;

use self::record::{Chain, HEADER_BYTES};
use self::segment::{SEGMENT_HEADER_BYTES, SegmentHeader};
use super::StorageError;
use super::op_window::OpKey;
use crate::ids::{Epoch, Lsn, ReplicaId};
use crate::runtime::disk::{Disk, DiskFile};

pub use self::record::{BODY_BYTES_MAX, Record, RecordKind};
pub use self::recovery::{Recovered, RecoveryPoint};

/// A segment that has this many bytes gets a successor before the next group.
const SEGMENT_BYTES: u64 = 64 << 20;

/// Where a log lies and whose it is.
#[derive(Clone)]
pub struct LogPlace {
    /// The disk.
    pub disk: Arc<dyn Disk>,
    /// The log's directory, which exists.
    pub directory: PathBuf,
    /// The replica.
    pub replica: ReplicaId,
}

/// The log of one replica, open for appending. One owner.
///
/// `durable ≤ end`; they differ between [`Log::append`] and [`Log::sync`].
pub struct Log {
    place: LogPlace,
    /// Ascending, at least one; the last one is written to.
    segments: VecDeque<Segment>,
    file: Box<dyn DiskFile>,
    chain: Chain,
    /// Encoded records of the group that is not written yet.
    group: Vec<u8>,
    end: Lsn,
    durable: Lsn,
    poisoned: bool,
}

/// A segment as the open log knows it.
#[derive(Clone, Copy, Debug)]
struct Segment {
    number: u64,
    first: Lsn,
    bytes: u64,
}

impl Log {
    /// Begins an empty log in an empty directory.
    pub fn create(place: LogPlace) -> Result<Log, StorageError> {
        Log::begin_segment(place, 1, Lsn::ZERO, Epoch::default(), &[], VecDeque::new())
    }

    /// Adds one batch, `1..` records that apply together or not at all, to the group that the next [`Log::sync`]
    /// writes. Returns the position of its last record.
    ///
    /// An error other than [`StorageError::RecordTooLarge`] poisons the log.
    pub fn append(
        &mut self,
        epoch: Epoch,
        op: OpKey,
        effects: Vec<(RecordKind, Bytes)>,
    ) -> Result<Lsn, StorageError> {
        assert!(!effects.is_empty(), "a batch has records");
        self.check_poison()?;
        if let Some((_, body)) = effects.iter().find(|(_, body)| body.len() > BODY_BYTES_MAX) {
            return Err(StorageError::RecordTooLarge { bytes: body.len(), max: BODY_BYTES_MAX });
        }
        if self.group.is_empty() && self.last_segment().bytes >= SEGMENT_BYTES {
            self.rotate(epoch)?;
        }
        let last = effects.len() - 1;
        for (index, (kind, body)) in effects.into_iter().enumerate() {
            let lsn = self.end.next();
            let record = Record { kind, batch_end: index == last, epoch, lsn, op, body };
            self.chain = record.encode(self.chain, self.group.is_empty(), &mut self.group);
            self.end = lsn;
        }
        Ok(self.end)
    }

    /// Writes the group and makes it durable: everything up to [`Log::end`] is then on disk.
    ///
    /// After an error it is unknown which records of the group a later recovery finds.
    pub fn sync(&mut self) -> Result<(), StorageError> {
        self.check_poison()?;
        if self.group.is_empty() {
            return Ok(());
        }
        let path = segment::path_of(&self.place.directory, self.last_segment().number);
        let outcome = self
            .file
            .append(&self.group)
            .map_err(StorageError::write(&path))
            .and_then(|()| self.file.sync().map_err(StorageError::sync(&path)));
        if let Err(error) = outcome {
            self.poisoned = true;
            return Err(error);
        }
        let written = self.group.len() as u64;
        self.segments.back_mut().expect("a log has a segment").bytes += written;
        self.durable = self.end;
        self.group.clear();
        Ok(())
    }

    /// Begins a new segment, so that the ones before it can go once they are not needed. The group must be synced.
    pub fn rotate(&mut self, epoch: Epoch) -> Result<(), StorageError> {
        self.check_poison()?;
        assert_eq!(self.end, self.durable, "a segment ends with a synced group");
        if self.last_segment().first > self.end {
            return Ok(());
        }
        let number = self.last_segment().number + 1;
        let segments = self.segments.clone();
        match Log::begin_segment(self.place.clone(), number, self.end, epoch, &[], segments) {
            Ok(log) => *self = log,
            Err(error) => {
                self.poisoned = true;
                return Err(error);
            }
        }
        Ok(())
    }

    /// Removes segments whose records all lie at or before `lsn`.
    pub fn release(&mut self, lsn: Lsn) -> Result<(), StorageError> {
        let mut removed = false;
        while self.segments.len() > 1 && self.segments[1].first <= lsn.next() {
            let path = segment::path_of(&self.place.directory, self.segments[0].number);
            self.place.disk.remove(&path).map_err(StorageError::write(&path))?;
            self.segments.pop_front();
            removed = true;
        }
        if removed {
            let directory = &self.place.directory;
            self.place.disk.sync_dir(directory).map_err(StorageError::sync(directory))?;
        }
        Ok(())
    }

    /// Position of the last record.
    pub fn end(&self) -> Lsn {
        self.end
    }

    /// Position of the last durable record.
    pub fn durable(&self) -> Lsn {
        self.durable
    }

    /// Bytes of all segments.
    pub fn bytes(&self) -> u64 {
        self.segments.iter().map(|segment| segment.bytes).sum()
    }

    /// True after a failed write or sync.
    pub fn is_poisoned(&self) -> bool {
        self.poisoned
    }

    /// Takes nothing more: a file beside the log failed, and what counts is known only after opening again.
    pub fn poison(&mut self) {
        self.poisoned = true;
    }

    fn last_segment(&self) -> Segment {
        *self.segments.back().expect("a log has a segment")
    }

    fn check_poison(&self) -> Result<(), StorageError> {
        if self.poisoned { Err(StorageError::Poisoned { end: self.durable }) } else { Ok(()) }
    }

    /// Makes the segment behind `before`, with `tail` as its first group, and a log that appends to it.
    fn begin_segment(
        place: LogPlace,
        number: u64,
        before: Lsn,
        epoch: Epoch,
        tail: &[Record],
        mut segments: VecDeque<Segment>,
    ) -> Result<Log, StorageError> {
        let header = SegmentHeader {
            replica: place.replica,
            number,
            first: before.next(),
            epoch,
            seed: rand::random(),
        };
        let mut chain = header.chain();
        let bytes = tail.iter().map(|record| HEADER_BYTES + record.body.len()).sum();
        let mut encoded = Vec::with_capacity(bytes);
        for (index, record) in tail.iter().enumerate() {
            chain = record.encode(chain, index == 0, &mut encoded);
        }
        let file = segment::create(place.disk.as_ref(), &place.directory, &header, &encoded)?;
        let bytes = (SEGMENT_HEADER_BYTES + encoded.len()) as u64;
        segments.push_back(Segment { number, first: header.first, bytes });
        let end = tail.last().map_or(before, |record| record.lsn);
        Ok(Log { place, segments, file, chain, group: Vec::new(), end, durable: end, poisoned: false })
    }
}

#[cfg(test)]
mod tests;
