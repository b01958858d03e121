//! Which rows of a segment count: one bit each.

/// A set of rows below a bound.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RowMask {
    words: Vec<u64>,
    rows: u32,
}

impl RowMask {
    /// No row of `rows`.
    pub fn none(rows: u32) -> RowMask {
        RowMask { words: vec![0; (rows as usize).div_ceil(64)], rows }
    }

    /// The rows for which `holds` is true.
    pub fn of(rows: u32, holds: impl Fn(u32) -> bool) -> RowMask {
        let mut mask = RowMask::none(rows);
        (0..rows).filter(|row| holds(*row)).for_each(|row| mask.insert(row));
        mask
    }

    /// Rows that there are, in the set or not.
    pub fn rows(&self) -> u32 {
        self.rows
    }

    /// Adds a row.
    ///
    /// # Panics
    /// When there is no such row.
    pub fn insert(&mut self, row: u32) {
        assert!(row < self.rows, "row {row} of {}", self.rows);
        self.words[row as usize / 64] |= 1 << (row % 64);
    }

    /// Removes a row, if it is there.
    pub fn remove(&mut self, row: u32) {
        if row < self.rows {
            self.words[row as usize / 64] &= !(1 << (row % 64));
        }
    }

    /// True when the row is in the set.
    #[inline(always)]
    pub fn contains(&self, row: u32) -> bool {
        self.words.get(row as usize / 64).is_some_and(|word| word >> (row % 64) & 1 != 0)
    }

    /// Rows in the set.
    pub fn count(&self) -> usize {
        self.words.iter().map(|word| word.count_ones() as usize).sum()
    }

    /// The rows in the set, ascending.
    pub fn iter(&self) -> impl Iterator<Item = u32> + '_ {
        self.words.iter().enumerate().flat_map(|(index, word)| {
            let mut rest = *word;
            std::iter::from_fn(move || {
                let bit = (rest != 0).then(|| rest.trailing_zeros())?;
                rest &= rest - 1;
                Some(index as u32 * 64 + bit)
            })
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_mask_is_a_set(rows in 1u32..300, picked in prop::collection::btree_set(0u32..300, 0..50)) {
            let picked: Vec<u32> = picked.into_iter().filter(|row| *row < rows).collect();
            let mut mask = RowMask::of(rows, |row| picked.contains(&row));
            prop_assert_eq!(mask.iter().collect::<Vec<u32>>(), picked.clone());
            prop_assert_eq!(mask.count(), picked.len());
            prop_assert!((0..400).all(|row| mask.contains(row) == picked.contains(&row)));
            picked.iter().for_each(|row| mask.remove(*row));
            prop_assert_eq!(mask, RowMask::none(rows));
        }
    }
}
