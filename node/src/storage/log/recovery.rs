//! Opening a log after a stop of any kind.

use std::collections::VecDeque;
use std::io::ErrorKind;

use bytes::Bytes;

use super::record::{self, BadRecord, Record, RecordKind};
use super::segment::{self, SEGMENT_HEADER_BYTES, SegmentHeader};
use super::{Log, LogPlace, Segment};
use crate::ids::{Epoch, Lsn};
use crate::storage::StorageError;

/// What the rest of the replica's state knows about its log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecoveryPoint {
    /// Records up to this position are in segments of rows; replay begins behind it.
    pub checkpoint: Lsn,
    /// Records up to this position were durable: their absence is damage.
    pub durable: Lsn,
}

/// What recovery found.
pub struct Recovered {
    /// The log, ready for appending behind the last whole batch.
    pub log: Log,
    /// Records that were replayed.
    pub records: u64,
    /// Bytes of a torn tail that were cut.
    pub cut_bytes: u64,
    /// Reign of the last record, or of the last segment's beginning.
    pub epoch: Epoch,
}

impl Log {
    /// Reads the log and hands every record behind the checkpoint to `replay`, in order, whole batches only.
    ///
    /// # Errors
    /// [`StorageError::Damaged`] when records are missing or changed that must be there; nothing is changed then.
    pub fn recover(
        place: LogPlace,
        point: RecoveryPoint,
        replay: &mut dyn FnMut(Record) -> Result<(), StorageError>,
    ) -> Result<Recovered, StorageError> {
        let files = list_segments(&place)?;
        let mut scan = Scan::new(&place, point, replay);
        let mut segments: VecDeque<Segment> = VecDeque::new();
        for (index, number) in files.iter().enumerate() {
            let (header, bytes) = segment::read(place.disk.as_ref(), &place.directory, *number)?;
            scan.check_header(&header)?;
            segments.push_back(Segment { number: *number, first: header.first, bytes: bytes.len() as u64 });
            let next = files.get(index + 1).map(|next| read_first(&place, *next)).transpose()?;
            scan.segment(&header, bytes, next)?;
        }
        let Some(last) = segments.back().copied() else {
            return Err(StorageError::damaged(&place.directory, "log has no segment"));
        };
        let Scan { proven, tail, committed, records, cut_bytes, epoch, .. } = scan.finish()?;
        let kept = if tail.is_empty() { committed } else { proven };
        if last.first > kept {
            segments.pop_back();
        }
        let mut log = Log::begin_segment(place.clone(), last.number + 1, kept, epoch, &tail, segments)?;
        if last.first > kept {
            let path = segment::path_of(&place.directory, last.number);
            place.disk.remove(&path).map_err(StorageError::write(&path))?;
            place.disk.sync_dir(&place.directory).map_err(StorageError::sync(&place.directory))?;
        }
        log.release(point.checkpoint)?;
        Ok(Recovered { log, records, cut_bytes, epoch })
    }
}

/// Numbers of all segments, ascending. Gaps are those of emptied segments; a missing one that had records shows by its
/// neighbours' positions. Drafts of segments that were never named are removed.
fn list_segments(place: &LogPlace) -> Result<Vec<u64>, StorageError> {
    let directory = &place.directory;
    let names = place.disk.list(directory).map_err(StorageError::read(directory))?;
    for draft in names.iter().filter(|name| name.ends_with(".tmp")) {
        let path = directory.join(draft);
        place.disk.remove(&path).map_err(StorageError::write(&path))?;
    }
    Ok(names.iter().filter_map(|name| segment::number_of(name)).collect())
}

/// The first position of a segment.
fn read_first(place: &LogPlace, number: u64) -> Result<Lsn, StorageError> {
    let path = segment::path_of(&place.directory, number);
    let reader = place.disk.open(&path).map_err(StorageError::read(&path))?;
    let mut bytes = [0; SEGMENT_HEADER_BYTES];
    reader.read_exact_at(&mut bytes, 0).map_err(|error| match error.kind() {
        ErrorKind::UnexpectedEof => StorageError::damaged(&path, "header is cut off"),
        _ => StorageError::read(&path)(error),
    })?;
    Ok(SegmentHeader::decode(&path, &bytes)?.first)
}

/// The way through all records.
struct Scan<'r> {
    place: &'r LogPlace,
    point: RecoveryPoint,
    replay: &'r mut dyn FnMut(Record) -> Result<(), StorageError>,
    /// Position of the last record that was read; `None` before the first segment.
    last: Option<Lsn>,
    /// Records up to here are on the platter, whatever the kernel's cache says.
    proven: Lsn,
    /// Position of the last batch's end.
    committed: Lsn,
    /// Records of the batch that has not ended.
    open: Vec<Record>,
    /// Whole batches behind `proven`.
    tail: Vec<Record>,
    records: u64,
    cut_bytes: u64,
    epoch: Epoch,
}

