//! Parts of a snapshot that are searched at the same time, and what searching them costs.

use std::ops::Range;

use super::ShardQuery;
use crate::storage::Snapshot;
use crate::storage::segment::{SegmentIndex, SegmentView};

/// A piece has this many values (rows times dimension) or more: below, a hand-over between threads costs more than it
/// saves (4 MiB of rows are read in about 100 us).
const PIECE_VALUES: usize = 1 << 20;

/// Reading metadata of a row takes as long as reading so many values.
const VALUES_PER_FILTERED_ROW: usize = 1 << 11;

/// A part of a snapshot: rows of segments.
pub(super) type Piece = Vec<(usize, Range<u32>)>;
/// Segment in the snapshot, row in the segment.
pub(super) type Place = (usize, u32);

/// Rows that are worth a hand-over between threads.
pub(super) fn rows_min(dimension: usize) -> u32 {
    (PIECE_VALUES / dimension).max(1) as u32
}

/// Cuts a snapshot into at most `count` pieces of about equal size. A segment with an index stays whole: it takes as long as
/// few rows.
pub(super) fn pieces(snapshot: &Snapshot, query: &ShardQuery, count: usize) -> Vec<Piece> {
    let Some(dimension) = snapshot.segments.first().map(|segment| segment.rows().dimension()) else {
        return Vec::new();
    };
    let rows_read = |index: &SegmentIndex| (query.values_read(index) / dimension).max(1) as u64;
    let weight = |segment: &SegmentView| match query.index(segment) {
        Some(index) => rows_read(index),
        None => u64::from(segment.len()),
    };
    let rows: u64 = snapshot.segments.iter().map(weight).sum();
    let count = (rows / u64::from(rows_min(dimension))).clamp(1, count.max(1) as u64);
    let rows_each = rows.div_ceil(count).max(1);
    let mut cut = Cut { pieces: Vec::new(), piece: Piece::new(), room: rows_each, rows_each };
    for (index, segment) in snapshot.segments.iter().enumerate() {
        if let Some(through) = query.index(segment) {
            cut.add((index, 0..segment.len()), rows_read(through));
            continue;
        }
        let mut first = 0;
        while first < segment.len() {
            let end = (u64::from(first) + cut.room).min(u64::from(segment.len())) as u32;
            cut.add((index, first..end), u64::from(end - first));
            first = end;
        }
    }
    cut.end()
}

struct Cut {
    pieces: Vec<Piece>,
    piece: Piece,
    /// Rows that the piece has room for, one at least.
    room: u64,
    rows_each: u64,
}

impl Cut {
    fn add(&mut self, part: (usize, Range<u32>), rows: u64) {
        self.piece.push(part);
        self.room = self.room.saturating_sub(rows);
        if self.room == 0 {
            self.pieces.push(std::mem::take(&mut self.piece));
            self.room = self.rows_each;
        }
    }

    fn end(mut self) -> Vec<Piece> {
        if !self.piece.is_empty() {
            self.pieces.push(self.piece);
        }
        self.pieces
    }
}

/// Values that searching a piece reads, about.
pub(super) fn values_of(snapshot: &Snapshot, query: &ShardQuery, piece: &Piece) -> usize {
    let values = |(index, range): &(usize, Range<u32>)| {
        let segment = &snapshot.segments[*index];
        match query.index(segment) {
            _ if query.filter.is_some() => range.len() * VALUES_PER_FILTERED_ROW,
            Some(index) => query.values_read(index),
            None => range.len() * segment.rows().dimension(),
        }
    };
    piece.iter().map(values).sum()
}
