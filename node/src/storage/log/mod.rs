//! The log of one replica: what was written is durable before it is acknowledged, and read back exactly.
//!
//! # Files
//! `<number, 16 hex digits>.log`, in ascending order. A segment gets its name when its header (and what recovery puts
//! behind it) is durable, and is made only when everything in the segment before it is durable, or cut. A segment is void
//! from the first position of any later segment on.
//!
//! | offset | bytes | segment header |
//! |--:|--:|---|
//! | 0 | 8 | magic `VSLOG\r\n\0` |
//! | 8 | 4 | format version, 1 |
//! | 12 | 16 | replica id |
//! | 28 | 8 | segment number |
//! | 36 | 8 | position of its first record |
//! | 44 | 8 | epoch of the record before it |
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
//! # Batches
//! Records that apply together end with the one that has flag 1. Files hold whole batches: records of a batch that has not
//! ended wait in memory. An epoch start ends an open batch, too: its records are *void* and never apply.
//!
//! Behind the records of a segment may be zeros, which later groups would have gone over: no record begins with them, as its
//! checksums would not fit.
//!
//! # Torn or damaged
//! Records are written in groups: write, sync, and only then the next group. So when a record does not fit its
//! checksums, it was torn by a crash if it belongs to the last group, and damaged otherwise. It does not belong to the
//! last group when it is at or below the *durable mark*: the largest position known from `replica.meta`, from a later
//! segment's header, or from a later record with flag 2. Damaged logs are refused and left as they are.
//!
//! # Recovery
//! cuts the torn tail by beginning a new segment behind the last whole batch. Records that are not proven durable are
//! written again into that segment: what an earlier process could not sync can sit in the kernel's cache, readable and
//! lost.
//!
//! # Cuts
//! When another replica's log is the truth, records behind a position go: a new segment begins there, which makes the
//! others void from it on, and what is void as a whole is removed. The new segment's name is the moment at which the cut
//! counts. The durable mark of `replica.meta` must have been lowered before.
//!
//! # Failures
//! After a failed write or sync the log is poisoned: it takes nothing more until it is recovered from the disk.

mod extent;
mod orphans;
mod reader;
mod record;
mod recovery;
mod segment;

use std::collections::VecDeque;
use std::io::ErrorKind;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use self::extent::{Extent, Segment, SharedExtent};
use self::record::Chain;
use self::segment::{Draft, SEGMENT_HEADER_BYTES, SegmentHeader};
use super::StorageError;
use crate::ids::{Epoch, Lsn, ReplicaId};
use crate::runtime::disk::{Disk, DiskFile};

pub use self::reader::{LogRead, LogReader};
pub use self::record::{BODY_BYTES_MAX, Record, RecordKind};
pub use self::recovery::{RecoveryPoint, Scanned};

/// A segment that has this many bytes gets a successor before the next group.
const SEGMENT_BYTES: u64 = 64 << 20;

/// Bytes that the last segment has behind its records, for the groups to come: as many as are before them, within these
/// bounds. Then most syncs write a group and nothing of the file system's.
const RESERVED_BYTES: RangeInclusive<u64> = 16 << 10..=256 << 10;

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

/// The log of one replica, open for appending. One owner; [`LogReader`]s read beside.
///
/// `durable ≤ end`: what lies between waits in memory for [`Log::sync`].
pub struct Log {
    place: LogPlace,
    extent: SharedExtent,
    file: Box<dyn DiskFile>,
    /// Bytes of the last segment's file, records or not.
    reserved: u64,
    chain: Chain,
    /// Reign of the last durable record.
    epoch: Epoch,
    /// Records behind the durable ones, dense.
    group: Vec<Record>,
    poisoned: bool,
}

impl Log {
    /// Begins an empty log behind position `before`, which reign `epoch` wrote, in an empty directory.
    pub fn create(place: LogPlace, before: Lsn, epoch: Epoch) -> Result<Log, StorageError> {
        let extent = Extent { segments: VecDeque::new(), durable: before, cuts: 0 };
        Log::begin(place, extent, 1, epoch, &[])
    }

    /// Adds records to the group that the next [`Log::sync`] writes. They follow [`Log::end`] without a gap, and their
    /// epochs do not fall.
    ///
    /// # Errors
    /// [`StorageError::Poisoned`]: nothing was added.
    pub fn append(&mut self, records: impl IntoIterator<Item = Record>) -> Result<(), StorageError> {
        self.check_poison()?;
        for record in records {
            assert_eq!(record.lsn, self.end().next(), "records are dense");
            assert!(record.epoch >= self.epoch(), "epochs do not fall");
            assert!(record.body.len() <= BODY_BYTES_MAX, "bodies are bounded");
            self.group.push(record);
        }
        Ok(())
    }