impl<'r> Scan<'r> {
    fn new(
        place: &'r LogPlace,
        point: RecoveryPoint,
        replay: &'r mut dyn FnMut(Record) -> Result<(), StorageError>,
    ) -> Scan<'r> {
        Scan {
            place,
            point,
            replay,
            last: None,
            proven: point.durable,
            committed: Lsn::ZERO,
            open: Vec::new(),
            tail: Vec::new(),
            records: 0,
            cut_bytes: 0,
            epoch: Epoch::default(),
        }
    }

    fn check_header(&mut self, header: &SegmentHeader) -> Result<(), StorageError> {
        let path = segment::path_of(&self.place.directory, header.number);
        if header.replica != self.place.replica {
            let reason = format!("belongs to replica {}, not to {}", header.replica, self.place.replica);
            return Err(StorageError::damaged(&path, reason));
        }
        let expected = self.last.map_or(self.point.checkpoint.next(), Lsn::next);
        let fits = if self.last.is_some() { header.first == expected } else { header.first <= expected };
        if !fits {
            let reason =
                format!("begins at {}, but the records from {expected} on are missing", header.first);
            return Err(StorageError::damaged(&path, reason));
        }
        let before = Lsn(header.first.0 - 1);
        if self.last.is_none() {
            self.committed = before;
            self.last = Some(before);
        }
        self.proven = self.proven.max(before);
        self.epoch = header.epoch;
        Ok(())
    }

    /// Reads the records of one segment; those from `next` on are void.
    fn segment(
        &mut self,
        header: &SegmentHeader,
        bytes: Bytes,
        next: Option<Lsn>,
    ) -> Result<(), StorageError> {
        let path = segment::path_of(&self.place.directory, header.number);
        if next.is_some_and(|next| next < header.first) {
            return Err(StorageError::damaged(&path, "a later segment begins before it"));
        }
        let (mut offset, mut chain) = (SEGMENT_HEADER_BYTES, header.chain());
        loop {
            let lsn = self.last.expect("set by check_header").next();
            if next == Some(lsn) {
                return Ok(());
            }
            match Record::decode(&bytes, offset, chain) {
                Ok(Some(decoded)) => {
                    if decoded.record.lsn != lsn {
                        let reason = format!("holds {} in place of {lsn}", decoded.record.lsn);
                        return Err(StorageError::damaged(&path, reason));
                    }
                    if decoded.after_sync {
                        self.proven = self.proven.max(Lsn(lsn.0 - 1));
                    }
                    (offset, chain) = (offset + decoded.bytes, decoded.chain);
                    self.record(decoded.record)?;
                }
                Err(BadRecord::UnknownKind(kind)) => {
                    let reason = format!("record {lsn} is of kind {kind}");
                    return Err(StorageError::Newer { path, reason });
                }
                Err(BadRecord::UnknownFlags(flags)) => {
                    let reason = format!("record {lsn} has flags {flags:#04x}");
                    return Err(StorageError::Newer { path, reason });
                }
                Ok(None) => return self.cut(header, lsn, "is missing", &[], next),
                Err(BadRecord::Invalid(reason)) => {
                    return self.cut(header, lsn, reason, &bytes[offset..], next);
                }
            }
        }
    }

    /// The records end at `lsn`: torn, or damaged?
    fn cut(
        &mut self,
        header: &SegmentHeader,
        lsn: Lsn,
        reason: &str,
        rest: &[u8],
        next: Option<Lsn>,
    ) -> Result<(), StorageError> {
        let proof = if next.is_some() {
            Some("a later segment".to_owned())
        } else if lsn <= self.point.durable {
            Some(format!("the durable mark {}", self.point.durable))
        } else {
            // A group is far smaller than this many records.
            let later = lsn.0 + 1..=lsn.0.saturating_add(1 << 32);
            record::find_written_after_sync(rest, header.seed, later)
                .map(|found| format!("the later record {found}"))
        };
        match proof {
            Some(proof) => {
                let reason = format!("record {lsn}: {reason}, but {proof} proves that it was durable");
                Err(StorageError::damaged(&segment::path_of(&self.place.directory, header.number), reason))
            }
            None => {
                self.cut_bytes += rest.len() as u64;
                Ok(())
            }
        }
    }

    fn record(&mut self, record: Record) -> Result<(), StorageError> {
        self.last = Some(record.lsn);
        self.epoch = record.epoch;
        if record.kind == RecordKind::EpochStart {
            // A batch of an earlier reign that did not end will not end any more.
            self.open.clear();
        }
        let batch_end = record.batch_end;
        self.open.push(record);
        if batch_end {
            self.batch()?;
        }
        Ok(())
    }

    fn batch(&mut self) -> Result<(), StorageError> {
        for record in std::mem::take(&mut self.open) {
            self.committed = record.lsn;
            if record.lsn > self.proven {
                self.tail.push(record.clone());
            }
            if record.lsn > self.point.checkpoint {
                self.records += 1;
                (self.replay)(record)?;
            }
        }
        // A later group proves the earlier ones: only the last one stays to be written again.
        let proven = self.proven;
        if self.tail.first().is_some_and(|record| record.lsn <= proven) {
            self.tail.retain(|record| record.lsn > proven);
        }
        Ok(())
    }

    fn finish(mut self) -> Result<Self, StorageError> {
        let must = self.point.durable.max(self.point.checkpoint);
        if self.last.is_some() && self.committed < must {
            let reason = format!("log ends at {}, but {must} was durable", self.committed);
            return Err(StorageError::damaged(&self.place.directory, reason));
        }
        let proven = self.proven;
        self.tail.retain(|record| record.lsn > proven);
        self.cut_bytes +=
            self.open.iter().map(|record| (record::HEADER_BYTES + record.body.len()) as u64).sum::<u64>();
        Ok(self)
    }
}
