//! Disks that do worse than fail: wrong places, forgotten syncs, older images. What is served is true, or nothing is.

use std::path::Path;

use super::*;

/// Commits batches, with checkpoints now and then; returns the documents at the end of each batch.
fn write(store: &mut Store, random: &mut SmallRng, history: &mut Vec<State>, batches: usize) {
    try_write(store, random, history, batches).expect("the disk says that all is well");
}

/// The same until the store notices that the disk did worse than fail.
fn try_write(
    store: &mut Store,
    random: &mut SmallRng,
    history: &mut Vec<State>,
    batches: usize,
) -> Result<(), StorageError> {
    for _ in 0..batches {
        let batch = random_batch(random);
        let mut state = history.last().expect("it begins empty").clone();
        apply_to(&mut state, &batch).ok();
        commit(store, vec![batch])?;
        history.push(state);
        match random.random_range(0..12) {
            0 => drop(store.checkpoint()?),
            1..4 => store.save_marks()?,
            _ => {}
        }
    }
    Ok(())
}

/// The documents that the disk has, if it is not damaged.
fn documents_on(disk: &MemoryDisk) -> Option<State> {
    match open(disk) {
        Ok((mut store, _)) => {
            assert_eq!(store.digest().content, store.reader().snapshot().content_digest());
            store.apply(store.end()).expect("rows can be read");
            Some(documents_of(&store.reader().snapshot()))
        }
        Err(error) => {
            assert!(error.is_lasting(), "{error}");
            None
        }
    }
}

#[test]
fn a_misdirected_write_is_found_or_does_no_harm() {
    let mut damaged = 0;
    for seed in 0..200 {
        let disk = MemoryDisk::new(seed);
        format(&disk);
        let (mut random, mut history) = (SmallRng::seed_from_u64(seed), vec![State::new()]);
        let mut store = open_and_lead(&disk).expect("fresh");
        write(&mut store, &mut random, &mut history, 20);
        disk.misdirect_next_append();
        if let Err(error) = try_write(&mut store, &mut random, &mut history, 10) {
            // A merge, or new metadata, read vectors of a segment that was written over.
            assert!(error.is_lasting(), "{error}");
            damaged += 1;
            continue;
        }
        store.close().expect("the disk says that all is well");
        match documents_on(&disk) {
            Some(found) => assert_eq!(Some(&found), history.last(), "seed {seed}"),
            None => damaged += 1,
        }
    }
    assert!(damaged > 50, "{damaged} damaged");
}

#[test]
fn a_disk_that_forgets_syncs_shows_an_earlier_state_or_damage() {
    let (mut damaged, mut earlier) = (0, 0);
    for seed in 0..200 {
        let disk = MemoryDisk::new(seed);
        format(&disk);
        let (mut random, mut history) = (SmallRng::seed_from_u64(seed), vec![State::new()]);
        let mut store = open_and_lead(&disk).expect("fresh");
        write(&mut store, &mut random, &mut history, 20);
        disk.forget_syncs(random.random_range(1..20));
        write(&mut store, &mut random, &mut history, 6);
        drop(store);
        disk.crash();
        match documents_on(&disk) {
            Some(found) if Some(&found) == history.last() => {}
            Some(found) => {
                assert!(history.contains(&found), "seed {seed}");
                earlier += 1;
            }
            None => damaged += 1,
        }
    }
    assert!(damaged > 20 && earlier > 5, "{damaged} damaged, {earlier} earlier");
}

#[test]
fn an_older_image_is_whole_and_shows_by_the_count_of_openings() {
    let disk = MemoryDisk::new(1);
    format(&disk);
    let (mut random, mut history) = (SmallRng::seed_from_u64(1), vec![State::new()]);
    let counts: Vec<u64> = [5, 7]
        .map(|batches| {
            let identity = data_dir::count_opening(&disk).expect("well");
            let mut store = open_and_lead(&disk).expect("whole");
            write(&mut store, &mut random, &mut history, batches);
            store.close().expect("well");
            identity.opens
        })
        .to_vec();
    assert_eq!(counts, [1, 2]);
    let image = disk.image();
    let before = history.last().cloned();
    data_dir::count_opening(&disk).expect("well");
    write(&mut open_and_lead(&disk).expect("whole"), &mut random, &mut history, 9);
    disk.restore(&image);
    assert_eq!(data_dir::count_opening(&disk).expect("well").opens, 3, "as it was said before");
    assert_eq!(documents_on(&disk), before);
}

#[test]
fn nothing_is_served_when_a_file_of_another_time_lies_in_its_place() {
    let disk = MemoryDisk::new(1);
    format(&disk);
    let (mut random, mut history) = (SmallRng::seed_from_u64(1), vec![State::new()]);
    let mut store = open_and_lead(&disk).expect("fresh");
    write(&mut store, &mut random, &mut history, 10);
    store.checkpoint().expect("well");
    store.close().expect("well");
    let (old, old_files) = (disk.image(), disk.files());
    let mut store = open_and_lead(&disk).expect("whole");
    write(&mut store, &mut random, &mut history, 10);
    store.checkpoint().expect("well");
    write(&mut store, &mut random, &mut history, 2);
    store.close().expect("well");
    let (new, new_files) = (disk.image(), disk.files());
    for path in old_files.iter().filter(|path| new_files.contains(path)) {
        disk.restore(&old);
        let bytes = disk.read(path).expect("there");
        disk.restore(&new);
        let same = disk.read(path).expect("there") == bytes;
        disk.overwrite(Path::new(path), bytes);
        let found = documents_on(&disk);
        assert!(same || found.is_none(), "{} of another time", path.display());
    }
    disk.restore(&new);
    assert_eq!(documents_on(&disk).as_ref(), history.last());
}
