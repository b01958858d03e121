//! Opening a log after a stop of any kind.

use std::collections::VecDeque;
use std::path::Path;

use bytes::Bytes;

use super::extent::{Extent, Segment};
use super::record::{self, BadRecord, Record, RecordKind};
use super::segment::{self, SEGMENT_HEADER_BYTES, SegmentHeader};
use super::{Log, LogPlace, remove_segments};
use crate::ids::{Epoch, Lsn};
use crate::storage::StorageError;
use crate::storage::reigns::Reign;

/// What the rest of the replica's state knows about its log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecoveryPoint {
    /// Records up to this position are in segments of rows; replay begins behind it.
    pub checkpoint: Lsn,
    /// Records up to this position were durable: their absence is damage.
    pub durable: Lsn,
}

/// A log that was read to its end and can be opened. Nothing was changed yet.
pub struct Scanned {
    /// Records that were replayed.
    pub records: u64,
    /// Bytes of a torn tail that opening cuts.
    pub cut_bytes: u64,
    /// Position of the first record that is there.
    pub first: Lsn,
    /// Reigns that begin in the log.
    pub reigns: Vec<Reign>,
    place: LogPlace,
    /// Segments that stay, and those that later ones make void.
    segments: VecDeque<Segment>,
    void: Vec<u64>,
    last_number: u64,
    /// Where the new segment begins, and the reign of the record before.
    kept: Lsn,
    kept_epoch: Epoch,
    /// Records that are written again into it.
    tail: Vec<Record>,
}

impl Log {
    /// Reads the log and hands every record behind the checkpoint to `replay`, in order, whole batches only.
    ///
    /// # Errors
    /// [`StorageError::Damaged`] when records are missing or changed that must be there.
    pub fn scan(
        place: LogPlace,
        point: RecoveryPoint,
        replay: &mut dyn FnMut(Record) -> Result<(), StorageError>,
    ) -> Result<Scanned, StorageError> {
        let headers = read_headers(&place)?;
        let Some((last, _)) = headers.last() else {
            return Err(StorageError::damaged(&place.directory, "log has no segment"));
        };
        let last_number = last.number;
        let mut scan = Scan::new(&place, point, replay);
        let (mut segments, mut void) = (VecDeque::new(), Vec::new());
        for (header, until) in headers {
            let (number, first) = (header.number, header.first);
            if until.is_some_and(|until| until <= first) {
                void.push(number);
                continue;
            }
            let (header, bytes) = segment::read(place.disk.as_ref(), &place.directory, number)?;
            scan.check_header(&header)?;
            let bytes = scan.segment(&header, bytes, until)? as u64;
            segments.push_back(Segment { number, first, bytes });
        }
        let first = segments.front().map_or(Lsn::ZERO, |segment: &Segment| segment.first);
        scan.finish()?;
        let Scan { proven, committed, tail, records, cut_bytes, mut reigns, first_epoch, .. } = scan;
        let kept = if tail.is_empty() { committed } else { proven };
        reigns.retain(|reign| reign.first <= committed);
        let kept_epoch =
            reigns.iter().rfind(|reign| reign.first <= kept).map_or(first_epoch, |reign| reign.epoch);
        Ok(Scanned {
            records,
            cut_bytes,
            first,
            reigns,
            place,
            segments,
            void,
            last_number,
            kept,
            kept_epoch,
            tail,
        })
    }
}

impl Scanned {
    /// Opens the log: begins a new segment behind what is proven durable, with the rest in it.
    pub fn open(mut self) -> Result<Log, StorageError> {
        while let Some(last) = self.segments.pop_back_if(|last| last.first > self.kept) {
            self.void.push(last.number);
        }
        let extent = Extent { segments: self.segments, durable: self.kept, cuts: 0 };
        let log = Log::begin(self.place.clone(), extent, self.last_number + 1, self.kept_epoch, &self.tail)?;
        remove_segments(&self.place, &self.void)?;
        Ok(log)
    }
}

