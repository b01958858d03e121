//! Indexes of FAISS beside segments: what restarts, damage and merges leave of them.

use vectorsphere_index::faiss::Factory;
use vectorsphere_index::{GraphOptions, Kernels, Metric};

use super::*;
use crate::storage::indexing::{IndexPlace, IndexPlan, Recipe};
use crate::storage::segment::{SegmentIndex, SegmentView};

const DOCUMENTS: u32 = 700;

fn plan(factory: &str) -> IndexPlan {
    let kernels = Kernels::detect(None).expect("there is one");
    let recipe = match factory {
        "ivf" => Recipe::Ivf,
        factory => Recipe::Faiss(Factory::parse(factory, DIMENSION as usize, Metric::L2).expect(factory)),
    };
    IndexPlan { kernels, metric: Metric::L2, recipe, bytes_min: 1, threads: 1, tenant_key: None }
}

/// A replica with one segment.
fn replica(disk: &MemoryDisk) -> Store {
    format(disk);
    let mut store = open_and_lead(disk).expect("fresh");
    let documents = (0..DOCUMENTS).map(|number| {
        let vector = (0..DIMENSION).map(|value| ((number * 31 + value * 17) % 101) as f32).collect();
        upsert(Document { id: id(&format!("id{number:04}")), vector, metadata: Metadata::empty() })
    });
    commit(&mut store, vec![batch(documents.collect())]).expect("the disk is well");
    store.checkpoint().expect("the disk is well").expect("there is something to do");
    store
}

fn build(place: &IndexPlace, plan: &IndexPlan) -> SegmentView {
    let segment = place.next(plan).expect("a segment without an index");
    place.build(&segment, plan, &|| false).expect("enough rows");
    assert!(place.save(&segment).expect("the disk is well") > 0);
    segment
}

/// The segment of a replica that was opened again, whose index is not loaded yet.
fn reopened(disk: &MemoryDisk, plan: &IndexPlan) -> (IndexPlace, SegmentView) {
    let (store, _) = open(disk).expect("rows are whole");
    let place = store.index_place();
    let segment = place.next(plan).expect("it is not loaded yet");
    (place, segment)
}

fn index_files(disk: &MemoryDisk) -> Vec<PathBuf> {
    let is_index = |path: &PathBuf| path.to_string_lossy().contains(".faiss");
    disk.files().into_iter().filter(is_index).collect()
}

fn kind(segment: &SegmentView) -> Option<String> {
    segment.index().map(SegmentIndex::kind)
}

#[test]
fn an_index_is_found_again_and_built_anew_when_it_is_of_another_kind() {
    for factory in ["ivf", "IVF8,Flat", "HNSW8,SQ8", "PQ3x4"] {
        let (disk, plan) = (MemoryDisk::new(1), plan(factory));
        let store = replica(&disk);
        let built = kind(&build(&store.index_place(), &plan));
        assert!(store.index_place().next(&plan).is_none(), "every segment has one");
        let statistics = store.reader().statistics();
        assert_eq!(statistics.indexed_rows, u64::from(DOCUMENTS));
        assert!(statistics.index_bytes > 0);
        store.close().expect("the disk is well");
        let (place, segment) = reopened(&disk, &plan);
        assert!(place.load(&segment, &plan).expect("whole"));
        assert_eq!(kind(&segment), built);
    }
    let disk = MemoryDisk::new(1);
    build(&replica(&disk).index_place(), &plan("IVF8,Flat"));
    let (place, segment) = reopened(&disk, &plan("IVF9,Flat"));
    let error = place.load(&segment, &plan("IVF9,Flat")).expect_err("of eight lists");
    assert!(error.to_string().contains("IVF8,Flat") && segment.index().is_none(), "{error}");
    // A table that has graphs does not look at the file, and the first checkpoint that takes the segment removes it.
    let graphs = IndexPlan { recipe: Recipe::Graph(GraphOptions::default()), ..plan("ivf") };
    assert!(!place.load(&segment, &graphs).expect("no graph is there"));
    assert_eq!(index_files(&disk).len(), 1);
}

