//! Two replicas that lead and follow by turns, and the operations that happen to them.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::sync::Arc;

use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};

use super::kinds::{Counters, FIRST_OPTIONAL, KINDS, Kind};
use super::node::{Node, last_common, reign};
use super::oracle::Entry;
use crate::document::{Document, Metadata};
use crate::ids::{DocumentId, Epoch, Lsn, OpId};
use crate::runtime::disk::{DiskOperation, MemoryDisk};
use crate::storage::tests::{DIMENSION, read_log};
use crate::storage::{Batch, Digest, Operation, StorageError};

/// Two replicas of a shard.
pub(super) struct World {
    random: SmallRng,
    /// Kinds of this seed, each as often as it happens.
    kinds: Vec<(Kind, u32)>,
    nodes: [Node; 2],
    /// Identity of each; a wiped disk gets another.
    replicas: [u8; 2],
    epoch: Epoch,
    primary: Option<usize>,
    /// The follower's log is a part of the primary's.
    is_following: bool,
    commit: Lsn,
    /// What any replica had at a position that it applied up to.
    digests: BTreeMap<Lsn, Digest>,
    /// Batches that a client may send again.
    sent: Vec<Arc<Batch>>,
    pub(super) counters: Counters,
}

impl World {
    pub(super) fn new(seed: u64) -> World {
        let mut random = SmallRng::seed_from_u64(seed);
        let disks = [0, 1].map(|number| MemoryDisk::new(seed.wrapping_mul(2).wrapping_add(number)));
        let [one, other] = disks;
        let mut kinds = KINDS.to_vec();
        for index in (FIRST_OPTIONAL..KINDS.len()).rev() {
            if random.random_ratio(1, 4) {
                kinds.remove(index);
            }
        }
        World {
            random,
            kinds,
            nodes: [Node::new(one, 1), Node::new(other, 2)],
            replicas: [1, 2],
            epoch: Epoch(0),
            primary: None,
            is_following: false,
            commit: Lsn::ZERO,
            digests: BTreeMap::new(),
            sent: Vec::new(),
            counters: Counters::default(),
        }
    }

    pub(super) fn step(&mut self) {
        let total: u32 = self.kinds.iter().map(|(_, weight)| weight).sum();
        let mut chosen = self.random.random_range(0..total);
        let kind = self.kinds.iter().find(|(_, weight)| {
            let is_it = chosen < *weight;
            chosen = chosen.saturating_sub(*weight);
            is_it
        });
        let (kind, _) = *kind.expect("within the total");
        let index = self.random.random_range(0..2);
        let outcome = self.run(kind, index);
        if let Err((failed, error)) = outcome {
            assert!(!error.is_lasting(), "{error}");
            self.fail(failed);
        }
        self.check(index);
    }

    fn run(&mut self, kind: Kind, index: usize) -> Result<(), (usize, StorageError)> {
        let failed = |error| (index, error);
        match kind {
            Kind::Write => self.write(),
            Kind::Sync => self.sync(index).map_err(failed),
            Kind::Replicate => self.replicate(),
            Kind::Commit => {
                self.advance_commit();
                Ok(())
            }
            Kind::Apply => {
                self.apply(index);
                Ok(())
            }
            Kind::SaveMarks => self.survive(index, |node| node.store().save_marks()),
            Kind::BeginCheckpoint => self.survive(index, |node| {
                if let Some(job) = node.store().begin_checkpoint()? {
                    node.job = Some(job);
                }
                Ok(())
            }),
            Kind::FinishCheckpoint => self.finish_checkpoint(index),
            Kind::Scrub => {
                self.nodes[index].scrub();
                Ok(())
            }
            Kind::NewReign => self.elect(index),
            Kind::Snapshot => self.send_snapshot(),
            Kind::Release => {
                let from = Lsn(self.random.random_range(0..=self.commit.0 + 1));
                self.survive(index, |node| node.store().keep_from(from))
            }
            Kind::Restart => {
                let is_closed = self.random.random();
                self.reopen(index, is_closed);
                Ok(())
            }
            Kind::Crash => {
                self.nodes[index].disk.crash();
                self.reopen(index, false);
                Ok(())
            }
            Kind::PowerOff => {
                let operations = self.random.random_range(0..40);
                self.nodes[index].disk.power_off_after(operations);
                Ok(())
            }
            Kind::Fault => {
                let faults = [DiskOperation::Append, DiskOperation::Sync, DiskOperation::Directory];
                let fault = faults[self.random.random_range(0..faults.len())];
                let count = self.random.random_range(0..8);
                self.nodes[index].disk.fail_after(count, fault, ErrorKind::StorageFull);
                Ok(())
            }
            Kind::Conditions | Kind::Retries | Kind::Divide => unreachable!("they are never chosen"),
        }
    }

