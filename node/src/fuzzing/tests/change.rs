//! Seeded changes of bytes: what breaks, and what a bug writes.

use std::ops::Range;

use rand::RngExt;
use rand::rngs::SmallRng;

/// Numbers at the ends of ranges.
const ENDS: [u64; 8] = [0, 1, 0x7f, 0xff, 1 << 24, u32::MAX as u64, 1 << 63, u64::MAX];

/// One to four changes of `bytes`, perhaps with parts of `other`.
pub(super) fn change(bytes: &[u8], other: &[u8], random: &mut SmallRng) -> Vec<u8> {
    let mut changed = bytes.to_vec();
    for _ in 0..random.random_range(1..=4) {
        change_once(&mut changed, other, random);
    }
    changed
}

fn change_once(bytes: &mut Vec<u8>, other: &[u8], random: &mut SmallRng) {
    if bytes.is_empty() {
        bytes.extend_from_slice(&other[part(other, random)]);
        return;
    }
    let at = random.random_range(0..bytes.len());
    match random.random_range(0..8) {
        0 => bytes[at] ^= 1 << random.random_range(0..8),
        1 => bytes[at] = random.random(),
        2 => bytes.truncate(at),
        3 => drop(bytes.drain(part(bytes, random))),
        4 => {
            let again = bytes[part(bytes, random)].to_vec();
            bytes.splice(at..at, again);
        }
        5 => drop(bytes.splice(at.., other[part(other, random)].to_vec())),
        6 => {
            let end = ENDS[random.random_range(0..ENDS.len())].to_le_bytes();
            let width = [1, 4, 8][random.random_range(0..3)].min(bytes.len() - at);
            bytes[at..at + width].copy_from_slice(&end[..width]);
        }
        // A number that is a little off, as lengths and counts may be.
        _ => bytes[at] = bytes[at].wrapping_add(random.random_range(1..=3)),
    }
}

fn part(bytes: &[u8], random: &mut SmallRng) -> Range<usize> {
    let (a, b) = (random.random_range(0..=bytes.len()), random.random_range(0..=bytes.len()));
    a.min(b)..a.max(b)
}
