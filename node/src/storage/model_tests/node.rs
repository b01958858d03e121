//! One replica beside what its log and its documents must be.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::oracle::{Entry, Oracle, Row};
use crate::ids::{Epoch, Lsn};
use crate::runtime::disk::MemoryDisk;
use crate::storage::checkpoint::CheckpointJob;
use crate::storage::tests::{identity, in_memory, open_at, place, read_log};
use crate::storage::{
    OpenReport, PinnedCheckpoint, Positions, Record, ReplicaMeta, Snapshot, SnapshotWriter, StorageError,
    Store,
};

/// One replica.
pub(super) struct Node {
    pub(super) disk: MemoryDisk,
    /// `None` only while it is opened again.
    store: Option<Store>,
    /// What its log has.
    pub(super) log: Vec<Arc<Entry>>,
    /// Records of a batch that has not ended.
    pub(super) open: Vec<Record>,
    /// It said that it has the log up to here.
    pub(super) acknowledged: Lsn,
    /// Behind the last applied position, and behind the end of the log.
    pub(super) applied: Oracle,
    pub(super) head: Oracle,
    pub(super) job: Option<CheckpointJob>,
    /// Snapshots that readers hold, with what they showed.
    views: Vec<(Arc<Snapshot>, BTreeMap<String, Row>)>,
}

impl Node {
    pub(super) fn new(disk: MemoryDisk, replica: u8) -> Node {
        Store::format(&place(&disk), identity(replica)).expect("fresh");
        let (store, _) = open_at(in_memory(&disk), &disk).expect("fresh");
        Node {
            disk,
            store: Some(store),
            log: Vec::new(),
            open: Vec::new(),
            acknowledged: Lsn::ZERO,
            applied: Oracle::default(),
            head: Oracle::default(),
            job: None,
            views: Vec::new(),
        }
    }

    pub(super) fn store(&mut self) -> &mut Store {
        self.store.as_mut().expect("it is open")
    }

    pub(super) fn positions(&self) -> Positions {
        self.store.as_ref().expect("it is open").positions()
    }

    /// The end of the last whole batch.
    pub(super) fn last(&self) -> Lsn {
        self.log.last().map_or(Lsn::ZERO, |entry| entry.last)
    }

    pub(super) fn end(&self) -> Lsn {
        self.open.last().map_or(self.last(), |record| record.lsn)
    }

    /// Adds an entry to what the log must have.
    pub(super) fn push(&mut self, entry: Arc<Entry>) {
        self.head.take(&entry);
        self.log.push(entry);
        self.open.clear();
    }

    /// So many records behind `from`.
    pub(super) fn records(&self, from: Lsn, count: usize) -> Vec<Record> {
        let first = self.log.partition_point(|entry| entry.last <= from);
        let records = self.log[first..].iter().flat_map(|entry| &entry.records);
        records.filter(|record| record.lsn > from).take(count).cloned().collect()
    }

    /// Applies what is committed up to `commit`, and checks what readers see then.
    pub(super) fn apply(&mut self, commit: Lsn) {
        let (before, durable) = (self.positions().applied, self.positions().durable);
        let applied = self.store().apply(commit).expect("rows can be read");
        let upto = commit.min(durable);
        let ended = self.log.iter().rev().map(|entry| entry.last).find(|last| *last <= upto);
        assert_eq!(applied, ended.unwrap_or(Lsn::ZERO).max(before));
        let first = self.log.partition_point(|entry| entry.last <= before);
        for entry in self.log[first..].iter().take_while(|entry| entry.last <= applied) {
            self.applied.take(entry);
        }
    }

    /// Cuts what lies behind `to`; what is left of a batch that it divides has not ended.
    pub(super) fn cut(&mut self, to: Lsn) -> Result<(), StorageError> {
        if to < self.end() {
            let kept = self.log.partition_point(|entry| entry.last <= to);
            // From here on nobody counts on the rest, cut or not.
            let ended = kept.checked_sub(1).map_or(Lsn::ZERO, |last| self.log[last].last);
            self.acknowledged = self.acknowledged.min(ended);
            self.store().cut(to)?;
            let records = self.log[kept..].iter().flat_map(|entry| &entry.records).chain(&self.open);
            self.open = records.filter(|record| record.lsn <= to).cloned().collect();
            self.log.truncate(kept);
        } else {
            self.store().cut(to)?;
        }
        assert_eq!(self.positions().end, self.end());
        self.refold();
        Ok(())
    }

    fn refold(&mut self) {
        self.head = self.applied.clone();
        let applied = self.positions().applied;
        let first = self.log.partition_point(|entry| entry.last <= applied);
        self.log[first..].iter().for_each(|entry| self.head.take(entry));
    }

    /// Opens the replica again. What it acknowledged must be there, and nothing that it did not have.
    pub(super) fn reopen(&mut self, is_closed: bool) -> OpenReport {
        self.job = None;
        let store = self.store.take();
        if let (true, Some(store)) = (is_closed, store) {
            store.close().ok();
        }
        // A fault may strike while opening, too.
        let (store, report) = loop {
            match open_at(in_memory(&self.disk), &self.disk) {
                Ok(opened) => break opened,
                Err(error) => {
                    assert!(!error.is_lasting(), "{error}");
                    self.disk.crash();
                }
            }
        };
        self.store = Some(store);
        self.disk.heal();
        assert!(report.end >= self.acknowledged, "lost: {} of {}", report.end, self.acknowledged);
        self.adopt(report.applied);
        assert_eq!(report.end, self.last());
        report
    }

