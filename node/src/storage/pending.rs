//! Records that are in the log and not applied: they may still be cut.
//!
//! Writes are judged by what documents will be once everything here is applied: the [`Outlook`]. Nothing here touches the
//! documents.

use std::collections::{HashMap, VecDeque};

use super::documents::Documents;
use super::effect::Effect;
use super::log::Record;
use super::op_window::{OpKey, Receipt};
use crate::ids::{DocumentId, Lsn, OpId};

/// A record, decoded.
#[derive(Clone, Debug)]
pub(super) struct PendingRecord {
    pub(super) lsn: Lsn,
    /// [`Record::digest`].
    pub(super) digest: u64,
    pub(super) effect: Effect,
}

impl PendingRecord {
    /// The error says what is wrong with the record's body.
    pub(super) fn decode(record: &Record) -> Result<PendingRecord, String> {
        Ok(PendingRecord { lsn: record.lsn, digest: record.digest(), effect: Effect::decode(record)? })
    }
}

/// Records that apply together.
#[derive(Debug)]
pub(super) struct PendingBatch {
    /// `None`: a record of our own, which nobody sends again.
    pub(super) op: Option<OpKey>,
    /// At least one.
    pub(super) records: Vec<PendingRecord>,
}

impl PendingBatch {
    pub(super) fn last(&self) -> Lsn {
        self.records.last().expect("a batch has records").lsn
    }

    pub(super) fn effects(&self) -> impl Iterator<Item = &Effect> {
        self.records.iter().map(|record| &record.effect)
    }

    pub(super) fn receipt(&self) -> Receipt {
        let affected = self.records.iter().filter(|record| record.effect.is_of_document()).count() as u64;
        Receipt { lsn: self.last(), affected }
    }
}

/// Records of a batch that has not ended.
#[derive(Clone, Debug, Default)]
pub(super) struct OpenBatch(Vec<PendingRecord>);

impl OpenBatch {
    /// Adds a record; the batch when it ends with it. The start of a reign voids what did not end before it.
    pub(super) fn add(&mut self, record: &Record) -> Result<Option<PendingBatch>, String> {
        let decoded = PendingRecord::decode(record)?;
        let is_reign = decoded.effect == Effect::EpochStart;
        if is_reign {
            self.0.clear();
        }
        self.0.push(decoded);
        if !record.batch_end {
            return Ok(None);
        }
        let records = std::mem::take(&mut self.0);
        Ok(Some(PendingBatch { op: (!is_reign).then_some(record.op), records }))
    }
}

/// Everything that is not applied, in order.
#[derive(Debug, Default)]
pub(super) struct Pending {
    batches: VecDeque<PendingBatch>,
    pub(super) open: OpenBatch,
    /// Documents that whole batches touch.
    touched: HashMap<DocumentId, Touch>,
    /// Requests with their digests and what becomes of them.
    ops: HashMap<OpId, (u64, Receipt)>,
}

/// The last record that touches a document.
#[derive(Clone, Copy, Debug)]
struct Touch {
    lsn: Lsn,
    exists: bool,
}

impl Pending {
    /// Adds a batch behind the others.
    pub(super) fn push(&mut self, batch: PendingBatch) {
        self.note(&batch);
        self.batches.push_back(batch);
    }

    /// Forgets the batch that has not ended: a reign begins.
    pub(super) fn void_open(&mut self) {
        self.open = OpenBatch::default();
    }

    /// Takes the first batch, if it ends at or before `lsn`.
    pub(super) fn pop(&mut self, lsn: Lsn) -> Option<PendingBatch> {
        let batch = self.batches.pop_front_if(|batch| batch.last() <= lsn)?;
        for record in &batch.records {
            if let Some((id, _)) = record.effect.touches()
                && self.touched.get(id).is_some_and(|touch| touch.lsn == record.lsn)
            {
                self.touched.remove(id);
            }
        }
        if let Some(op) = batch.op {
            self.ops.remove(&op.id);
        }
        Some(batch)
    }

