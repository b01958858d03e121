//! What a primary stages: judged by everything that waits, told when it is committed, applied then.

use super::*;

fn upsert_if(text: &str, value: f32, version: u64) -> Operation {
    Operation::Upsert { document: document(text, value), if_version: Some(Lsn(version)) }
}

fn delete_if(text: &str, version: u64) -> Operation {
    Operation::Delete { id: id(text), if_version: Some(Lsn(version)) }
}

fn stage(store: &mut Store, operations: Vec<Operation>) -> Verdict {
    let epoch = store.meta().promised_epoch;
    let mut staged = store.stage(epoch, vec![batch(operations)]).expect("well");
    staged.verdicts.pop().expect("one batch")
}

fn mismatch(text: &str, found: u64) -> Result<Receipt, Refusal> {
    Err(Refusal::VersionMismatch { id: id(text), found: Lsn(found) })
}

fn done(lsn: u64, affected: u64) -> Result<Receipt, Refusal> {
    Ok(Receipt { lsn: Lsn(lsn), affected })
}

#[test]
fn what_waits_is_in_the_log_and_judges_later_writes_but_nobody_sees_it() {
    let disk = MemoryDisk::new(1);
    format(&disk);
    let mut store = open_and_lead(&disk).expect("fresh");
    let reader = store.reader();
    assert_eq!(stage(&mut store, vec![upsert(document("a", 1.0))]).outcome, done(2, 1));
    assert_eq!(
        stage(
            &mut store,
            vec![Operation::SetMetadata { id: id("a"), metadata: Metadata::empty(), if_version: None }]
        )
        .outcome,
        done(3, 1)
    );
    assert_eq!(stage(&mut store, vec![delete(id("a")), delete(id("a"))]).outcome, done(4, 1));
    let refused = stage(
        &mut store,
        vec![Operation::SetMetadata { id: id("a"), metadata: Metadata::empty(), if_version: None }],
    );
    let expected = Verdict { outcome: Err(Refusal::NoSuchDocument(id("a"))), judged_by: Lsn(4) };
    assert_eq!(refused, expected, "the delete may still be cut");
    assert_eq!(store.apply(Lsn(4)).expect("rows can be read"), Lsn(1), "not durable");
    store.sync().expect("well");
    assert_eq!((reader.get("a", false).expect("rows can be read"), reader.snapshot().lsn), (None, Lsn(1)));
    assert_eq!(store.apply(Lsn(2)).expect("rows can be read"), Lsn(2), "no further than what is committed");
    assert_eq!(reader.get("a", false).expect("rows can be read").map(|(_, version)| version), Some(Lsn(2)));
    assert_eq!(store.apply(Lsn(99)).expect("rows can be read"), Lsn(4));
    assert_eq!((reader.get("a", false).expect("rows can be read"), reader.snapshot().lsn), (None, Lsn(4)));
    assert_eq!(
        stage(&mut store, vec![delete(id("a"))]).outcome,
        done(5, 0),
        "nothing to delete, but it is logged"
    );
}

#[test]
fn half_a_batch_is_never_applied() {
    let disk = MemoryDisk::new(1);
    format(&disk);
    let mut store = open_and_lead(&disk).expect("fresh");
    stage(&mut store, vec![upsert(document("a", 1.0)), upsert(document("b", 1.0))]);
    store.sync().expect("well");
    assert_eq!([2, 3].map(|commit| store.apply(Lsn(commit)).expect("rows can be read")), [Lsn(1), Lsn(3)]);
}

