//! Which rows have a number, or a point in time, within some range.

use std::ops::Bound;

use roaring::RoaringBitmap;

use super::row_set::{bytes_of, set_of};
use crate::filter::Range;

/// Rows that have several values are few: they are looked through. The values of the others are cut into parts of so many
/// rows, and before each part stands the set of all rows with smaller values, so that of a wide range only its ends are
/// looked through.
const PART_ROWS_MIN: usize = 4_096;
/// Most parts: each costs a bit a row.
const PARTS_MAX: usize = 32;

/// Pairs of value and row, ordered by value.
#[derive(Debug)]
pub(super) struct Ordered<T> {
    single: Column<T>,
    /// Of rows with several values.
    several: Column<T>,
    part_rows: usize,
    /// Rows of the parts before the second, the third, …
    before: Vec<RoaringBitmap>,
    rows: u32,
}

#[derive(Debug)]
struct Column<T> {
    values: Box<[T]>,
    rows: Box<[u32]>,
}

impl<T: Copy> Column<T> {
    fn new(entries: Vec<(T, u32)>) -> Column<T> {
        Column {
            values: entries.iter().map(|(value, _)| *value).collect(),
            rows: entries.iter().map(|(_, row)| *row).collect(),
        }
    }

    /// The places of the values within a range; `key` gives a value its order.
    fn within<K: Ord>(&self, range: &Range<K>, key: &impl Fn(T) -> K) -> std::ops::Range<usize> {
        let first = self.values.partition_point(|value| match &range.from {
            Bound::Included(from) => key(*value) < *from,
            Bound::Excluded(from) => key(*value) <= *from,
            Bound::Unbounded => false,
        });
        let end = self.values.partition_point(|value| match &range.to {
            Bound::Included(to) => key(*value) <= *to,
            Bound::Excluded(to) => key(*value) < *to,
            Bound::Unbounded => true,
        });
        first..end.max(first)
    }

    fn bytes(&self) -> usize {
        size_of_val(&*self.values) + size_of_val(&*self.rows)
    }
}

impl<T: Copy> Ordered<T> {
    /// From pairs in any order, of a segment with so many rows; `key` gives a value its order.
    pub(super) fn new<K: Ord>(
        mut entries: Vec<(T, u32)>,
        several: &RoaringBitmap,
        rows: u32,
        key: impl Fn(T) -> K,
    ) -> Ordered<T> {
        entries.sort_unstable_by(|(a, a_row), (b, b_row)| key(*a).cmp(&key(*b)).then(a_row.cmp(b_row)));
        let (several, single): (Vec<_>, Vec<_>) =
            entries.into_iter().partition(|(_, row)| several.contains(*row));
        let (single, several) = (Column::new(single), Column::new(several));
        let part_rows = single.rows.len().div_ceil(PARTS_MAX).max(PART_ROWS_MIN);
        let mut before = Vec::new();
        let mut sum = RoaringBitmap::new();
        for part in single.rows.chunks_exact(part_rows) {
            sum |= set_of(part, rows);
            before.push(sum.clone());
        }
        Ordered { single, several, part_rows, before, rows }
    }

    /// Adds the rows that have a value within a range to a set.
    pub(super) fn rows_within<K: Ord>(
        &self,
        range: &Range<K>,
        key: &impl Fn(T) -> K,
        found: &mut RoaringBitmap,
    ) {
        *found |= set_of(&self.several.rows[self.several.within(range, key)], self.rows);
        let std::ops::Range { start, end } = self.single.within(range, key);
        // Whole parts from `first` to before `last`; the ends beside them row by row.
        let (first, last) = (start.div_ceil(self.part_rows), end / self.part_rows);
        if first >= last {
            *found |= set_of(&self.single.rows[start..end], self.rows);
            return;
        }
        let mut whole = self.before[last - 1].clone();
        if first > 0 {
            whole -= &self.before[first - 1];
        }
        *found |= whole;
        *found |= set_of(&self.single.rows[start..first * self.part_rows], self.rows);
        *found |= set_of(&self.single.rows[last * self.part_rows..end], self.rows);
    }

    /// Bytes in memory.
    pub(super) fn bytes(&self) -> usize {
        let before: usize = self.before.iter().map(bytes_of).sum();
        self.single.bytes() + self.several.bytes() + before
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(40))]

        #[test]
        fn a_range_holds_the_rows_that_have_a_value_in_it(
            seed in any::<u64>(),
            rows in prop_oneof![Just(0u32), 1u32..300, 20_000u32..40_000],
            ends in (0i64..120, 0i64..120),
            kinds in (0u8..3, 0u8..3),
        ) {
            // Rows 5, 10, … have a second value.
            let value = |row: u32, which: u64| (u64::from(row) ^ seed ^ which).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 40;
            let mut entries = Vec::new();
            for row in 0..rows {
                let count = if row % 5 == 0 { 2 } else { 1 };
                entries.extend((0..count).map(|which| ((value(row, which) % 100) as i64, row)));
            }
            let several = (0..rows).step_by(5).collect();
            let ordered = Ordered::new(entries.clone(), &several, rows, |value| value);
            let bound = |kind: u8, end: i64| match kind {
                0 => Bound::Unbounded,
                1 => Bound::Included(end),
                _ => Bound::Excluded(end),
            };
            let range = Range { from: bound(kinds.0, ends.0), to: bound(kinds.1, ends.1) };
            let mut found = RoaringBitmap::new();
            ordered.rows_within(&range, &|value| value, &mut found);
            let within = entries.iter().filter(|(value, _)| range.contains(value));
            let expected: RoaringBitmap = within.map(|(_, row)| *row).collect();
            prop_assert_eq!(found, expected);
        }
    }
}
