//! A primary's writes: batches become effects, effects become records of the log's group. Not durable yet, and not
//! applied before it is committed.

use xxhash_rust::xxh3::Xxh3;

use super::StorageError;
use super::effect::Effect;
use super::log::{BODY_BYTES_MAX, Record};
use super::op_window::{OpKey, Receipt};
use super::pending::{Outlook, PendingBatch, PendingRecord};
use super::reigns::Reign;
use super::store::Store;
use crate::document::{Document, Metadata, vector_to_bytes};
use crate::ids::{DocumentId, Epoch, Lsn, OpId};

/// One atomic write.
#[derive(Clone, Debug, PartialEq)]
pub struct Batch {
    /// Sent again, it is answered as before and not done again.
    pub op_id: OpId,
    /// A position that was committed when the batch was sent for the first time. A retry that comes so late that the
    /// first attempt may be forgotten is refused; without it, it is done again.
    pub base: Option<Lsn>,
    /// In order; of equal ids the last wins.
    pub operations: Vec<Operation>,
}

impl Batch {
    /// Bytes of its vectors, in single precision, its metadata, and ids of what it deletes.
    pub fn bytes(&self) -> usize {
        let bytes = |operation: &Operation| match operation {
            Operation::Upsert { document, .. } => {
                document.vector.len() * size_of::<f32>() + document.metadata.as_json().len()
            }
            Operation::SetMetadata { metadata, .. } => metadata.as_json().len(),
            Operation::Delete { id, .. } => id.as_str().len(),
        };
        self.operations.iter().map(bytes).sum()
    }
}

/// What a caller wants; checked against the table before.
#[derive(Clone, Debug, PartialEq)]
pub enum Operation {
    /// Inserts or replaces a document.
    Upsert {
        /// The new version.
        document: Document,
        /// The version that must be current; [`Lsn::ZERO`]: the document must not exist.
        if_version: Option<Lsn>,
    },
    /// Deletes a document; an absent one is no error.
    Delete {
        /// Which.
        id: DocumentId,
        /// The version that must be current; [`Lsn::ZERO`]: the document must not exist.
        if_version: Option<Lsn>,
    },
    /// Replaces the metadata of a document, which must exist.
    SetMetadata {
        /// Which.
        id: DocumentId,
        /// The final metadata.
        metadata: Metadata,
        /// The version that must be current.
        if_version: Option<Lsn>,
    },
}

/// Why a batch was refused; nothing of it was written.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Its metadata cannot be replaced.
    #[error("document {:?} does not exist", .0.as_str())]
    NoSuchDocument(DocumentId),
    /// Another version is current than the one that the condition names.
    #[error("{}", mismatch(id, *found))]
    VersionMismatch {
        /// The document.
        id: DocumentId,
        /// Its version; [`Lsn::ZERO`] when it does not exist.
        found: Lsn,
    },
    /// Another batch had its id.
    #[error("the request id was used for another write before, each write needs an id of its own")]
    OtherBatch,
    /// It may have been done before and be forgotten since.
    #[error(
        "the write was sent again too late to tell whether it was done before; read before writing again"
    )]
    TooLate,
    /// A document over the limit of the log.
    #[error("document of {bytes} bytes is over the limit of {max} bytes")]
    TooLarge {
        /// Its size.
        bytes: usize,
        /// The limit.
        max: usize,
    },
}

/// What becomes of one batch. It may be told only when everything up to `judged_by` is committed: until then, what it is
/// based on may be cut.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// Done (also for the repeat of a batch that is in the log), or refused.
    pub outcome: Result<Receipt, Refusal>,
    /// The last position that it depends on.
    pub judged_by: Lsn,
}

/// What [`Store::stage`] did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Staged {
    /// In the order of the batches.
    pub verdicts: Vec<Verdict>,
    /// The records that were added to the log, for the other replicas.
    pub records: Vec<Record>,
}

fn mismatch(id: &DocumentId, found: Lsn) -> String {
    match found {
        Lsn::ZERO => format!("document {:?} does not exist", id.as_str()),
        version => format!("document {:?} has version {version}", id.as_str()),
    }
}

impl Batch {
    /// True when it may make the data larger.
    pub fn adds(&self) -> bool {
        self.operations.iter().any(|operation| !matches!(operation, Operation::Delete { .. }))
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
            let if_version = match operation {
                Operation::Upsert { document: Document { id, vector, metadata }, if_version } => {
                    part(b"upsert");
                    part(id.as_str().as_bytes());
                    part(&vector_to_bytes(vector));
                    part(metadata.as_json().as_bytes());
                    if_version
                }
                Operation::Delete { id, if_version } => {
                    part(b"delete");
                    part(id.as_str().as_bytes());
                    if_version
                }
                Operation::SetMetadata { id, metadata, if_version } => {
                    part(b"set metadata");
                    part(id.as_str().as_bytes());
                    part(metadata.as_json().as_bytes());
                    if_version
                }
            };
            if let Some(version) = if_version {
                part(b"if version");
                part(&version.0.to_le_bytes());
            }
        }
        OpKey { id: self.op_id, digest: hasher.digest() }
    }
}

