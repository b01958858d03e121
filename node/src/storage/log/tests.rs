//! The log under crashes, cuts, flips and failing disks.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use proptest::prelude::*;

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
        Log::scan(other, point, &mut |_| Ok(())),
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

#[test]
fn an_open_batch_that_a_reign_follows_stays_and_is_never_replayed() {
    for (seed, mark) in (0..50).flat_map(|seed| [0, 1, 4].map(|mark| (seed, mark))) {
        let disk = MemoryDisk::new(seed);
        let mut log = new_log(&disk);
        batch(&mut log, &[1]).expect("appended");
        log.append(records_of(&log, EPOCH, &[2, 3], false)).expect("appended");
        reign(&mut log, Epoch(2), 4).expect("appended");
        log.sync().expect("synced");
        let kept = |log: &Log| bodies(&read_all(&mut log.reader(), 1, 100).expect("all there"));
        assert_eq!((log.durable(), kept(&log)), (Lsn(4), vec![1, 2, 3, 4]));
        disk.crash();
        let (mut log, batches) = recover(&disk, mark).expect("whole");
        assert_eq!((batches, kept(&log)), (vec![vec![1], vec![4]], vec![1, 2, 3, 4]));
        batch(&mut log, &[5]).expect("appended");
        log.sync().expect("synced");
        let (log, batches) = recover(&disk, 5).expect("whole");
        assert_eq!((batches, kept(&log)), (vec![vec![1], vec![4], vec![5]], vec![1, 2, 3, 4, 5]));
    }
}

#[test]
fn reigns_are_found_again() {
    let disk = MemoryDisk::new(1);
    let mut log = new_log(&disk);
    for epoch in [2u8, 5, 6] {
        reign(&mut log, Epoch(epoch.into()), epoch).expect("appended");
        batch(&mut log, &[epoch, epoch]).expect("appended");
        log.sync().expect("synced");
        log.rotate().expect("rotated");
    }
    log.release(Lsn(3), Lsn(3), u64::MAX).expect("released");
    let point = RecoveryPoint { checkpoint: Lsn(3), durable: Lsn(9) };
    let scanned = Log::scan(place(&disk), point, &mut |_| Ok(())).expect("whole");
    let reigns: Vec<(u64, u64)> = scanned.reigns.iter().map(|reign| (reign.epoch.0, reign.first.0)).collect();
    assert_eq!((scanned.first, reigns), (Lsn(4), vec![(5, 4), (6, 7)]));
    let log = scanned.open().expect("opened");
    assert_eq!((log.epoch(), log.end()), (Epoch(6), Lsn(9)));
}

#[test]
fn a_reader_finds_every_record_from_everywhere() {
    let disk = MemoryDisk::new(1);
    let mut log = new_log(&disk);
    let mut reader = log.reader();
    for body in 1..=40u8 {
        let bodies: Vec<u8> = vec![body; usize::from(body % 3) + 1];
        batch(&mut log, &bodies).expect("appended");
        let unsynced = read_all(&mut reader, 1, 1 << 20).expect("there");
        assert_eq!(unsynced.len() as u64, log.durable().0, "only what is durable");
        log.sync().expect("synced");
        if body % 10 == 0 {
            log.rotate().expect("rotated");
        }
    }
    let all = read_all(&mut log.reader(), 1, usize::MAX).expect("there");
    assert_eq!(all.last().map(|record| record.lsn), Some(log.end()));
    for from in 1..=log.end().0 {
        for bytes in [0, 60, 1000, usize::MAX] {
            let found = read_all(&mut reader, from, bytes).expect("there");
            assert_eq!(found, all[from as usize - 1..], "from {from}, {bytes} bytes at once");
        }
    }
    assert_eq!(reader.read(log.end().next(), 1).expect("well"), LogRead::Records(Vec::new()));
    log.release(Lsn(30), Lsn(30), u64::MAX).expect("released");
    let first = log.first().0;
    assert!(first > 1);
    assert_eq!(reader.read(Lsn(first - 1), 1).expect("well"), LogRead::Gone);
    assert_eq!(read_all(&mut reader, first, 100).expect("there"), all[first as usize - 1..]);
    drop(log);
    assert_eq!(reader.read(Lsn(first), 1).expect("well"), LogRead::Gone, "the log is closed");
}

