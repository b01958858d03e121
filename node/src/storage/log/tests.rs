//! The log under crashes, cuts, flips and failing disks.

use std::path::{Path, PathBuf};

use proptest::prelude::*;

use super::*;
use crate::ids::OpId;
use crate::runtime::disk::{DiskOperation, MemoryDisk};

const EPOCH: Epoch = Epoch(1);

fn place(disk: &MemoryDisk) -> LogPlace {
    LogPlace { disk: Arc::new(disk.clone()), directory: PathBuf::from("wal"), replica: ReplicaId([3; 16]) }
}

fn new_log(disk: &MemoryDisk) -> Log {
    disk.create_dir_all(Path::new("wal")).expect("created");
    Log::create(place(disk)).expect("created")
}

/// Bodies of the replayed records, batch by batch.
fn recover(disk: &MemoryDisk, durable: u64) -> Result<(Log, Vec<Vec<u8>>), StorageError> {
    let point = RecoveryPoint { checkpoint: Lsn::ZERO, durable: Lsn(durable) };
    let (mut batches, mut open) = (Vec::new(), Vec::new());
    let recovered = Log::recover(place(disk), point, &mut |record| {
        open.extend_from_slice(&record.body);
        if record.batch_end {
            batches.push(std::mem::take(&mut open));
        }
        Ok(())
    })?;
    assert!(open.is_empty(), "half a batch was replayed");
    Ok((recovered.log, batches))
}

fn batch(log: &mut Log, bodies: &[u8]) -> Result<Lsn, StorageError> {
    let effects = bodies.iter().map(|body| (RecordKind::Upsert, Bytes::copy_from_slice(&[*body]))).collect();
    log.append(EPOCH, OpKey { id: OpId([bodies[0]; 16]), digest: 0 }, effects)
}

/// Three groups: [1] [2 3] | [4 5] | [6] [7 8], and the file that holds them.
fn three_groups(disk: &MemoryDisk) -> (PathBuf, Vec<u8>, Vec<usize>) {
    let mut log = new_log(disk);
    let path = PathBuf::from("wal/0000000000000001.log");
    let mut ends = vec![disk.read(&path).expect("there").len()];
    for group in [vec![vec![1], vec![2, 3]], vec![vec![4, 5]], vec![vec![6], vec![7, 8]]] {
        for bodies in &group {
            batch(&mut log, bodies).expect("appended");
        }
        log.sync().expect("synced");
        ends.push(disk.read(&path).expect("there").len());
    }
    let bytes = disk.read(&path).expect("there");
    (path, bytes, ends)
}

#[test]
fn what_was_synced_is_read_back_over_many_restarts() {
    let disk = MemoryDisk::new(1);
    drop(new_log(&disk));
    let mut expected = Vec::new();
    for round in 0..10u8 {
        let (mut log, batches) = recover(&disk, expected.len() as u64).expect("whole");
        assert_eq!(batches, expected);
        batch(&mut log, &[round]).expect("appended");
        log.sync().expect("synced");
        expected.push(vec![round]);
    }
}

#[test]
fn a_tail_torn_at_any_byte_of_the_last_group_is_cut_to_whole_batches() {
    let (_, bytes, ends) = three_groups(&MemoryDisk::new(1));
    for length in ends[2]..bytes.len() {
        let disk = MemoryDisk::new(1);
        let (path, bytes, _) = three_groups(&disk);
        disk.overwrite(&path, bytes[..length].to_vec());
        let (mut log, batches) = recover(&disk, 5).expect("torn, not damaged");
        let whole = if length > ends[2] + HEADER_BYTES { 4 } else { 3 };
        let all = [vec![1], vec![2, 3], vec![4, 5], vec![6]];
        assert_eq!(batches, all[..whole], "cut at {length}");
        batch(&mut log, &[9]).expect("appended");
        log.sync().expect("synced");
        let (log, batches) = recover(&disk, log.durable().0).expect("whole");
        assert_eq!(batches, [&all[..whole], &[vec![9]]].concat());
        assert_eq!(log.end(), Lsn(if whole == 4 { 7 } else { 6 }));
    }
}

#[test]
fn a_tail_cut_below_the_durable_mark_is_damage() {
    let disk = MemoryDisk::new(1);
    let (path, bytes, _) = three_groups(&disk);
    for length in 0..bytes.len() {
        disk.overwrite(&path, bytes[..length].to_vec());
        assert!(matches!(recover(&disk, 8), Err(StorageError::Damaged { .. })), "cut at {length}");
        assert_eq!(disk.files(), std::slice::from_ref(&path), "a damaged log is left as it is");
    }
}

