//! What a follower takes from a primary, and what it gives up when another one leads.

use super::*;

/// A primary that wrote so many batches of two documents, with its records.
fn primary(batches: u64) -> (MemoryDisk, Store, Vec<Record>) {
    let disk = MemoryDisk::new(1);
    format(&disk);
    let (mut store, _) = open(&disk).expect("fresh");
    store.promise(Epoch(1)).expect("well");
    let mut records = vec![store.start_epoch(Epoch(1)).expect("well")];
    for number in 0..batches {
        let pair = ["a", "b"].map(|text| upsert(document(text, number as f32))).to_vec();
        records.extend(store.stage(Epoch(1), vec![batch(pair)]).expect("well").records);
    }
    store.sync().expect("well");
    (disk, store, records)
}

fn follower(seed: u64) -> (MemoryDisk, Store) {
    let disk = MemoryDisk::new(seed);
    Store::format(&place(&disk), identity(2)).expect("formatted");
    let (mut store, _) = open(&disk).expect("fresh");
    store.promise(Epoch(1)).expect("well");
    (disk, store)
}

fn refusal(store: &mut Store, records: Vec<Record>) -> String {
    let before = store.positions();
    match store.receive(records) {
        Err(StorageError::Refused { what, reason }) => {
            assert_eq!(store.positions(), before);
            format!("{what}: {reason}")
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_follower_becomes_equal_however_the_records_are_cut_into_messages() {
    let (_, mut primary, records) = primary(10);
    primary.apply(primary.end()).expect("rows can be read");
    for size in [1, 2, 3, 7, 100] {
        let (_, mut follower) = follower(size as u64);
        for message in records.chunks(size) {
            follower.receive(message.to_vec()).expect("fits");
            follower.sync().expect("well");
            let positions = follower.positions();
            assert_eq!(positions.end, message.last().expect("not empty").lsn);
            assert!(positions.end.0 - positions.durable.0 <= 1, "half a batch waits for its end");
            assert_eq!(follower.apply(positions.end).expect("rows can be read"), positions.durable);
        }
        assert_eq!(follower.digest(), primary.digest());
        assert_eq!(follower.positions(), Positions { ..primary.positions() });
        let snapshots = [&follower, &primary].map(|store| documents_of(&store.reader().snapshot()));
        assert_eq!(snapshots[0], snapshots[1]);
    }
}

#[test]
fn records_that_do_not_follow_are_refused_and_nothing_of_them_is_taken() {
    let (_, _, records) = primary(3);
    let (_, mut store) = follower(1);
    let changed = |index: usize, change: fn(&mut Record)| {
        let mut changed = records.clone();
        change(&mut changed[index]);
        changed
    };
    assert_eq!(refusal(&mut store, records[1..].to_vec()), "record 2: the log ends at 0");
    let gap = changed(2, |record| record.lsn = Lsn(9));
    assert_eq!(refusal(&mut store, gap), "record 9: the log ends at 2");
    let late = changed(3, |record| record.epoch = Epoch(0));
    assert_eq!(refusal(&mut store, late), "record 4: epoch 0 is not between 1 and 1");
    let early = changed(3, |record| record.epoch = Epoch(2));
    assert_eq!(refusal(&mut store, early), "record 4: epoch 2 is not between 1 and 1");
    store.promise(Epoch(2)).expect("well");
    let early = changed(3, |record| record.epoch = Epoch(2));
    assert!(refusal(&mut store, early).starts_with("record 4: epoch 2 must begin with its start"));
    let again = changed(3, |record| record.kind = RecordKind::EpochStart);
    assert!(refusal(&mut store, again).starts_with("record 4: epoch 1 must begin with its start"));
    let open = changed(0, |record| record.batch_end = false);
    assert!(refusal(&mut store, open).starts_with("record 1: epoch 1 must begin with its start"));
    let body = changed(4, |record| record.body = bytes::Bytes::from_static(b"\xff"));
    assert!(refusal(&mut store, body).starts_with("record 5: "));
    let vector = changed(4, |record| {
        let short = Document { vector: vec![1.0], ..document("b", 0.0) };
        record.body = effect::Effect::Upsert(short).encode().1;
    });
    assert_eq!(refusal(&mut store, vector), "record 5: vector of 1 values where 3 are stored");
    let delete =
        changed(2, |record| (record.kind, record.body) = effect::Effect::Delete(id("nobody")).encode());
    assert_eq!(refusal(&mut store, delete), "record 3: document \"nobody\" does not exist");

    // Also where the first half of a batch came before.
    store.receive(records[..2].to_vec()).expect("fits");
    let wrong = changed(2, |record| record.lsn = Lsn(2))[2..3].to_vec();
    refusal(&mut store, wrong);
    store.receive(records[2..].to_vec()).expect("fits");
    store.sync().expect("well");
    assert_eq!(store.apply(Lsn(99)).expect("rows can be read"), Lsn(7));
}

#[test]
fn records_of_the_reign_that_this_replica_leads_are_refused() {
    let (_, mut store, mut records) = primary(1);
    records[2].lsn = Lsn(4);
    assert_eq!(refusal(&mut store, records[2..].to_vec()), "record 4: this replica leads epoch 1");
    assert!(store.stage(Epoch(1), Vec::new()).is_ok(), "it goes on");
}

#[test]
fn a_batch_that_a_new_reign_leaves_open_is_void_everywhere() {
    let (_, _, records) = primary(2);
    let (disk, mut store) = follower(1);
    // Half of the last batch arrives, then this replica is elected.
    store.receive(records[..4].to_vec()).expect("fits");
    store.sync().expect("well");
    assert_eq!((store.durable(), store.end()), (Lsn(3), Lsn(4)));
    store.promise(Epoch(2)).expect("well");
    let start = store.start_epoch(Epoch(2)).expect("well");
    assert_eq!(start.lsn, Lsn(5));
    let staged = store.stage(Epoch(2), vec![batch(vec![delete(id("a"))])]).expect("well");
    store.sync().expect("well");
    assert_eq!(store.apply(Lsn(6)).expect("rows can be read"), Lsn(6));
    let get = |store: &Store, text| {
        store.reader().get(text, false).expect("rows can be read").map(|(_, version)| version.0)
    };
    assert_eq!((get(&store, "a"), get(&store, "b")), (None, Some(3)));

    // Another follower takes the same log, and so does this one after a crash.
    let (_, mut other) = follower(2);
    other.promise(Epoch(2)).expect("well");
    other.receive([&records[..4], &[start], &staged.records[..]].concat()).expect("fits");
    other.sync().expect("well");
    assert_eq!(other.apply(Lsn(6)).expect("rows can be read"), Lsn(6));
    assert_eq!(other.digest(), store.digest());
    disk.crash();
    let (mut reopened, _) = open(&disk).expect("no damage was done");
    reopened.apply(Lsn(6)).expect("rows can be read");
    assert_eq!(reopened.digest(), other.digest());
    assert_eq!(
        read_log(&reopened, 1).expect("whole").map(|read| read.len()),
        Some(6),
        "void records stay in the log"
    );
}

/// A follower at position 7 with reigns 1 (from 1), 2 (from 4) and 3 (from 6) that applied up to 3, whose log spans three
/// segments.
fn follower_with_three_reigns(seed: u64) -> (MemoryDisk, Store) {
    let (disk, mut store) = follower(seed);
    for (epoch, value) in [(1, 0.0), (2, 1.0), (3, 2.0)] {
        store.promise(Epoch(epoch)).expect("well");
        store.start_epoch(Epoch(epoch)).expect("well");
        let count = if epoch == 1 { 2 } else { 1 };
        let texts = ["a", "b"];
        for text in &texts[..count] {
            store.stage(Epoch(epoch), vec![batch(vec![upsert(document(text, value))])]).expect("well");
        }
        store.sync().expect("well");
        store.log.rotate().expect("well");
    }
    store.apply(Lsn(3)).expect("rows can be read");
    store.promise(Epoch(4)).expect("well");
    (disk, store)
}

fn reigns_of(store: &Store) -> Vec<(u64, u64)> {
    store.positions().reigns.as_slice().iter().map(|reign| (reign.epoch.0, reign.first.0)).collect()
}

#[test]
fn a_crash_at_any_operation_of_a_cut_leaves_the_replica_before_or_after_it() {
    for to in 3..8u64 {
        let expected_reigns = |end: u64| {
            [(1, 1), (2, 4), (3, 6)].into_iter().filter(|(_, first)| *first <= end).collect::<Vec<_>>()
        };
        for operation in 0.. {
            let (disk, mut store) = follower_with_three_reigns(operation);
            assert_eq!(reigns_of(&store), expected_reigns(7));
            disk.power_off_after(operation);
            let outcome = store.cut(Lsn(to));
            if outcome.is_ok() {
                assert_eq!((store.end(), store.durable()), (Lsn(to), Lsn(to)));
                assert_eq!(reigns_of(&store), expected_reigns(to));
            } else {
                // Whatever the process still writes does no harm.
                store.close().ok();
            }
            disk.crash();
            let (mut store, report) = open(&disk).expect("no damage was done");
            let end = report.end.0;
            assert!(end == to || outcome.is_err() && end == 7, "to {to}, operation {operation}: {end}");
            assert_eq!(reigns_of(&store), expected_reigns(end));
            assert_eq!(store.meta().promised_epoch, Epoch(4));

            // The new primary's log goes on where it was cut.
            store.cut(Lsn(to)).expect("well");
            assert_eq!(store.end(), Lsn(to));
            store.start_epoch(Epoch(4)).expect("well");
            store.stage(Epoch(4), vec![batch(vec![upsert(document("a", 9.0))])]).expect("well");
            store.sync().expect("well");
            disk.crash();
            let (mut store, report) = open(&disk).expect("no damage was done");
            assert_eq!(report.end, Lsn(to + 2));
            assert_eq!(store.apply(Lsn(to + 2)).expect("rows can be read"), Lsn(to + 2));
            assert_eq!(reigns_of(&store), [expected_reigns(to), vec![(4, to + 1)]].concat());
            assert_eq!(
                store
                    .reader()
                    .get("a", true)
                    .expect("rows can be read")
                    .map(|(document, _)| document.vector[0]),
                Some(9.0)
            );
            assert_eq!(
                store.reader().get("b", false).expect("rows can be read").map(|(_, version)| version.0),
                Some(3)
            );
            if outcome.is_ok() {
                break;
            }
        }
    }
}

#[test]
fn a_cut_takes_effects_and_requests_along_and_keeps_the_records_for_people() {
    let (_, _, records) = primary(3);
    let (disk, mut store) = follower(1);
    store.receive(records.clone()).expect("fits");
    store.sync().expect("well");
    store.apply(Lsn(3)).expect("rows can be read");
    store.cut(Lsn(6)).expect("well");
    assert_eq!((store.end(), store.durable()), (Lsn(6), Lsn(5)), "files hold whole batches");
    store.sync().expect("well");
    assert_eq!(store.durable(), Lsn(5), "the batch has not ended");
    store.receive(records[6..].to_vec()).expect("it ends as it did");
    store.cut(Lsn(6)).expect("not durable yet");
    store.receive(records[6..].to_vec()).expect("it ends as it did");
    store.sync().expect("well");
    assert_eq!((store.end(), store.durable()), (Lsn(7), Lsn(7)));
    store.cut(Lsn(5)).expect("well");
    assert_eq!((store.end(), store.durable()), (Lsn(5), Lsn(5)));
    store.promise(Epoch(2)).expect("well");
    store.start_epoch(Epoch(2)).expect("well");
    let request = |first: usize| {
        let pair = ["a", "b"].map(|text| upsert(document(text, (first / 2) as f32))).to_vec();
        Batch { op_id: records[first].op.id, base: None, operations: pair }
    };
    let staged = store.stage(Epoch(2), [1, 3, 5].map(request).to_vec()).expect("well");
    let lsns: Vec<u64> = staged.verdicts.iter().map(|verdict| verdict.judged_by.0).collect();
    assert_eq!(lsns, [3, 5, 8], "applied, waiting, and cut: done again");
    let orphans = disk.list(&place(&disk).directory.join("orphans")).expect("listed");
    assert_eq!(orphans, ["0000000000000001.log", "0000000000000002.log"]);
}

#[test]
#[should_panic(expected = "what is applied is never undone")]
fn what_is_applied_is_not_cut() {
    let (_, mut store) = follower_with_three_reigns(1);
    store.cut(Lsn(2)).ok();
}

#[test]
fn a_failed_cut_raises_no_mark() {
    // The log may be cut or not; a mark above its end would make it look damaged.
    for count in 0..20 {
        let (disk, mut store) = follower_with_three_reigns(count);
        disk.fail_after(count, DiskOperation::Directory, std::io::ErrorKind::Other);
        let failed = store.cut(Lsn(4)).is_err();
        disk.heal();
        store.save_marks().expect("well");
        store.promise(Epoch(5)).expect("well");
        store.close().expect("well");
        let (store, report) = open(&disk).expect("no damage was done");
        assert!(report.end == Lsn(4) || failed && report.end == Lsn(7));
        assert_eq!(store.meta().promised_epoch, Epoch(5));
    }
}

#[test]
fn a_cut_tail_is_remembered_until_a_later_commit_point_is_heard_of() {
    let (_, _, records) = primary(4);
    let mut torn = 0;
    for seed in 0..40 {
        let (disk, mut store) = follower(seed);
        store.receive(records[..5].to_vec()).expect("fits");
        store.sync().expect("well");
        store.receive(records[5..].to_vec()).expect("fits");
        disk.fail_next(DiskOperation::Append, std::io::ErrorKind::Other);
        store.sync().expect_err("the disk failed");
        drop(store);
        let (store, report) = open(&disk).expect("torn, not damaged");
        if !report.tail_was_cut {
            continue;
        }
        torn += 1;
        assert!(report.cut_bytes > 0 && store.tail_was_cut());
        drop(store);
        // The second opening finds no torn tail any more.
        let (mut store, report) = open(&disk).expect("whole");
        assert!(report.cut_bytes == 0 && report.tail_was_cut);
        store.apply(report.end).expect("rows can be read");
        assert!(store.tail_was_cut(), "nothing later was committed");
        let missing = records.iter().filter(|record| record.lsn > report.end).cloned().collect();
        store.receive(missing).expect("fits");
        store.sync().expect("well");
        store.apply(Lsn(10)).expect("rows can be read");
        assert!(store.tail_was_cut(), "the replica does not have all of it");
        store.apply(Lsn(9)).expect("rows can be read");
        assert!(!store.tail_was_cut());
        store.close().expect("well");
        assert!(!open(&disk).expect("whole").1.tail_was_cut);
    }
    assert!(torn > 5, "{torn} torn tails");
}

#[test]
fn the_log_is_kept_for_others_and_released_when_nobody_needs_it() {
    let (_, mut store, records) = primary(10);
    store.apply(store.end()).expect("rows can be read");
    store.keep_from(Lsn(8)).expect("well");
    store.log.rotate().expect("well");
    store.checkpoint().expect("well");
    assert_eq!(read_log(&store, 1).expect("whole"), Some(records));
    assert_eq!((store.positions().first, reigns_of(&store)), (Lsn(1), vec![(1, 1)]));
    store.keep_from(store.end()).expect("well");
    assert_eq!(read_log(&store, 1).expect("whole"), None);
    assert_eq!((store.positions().first, reigns_of(&store)), (Lsn(22), vec![(1, 1)]));
    assert_eq!(store.positions().reigns.epoch_at(Lsn(21)), Epoch(1), "of the record before the first one");
}
