//! Graphs beside segments: what crashes, damage and merges leave of them. Truth is in the rows; a graph saves time.

use std::path::Path;

use vectorsphere_index::{GraphOptions, Kernels, Metric, Query, Ranked, Scratch, Selection, TopK};

use super::*;
use crate::storage::indexing::{IndexPlace, IndexPlan, Recipe};
use crate::storage::segment::SegmentView;

const DOCUMENTS: u32 = 600;

fn plan() -> IndexPlan {
    let kernels = Kernels::detect(None).expect("there is one");
    let options = GraphOptions { degree: 8, width: 32, ..GraphOptions::default() };
    IndexPlan {
        kernels,
        metric: Metric::L2,
        recipe: Recipe::Graph(options),
        bytes_min: 1,
        threads: 1,
        tenant_key: None,
    }
}

fn vector(number: u32) -> Vec<f32> {
    (0..DIMENSION).map(|value| ((number * 31 + value * 17) % 101) as f32 + number as f32 / 1e4).collect()
}

/// A replica with one segment.
fn replica(disk: &MemoryDisk) -> Store {
    format(disk);
    let mut store = open_and_lead(disk).expect("fresh");
    let documents = (0..DOCUMENTS).map(|number| {
        let id = id(&format!("id{number:04}"));
        upsert(Document { id, vector: vector(number), metadata: Metadata::empty() })
    });
    commit(&mut store, vec![batch(documents.collect())]).expect("the disk is well");
    store.checkpoint().expect("the disk is well").expect("there is something to do");
    store
}

fn build(place: &IndexPlace) -> Result<SegmentView, StorageError> {
    let segment = place.next(&plan()).expect("a segment without a graph");
    place.build(&segment, &plan(), &|| false).expect("nobody stops it");
    place.save(&segment)?;
    Ok(segment)
}

/// The best rows by the graph, and by looking at every visible row.
fn both(snapshot: &Snapshot, segment: &SegmentView) -> [Vec<Ranked<u32>>; 2] {
    let (plan, target) = (plan(), vector(77));
    let query = Query::new(plan.metric, &target, None);
    let (mut walked, mut scanned) = (TopK::new(plan.metric, 20), TopK::new(plan.metric, 20));
    let graph = segment.graph().expect("it was built or loaded");
    let live = |row: u32| segment.is_live(row, snapshot.lsn);
    let (rows, hidden) = (segment.rows(), Selection::AllBut(segment.dead_rows() as usize));
    let searched = graph.search(
        plan.kernels,
        rows,
        &query,
        (200, 4),
        hidden,
        live,
        |row| row,
        &mut walked,
        &mut Scratch::default(),
    );
    searched.expect("rows can be read");
    let visible = |row: u32| segment.is_visible(row, snapshot.lsn);
    let scan = rows.scan(plan.kernels, 0..segment.len(), &query, visible, |row| row, &mut scanned);
    scan.expect("rows can be read");
    [walked.into_sorted(), scanned.into_sorted()]
}

fn graph_files(disk: &MemoryDisk) -> Vec<PathBuf> {
    let is_graph = |path: &PathBuf| path.to_string_lossy().contains(".graph");
    disk.files().into_iter().filter(is_graph).collect()
}

#[test]
fn a_graph_is_found_again_and_hides_what_is_deleted() {
    let disk = MemoryDisk::new(1);
    let mut store = replica(&disk);
    let segment = build(&store.index_place()).expect("the disk is well");
    assert!(store.index_place().next(&plan()).is_none(), "every segment has one");
    let deleted = (0..DOCUMENTS).filter(|number| number % 3 != 1 || *number == 77);
    let deletes = deleted.map(|number| delete(id(&format!("id{number:04}")))).collect();
    let before = store.reader().snapshot();
    commit(&mut store, vec![batch(deletes)]).expect("the disk is well");
    let after = store.reader().snapshot();
    for snapshot in [&before, &after] {
        let [walked, scanned] = both(snapshot, &segment);
        assert_eq!(walked, scanned, "at {}", snapshot.lsn);
    }
    assert_ne!(both(&before, &segment), both(&after, &segment));

    store.close().expect("the disk is well");
    let (store, _) = open(&disk).expect("whole");
    let place = store.index_place();
    let segment = place.next(&plan()).expect("it is not loaded yet");
    assert!(place.load(&segment, &plan()).expect("whole"));
    let [walked, scanned] = both(&store.reader().snapshot(), &segment);
    assert_eq!(walked, scanned);
}

