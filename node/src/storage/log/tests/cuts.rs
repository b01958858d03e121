//! Cuts, and what is kept of them.

use super::*;

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
fn a_cut_that_fails_half_way_poisons_the_log_and_recovery_ends_it() {
    for count in 0.. {
        let disk = MemoryDisk::new(count);
        let mut log = four_reigns(&disk);
        disk.fail_after(count, DiskOperation::Directory, ErrorKind::Other);
        let outcome = log.cut(Lsn(4), Epoch(2));
        disk.heal();
        assert_eq!(log.is_poisoned(), outcome.is_err(), "void segments may be there");
        drop(log);
        let (log, batches) = recover(&disk, 4).expect("no damage was done");
        assert!(batches.len() == 4 || outcome.is_err() && batches.len() == 12);
        let names = log.extent.lock().segments.len();
        assert_eq!(disk.files().len(), names, "what is void is gone");
        if outcome.is_ok() {
            assert!(count > 3);
            break;
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
