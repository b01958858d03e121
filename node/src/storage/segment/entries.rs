//! Ids, metadata and positions of rows: append-only, readable while more is appended, few bytes a row.
//!
//! Rows lie in chunks, as vectors do: a full chunk is shared with every view, the last one is copied when a view holds
//! it while a row is appended. Long metadata is shared between the copies. A row's deletion is stored in place: a reader
//! at an earlier position does not mind, and a copied chunk takes it along.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::ids::Lsn;

/// Rows of a chunk.
const CHUNK_ROWS: usize = 64;
/// Metadata of more bytes has an allocation of its own: a chunk has at most 64 KiB of metadata to copy.
const SHORT_BYTES_MAX: usize = 1 << 10;

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
    /// Long metadata, which is not in `text`, by its row in the chunk, ascending.
    long: Vec<(u32, Arc<[u8]>)>,
}

impl Clone for Chunk {
    fn clone(&self) -> Chunk {
        let deleted = self.deleted.iter().map(|lsn| AtomicU64::new(lsn.load(Ordering::Acquire)));
        Chunk {
            created: self.created.clone(),
            deleted: deleted.collect(),
            ends: self.ends.clone(),
            text: self.text.clone(),
            long: self.long.clone(),
        }
    }
}

impl Chunk {
    fn metadata(&self, index: usize) -> &[u8] {
        match self.long.binary_search_by_key(&(index as u32), |(row, _)| *row) {
            Ok(found) => &self.long[found].1,
            Err(_) => {
                let [start, end] = self.ends[index];
                &self.text[start as usize..end as usize]
            }
        }
    }

    fn shrink(&mut self) {
        self.created.shrink_to_fit();
        self.deleted.shrink_to_fit();
        self.ends.shrink_to_fit();
        self.text.shrink_to_fit();
        self.long.shrink_to_fit();
    }

    /// Bytes in memory, unused space included.
    fn bytes(&self) -> usize {
        let long: usize = self.long.iter().map(|(_, metadata)| metadata.len()).sum();
        self.created.capacity() * 8
            + self.deleted.capacity() * 8
            + self.ends.capacity() * 8
            + self.text.capacity()
            + self.long.capacity() * size_of::<(u32, Arc<[u8]>)>()
            + long
            + size_of::<Chunk>()
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
        if metadata.len() <= SHORT_BYTES_MAX {
            chunk.text.extend_from_slice(metadata);
        } else {
            chunk.long.push((chunk.ends.len() as u32, metadata.into()));
        }
        chunk.ends.push([id_end, chunk.text.len() as u32]);
        if chunk.created.len() == CHUNK_ROWS {
            chunk.shrink();
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
        chunk.metadata(index)
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
        self.full.iter().chain([&self.last]).map(|chunk| chunk.bytes()).sum()
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

    #[test]
    fn long_metadata_is_not_copied_with_its_chunk() {
        let mut entries = Entries::default();
        let text = |row: usize| vec![row as u8; SHORT_BYTES_MAX + row % 2];
        let views: Vec<EntriesView> = (0..100)
            .map(|row| {
                entries.push(&format!("id{row}"), &text(row), Lsn(1));
                entries.view()
            })
            .collect();
        let last = views.last().expect("there are views");
        for (row, view) in views.iter().enumerate() {
            let (first, later) = (view.metadata(row as u32), last.metadata(row as u32));
            assert_eq!((first, later), (&text(row)[..], &text(row)[..]));
            assert!(row % 2 == 0 || std::ptr::eq(first, later), "row {row}");
        }
    }
}