#[test]
fn every_flipped_bit_below_the_durable_mark_is_damage() {
    let disk = MemoryDisk::new(1);
    let (path, bytes, ends) = three_groups(&disk);
    for bit in 0..bytes.len() * 8 {
        let mut flipped = bytes.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        disk.overwrite(&path, flipped);
        assert!(matches!(recover(&disk, 8), Err(StorageError::Damaged { .. })), "bit {bit}");
        if bit / 8 < ends[2] {
            // The mark was lost with `replica.meta`'s last second: the third group still proves the first two.
            assert!(matches!(recover(&disk, 0), Err(StorageError::Damaged { .. })), "bit {bit}");
        }
    }
}

#[test]
fn zeroed_sectors_in_the_last_group_are_a_torn_tail_even_before_written_ones() {
    let disk = MemoryDisk::new(1);
    let (path, mut bytes, ends) = three_groups(&disk);
    bytes[ends[2]..ends[2] + HEADER_BYTES].fill(0);
    disk.overwrite(&path, bytes);
    let (log, batches) = recover(&disk, 5).expect("blocks of one group reach the disk in any order");
    assert_eq!((log.end(), batches.len()), (Lsn(5), 3));
}

#[test]
fn recycled_bytes_never_look_like_records() {
    let disk = MemoryDisk::new(1);
    let (path, bytes, ends) = three_groups(&disk);
    let other = MemoryDisk::new(2);
    let (_, other_bytes, other_ends) = three_groups(&other);
    let mut later = recover(&other, 8).expect("whole").0;
    batch(&mut later, &[9]).expect("appended");
    later.sync().expect("synced");
    let later_bytes = other.read(&segment::path_of(Path::new("wal"), 2)).expect("there");
    let recycled = [
        ("another log's tail at the same positions", &other_bytes[other_ends[2]..]),
        ("another log's later group", &later_bytes[SEGMENT_HEADER_BYTES..]),
        ("this log's first group", &bytes[ends[0]..ends[1]]),
        ("this log's second group", &bytes[ends[1]..ends[2]]),
    ];
    for (what, recycled) in recycled {
        for gap in [&[][..], &[0xaa; 7]] {
            disk.overwrite(&path, [&bytes[..ends[2]], gap, recycled].concat());
            let (log, batches) = recover(&disk, 5).expect(what);
            assert_eq!((log.end(), batches.len()), (Lsn(5), 3), "{what}");
            for file in disk.files().iter().filter(|file| **file != path) {
                disk.remove(file).expect("removed");
            }
        }
    }
}

#[test]
fn a_missing_segment_is_damage() {
    let disk = MemoryDisk::new(1);
    let mut log = new_log(&disk);
    for body in 1..=3 {
        batch(&mut log, &[body]).expect("appended");
        log.sync().expect("synced");
        log.rotate(EPOCH).expect("rotated");
    }
    for missing in 1..=3u64 {
        let path = segment::path_of(Path::new("wal"), missing);
        let bytes = disk.read(&path).expect("there");
        disk.remove(&path).expect("removed");
        assert!(matches!(recover(&disk, 0), Err(StorageError::Damaged { .. })), "segment {missing}");
        disk.create(&path).expect("created");
        disk.overwrite(&path, bytes);
    }
    assert_eq!(recover(&disk, 3).expect("whole").1.len(), 3);
}

#[test]
fn released_segments_are_gone_and_the_rest_is_replayed() {
    let disk = MemoryDisk::new(1);
    let mut log = new_log(&disk);
    for body in 1..=4 {
        batch(&mut log, &[body]).expect("appended");
        log.sync().expect("synced");
        if body == 2 {
            log.rotate(EPOCH).expect("rotated");
        }
    }
    log.release(Lsn(2)).expect("released");
    assert_eq!((log.segments[0].first, disk.files().len()), (Lsn(3), 1));
    drop(log);
    let mut replayed = Vec::new();
    let point = RecoveryPoint { checkpoint: Lsn(2), durable: Lsn(4) };
    let recovered = Log::recover(place(&disk), point, &mut |record| {
        replayed.push(record.lsn.0);
        Ok(())
    });
    assert_eq!((replayed, recovered.expect("whole").records), (vec![3, 4], 2));
    assert!(recover(&disk, 4).is_err(), "without the checkpoint the first records are missing");
}

#[test]
fn a_failed_write_or_sync_poisons_the_log() {
    for fault in [DiskOperation::Append, DiskOperation::Sync] {
        let disk = MemoryDisk::new(1);
        let mut log = new_log(&disk);
        batch(&mut log, &[1]).expect("appended");
        log.sync().expect("synced");
        batch(&mut log, &[2]).expect("appended");
        disk.fail_next(fault, std::io::ErrorKind::Other);
        assert!(log.sync().is_err());
        assert!(matches!(log.sync(), Err(StorageError::Poisoned { end: Lsn(1) })), "no retry");
        assert!(matches!(batch(&mut log, &[3]), Err(StorageError::Poisoned { .. })), "no further append");
        drop(log);
        // The failed group may sit in the kernel's cache only: whatever recovery replays, it makes durable first.
        let (_, replayed) = recover(&disk, 1).expect("whole");
        assert_eq!(replayed[0], [1]);
        disk.crash();
        assert_eq!(recover(&disk, 1).expect("whole").1, replayed);
    }
}