    fn has(&self, kind: Kind) -> bool {
        self.kinds.iter().any(|(known, _)| *known == kind)
    }

    fn write(&mut self) -> Result<(), (usize, StorageError)> {
        let Some(primary) = self.primary else { return self.elect_anyone() };
        let batches: Vec<Arc<Batch>> =
            (0..self.random.random_range(1..4)).map(|_| self.choose_batch(primary)).collect();
        self.counters.operations += batches.iter().map(|batch| batch.operations.len()).sum::<usize>();
        let node = &mut self.nodes[primary];
        let given = batches.iter().map(|batch| Batch::clone(batch)).collect();
        let staged = node.store().stage(self.epoch, given).map_err(|error| (primary, error))?;
        let mut records = staged.records.into_iter();
        for (batch, verdict) in batches.into_iter().zip(staged.verdicts) {
            let end = node.last();
            let mut expected = node.head.clone();
            assert_eq!(verdict, expected.judge(&batch, end));
            self.counters.refusals += usize::from(verdict.outcome.is_err());
            if verdict.judged_by > end {
                let (first, last, epoch) = (end.next(), verdict.judged_by, self.epoch);
                let records = records.by_ref().take((last.0 - end.0) as usize).collect();
                node.log.push(Arc::new(Entry { epoch, first, last, batch: Some(batch.clone()), records }));
                node.head = expected;
                self.sent.push(batch);
            } else {
                self.counters.repeats += usize::from(verdict.outcome.is_ok());
            }
        }
        assert_eq!(records.next(), None);
        Ok(())
    }

    fn choose_batch(&mut self, primary: usize) -> Arc<Batch> {
        if self.has(Kind::Retries) && self.random.random_ratio(1, 8) && !self.sent.is_empty() {
            let recent = self.sent.len().saturating_sub(60);
            let again = self.sent[self.random.random_range(recent..self.sent.len())].clone();
            if self.random.random_ratio(9, 10) {
                return again;
            }
            let Batch { op_id, .. } = *again;
            return Arc::new(Batch { op_id, ..self.random_batch(primary) });
        }
        Arc::new(self.random_batch(primary))
    }

    fn random_batch(&mut self, primary: usize) -> Batch {
        let has_conditions = self.has(Kind::Conditions);
        let (random, head) = (&mut self.random, &self.nodes[primary].head);
        let operation = |random: &mut SmallRng| {
            let text = format!("id{}", random.random_range(0..40));
            let id = DocumentId::parse(&text).expect("valid");
            let json = format!("{{\"n\":{}}}", random.random_range(0..1000));
            let metadata = Metadata::from_stored(json.into()).expect("object");
            let if_version = match random.random_range(0..12) {
                0..3 if has_conditions => Some(head.version(&text)),
                3 if has_conditions => Some(Lsn(random.random_range(0..200))),
                _ => None,
            };
            match random.random_range(0..10) {
                0..6 => {
                    let vector = (0..DIMENSION).map(|_| random.random_range(-1.0..1.0)).collect();
                    Operation::Upsert { document: Document { id, vector, metadata }, if_version }
                }
                6..9 => Operation::Delete { id, if_version },
                _ => Operation::SetMetadata { id, metadata, if_version: None },
            }
        };
        let count = random.random_range(1..5);
        let operations = (0..count).map(|_| operation(random)).collect();
        Batch { op_id: OpId(random.random()), base: None, operations }
    }

    fn sync(&mut self, index: usize) -> Result<(), StorageError> {
        let node = &mut self.nodes[index];
        node.store().sync()?;
        assert_eq!(node.positions().durable, node.last());
        node.acknowledged = node.last();
        Ok(())
    }