#[test]
fn conditions_are_judged_by_the_version_that_will_be_current() {
    let disk = MemoryDisk::new(1);
    format(&disk);
    let mut store = open_and_lead(&disk).expect("fresh");
    let cases = [
        (vec![upsert_if("a", 1.0, 7)], mismatch("a", 0)),
        (vec![upsert_if("a", 1.0, 0)], done(2, 1)),
        (vec![upsert_if("a", 2.0, 0)], mismatch("a", 2)),
        (vec![upsert_if("a", 2.0, 2), upsert(document("b", 1.0))], done(4, 2)),
        (vec![delete_if("b", 4), upsert_if("a", 3.0, 2)], mismatch("a", 3)),
        (vec![delete_if("b", 4), upsert_if("b", 3.0, 0)], done(6, 2)),
        (vec![delete_if("b", 0)], mismatch("b", 6)),
        (
            vec![Operation::SetMetadata { id: id("a"), metadata: Metadata::empty(), if_version: None }],
            done(7, 1),
        ),
        (vec![delete_if("a", 3)], mismatch("a", 7)),
        (vec![delete_if("a", 7), delete_if("a", 0)], done(8, 1)),
        (vec![delete_if("a", 7)], mismatch("a", 0)),
        (vec![delete_if("a", 0)], done(9, 0)),
    ];
    for (round, apply) in [(0, false), (1, true)] {
        // The same again for documents that are applied.
        if apply {
            commit(&mut store, vec![batch(vec![delete(id("a")), delete(id("b"))])]).expect("well");
        }
        let base = store.end().0 - 1;
        for (operations, expected) in &cases {
            let shifted = |version: &Lsn| if version.0 > 0 { Lsn(version.0 + base) } else { *version };
            let operations = operations.iter().cloned().map(|operation| match operation {
                Operation::Upsert { document, if_version } => {
                    Operation::Upsert { document, if_version: if_version.map(|version| shifted(&version)) }
                }
                Operation::Delete { id, if_version } => {
                    Operation::Delete { id, if_version: if_version.map(|version| shifted(&version)) }
                }
                other => other,
            });
            let expected = match expected.clone() {
                Ok(receipt) => Ok(Receipt { lsn: shifted(&receipt.lsn), ..receipt }),
                Err(Refusal::VersionMismatch { id, found }) => {
                    Err(Refusal::VersionMismatch { id, found: shifted(&found) })
                }
                other => other,
            };
            let end = store.end();
            let verdict = stage(&mut store, operations.collect());
            assert_eq!(verdict.outcome, expected, "round {round}");
            assert_eq!(verdict.judged_by, verdict.outcome.map_or(end, |receipt| receipt.lsn));
            if apply {
                store.sync().expect("well");
                store.apply(store.end()).expect("rows can be read");
            }
        }
        store.sync().expect("well");
        store.apply(store.end()).expect("rows can be read");
    }
    let text = Refusal::VersionMismatch { id: id("a"), found: Lsn(0) }.to_string();
    assert_eq!(text, "document \"a\" does not exist");
}

#[test]
fn a_repeat_is_answered_alike_while_it_waits_and_when_it_is_applied() {
    let disk = MemoryDisk::new(1);
    format(&disk);
    let mut store = open_and_lead(&disk).expect("fresh");
    let epoch = store.meta().promised_epoch;
    let first = batch(vec![upsert(document("a", 1.0))]);
    let other = Batch { op_id: first.op_id, ..batch(vec![delete(id("a"))]) };
    let conditional = Batch { op_id: first.op_id, ..batch(vec![upsert_if("a", 1.0, 0)]) };
    for round in 0..3 {
        let staged =
            store.stage(epoch, vec![first.clone(), other.clone(), conditional.clone()]).expect("well");
        assert_eq!(staged.records.len(), usize::from(round == 0));
        let judged_by = Lsn(2);
        let expected = [done(2, 1), Err(Refusal::OtherBatch), Err(Refusal::OtherBatch)];
        assert_eq!(staged.verdicts, expected.map(|outcome| Verdict { outcome, judged_by }), "round {round}");
        store.sync().expect("well");
        if round == 1 {
            store.apply(Lsn(2)).expect("rows can be read");
        }
    }
}