    /// Writes the whole batches of the group and makes them durable. Records of a batch that has not ended stay behind.
    ///
    /// After an error it is unknown which records of the group a later recovery finds.
    pub fn sync(&mut self) -> Result<(), StorageError> {
        self.check_poison()?;
        let Some(last) = self.group.iter().rposition(|record| record.batch_end) else { return Ok(()) };
        if self.extent.lock().last_segment().bytes >= SEGMENT_BYTES {
            self.rotate()?;
        }
        let whole = &self.group[..=last];
        let (bytes, chain) = encode(whole, self.chain);
        let (durable, epoch) = (whole[last].lsn, whole[last].epoch);
        if let Err(error) = self.write_and_sync(&bytes) {
            self.poisoned = true;
            return Err(error);
        }
        let mut extent = self.extent.lock();
        extent.segments.back_mut().expect("an open log has a segment").bytes += bytes.len() as u64;
        extent.durable = durable;
        drop(extent);
        (self.chain, self.epoch) = (chain, epoch);
        self.group.drain(..=last);
        Ok(())
    }

    fn write_and_sync(&mut self, group: &[u8]) -> Result<(), StorageError> {
        let segment = self.extent.lock().last_segment();
        let path = segment::path_of(&self.place.directory, segment.number);
        self.file.append(group).map_err(StorageError::write(&path))?;
        let end = segment.bytes + group.len() as u64;
        if end > self.reserved {
            let ahead = end.clamp(*RESERVED_BYTES.start(), *RESERVED_BYTES.end());
            // Where there is no room for zeros there may be for records.
            self.reserved = end + self.file.reserve(ahead).map_or(0, |()| ahead);
        }
        self.file.sync().map_err(StorageError::sync(&path))
    }

    /// Begins a new segment behind the durable records, so that the ones before it can go once they are not needed.
    pub fn rotate(&mut self) -> Result<(), StorageError> {
        self.check_poison()?;
        let last = self.extent.lock().last_segment();
        let durable = self.durable();
        if last.first > durable {
            return Ok(());
        }
        let segment = self.begin_segment(last.number + 1, durable, self.epoch)?;
        self.extent.lock().segments.push_back(segment);
        Ok(())
    }

    /// Removes every record behind `to`, which is the end of a batch and was written in reign `epoch`. Durable on return;
    /// a crash leaves the log before or after it.
    ///
    /// The caller has lowered the durable mark of `replica.meta`. An error poisons the log.
    pub fn cut(&mut self, to: Lsn, epoch: Epoch) -> Result<(), StorageError> {
        self.check_poison()?;
        self.group.retain(|record| record.lsn <= to);
        if to >= self.durable() {
            return Ok(());
        }
        assert!(to.next() >= self.first(), "records before the first one are not known");
        let number = self.extent.lock().last_segment().number + 1;
        let segment = self.begin_segment(number, to, epoch)?;
        let mut extent = self.extent.lock();
        let kept = extent.segments.partition_point(|segment| segment.first <= to);
        let void: Vec<u64> = extent.segments.drain(kept..).map(|segment| segment.number).collect();
        extent.segments.push_back(segment);
        extent.durable = to;
        extent.cuts += 1;
        drop(extent);
        // A void segment that outlived the one that makes it void would count again.
        let removed = remove_segments(&self.place, &void);
        self.poisoned = removed.is_err();
        removed
    }

    /// The records `first..=last`, durable or not.
    pub fn records(&self, first: Lsn, last: Lsn) -> Result<Vec<Record>, StorageError> {
        let (mut records, mut reader) = (Vec::new(), self.reader());
        let durable = last.min(self.durable());
        let mut next = first;
        while next <= durable {
            let LogRead::Records(read) = reader.read(next, 1 << 20)? else { break };
            next = read.last().expect("it is durable").lsn.next();
            records.extend(read.into_iter().filter(|record| record.lsn <= durable));
        }
        let waits = |record: &&Record| (first..=last).contains(&record.lsn);
        records.extend(self.group.iter().filter(waits).cloned());
        Ok(records)
    }

    /// Keeps a copy of the durable records behind `to`, which reign `epoch` wrote, as a segment file in `directory`. Of
    /// several copies the oldest go.
    pub fn copy_orphans(&self, directory: &Path, to: Lsn, epoch: Epoch) -> Result<(), StorageError> {
        orphans::copy(&self.place, self.reader(), directory, to, epoch)
    }

    /// Removes segments whose records all lie at or before `wanted`; and, while the log has more than `bytes_max` bytes,
    /// those whose records lie at or before `possible`.
    pub fn release(&mut self, wanted: Lsn, possible: Lsn, bytes_max: u64) -> Result<(), StorageError> {
        let mut removed = false;
        loop {
            let released = self.extent.lock().pop_released(wanted, possible, bytes_max);
            let Some(segment) = released else { break };
            // In order: a gap would be taken for damage.
            if let Err(error) = remove_segment(&self.place, segment.number) {
                self.extent.lock().segments.push_front(segment);
                return Err(error);
            }
            removed = true;
        }
        if removed { sync_names(&self.place) } else { Ok(()) }
    }

