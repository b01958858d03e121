//! What documents must be after a sequence of batches: the plainest program that says it.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use crate::ids::{Epoch, Lsn, OpId};
use crate::storage::{Batch, Operation, Receipt, Record, Refusal, Verdict};

/// A document: vector, metadata, version.
pub(super) type Row = (Vec<f32>, String, Lsn);

/// The documents and the requests behind some position.
#[derive(Clone, Debug, Default)]
pub(super) struct Oracle {
    pub(super) documents: BTreeMap<String, Row>,
    requests: HashMap<OpId, (Arc<Batch>, Receipt)>,
}

/// One batch in a log, or the start of a reign with the records that it voids.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) epoch: Epoch,
    pub(super) first: Lsn,
    pub(super) last: Lsn,
    /// `None`: the start of a reign.
    pub(super) batch: Option<Arc<Batch>>,
    pub(super) records: Vec<Record>,
}

impl Oracle {
    /// Takes an entry of a log in.
    pub(super) fn take(&mut self, entry: &Entry) {
        if let Some(batch) = &entry.batch {
            let verdict = self.judge(batch, Lsn(entry.first.0 - 1));
            assert_eq!(verdict.judged_by, entry.last, "the same everywhere");
        }
    }

    /// What becomes of a batch behind position `end`; takes it in when it is done.
    pub(super) fn judge(&mut self, batch: &Arc<Batch>, end: Lsn) -> Verdict {
        if let Some((known, receipt)) = self.requests.get(&batch.op_id) {
            let is_same = known.operations == batch.operations;
            let outcome = if is_same { Ok(*receipt) } else { Err(Refusal::OtherBatch) };
            return Verdict { outcome, judged_by: receipt.lsn };
        }
        let mut after = self.documents.clone();
        let mut affected = 0;
        for operation in &batch.operations {
            let lsn = Lsn(end.0 + affected + 1);
            match change(&mut after, operation, lsn) {
                Ok(changed) => affected += u64::from(changed),
                Err(refusal) => return Verdict { outcome: Err(refusal), judged_by: end },
            }
        }
        self.documents = after;
        let receipt = Receipt { lsn: Lsn(end.0 + affected.max(1)), affected };
        self.requests.insert(batch.op_id, (batch.clone(), receipt));
        Verdict { outcome: Ok(receipt), judged_by: receipt.lsn }
    }

    /// The version of a document; 0 when there is none.
    pub(super) fn version(&self, id: &str) -> Lsn {
        self.documents.get(id).map_or(Lsn::ZERO, |(_, _, version)| *version)
    }
}

/// Does one operation; `false` when there is nothing to do.
fn change(documents: &mut BTreeMap<String, Row>, operation: &Operation, lsn: Lsn) -> Result<bool, Refusal> {
    let (Operation::Upsert { document: crate::document::Document { id, .. }, .. }
    | Operation::Delete { id, .. }
    | Operation::SetMetadata { id, .. }) = operation;
    let found = documents.get(id.as_str()).map_or(Lsn::ZERO, |(_, _, version)| *version);
    if let Operation::Upsert { if_version: Some(wanted), .. }
    | Operation::Delete { if_version: Some(wanted), .. } = operation
        && *wanted != found
    {
        return Err(Refusal::VersionMismatch { id: id.clone(), found });
    }
    match operation {
        Operation::Upsert { document, .. } => {
            let row = (document.vector.clone(), document.metadata.as_json().to_owned(), lsn);
            documents.insert(id.as_str().to_owned(), row);
        }
        Operation::Delete { .. } => return Ok(documents.remove(id.as_str()).is_some()),
        Operation::SetMetadata { metadata, .. } => {
            let row = documents.get_mut(id.as_str()).ok_or_else(|| Refusal::NoSuchDocument(id.clone()))?;
            (row.1, row.2) = (metadata.as_json().to_owned(), lsn);
        }
    }
    Ok(true)
}