    /// Bytes of vectors and metadata of the batches that end at or before `lsn`, or more than `enough` of them.
    pub(super) fn bytes_until(&self, lsn: Lsn, enough: usize) -> usize {
        let mut bytes = 0;
        for record in
            self.batches.iter().take_while(|batch| batch.last() <= lsn).flat_map(|batch| &batch.records)
        {
            bytes += record.effect.content_bytes();
            if bytes > enough {
                break;
            }
        }
        bytes
    }

    /// Forgets everything behind `lsn`, and a batch that it divides.
    pub(super) fn cut(&mut self, lsn: Lsn) {
        self.open = OpenBatch::default();
        while self.batches.pop_back_if(|batch| batch.last() > lsn).is_some() {}
        self.touched.clear();
        self.ops.clear();
        let batches = std::mem::take(&mut self.batches);
        batches.iter().for_each(|batch| self.note(batch));
        self.batches = batches;
    }

    /// The end of the last batch that ends at or before `lsn`.
    pub(super) fn last_end(&self, lsn: Lsn) -> Option<Lsn> {
        let ended = self.batches.partition_point(|batch| batch.last() <= lsn);
        ended.checked_sub(1).map(|index| self.batches[index].last())
    }

    /// The digest of the batch with this id, and its receipt.
    pub(super) fn find(&self, id: OpId) -> Option<(u64, Receipt)> {
        self.ops.get(&id).copied()
    }

    fn note(&mut self, batch: &PendingBatch) {
        for record in &batch.records {
            if let Some((id, exists)) = record.effect.touches() {
                self.touched.insert(id.clone(), Touch { lsn: record.lsn, exists });
            }
        }
        if let Some(op) = batch.op {
            self.ops.insert(op.id, (op.digest, batch.receipt()));
        }
    }
}

/// What documents will be once everything pending is applied, and then what [`Outlook::set`] says.
pub(super) struct Outlook<'s> {
    documents: &'s Documents,
    pending: &'s Pending,
    changed: HashMap<DocumentId, Lsn>,
}

