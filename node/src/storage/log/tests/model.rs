//! A log against a model, over random steps.

use proptest::prelude::*;

use super::*;

#[derive(Clone, Debug)]
enum Step {
    Batch(u8),
    /// A batch that does not end.
    Open(u8),
    Reign,
    Sync,
    FailSync,
    Rotate,
    /// To the end of one of the batches.
    Cut(prop::sample::Index),
    /// With the power going off after so many operations of the disk.
    CrashInCut(prop::sample::Index, u64),
    Restart,
    Crash,
    /// A crash during recovery, after so many operations of the disk.
    CrashInRecovery(u64),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => (1u8..5).prop_map(Step::Batch),
        1 => (1u8..3).prop_map(Step::Open),
        2 => Just(Step::Reign),
        5 => Just(Step::Sync),
        1 => Just(Step::FailSync),
        1 => Just(Step::Rotate),
        1 => any::<prop::sample::Index>().prop_map(Step::Cut),
        1 => (any::<prop::sample::Index>(), 0u64..12).prop_map(|(to, count)| Step::CrashInCut(to, count)),
        1 => Just(Step::Restart),
        2 => Just(Step::Crash),
        1 => (0u64..20).prop_map(Step::CrashInRecovery),
    ]
}

/// A batch of the model: void ones are in the log and are not replayed.
#[derive(Clone, Debug, PartialEq)]
struct Entry {
    epoch: Epoch,
    /// Position of its last record.
    last: Lsn,
    bodies: Vec<u8>,
    is_void: bool,
}

/// Every batch that the log has, and how many of them are durable for sure.
struct Model {
    disk: MemoryDisk,
    log: Log,
    entries: Vec<Entry>,
    acknowledged: usize,
    /// Bodies of a batch that has not ended.
    open: Vec<u8>,
    next: u8,
}

impl Model {
    fn take_bodies(&mut self, count: u8) -> Vec<u8> {
        let bodies = (0..count).map(|index| self.next.wrapping_add(index)).collect();
        self.next = self.next.wrapping_add(count);
        bodies
    }

    fn push(&mut self, epoch: Epoch, bodies: Vec<u8>, is_void: bool) {
        let last = self.entries.last().map_or(0, |entry| entry.last.0) + bodies.len() as u64;
        self.entries.push(Entry { epoch, last: Lsn(last), bodies, is_void });
    }

    fn mark(&self) -> Lsn {
        self.acknowledged.checked_sub(1).map_or(Lsn::ZERO, |last| self.entries[last].last)
    }

    /// Opens the log again. It must hold a prefix of the batches with all that are durable for sure.
    fn reopen(&mut self) {
        let (log, found) = recover(&self.disk, self.mark().0).expect("no damage was done");
        self.log = log;
        self.open.clear();
        while self.entries.last().is_some_and(|entry| entry.last > self.log.end()) {
            self.entries.pop();
        }
        assert!(self.entries.len() >= self.acknowledged, "lost something");
        let replayed: Vec<&Vec<u8>> =
            self.entries.iter().filter(|entry| !entry.is_void).map(|entry| &entry.bodies).collect();
        assert_eq!(found.iter().collect::<Vec<_>>(), replayed);
        self.acknowledged = self.entries.len();
        self.check();
    }

    /// A reader finds what is durable, and nothing else.
    fn check(&self) {
        let durable = self.entries.iter().filter(|entry| entry.last <= self.log.durable());
        let expected: Vec<u8> = durable.flat_map(|entry| entry.bodies.clone()).collect();
        let found = read_all(&mut self.log.reader(), 1, 150).expect("nothing was released");
        assert_eq!(bodies(&found), expected);
        assert_eq!(
            self.log.end().0,
            self.entries.last().map_or(0, |entry| entry.last.0) + self.open.len() as u64
        );
    }

    fn run(&mut self, step: &Step) {
        match step {
            Step::Batch(records) => {
                let bodies = self.take_bodies(*records);
                let records = records_of(&self.log, self.log.epoch().max(EPOCH), &bodies, true);
                if self.log.append(records).is_ok() {
                    let open = std::mem::take(&mut self.open);
                    self.push(self.log.epoch(), [open, bodies].concat(), false);
                }
            }
            Step::Open(records) => {
                let bodies = self.take_bodies(*records);
                let records = records_of(&self.log, self.log.epoch().max(EPOCH), &bodies, false);
                if self.log.append(records).is_ok() {
                    self.open.extend(bodies);
                }
            }
            Step::Reign => {
                let body = self.take_bodies(1)[0];
                let before = self.log.epoch();
                let epoch = Epoch(before.0 + 1);
                if reign(&mut self.log, epoch, body).is_ok() {
                    let open = std::mem::take(&mut self.open);
                    if !open.is_empty() {
                        self.push(before, open, true);
                    }
                    self.push(epoch, vec![body], false);
                }
            }
            Step::Sync => {
                if self.log.sync().is_ok() {
                    self.acknowledged = self.entries.len();
                }
            }
            Step::FailSync => {
                self.disk.fail_next(DiskOperation::Sync, ErrorKind::Other);
                self.run(&Step::Sync);
                self.disk.heal();
            }
            Step::Rotate => drop(self.log.rotate()),
            Step::Cut(to) => {
                let to = to.index(self.entries.len() + 1);
                self.cut(to).ok();
            }
            Step::CrashInCut(to, operations) => {
                let to = to.index(self.entries.len() + 1);
                self.disk.power_off_after(*operations);
                let before = self.entries.clone();
                if self.cut(to).is_err() {
                    self.entries = before;
                }
                self.disk.crash();
                self.reopen();
            }
            Step::Restart => self.reopen(),
            Step::Crash => {
                self.disk.crash();
                self.reopen();
            }
            Step::CrashInRecovery(operations) => {
                self.disk.crash();
                self.disk.power_off_after(*operations);
                recover(&self.disk, 0).ok();
                self.disk.crash();
                self.reopen();
            }
        }
    }

    /// Cuts behind so many batches; the mark is lowered before.
    fn cut(&mut self, to: usize) -> Result<(), StorageError> {
        // A void batch and the reign behind it go together.
        let to = if to > 0 && self.entries[to - 1].is_void { to - 1 } else { to };
        self.acknowledged = self.acknowledged.min(to);
        let (lsn, epoch) = to
            .checked_sub(1)
            .map_or((Lsn::ZERO, Epoch(0)), |last| (self.entries[last].last, self.entries[last].epoch));
        self.log.cut(lsn, epoch)?;
        self.entries.truncate(to);
        self.open.clear();
        Ok(())
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    #[test]
    fn acknowledged_batches_survive_and_no_batch_is_halved(
        seed in any::<u64>(),
        steps in prop::collection::vec(step(), 1..60),
    ) {
        let disk = MemoryDisk::new(seed);
        let log = new_log(&disk);
        let mut model = Model { disk, log, entries: Vec::new(), acknowledged: 0, open: Vec::new(), next: 0 };
        for step in &steps {
            model.run(step);
            model.check();
        }
        model.disk.crash();
        model.reopen();
    }
}
