//! What a reader sees: all segments at one position of the log. Immutable, shared, never waits for the writer.

use super::StorageError;
use super::segment::SegmentView;
use crate::document::Document;
use crate::ids::Lsn;

/// A replica's documents at one position.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    /// The position.
    pub lsn: Lsn,
    /// Live documents.
    pub documents: u64,
    /// Their content digest, as it was kept while they were written; see [`Snapshot::content_digest`].
    pub content: u128,
    /// All rows; those visible at `lsn` count.
    pub segments: Vec<SegmentView>,
}

impl Snapshot {
    /// Up to `limit` documents whose ids follow `after`, ascending by id, and whether there are more. They have at most
    /// `bytes_max` bytes together, but for the first one, which is always there.
    ///
    /// # Errors
    /// When a vector cannot be read, or is not what was written.
    pub fn list(
        &self,
        after: &str,
        limit: usize,
        bytes_max: usize,
        with_vector: bool,
    ) -> Result<(Vec<Document>, bool), StorageError> {
        let mut found: Vec<(&SegmentView, u32)> = Vec::new();
        for segment in &self.segments {
            let visible = |row: &u32| segment.is_visible(*row, self.lsn);
            if segment.is_by_id() {
                let rows = (segment.first_after(after)..segment.len()).filter(visible).take(limit + 1);
                found.extend(rows.map(|row| (segment, row)));
            } else {
                let follows = |row: &u32| segment.document_id(*row) > after;
                let rows = (0..segment.len()).filter(follows).filter(visible);
                found.extend(rows.map(|row| (segment, row)));
            }
        }
        found.sort_unstable_by(|(a, a_row), (b, b_row)| a.document_id(*a_row).cmp(b.document_id(*b_row)));
        let (mut documents, mut bytes) = (Vec::new(), 0);
        for (segment, row) in found.iter().take(limit) {
            bytes += segment.answer_bytes(*row, true, with_vector);
            if bytes > bytes_max && !documents.is_empty() {
                break;
            }
            documents.push(segment.document(*row, with_vector)?);
        }
        let more = documents.len() < found.len();
        Ok((documents, more))
    }

    /// The content digest, counted from the rows: equal to [`Snapshot::content`] unless a row was lost, revived or
    /// changed.
    pub fn content_digest(&self) -> u128 {
        let mut sum = 0u128;
        for segment in &self.segments {
            for row in (0..segment.len()).filter(|row| segment.is_visible(*row, self.lsn)) {
                sum = sum.wrapping_add(segment.digest(row));
            }
        }
        sum
    }

    /// Rows of all segments, deleted ones too.
    pub fn rows(&self) -> u64 {
        self.segments.iter().map(|segment| u64::from(segment.len())).sum()
    }
}
