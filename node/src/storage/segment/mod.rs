//! Rows of documents: vectors, ids, metadata, and from when to when each row is visible.
//!
//! A row is written once. It is visible at position p when `created ≤ p < deleted`; a document's newer version is
//! another row. Rows are appended to a [`MutableSegment`]; a checkpoint writes the live ones, ordered by id, to an
//! immutable file ([`file`]). Readers hold a [`SegmentView`], which never changes but for rows that get deleted at
//! positions beyond the reader's.

mod dead_rows;
mod entries;
pub(in crate::storage) mod faiss_file;
pub mod file;
pub(in crate::storage) mod graph_file;
mod index;
mod row_cache;
mod rows;

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use bytes::Bytes;
use vectorsphere_index::{Graph, Rows, StorageType};

use self::dead_rows::DeadRows;
use self::entries::{Entries, EntriesView};
pub(super) use self::index::Ancestor;
pub use self::index::SegmentIndex;
pub use self::row_cache::{RowCache, RowCacheMetrics};
use self::rows::DiskRows;
pub(in crate::storage) use self::rows::RowCursor;
pub use self::rows::{RowPlace, SegmentRows};
use super::{StorageError, digest};
use crate::document::{Document, Metadata};
use crate::ids::{DocumentId, Lsn};

/// Number of a segment in its replica; never used twice.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SegmentId(pub u32);

/// The rows that were there when the view was taken. Cheap to clone.
#[derive(Clone, Debug)]
pub struct SegmentView {
    id: SegmentId,
    rows: SegmentRows,
    entries: EntriesView,
    sealed: Option<Arc<Sealed>>,
}

/// What a segment has that takes no more rows: they are ordered by id, and all views share this.
#[derive(Debug)]
struct Sealed {
    dead: DeadRows,
    /// `Some(None)`: they get none.
    index: OnceLock<Option<SegmentIndex>>,
    /// What the index is to be built from, until there is one.
    ancestor: Mutex<Option<Arc<Ancestor>>>,
    /// Bytes of the entries, which are counted once: there are many.
    entries_bytes: OnceLock<usize>,
}

/// A segment that rows are appended to. One owner.
#[derive(Debug)]
pub struct MutableSegment {
    id: SegmentId,
    rows: Rows,
    entries: Entries,
    content_bytes: u64,
}

impl MutableSegment {
    /// An empty segment for vectors of `dimension` values.
    pub fn new(id: SegmentId, dimension: u32, storage_type: StorageType) -> MutableSegment {
        let rows = Rows::stored_as(storage_type, dimension as usize);
        MutableSegment { id, rows, entries: Entries::default(), content_bytes: 0 }
    }

    /// Appends a row, whose values the storage type holds, and returns its number.
    pub fn push(&mut self, id: &str, vector: &[f32], metadata: &[u8], created: Lsn) -> u32 {
        let row = self.rows.push(vector);
        let entry = self.entries.push(id, metadata, created);
        assert_eq!(row, entry, "vectors and entries are appended together");
        let vector_bytes = vector.len() * self.rows.storage_type().value_bytes();
        self.content_bytes += (vector_bytes + id.len() + metadata.len()) as u64;
        row
    }

    /// The rows as they are now.
    pub fn view(&self) -> SegmentView {
        let rows = SegmentRows::Memory(self.rows.view());
        SegmentView { id: self.id, rows, entries: self.entries.view(), sealed: None }
    }

    /// The rows for good, which were appended in ascending order of their ids.
    pub(super) fn into_ordered(self, ancestor: Option<Ancestor>) -> SegmentView {
        let sealed = Some(Sealed::of(self.rows.len() as u32, ancestor));
        SegmentView { sealed, ..self.view() }
    }

    /// Appends what each row has beside its vector.
    fn copy_entries(&self, to: &mut Entries) {
        for row in 0..self.rows.len() as u32 {
            to.push(self.entries.id(row), self.entries.metadata(row), self.entries.created(row));
        }
    }

    /// The segment's number.
    pub fn id(&self) -> SegmentId {
        self.id
    }

    /// Id of a document's row.
    pub fn document_id(&self, row: u32) -> &str {
        self.entries.id(row)
    }

    /// Position at which a row was written.
    pub fn created(&self, row: u32) -> Lsn {
        self.entries.created(row)
    }