#[test]
fn a_reader_reads_records_of_every_size() {
    let disk = MemoryDisk::new(1);
    let mut log = new_log(&disk);
    let sizes = [0, 1, 5000, 3 << 20, 10, BODY_BYTES_MAX, 7];
    for (index, size) in sizes.into_iter().enumerate() {
        let mut records = records_of(&log, EPOCH, &[0], true);
        records[0].body = Bytes::from(vec![index as u8; size]);
        log.append(records).expect("appended");
    }
    log.sync().expect("synced");
    for bytes in [1, 1 << 16, 1 << 22] {
        let found = read_all(&mut log.reader(), 1, bytes).expect("there");
        assert_eq!(found.iter().map(|record| record.body.len()).collect::<Vec<_>>(), sizes);
    }
}

#[test]
fn a_reader_sees_damage() {
    let disk = MemoryDisk::new(1);
    let (path, bytes, _) = three_groups(&disk);
    let (log, _) = recover(&disk, 8).expect("whole");
    for offset in SEGMENT_HEADER_BYTES..bytes.len() {
        disk.flip_bit(&path, offset, 3);
        let mut reader = log.reader();
        let mut next = Lsn(1);
        let damaged = loop {
            match reader.read(next, 1) {
                Ok(LogRead::Records(records)) if !records.is_empty() => next = records[0].lsn.next(),
                outcome => break outcome.is_err_and(|error| error.is_lasting()),
            }
        };
        assert!(damaged, "byte {offset}");
        disk.flip_bit(&path, offset, 3);
    }
}

#[test]
fn a_reader_on_another_thread_never_sees_what_is_not_in_the_log() {
    let disk = MemoryDisk::new(1);
    let mut log = new_log(&disk);
    let mut reader = log.reader();
    let read = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut from = Lsn(1);
            loop {
                match reader.read(from, 200).expect("no damage was done") {
                    LogRead::Gone => break,
                    LogRead::Records(records) if !records.is_empty() => {
                        for pair in records.windows(2) {
                            assert!(pair[0].epoch <= pair[1].epoch && pair[0].lsn.next() == pair[1].lsn);
                        }
                        assert!(
                            records.iter().all(|record| u64::from(record.body[0]) == record.epoch.0 % 256)
                        );
                        read.fetch_add(records.len(), Ordering::Relaxed);
                        from = if records.len() % 2 == 0 { Lsn(1) } else { records[records.len() - 1].lsn };
                    }
                    LogRead::Records(_) => from = Lsn(1),
                }
            }
        });
        // A record's body is its epoch.
        for epoch in 1.. {
            let body = (epoch % 256) as u8;
            reign(&mut log, Epoch(epoch), body).expect("appended");
            batch(&mut log, &[body; 7]).expect("appended");
            log.sync().expect("synced");
            let to = log.end().0 - 8;
            if epoch % 3 == 0 && to > 0 {
                log.cut(Lsn(to), Epoch(epoch - 1)).expect("cut");
                reign(&mut log, Epoch(epoch), body).expect("appended");
                log.sync().expect("synced");
            }
            if epoch > 300 && read.load(Ordering::Relaxed) > 1000 {
                break;
            }
        }
        drop(log);
    });
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

/// Reigns of several segments each: bodies 1..=12, three records for each of the epochs 1 to 4.
fn four_reigns(disk: &MemoryDisk) -> Log {
    let mut log = new_log(disk);
    for body in 0..12u8 {
        let epoch = Epoch(u64::from(body) / 3 + 1);
        if body % 3 == 0 {
            reign(&mut log, epoch, body + 1).expect("appended");
        } else {
            batch(&mut log, &[body + 1]).expect("appended");
        }
        log.sync().expect("synced");
        if body % 2 == 0 {
            log.rotate().expect("rotated");
        }
    }
    log
}

