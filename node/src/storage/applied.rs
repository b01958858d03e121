//! Applying: what is committed becomes documents, requests that are remembered, and digests. It is never undone.

use std::collections::VecDeque;
use std::sync::Arc;

use super::StorageError;
use super::digest::{self, DIGEST_INTERVAL, Digest};
use super::documents::{Documents, FetchedVectors};
use super::op_window::OpWindow;
use super::pending::PendingBatch;
use super::segment::RowPlace;
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

    /// Applies a batch; `fetched` is what [`Documents::fetch`] gave for its effects.
    ///
    /// # Errors
    /// When it does not fit the documents.
    pub(super) fn apply(
        &mut self,
        documents: &mut Documents,
        batch: &PendingBatch,
        fetched: &FetchedVectors,
    ) -> Result<(), String> {
        for record in &batch.records {
            documents
                .apply_with(record.lsn, &record.effect, fetched)
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
    ///
    /// # Errors
    /// When a vector that new metadata goes with cannot be read from its file: nothing is applied, and the store takes nothing
    /// more.
    pub fn apply(&mut self, commit: Lsn) -> Result<Lsn, StorageError> {
        let durable = self.log.durable();
        if self.torn_at.is_some_and(|end| end < commit && commit <= durable) {
            // The primary told this position after the replica was opened, and all up to it is here.
            self.torn_at = None;
        }
        let upto = commit.min(durable);
        let batches: Vec<PendingBatch> = std::iter::from_fn(|| self.pending.pop(upto)).collect();
        if batches.is_empty() {
            return Ok(self.applied());
        }
        let shared = self.shared.clone();
        let fetched = match &self.place.rows {
            RowPlace::Memory => FetchedVectors::default(),
            // Nobody else changes documents: what is read under the lock that readers share fits those below.
            RowPlace::Disk(_) => {
                let documents = shared.documents.read().expect("no panic under this lock");
                documents.fetch(batches.iter().flat_map(PendingBatch::effects))?
            }
        };
        let mut documents = shared.documents.write().expect("no panic under this lock");
        for batch in &batches {
            let applied = self.applied.apply(&mut documents, batch, &fetched);
            applied.expect("checked when it was taken into the log");
        }
        // Within the lock: what a look-up finds, a search finds too.
        shared.snapshot.store(Arc::new(documents.snapshot()));
        Ok(self.applied())
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
