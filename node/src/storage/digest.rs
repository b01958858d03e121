//! Digests: what replicas compare to find out whether they hold the same.
//!
//! The *content* digest is the wrapping sum, over all live documents, of a hash of id, version, vector bits and metadata.
//! A sum can be kept up to date by whoever writes and be counted again by whoever reads all rows, so a merge that loses
//! or revives a row is seen. The *log* digest runs over all applied records. Both follow from the log alone: replicas
//! that applied up to the same position have the same digests. Graphs and codes are no part of them.

use xxhash_rust::xxh3::{Xxh3, xxh3_64};

use crate::ids::Lsn;

/// Digests are kept at multiples of this position, for replicas that are not at the same one.
pub const DIGEST_INTERVAL: u64 = 10_000;

/// What a replica holds at a position.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Digest {
    /// The position.
    pub lsn: Lsn,
    /// Of the live documents.
    pub content: u128,
    /// Of the applied records.
    pub log: u64,
}

/// The part of one live document in the content digest.
pub(super) fn of_row(id: &str, version: Lsn, vector: &[f32], metadata: &[u8]) -> u128 {
    let mut hasher = Xxh3::new();
    // Lengths keep one part from passing for the beginning of the next.
    for number in [version.0, id.len() as u64, vector.len() as u64] {
        hasher.update(&number.to_le_bytes());
    }
    hasher.update(id.as_bytes());
    if cfg!(target_endian = "little") {
        hasher.update(bytemuck::cast_slice(vector));
    } else {
        vector.iter().for_each(|value| hasher.update(&value.to_le_bytes()));
    }
    hasher.update(metadata);
    hasher.digest128()
}

/// The log digest behind one more record.
pub(super) fn of_log(before: u64, record: u64) -> u64 {
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&before.to_le_bytes());
    bytes[8..].copy_from_slice(&record.to_le_bytes());
    xxh3_64(&bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_part_of_a_row_counts() {
        let rows = [
            of_row("a", Lsn(1), &[0.0, 1.0], b"{}"),
            of_row("b", Lsn(1), &[0.0, 1.0], b"{}"),
            of_row("a", Lsn(2), &[0.0, 1.0], b"{}"),
            of_row("a", Lsn(1), &[-0.0, 1.0], b"{}"),
            of_row("a", Lsn(1), &[0.0], b"{}"),
            of_row("a", Lsn(1), &[0.0, 1.0], b"{\"a\":1}"),
            of_row("a{", Lsn(1), &[0.0, 1.0], b"}"),
        ];
        for (index, row) in rows.iter().enumerate() {
            assert!(!rows[..index].contains(row), "row {index}");
        }
    }

    #[test]
    fn digests_never_change() {
        // They are compared between versions of the program, and stand in manifests.
        let mut bytes = Vec::new();
        for number in [7u64, 1, 2] {
            bytes.extend_from_slice(&number.to_le_bytes());
        }
        bytes.extend_from_slice(b"a\x00\x00\x80\x3f\x00\x00\x00\xc0{}");
        assert_eq!(of_row("a", Lsn(7), &[1.0, -2.0], b"{}"), xxhash_rust::xxh3::xxh3_128(&bytes));
        assert_eq!(
            of_log(1, 2),
            xxh3_64(&u128::from_le_bytes([1, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0]).to_le_bytes())
        );
    }
}
