//! Group commit: batches become effects, effects become records, one sync makes them durable, then they are applied.

use std::collections::HashMap;

use super::StorageError;
use super::effect::Effect;
use super::op_window::Receipt;
use super::store::{Outcome, Store};
use crate::document::{Document, Metadata};
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
    op_id: Option<OpId>,
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
    /// A record of our own, without an operation to remember.
    pub(super) fn of_one(lsn: Lsn, effect: Effect) -> Group {
        let staged = Staged { op_id: None, lsn, effects: vec![effect] };
        Group { exists: HashMap::new(), staged: vec![staged] }
    }

    fn find(&self, op_id: &OpId) -> Option<Receipt> {
        self.staged.iter().find(|staged| staged.op_id.as_ref() == Some(op_id)).map(Staged::receipt)
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
        let known = self.window.get(&batch.op_id).or_else(|| group.find(&batch.op_id));
        if let Some(receipt) = known {
            return Ok(Verdict::Done(receipt));
        }
        let (effects, exists) = match self.resolve(batch.operations, group) {
            Ok(resolved) => resolved,
            Err(refusal) => return Ok(Verdict::Refused(refusal)),
        };
        let records = effects.iter().map(Effect::encode).collect();
        let lsn = match self.log.append(self.epoch, batch.op_id, records) {
            Err(StorageError::RecordTooLarge { bytes, max }) => {
                return Ok(Verdict::Refused(Refusal::TooLarge { bytes, max }));
            }
            appended => appended?,
        };
        group.exists.extend(exists);
        let staged = Staged { op_id: Some(batch.op_id), lsn, effects };
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
        for staged in &group.staged {
            let mut documents = self.shared.documents.write().expect("no panic under this lock");
            let first = staged.lsn.0 + 1 - staged.effects.len() as u64;
            for (lsn, effect) in (first..).zip(&staged.effects) {
                documents.apply(Lsn(lsn), effect).expect("effects were resolved against these documents");
            }
            drop(documents);
            if let Some(op_id) = staged.op_id {
                self.window.insert(op_id, staged.receipt());
            }
        }
        self.publish();
    }
}
