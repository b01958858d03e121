//! Readers beside the owner, under many schedules of their steps: what one reader saw, another look does not take back.
//!
//! The mutants are the owner's [`Store::apply`] with two steps in another order; the same scenario must find each.

use std::panic::catch_unwind;
use std::sync::atomic::{AtomicU64, Ordering};

use shuttle::thread;

use super::*;
use crate::runtime::sync::explore;

const SCHEDULES: usize = 1_000;
const GROUPS: u32 = 4;

/// Applies what is durable and tells of it.
type Apply = fn(&mut Store, &AtomicU64);

fn told_when_applied(store: &mut Store, told: &AtomicU64) {
    let applied = store.apply(store.end()).expect("rows can be read");
    told.store(applied.0, Ordering::Relaxed);
}

/// One owner that writes `a` and `b` together, with a checkpoint in between, and two readers.
fn owner_and_readers(apply: Apply) {
    let disk = MemoryDisk::new(1);
    format(&disk);
    let mut store = open_and_lead(&disk).expect("fresh");
    let told = Arc::new(AtomicU64::new(0));
    let readers = [0, 1].map(|_| {
        let (reader, told) = (store.reader(), told.clone());
        thread::spawn(move || read(&reader, &told))
    });
    for group in 1..=GROUPS {
        let pair = ["a", "b"].map(|id| upsert(document(id, group as f32)));
        store.stage(store.meta().promised_epoch, vec![batch(pair.to_vec())]).expect("well");
        store.sync().expect("well");
        apply(&mut store, &told);
        if group == GROUPS / 2 {
            store.checkpoint().expect("well");
        }
    }
    for reader in readers {
        reader.join().expect("it found no contradiction");
    }
}

fn read(reader: &StoreReader, told: &AtomicU64) {
    let mut last = Lsn::ZERO;
    for _ in 0..3 {
        let known = Lsn(told.load(Ordering::Relaxed));
        let found = reader.get("a", true).expect("rows can be read");
        let snapshot = reader.snapshot();
        assert!(snapshot.lsn >= known.max(last), "what was told is visible, and what was visible stays");
        let version = found.as_ref().map_or(Lsn::ZERO, |(_, version)| *version);
        assert!(snapshot.lsn >= version, "what a look-up finds, a search finds too");
        assert_eq!(snapshot.content_digest(), snapshot.content, "no row is half there");
        let vectors: Vec<_> = documents_of(&snapshot).into_values().collect();
        assert!(matches!(&vectors[..], [] | [_, _]) && vectors.first() == vectors.last(), "whole batches");
        let shown = vectors.first().map(|(vector, _)| vector[0]);
        // The first record begins the reign; each group has two.
        assert_eq!(shown.unwrap_or(0.0), ((snapshot.lsn.0 - 1) / 2) as f32, "a position has one content");
        if let Some(newer) = reader.try_get("b", true) {
            let newer = newer.map(|(document, _)| document.vector[0]);
            assert!(newer >= shown, "a look-up after a search finds nothing older");
        }
        last = snapshot.lsn;
    }
}

#[test]
fn readers_contradict_neither_each_other_nor_what_they_were_told() {
    explore(SCHEDULES, || owner_and_readers(told_when_applied));
}

/// The pieces of [`Store::apply`], for mutants.
fn apply_to_documents(store: &mut Store) -> Snapshot {
    let shared = store.shared.clone();
    let mut documents = shared.documents.write().expect("no panic under this lock");
    while let Some(batch) = store.pending.pop(store.log.durable()) {
        store.applied.apply(&mut documents, &batch, &Default::default()).expect("fits");
    }
    documents.snapshot()
}

#[test]
fn the_scenario_finds_an_owner_that_publishes_behind_the_lock() {
    let apply: Apply = |store, told| {
        let snapshot = apply_to_documents(store);
        store.shared.snapshot.store(Arc::new(snapshot));
        told.store(store.applied().0, Ordering::Relaxed);
    };
    assert_found(apply, "what a look-up finds, a search finds too");
}

#[test]
fn the_scenario_finds_an_owner_that_tells_before_it_publishes() {
    let apply: Apply = |store, told| {
        told.store(store.end().0, Ordering::Relaxed);
        store.apply(store.end()).expect("rows can be read");
    };
    assert_found(apply, "what was told is visible");
}

#[test]
fn the_scenario_finds_an_owner_that_publishes_before_it_applies() {
    let apply: Apply = |store, told| {
        // The position is the new one, the rows are the old ones.
        let before = store.reader().snapshot();
        store.shared.snapshot.store(Arc::new(Snapshot { lsn: store.end(), ..(*before).clone() }));
        told_when_applied(store, told);
    };
    assert_found(apply, "a position has one content");
}

/// A plain function pointer carries the mutant into shuttle's scenario.
fn assert_found(apply: Apply, message: &str) {
    let found = catch_unwind(|| explore(SCHEDULES, move || owner_and_readers(apply)));
    let panic = found.expect_err("the mutant goes unnoticed");
    let said = panic.downcast_ref::<String>().cloned();
    let said = said.or_else(|| panic.downcast_ref::<&str>().map(ToString::to_string)).unwrap_or_default();
    assert!(said.contains(message), "{said}");
}