#[test]
fn a_retry_that_is_older_than_what_is_remembered_is_refused() {
    let disk = MemoryDisk::new(1);
    format(&disk);
    let mut store = open_and_lead(&disk).expect("fresh");
    let empty = |op: u64| Batch { op_id: OpId(u128::from(op).to_le_bytes()), ..batch(vec![delete(id("x"))]) };
    for from in (0..100_000).step_by(5_000) {
        let outcomes = commit(&mut store, (from..from + 5_000).map(empty).collect()).expect("well");
        assert!(outcomes.iter().all(Result::is_ok));
    }
    let late = |base: Option<u64>| Batch { base: base.map(Lsn), ..batch(vec![upsert(document("a", 1.0))]) };
    let outcome =
        |store: &mut Store, batch: Batch| commit(store, vec![batch]).expect("well").pop().expect("one");
    assert!(outcome(&mut store, late(Some(0))).is_ok(), "nothing is forgotten yet");
    // Now the request at position 2 is.
    store.checkpoint().expect("well");
    for round in 0..3 {
        assert_eq!(outcome(&mut store, empty(1)), done(3, 0), "round {round}");
        let too_late = Batch { base: Some(Lsn(1)), ..empty(0) };
        assert_eq!(outcome(&mut store, too_late), Err(Refusal::TooLate));
        assert_eq!(
            outcome(&mut store, Batch { base: Some(Lsn(1)), ..empty(1) }),
            done(3, 0),
            "it is remembered"
        );
        store.close().expect("well");
        store = open_and_lead(&disk).expect("well");
    }
    assert!(
        outcome(&mut store, Batch { base: Some(Lsn(2)), ..empty(0) }).is_ok(),
        "it was not sent before that"
    );
}

#[test]
fn a_document_over_the_limit_of_the_log_is_refused_and_does_no_harm() {
    let disk = MemoryDisk::new(1);
    format(&disk);
    let mut store = open_and_lead(&disk).expect("fresh");
    let text = format!("{{\"text\":\"{}\"}}", "x".repeat(log::BODY_BYTES_MAX));
    let large =
        Document { metadata: Metadata::from_stored(text.into()).expect("object"), ..document("a", 1.0) };
    let outcomes = commit(
        &mut store,
        vec![batch(vec![upsert(document("b", 1.0)), upsert(large)]), batch(vec![upsert_if("b", 2.0, 0)])],
    )
    .expect("well");
    assert!(matches!(outcomes[0], Err(Refusal::TooLarge { .. })));
    assert_eq!(outcomes[1], done(2, 1), "nothing of the other batch is there");
}

#[test]
fn a_promise_never_falls_and_a_crash_leaves_it_before_or_after() {
    for operation in 0.. {
        let disk = MemoryDisk::new(operation);
        format(&disk);
        let (mut store, _) = open(&disk).expect("fresh");
        store.promise(Epoch(3)).expect("well");
        disk.power_off_after(operation);
        let done = store.promise(Epoch(7)).is_ok();
        let held = store.meta().promised_epoch;
        assert_eq!(held, if done { Epoch(7) } else { Epoch(3) });
        disk.crash();
        let (mut store, _) = open(&disk).expect("no damage was done");
        let found = store.meta().promised_epoch;
        assert!(found == Epoch(7) || !done && found == Epoch(3), "{found}");
        let before = disk.operations();
        store.promise(found).expect("well");
        store.promise(Epoch(1)).expect("well");
        assert_eq!((store.meta().promised_epoch, disk.operations()), (found, before), "nothing to do");
        if done {
            break;
        }
    }
}

#[test]
fn who_promised_another_reign_or_was_restarted_writes_no_more() {
    let writes = |end_reign: fn(&mut Store, &MemoryDisk)| {
        let disk = MemoryDisk::new(1);
        format(&disk);
        let mut store = open_and_lead(&disk).expect("fresh");
        end_reign(&mut store, &disk);
        std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| store.stage(Epoch(1), Vec::new()))).is_ok()
    };
    assert!(writes(|_, _| {}));
    assert!(writes(|store, _| store.promise(Epoch(1)).expect("well")));
    assert!(!writes(|store, _| store.promise(Epoch(2)).expect("well")));
    assert!(!writes(|store, disk| *store = open(disk).expect("whole").0));
}