    /// Sends records to the follower: some that the primary has in memory, or what its log has on the disk.
    fn replicate(&mut self) -> Result<(), (usize, StorageError)> {
        let Some(primary) = self.primary else { return self.elect_anyone() };
        let follower = 1 - primary;
        if !self.is_following {
            return self.follow(follower);
        }
        let end = self.nodes[follower].end();
        let count = if self.has(Kind::Divide) { self.random.random_range(1..12) } else { usize::MAX };
        let mut records = if self.random.random() {
            self.nodes[primary].records(end, count)
        } else {
            match read_log(self.nodes[primary].store(), end.0 + 1).map_err(|error| (primary, error))? {
                Some(records) => records,
                None => return self.send_snapshot(),
            }
        };
        records.truncate(count);
        let [one, other] = &mut self.nodes;
        let (node, source) = if follower == 0 { (one, &*other) } else { (other, &*one) };
        node.store().receive(records.clone()).map_err(|error| (follower, error))?;
        for record in records {
            node.open.push(record.clone());
            if record.batch_end {
                let found = source.log.binary_search_by_key(&record.lsn, |entry| entry.last);
                node.push(source.log[found.expect("the end of an entry")].clone());
            }
        }
        Ok(())
    }

    /// What both have on their disks in this reign is committed.
    fn advance_commit(&mut self) {
        let Some(primary) = self.primary.filter(|_| self.is_following) else { return };
        let both = self.nodes[0].acknowledged.min(self.nodes[1].acknowledged);
        let log = &self.nodes[primary].log;
        let ends = log.partition_point(|entry| entry.last <= self.commit)
            ..log.partition_point(|entry| entry.last <= both);
        // Only behind the start of the reign: before it, another one's log could be elected.
        if ends.is_empty() || log[ends.end - 1].epoch < self.epoch {
            return;
        }
        let chosen = self.random.random_range(ends);
        self.commit = self.commit.max(log[chosen].last);
    }

    fn apply(&mut self, index: usize) {
        let commit =
            Lsn(self.random.random_range(0..=self.commit.0).max(self.random.random_range(0..=self.commit.0)));
        let node = &mut self.nodes[index];
        node.apply(commit);
        let digest = node.store().digest();
        self.counters.applied_late += usize::from(node.positions().durable > digest.lsn);
        let known = *self.digests.entry(digest.lsn).or_insert(digest);
        assert_eq!(digest, known, "replicas at one position are equal");
    }

    fn finish_checkpoint(&mut self, index: usize) -> Result<(), (usize, StorageError)> {
        let Some(job) = self.nodes[index].job.take() else { return Ok(()) };
        let checkpoints = &mut self.counters.checkpoints;
        let node = &mut self.nodes[index];
        let outcome = node.store().finish_checkpoint(job.run());
        *checkpoints += usize::from(outcome.is_ok());
        self.survive(index, |_| outcome.map(drop))
    }

    /// A failure beside the log does no harm to a process that lives, unless it poisons the log.
    fn survive(
        &mut self,
        index: usize,
        work: impl FnOnce(&mut Node) -> Result<(), StorageError>,
    ) -> Result<(), (usize, StorageError)> {
        let node = &mut self.nodes[index];
        match work(node) {
            Err(error) if node.store().is_poisoned() => Err((index, error)),
            _ => Ok(()),
        }
    }

    fn elect_anyone(&mut self) -> Result<(), (usize, StorageError)> {
        let index = self.random.random_range(0..2);
        self.elect(index)
    }

    /// Makes a replica the primary of the next reign, if it has all that is committed.
    fn elect(&mut self, index: usize) -> Result<(), (usize, StorageError)> {
        let failed = |error| (index, error);
        if self.nodes[index].acknowledged < self.commit {
            return Ok(());
        }
        (self.primary, self.is_following) = (None, false);
        self.epoch = Epoch(self.epoch.0 + 1);
        let node = &mut self.nodes[index];
        node.store().promise(self.epoch).map_err(failed)?;
        let start = node.store().start_epoch(self.epoch).map_err(failed)?;
        let void = std::mem::take(&mut node.open);
        self.counters.voids += usize::from(!void.is_empty());
        node.push(Arc::new(reign(self.epoch, void, start)));
        self.primary = Some(index);
        self.counters.reigns += 1;
        Ok(())
    }

