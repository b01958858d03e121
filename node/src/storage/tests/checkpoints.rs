//! Checkpoints of one replica: crashes and faults at any of their operations, what is sent again, what is left behind.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};

use xxhash_rust::xxh3::xxh3_64;

use super::*;
use crate::storage::op_window::OpKey;

/// A replica with two segments, deleted rows in both, and a log behind them.
fn replica_before_checkpoint(seed: u64) -> (MemoryDisk, Store, State) {
    let disk = MemoryDisk::new(seed);
    format(&disk);
    let mut store = open_and_lead(&disk).expect("fresh");
    let (mut random, mut state) = (SmallRng::seed_from_u64(seed), State::new());
    for round in 0..3 {
        for _ in 0..20 {
            let batch = random_batch(&mut random);
            apply_to(&mut state, &batch).ok();
            commit(&mut store, vec![batch]).expect("the disk is well");
        }
        if round < 2 {
            store.checkpoint().expect("the disk is well").expect("there is something to do");
        }
    }
    (disk, store, state)
}

#[test]
fn a_crash_at_any_operation_of_a_checkpoint_leaves_the_documents_as_they_were() {
    for seed in 0..5 {
        for operation in 0.. {
            let (disk, mut store, mut state) = replica_before_checkpoint(seed);
            disk.power_off_after(operation);
            let done = store.checkpoint().is_ok();
            disk.crash();
            let mut store = open_and_lead(&disk).expect("no damage was done");
            assert_eq!(documents_of(&store.reader().snapshot()), state, "seed {seed}, operation {operation}");

            // Whatever was left behind does not stand in the way of going on.
            let batch = random_batch(&mut SmallRng::seed_from_u64(1000 + operation));
            apply_to(&mut state, &batch).ok();
            commit(&mut store, vec![batch]).expect("the disk is well");
            store.checkpoint().expect("the disk is well").expect("there is something to do");
            store.close().expect("the disk is well");
            let (store, report) = open(&disk).expect("whole");
            assert_eq!(documents_of(&store.reader().snapshot()), state);
            assert!(report.clean_stop && report.records == 0, "{report:?}");
            if done {
                assert!(operation > 10, "a checkpoint takes more operations than {operation}");
                break;
            }
        }
    }
}

#[test]
fn writes_during_a_checkpoint_are_in_it_or_behind_it() {
    let (disk, mut store, mut state) = replica_before_checkpoint(7);
    let job = store.begin_checkpoint().expect("the disk is well").expect("there is something to do");
    let mut random = SmallRng::seed_from_u64(1);
    for _ in 0..30 {
        let batch = random_batch(&mut random);
        apply_to(&mut state, &batch).ok();
        commit(&mut store, vec![batch]).expect("the disk is well");
    }
    assert!(store.begin_checkpoint().expect("the disk is well").is_none(), "one at a time");
    store.finish_checkpoint(job.run()).expect("the disk is well");
    assert_eq!(documents_of(&store.reader().snapshot()), state);
    let batch = random_batch(&mut random);
    apply_to(&mut state, &batch).ok();
    commit(&mut store, vec![batch]).expect("the disk is well");
    drop(store);
    let (mut store, report) = open(&disk).expect("whole");
    assert!(report.records >= 31);
    assert!(report.applied < report.end, "the last write is not known to be committed");
    lead(&mut store).expect("well");
    assert_eq!(documents_of(&store.reader().snapshot()), state);
}

#[test]
fn a_checkpoint_that_was_begun_ends_well_though_the_log_failed_meanwhile() {
    let (disk, mut store, state) = replica_before_checkpoint(7);
    let job = store.begin_checkpoint().expect("the disk is well").expect("there is something to do");
    let applied = store.applied();
    assert!(store.meta().commit < applied, "the marks are behind");
    let epoch = store.meta().promised_epoch;
    store.stage(epoch, vec![random_batch(&mut SmallRng::seed_from_u64(1))]).expect("well");
    disk.fail_next(DiskOperation::Sync, io::ErrorKind::Other);
    store.sync().expect_err("the disk failed");
    store.finish_checkpoint(job.run()).expect("what it has was durable before");
    store.close().expect("well");
    disk.crash();
    let (store, report) = open(&disk).expect("whole");
    assert_eq!((report.applied, documents_of(&store.reader().snapshot())), (applied, state));
}

