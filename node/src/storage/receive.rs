//! A follower's log: records that another replica's primary wrote are taken in, and cut when its successor's log does not
//! have them.

use super::StorageError;
use super::log::{BODY_BYTES_MAX, Record, RecordKind};
use super::pending::{OpenBatch, Outlook, PendingBatch};
use super::reigns::Reign;
use super::store::Store;
use crate::ids::{Epoch, Lsn};

impl Store {
    /// Adds a primary's records to the group that the next [`Store::sync`] makes durable. All of them are taken, or none.
    /// Records of a batch that has not ended become durable with its end.
    ///
    /// # Errors
    /// [`StorageError::Refused`] when they do not follow the end of the log, are of a reign that was not promised or is
    /// over, or do not fit the documents. [`StorageError::Poisoned`] after a failed write.
    pub fn receive(&mut self, records: Vec<Record>) -> Result<(), StorageError> {
        self.log.check_poison()?;
        let (batches, open) = self.check(&records)?;
        if !records.is_empty() {
            self.leads = None;
        }
        for start in records.iter().filter(|record| record.kind == RecordKind::EpochStart) {
            self.reigns.begin(Reign { epoch: start.epoch, first: start.lsn });
        }
        self.log.append(records)?;
        batches.into_iter().for_each(|batch| self.pending.push(batch));
        self.pending.open = open;
        Ok(())
    }

    /// The batches that end with these records, and the one that does not.
    fn check(&self, records: &[Record]) -> Result<(Vec<PendingBatch>, OpenBatch), StorageError> {
        let documents = self.shared.documents.read().expect("no panic under this lock");
        let mut outlook = Outlook::new(&documents, &self.pending);
        let (mut batches, mut open) = (Vec::new(), self.pending.open.clone());
        let (mut end, mut epoch) = (self.log.end(), self.log.epoch());
        for record in records {
            let refused = |reason: String| StorageError::refused(format!("record {}", record.lsn), reason);
            if self.leads == Some(record.epoch) {
                return Err(refused(format!("this replica leads epoch {}", record.epoch)));
            }
            check_order(record, end, epoch, self.meta.promised_epoch).map_err(refused)?;
            (end, epoch) = (record.lsn, record.epoch);
            if let Some(batch) = open.add(record).map_err(refused)? {
                outlook.take(&batch).map_err(refused)?;
                batches.push(batch);
            }
        }
        Ok((batches, open))
    }

    /// Removes every record behind `to`. What is left of a batch that it divides waits in memory for the batch to end, as if it
    /// had just been received. Durable records that go are kept in `orphans/`. Durable on return; a crash leaves the log
    /// before or after the cut.
    ///
    /// # Panics
    /// When something that is applied would go, or while this replica leads: its log is the truth then.
    pub fn cut(&mut self, to: Lsn) -> Result<(), StorageError> {
        assert!(
            to >= self.applied(),
            "what is applied is never undone, and {to} lies before {}",
            self.applied()
        );
        assert_eq!(self.leads, None, "the log of a primary is the truth");
        self.log.check_poison()?;
        if to >= self.log.end() {
            return Ok(());
        }
        let (cut, to) = (to, self.pending.last_end(to).unwrap_or(self.applied()));
        let divided = self.log.records(to.next(), cut)?;
        let epoch = self.reigns.epoch_at(to);
        if to < self.log.durable() {
            self.log.copy_orphans(&self.place.directory.join("orphans"), to, epoch)?;
            // First the mark: the absence of what goes must not look like damage.
            self.save(|meta| meta.durable = to)?;
        }
        self.log.cut(to, epoch)?;
        self.pending.cut(to);
        self.reigns.cut(to);
        self.receive(divided)
    }
}

/// Checks that a record may stand behind `end`, whose record is of `epoch`.
fn check_order(record: &Record, end: Lsn, epoch: Epoch, promised: Epoch) -> Result<(), String> {
    let begins = record.kind == RecordKind::EpochStart;
    if record.lsn != end.next() {
        return Err(format!("the log ends at {end}"));
    }
    if record.epoch < epoch || record.epoch > promised {
        return Err(format!("epoch {} is not between {epoch} and {promised}", record.epoch));
    }
    if begins != (record.epoch > epoch) || begins && !record.batch_end {
        return Err(format!("epoch {} must begin with its start, and with it only", record.epoch));
    }
    if record.body.len() > BODY_BYTES_MAX {
        return Err(format!("body of {} bytes is over the limit", record.body.len()));
    }
    Ok(())
}