#[test]
fn a_merge_takes_the_graphs_of_its_segments_along() {
    let disk = MemoryDisk::new(2);
    let mut store = replica(&disk);
    build(&store.index_place()).expect("the disk is well");
    let first = graph_files(&disk);
    let late = store.index_place().next(&IndexPlan { bytes_min: usize::MAX, ..plan() });
    assert!(late.is_none(), "too small to be worth one");
    let more = (0..DOCUMENTS).map(|number| upsert(document(&format!("more{number}"), number as f32)));
    commit(&mut store, vec![batch(more.collect())]).expect("the disk is well");
    store.checkpoint().expect("the disk is well").expect("there is something to do");
    assert!(graph_files(&disk).is_empty(), "the segment of {first:?} was merged away");
    let merged = build(&store.index_place()).expect("the disk is well");
    assert_eq!((merged.len(), graph_files(&disk).len()), (2 * DOCUMENTS, 1));
}

/// Deletes every third document, and writes one in twelve anew, with another vector.
fn churn(store: &mut Store) {
    let deletes = (0..DOCUMENTS).step_by(3).map(|number| delete(id(&format!("id{number:04}"))));
    let fresh = (0..DOCUMENTS).step_by(12).map(|number| {
        let id = id(&format!("id{number:04}"));
        upsert(Document { id, vector: vector(number + 7_000), metadata: Metadata::empty() })
    });
    commit(store, vec![batch(deletes.collect()), batch(fresh.collect())]).expect("the disk is well");
    let report = store.checkpoint().expect("the disk is well").expect("there is something to do");
    assert_eq!((report.segments, report.rows), (1, DOCUMENTS / 3 * 2 + DOCUMENTS / 12));
}

#[test]
fn a_merged_graph_is_built_from_the_one_of_which_most_stays() {
    let disk = MemoryDisk::new(7);
    let mut store = replica(&disk);
    build(&store.index_place()).expect("the disk is well");
    churn(&mut store);
    let waiting = store.index_place().next(&plan()).expect("a segment without a graph");
    assert!(waiting.index_bytes() > 0, "the graph that is gone is kept until there is a new one");
    let kept = waiting.index_bytes();
    let segment = build(&store.index_place()).expect("the disk is well");
    let graph = segment.graph().expect("it was built");
    assert_eq!(graph.taken_over() as u32, DOCUMENTS / 3 * 2, "what was not deleted stays");
    assert!(segment.index_bytes() < kept, "nothing else is kept");
    let snapshot = store.reader().snapshot();
    let [walked, scanned] = both(&snapshot, &segment);
    assert_eq!(walked, scanned);

    // The same when it is read again, and of a new replica that never had the earlier one.
    store.close().expect("the disk is well");
    let (store, _) = open(&disk).expect("whole");
    let place = store.index_place();
    let segment = place.next(&plan()).expect("it is not loaded yet");
    assert!(place.load(&segment, &plan()).expect("whole"));
    let [walked, scanned] = both(&store.reader().snapshot(), &segment);
    assert_eq!(walked, scanned);
}

#[test]
fn a_segment_that_is_merged_before_it_has_a_graph_hands_on_the_one_it_was_to_be_built_from() {
    let disk = MemoryDisk::new(8);
    let mut store = replica(&disk);
    build(&store.index_place()).expect("the disk is well");
    churn(&mut store);
    let more = (0..DOCUMENTS).map(|number| upsert(document(&format!("more{number}"), number as f32)));
    commit(&mut store, vec![batch(more.collect())]).expect("the disk is well");
    store.checkpoint().expect("the disk is well").expect("there is something to do");
    let segment = build(&store.index_place()).expect("the disk is well");
    assert_eq!(segment.graph().expect("it was built").taken_over() as u32, DOCUMENTS / 3 * 2);
    let [walked, scanned] = both(&store.reader().snapshot(), &segment);
    assert_eq!(walked, scanned);
}

#[test]
fn a_graph_of_which_little_stays_is_not_kept() {
    let disk = MemoryDisk::new(9);
    let mut store = replica(&disk);
    build(&store.index_place()).expect("the disk is well");
    let deletes = (0..DOCUMENTS).filter(|number| number % 5 > 1);
    let deletes = deletes.map(|number| delete(id(&format!("id{number:04}")))).collect();
    commit(&mut store, vec![batch(deletes)]).expect("the disk is well");
    store.checkpoint().expect("the disk is well").expect("there is something to do");
    let waiting = store.index_place().next(&plan()).expect("a segment without a graph");
    assert_eq!((waiting.len(), waiting.index_bytes()), (DOCUMENTS / 5 * 2, 0));
    let segment = build(&store.index_place()).expect("the disk is well");
    assert_eq!(segment.graph().expect("it was built").taken_over(), 0);
}