impl<'s> Outlook<'s> {
    pub(super) fn new(documents: &'s Documents, pending: &'s Pending) -> Outlook<'s> {
        Outlook { documents, pending, changed: HashMap::new() }
    }

    /// The version of a document; [`Lsn::ZERO`] when it does not exist.
    pub(super) fn version(&self, id: &DocumentId) -> Lsn {
        if let Some(version) = self.changed.get(id) {
            return *version;
        }
        match self.pending.touched.get(id) {
            Some(touch) if touch.exists => touch.lsn,
            Some(_) => Lsn::ZERO,
            None => self.documents.version(id.as_str()),
        }
    }

    pub(super) fn set(&mut self, id: DocumentId, version: Lsn) {
        self.changed.insert(id, version);
    }

    /// Checks that a batch of another replica fits, and takes it in: applied later, it cannot fail.
    pub(super) fn take(&mut self, batch: &PendingBatch) -> Result<(), String> {
        for PendingRecord { lsn, effect, .. } in &batch.records {
            match effect {
                Effect::Upsert(document) if document.vector.len() != self.documents.dimension() => {
                    let (found, stored) = (document.vector.len(), self.documents.dimension());
                    return Err(format!("vector of {found} values where {stored} are stored"));
                }
                Effect::Upsert(document) if !self.documents.storage_type().holds(&document.vector) => {
                    let storage_type = self.documents.storage_type().as_str();
                    return Err(format!("vector has a value that {storage_type} does not hold"));
                }
                Effect::Delete(id) | Effect::SetMetadata(id, _) if self.version(id) == Lsn::ZERO => {
                    return Err(format!("document {:?} does not exist", id.as_str()));
                }
                _ => {}
            }
            if let Some((id, exists)) = effect.touches() {
                self.set(id.clone(), if exists { *lsn } else { Lsn::ZERO });
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use vectorsphere_index::StorageType;

    use super::*;
    use crate::document::{Document, Metadata};
    use crate::storage::segment::SegmentId;

    fn id(text: &str) -> DocumentId {
        DocumentId::parse(text).expect("valid")
    }

    fn upsert(text: &str) -> Effect {
        Effect::Upsert(Document { id: id(text), vector: vec![1.0], metadata: Metadata::empty() })
    }

    fn batch(first: u64, op: u8, effects: Vec<Effect>) -> PendingBatch {
        let record = |(lsn, effect)| PendingRecord { lsn: Lsn(lsn), digest: 0, effect };
        let op = Some(OpKey { id: OpId([op; 16]), digest: u64::from(op) });
        PendingBatch { op, records: (first..).zip(effects).map(record).collect() }
    }

    /// a@1, b@2 | a deleted @3 | a@4
    fn three_batches() -> Pending {
        let mut pending = Pending::default();
        pending.push(batch(1, 1, vec![upsert("a"), upsert("b")]));
        pending.push(batch(3, 2, vec![Effect::Delete(id("a"))]));
        pending.push(batch(4, 3, vec![upsert("a")]));
        pending
    }

    fn versions(pending: &Pending) -> [u64; 2] {
        let documents = Documents::new(1, StorageType::F32, SegmentId(0), Lsn::ZERO);
        let outlook = Outlook::new(&documents, pending);
        ["a", "b"].map(|text| outlook.version(&id(text)).0)
    }

    #[test]
    fn the_outlook_is_what_the_last_batch_left() {
        let mut pending = three_batches();
        assert_eq!(versions(&pending), [4, 2]);
        let ops = |pending: &Pending| [1, 2, 3].map(|op| pending.find(OpId([op; 16])).is_some());
        assert_eq!(ops(&pending), [true, true, true]);
        pending.cut(Lsn(3));
        assert_eq!((versions(&pending), ops(&pending)), ([0, 2], [true, true, false]));
        pending.cut(Lsn(2));
        assert_eq!((versions(&pending), ops(&pending)), ([1, 2], [true, false, false]));
        pending.cut(Lsn(1));
        assert_eq!((versions(&pending), ops(&pending)), ([0, 0], [false, false, false]));
    }

    #[test]
    fn what_is_taken_out_is_no_part_of_the_outlook_any_more() {
        let mut pending = three_batches();
        assert!(pending.pop(Lsn(1)).is_none(), "half of a batch");
        assert_eq!(pending.last_end(Lsn(3)), Some(Lsn(3)));
        assert_eq!((pending.last_end(Lsn(1)), pending.last_end(Lsn(2))), (None, Some(Lsn(2))));
        assert_eq!(pending.pop(Lsn(3)).map(|batch| batch.last()), Some(Lsn(2)));
        assert_eq!(versions(&pending), [4, 0], "b is where it was applied to");
        assert_eq!(pending.pop(Lsn(3)).map(|batch| batch.last()), Some(Lsn(3)));
        assert!(pending.pop(Lsn(3)).is_none());
        assert_eq!(pending.pop(Lsn(9)).map(|batch| batch.last()), Some(Lsn(4)));
        assert_eq!(versions(&pending), [0, 0]);
    }

    #[test]
    fn batches_that_do_not_fit_are_seen() {
        let (documents, pending) =
            (Documents::new(1, StorageType::F32, SegmentId(0), Lsn::ZERO), three_batches());
        let take = |effects| Outlook::new(&documents, &pending).take(&batch(5, 4, effects));
        assert!(take(vec![Effect::Delete(id("a")), upsert("a"), Effect::Delete(id("a"))]).is_ok());
        assert!(take(vec![Effect::Delete(id("a")), Effect::Delete(id("a"))]).is_err());
        assert!(take(vec![Effect::SetMetadata(id("c"), Metadata::empty())]).is_err());
        let long = Document { id: id("a"), vector: vec![1.0; 2], metadata: Metadata::empty() };
        assert!(take(vec![Effect::Upsert(long)]).is_err());
    }
}