#[test]
fn every_flipped_byte_of_every_file_is_damage() {
    let (disk, store, state) = replica_before_checkpoint(3);
    store.close().expect("the disk is well");
    for path in disk.files() {
        for offset in 0..disk.written(&path).len() {
            disk.flip_bit(&path, offset, (offset % 8) as u8);
            let outcome = open(&disk);
            assert!(outcome.is_err_and(|error| error.is_lasting()), "byte {offset} of {}", path.display());
            disk.flip_bit(&path, offset, (offset % 8) as u8);
        }
        let bytes = disk.read(&path).expect("there");
        disk.remove(&path).expect("removed");
        assert!(open(&disk).is_err(), "{} is needed", path.display());
        drop(disk.create(&path).expect("created"));
        disk.overwrite(&path, bytes);
    }
    assert_eq!(documents_of(&open(&disk).expect("whole").0.reader().snapshot()), state);
}

#[test]
fn an_operation_sent_again_is_done_once_even_after_a_checkpoint_and_a_restart() {
    let disk = MemoryDisk::new(1);
    format(&disk);
    let mut store = open_and_lead(&disk).expect("fresh");
    let id = DocumentId::parse("a").expect("valid");
    let document = Document { id: id.clone(), vector: vec![1.0; 3], metadata: Metadata::empty() };
    let upsert = Batch { op_id: OpId([1; 16]), base: None, operations: vec![upsert(document)] };
    let delete = Batch { op_id: OpId([2; 16]), base: None, operations: vec![delete(id)] };
    let nothing = Batch { op_id: OpId([3; 16]), base: None, operations: delete.operations.clone() };
    let first =
        commit(&mut store, vec![upsert.clone(), upsert.clone(), delete, nothing.clone()]).expect("well");
    let receipts: Vec<Receipt> = first.into_iter().map(|outcome| outcome.expect("accepted")).collect();
    assert_eq!(receipts[0], receipts[1]);
    assert_eq!(receipts.iter().map(|receipt| receipt.affected).collect::<Vec<_>>(), [1, 1, 1, 0]);
    for round in 0..3 {
        if round == 1 {
            store.checkpoint().expect("well");
        }
        store.close().expect("well");
        store = open_and_lead(&disk).expect("whole");
        let again = commit(&mut store, vec![upsert.clone(), nothing.clone()]).expect("well");
        assert_eq!(again, [Ok(receipts[0]), Ok(receipts[3])]);
        assert_eq!(
            store.reader().get("a", false).expect("rows can be read"),
            None,
            "a late retry brought it back"
        );
    }
}

#[test]
fn many_checkpoints_leave_few_segments_and_no_dead_rows_for_long() {
    let disk = MemoryDisk::new(1);
    format(&disk);
    let mut store = open_and_lead(&disk).expect("fresh");
    for round in 0..100u32 {
        let operations = (0..10).map(|number| {
            // Half of the ids are new in each round, half are written again and again.
            let id = if number < 5 { number } else { round * 10 + number };
            let id = DocumentId::parse(&id.to_string()).expect("valid");
            upsert(Document { id, vector: vec![1.0; 3], metadata: Metadata::empty() })
        });
        let batch = Batch { op_id: OpId(rand::random()), base: None, operations: operations.collect() };
        commit(&mut store, vec![batch]).expect("well")[0].as_ref().expect("accepted");
        store.checkpoint().expect("well");
        let statistics = store.reader().statistics();
        assert_eq!(statistics.documents, 5 + 5 * (u64::from(round) + 1));
        assert!(statistics.segments <= 10, "{statistics:?}");
        assert!(statistics.deleted_rows * 3 <= statistics.documents + 15, "{statistics:?}");
    }
    let files = disk.files();
    let rows = files.iter().filter(|path| path.extension().is_some_and(|kind| kind == "rows")).count();
    assert_eq!(rows as u32, store.reader().statistics().segments, "{files:?}");
}

