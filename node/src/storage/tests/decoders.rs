//! Bytes that come from a disk or another replica never make a decoder panic, whatever they are.

use bytes::Bytes;
use proptest::prelude::*;

use super::*;
use crate::storage::effect::Effect;
use crate::storage::manifest::Manifest;
use crate::storage::op_window::{OpKey, OpWindow};
use crate::storage::whole_file::WholeFile;

/// A small replica and the files that its checkpoint has.
fn files() -> (MemoryDisk, Vec<PathBuf>, PathBuf) {
    let disk = MemoryDisk::new(1);
    format(&disk);
    let mut store = open_and_lead(&disk).expect("fresh");
    let pair = vec![upsert(document("a", 1.0)), upsert(document("b", 1.0))];
    commit(&mut store, vec![batch(pair)]).expect("well");
    store.checkpoint().expect("well");
    commit(&mut store, vec![batch(vec![delete(id("a"))])]).expect("well");
    store.save_marks().expect("well");
    let home = store.home.clone();
    (disk.clone(), disk.files(), home)
}

/// Arbitrary changes of a valid content: bytes at places, and a cut.
fn changes() -> impl Strategy<Value = (Vec<(prop::sample::Index, u8)>, Option<prop::sample::Index>)> {
    let byte = (any::<prop::sample::Index>(), any::<u8>());
    (prop::collection::vec(byte, 0..6), prop::option::weighted(0.2, any::<prop::sample::Index>()))
}

fn change(
    bytes: &mut Vec<u8>,
    (places, cut): &(Vec<(prop::sample::Index, u8)>, Option<prop::sample::Index>),
) {
    if let Some(cut) = cut {
        bytes.truncate(cut.index(bytes.len() + 1));
    }
    for (place, byte) in places {
        if !bytes.is_empty() {
            let at = place.index(bytes.len());
            bytes[at] = *byte;
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn arbitrary_bytes_are_no_description_and_no_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        prop_assert!(SnapshotDescription::decode(&bytes).is_err_and(|error| !error.is_lasting()));
        OpWindow::decode(&bytes, Lsn(1));
        for kind in (0..=255).filter_map(RecordKind::from_number) {
            let body = Bytes::from(bytes.clone());
            let record = Record { kind, batch_end: true, epoch: Epoch(1), lsn: Lsn(1), op: OpKey::NONE, body };
            Effect::decode(&record).ok();
        }
    }

    #[test]
    fn a_changed_description_is_refused_or_another_one(changes in changes()) {
        let (disk, _, _) = files();
        let (mut store, _) = open(&disk).expect("whole");
        let pinned = store.pin_checkpoint().expect("there is one");
        let mut bytes = pinned.description().expect("well").encode();
        change(&mut bytes, &changes);
        if let Ok(description) = SnapshotDescription::decode(&bytes) {
            prop_assert_eq!(SnapshotDescription::decode(&description.encode()).expect("its own"), description);
        }
    }

    #[test]
    fn arbitrary_bytes_in_place_of_a_file_are_damage(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let (disk, files, _) = files();
        for path in &files {
            let image = disk.image();
            disk.overwrite(path, bytes.clone());
            prop_assert!(open(&disk).is_err_and(|error| error.is_lasting()), "{}", path.display());
            disk.restore(&image);
        }
    }

    /// Also where the checksum fits: what a bug of ours or a broken memory wrote.
    #[test]
    fn a_changed_content_with_a_right_checksum_makes_nobody_panic(changes in changes()) {
        let (disk, files, home) = files();
        for path in files.iter().filter(|path| path.extension().is_none_or(|kind| kind == "meta")) {
            let image = disk.image();
            let mut bytes = disk.read(path).expect("there");
            WholeFile::change_content(&mut bytes, |content| change(content, &changes));
            disk.overwrite(path, bytes);
            if let Ok(Some(meta)) = ReplicaMeta::read(&disk, &place(&disk).directory) {
                prop_assert!(meta.checkpoint <= meta.commit && meta.commit <= meta.durable);
            }
            if let Ok((manifest, _)) = Manifest::read(&disk, &home, 1) {
                prop_assert!(manifest.segments.iter().all(|segment| segment.id < manifest.next_segment));
            }
            if let Err(error) = open(&disk) {
                prop_assert!(error.is_lasting(), "{}", error);
            }
            disk.restore(&image);
        }
    }

    #[test]
    fn a_log_or_segment_that_goes_on_with_arbitrary_bytes_is_damage(
        bytes in prop::collection::vec(any::<u8>(), 0..200),
        kept in any::<prop::sample::Index>(),
    ) {
        let (disk, files, _) = files();
        let digest = open(&disk).expect("whole").0.digest();
        for path in files.iter().filter(|path| path.extension().is_some_and(|kind| kind != "meta")) {
            let image = disk.image();
            let whole = disk.written(path);
            let changed = [&whole[..kept.index(whole.len() + 1)], &bytes].concat();
            disk.overwrite(path, changed.clone());
            match open(&disk) {
                // What follows the durable records is a torn tail.
                Ok((store, _)) => prop_assert!(changed.starts_with(&whole) && store.digest() == digest),
                Err(error) => prop_assert!(error.is_lasting(), "{}", error),
            }
            disk.restore(&image);
        }
    }
}
