//! Which rows of an immutable segment are deleted, at whatever position: one bit each, for searches that look at many.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

/// Rows that were deleted since the segment was made. A row whose bit is not set is visible to everybody.
#[derive(Debug)]
pub(super) struct DeadRows {
    words: Box<[AtomicU64]>,
    count: AtomicU32,
}

impl DeadRows {
    /// None of `rows`.
    pub(super) fn none(rows: u32) -> DeadRows {
        let words = (0..rows.div_ceil(64)).map(|_| AtomicU64::new(0)).collect();
        DeadRows { words, count: AtomicU32::new(0) }
    }

    /// Adds a row whose deletion is written down already.
    pub(super) fn insert(&self, row: u32) {
        let bit = 1 << (row % 64);
        let before = self.words[row as usize / 64].fetch_or(bit, Ordering::Release);
        if before & bit == 0 {
            self.count.fetch_add(1, Ordering::Release);
        }
    }

    pub(super) fn contains(&self, row: u32) -> bool {
        self.words[row as usize / 64].load(Ordering::Acquire) >> (row % 64) & 1 != 0
    }

    pub(super) fn count(&self) -> u32 {
        self.count.load(Ordering::Acquire)
    }
}