#[test]
fn a_segment_with_too_few_rows_is_scanned_until_a_merge_brings_more() {
    let (disk, plan) = (MemoryDisk::new(2), plan("IVF20,Flat"));
    let mut store = replica(&disk);
    assert!(store.index_place().next(&plan).is_none(), "20 lists need 780 rows");
    let more = (0..DOCUMENTS).map(|number| upsert(document(&format!("more{number}"), number as f32)));
    commit(&mut store, vec![batch(more.collect())]).expect("the disk is well");
    store.checkpoint().expect("the disk is well").expect("there is something to do");
    let merged = build(&store.index_place(), &plan);
    assert_eq!((merged.len(), index_files(&disk).len()), (2 * DOCUMENTS, 1));
    let first = index_files(&disk);
    let deletes = (0..DOCUMENTS).map(|number| delete(id(&format!("id{number:04}")))).collect();
    commit(&mut store, vec![batch(deletes)]).expect("the disk is well");
    store.checkpoint().expect("the disk is well").expect("there is something to do");
    assert!(index_files(&disk).is_empty(), "the segment of {first:?} was written again");
}

#[test]
fn a_damaged_index_is_told_and_built_again() {
    let (disk, plan) = (MemoryDisk::new(3), plan("IVF8,Flat"));
    build(&replica(&disk).index_place(), &plan);
    let path = index_files(&disk).remove(0);
    let whole = disk.read(&path).expect("there");
    let step = whole.len() / 100;
    let flips = (0..100).map(|index| (index * step, (index % 8) as u8));
    for (offset, bit) in flips.chain([(0, 0), (8, 0), (12, 0), (16, 1), (20, 1), (whole.len() - 1, 7)]) {
        disk.overwrite(&path, whole.clone());
        disk.flip_bit(&path, offset, bit);
        let (place, segment) = reopened(&disk, &plan);
        let error = place.load(&segment, &plan).expect_err("a bit is wrong");
        assert!(error.is_lasting() && segment.index().is_none(), "bit {bit} at {offset}: {error}");
    }
    for length in [0, 10, 19, 20, whole.len() / 2, whole.len() - 1] {
        disk.overwrite(&path, whole[..length].to_vec());
        let (place, segment) = reopened(&disk, &plan);
        assert!(place.load(&segment, &plan).is_err(), "cut off at {length}");
    }
    disk.overwrite(&path, [whole.as_slice(), b"x"].concat());
    let (place, segment) = reopened(&disk, &plan);
    assert!(place.load(&segment, &plan).is_err(), "there is more than an index");
    build(&place, &plan);
    let (place, segment) = reopened(&disk, &plan);
    assert!(place.load(&segment, &plan).expect("whole"));
}

#[test]
fn a_crash_at_any_operation_of_saving_leaves_the_documents_and_an_index_or_none() {
    let plan = plan("IVF8,Flat");
    for operation in 0.. {
        let disk = MemoryDisk::new(operation);
        let store = replica(&disk);
        let documents = documents_of(&store.reader().snapshot());
        disk.power_off_after(operation);
        let place = store.index_place();
        let segment = place.next(&plan).expect("a segment without an index");
        place.build(&segment, &plan, &|| false).expect("enough rows");
        let done = place.save(&segment).is_ok();
        disk.crash();
        let (store, _) = open(&disk).expect("no damage was done");
        assert_eq!(documents_of(&store.reader().snapshot()), documents);
        let temporary =
            index_files(&disk).into_iter().find(|path| path.extension() != Some("faiss".as_ref()));
        assert_eq!(temporary, None, "operation {operation}");
        let (place, segment) = reopened(&disk, &plan);
        let loaded = place.load(&segment, &plan).expect("whole, or not there");
        assert!(loaded || !done, "it was durable when it was saved");
        if done {
            break;
        }
    }
}
