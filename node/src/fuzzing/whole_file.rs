//! Files that are read as a whole: a header with the body's length, the body, a checksum.

use crc32c::crc32c;

const HEADER_BYTES: usize = 20;

/// The bytes with the length and the checksum that fit; `None` when they are too few.
pub(super) fn repaired(bytes: &[u8]) -> Option<Vec<u8>> {
    let (content, _) = bytes.split_last_chunk::<4>()?;
    let body = content.get(HEADER_BYTES..)?;
    let mut repaired = content[..12].to_vec();
    repaired.extend_from_slice(&(body.len() as u64).to_le_bytes());
    repaired.extend_from_slice(body);
    repaired.extend_from_slice(&crc32c(&repaired).to_le_bytes());
    Some(repaired)
}