    /// Takes over what the store has after opening: whole batches of the log, applied up to a position.
    fn adopt(&mut self, applied: Lsn) {
        let Positions { first, end, durable, .. } = self.positions();
        assert_eq!(end, durable, "everything is durable that opening found");
        self.log.truncate(self.log.partition_point(|entry| entry.last <= end));
        self.open.clear();
        self.acknowledged = end;
        self.applied = Oracle::default();
        let count = self.log.partition_point(|entry| entry.last <= applied);
        self.log[..count].iter().for_each(|entry| self.applied.take(entry));
        self.refold();
        let found = read_log(self.store(), first.0).expect("whole").expect("it is there");
        assert!(found == self.records(Lsn(first.0 - 1), usize::MAX), "the log has other records");
    }

    /// Puts a checkpoint of another replica in the place of everything here. `log` is what that one's log has.
    pub(super) fn install(
        &mut self,
        replica: u8,
        pinned: &PinnedCheckpoint,
        log: &[Arc<Entry>],
    ) -> Result<(), StorageError> {
        let identity = identity(replica);
        let mut writer = SnapshotWriter::begin(&place(&self.disk), &identity, pinned.description()?.clone())?;
        for file in 0..writer.progress().len() {
            while writer.progress()[file] < writer.description().files[file].bytes {
                let offset = writer.progress()[file];
                writer.write(file as u32, offset, &pinned.read(file as u32, offset, 4_000)?)?;
            }
        }
        let generation = self.store().meta().generation;
        drop(self.store.take());
        let before = (self.log.clone(), self.acknowledged);
        // From here on it is unknown which of the two is there, until it is opened.
        self.log = log.iter().filter(|entry| entry.last <= pinned.lsn()).cloned().collect();
        self.acknowledged = Lsn::ZERO;
        let outcome = writer.finish();
        if outcome.is_err() {
            self.disk.heal();
            self.disk.crash();
            let meta = ReplicaMeta::read(&self.disk, &place(&self.disk).directory).expect("whole");
            if meta.expect("there").generation == generation {
                (self.log, self.acknowledged) = before;
            }
        }
        self.reopen(false);
        outcome.map(drop)
    }

    /// Readers see the model's documents at the applied position.
    pub(super) fn check(&mut self) {
        let reader = self.store().reader();
        let snapshot = reader.snapshot();
        assert_eq!(snapshot.lsn, self.positions().applied);
        assert_eq!(rows_of(&snapshot), self.applied.documents);
        for number in 0..40 {
            let id = format!("id{number}");
            let found = reader.get(&id, true).expect("rows can be read");
            let row = found.map(|(document, version)| {
                (document.vector, document.metadata.as_json().to_owned(), version)
            });
            assert_eq!(row.as_ref(), self.applied.documents.get(&id));
        }
        assert_eq!(self.positions().end, self.end());
        assert!(self.positions().durable >= self.acknowledged);
    }

    /// The content counted from the rows is what was kept.
    pub(super) fn scrub(&mut self) {
        let snapshot = self.store().reader().snapshot();
        assert_eq!(snapshot.content, snapshot.content_digest());
        assert_eq!(snapshot.content, self.store().digest().content);
        self.views.push((snapshot, self.applied.documents.clone()));
    }

    /// Snapshots of any time still show what they showed.
    pub(super) fn check_views(&self) {
        for (snapshot, rows) in &self.views {
            assert_eq!(&rows_of(snapshot), rows, "a snapshot changed");
            assert_eq!(snapshot.content, snapshot.content_digest());
        }
    }
}

fn rows_of(snapshot: &Snapshot) -> BTreeMap<String, Row> {
    let (documents, more) = snapshot.list("", 1 << 20, usize::MAX, true).expect("rows can be read");
    assert!(!more);
    assert_eq!(documents.len() as u64, snapshot.documents);
    let versions = snapshot.segments.iter().flat_map(|segment| {
        let visible = (0..segment.len()).filter(|row| segment.is_visible(*row, snapshot.lsn));
        visible.map(|row| (segment.document_id(row), segment.created(row)))
    });
    let versions: BTreeMap<&str, Lsn> = versions.collect();
    let row = |document: crate::document::Document| {
        let version = versions[document.id.as_str()];
        (document.id.to_string(), (document.vector, document.metadata.as_json().to_owned(), version))
    };
    documents.into_iter().map(row).collect()
}

/// The last position that two logs have in common, as their histories tell.
pub(super) fn last_common(one: &Positions, other: &Positions) -> Lsn {
    let mut lsn = one.end.min(other.end);
    while lsn > Lsn::ZERO && one.reigns.epoch_at(lsn) != other.reigns.epoch_at(lsn) {
        lsn = Lsn(lsn.0 - 1);
    }
    lsn
}

/// The start of a reign as an entry, with the records before it that it voids.
pub(super) fn reign(epoch: Epoch, void: Vec<Record>, start: Record) -> Entry {
    let records = [void, vec![start]].concat();
    let (first, last) = (records[0].lsn, records[records.len() - 1].lsn);
    Entry { epoch, first, last, batch: None, records }
}