#[test]
fn a_crash_at_any_operation_of_a_cut_leaves_the_log_before_or_after_it() {
    for to in 0..12u64 {
        let epoch = |lsn: u64| Epoch(lsn.div_ceil(3));
        for operation in 0.. {
            let disk = MemoryDisk::new(operation);
            let mut log = four_reigns(&disk);
            disk.power_off_after(operation);
            let done = log.cut(Lsn(to), epoch(to)).is_ok();
            disk.crash();
            let (mut log, batches) = recover(&disk, to).expect("no damage was done");
            let expected = |end: u64| (1..=end as u8).map(|body| vec![body]).collect::<Vec<_>>();
            assert!(batches == expected(to) || !done && batches == expected(12), "to {to}: {batches:?}");

            // What was cut stays away, whatever follows.
            let end = batches.len() as u64;
            assert_eq!((log.end(), log.epoch()), (Lsn(end), epoch(end)));
            batch(&mut log, &[100, 101]).expect("appended");
            log.sync().expect("synced");
            disk.crash();
            let (log, batches) = recover(&disk, end + 2).expect("no damage was done");
            assert_eq!(batches, [expected(end), vec![vec![100, 101]]].concat());
            let read = read_all(&mut log.reader(), 1, 100).expect("there");
            assert_eq!(bodies(&read), batches.concat());
            if done {
                break;
            }
        }
    }
}

#[test]
fn a_cut_reaches_what_was_never_written_too() {
    let disk = MemoryDisk::new(1);
    let mut log = new_log(&disk);
    batch(&mut log, &[1]).expect("appended");
    log.sync().expect("synced");
    for body in 2..5 {
        batch(&mut log, &[body]).expect("appended");
    }
    log.cut(Lsn(3), EPOCH).expect("cut");
    assert_eq!((log.durable(), log.end()), (Lsn(1), Lsn(3)));
    log.cut(Lsn(0), Epoch(0)).expect("cut");
    assert_eq!((log.durable(), log.end(), log.epoch()), (Lsn(0), Lsn(0), Epoch(0)));
    batch(&mut log, &[9]).expect("appended");
    log.sync().expect("synced");
    assert_eq!(recover(&disk, 1).expect("whole").1, [[9]]);
}

#[test]
fn what_is_cut_is_kept_in_the_last_eight_files() {
    let disk = MemoryDisk::new(1);
    let mut log = new_log(&disk);
    let directory = Path::new("orphans");
    batch(&mut log, &[1]).expect("appended");
    for round in 0..10u8 {
        for body in 0..3 {
            batch(&mut log, &[10 * round + body + 10]).expect("appended");
            log.sync().expect("synced");
            log.rotate().expect("rotated");
        }
        log.copy_orphans(directory, Lsn(1), EPOCH).expect("copied");
        log.cut(Lsn(1), EPOCH).expect("cut");
    }
    let kept = segment::list(&disk, directory).expect("listed");
    assert_eq!(kept, (3..=10).collect::<Vec<u64>>());
    // Each is a log of its own.
    for number in kept {
        let bytes = disk.read(&segment::path_of(directory, number)).expect("there");
        let alone = MemoryDisk::new(1);
        alone.create_dir_all(Path::new("wal")).expect("created");
        alone
            .create(&segment::path_of(Path::new("wal"), number))
            .expect("created")
            .append(&bytes)
            .expect("written");
        let mut found = Vec::new();
        let point = RecoveryPoint { checkpoint: Lsn(1), durable: Lsn(4) };
        Log::scan(place(&alone), point, &mut |record| {
            found.push(u64::from(record.body[0]));
            Ok(())
        })
        .expect("whole");
        assert_eq!(found, [0, 1, 2].map(|body| 10 * (number - 1) + body + 10));
    }
}

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
