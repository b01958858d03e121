//! Vectors that stay in their files: the same documents as in memory, and damage that is told.

use super::*;

/// A vector of the first row, behind the headers of the file and its first block.
const OF_A_VECTOR: usize = 32 + 20 + 5;

fn on_disk(disk: &MemoryDisk) -> StorePlace {
    let rows = RowPlace::Disk(RowCache::new(0, RowCacheMetrics::default()));
    StorePlace { rows, ..place(disk) }
}

fn set_metadata(text: &str) -> Operation {
    let metadata = Metadata::from_stored("{\"new\":1}".into()).expect("an object");
    Operation::SetMetadata { id: id(text), metadata, if_version: None }
}

/// A replica with a segment of 500 documents.
fn replica(disk: &MemoryDisk) -> Store {
    format(disk);
    let (mut store, _) = open_at(on_disk(disk), disk).expect("fresh");
    lead(&mut store).expect("well");
    let documents = (0..500).map(|number| upsert(document(&format!("id{number:03}"), number as f32)));
    commit(&mut store, vec![batch(documents.collect())]).expect("well");
    store.checkpoint().expect("well").expect("there is something to do");
    store
}

fn rows_file(disk: &MemoryDisk) -> PathBuf {
    let files = disk.files().into_iter();
    let mut rows: Vec<PathBuf> = files.filter(|path| path.to_string_lossy().ends_with(".rows")).collect();
    assert_eq!(rows.len(), 1, "one segment");
    rows.remove(0)
}

#[test]
fn documents_are_the_same_through_merges_changes_and_openings() {
    let disk = MemoryDisk::new(1);
    let mut store = replica(&disk);
    let segment = store.reader().snapshot().segments[0].clone();
    assert!(segment.rows().is_on_disk());
    let of_rows = 500 * (DIMENSION as usize * 4);
    assert!(segment.rows().load().expect("well").bytes() > of_rows, "all of them can be had");
    // A digest for each row, a checksum for each page of 682 rows, and what says where they are.
    assert!(segment.vector_bytes() < 500 * 16 + 300, "{} bytes", segment.vector_bytes());

    let changes = vec![
        batch(vec![set_metadata("id007"), delete(id("id008")), set_metadata("id009")]),
        batch(vec![set_metadata("id007"), upsert(document("id009", 0.5)), set_metadata("id009")]),
    ];
    for outcome in commit(&mut store, changes).expect("well") {
        outcome.expect("these documents exist");
    }
    let vector = |store: &Store, text: &str| {
        let found = store.reader().get(text, true).expect("rows can be read");
        found.map(|(document, _)| document.vector[0])
    };
    let expected = [("id007", Some(7.0)), ("id008", None), ("id009", Some(0.5)), ("id499", Some(499.0))];
    let check = |store: &Store| {
        assert_eq!(expected.map(|(text, _)| (text, vector(store, text))), expected);
        assert_eq!(store.digest().content, store.reader().snapshot().content_digest());
        documents_of(&store.reader().snapshot())
    };
    let documents = check(&store);
    assert_eq!(store.reader().try_get("id100", true), None, "a look-up that must not wait does not read");
    assert!(store.reader().try_get("id100", false).is_some());

    // Of 500 rows 200 are dead: the segment is written again.
    let gone = (300..500).map(|number| delete(id(&format!("id{number:03}"))));
    commit(&mut store, vec![batch(gone.collect())]).expect("well");
    let report = store.checkpoint().expect("well").expect("there is something to do");
    assert_eq!((report.merged, report.rows), (1, 299));
    let documents: State = documents.into_iter().filter(|(id, _)| id.as_str() < "id300").collect();
    assert_eq!(documents_of(&store.reader().snapshot()), documents);
    assert_eq!(segment.rows().row(499).expect("a file that is open stays")[0], 499.0);

    let digest = store.digest();
    store.close().expect("well");
    for place in [in_memory(&disk), on_disk(&disk), in_memory(&disk)] {
        let is_on_disk = matches!(place.rows, RowPlace::Disk(_));
        let (store, _) = open_at(place, &disk).expect("whole");
        let snapshot = store.reader().snapshot();
        assert_eq!((store.digest(), snapshot.content_digest()), (digest, digest.content));
        assert_eq!(documents_of(&snapshot), documents);
        assert_eq!(snapshot.segments[0].rows().is_on_disk(), is_on_disk);
    }
}

#[test]
fn damage_below_an_open_replica_is_told_by_whoever_meets_it() {
    let disk = MemoryDisk::new(1);
    let mut store = replica(&disk);
    let reader = store.reader();
    let is_damage = |error: StorageError| matches!(error, StorageError::Damaged { .. });
    disk.flip_bit(&rows_file(&disk), OF_A_VECTOR, 3);
    assert!(is_damage(reader.get("id000", true).expect_err("its vector is another one")));
    assert!(reader.get("id000", false).expect("nothing is read").is_some());
    assert!(is_damage(reader.snapshot().list("", 10, usize::MAX, true).expect_err("as above")));

    let epoch = store.meta().promised_epoch;
    let before = (store.applied(), reader.snapshot().lsn);
    store.stage(epoch, vec![batch(vec![set_metadata("id000")])]).expect("the log is well");
    store.sync().expect("the log is well");
    let end = store.end();
    assert!(is_damage(store.apply(end).expect_err("its vector is needed")));
    assert_eq!((store.applied(), reader.snapshot().lsn), before, "nothing was applied");
    drop(store);
    assert!(is_damage(open_at(on_disk(&disk), &disk).map(drop).expect_err("every byte is looked at")));
}

#[test]
fn a_merge_copies_no_damage() {
    let disk = MemoryDisk::new(1);
    let mut store = replica(&disk);
    let gone = (200..500).map(|number| delete(id(&format!("id{number:03}"))));
    commit(&mut store, vec![batch(gone.collect())]).expect("well");
    let file = rows_file(&disk);
    disk.flip_bit(&file, OF_A_VECTOR, 3);
    assert!(matches!(store.checkpoint(), Err(StorageError::Damaged { .. })));
    assert_eq!(rows_file(&disk), file, "nothing was left of it");
}