    /// Lets a replica obey the reign, and cuts what the primary's log does not have.
    fn follow(&mut self, follower: usize) -> Result<(), (usize, StorageError)> {
        let failed = |error| (follower, error);
        let positions = self.nodes[1 - follower].positions();
        let node = &mut self.nodes[follower];
        node.store().promise(self.epoch).map_err(failed)?;
        let own = node.positions();
        if positions.first > own.end.next() {
            return self.send_snapshot();
        }
        let common = last_common(&own, &positions);
        assert!(common >= own.applied, "what is applied is in the primary's log");
        let before = node.end();
        node.cut(common).map_err(failed)?;
        self.counters.cuts += usize::from(node.end() < before);
        let [one, other] = &self.nodes;
        let shared = one.log.iter().zip(&other.log).take_while(|(a, b)| Arc::ptr_eq(a, b)).count();
        assert_eq!(shared, self.nodes[follower].log.len(), "the histories tell what the logs have in common");
        self.is_following = true;
        Ok(())
    }

    /// Brings the primary's checkpoint to the follower, which may have been wiped.
    fn send_snapshot(&mut self) -> Result<(), (usize, StorageError)> {
        let Some(primary) = self.primary else { return self.elect_anyone() };
        let follower = 1 - primary;
        let Some(pinned) = self.nodes[primary].store().pin_checkpoint() else { return Ok(()) };
        if pinned.description().is_err() {
            // The primary's disk failed while it was read.
            return Ok(());
        }
        if self.random.random_ratio(1, 3) {
            let disk = MemoryDisk::new(self.random.random());
            self.replicas[follower] = self.replicas[follower].wrapping_add(2);
            self.nodes[follower] = Node::new(disk, self.replicas[follower]);
        } else if pinned.lsn() < self.nodes[follower].positions().applied {
            return Ok(());
        }
        self.is_following = false;
        let log = self.nodes[primary].log.clone();
        let installed = self.nodes[follower].install(self.replicas[follower], &pinned, &log);
        match installed {
            Ok(()) => {
                self.counters.snapshots += 1;
                Ok(())
            }
            Err(error) => {
                self.counters.failed_snapshots += 1;
                Err((follower, error))
            }
        }
    }

    /// A replica that failed is opened again, by a process that was restarted or after a loss of power.
    fn fail(&mut self, index: usize) {
        self.counters.crashes += 1;
        if self.random.random() {
            self.nodes[index].disk.crash();
        }
        self.reopen(index, false);
    }

    fn reopen(&mut self, index: usize, is_closed: bool) {
        self.nodes[index].reopen(is_closed);
        if self.primary == Some(index) {
            (self.primary, self.is_following) = (None, false);
        }
    }

    fn check(&mut self, index: usize) {
        self.nodes[index].check();
        assert!(self.nodes.iter_mut().all(|node| node.positions().applied <= self.commit));
        if let Some(primary) = self.primary {
            assert!(self.nodes[primary].acknowledged >= self.commit);
        }
    }

    /// Faults end; both become equal.
    pub(super) fn settle(&mut self) {
        for index in [0, 1] {
            self.nodes[index].disk.heal();
            self.reopen(index, false);
        }
        let index = if self.nodes[0].acknowledged >= self.commit { 0 } else { 1 };
        self.elect(index).map_err(|(_, error)| error).expect("well");
        self.sync(index).expect("well");
        let end = self.nodes[index].last();
        while !self.is_following || self.nodes[1 - index].end() < end {
            self.replicate().map_err(|(_, error)| error).expect("well");
            if self.nodes[index].positions().first > self.nodes[1 - index].end().next() {
                self.nodes[index].apply(self.commit);
                self.nodes[index].store().checkpoint().expect("well");
            }
        }
        self.sync(1 - index).expect("well");
        self.commit = end;
        let digests = self.nodes.each_mut().map(|node| {
            node.apply(end);
            node.check();
            node.scrub();
            node.check_views();
            node.reopen(true);
            node.check();
            node.store().digest()
        });
        assert!(digests[0] == digests[1] && digests[0].lsn == end);
    }
}