    /// A row's part in the content digest.
    pub fn digest(&self, row: u32) -> u128 {
        digest_of(&self.entries, row, &self.rows.row(row))
    }

    /// Norm of a row's vector.
    pub fn norm(&self, row: u32) -> f64 {
        self.rows.norm(row)
    }

    /// Values of each vector.
    pub fn dimension(&self) -> usize {
        self.rows.dimension()
    }

    /// How the values of vectors are kept.
    pub fn storage_type(&self) -> StorageType {
        self.rows.storage_type()
    }

    /// Rows in it.
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// True when there is none.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// Makes a row invisible from `lsn` on.
    pub fn delete(&self, row: u32, lsn: Lsn) {
        self.entries.delete(row, lsn);
    }

    /// Bytes of vectors, ids and metadata that were appended.
    pub fn content_bytes(&self) -> u64 {
        self.content_bytes
    }

    /// Bytes in memory.
    pub fn bytes(&self) -> usize {
        self.rows.bytes() + self.entries.bytes()
    }
}

impl Sealed {
    fn of(rows: u32, ancestor: Option<Ancestor>) -> Arc<Sealed> {
        let ancestor = Mutex::new(ancestor.map(Arc::new));
        let (dead, index, entries_bytes) = (DeadRows::none(rows), OnceLock::new(), OnceLock::new());
        Arc::new(Sealed { dead, index, ancestor, entries_bytes })
    }
}

impl SegmentView {
    /// A segment whose vectors are in a file.
    fn on_disk(id: SegmentId, rows: DiskRows, entries: &Entries, ancestor: Option<Ancestor>) -> SegmentView {
        let rows = SegmentRows::Disk(Arc::new(rows));
        assert_eq!(rows.len(), entries.len(), "vectors and entries of the same rows");
        let sealed = Some(Sealed::of(rows.len() as u32, ancestor));
        SegmentView { id, rows, entries: entries.view(), sealed }
    }

    /// The segment's number.
    pub fn id(&self) -> SegmentId {
        self.id
    }

    /// Rows in it, deleted ones too.
    pub fn len(&self) -> u32 {
        self.rows.len() as u32
    }

    /// True when there is none.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// The vectors.
    pub fn rows(&self) -> &SegmentRows {
        &self.rows
    }

    /// Id of a row's document.
    pub fn document_id(&self, row: u32) -> &str {
        self.entries.id(row)
    }

    /// Metadata of a row, JSON text.
    pub fn metadata_json(&self, row: u32) -> &[u8] {
        self.entries.metadata(row)
    }

    /// Position at which a row was written: the document's version.
    pub fn created(&self, row: u32) -> Lsn {
        self.entries.created(row)
    }

    /// Position at which a row was deleted or replaced; [`Lsn::MAX`] while it lives.
    pub fn deleted(&self, row: u32) -> Lsn {
        self.entries.deleted(row)
    }

    /// True when a reader at `lsn` sees the row.
    pub fn is_visible(&self, row: u32, lsn: Lsn) -> bool {
        self.created(row) <= lsn && lsn < self.deleted(row)
    }

    /// A row's part in the content digest. Of vectors in a file as it was when they were written or read.
    pub fn digest(&self, row: u32) -> u128 {
        match &self.rows {
            SegmentRows::Memory(rows) => digest_of(&self.entries, row, &rows.row(row)),
            SegmentRows::Disk(rows) => rows.digest(row),
        }
    }

    /// Makes a row invisible from `lsn` on.
    pub fn delete(&self, row: u32, lsn: Lsn) {
        self.entries.delete(row, lsn);
        if let Some(sealed) = &self.sealed {
            sealed.dead.insert(row);
        }
    }

    /// Rows that are deleted, at whatever position; of a segment that takes no more rows.
    pub fn dead_rows(&self) -> u32 {
        self.sealed.as_ref().map_or(0, |sealed| sealed.dead.count())
    }

    /// The same as [`SegmentView::is_visible`] for a reader who sees all that was written to a segment that takes no more
    /// rows: nearly always one look at one bit.
    pub fn is_live(&self, row: u32, lsn: Lsn) -> bool {
        match &self.sealed {
            Some(sealed) => !sealed.dead.contains(row) || lsn < self.deleted(row),
            None => self.is_visible(row, lsn),
        }
    }