/// Headers of all segments, ascending by number; each with the position from which on later ones make it void. Gaps in
/// the numbers are those of segments that went as a whole; a missing one that had records shows by its neighbours'
/// positions.
fn read_headers(place: &LogPlace) -> Result<Vec<(SegmentHeader, Option<Lsn>)>, StorageError> {
    let mut headers = Vec::new();
    for number in segment::list(place.disk.as_ref(), &place.directory)? {
        let path = segment::path_of(&place.directory, number);
        let reader = place.disk.open(&path).map_err(segment::read_error(&path))?;
        let header = SegmentHeader::read(&path, reader.as_ref())?;
        header.check_number(&path, number)?;
        if header.replica != place.replica {
            let reason = format!("belongs to replica {}, not to {}", header.replica, place.replica);
            return Err(StorageError::damaged(&path, reason));
        }
        headers.push((header, None));
    }
    let mut until: Option<Lsn> = None;
    for (header, void_from) in headers.iter_mut().rev() {
        *void_from = until;
        until = Some(until.map_or(header.first, |until| until.min(header.first)));
    }
    Ok(headers)
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
    /// Reign of the last record, and of the position before the first one.
    epoch: Epoch,
    first_epoch: Epoch,
    reigns: Vec<Reign>,
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
            first_epoch: Epoch::default(),
            reigns: Vec::new(),
        }
    }

    fn check_header(&mut self, header: &SegmentHeader) -> Result<(), StorageError> {
        let path = segment::path_of(&self.place.directory, header.number);
        let expected = self.last.map_or(self.point.checkpoint.next(), Lsn::next);
        let fits = if self.last.is_some() { header.first == expected } else { header.first <= expected };
        if !fits {
            let reason =
                format!("begins at {}, but the records from {expected} on are missing", header.first);
            return Err(StorageError::damaged(&path, reason));
        }
        let before = Lsn(header.first.0 - 1);
        if self.last.is_none() {
            (self.committed, self.last) = (before, Some(before));
            (self.epoch, self.first_epoch) = (header.epoch, header.epoch);
        }
        if header.epoch != self.epoch {
            let reason =
                format!("follows a record of epoch {}, but there is one of {}", header.epoch, self.epoch);
            return Err(StorageError::damaged(&path, reason));
        }
        self.proven = self.proven.max(before);
        Ok(())
    }

    /// Reads the records of one segment; those from `until` on are void. Returns where they end.
    fn segment(
        &mut self,
        header: &SegmentHeader,
        bytes: Bytes,
        until: Option<Lsn>,
    ) -> Result<usize, StorageError> {
        let path = segment::path_of(&self.place.directory, header.number);
        let (mut offset, mut chain) = (SEGMENT_HEADER_BYTES, header.chain());
        loop {
            let lsn = self.last.expect("set by check_header").next();
            if until == Some(lsn) {
                return Ok(offset);
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
                    self.record(&path, decoded.record)?;
                }
                Err(bad @ (BadRecord::UnknownKind(_) | BadRecord::UnknownFlags(_))) => {
                    return Err(StorageError::Newer { path, reason: format!("record {lsn} {bad}") });
                }
                Ok(None) => {
                    self.cut(header, lsn, "is missing", &[], until)?;
                    return Ok(offset);
                }
                Err(bad @ (BadRecord::CutOff { .. } | BadRecord::Invalid(_))) => {
                    self.cut(header, lsn, &bad.to_string(), &bytes[offset..], until)?;
                    return Ok(offset);
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
        until: Option<Lsn>,
    ) -> Result<(), StorageError> {
        let proof = if until.is_some() {
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
                // Zeros at the end were reserved, not written.
                let torn = rest.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
                self.cut_bytes += torn as u64;
                Ok(())
            }
        }
    }

    fn record(&mut self, path: &Path, record: Record) -> Result<(), StorageError> {
        if record.epoch < self.epoch {
            let reason = format!("record {} is of epoch {} after {}", record.lsn, record.epoch, self.epoch);
            return Err(StorageError::damaged(path, reason));
        }
        if record.epoch > self.epoch {
            self.reigns.push(Reign { epoch: record.epoch, first: record.lsn });
        }
        (self.last, self.epoch) = (Some(record.lsn), record.epoch);
        let batch_end = record.batch_end;
        self.open.push(record);
        if batch_end { self.batch() } else { Ok(()) }
    }

    fn batch(&mut self) -> Result<(), StorageError> {
        let batch = std::mem::take(&mut self.open);
        // Records of a batch of an earlier reign that did not end stay in the log and do nothing.
        let is_reign = batch.last().is_some_and(|record| record.kind == RecordKind::EpochStart);
        let void = if is_reign { batch.len() - 1 } else { 0 };
        for (index, record) in batch.into_iter().enumerate() {
            self.committed = record.lsn;
            if record.lsn > self.proven {
                self.tail.push(record.clone());
            }
            if record.lsn > self.point.checkpoint && index >= void {
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

    fn finish(&mut self) -> Result<(), StorageError> {
        let must = self.point.durable.max(self.point.checkpoint);
        if self.committed < must {
            let reason = format!("log ends at {}, but {must} was durable", self.committed);
            return Err(StorageError::damaged(&self.place.directory, reason));
        }
        let proven = self.proven;
        self.tail.retain(|record| record.lsn > proven);
        self.cut_bytes += self.open.iter().map(|record| record.stored_bytes() as u64).sum::<u64>();
        Ok(())
    }
}
