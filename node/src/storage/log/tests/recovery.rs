//! What opening makes of torn, flipped, recycled and foreign bytes.

use super::*;

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
    let later_bytes = other.written(&segment::path_of(Path::new("wal"), 2));
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

/// It was taken for void, and the segment whose number it has was removed in its place.
#[test]
fn a_segment_under_another_name_is_damage_even_when_it_is_void() {
    let disk = MemoryDisk::new(1);
    let (_, bytes, _) = three_groups(&disk);
    let copy = segment::path_of(Path::new("wal"), 0);
    disk.create(&copy).expect("created");
    disk.overwrite(&copy, bytes);
    assert!(matches!(recover(&disk, 8), Err(StorageError::Damaged { .. })));
    disk.remove(&copy).expect("removed");
    let (_, batches) = recover(&disk, 8).expect("the other one is whole");
    assert_eq!(batches.concat(), [1, 2, 3, 4, 5, 6, 7, 8]);
}
