//! Checkpoints that travel: pinned here, written there, in the place of what was there before.

use super::*;

/// A primary with two segments, deleted rows, and a log that begins behind the checkpoint.
fn source(seed: u64) -> (MemoryDisk, Store) {
    let disk = MemoryDisk::new(seed);
    format(&disk);
    let mut store = open_and_lead(&disk).expect("fresh");
    let mut random = SmallRng::seed_from_u64(seed);
    for count in [40, 5] {
        let batches = (0..count).map(|_| random_batch(&mut random)).collect();
        commit(&mut store, batches).expect("well");
        lead(&mut store).expect("well");
        store.checkpoint().expect("well").expect("something to do");
    }
    commit(&mut store, (0..5).map(|_| random_batch(&mut random)).collect()).expect("well");
    (disk, store)
}

/// Brings all bytes over, a few at a time.
fn copy(pinned: &PinnedCheckpoint, writer: &mut SnapshotWriter) -> Result<(), StorageError> {
    for file in 0..writer.progress().len() {
        loop {
            let offset = writer.progress()[file];
            let bytes = pinned.read(file as u32, offset, 700).expect("the source is well");
            if bytes.is_empty() {
                break;
            }
            writer.write(file as u32, offset, &bytes)?;
        }
    }
    Ok(())
}

fn install(disk: &MemoryDisk, pinned: &PinnedCheckpoint) -> Result<ReplicaMeta, StorageError> {
    let description =
        SnapshotDescription::decode(&pinned.description().expect("well").encode()).expect("its own");
    let mut writer = SnapshotWriter::begin(&place(disk), &identity(2), description)?;
    copy(pinned, &mut writer)?;
    writer.finish()
}

/// Takes the rest of the source's log, and must be equal to it then.
fn follow(store: &mut Store, source: &Store) {
    store.promise(source.meta().promised_epoch).expect("well");
    store
        .receive(read_log(source, store.end().0 + 1).expect("whole").expect("the log reaches back"))
        .expect("fits");
    store.sync().expect("well");
    assert_eq!(store.apply(source.applied()).expect("rows can be read"), source.applied());
    assert_eq!(store.digest(), source.digest());
    let snapshots = [&*store, source].map(|store| documents_of(&store.reader().snapshot()));
    assert_eq!(snapshots[0], snapshots[1]);
}

/// A replica with something else in it: applied up to 1, with an uncommitted tail.
fn replica_before(disk: &MemoryDisk) {
    Store::format(&place(disk), identity(2)).expect("formatted");
    let (mut store, _) = open(disk).expect("fresh");
    lead(&mut store).expect("well");
    for value in 0..3 {
        store.stage(Epoch(1), vec![batch(vec![upsert(document("x", value as f32))])]).expect("well");
    }
    store.sync().expect("well");
    store.promise(Epoch(9)).expect("well");
    store.close().expect("well");
}

#[test]
fn a_replica_goes_on_behind_a_snapshot_as_if_it_had_read_the_whole_log() {
    for is_formatted in [false, true] {
        let (_, mut source) = source(1);
        let pinned = source.pin_checkpoint().expect("there is one");
        assert_eq!(pinned.description().expect("well").lsn(), pinned.lsn());
        let disk = MemoryDisk::new(2);
        if is_formatted {
            replica_before(&disk);
        }
        let meta = install(&disk, &pinned).expect("well");
        assert_eq!(
            meta.promised_epoch,
            if is_formatted { Epoch(9) } else { Epoch(3) },
            "a promise never falls"
        );
        let (mut store, report) = Store::open(place(&disk), meta).expect("whole");
        assert_eq!((report.applied, report.end, report.records), (pinned.lsn(), pinned.lsn(), 0));
        assert_eq!(
            store.positions().reigns.epoch_at(pinned.lsn()),
            source.positions().reigns.epoch_at(pinned.lsn())
        );
        follow(&mut store, &source);
        let generations = disk.list(&place(&disk).directory).expect("listed");
        assert_eq!(generations, [if is_formatted { "g2" } else { "g1" }, "replica.meta"]);
        store.close().expect("well");
        assert_eq!(open(&disk).expect("whole").0.digest(), source.digest());
    }
}

