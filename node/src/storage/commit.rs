//! Group commit: batches become effects, effects become records, one sync makes them durable, then they are applied.

use std::collections::HashMap;
use std::sync::Arc;

use xxhash_rust::xxh3::Xxh3;

use super::StorageError;
use super::effect::Effect;
use super::op_window::{OpKey, Receipt};
use super::store::{Outcome, Store};
use crate::document::{Document, Metadata, vector_to_bytes};
use crate::ids::{DocumentId, Lsn, OpId};

/// One atomic write.
#[derive(Clone, Debug, PartialEq)]
pub struct Batch {
    /// Sent again, it is answered as before and not done again.
    pub op_id: OpId,
    /// In order; of equal ids the last wins.
    pub operations: Vec<Operation>,
}

/// What a caller wants; checked against the table before.
#[derive(Clone, Debug, PartialEq)]
pub enum Operation {
    /// Inserts or replaces a document.
    Upsert(Document),
    /// Deletes a document; an absent one is no error.
    Delete(DocumentId),
    /// Replaces the metadata of a document, which must exist.
    SetMetadata(DocumentId, Metadata),
}

/// Why a batch was refused; nothing of it was written.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Its metadata cannot be replaced.
    #[error("document {:?} does not exist", .0.as_str())]
    NoSuchDocument(DocumentId),
    /// Another batch had its id.
    #[error("the request id was used for another write before, each write needs an id of its own")]
    OtherBatch,
    /// A document over the limit of the log.
    #[error("document of {bytes} bytes is over the limit of {max} bytes")]
    TooLarge {
        /// Its size.
        bytes: usize,
        /// The limit.
        max: usize,
    },
}

/// The batches of one sync.
#[derive(Default)]
pub(super) struct Group {
    /// Whether a document exists once the group is applied, for those that the group touches.
    exists: HashMap<DocumentId, bool>,
    staged: Vec<Staged>,
}

struct Staged {
    /// `None`: a record of our own, which nobody sends again.
    op: Option<OpKey>,
    /// Position of the last effect.
    lsn: Lsn,
    effects: Vec<Effect>,
}

/// What is known of a batch before the sync.
enum Verdict {
    Done(Receipt),
    Refused(Refusal),
}

impl Group {
    /// A record of our own.
    pub(super) fn of_one(lsn: Lsn, effect: Effect) -> Group {
        let staged = Staged { op: None, lsn, effects: vec![effect] };
        Group { exists: HashMap::new(), staged: vec![staged] }
    }

    /// The digest of the batch with this id, and its receipt.
    fn find(&self, id: OpId) -> Option<(u64, Receipt)> {
        self.staged.iter().find_map(|staged| {
            let op = staged.op.filter(|op| op.id == id)?;
            Some((op.digest, staged.receipt()))
        })
    }
}

impl Batch {
    /// True when it may make the data larger.
    pub fn adds(&self) -> bool {
        self.operations.iter().any(|operation| !matches!(operation, Operation::Delete(_)))
    }

    /// Id and digest of the batch. The digest is part of the log's format: it never changes for the same operations.
    pub fn key(&self) -> OpKey {
        let mut hasher = Xxh3::new();
        // Lengths keep one part from passing for the beginning of the next.
        let mut part = |bytes: &[u8]| {
            hasher.update(&(bytes.len() as u64).to_le_bytes());
            hasher.update(bytes);
        };
        for operation in &self.operations {
            match operation {
                Operation::Upsert(Document { id, vector, metadata }) => {
                    part(b"upsert");
                    part(id.as_str().as_bytes());
                    part(&vector_to_bytes(vector));
                    part(metadata.as_json().as_bytes());
                }
                Operation::Delete(id) => {
                    part(b"delete");
                    part(id.as_str().as_bytes());
                }
                Operation::SetMetadata(id, metadata) => {
                    part(b"set metadata");
                    part(id.as_str().as_bytes());
                    part(metadata.as_json().as_bytes());
                }
            }
        }
        OpKey { id: self.op_id, digest: hasher.digest() }
    }
}

impl Staged {
    fn receipt(&self) -> Receipt {
        let affected = self.effects.iter().filter(|effect| effect.is_of_document()).count() as u64;
        Receipt { lsn: self.lsn, affected }
    }
}