impl Store {
    /// Begins a reign: from now on this replica writes in `epoch`, which it promised before. The record is in the group
    /// that the next [`Store::sync`] makes durable.
    ///
    /// # Errors
    /// [`StorageError::Poisoned`]: nothing was added.
    ///
    /// # Panics
    /// When the epoch was not promised, or the log has a record of it already: a reign is never resumed.
    pub fn start_epoch(&mut self, epoch: Epoch) -> Result<Record, StorageError> {
        assert_eq!(epoch, self.meta.promised_epoch, "a reign is promised before it begins");
        assert!(epoch > self.log.epoch(), "{epoch} does not follow {}", self.log.epoch());
        let (kind, body) = Effect::EpochStart.encode();
        let lsn = self.log.end().next();
        let record = Record { kind, batch_end: true, epoch, lsn, op: OpKey::NONE, body };
        self.log.append([record.clone()])?;
        self.reigns.begin(Reign { epoch, first: lsn });
        let decoded = PendingRecord { lsn, digest: record.digest(), effect: Effect::EpochStart };
        self.pending.void_open();
        self.pending.push(PendingBatch { op: None, records: vec![decoded] });
        self.leads = Some(epoch);
        Ok(record)
    }

    /// Adds batches to the group that the next [`Store::sync`] makes durable. They are judged by everything that is
    /// applied and everything that waits to be.
    ///
    /// # Errors
    /// [`StorageError::Poisoned`]: nothing was added.
    ///
    /// # Panics
    /// Unless [`Store::start_epoch`] began this reign, and nothing ended it since: neither records of another primary, nor
    /// a promise.
    pub fn stage(&mut self, epoch: Epoch, batches: Vec<Batch>) -> Result<Staged, StorageError> {
        assert_eq!(self.leads, Some(epoch), "only who began a reign writes in it");
        self.log.check_poison()?;
        let mut staged = Staged::default();
        for batch in batches {
            let verdict = self.judge(epoch, batch, &mut staged.records)?;
            staged.verdicts.push(verdict);
        }
        Ok(staged)
    }

    /// Adds a batch to the log's group, unless it was done before or is refused.
    fn judge(
        &mut self,
        epoch: Epoch,
        batch: Batch,
        added: &mut Vec<Record>,
    ) -> Result<Verdict, StorageError> {
        let op = batch.key();
        if let Some((digest, receipt)) = self.pending.find(op.id).or_else(|| self.applied.window.get(op.id)) {
            let outcome = if digest == op.digest { Ok(receipt) } else { Err(Refusal::OtherBatch) };
            return Ok(Verdict { outcome, judged_by: receipt.lsn });
        }
        let end = self.log.end();
        let refused = |refusal| Ok(Verdict { outcome: Err(refusal), judged_by: end });
        if batch.base.is_some_and(|base| base < self.applied.window.forgotten()) {
            return refused(Refusal::TooLate);
        }
        let effects = match self.resolve(batch.operations) {
            Ok(effects) => effects,
            Err(refusal) => return refused(refusal),
        };
        let records = encode(epoch, end, op, &effects);
        if let Some(record) = records.iter().find(|record| record.body.len() > BODY_BYTES_MAX) {
            return refused(Refusal::TooLarge { bytes: record.body.len(), max: BODY_BYTES_MAX });
        }
        self.log.append(records.iter().cloned())?;
        let decoded = |(record, effect): (&Record, Effect)| PendingRecord {
            lsn: record.lsn,
            digest: record.digest(),
            effect,
        };
        let batch =
            PendingBatch { op: Some(op), records: records.iter().zip(effects).map(decoded).collect() };
        let receipt = batch.receipt();
        self.pending.push(batch);
        added.extend(records);
        Ok(Verdict { outcome: Ok(receipt), judged_by: receipt.lsn })
    }

    /// Turns intentions into effects, under the order in which they will be applied.
    fn resolve(&self, operations: Vec<Operation>) -> Result<Vec<Effect>, Refusal> {
        let documents = self.shared.documents.read().expect("no panic under this lock");
        let mut outlook = Outlook::new(&documents, &self.pending);
        let mut effects = Vec::with_capacity(operations.len());
        for operation in operations {
            let lsn = Lsn(self.log.end().0 + 1 + effects.len() as u64);
            match operation {
                Operation::Upsert { document, if_version } => {
                    check(&outlook, &document.id, if_version)?;
                    outlook.set(document.id.clone(), lsn);
                    effects.push(Effect::Upsert(document));
                }
                Operation::Delete { id, if_version } => {
                    check(&outlook, &id, if_version)?;
                    if outlook.version(&id) != Lsn::ZERO {
                        outlook.set(id.clone(), Lsn::ZERO);
                        effects.push(Effect::Delete(id));
                    }
                }
                Operation::SetMetadata { id, .. } if outlook.version(&id) == Lsn::ZERO => {
                    return Err(Refusal::NoSuchDocument(id));
                }
                Operation::SetMetadata { id, metadata, if_version } => {
                    check(&outlook, &id, if_version)?;
                    outlook.set(id.clone(), lsn);
                    effects.push(Effect::SetMetadata(id, metadata));
                }
            }
        }
        if effects.is_empty() {
            // Logged all the same, so that a late retry does not find something to delete.
            effects.push(Effect::Noop);
        }
        Ok(effects)
    }
}

fn check(outlook: &Outlook<'_>, id: &DocumentId, if_version: Option<Lsn>) -> Result<(), Refusal> {
    let found = outlook.version(id);
    match if_version {
        Some(wanted) if wanted != found => Err(Refusal::VersionMismatch { id: id.clone(), found }),
        _ => Ok(()),
    }
}

/// The records of a batch behind position `end`.
fn encode(epoch: Epoch, end: Lsn, op: OpKey, effects: &[Effect]) -> Vec<Record> {
    let last = effects.len() - 1;
    let record = |(index, effect): (usize, &Effect)| {
        let (kind, body) = effect.encode();
        Record { kind, batch_end: index == last, epoch, lsn: Lsn(end.0 + 1 + index as u64), op, body }
    };
    effects.iter().enumerate().map(record).collect()
}