#[test]
fn a_crash_or_fault_at_any_operation_of_a_snapshot_leaves_the_replica_before_or_after_it() {
    type Fault = fn(&MemoryDisk, u64);
    let faults: [Fault; 4] = [
        |disk, count| disk.power_off_after(count),
        |disk, count| disk.fail_after(count, DiskOperation::Directory, std::io::ErrorKind::Other),
        |disk, count| disk.fail_after(count, DiskOperation::Append, std::io::ErrorKind::StorageFull),
        |disk, count| disk.fail_after(count, DiskOperation::Sync, std::io::ErrorKind::Other),
    ];
    let (_, mut source) = source(1);
    let pinned = source.pin_checkpoint().expect("there is one");
    let (mut crashed, mut resumed) = (0, 0);
    for (index, fault) in faults.into_iter().enumerate() {
        for count in 0.. {
            let disk = MemoryDisk::new(count);
            replica_before(&disk);
            fault(&disk, count);
            let outcome = install(&disk, &pinned);
            let struck = index == 0 && outcome.is_err() || index > 0 && !disk.has_faults();
            disk.heal();
            // The next attempt is of the same process, or of one after a loss of power.
            if count % 2 == 0 {
                disk.crash();
                crashed += 1;
            }
            let meta = ReplicaMeta::read(&disk, &place(&disk).directory).expect("whole").expect("there");
            assert_eq!(meta.promised_epoch, Epoch(9));
            if meta.generation == 1 {
                assert!(outcome.is_err());
                let description = pinned.description().expect("well").clone();
                let writer = SnapshotWriter::begin(&place(&disk), &identity(2), description).expect("well");
                resumed += usize::from(writer.progress().iter().any(|bytes| *bytes > 0));
                drop(writer);
                if count % 3 == 0 {
                    // Or it is given up.
                    let (store, report) = open(&disk).expect("no damage was done");
                    assert_eq!((report.applied, report.end), (Lsn(1), Lsn(4)));
                    store.close().expect("well");
                }
                // What a loss of power left of files may be found to be wrong at the end; then it is done anew.
                install(&disk, &pinned).or_else(|_| install(&disk, &pinned)).expect("well");
            } else if outcome.is_err() {
                // It came to count, but nobody was told; the next one must not take away what a crash brings back.
                let description = pinned.description().expect("well").clone();
                drop(SnapshotWriter::begin(&place(&disk), &identity(2), description).expect("well"));
                disk.crash();
            }
            drop(open(&disk).expect("no damage was done"));
            disk.crash();
            let (mut store, report) = open(&disk).expect("no damage was done");
            assert_eq!(report.applied, pinned.lsn(), "fault {index} at {count}");
            follow(&mut store, &source);
            if !struck {
                break;
            }
        }
    }
    assert!(crashed > 50 && resumed > 50, "{crashed} crashes, {resumed} went on");
}

#[test]
fn a_snapshot_that_was_interrupted_goes_on_where_it_was() {
    let (_, mut source) = source(1);
    let pinned = source.pin_checkpoint().expect("there is one");
    let description = pinned.description().expect("well").clone();
    let disk = MemoryDisk::new(2);
    let begin = || SnapshotWriter::begin(&place(&disk), &identity(2), description.clone()).expect("well");
    let mut writes = 0;
    let mut writer = begin();
    while let Some(file) =
        (0..description.files.len()).find(|file| writer.progress()[*file] < description.files[*file].bytes)
    {
        let offset = writer.progress()[file];
        let bytes = pinned.read(file as u32, offset, 333).expect("well");
        writer.write(file as u32, offset, &bytes).expect("well");
        writes += 1;
        let before = writer.progress().to_vec();
        writer = begin();
        assert_eq!(writer.progress(), before);
    }
    assert_eq!(writes, description.files.iter().map(|file| file.bytes.div_ceil(333)).sum::<u64>());
    writer.finish().expect("whole");

    // A description of other files begins anew.
    let disk = MemoryDisk::new(2);
    let mut writer = SnapshotWriter::begin(&place(&disk), &identity(2), description.clone()).expect("well");
    copy(&pinned, &mut writer).expect("well");
    let mut other = description.clone();
    other.files[1].blake3 = [0; 32];
    let writer = SnapshotWriter::begin(&place(&disk), &identity(2), other).expect("well");
    assert!(writer.progress().iter().all(|bytes| *bytes == 0));
}

