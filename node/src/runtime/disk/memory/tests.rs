//! The disk breaks as it says.

use super::*;

#[test]
fn what_was_synced_survives_and_the_rest_may_be_lost() {
    let mut lost = 0;
    for seed in 0..50 {
        let disk = MemoryDisk::new(seed);
        let mut file = disk.create(Path::new("a")).expect("created");
        file.append(&[1; 700]).expect("written");
        file.sync().expect("synced");
        disk.sync_dir(Path::new("")).expect("synced");
        file.append(&[2; 700]).expect("written");
        disk.crash();
        let bytes = disk.read(Path::new("a")).expect("the name was synced");
        assert!(bytes[..700].iter().all(|byte| *byte == 1));
        lost += usize::from(bytes.len() < 1400 || bytes[700..].contains(&0));
    }
    assert!(lost > 40, "the disk is too kind");
}

#[test]
fn names_of_an_unsynced_directory_may_be_lost() {
    let survived = |seed| {
        let disk = MemoryDisk::new(seed);
        disk.create(Path::new("a")).expect("created");
        disk.crash();
        disk.read(Path::new("a")).is_ok()
    };
    assert!((0..20).any(survived) && !(0..20).all(survived));
}

#[test]
fn a_failed_sync_loses_its_pages_for_good() {
    let disk = MemoryDisk::new(1);
    let mut file = disk.create(Path::new("a")).expect("created");
    disk.sync_dir(Path::new("")).expect("synced");
    file.append(&[7; 10]).expect("written");
    disk.fail_next(DiskOperation::Sync, io::ErrorKind::Other);
    assert!(file.sync().is_err());
    assert!(file.sync().is_ok(), "the kernel says so");
    assert_eq!(disk.read(Path::new("a")).expect("read"), [7; 10], "from the page cache");
    disk.crash();
    assert_eq!(disk.read(Path::new("a")).expect("read"), [0; 10]);
}

#[test]
fn a_sync_that_was_forgotten_keeps_nothing_until_the_next_one() {
    let kept = |syncs: u64| {
        let disk = MemoryDisk::new(1);
        let mut file = disk.create(Path::new("a")).expect("created");
        disk.sync_dir(Path::new("")).expect("synced");
        disk.forget_syncs(1);
        for _ in 0..syncs {
            file.append(&[7; 512]).expect("written");
            file.sync().expect("it says so");
        }
        disk.crash();
        disk.read(Path::new("a")).expect("read") == vec![7; 512 * syncs as usize]
    };
    assert!(!kept(1) && kept(2));
}

#[test]
fn an_image_brings_an_earlier_state_back() {
    let disk = MemoryDisk::new(1);
    let mut file = disk.create(Path::new("a")).expect("created");
    file.append(b"old").expect("written");
    let image = disk.image();
    file.append(b" and new").expect("written");
    let mut later = disk.create(Path::new("b")).expect("created");
    disk.restore(&image);
    assert_eq!(disk.read(Path::new("a")).expect("read"), b"old");
    assert_eq!(disk.files(), [Path::new("a")]);
    assert!(later.append(b"lost").is_err(), "it is none of this disk's files");
}

#[test]
fn a_misdirected_append_harms_two_files() {
    let disk = MemoryDisk::new(1);
    let mut file = disk.create(Path::new("a")).expect("created");
    file.append(&[1; 100]).expect("written");
    let mut other = disk.create(Path::new("b")).expect("created");
    other.append(&[2; 100]).expect("written");
    disk.misdirect_next_append();
    other.append(&[3; 50]).expect("it says so");
    let count = |path: &str, byte: u8| {
        disk.read(Path::new(path)).expect("read").iter().filter(|found| **found == byte).count()
    };
    assert_eq!([count("a", 1), count("a", 3), count("b", 2), count("b", 0)], [50, 50, 100, 50]);
}

#[test]
fn a_directory_whose_removal_fails_may_be_gone_in_part() {
    let left = |seed| {
        let disk = MemoryDisk::new(seed);
        disk.create_dir_all(Path::new("d")).expect("created");
        for name in ["d/a", "d/b"] {
            disk.create(Path::new(name)).expect("created");
        }
        disk.fail_next(DiskOperation::Directory, io::ErrorKind::Other);
        disk.remove_dir_all(Path::new("d")).expect_err("failed");
        disk.files().len()
    };
    let found: BTreeSet<usize> = (0..20).map(left).collect();
    assert_eq!(found, BTreeSet::from([0, 1, 2]));
}