#[test]
fn a_full_disk_in_the_middle_of_a_record_loses_nothing_acknowledged() {
    let disk = MemoryDisk::new(1);
    let mut log = new_log(&disk);
    batch(&mut log, &[1]).expect("appended");
    log.sync().expect("synced");
    disk.set_capacity(disk.read(Path::new("wal/0000000000000001.log")).expect("there").len() as u64 + 20);
    batch(&mut log, &[2]).expect("appended");
    assert!(log.sync().is_err());
    disk.set_capacity(1 << 30);
    assert_eq!(recover(&disk, 1).expect("torn").1, [[1]]);
}

#[test]
fn a_log_of_another_replica_and_of_a_newer_version_is_refused() {
    let disk = MemoryDisk::new(1);
    drop(new_log(&disk));
    let other = LogPlace { replica: ReplicaId([4; 16]), ..place(&disk) };
    let point = RecoveryPoint { checkpoint: Lsn::ZERO, durable: Lsn::ZERO };
    assert!(matches!(
        Log::recover(other, point, &mut |_| Ok(())),
        Err(StorageError::Damaged { reason, .. }) if reason.contains("belongs to replica")
    ));
    let path = PathBuf::from("wal/0000000000000001.log");
    let mut bytes = disk.read(&path).expect("there");
    bytes[8] = 2;
    let crc = crc32c::crc32c(&bytes[..60]).to_le_bytes();
    bytes[60..64].copy_from_slice(&crc);
    disk.overwrite(&path, bytes);
    assert!(matches!(recover(&disk, 0), Err(StorageError::Newer { .. })));
}

#[test]
fn a_record_over_the_limit_is_refused_and_does_no_harm() {
    let disk = MemoryDisk::new(1);
    let mut log = new_log(&disk);
    let large = Bytes::from(vec![0; BODY_BYTES_MAX + 1]);
    let outcome = log.append(EPOCH, OpKey::NONE, vec![(RecordKind::Upsert, large)]);
    assert!(matches!(outcome, Err(StorageError::RecordTooLarge { .. })));
    batch(&mut log, &[1]).expect("appended");
    log.sync().expect("synced");
    assert_eq!(recover(&disk, 1).expect("whole").1, [[1]]);
}

#[derive(Clone, Debug)]
enum Step {
    Batch(u8),
    Sync,
    FailSync,
    Rotate,
    Restart,
    Crash,
    /// A crash during recovery, after so many operations of the disk.
    CrashInRecovery(u64),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (1u8..5).prop_map(Step::Batch),
        4 => Just(Step::Sync),
        1 => Just(Step::FailSync),
        1 => Just(Step::Rotate),
        1 => Just(Step::Restart),
        2 => Just(Step::Crash),
        1 => (0u64..20).prop_map(Step::CrashInRecovery),
    ]
}

/// Every batch that was ever appended, and how many of them are acknowledged.
struct Model {
    disk: MemoryDisk,
    log: Log,
    batches: Vec<Vec<u8>>,
    acknowledged: usize,
    next: u8,
}

impl Model {
    /// Opens the log again. It must hold a prefix of the batches with all acknowledged ones.
    fn reopen(&mut self) {
        let durable: usize = self.batches[..self.acknowledged].iter().map(Vec::len).sum();
        let (log, found) = recover(&self.disk, durable as u64).expect("no damage was done");
        assert!(found.len() >= self.acknowledged, "lost {:?}", self.batches);
        assert_eq!(found, self.batches[..found.len()]);
        self.log = log;
        self.acknowledged = found.len();
        self.batches = found;
    }

    fn run(&mut self, step: &Step) {
        match step {
            Step::Batch(records) => {
                let bodies: Vec<u8> = (0..*records).map(|i| self.next.wrapping_add(i)).collect();
                self.next = self.next.wrapping_add(*records);
                if batch(&mut self.log, &bodies).is_ok() {
                    self.batches.push(bodies);
                }
            }
            Step::Sync => {
                if self.log.sync().is_ok() {
                    self.acknowledged = self.batches.len();
                }
            }
            Step::FailSync => {
                self.disk.fail_next(DiskOperation::Sync, std::io::ErrorKind::Other);
                self.run(&Step::Sync);
                self.disk.heal();
            }
            Step::Rotate => {
                self.run(&Step::Sync);
                if !self.log.is_poisoned() {
                    self.log.rotate(EPOCH).ok();
                }
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
        let mut model = Model { disk, log, batches: Vec::new(), acknowledged: 0, next: 0 };
        for step in &steps {
            model.run(step);
        }
        model.disk.crash();
        model.reopen();
    }
}