#[test]
fn after_a_failed_write_a_file_begins_anew() {
    let (_, mut source) = source(1);
    let pinned = source.pin_checkpoint().expect("there is one");
    for count in 0..3 {
        let disk = MemoryDisk::new(count);
        let description = pinned.description().expect("well").clone();
        let mut writer = SnapshotWriter::begin(&place(&disk), &identity(2), description).expect("well");
        disk.fail_after(count, DiskOperation::Append, std::io::ErrorKind::StorageFull);
        copy(&pinned, &mut writer).expect_err("the disk failed");
        assert_eq!(writer.progress()[0], 0, "nobody knows what is in it");
        copy(&pinned, &mut writer).expect("well");
        writer.finish().expect("whole");
    }
}

/// Steps: the sender goes away in the middle of a file; a later try finds what is there and goes on behind it.
#[test]
fn an_interrupted_snapshot_is_gone_on_with() {
    let (_, mut source) = source(1);
    let pinned = source.pin_checkpoint().expect("there is one");
    let description = pinned.description().expect("well").clone();
    let disk = MemoryDisk::new(2);
    replica_before(&disk);
    assert!(SnapshotWriter::interrupted(&place(&disk), &identity(2)).is_none());
    let mut writer = SnapshotWriter::begin(&place(&disk), &identity(2), description.clone()).expect("well");
    let first = description.files[0].bytes;
    for (file, bytes) in [(0, first), (1, 333)] {
        let bytes = pinned.read(file, 0, bytes as usize).expect("well");
        writer.write(file, 0, &bytes).expect("well");
    }
    assert_eq!(writer.end(), (1, 333));
    drop(writer);
    let mut writer = SnapshotWriter::interrupted(&place(&disk), &identity(2)).expect("it was begun");
    assert_eq!((writer.description(), writer.end()), (&description, (1, 333)));
    copy(&pinned, &mut writer).expect("well");
    assert_eq!(writer.end(), (description.files.len() as u32, 0));
    writer.finish().expect("whole");
    assert!(SnapshotWriter::interrupted(&place(&disk), &identity(2)).is_none());
}

#[test]
fn bytes_that_are_not_those_of_the_description_are_refused() {
    let (_, mut source) = source(1);
    let pinned = source.pin_checkpoint().expect("there is one");
    let description = pinned.description().expect("well").clone();
    for (file, described) in description.files.iter().enumerate() {
        for flipped in [0, described.bytes as usize / 2, described.bytes as usize - 1] {
            let disk = MemoryDisk::new(2);
            replica_before(&disk);
            let mut writer =
                SnapshotWriter::begin(&place(&disk), &identity(2), description.clone()).expect("well");
            copy(&pinned, &mut writer).expect("well");
            let home = place(&disk).directory.join("g2");
            disk.flip_bit(&description.path_of(described, &home), flipped, 3);
            let refused = writer.finish().expect_err("changed").to_string();
            assert_eq!(
                refused,
                format!("snapshot file {file} was not taken: its bytes are not those of the description")
            );
            let mut writer =
                SnapshotWriter::begin(&place(&disk), &identity(2), description.clone()).expect("well");
            let begun: Vec<bool> = writer.progress().iter().map(|bytes| *bytes > 0).collect();
            assert_eq!(begun, (0..begun.len()).map(|other| other != file).collect::<Vec<bool>>());
            copy(&pinned, &mut writer).expect("well");
            writer.finish().expect("whole");
        }
    }
    let disk = MemoryDisk::new(2);
    let mut writer = SnapshotWriter::begin(&place(&disk), &identity(2), description.clone()).expect("well");
    let mut refused =
        |file, offset, bytes: &[u8]| writer.write(file, offset, bytes).expect_err("refused").to_string();
    assert!(refused(99, 0, b"x").contains("there is no such file"));
    assert!(refused(0, 5, b"x").contains("it has 0 bytes"));
    assert!(refused(0, 0, &vec![0; description.files[0].bytes as usize + 1]).contains("it will have"));
    let missing = writer.finish().expect_err("nothing is there").to_string();
    assert!(missing.starts_with("snapshot file 0 was not taken: 0 of"), "{missing}");
    for (file, offset) in [(99, 0), (0, u64::MAX), (1, description.files[1].bytes + 1)] {
        assert!(matches!(pinned.read(file, offset, 1), Err(StorageError::Refused { .. })));
    }
}

