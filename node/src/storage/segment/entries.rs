//! Ids, metadata and positions of rows: append-only, readable while more is appended, few bytes a row.
//!
//! Rows lie in chunks, as vectors do: a full chunk is shared with every view, the last one is copied when a view holds
//! it while a row is appended. A row's deletion is stored in place: a reader at an earlier position does not mind, and a
//! copied chunk takes it along.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::ids::Lsn;

/// Rows of a chunk: with metadata of 1 KiB, 64 KiB to copy at most.
const CHUNK_ROWS: usize = 64;

/// Append-only entries.
#[derive(Debug, Default)]
pub(super) struct Entries {
    view: EntriesView,
}

/// The entries that were there when the view was taken.
#[derive(Clone, Debug, Default)]
pub(super) struct EntriesView {
    full: Arc<Vec<Arc<Chunk>>>,
    last: Arc<Chunk>,
}

#[derive(Debug, Default)]
struct Chunk {
    created: Vec<u64>,
    deleted: Vec<AtomicU64>,
    /// Where each row's id and its metadata end in `text`; the id begins where the row before ends.
    ends: Vec<[u32; 2]>,
    text: Vec<u8>,
}

impl Clone for Chunk {
    fn clone(&self) -> Chunk {
        let deleted = self.deleted.iter().map(|lsn| AtomicU64::new(lsn.load(Ordering::Acquire)));
        Chunk {
            created: self.created.clone(),
            deleted: deleted.collect(),
            ends: self.ends.clone(),
            text: self.text.clone(),
        }
    }
}

impl Entries {
    /// Appends an entry and returns its number.
    pub(super) fn push(&mut self, id: &str, metadata: &[u8], created: Lsn) -> u32 {
        let view = &mut self.view;
        let number = u32::try_from(view.len()).expect("fewer than 2^32 rows");
        let chunk = Arc::make_mut(&mut view.last);
        chunk.created.push(created.0);
        chunk.deleted.push(AtomicU64::new(Lsn::MAX.0));
        chunk.text.extend_from_slice(id.as_bytes());
        let id_end = chunk.text.len() as u32;
        chunk.text.extend_from_slice(metadata);
        let end = u32::try_from(chunk.text.len()).expect("64 records of 16 MiB at most");
        chunk.ends.push([id_end, end]);
        if chunk.created.len() == CHUNK_ROWS {
            chunk.created.shrink_to_fit();
            chunk.deleted.shrink_to_fit();
            chunk.ends.shrink_to_fit();
            chunk.text.shrink_to_fit();
            let full = std::mem::take(&mut view.last);
            Arc::make_mut(&mut view.full).push(full);
        }
        number
    }

    pub(super) fn view(&self) -> EntriesView {
        self.view.clone()
    }
}

impl std::ops::Deref for Entries {
    type Target = EntriesView;

    fn deref(&self) -> &EntriesView {
        &self.view
    }
}

impl EntriesView {
    pub(super) fn len(&self) -> usize {
        self.full.len() * CHUNK_ROWS + self.last.created.len()
    }

    pub(super) fn id(&self, row: u32) -> &str {
        let (chunk, index) = self.locate(row);
        let start = if index == 0 { 0 } else { chunk.ends[index - 1][1] };
        let bytes = &chunk.text[start as usize..chunk.ends[index][0] as usize];
        std::str::from_utf8(bytes).expect("stored from a string")
    }

    pub(super) fn metadata(&self, row: u32) -> &[u8] {
        let (chunk, index) = self.locate(row);
        let [start, end] = chunk.ends[index];
        &chunk.text[start as usize..end as usize]
    }

    pub(super) fn created(&self, row: u32) -> Lsn {
        let (chunk, index) = self.locate(row);
        Lsn(chunk.created[index])
    }

    pub(super) fn deleted(&self, row: u32) -> Lsn {
        let (chunk, index) = self.locate(row);
        Lsn(chunk.deleted[index].load(Ordering::Acquire))
    }

    pub(super) fn delete(&self, row: u32, lsn: Lsn) {
        let (chunk, index) = self.locate(row);
        chunk.deleted[index].store(lsn.0, Ordering::Release);
    }

    /// Bytes in memory, unused space included.
    pub(super) fn bytes(&self) -> usize {
        let chunks = self.full.iter().chain([&self.last]);
        chunks
            .map(|chunk| {
                chunk.created.capacity() * 8
                    + chunk.deleted.capacity() * 8
                    + chunk.ends.capacity() * 8
                    + chunk.text.capacity()
                    + size_of::<Chunk>()
            })
            .sum()
    }

    fn locate(&self, row: u32) -> (&Chunk, usize) {
        let (chunk, index) = (row as usize / CHUNK_ROWS, row as usize % CHUNK_ROWS);
        (self.full.get(chunk).unwrap_or(&self.last), index)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_view_keeps_its_rows_and_takes_no_later_ones() {
        let mut entries = Entries::default();
        let mut views = Vec::new();
        for row in 0..200u32 {
            assert_eq!(entries.push(&format!("id{row}"), b"{}", Lsn(u64::from(row) + 1)), row);
            if row >= 10 {
                entries.delete(row - 10, Lsn(u64::from(row) + 1));
            }
            views.push(entries.view());
        }
        for (taken, view) in views.iter().enumerate() {
            assert_eq!(view.len(), taken + 1);
            let position = Lsn(taken as u64 + 1);
            for row in 0..view.len() as u32 {
                assert_eq!((view.id(row), view.metadata(row)), (format!("id{row}").as_str(), &b"{}"[..]));
                let gone_at_that_time = row as usize + 10 <= taken;
                assert_eq!(view.deleted(row) <= position, gone_at_that_time, "row {row} of view {taken}");
            }
        }
    }
}
