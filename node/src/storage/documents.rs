//! The documents of a replica in memory: every row of every segment, and where each document's newest version is.

use std::collections::HashMap;

use hashbrown::HashTable;
use vectorsphere_index::StorageType;
use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::StorageError;
use super::effect::Effect;
use super::segment::{MutableSegment, SegmentId, SegmentRows, SegmentView};
use super::snapshot::Snapshot;
use crate::document::Document;
use crate::ids::Lsn;

/// Where a row is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Location {
    /// Its segment.
    pub segment: SegmentId,
    /// Its number there.
    pub row: u32,
}

/// Vectors of rows in files, read ahead of the effects that take them over.
pub type FetchedVectors = HashMap<Location, Vec<f32>>;

/// All documents of a replica. One writer; readers share the lock for the time of one look-up.
pub struct Documents {
    /// The newest version of each live document, found by the id in its row: ids are stored once.
    locations: HashTable<Location>,
    /// Of the hash: ids of one shard share high bits of the unseeded one, and users choose ids.
    seed: u64,
    segments: Segments,
    applied: Lsn,
    /// Sum over the rows that `locations` names.
    content: u128,
}

struct Segments {
    /// Segments that take no more rows, in files or on the way there.
    full: Vec<SegmentView>,
    mutable: MutableSegment,
}

impl Segments {
    fn document_id(&self, at: Location) -> &str {
        if at.segment == self.mutable.id() {
            return self.mutable.document_id(at.row);
        }
        self.find(at.segment).document_id(at.row)
    }

    fn digest(&self, at: Location) -> u128 {
        if at.segment == self.mutable.id() {
            return self.mutable.digest(at.row);
        }
        self.find(at.segment).digest(at.row)
    }

    fn created(&self, at: Location) -> Lsn {
        if at.segment == self.mutable.id() {
            return self.mutable.created(at.row);
        }
        self.find(at.segment).created(at.row)
    }

    fn find(&self, id: SegmentId) -> &SegmentView {
        self.full.iter().find(|segment| segment.id() == id).expect("locations name segments that are here")
    }

    fn delete(&self, at: Location, lsn: Lsn) {
        if at.segment == self.mutable.id() {
            self.mutable.delete(at.row, lsn);
        } else {
            self.find(at.segment).delete(at.row, lsn);
        }
    }

    fn view(&self, id: SegmentId) -> SegmentView {
        if id == self.mutable.id() { self.mutable.view() } else { self.find(id).clone() }
    }
}

impl Documents {
    /// No documents at position `applied`; new rows go to segment `mutable`.
    pub fn new(dimension: u32, storage_type: StorageType, mutable: SegmentId, applied: Lsn) -> Documents {
        Documents {
            locations: HashTable::new(),
            seed: rand::random(),
            segments: Segments {
                full: Vec::new(),
                mutable: MutableSegment::new(mutable, dimension, storage_type),
            },
            applied,
            content: 0,
        }
    }

    /// Adds a segment that was read from its file, with the rows that are deleted.
    ///
    /// # Errors
    /// When two segments have a live row of the same document.
    pub fn load(&mut self, segment: SegmentView, deleted: &[(u32, Lsn)]) -> Result<(), String> {
        for (row, at) in deleted {
            segment.delete(*row, *at);
        }
        let id = segment.id();
        self.segments.full.push(segment.clone());
        self.locations.reserve(segment.len() as usize, |at| {
            xxh3_64_with_seed(self.segments.document_id(*at).as_bytes(), self.seed)
        });
        for row in (0..segment.len()).filter(|row| segment.deleted(*row) == Lsn::MAX) {
            if self.locate(segment.document_id(row)).is_some() {
                return Err(format!("document {:?} has two live rows", segment.document_id(row)));
            }
            self.insert(Location { segment: id, row });
        }
        Ok(())
    }

    /// The row of a document's newest version.
    pub fn find(&self, id: &str) -> Option<(SegmentView, u32)> {
        let at = self.locate(id)?;
        Some((self.segments.view(at.segment), at.row))
    }

    /// The number of a document's newest version; [`Lsn::ZERO`] when it does not exist.
    pub fn version(&self, id: &str) -> Lsn {
        self.locate(id).map_or(Lsn::ZERO, |at| self.segments.created(at))
    }

    /// Values of each vector.
    pub fn dimension(&self) -> usize {
        self.segments.mutable.dimension()
    }

    /// How the values of vectors are kept.
    pub fn storage_type(&self) -> StorageType {
        self.segments.mutable.storage_type()
    }

    /// The wrapping sum of [`digest`](super::digest)s of all live documents.
    pub fn content_digest(&self) -> u128 {
        self.content
    }

