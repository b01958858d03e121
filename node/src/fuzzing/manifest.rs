//! A manifest, with the requests that are remembered.

use std::path::Path;

use super::{damaged, disk_with, whole_file};
use crate::storage::manifest::Manifest;

/// The number of every manifest here: it is part of a manifest's name and must be what the file says.
pub(super) const ID: u64 = 1;

/// Checks the bytes of a manifest.
pub fn manifest(bytes: &[u8]) -> bool {
    let accepted = check(bytes);
    if let Some(repaired) = whole_file::repaired(bytes).filter(|repaired| repaired != bytes) {
        check(&repaired);
    }
    accepted
}

fn check(bytes: &[u8]) -> bool {
    let home = Path::new("g1");
    let path = Manifest::path_of(home, ID);
    let disk = disk_with(&path, bytes);
    let Ok((manifest, window)) = Manifest::read(&disk, home, ID) else { return false };
    manifest.write(&disk, home, &window).expect("nothing fails on this disk");
    assert_eq!(Manifest::read(&disk, home, ID).expect("just written"), (manifest, window));
    for damaged in damaged(bytes) {
        disk.overwrite(&path, damaged);
        assert!(Manifest::read(&disk, home, ID).is_err(), "damage is not seen");
    }
    true
}
