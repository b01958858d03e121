//! The log under crashes, cuts, flips and failing disks.

mod cuts;
mod interleavings;
mod model;
mod readers;
mod recovery;

use bytes::Bytes;

use super::record::HEADER_BYTES;
use super::*;
use crate::ids::OpId;
use crate::runtime::disk::{DiskOperation, MemoryDisk};
use crate::storage::op_window::OpKey;

const EPOCH: Epoch = Epoch(1);

fn place(disk: &MemoryDisk) -> LogPlace {
    LogPlace { disk: Arc::new(disk.clone()), directory: PathBuf::from("wal"), replica: ReplicaId([3; 16]) }
}

fn new_log(disk: &MemoryDisk) -> Log {
    disk.create_dir_all(Path::new("wal")).expect("created");
    Log::create(place(disk), Lsn::ZERO, Epoch::default()).expect("created")
}

/// Bodies of the replayed records, batch by batch.
fn recover(disk: &MemoryDisk, durable: u64) -> Result<(Log, Vec<Vec<u8>>), StorageError> {
    let point = RecoveryPoint { checkpoint: Lsn::ZERO, durable: Lsn(durable) };
    let (mut batches, mut open) = (Vec::new(), Vec::new());
    let scanned = Log::scan(place(disk), point, &mut |record| {
        open.extend_from_slice(&record.body);
        if record.batch_end {
            batches.push(std::mem::take(&mut open));
        }
        Ok(())
    })?;
    assert!(open.is_empty(), "half a batch was replayed");
    Ok((scanned.open()?, batches))
}

/// Records that follow the end of a log; one for each body.
fn records_of(log: &Log, epoch: Epoch, bodies: &[u8], is_whole: bool) -> Vec<Record> {
    let op = OpKey { id: OpId([bodies[0]; 16]), digest: 0 };
    let record = |(index, body): (usize, &u8)| Record {
        kind: RecordKind::Upsert,
        batch_end: is_whole && index == bodies.len() - 1,
        epoch,
        lsn: Lsn(log.end().0 + 1 + index as u64),
        op,
        body: Bytes::copy_from_slice(&[*body]),
    };
    bodies.iter().enumerate().map(record).collect()
}

fn batch(log: &mut Log, bodies: &[u8]) -> Result<(), StorageError> {
    let epoch = log.epoch().max(EPOCH);
    let records = records_of(log, epoch, bodies, true);
    log.append(records)
}

/// Begins a reign; its record has a body so that the tests see it.
fn reign(log: &mut Log, epoch: Epoch, body: u8) -> Result<(), StorageError> {
    let mut records = records_of(log, epoch, &[body], true);
    (records[0].kind, records[0].op) = (RecordKind::EpochStart, OpKey::NONE);
    log.append(records)
}

/// Three groups: [1] [2 3] | [4 5] | [6] [7 8], and the file that holds them.
fn three_groups(disk: &MemoryDisk) -> (PathBuf, Vec<u8>, Vec<usize>) {
    let mut log = new_log(disk);
    let path = PathBuf::from("wal/0000000000000001.log");
    let mut ends = vec![disk.written(&path).len()];
    for group in [vec![vec![1], vec![2, 3]], vec![vec![4, 5]], vec![vec![6], vec![7, 8]]] {
        for bodies in &group {
            batch(&mut log, bodies).expect("appended");
        }
        log.sync().expect("synced");
        ends.push(disk.written(&path).len());
    }
    let bytes = disk.written(&path);
    (path, bytes, ends)
}

/// Everything that a reader finds from `from` on, `bytes` at a time.
fn read_all(reader: &mut LogReader, from: u64, bytes: usize) -> Option<Vec<Record>> {
    let mut found: Vec<Record> = Vec::new();
    loop {
        let next = found.last().map_or(Lsn(from), |record| record.lsn.next());
        match reader.read(next, bytes).expect("whole") {
            LogRead::Gone => return None,
            LogRead::Records(records) if records.is_empty() => return Some(found),
            LogRead::Records(records) => {
                assert_eq!(records[0].lsn, next);
                found.extend(records);
            }
        }
    }
}

fn bodies(records: &[Record]) -> Vec<u8> {
    records.iter().map(|record| record.body[0]).collect()
}

#[test]
fn a_missing_segment_is_damage() {
    let disk = MemoryDisk::new(1);
    let mut log = new_log(&disk);
    for body in 1..=3 {
        batch(&mut log, &[body]).expect("appended");
        log.sync().expect("synced");
        log.rotate().expect("rotated");
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
            log.rotate().expect("rotated");
        }
    }
    log.release(Lsn(2), Lsn(2), u64::MAX).expect("released");
    assert_eq!((log.first(), disk.files().len()), (Lsn(3), 1));
    drop(log);
    let mut replayed = Vec::new();
    let point = RecoveryPoint { checkpoint: Lsn(2), durable: Lsn(4) };
    let scanned = Log::scan(place(&disk), point, &mut |record| {
        replayed.push(record.lsn.0);
        Ok(())
    });
    assert_eq!((replayed, scanned.expect("whole").records), (vec![3, 4], 2));
    assert!(recover(&disk, 4).is_err(), "without the checkpoint the first records are missing");
}

