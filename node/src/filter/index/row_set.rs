//! Sets of a segment's rows.

use roaring::RoaringBitmap;

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
    fn a_set_holds_the_rows_that_are_listed() {
        for (below, step) in [(1, 1), (64, 3), (70_000, 7), (200_000, 60_001), (131_072, 1)] {
            let mut rows: Vec<u32> = (0..below).step_by(step).collect();
            let expected: RoaringBitmap = rows.iter().copied().collect();
            rows.reverse();
            rows.push(rows[0]);
            assert_eq!(set_of(&rows, below), expected);
        }
    }
}
