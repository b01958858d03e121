//! What reads bytes from outside, under any bytes: disks, the metadata store and clients may hold everything.
//!
//! Each function takes the bytes of one file, record or token, reads them as the product does, and panics when a promise
//! is broken. It does the same once more with checksums that fit, so that what stands behind them is reached, too. It
//! returns whether the bytes were accepted as they are.
//!
//! - What is read, written and read again is the same.
//! - Where checksums are: after a flipped bit or a cut it is refused, or a log with fewer records. It is never another
//!   content, and never shorter than what is known to be durable.
//!
//! Ordinary tests call them with the files of `fuzz/seeds` and changes of them, and `scripts/fuzz` with whatever
//! libFuzzer makes of those. Compiled for these two only.

mod filter;
mod log_segment;
mod manifest;
mod replica_meta;
mod session_token;
mod shard_record;
mod whole_file;

#[cfg(test)]
mod tests;

pub use filter::filter;
pub use log_segment::log_segment;
pub use manifest::manifest;
pub use replica_meta::replica_meta;
pub use session_token::session_token;
pub use shard_record::shard_record;

use std::path::Path;

use crc32c::crc32c;

use crate::runtime::disk::{Disk as _, MemoryDisk};

/// Changes of some bytes that a checksum must see: cuts and flipped bits, at places that follow from the bytes.
fn damaged(bytes: &[u8]) -> impl Iterator<Item = Vec<u8>> {
    const EACH: u64 = 4;
    let place = |number: u64, below: usize| {
        let mixed = (u64::from(crc32c(bytes)) + number + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        ((mixed >> 16) % below as u64) as usize
    };
    let cut = move |number| bytes[..place(number, bytes.len())].to_vec();
    let flip = move |number| {
        let mut flipped = bytes.to_vec();
        let bit = place(EACH + number, bytes.len() * 8);
        flipped[bit / 8] ^= 1 << (bit % 8);
        flipped
    };
    (0..EACH).filter(|_| !bytes.is_empty()).flat_map(move |number| [cut(number), flip(number)])
}

/// A disk with one file.
fn disk_with(path: &Path, bytes: &[u8]) -> MemoryDisk {
    let disk = MemoryDisk::new(1);
    disk.create_dir_all(path.parent().expect("in a directory")).expect("nothing fails on this disk");
    disk.create(path).expect("nothing fails on this disk");
    disk.overwrite(path, bytes.to_vec());
    disk
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    bytes.get(at..at + 8).map_or(0, |bytes| u64::from_le_bytes(bytes.try_into().expect("eight bytes")))
}