#[test]
fn what_is_committed_as_far_as_the_mark_says_is_applied_by_opening_and_the_rest_waits() {
    for operation in 0.. {
        let disk = MemoryDisk::new(operation);
        format(&disk);
        let mut store = open_and_lead(&disk).expect("fresh");
        for value in 0..6u8 {
            stage(&mut store, vec![upsert(document("a", value.into()))]);
        }
        store.sync().expect("well");
        store.apply(Lsn(3)).expect("rows can be read");
        store.save_marks().expect("well");
        store.apply(Lsn(5)).expect("rows can be read");
        disk.power_off_after(operation);
        let saved = store.save_marks().is_ok();
        disk.crash();
        let (mut store, report) = open(&disk).expect("no damage was done");
        let applied = report.applied.0;
        assert!(applied == 5 || !saved && applied == 3, "applied up to {applied}");
        assert_eq!((report.end, store.reader().snapshot().lsn), (Lsn(7), Lsn(applied)));
        assert_eq!(
            store.reader().get("a", true).expect("rows can be read").map(|(document, _)| document),
            Some(document("a", applied as f32 - 2.0))
        );
        assert_eq!(store.apply(Lsn(6)).expect("rows can be read"), Lsn(6));
        if saved {
            break;
        }
    }
}

#[test]
fn marks_that_are_there_already_are_not_written_again() {
    let disk = MemoryDisk::new(1);
    format(&disk);
    let mut store = open_and_lead(&disk).expect("fresh");
    store.save_marks().expect("well");
    let before = disk.operations();
    store.save_marks().expect("well");
    assert_eq!(disk.operations(), before);
    let membership =
        Membership { epoch: Epoch(1), configuration: Revision(8), isr: vec![ReplicaId([1; 16])] };
    store.note_membership(membership.clone());
    store.save_marks().expect("well");
    assert_eq!(open(&disk).expect("whole").0.meta().membership, membership);
}

#[test]
fn digests_follow_from_the_log_and_are_kept_at_round_positions() {
    let (one, two) = (MemoryDisk::new(1), MemoryDisk::new(2));
    format(&one);
    format(&two);
    let mut stores = [open_and_lead(&one).expect("fresh"), open_and_lead(&two).expect("fresh")];
    let documents = |round: u64| {
        (0..3_000).map(move |number| upsert(document(&(number * 7 % 500).to_string(), round as f32)))
    };
    for round in 0..8 {
        let batches = vec![Batch { op_id: OpId([round as u8; 16]), ..batch(documents(round).collect()) }];
        for (index, store) in stores.iter_mut().enumerate() {
            assert!(commit(store, batches.clone()).expect("well")[0].is_ok());
            if index == 0 {
                store.checkpoint().expect("well");
            }
        }
        let [one, two] = &stores;
        assert_eq!(one.digest(), two.digest());
        assert_eq!(one.digest().lsn, one.applied());
        assert_eq!(one.digest().content, one.reader().snapshot().content_digest());
    }
    for lsn in [10_000, 20_000] {
        let digests = stores.each_ref().map(|store| store.digest_at(Lsn(lsn)).expect("kept"));
        assert!(digests[0] == digests[1] && digests[0].lsn == Lsn(lsn));
    }
    assert_eq!(stores[0].digest_at(Lsn(15_000)), None);
    let [store, other] = stores;
    let before = store.digest();
    store.close().expect("well");
    drop(other);
    assert_eq!(open(&one).expect("whole").0.digest(), before);
    let (reopened, report) = open(&two).expect("whole");
    assert!(report.records > 20_000);
    assert_eq!(reopened.digest_at(Lsn(10_000)).map(|digest| digest.lsn), None, "the marks were not saved");
}
