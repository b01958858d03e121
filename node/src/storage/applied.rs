//! Applying: what is committed becomes documents, requests that are remembered, and digests. It is never undone.

use std::collections::VecDeque;
use std::sync::Arc;

use super::digest::{self, DIGEST_INTERVAL, Digest};
use super::documents::Documents;
use super::op_window::OpWindow;
use super::pending::PendingBatch;
use super::store::Store;
use crate::ids::Lsn;

/// Digests at multiples of [`DIGEST_INTERVAL`] that are kept.
const MARKS_MAX: usize = 8;

/// Bytes of vectors and metadata that are applied in about 20 us.
const BYTES_AT_ONCE: usize = 32 << 10;

/// What follows from the applied records beside the documents.
pub(super) struct Applied {
    /// At the last applied position.
    pub(super) digest: Digest,
    pub(super) window: OpWindow,
    marks: VecDeque<Digest>,
}

impl Applied {
    /// At the position of a checkpoint.
    pub(super) fn new(digest: Digest, window: OpWindow) -> Applied {
        Applied { digest, window, marks: VecDeque::new() }
    }

    /// Applies a batch.
    ///
    /// # Errors
    /// When it does not fit the documents.
    pub(super) fn apply(&mut self, documents: &mut Documents, batch: &PendingBatch) -> Result<(), String> {
        for record in &batch.records {
            documents
                .apply(record.lsn, &record.effect)
                .map_err(|reason| format!("record {}: {reason}", record.lsn))?;
            let log = digest::of_log(self.digest.log, record.digest);
            self.digest = Digest { lsn: record.lsn, content: documents.content_digest(), log };
            if record.lsn.0.is_multiple_of(DIGEST_INTERVAL) {
                self.marks.push_back(self.digest);
                if self.marks.len() > MARKS_MAX {
                    self.marks.pop_front();
                }
            }
        }
        if let Some(op) = batch.op {
            self.window.insert(op, batch.receipt());
        }
        Ok(())
    }

    fn mark(&self, lsn: Lsn) -> Option<Digest> {
        self.marks.iter().find(|mark| mark.lsn == lsn).copied()
    }
}

impl Store {
    /// Applies whole batches that are durable, up to `commit`, and lets readers see them. Returns the last applied
    /// position, which is that of the end of a batch.
    ///
    /// `commit` is a position up to which every in-sync replica has the log: from now on none of it is cut.
    pub fn apply(&mut self, commit: Lsn) -> Lsn {
        let durable = self.log.durable();
        if self.torn_at.is_some_and(|end| end < commit && commit <= durable) {
            // The primary told this position after the replica was opened, and all up to it is here.
            self.torn_at = None;
        }
        let upto = commit.min(durable);
        let Some(first) = self.pending.pop(upto) else { return self.applied() };
        let shared = self.shared.clone();
        let mut documents = shared.documents.write().expect("no panic under this lock");
        let mut next = Some(first);
        while let Some(batch) = next {
            self.applied.apply(&mut documents, &batch).expect("checked when it was taken into the log");
            next = self.pending.pop(upto);
        }
        // Within the lock: what a look-up finds, a search finds too.
        shared.snapshot.store(Arc::new(documents.snapshot()));
        self.applied()
    }

    /// True when [`Store::apply`] up to `commit` takes no longer than a hand-over between threads would.
    pub fn applies_at_once(&self, commit: Lsn) -> bool {
        self.pending.bytes_until(commit, BYTES_AT_ONCE) <= BYTES_AT_ONCE
    }

    /// Position of the last applied record.
    pub fn applied(&self) -> Lsn {
        self.applied.digest.lsn
    }

    /// What the replica holds at the last applied position.
    pub fn digest(&self) -> Digest {
        self.applied.digest
    }

    /// What it held at `lsn`, one of the last few multiples of [`DIGEST_INTERVAL`]; `None` for another position.
    pub fn digest_at(&self, lsn: Lsn) -> Option<Digest> {
        self.applied.mark(lsn)
    }
}