    /// Reads the vectors in files that these effects take over, if they are applied next.
    ///
    /// # Errors
    /// When one cannot be read, or is not what was written.
    pub fn fetch<'e>(
        &self,
        effects: impl Iterator<Item = &'e Effect>,
    ) -> Result<FetchedVectors, StorageError> {
        let mut fetched = FetchedVectors::new();
        for effect in effects {
            let Effect::SetMetadata(id, _) = effect else { continue };
            let Some(at) = self.locate(id.as_str()) else { continue };
            let segment = self.segments.view(at.segment);
            if segment.rows().is_on_disk() && !fetched.contains_key(&at) {
                fetched.insert(at, segment.rows().row(at.row)?.into_owned());
            }
        }
        Ok(fetched)
    }

    /// Applies the effect of the record at `lsn`, while all vectors are in memory.
    ///
    /// # Errors
    /// When the effect does not fit the documents: it was not resolved against them.
    #[cfg(test)]
    pub fn apply(&mut self, lsn: Lsn, effect: &Effect) -> Result<(), String> {
        self.apply_with(lsn, effect, &FetchedVectors::new())
    }

    /// Applies the effect of the record at `lsn`; `fetched` is what [`Documents::fetch`] gave for it.
    ///
    /// # Errors
    /// When the effect does not fit the documents: it was not resolved against them.
    pub fn apply_with(&mut self, lsn: Lsn, effect: &Effect, fetched: &FetchedVectors) -> Result<(), String> {
        assert!(lsn > self.applied, "records apply once and in order");
        match effect {
            Effect::Upsert(document) => {
                let Document { id, vector, metadata } = document;
                let dimension = self.dimension();
                if vector.len() != dimension {
                    return Err(format!("vector of {} values where {dimension} are stored", vector.len()));
                }
                if !self.storage_type().holds(vector) {
                    let storage_type = self.storage_type().as_str();
                    return Err(format!("vector has a value that {storage_type} does not hold"));
                }
                let row = self.segments.mutable.push(id.as_str(), vector, metadata.as_json().as_bytes(), lsn);
                self.replace(id.as_str(), row, lsn);
            }
            Effect::SetMetadata(id, metadata) => {
                let at = self.locate(id.as_str()).ok_or_else(|| format!("document {id:?} does not exist"))?;
                let old = self.segments.view(at.segment);
                let vector = match old.rows() {
                    SegmentRows::Memory(rows) => rows.row(at.row),
                    SegmentRows::Disk(_) => {
                        fetched.get(&at).ok_or_else(|| format!("vector of {id:?} was not fetched"))?.into()
                    }
                };
                let json = metadata.as_json().as_bytes();
                let row = self.segments.mutable.push(id.as_str(), &vector, json, lsn);
                self.replace(id.as_str(), row, lsn);
            }
            Effect::Delete(id) => {
                let at = self.remove(id.as_str()).ok_or_else(|| format!("document {id:?} does not exist"))?;
                self.segments.delete(at, lsn);
            }
            Effect::EpochStart | Effect::Noop => {}
        }
        self.applied = lsn;
        Ok(())
    }

    /// What readers see from now on.
    pub fn snapshot(&self) -> Snapshot {
        let mut segments: Vec<SegmentView> = self.segments.full.clone();
        segments.push(self.segments.mutable.view());
        segments.retain(|segment| !segment.is_empty());
        let documents = self.locations.len() as u64;
        Snapshot { lsn: self.applied, documents, content: self.content, segments }
    }

    /// Lets new rows go to segment `next` and returns the one that took them so far.
    pub fn freeze(&mut self, next: SegmentId) -> SegmentView {
        let dimension = u32::try_from(self.segments.mutable.dimension()).expect("at most 65,536");
        let fresh = MutableSegment::new(next, dimension, self.storage_type());
        let frozen = std::mem::replace(&mut self.segments.mutable, fresh).view();
        self.segments.full.push(frozen.clone());
        frozen
    }

    /// Adds a segment whose rows are copies of others; [`Documents::relocate`] then moves the documents there.
    pub fn add_copy(&mut self, segment: SegmentView) {
        self.segments.full.push(segment);
    }

    /// Moves documents to the rows from `first` on of a segment, which are copies of `origins`, with the deletions
    /// that happened meanwhile.
    pub fn relocate(&mut self, segment: &SegmentView, first: u32, origins: &[Location]) {
        for (index, origin) in origins.iter().enumerate() {
            let copy = Location { segment: segment.id(), row: first + index as u32 };
            let deleted = self.segments.view(origin.segment).deleted(origin.row);
            if deleted != Lsn::MAX {
                segment.delete(copy.row, deleted);
                continue;
            }
            let hash = self.hash(segment.document_id(copy.row));
            let found = self.locations.find_mut(hash, |at| at == origin);
            *found.expect("a live row is its document's newest version") = copy;
        }
    }

    /// Drops segments that no document is in any more.
    pub fn retire(&mut self, replaced: &[SegmentId]) {
        self.segments.full.retain(|segment| !replaced.contains(&segment.id()));
    }

    /// Segments that take no more rows.
    pub fn full_segments(&self) -> &[SegmentView] {
        &self.segments.full
    }

    /// The segment that takes new rows.
    pub fn mutable(&self) -> &MutableSegment {
        &self.segments.mutable
    }

    /// Bytes in memory of everything.
    pub fn bytes(&self) -> usize {
        let full: usize = self.segments.full.iter().map(SegmentView::bytes).sum();
        full + self.segments.mutable.bytes() + self.locations.allocation_size()
    }

    fn hash(&self, id: &str) -> u64 {
        xxh3_64_with_seed(id.as_bytes(), self.seed)
    }

    fn locate(&self, id: &str) -> Option<Location> {
        self.locations.find(self.hash(id), |at| self.segments.document_id(*at) == id).copied()
    }

    /// Makes `row` of the mutable segment the newest version and ends the one before.
    fn replace(&mut self, id: &str, row: u32, lsn: Lsn) {
        if let Some(old) = self.remove(id) {
            self.segments.delete(old, lsn);
        }
        self.insert(Location { segment: self.segments.mutable.id(), row });
    }

    fn insert(&mut self, at: Location) {
        let Documents { locations, seed, segments, content, .. } = self;
        *content = content.wrapping_add(segments.digest(at));
        let hash_at = |at: &Location| xxh3_64_with_seed(segments.document_id(*at).as_bytes(), *seed);
        locations.insert_unique(hash_at(&at), at, hash_at);
    }

    fn remove(&mut self, id: &str) -> Option<Location> {
        let hash = self.hash(id);
        let Documents { locations, segments, content, .. } = self;
        let entry = locations.find_entry(hash, |at| segments.document_id(*at) == id).ok()?;
        let at = entry.remove().0;
        *content = content.wrapping_sub(segments.digest(at));
        Some(at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::document::Metadata;
    use crate::ids::DocumentId;

    fn upsert(id: &str, value: f32) -> Effect {
        let id = DocumentId::parse(id).expect("valid");
        Effect::Upsert(Document { id, vector: vec![value], metadata: Metadata::empty() })
    }

    fn delete(id: &str) -> Effect {
        Effect::Delete(DocumentId::parse(id).expect("valid"))
    }

    fn seen(snapshot: &Snapshot) -> Vec<(String, f32)> {
        let (documents, more) = snapshot.list("", 100, usize::MAX, true).expect("in memory");
        assert!(!more);
        documents.into_iter().map(|document| (document.id.to_string(), document.vector[0])).collect()
    }

    #[test]
    fn a_snapshot_sees_its_position_and_nothing_later() {
        let mut documents = Documents::new(1, StorageType::F32, SegmentId(1), Lsn::ZERO);
        let mut snapshots = vec![documents.snapshot()];
        let effects = [upsert("b", 1.0), upsert("a", 2.0), upsert("b", 3.0), delete("a"), upsert("a", 4.0)];
        for (index, effect) in effects.iter().enumerate() {
            documents.apply(Lsn(index as u64 + 1), effect).expect("fits");
            snapshots.push(documents.snapshot());
        }
        let expected: [&[(&str, f32)]; 6] = [
            &[],
            &[("b", 1.0)],
            &[("a", 2.0), ("b", 1.0)],
            &[("a", 2.0), ("b", 3.0)],
            &[("b", 3.0)],
            &[("a", 4.0), ("b", 3.0)],
        ];
        for (snapshot, expected) in snapshots.iter().zip(expected) {
            let expected: Vec<_> = expected.iter().map(|(id, value)| ((*id).to_owned(), *value)).collect();
            assert_eq!(seen(snapshot), expected, "at {}", snapshot.lsn);
            assert_eq!(snapshot.documents, expected.len() as u64);
            assert_eq!(snapshot.content_digest(), snapshot.content);
        }
    }

    #[test]
    fn effects_that_do_not_fit_are_refused() {
        let mut documents = Documents::new(1, StorageType::F32, SegmentId(1), Lsn::ZERO);
        assert!(documents.apply(Lsn(1), &delete("a")).is_err());
        let id = DocumentId::parse("a").expect("valid");
        assert!(documents.apply(Lsn(1), &Effect::SetMetadata(id, Metadata::empty())).is_err());
    }

    #[test]
    fn overhead_beside_vector_id_and_metadata_is_under_100_bytes() {
        let dimension = 384;
        let mut documents = Documents::new(dimension, StorageType::F32, SegmentId(1), Lsn::ZERO);
        let count = 20_000u64;
        let mut text = 0;
        for number in 1..=count {
            let id = DocumentId::parse(&format!("document-{number}")).expect("valid");
            text += id.as_str().len() + 2;
            let vector = vec![0.5; dimension as usize];
            let document = Document { id, vector, metadata: Metadata::empty() };
            documents.apply(Lsn(number), &Effect::Upsert(document)).expect("fits");
        }
        let payload = count as usize * dimension as usize * 4 + text;
        let overhead = (documents.bytes() - payload) / count as usize;
        assert!(overhead < 100, "{overhead} bytes a document");
    }
}
