//! Records that a cut took away, kept for people who ask what became of a write that was never acknowledged.

use std::path::Path;

use super::segment::{self, Draft, SegmentHeader};
use super::{LogPlace, LogRead, LogReader, encode};
use crate::ids::{Epoch, Lsn};
use crate::storage::StorageError;

/// Files that are kept.
const ORPHANS_MAX: usize = 8;
/// Bytes that are copied at once.
const COPY_BYTES: usize = 4 << 20;

/// Copies the durable records behind `to`, which reign `epoch` wrote, to a segment file of their own in `directory`.
pub(super) fn copy(
    place: &LogPlace,
    mut reader: LogReader,
    directory: &Path,
    to: Lsn,
    epoch: Epoch,
) -> Result<(), StorageError> {
    let disk = place.disk.as_ref();
    disk.create_dir_all(directory).map_err(StorageError::write(directory))?;
    let numbers = segment::list(disk, directory)?;
    let number = numbers.last().map_or(1, |last| last + 1);
    let header = SegmentHeader::new(place.replica, number, to.next(), epoch);
    let mut draft = Draft::begin(disk, directory, &header)?;
    let (mut chain, mut from) = (header.chain(), to.next());
    while let LogRead::Records(records) = reader.read(from, COPY_BYTES)?
        && let Some(last) = records.last()
    {
        from = last.lsn.next();
        let bytes: Vec<u8>;
        (bytes, chain) = encode(&records, chain);
        draft.append(&bytes)?;
    }
    draft.finish()?;
    let surplus = (numbers.len() + 1).saturating_sub(ORPHANS_MAX);
    for old in &numbers[..surplus] {
        let path = segment::path_of(directory, *old);
        disk.remove(&path).map_err(StorageError::write(&path))?;
    }
    Ok(())
}