#[test]
fn a_graph_that_was_built_of_a_segment_that_is_gone_leaves_no_file() {
    let disk = MemoryDisk::new(3);
    let mut store = replica(&disk);
    let place = store.index_place();
    let segment = place.next(&plan()).expect("a segment without a graph");
    commit(&mut store, vec![batch(vec![upsert(document("x", 1.0))])]).expect("the disk is well");
    let deletes = (0..DOCUMENTS).map(|number| delete(id(&format!("id{number:04}")))).collect();
    commit(&mut store, vec![batch(deletes)]).expect("the disk is well");
    store.checkpoint().expect("the disk is well").expect("there is something to do");
    place.build(&segment, &plan(), &|| false).expect("nobody stops it");
    place.save(&segment).expect("the disk is well");
    assert!(graph_files(&disk).is_empty());
}

#[test]
fn a_crash_at_any_operation_of_saving_leaves_the_documents_and_a_graph_or_none() {
    for operation in 0.. {
        let disk = MemoryDisk::new(operation);
        let store = replica(&disk);
        let documents = documents_of(&store.reader().snapshot());
        disk.power_off_after(operation);
        let done = build(&store.index_place()).is_ok();
        disk.crash();
        let (store, _) = open(&disk).expect("no damage was done");
        assert_eq!(documents_of(&store.reader().snapshot()), documents);
        let temporary =
            graph_files(&disk).into_iter().find(|path| path.extension() != Some("graph".as_ref()));
        assert_eq!(temporary, None, "operation {operation}");
        let place = store.index_place();
        let segment = place.next(&plan()).expect("it is not loaded yet");
        let loaded = place.load(&segment, &plan()).expect("whole, or not there");
        assert!(loaded || !done, "it was durable when it was saved");
        if !loaded {
            build(&place).expect("the disk is well");
        }
        if done {
            break;
        }
    }
}

#[test]
fn rows_that_can_have_no_graph_are_looked_at_once() {
    let disk = MemoryDisk::new(6);
    format(&disk);
    let mut store = open_and_lead(&disk).expect("fresh");
    let documents = (0..10).map(|number| upsert(document(&format!("id{number}"), 1e18)));
    commit(&mut store, vec![batch(documents.collect())]).expect("the disk is well");
    store.checkpoint().expect("the disk is well").expect("there is something to do");
    let segment = build(&store.index_place()).expect("the disk is well");
    assert!(segment.graph().is_none() && graph_files(&disk).is_empty());
    assert!(store.index_place().next(&plan()).is_none(), "it is not tried again");
}

#[test]
fn a_damaged_graph_is_told_and_built_again() {
    let disk = MemoryDisk::new(5);
    build(&replica(&disk).index_place()).expect("the disk is well");
    let path = graph_files(&disk).remove(0);
    let whole = disk.read(Path::new(&path)).expect("there");
    let step = whole.len() / 200;
    let flips = (0..200).map(|index| (index * step, (index % 8) as u8));
    for (offset, bit) in flips.chain([(0, 0), (8, 0), (12, 0), (20, 1), (whole.len() - 1, 7)]) {
        disk.overwrite(&path, whole.clone());
        disk.flip_bit(&path, offset, bit);
        let (store, _) = open(&disk).expect("rows are whole");
        let place = store.index_place();
        let segment = place.next(&plan()).expect("it is not loaded yet");
        let error = place.load(&segment, &plan()).expect_err("a bit is wrong");
        assert!(error.is_lasting() && segment.graph().is_none(), "bit {bit} at {offset}: {error}");
    }
    for length in [0, 10, 131, 132, whole.len() / 2, whole.len() - 1] {
        disk.overwrite(&path, whole[..length].to_vec());
        let (store, _) = open(&disk).expect("rows are whole");
        let place = store.index_place();
        let segment = place.next(&plan()).expect("it is not loaded yet");
        assert!(place.load(&segment, &plan()).is_err(), "cut off at {length}");
    }
    disk.overwrite(&path, [whole.as_slice(), b"x"].concat());
    let (store, _) = open(&disk).expect("rows are whole");
    let place = store.index_place();
    let segment = place.next(&plan()).expect("it is not loaded yet");
    assert!(place.load(&segment, &plan()).is_err(), "there is more than a graph");
    build(&place).expect("the disk is well");
    let (store, _) = open(&disk).expect("rows are whole");
    let place = store.index_place();
    let segment = place.next(&plan()).expect("it is not loaded yet");
    assert!(place.load(&segment, &plan()).expect("whole"));
}