#[test]
fn a_process_that_dies_or_fails_at_any_operation_leaves_nothing_that_a_later_crash_can_harm() {
    type Fault = fn(&MemoryDisk, u64);
    let faults: [Fault; 2] = [
        |disk, count| disk.fail_after(count, DiskOperation::Directory, io::ErrorKind::Other),
        |disk, count| disk.power_off_after(count),
    ];
    for (seed, fault) in (0..20).flat_map(|seed| faults.map(|fault| (seed, fault))) {
        for count in 0.. {
            let (disk, mut store, state) = replica_before_checkpoint(seed);
            fault(&disk, count);
            let outcome = store.checkpoint();
            let is_over =
                outcome.is_ok_and(|report| report.is_some_and(|report| report.not_removed.is_none()));
            disk.heal();
            drop(store);
            // The next process sees what is in the cache. What it removes must not be what the platter needs.
            drop(open(&disk).expect("no damage was done"));
            disk.crash();
            let store = open_and_lead(&disk).expect("no damage was done");
            assert_eq!(documents_of(&store.reader().snapshot()), state, "seed {seed}, operation {count}");
            if is_over {
                break;
            }
        }
    }
}

#[test]
fn an_operation_id_with_another_body_is_refused() {
    let disk = MemoryDisk::new(1);
    format(&disk);
    let mut store = open_and_lead(&disk).expect("fresh");
    let batch = |id: &str, value: f32| {
        let id = DocumentId::parse(id).expect("valid");
        let document = Document { id, vector: vec![value; 3], metadata: Metadata::empty() };
        Batch { op_id: OpId([1; 16]), base: None, operations: vec![upsert(document)] }
    };
    let first = commit(&mut store, vec![batch("a", 1.0), batch("a", 2.0), batch("a", 1.0)]).expect("well");
    assert!(first[0].is_ok() && first[0] == first[2]);
    assert_eq!(first[1], Err(Refusal::OtherBatch), "within a group");
    for round in 0..3 {
        if round == 1 {
            store.checkpoint().expect("well");
        }
        store = open_and_lead(&disk).expect("whole");
        let again = commit(&mut store, vec![batch("a", 1.0), batch("b", 1.0)]).expect("well");
        assert_eq!(again, [first[0].clone(), Err(Refusal::OtherBatch)]);
    }
    assert_eq!(store.reader().get("b", false).expect("rows can be read"), None);
}

#[test]
fn digests_of_operations_never_change() {
    // They are in logs and manifests of every version.
    let id = DocumentId::parse("a").expect("valid");
    let document = Document { id: id.clone(), vector: vec![1.0, -2.0], metadata: Metadata::empty() };
    let operations = vec![
        upsert(document),
        delete(id.clone()),
        Operation::SetMetadata { id, metadata: Metadata::empty(), if_version: None },
    ];
    let mut parts = Vec::new();
    let texts: [&[u8]; 9] = [
        b"upsert",
        b"a",
        b"\x00\x00\x80\x3f\x00\x00\x00\xc0",
        b"{}",
        b"delete",
        b"a",
        b"set metadata",
        b"a",
        b"{}",
    ];
    for text in texts {
        parts.extend_from_slice(&(text.len() as u64).to_le_bytes());
        parts.extend_from_slice(text);
    }
    let key = Batch { op_id: OpId([1; 16]), base: None, operations }.key();
    assert_eq!(key, OpKey { id: OpId([1; 16]), digest: xxh3_64(&parts) });
}

#[test]
fn a_checkpoint_that_was_told_to_stop_gives_up_and_the_next_one_is_whole() {
    let (disk, mut store, state) = replica_before_checkpoint(4);
    let files = disk.files();
    let job = store.begin_checkpoint().expect("well").expect("there is something to do");
    job.stop_flag().raise();
    let outcome = store.finish_checkpoint(job.run());
    assert!(matches!(outcome, Err(StorageError::Stopped)));
    assert!(!store.is_poisoned());
    assert_eq!(disk.files().iter().filter(|file| !files.contains(file)).count(), 1, "the log's new segment");
    store.checkpoint().expect("well").expect("there is something to do");
    assert_eq!(documents_of(&store.reader().snapshot()), state);
}

