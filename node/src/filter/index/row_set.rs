//! Sets of a segment's rows.

use roaring::RoaringBitmap;

/// Rows of a segment, one bit each: the quickest answer to whether a row is among them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RowMask {
    words: Box<[u64]>,
    count: u64,
}

impl RowMask {
    /// The mask of some of the first `rows` rows.
    pub fn of(set: &RoaringBitmap, rows: u32) -> RowMask {
        let mut words = vec![0u64; (rows as usize).div_ceil(64)];
        let (mut rest, mut some) = (set.iter(), [0; 256]);
        loop {
            let next = rest.next_many(&mut some);
            if next.is_empty() {
                break;
            }
            next.iter().for_each(|row| words[*row as usize / 64] |= 1 << (row % 64));
        }
        RowMask { words: words.into(), count: set.len() }
    }

    /// True when the row is in it.
    #[inline]
    pub fn contains(&self, row: u32) -> bool {
        self.words[row as usize / 64] >> (row % 64) & 1 == 1
    }

    /// Rows in it.
    pub fn len(&self) -> u64 {
        self.count
    }

    /// True when no row is in it.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// One bit a row, the first in the lowest bit of the first word.
    pub fn words(&self) -> &[u64] {
        &self.words
    }
}

/// The set of rows in any order, some of them perhaps several times. `below`: no row is as large.
pub(super) fn set_of(rows: &[u32], below: u32) -> RoaringBitmap {
    // A bit in a plain array costs a nanosecond, an insertion ten times that.
    if rows.len() < below as usize / 512 {
        return rows.iter().copied().collect();
    }
    let mut bytes = vec![0u8; (below as usize).div_ceil(8)];
    for row in rows {
        bytes[*row as usize / 8] |= 1 << (row % 8);
    }
    RoaringBitmap::from_lsb0_bytes(0, &bytes)
}

/// Bytes in memory, about.
pub(super) fn bytes_of(set: &RoaringBitmap) -> usize {
    size_of::<RoaringBitmap>() + set.serialized_size()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sets_and_masks_hold_the_same_rows() {
        for (below, step) in [(1, 1), (64, 3), (70_000, 7), (200_000, 60_001), (131_072, 1)] {
            let mut rows: Vec<u32> = (0..below).step_by(step).collect();
            let expected: RoaringBitmap = rows.iter().copied().collect();
            rows.reverse();
            rows.push(rows[0]);
            assert_eq!(set_of(&rows, below), expected);
            let mask = RowMask::of(&expected, below);
            assert_eq!(mask.len(), expected.len());
            assert!((0..below).all(|row| mask.contains(row) == expected.contains(row)));
        }
        assert!(RowMask::of(&RoaringBitmap::new(), 0).is_empty());
    }
}