    /// Reads beside the owner, on any thread.
    pub fn reader(&self) -> LogReader {
        LogReader::new(self.place.clone(), self.extent.clone())
    }

    /// Position of the first record that is there; of the next one when there is none.
    pub fn first(&self) -> Lsn {
        self.extent.lock().segments.front().expect("an open log has a segment").first
    }

    /// Position of the last record.
    pub fn end(&self) -> Lsn {
        self.group.last().map_or_else(|| self.durable(), |record| record.lsn)
    }

    /// Reign of the last record; of the position before the first one when there is none.
    pub fn epoch(&self) -> Epoch {
        self.group.last().map_or(self.epoch, |record| record.epoch)
    }

    /// Position of the last durable record, which ends a batch.
    pub fn durable(&self) -> Lsn {
        self.extent.lock().durable
    }

    /// Bytes of all segments.
    pub fn bytes(&self) -> u64 {
        self.extent.lock().bytes()
    }

    /// Bytes of the durable records behind `lsn`, about.
    pub fn bytes_behind(&self, lsn: Lsn) -> u64 {
        self.extent.lock().bytes_behind(lsn)
    }

    /// True after a failed write or sync.
    pub fn is_poisoned(&self) -> bool {
        self.poisoned
    }

    /// Takes nothing more: a file beside the log failed, and what counts is known only after opening again.
    pub fn poison(&mut self) {
        self.poisoned = true;
    }

    /// # Errors
    /// [`StorageError::Poisoned`] after a failed write or sync.
    pub fn check_poison(&self) -> Result<(), StorageError> {
        if self.poisoned { Err(StorageError::Poisoned { end: self.durable() }) } else { Ok(()) }
    }

    /// Makes segment `number` with `tail` as its first group, and a log that appends to it. `extent` is what stays
    /// before it.
    fn begin(
        place: LogPlace,
        mut extent: Extent,
        number: u64,
        epoch: Epoch,
        tail: &[Record],
    ) -> Result<Log, StorageError> {
        let header = SegmentHeader::new(place.replica, number, extent.durable.next(), epoch);
        let (encoded, chain) = encode(tail, header.chain());
        let mut draft = Draft::begin(place.disk.as_ref(), &place.directory, &header)?;
        draft.append(&encoded)?;
        let file = draft.finish()?;
        let bytes = (SEGMENT_HEADER_BYTES + encoded.len()) as u64;
        extent.segments.push_back(Segment { number, first: header.first, bytes });
        let mut last_epoch = epoch;
        if let Some(last) = tail.last() {
            (extent.durable, last_epoch) = (last.lsn, last.epoch);
        }
        let extent = SharedExtent::new(extent);
        let group = Vec::new();
        Ok(Log { place, extent, file, reserved: bytes, chain, epoch: last_epoch, group, poisoned: false })
    }

    /// Makes an empty segment behind position `before` of reign `epoch`, and appends to it from now on. An error poisons
    /// the log: it is unknown whether the segment has its name.
    fn begin_segment(&mut self, number: u64, before: Lsn, epoch: Epoch) -> Result<Segment, StorageError> {
        let header = SegmentHeader::new(self.place.replica, number, before.next(), epoch);
        let made =
            Draft::begin(self.place.disk.as_ref(), &self.place.directory, &header).and_then(Draft::finish);
        self.poisoned = made.is_err();
        self.file = made?;
        (self.chain, self.epoch) = (header.chain(), epoch);
        self.reserved = SEGMENT_HEADER_BYTES as u64;
        Ok(Segment { number, first: header.first, bytes: self.reserved })
    }
}

impl Drop for Log {
    /// Readers of a log that is closed find nothing: whoever opens it again may change it.
    fn drop(&mut self) {
        self.extent.lock().segments.clear();
    }
}

/// The bytes of a group, and the chain for the next one.
fn encode(records: &[Record], mut chain: Chain) -> (Vec<u8>, Chain) {
    let mut bytes = Vec::with_capacity(records.iter().map(Record::stored_bytes).sum());
    for (index, record) in records.iter().enumerate() {
        chain = record.encode(chain, index == 0, &mut bytes);
    }
    (bytes, chain)
}

/// Removes segments, durably.
fn remove_segments(place: &LogPlace, numbers: &[u64]) -> Result<(), StorageError> {
    if numbers.is_empty() {
        return Ok(());
    }
    numbers.iter().try_for_each(|number| remove_segment(place, *number))?;
    sync_names(place)
}

fn remove_segment(place: &LogPlace, number: u64) -> Result<(), StorageError> {
    let path = segment::path_of(&place.directory, number);
    match place.disk.remove(&path) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(StorageError::write(&path)(error)),
        _ => Ok(()),
    }
}

fn sync_names(place: &LogPlace) -> Result<(), StorageError> {
    place.disk.sync_dir(&place.directory).map_err(StorageError::sync(&place.directory))
}

#[cfg(test)]
mod tests;