#[test]
fn a_release_that_fails_half_way_leaves_no_segment_that_is_not_there() {
    for count in 0..5 {
        let disk = MemoryDisk::new(count);
        let mut log = new_log(&disk);
        for body in 1..=3 {
            batch(&mut log, &[body]).expect("appended");
            log.sync().expect("synced");
            log.rotate().expect("rotated");
        }
        disk.fail_after(count, DiskOperation::Directory, ErrorKind::Other);
        let failed = log.release(Lsn(2), Lsn(2), u64::MAX).is_err();
        assert_eq!(failed, count < 3);
        let first = log.first();
        assert!(read_all(&mut log.reader(), first.0, 100).is_some());
        disk.heal();
        log.release(Lsn(2), Lsn(2), u64::MAX).expect("released");
        assert_eq!((log.first(), log.extent.lock().segments.len()), (Lsn(3), disk.files().len()));
    }
}

#[test]
fn the_bytes_of_a_long_log_are_bounded_where_it_is_possible() {
    let disk = MemoryDisk::new(1);
    let mut log = new_log(&disk);
    for body in 1..=6 {
        batch(&mut log, &[body]).expect("appended");
        log.sync().expect("synced");
        log.rotate().expect("rotated");
    }
    let (bytes, one) = (log.bytes(), (SEGMENT_HEADER_BYTES + HEADER_BYTES) as u64 + 1);
    log.release(Lsn(1), Lsn(4), bytes).expect("released");
    assert_eq!(log.first(), Lsn(2));
    log.release(Lsn(1), Lsn(4), bytes - 3 * one).expect("released");
    assert_eq!(log.first(), Lsn(4), "as much as the bound wants");
    log.release(Lsn(1), Lsn(4), 0).expect("released");
    assert_eq!(log.first(), Lsn(5), "but nothing behind the checkpoint");
}

#[test]
fn a_failed_write_or_sync_poisons_the_log() {
    for fault in [DiskOperation::Append, DiskOperation::Sync] {
        let disk = MemoryDisk::new(1);
        let mut log = new_log(&disk);
        batch(&mut log, &[1]).expect("appended");
        log.sync().expect("synced");
        batch(&mut log, &[2]).expect("appended");
        disk.fail_next(fault, ErrorKind::Other);
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
    // Nothing more can be reserved; what was reserved serves on.
    disk.set_capacity(disk.read(Path::new("wal/0000000000000001.log")).expect("there").len() as u64 + 20);
    let (mut whole, mut written) = (1, Vec::new());
    while log.sync().is_ok() {
        written = disk.written(Path::new("wal/0000000000000001.log"));
        whole = log.durable().0;
        batch(&mut log, &[2; 16]).expect("appended");
    }
    let (reserved, group) = (*RESERVED_BYTES.start() as usize, 16 * (HEADER_BYTES + 1));
    assert!((reserved - group..reserved + group).contains(&written.len()), "{}", written.len());
    disk.set_capacity(1 << 30);
    let (log, batches) = recover(&disk, whole).expect("torn");
    assert_eq!((log.end().0, batches.len() as u64), (whole, 1 + (whole - 1) / 16));
}

#[test]
fn most_groups_go_over_zeros_that_are_there() {
    let disk = MemoryDisk::new(1);
    let path = Path::new("wal/0000000000000001.log");
    let mut log = new_log(&disk);
    let (mut sizes, mut groups) = (Vec::new(), 0);
    while log.bytes() < 1 << 20 {
        batch(&mut log, &[7; 100]).expect("appended");
        log.sync().expect("synced");
        assert_eq!(disk.written(path).len() as u64, log.bytes());
        let size = disk.read(path).expect("there").len();
        assert!(size as u64 >= log.bytes() && size as u64 <= log.bytes() + RESERVED_BYTES.end());
        sizes.push(size);
        groups += 1;
    }
    sizes.dedup();
    assert!(sizes.len() * 10 < groups, "{} of {groups} groups made the file longer", sizes.len());
    let records = log.durable().0;
    drop(log);
    let point = RecoveryPoint { checkpoint: Lsn::ZERO, durable: Lsn(records) };
    let scanned = Log::scan(place(&disk), point, &mut |_| Ok(())).expect("whole");
    assert_eq!((scanned.records, scanned.cut_bytes), (records, 0), "zeros are no torn tail");
    let log = scanned.open().expect("well");
    assert_eq!(log.bytes(), disk.written(path).len() as u64 + SEGMENT_HEADER_BYTES as u64);
}

#[test]
fn a_batch_that_has_not_ended_waits_in_memory() {
    let disk = MemoryDisk::new(1);
    let mut log = new_log(&disk);
    batch(&mut log, &[1]).expect("appended");
    let halves = [records_of(&log, EPOCH, &[2], false), records_of(&log, EPOCH, &[3], true)];
    let [first, mut second] = halves;
    second[0].lsn = Lsn(3);
    log.append(first).expect("appended");
    log.sync().expect("synced");
    assert_eq!((log.durable(), log.end()), (Lsn(1), Lsn(2)));
    assert_eq!(recover(&disk, 1).expect("whole").1, [[1]]);

    let disk = MemoryDisk::new(1);
    let mut log = new_log(&disk);
    batch(&mut log, &[1]).expect("appended");
    log.append(records_of(&log, EPOCH, &[2], false)).expect("appended");
    log.sync().expect("synced");
    log.append(second).expect("appended");
    log.sync().expect("synced");
    assert_eq!((log.durable(), log.end()), (Lsn(3), Lsn(3)));
    assert_eq!(recover(&disk, 3).expect("whole").1, [vec![1], vec![2, 3]]);
}
