//! The rows that a search may find, as bits.

/// Bit `i % 8` of byte `i / 8` says whether row i may be found.
#[derive(Debug)]
pub(super) struct Mask {
    bits: Vec<u8>,
    count: usize,
}

impl Mask {
    /// Asks for each of `0..rows`.
    pub(super) fn new(rows: u32, visible: impl Fn(u32) -> bool) -> Mask {
        let bits: Vec<u8> = (0..rows)
            .step_by(8)
            .map(|first| {
                (first..rows.min(first.saturating_add(8)))
                    .fold(0, |byte, row| byte | (u8::from(visible(row)) << (row - first)))
            })
            .collect();
        let count = bits.iter().map(|byte| byte.count_ones() as usize).sum();
        Mask { bits, count }
    }

    /// Number of rows.
    pub(super) fn count(&self) -> usize {
        self.count
    }

    pub(super) fn bits(&self) -> &[u8] {
        &self.bits
    }

    pub(super) fn contains(&self, row: u32) -> bool {
        self.bits[row as usize / 8] >> (row % 8) & 1 == 1
    }

    /// The rows, ascending.
    pub(super) fn rows(&self) -> impl Iterator<Item = u32> {
        (0..self.bits.len() as u32 * 8).filter(|row| self.contains(*row))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mask_has_the_rows_that_were_visible() {
        for rows in [0u32, 1, 7, 8, 9, 100] {
            let mask = Mask::new(rows, |row| row % 3 == 0);
            let expected: Vec<u32> = (0..rows).filter(|row| row % 3 == 0).collect();
            assert_eq!(mask.rows().collect::<Vec<u32>>(), expected);
            assert_eq!((mask.count(), mask.bits().len()), (expected.len(), rows.div_ceil(8) as usize));
        }
    }
}