#[test]
fn a_snapshot_of_another_shard_or_before_the_commit_point_is_refused() {
    let (_, mut source) = source(1);
    let pinned = source.pin_checkpoint().expect("there is one");
    let begin = |disk: &MemoryDisk, change: fn(&mut SnapshotDescription)| {
        let mut description = pinned.description().expect("well").clone();
        change(&mut description);
        SnapshotWriter::begin(&place(disk), &identity(2), description).map(drop)
    };
    let disk = MemoryDisk::new(2);
    assert!(begin(&disk, |_| {}).is_ok());
    let is_refused = |outcome| matches!(outcome, Err(StorageError::Refused { .. }));
    assert!(is_refused(begin(&disk, |description| description.shard.index = ShardIndex(1))));
    assert!(is_refused(begin(&disk, |description| description.dimension = 4)));
    replica_before(&MemoryDisk::new(3));
    let ahead = MemoryDisk::new(3);
    replica_before(&ahead);
    assert!(begin(&ahead, |description| description.digest.lsn = Lsn(1)).is_ok());
    assert!(is_refused(begin(&ahead, |description| description.digest.lsn = Lsn(0))));
}

#[test]
fn what_is_pinned_stays_while_checkpoints_go_on() {
    let (disk, mut store) = source(1);
    let pinned = store.pin_checkpoint().expect("there is one");
    let again = store.pin_checkpoint().expect("there is one");
    let mut random = SmallRng::seed_from_u64(7);
    for _ in 0..5 {
        commit(&mut store, (0..20).map(|_| random_batch(&mut random)).collect()).expect("well");
        store.checkpoint().expect("well").expect("something to do");
        store.keep_from(Lsn::MAX).expect("well");
    }
    let other = MemoryDisk::new(2);
    let meta = install(&other, &pinned).expect("well");
    let (mut copy, _) = Store::open(place(&other), meta).expect("whole");
    follow(&mut copy, &store);
    let count = || disk.files().iter().filter(|path| path.to_string_lossy().contains("manifest-")).count();
    drop(pinned);
    store.keep_from(Lsn::MAX).expect("well");
    assert_eq!(count(), 2, "another one reads it");
    drop(again);
    store.keep_from(Lsn::MAX).expect("well");
    assert_eq!(count(), 1);
    let home = store.home.clone();
    let rows = disk.list(&home.join("segments")).expect("listed").len();
    assert_eq!(rows, store.manifest.segments.len());
    assert!(store.positions().first > copy.positions().first);
}

#[test]
fn a_fresh_replica_has_nothing_to_pin_and_a_damaged_one_finds_out() {
    let disk = MemoryDisk::new(1);
    format(&disk);
    assert!(open_and_lead(&disk).expect("fresh").pin_checkpoint().is_none());
    let (disk, mut store) = source(1);
    let home = store.home.clone();
    let is_sent =
        |path: &&PathBuf| path.starts_with(&home) && path.extension().is_none_or(|kind| kind == "rows");
    for path in disk.files().iter().filter(is_sent) {
        let pinned = store.pin_checkpoint().expect("there is one");
        disk.flip_bit(path, disk.read(path).expect("there").len() / 2, 1);
        assert!(matches!(pinned.description(), Err(StorageError::Damaged { .. })), "{}", path.display());
        disk.flip_bit(path, disk.read(path).expect("there").len() / 2, 1);
        assert!(pinned.description().is_ok());
        drop(pinned);
    }
}