    /// The index of the rows, if they have one by now.
    pub fn index(&self) -> Option<&SegmentIndex> {
        self.sealed.as_ref()?.index.get()?.as_ref()
    }

    /// The same if it is a graph.
    pub fn graph(&self) -> Option<&Graph> {
        match self.index()? {
            SegmentIndex::Graph(graph) => Some(graph),
            SegmentIndex::Faiss(_) => None,
        }
    }

    /// True while the rows, which are for good, may still get an index.
    pub(super) fn awaits_index(&self) -> bool {
        self.sealed.as_ref().is_some_and(|sealed| sealed.index.get().is_none())
    }

    /// Sets the index of the rows, or that they get none; what was set first stays.
    pub(super) fn set_index(&self, index: Option<SegmentIndex>) {
        if let Some(sealed) = &self.sealed {
            let _ = sealed.index.set(index);
            *sealed.ancestor.lock().unwrap_or_else(PoisonError::into_inner) = None;
        }
    }

    /// The graph that the segment's own is to be built from, while it has none.
    pub(super) fn ancestor(&self) -> Option<Arc<Ancestor>> {
        self.sealed.as_ref()?.ancestor.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// True when rows are ordered by id, one for each.
    pub fn is_by_id(&self) -> bool {
        self.sealed.is_some()
    }

    /// The first row whose id is greater than `id`, in a segment ordered by id.
    pub fn first_after(&self, id: &str) -> u32 {
        assert!(self.is_by_id(), "the rows are not ordered");
        let (mut low, mut high) = (0, self.len());
        while low < high {
            let middle = low + (high - low) / 2;
            if self.document_id(middle) <= id { low = middle + 1 } else { high = middle }
        }
        low
    }

    /// A row's document; its vector is empty when it is not wanted.
    ///
    /// # Errors
    /// When the vector cannot be read, or is not what was written.
    pub fn document(&self, row: u32, with_vector: bool) -> Result<Document, StorageError> {
        Ok(Document {
            id: DocumentId::parse(self.document_id(row)).expect("only parsed ids are stored"),
            vector: if with_vector { self.rows.row(row)?.into_owned() } else { Vec::new() },
            metadata: self.metadata(row),
        })
    }

    /// Metadata of a row.
    pub fn metadata(&self, row: u32) -> Metadata {
        let json = Bytes::copy_from_slice(self.metadata_json(row));
        Metadata::from_stored(json).expect("only metadata is stored")
    }

    /// Bytes of a row's id and of what else is wanted of it.
    pub fn answer_bytes(&self, row: u32, with_metadata: bool, with_vector: bool) -> usize {
        let metadata = if with_metadata { self.metadata_json(row).len() } else { 0 };
        let vector = if with_vector { self.rows.dimension() * size_of::<f32>() } else { 0 };
        self.document_id(row).len() + metadata + vector
    }

    /// Bytes of its vectors and norms in memory.
    pub fn vector_bytes(&self) -> usize {
        self.rows.bytes()
    }

    /// Bytes of its index in memory, or of the one that it is to be built from.
    pub fn index_bytes(&self) -> usize {
        let inherited = || self.ancestor().map_or(0, |ancestor| ancestor.bytes());
        self.index().map_or_else(inherited, SegmentIndex::bytes)
    }

    /// Bytes in memory, without the index.
    pub fn bytes(&self) -> usize {
        let entries = || self.entries.bytes();
        let entries = self.sealed.as_ref().map_or_else(entries, |it| *it.entries_bytes.get_or_init(entries));
        self.rows.bytes() + entries
    }
}

/// Where the index of a segment may lie, by kind.
pub(in crate::storage) fn index_paths(directory: &Path, id: SegmentId) -> [PathBuf; 2] {
    [graph_file::path_of(directory, id), faiss_file::path_of(directory, id)]
}

/// True of the name of an index's file.
pub(in crate::storage) fn is_index_name(name: &str) -> bool {
    [graph_file::EXTENSION, faiss_file::EXTENSION].iter().any(|extension| name.ends_with(extension))
}

fn digest_of(entries: &EntriesView, row: u32, vector: &[f32]) -> u128 {
    digest::of_row(entries.id(row), entries.created(row), vector, entries.metadata(row))
}
