//! What of a log is durable and where: shared by the one who appends and those who read beside.

use std::collections::VecDeque;
use std::sync::{Arc, MutexGuard};

use crate::ids::Lsn;
use crate::runtime::sync::Mutex;

/// A segment that counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Segment {
    pub(super) number: u64,
    /// Position of its first record.
    pub(super) first: Lsn,
    /// Its durable bytes.
    pub(super) bytes: u64,
}

/// The durable log.
#[derive(Debug, Default)]
pub(super) struct Extent {
    /// Ascending in number and position; the last one is written to. None once the log is closed.
    pub(super) segments: VecDeque<Segment>,
    /// Position of the last durable record.
    pub(super) durable: Lsn,
    /// Cuts so far.
    pub(super) cuts: u64,
}

/// The durable log, shared. Held for moments only, never over a call of the disk.
#[derive(Clone, Debug, Default)]
pub(super) struct SharedExtent(Arc<Mutex<Extent>>);

/// Where a position is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// Not written yet.
    Ahead,
    /// Released, or the log is closed, or there was a cut that the reader does not know of.
    Gone,
    /// In this segment, whose records up to `last` count.
    In { segment: Segment, last: Lsn },
}

impl SharedExtent {
    pub(super) fn new(extent: Extent) -> SharedExtent {
        SharedExtent(Arc::new(Mutex::new(extent)))
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Extent> {
        self.0.lock().expect("no panic under this lock")
    }
}

impl Extent {
    pub(super) fn last_segment(&self) -> Segment {
        *self.segments.back().expect("an open log has a segment")
    }

    /// Where a position is, for a reader that knows of so many cuts.
    pub(super) fn find(&self, lsn: Lsn, cuts: u64) -> Place {
        let begun = self.segments.partition_point(|segment| segment.first <= lsn);
        let Some(index) = begun.checked_sub(1).filter(|_| cuts == self.cuts) else { return Place::Gone };
        if lsn > self.durable {
            return Place::Ahead;
        }
        let last = self.segments.get(begun).map_or(self.durable, |next| Lsn(next.first.0 - 1));
        Place::In { segment: self.segments[index], last }
    }

    /// Takes the oldest segment if all its records lie at or before `wanted`; or at or before `possible` while there are
    /// more than `bytes_max` bytes.
    pub(super) fn pop_released(&mut self, wanted: Lsn, possible: Lsn, bytes_max: u64) -> Option<Segment> {
        let end = self.segments.get(1)?.first;
        let is_released = end <= wanted.next() || self.bytes() > bytes_max && end <= possible.next();
        if is_released { self.segments.pop_front() } else { None }
    }

    pub(super) fn bytes(&self) -> u64 {
        self.segments.iter().map(|segment| segment.bytes).sum()
    }

    /// Bytes of the records behind `lsn`; records of a segment count as equally large.
    pub(super) fn bytes_behind(&self, lsn: Lsn) -> u64 {
        let ends = self.segments.iter().skip(1).map(|next| next.first).chain([self.durable.next()]);
        let behind = |(segment, end): (&Segment, Lsn)| {
            let (first, end) = (segment.first.0, end.0);
            let counted = end - first.max(lsn.0.saturating_add(1)).min(end);
            (u128::from(segment.bytes) * u128::from(counted) / u128::from((end - first).max(1))) as u64
        };
        self.segments.iter().zip(ends).map(behind).sum()
    }
}
