//! `replica.meta`.

use std::path::Path;

use super::{damaged, disk_with, whole_file};
use crate::storage::ReplicaMeta;

/// Checks the bytes of a `replica.meta`.
pub fn replica_meta(bytes: &[u8]) -> bool {
    let accepted = check(bytes);
    if let Some(repaired) = whole_file::repaired(bytes).filter(|repaired| repaired != bytes) {
        check(&repaired);
    }
    accepted
}

fn check(bytes: &[u8]) -> bool {
    let directory = Path::new("replica");
    let path = directory.join("replica.meta");
    let disk = disk_with(&path, bytes);
    let Ok(meta) = ReplicaMeta::read(&disk, directory) else { return false };
    let meta = meta.expect("the file is there");
    meta.write(&disk, directory).expect("nothing fails on this disk");
    assert_eq!(ReplicaMeta::read(&disk, directory).expect("just written").as_ref(), Some(&meta));
    for damaged in damaged(bytes) {
        disk.overwrite(&path, damaged);
        assert!(ReplicaMeta::read(&disk, directory).is_err(), "damage is not seen");
    }
    true
}
