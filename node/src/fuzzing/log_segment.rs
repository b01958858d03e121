//! A segment of the log.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use crc32c::{crc32c, crc32c_append};

use super::{damaged, disk_with, u64_at};
use crate::ids::{Lsn, ReplicaId};
use crate::storage::log::{Log, LogPlace, RecoveryPoint};
use crate::storage::{LogRead, Record, StorageError};

const HEADER_BYTES: usize = 64;
const RECORD_HEADER_BYTES: usize = 54;

/// Checks the bytes of a file of the log.
pub fn log_segment(bytes: &[u8]) -> bool {
    let accepted = check(bytes);
    let mut repaired = bytes.to_vec();
    repair(&mut repaired);
    if repaired != bytes {
        check(&repaired);
    }
    accepted
}

fn check(bytes: &[u8]) -> bool {
    let known = Known::of(bytes);
    let Ok(recovered) = open(bytes, known) else { return false };
    if known.number.max(known.durable.0) > 1 << 61 {
        // So close to the last position or number it may be opened once and not once more. Nothing gets there.
        return true;
    }
    let Recovered { place, records, log } = recovered;
    check_reader(&log, &records);
    let end = log.durable();
    drop(log);
    let opened_again = recover(place, Known { durable: end, ..known }).expect("it was just recovered");
    assert_eq!((&opened_again.records, opened_again.log.durable()), (&records, end), "recovered once more");
    for damaged in damaged(bytes) {
        if let Ok(shorter) = open(&damaged, known) {
            assert!(records.starts_with(&shorter.records), "other records after damage");
        }
        if let Ok(same) = open(&damaged, Known { durable: end, ..known }) {
            assert_eq!(same.records, records, "durable records are missing and nobody says so");
        }
    }
    true
}

/// A reader finds what was replayed.
fn check_reader(log: &Log, replayed: &[Record]) {
    let mut reader = log.reader();
    let mut found: Vec<Record> = Vec::new();
    let mut next = log.first();
    while next <= log.durable() {
        let LogRead::Records(records) = reader.read(next, 1 << 20).expect("it was just recovered") else {
            panic!("an open log has its records");
        };
        next = records.last().expect("it has more of them").lsn.next();
        found.extend(records);
    }
    assert_eq!(found.last().map(|record| record.lsn.next()), Some(next).filter(|_| !found.is_empty()));
    // Records of a batch that never ended are there and have no effect.
    let mut all = found.iter();
    assert!(replayed.iter().all(|record| all.any(|found| found == record)), "readers find another log");
}

/// What the rest of the replica knows of a log.
#[derive(Clone, Copy)]
pub(super) struct Known {
    replica: ReplicaId,
    number: u64,
    checkpoint: Lsn,
    durable: Lsn,
}

impl Known {
    /// As little as possible: whatever a whole header says is believed.
    pub(super) fn of(bytes: &[u8]) -> Known {
        let before = Lsn(u64_at(bytes, 36).saturating_sub(1));
        let replica = bytes.get(12..28).and_then(ReplicaId::from_bytes).unwrap_or(ReplicaId([0; 16]));
        Known { replica, number: u64_at(bytes, 28), checkpoint: before, durable: before }
    }
}

pub(super) struct Recovered {
    place: LogPlace,
    records: Vec<Record>,
    log: Log,
}

/// Opens a log whose only file has these bytes.
pub(super) fn open(bytes: &[u8], known: Known) -> Result<Recovered, StorageError> {
    let path = PathBuf::from(format!("wal/{:016x}.log", known.number));
    let disk = Arc::new(disk_with(&path, bytes));
    recover(LogPlace { disk, directory: Path::new("wal").to_owned(), replica: known.replica }, known)
}

fn recover(place: LogPlace, known: Known) -> Result<Recovered, StorageError> {
    let point = RecoveryPoint { checkpoint: known.checkpoint, durable: known.durable };
    let mut records = Vec::new();
    let scanned = Log::scan(place.clone(), point, &mut |record| {
        records.push(record);
        Ok(())
    })?;
    Ok(Recovered { place, records, log: scanned.open()? })
}

/// Sets all checksums to what fits, as far as the lengths make sense.
pub(super) fn repair(bytes: &mut [u8]) {
    if bytes.len() < HEADER_BYTES {
        return;
    }
    let mut previous = crc32c(&bytes[..60]).to_le_bytes();
    bytes[60..64].copy_from_slice(&previous);
    // The chain begins with the checksum of all 64 bytes.
    previous = crc32c(&bytes[..HEADER_BYTES]).to_le_bytes();
    let seed: [u8; 8] = bytes[52..60].try_into().expect("eight bytes");
    let mut rest = &mut bytes[HEADER_BYTES..];
    while rest.len() >= RECORD_HEADER_BYTES {
        let length = u32::from_le_bytes(rest[..4].try_into().expect("four bytes")) as usize;
        let header_crc = crc32c_append(crc32c_append(crc32c(&previous), &seed), &rest[..22]);
        rest[22..26].copy_from_slice(&header_crc.to_le_bytes());
        let Some(end) = RECORD_HEADER_BYTES.checked_add(length).filter(|end| *end <= rest.len()) else {
            return;
        };
        previous = crc32c_append(crc32c_append(header_crc, &seed), &rest[30..end]).to_le_bytes();
        rest[26..30].copy_from_slice(&previous);
        rest = &mut rest[end..];
    }
}