#[test]
fn checkpoints_that_fail_again_and_again_leave_no_empty_segments() {
    let (_, mut store, state) = replica_before_checkpoint(4);
    for _ in 0..5 {
        let job = store.begin_checkpoint().expect("well").expect("there is something to do");
        job.stop_flag().raise();
        store.finish_checkpoint(job.run()).expect_err("told to stop");
    }
    let documents = store.shared.documents.read().expect("no panic");
    assert!(documents.full_segments().iter().all(|segment| !segment.is_empty()));
    drop(documents);
    store.checkpoint().expect("well").expect("there is something to do");
    assert_eq!(documents_of(&store.reader().snapshot()), state);
}

#[test]
fn files_that_cannot_be_removed_do_not_fail_the_checkpoint_and_go_with_the_next_one() {
    let mut kept = 0;
    for count in 0..20 {
        let (disk, mut store, _) = replica_before_checkpoint(4);
        disk.fail_after(count, DiskOperation::Directory, io::ErrorKind::PermissionDenied);
        let Ok(Some(report)) = store.checkpoint() else { continue };
        disk.heal();
        if report.not_removed.is_none() {
            continue;
        }
        kept += 1;
        assert!(!store.is_poisoned());
        commit(&mut store, vec![random_batch(&mut SmallRng::seed_from_u64(1))]).expect("the disk is well");
        let report = store.checkpoint().expect("well").expect("there is something to do");
        assert!(report.not_removed.is_none());
        let manifests =
            disk.files().iter().filter(|file| file.to_string_lossy().contains("manifest-")).count();
        let logs =
            disk.files().iter().filter(|file| file.extension().is_some_and(|kind| kind == "log")).count();
        assert_eq!((manifests, logs), (1, 1), "{:?}", disk.files());
    }
    assert!(kept >= 2, "a log segment and a manifest could not be removed");
}

#[test]
fn nothing_is_merged_into_the_last_half_of_a_nearly_full_volume() {
    let disk = MemoryDisk::new(1);
    format(&disk);
    let mut store = open_and_lead(&disk).expect("fresh");
    let write = |store: &mut Store, number: u32| {
        let id = DocumentId::parse(&number.to_string()).expect("valid");
        let text = format!("{{\"text\":\"{}\"}}", "x".repeat(100_000));
        let metadata = Metadata::from_stored(text.into()).expect("object");
        let document = Document { id, vector: vec![1.0; 3], metadata };
        let batch = Batch { op_id: OpId(rand::random()), base: None, operations: vec![upsert(document)] };
        commit(store, vec![batch]).expect("well")[0].as_ref().expect("accepted");
    };
    let merged = |store: &mut Store| store.checkpoint().expect("well").expect("something to do").merged;
    write(&mut store, 0);
    assert_eq!(merged(&mut store), 0);
    write(&mut store, 1);
    let used = disk.space().expect("known");
    let used = used.capacity_bytes - used.free_bytes;
    disk.set_capacity(used + 350_000);
    assert_eq!(merged(&mut store), 0, "two segments of 100 kB are more than half of what is free");
    write(&mut store, 2);
    disk.set_capacity(1 << 40);
    assert_eq!(merged(&mut store), 2);
}

#[test]
fn what_a_look_up_finds_is_in_the_snapshot_too() {
    let disk = MemoryDisk::new(1);
    format(&disk);
    let mut store = open_and_lead(&disk).expect("fresh");
    let reader = store.reader();
    let is_done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !is_done.load(Ordering::Relaxed) {
                if let Some((_, version)) = reader.get("a", false).expect("rows can be read") {
                    assert!(version <= reader.snapshot().lsn, "a search would not find it yet");
                }
            }
        });
        for _ in 0..20 {
            let batches = (0..500).map(|_| {
                let id = DocumentId::parse("a").expect("valid");
                let document = Document { id, vector: vec![1.0; 3], metadata: Metadata::empty() };
                Batch { op_id: OpId(rand::random()), base: None, operations: vec![upsert(document)] }
            });
            commit(&mut store, batches.collect()).expect("well");
        }
        is_done.store(true, Ordering::Relaxed);
    });
    let _applying = store.shared.documents.write().expect("no panic");
    assert_eq!(reader.try_get("a", false), None, "it does not wait");
}