impl Store {
    /// Writes batches with one sync and applies them. Outcomes are in the order of the batches.
    ///
    /// A refusal depends on documents, maybe on those of earlier batches of the group; so it is told after the sync.
    ///
    /// # Errors
    /// [`StorageError::Poisoned`]: nothing was written. Any other: it is unknown which of the batches a recovery will
    /// find; the replica takes no more writes.
    pub fn commit(&mut self, batches: Vec<Batch>) -> Result<Vec<Outcome>, StorageError> {
        let mut group = Group::default();
        let mut verdicts = Vec::with_capacity(batches.len());
        for batch in batches {
            verdicts.push(self.stage(batch, &mut group)?);
        }
        self.log.sync()?;
        self.apply(&group);
        let outcome = |verdict| match verdict {
            Verdict::Done(receipt) => Ok(receipt),
            Verdict::Refused(refusal) => Err(refusal),
        };
        Ok(verdicts.into_iter().map(outcome).collect())
    }

    /// Adds a batch to the log's group, unless it was done before or is refused.
    fn stage(&mut self, batch: Batch, group: &mut Group) -> Result<Verdict, StorageError> {
        let op = batch.key();
        match self.window.get(op.id).or_else(|| group.find(op.id)) {
            Some((digest, receipt)) if digest == op.digest => return Ok(Verdict::Done(receipt)),
            Some(_) => return Ok(Verdict::Refused(Refusal::OtherBatch)),
            None => {}
        }
        let (effects, exists) = match self.resolve(batch.operations, group) {
            Ok(resolved) => resolved,
            Err(refusal) => return Ok(Verdict::Refused(refusal)),
        };
        let records = effects.iter().map(Effect::encode).collect();
        let lsn = match self.log.append(self.epoch, op, records) {
            Err(StorageError::RecordTooLarge { bytes, max }) => {
                return Ok(Verdict::Refused(Refusal::TooLarge { bytes, max }));
            }
            appended => appended?,
        };
        group.exists.extend(exists);
        let staged = Staged { op: Some(op), lsn, effects };
        let receipt = staged.receipt();
        group.staged.push(staged);
        Ok(Verdict::Done(receipt))
    }

    /// Turns intentions into effects, under the order in which they will be applied.
    fn resolve(
        &self,
        operations: Vec<Operation>,
        group: &Group,
    ) -> Result<(Vec<Effect>, HashMap<DocumentId, bool>), Refusal> {
        let documents = self.shared.documents.read().expect("no panic under this lock");
        let mut exists: HashMap<DocumentId, bool> = HashMap::new();
        let mut effects = Vec::with_capacity(operations.len());
        for operation in operations {
            let does_exist = |id: &DocumentId| {
                let touched = exists.get(id).or_else(|| group.exists.get(id)).copied();
                touched.unwrap_or_else(|| documents.contains(id.as_str()))
            };
            match operation {
                Operation::Upsert(document) => {
                    exists.insert(document.id.clone(), true);
                    effects.push(Effect::Upsert(document));
                }
                Operation::Delete(id) if does_exist(&id) => {
                    exists.insert(id.clone(), false);
                    effects.push(Effect::Delete(id));
                }
                Operation::Delete(_) => {}
                Operation::SetMetadata(id, metadata) if does_exist(&id) => {
                    effects.push(Effect::SetMetadata(id, metadata));
                }
                Operation::SetMetadata(id, _) => return Err(Refusal::NoSuchDocument(id)),
            }
        }
        if effects.is_empty() {
            // Logged all the same, so that a late retry does not find something to delete.
            effects.push(Effect::Noop);
        }
        Ok((effects, exists))
    }

    /// Applies a durable group and lets readers see it.
    pub(super) fn apply(&mut self, group: &Group) {
        let mut documents = self.shared.documents.write().expect("no panic under this lock");
        for staged in &group.staged {
            let first = staged.lsn.0 + 1 - staged.effects.len() as u64;
            for (lsn, effect) in (first..).zip(&staged.effects) {
                documents.apply(Lsn(lsn), effect).expect("effects were resolved against these documents");
            }
            if let Some(op) = staged.op {
                self.window.insert(op, staged.receipt());
            }
        }
        // Within the lock: what a look-up finds, a search finds too.
        self.shared.snapshot.store(Arc::new(documents.snapshot()));
    }
}
