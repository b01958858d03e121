//! Which rows have a text.

use std::collections::HashMap;

use roaring::RoaringBitmap;

use super::row_set::bytes_of;

/// Terms of more rows have a bitmap; the rows of the others are listed.
const LISTED_MAX: usize = 64;

/// Longer texts are in no index: nobody looks for them whole, and they would fill it.
pub(super) const TERM_BYTES_MAX: usize = 256;

/// Terms in ascending order of their bytes, and the rows of each.
#[derive(Debug, Default)]
pub(super) struct Keywords {
    text: Vec<u8>,
    /// Where each term ends in `text`.
    text_ends: Vec<u32>,
    listed: Vec<u32>,
    /// Where the rows of each term end in `listed`; the same as before for a term with a bitmap.
    listed_ends: Vec<u32>,
    /// By the number of the term, ascending.
    bitmaps: Vec<(u32, RoaringBitmap)>,
}

/// Texts as they come, row by row.
#[derive(Debug, Default)]
pub(super) struct KeywordsBuilder {
    numbers: HashMap<Box<[u8]>, u32>,
    /// Number of the term and row, rows ascending.
    entries: Vec<(u32, u32)>,
    text_bytes: usize,
}

impl KeywordsBuilder {
    /// Adds a text of a row; rows come in ascending order. False when there is no room for it: places in the text are of 32
    /// bits.
    pub(super) fn add(&mut self, text: &[u8], row: u32) -> bool {
        let next = self.numbers.len() as u32;
        let number = match self.numbers.get(text) {
            Some(number) => *number,
            None if self.text_bytes + text.len() > u32::MAX as usize => return false,
            None => {
                self.text_bytes += text.len();
                *self.numbers.entry(text.into()).or_insert(next)
            }
        };
        self.entries.push((number, row));
        true
    }

    pub(super) fn finish(self) -> Keywords {
        let mut terms: Vec<(Box<[u8]>, u32)> = self.numbers.into_iter().collect();
        terms.sort_unstable();
        let mut rank = vec![0u32; terms.len()];
        let mut keywords = Keywords::default();
        for (place, (term, number)) in terms.iter().enumerate() {
            rank[*number as usize] = place as u32;
            keywords.text.extend_from_slice(term);
            keywords.text_ends.push(u32::try_from(keywords.text.len()).expect("`add` refuses more"));
        }
        let mut entries = self.entries;
        entries.iter_mut().for_each(|(number, _)| *number = rank[*number as usize]);
        // Stable, so that rows stay in order.
        entries.sort_by_key(|(place, _)| *place);
        entries.dedup();
        for of_term in entries.chunk_by(|(a, _), (b, _)| a == b) {
            let rows = of_term.iter().map(|(_, row)| *row);
            if of_term.len() <= LISTED_MAX {
                keywords.listed.extend(rows);
            } else {
                let mut bitmap = RoaringBitmap::from_sorted_iter(rows).expect("rows ascend, each once");
                bitmap.optimize();
                keywords.bitmaps.push((of_term[0].0, bitmap));
            }
            keywords.listed_ends.push(keywords.listed.len() as u32);
        }
        keywords.text.shrink_to_fit();
        keywords.listed.shrink_to_fit();
        keywords
    }
}

#[cfg(test)]
impl KeywordsBuilder {
    /// One that has room for no text.
    pub(super) fn full() -> KeywordsBuilder {
        KeywordsBuilder { text_bytes: u32::MAX as usize, ..KeywordsBuilder::default() }
    }
}

impl Keywords {
    /// Adds the rows of a text to a set.
    pub(super) fn rows_of(&self, text: &[u8], rows: &mut RoaringBitmap) {
        let Some(term) = self.find(text) else { return };
        if let Ok(found) = self.bitmaps.binary_search_by_key(&(term as u32), |(term, _)| *term) {
            *rows |= &self.bitmaps[found].1;
            return;
        }
        let first = term.checked_sub(1).map_or(0, |before| self.listed_ends[before]);
        rows.extend(&self.listed[first as usize..self.listed_ends[term] as usize]);
    }

    /// Number of a term.
    fn find(&self, text: &[u8]) -> Option<usize> {
        let (mut low, mut high) = (0, self.text_ends.len());
        while low < high {
            let middle = low + (high - low) / 2;
            match self.term(middle).cmp(text) {
                std::cmp::Ordering::Less => low = middle + 1,
                std::cmp::Ordering::Equal => return Some(middle),
                std::cmp::Ordering::Greater => high = middle,
            }
        }
        None
    }

    fn term(&self, number: usize) -> &[u8] {
        let first = number.checked_sub(1).map_or(0, |before| self.text_ends[before]);
        &self.text[first as usize..self.text_ends[number] as usize]
    }

    /// Bytes in memory.
    pub(super) fn bytes(&self) -> usize {
        let bitmaps: usize = self.bitmaps.iter().map(|(_, bitmap)| 8 + bytes_of(bitmap)).sum();
        self.text.capacity()
            + (self.text_ends.capacity() + self.listed.capacity() + self.listed_ends.capacity()) * 4
            + bitmaps
    }
}
