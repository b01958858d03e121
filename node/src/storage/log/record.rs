//! One record of the log, and its bytes.

use std::ops::RangeInclusive;

use bytes::Bytes;
use crc32c::{crc32c, crc32c_append};
use xxhash_rust::xxh3::Xxh3;

use crate::ids::{Epoch, Lsn, OpId};
use crate::storage::op_window::OpKey;

/// Bytes of a record before its body.
pub(super) const HEADER_BYTES: usize = 54;

/// Largest body, bytes. Checked before anything is allocated for it.
pub const BODY_BYTES_MAX: usize = 16 << 20;

const FLAG_BATCH_END: u8 = 1;
const FLAG_AFTER_SYNC: u8 = 2;

/// What a record does. The numbers are the format's; they are never used for something else. 5 (a cut of a backup) and 6
/// (a change of the table's schema) are reserved: only a newer version writes them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RecordKind {
    /// Writes a document.
    Upsert = 1,
    /// Deletes a document.
    Delete = 2,
    /// Replaces a document's metadata by the final one.
    SetMetadata = 3,
    /// Begins a reign.
    EpochStart = 4,
    /// Nothing, but its request is remembered.
    Noop = 7,
}

impl RecordKind {
    /// The kind with this number; `None` when this version knows none.
    pub fn from_number(number: u8) -> Option<RecordKind> {
        Some(match number {
            1 => RecordKind::Upsert,
            2 => RecordKind::Delete,
            3 => RecordKind::SetMetadata,
            4 => RecordKind::EpochStart,
            7 => RecordKind::Noop,
            _ => return None,
        })
    }
}

/// One record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// What it does.
    pub kind: RecordKind,
    /// The last record of its batch; the records of a batch apply together or not at all.
    pub batch_end: bool,
    /// Reign in which it was written.
    pub epoch: Epoch,
    /// Its position.
    pub lsn: Lsn,
    /// The request that it belongs to.
    pub op: OpKey,
    /// The effect, at most [`BODY_BYTES_MAX`].
    pub body: Bytes,
}

/// What the checksums of the next record start from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Chain {
    /// The segment's random number: bytes of another segment never fit.
    pub(super) seed: u64,
    /// Checksum of the record before; of the segment's header for the first one.
    pub(super) previous: u32,
}

/// A record that was read.
#[derive(Debug)]
pub(super) struct Decoded {
    pub(super) record: Record,
    /// Everything before this record was durable when it was written.
    pub(super) after_sync: bool,
    pub(super) bytes: usize,
    pub(super) chain: Chain,
}

/// Why bytes are no record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum BadRecord {
    /// The bytes end within the record.
    #[error("is cut off")]
    CutOff {
        /// How many it has at least.
        bytes: usize,
    },
    /// Checksums do not fit: torn, flipped, or never written.
    #[error("{0} does not fit")]
    Invalid(&'static str),
    /// Whole, but of a kind that this version does not know.
    #[error("is of kind {0}")]
    UnknownKind(u8),
    /// Whole, but with flags that this version does not know.
    #[error("has flags {0:#04x}")]
    UnknownFlags(u8),
}

impl Record {
    /// Bytes of the record in a log.
    pub fn stored_bytes(&self) -> usize {
        HEADER_BYTES + self.body.len()
    }

    /// A hash of the whole record: equal for copies of it on all replicas.
    pub fn digest(&self) -> u64 {
        let Record { kind, batch_end, epoch, lsn, op, body } = self;
        let mut hasher = Xxh3::new();
        for number in [lsn.0, epoch.0, op.digest, body.len() as u64] {
            hasher.update(&number.to_le_bytes());
        }
        hasher.update(&[*kind as u8, u8::from(*batch_end)]);
        hasher.update(&op.id.0);
        hasher.update(body);
        hasher.digest()
    }

    /// Appends the record's bytes to `out` and returns the chain for the next one.
    pub(super) fn encode(&self, chain: Chain, after_sync: bool, out: &mut Vec<u8>) -> Chain {
        let start = out.len();
        let length = u32::try_from(self.body.len()).expect("bounded by BODY_BYTES_MAX");
        let batch_end = if self.batch_end { FLAG_BATCH_END } else { 0 };
        let flags = batch_end | if after_sync { FLAG_AFTER_SYNC } else { 0 };
        out.extend_from_slice(&length.to_le_bytes());
        out.extend_from_slice(&[self.kind as u8, flags]);
        out.extend_from_slice(&self.epoch.0.to_le_bytes());
        out.extend_from_slice(&self.lsn.0.to_le_bytes());
        let header_crc = header_crc(&out[start..], chain);
        let body_crc = body_crc(header_crc, chain.seed, &self.op, &self.body);
        out.extend_from_slice(&header_crc.to_le_bytes());
        out.extend_from_slice(&body_crc.to_le_bytes());
        out.extend_from_slice(&self.op.id.0);
        out.extend_from_slice(&self.op.digest.to_le_bytes());
        out.extend_from_slice(&self.body);
        debug_assert_eq!(out.len() - start, HEADER_BYTES + self.body.len());
        Chain { seed: chain.seed, previous: body_crc }
    }

    /// Reads the record at `offset` of `bytes`. `None`: the bytes end here.
    pub(super) fn decode(bytes: &Bytes, offset: usize, chain: Chain) -> Result<Option<Decoded>, BadRecord> {
        let rest = &bytes[offset..];
        if rest.is_empty() {
            return Ok(None);
        }
        let header = Header::read(rest).ok_or(BadRecord::CutOff { bytes: HEADER_BYTES })?;
        if header.header_crc != header_crc(&rest[..22], chain) {
            return Err(BadRecord::Invalid("header checksum"));
        }
        if header.length > BODY_BYTES_MAX {
            return Err(BadRecord::Invalid("length of the body"));
        }
        let body = header.body(rest).ok_or(BadRecord::CutOff { bytes: HEADER_BYTES + header.length })?;
        if header.body_crc != body_crc(header.header_crc, chain.seed, &header.op, body) {
            return Err(BadRecord::Invalid("body checksum"));
        }
        let kind = RecordKind::from_number(header.kind).ok_or(BadRecord::UnknownKind(header.kind))?;
        if header.flags & !(FLAG_BATCH_END | FLAG_AFTER_SYNC) != 0 {
            return Err(BadRecord::UnknownFlags(header.flags));
        }
        let size = HEADER_BYTES + header.length;
        let record = Record {
            kind,
            batch_end: header.flags & FLAG_BATCH_END != 0,
            epoch: Epoch(header.epoch),
            lsn: Lsn(header.lsn),
            op: header.op,
            body: bytes.slice(offset + HEADER_BYTES..offset + size),
        };
        let after_sync = header.flags & FLAG_AFTER_SYNC != 0;
        let chain = Chain { seed: chain.seed, previous: header.body_crc };
        Ok(Some(Decoded { record, after_sync, bytes: size, chain }))
    }
}

/// Looks in `bytes` for a record whose position lies in `lsns` and that was written after a sync, whatever the bytes
/// before it say. It proves that what should stand there was durable once.
///
/// Its header's checksum cannot be tried, since it starts from the record before; the body's starts from the header's
/// as it stands there, and from the segment's seed.
pub(super) fn find_written_after_sync(bytes: &[u8], seed: u64, lsns: RangeInclusive<u64>) -> Option<Lsn> {
    (0..bytes.len().saturating_sub(HEADER_BYTES - 1)).find_map(|offset| {
        let rest = &bytes[offset..];
        let header = Header::read(rest)?;
        let plausible = header.flags & FLAG_AFTER_SYNC != 0 && lsns.contains(&header.lsn);
        let whole = plausible
            && header
                .body(rest)
                .is_some_and(|body| header.body_crc == body_crc(header.header_crc, seed, &header.op, body));
        whole.then_some(Lsn(header.lsn))
    })
}

struct Header {
    length: usize,
    kind: u8,
    flags: u8,
    epoch: u64,
    lsn: u64,
    header_crc: u32,
    body_crc: u32,
    op: OpKey,
}

impl Header {
    fn read(bytes: &[u8]) -> Option<Header> {
        let bytes: &[u8; HEADER_BYTES] = bytes.first_chunk()?;
        let u32_at = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"));
        let u64_at = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"));
        Some(Header {
            length: u32_at(0) as usize,
            kind: bytes[4],
            flags: bytes[5],
            epoch: u64_at(6),
            lsn: u64_at(14),
            header_crc: u32_at(22),
            body_crc: u32_at(26),
            op: OpKey { id: OpId(bytes[30..46].try_into().expect("sixteen bytes")), digest: u64_at(46) },
        })
    }

    /// The body, when it is within its limit and all there.
    fn body<'a>(&self, record: &'a [u8]) -> Option<&'a [u8]> {
        if self.length > BODY_BYTES_MAX {
            return None;
        }
        record.get(HEADER_BYTES..HEADER_BYTES + self.length)
    }
}

fn header_crc(fields: &[u8], chain: Chain) -> u32 {
    let crc = crc32c(&chain.previous.to_le_bytes());
    crc32c_append(crc32c_append(crc, &chain.seed.to_le_bytes()), fields)
}

fn body_crc(header_crc: u32, seed: u64, op: &OpKey, body: &[u8]) -> u32 {
    let crc = crc32c_append(header_crc, &seed.to_le_bytes());
    let crc = crc32c_append(crc32c_append(crc, &op.id.0), &op.digest.to_le_bytes());
    crc32c_append(crc, body)
}

#[cfg(test)]
mod tests {
    use super::*;

    const CHAIN: Chain = Chain { seed: 7, previous: 9 };

    fn record(body: &'static [u8]) -> Record {
        Record {
            kind: RecordKind::Upsert,
            batch_end: true,
            epoch: Epoch(3),
            lsn: Lsn(12),
            op: OpKey { id: OpId([5; 16]), digest: 6 },
            body: Bytes::from_static(body),
        }
    }

    #[test]
    fn the_bytes_of_a_record_never_change() {
        // The format is final: files of every version are read.
        let mut bytes = Vec::new();
        record(b"hi").encode(CHAIN, true, &mut bytes);
        let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(&hex[..44], "02000000010303000000000000000c00000000000000");
        assert_eq!(&hex[60..], "0505050505050505050505050505050506000000000000006869");
        let header = Header::read(&bytes).expect("whole");
        // From an independent CRC-32C of 09000000 ‖ 0700000000000000 ‖ the 22 bytes above, and of that one continued.
        assert_eq!((header.header_crc, header.body_crc), independent_crcs(&bytes));
    }

    /// Bit by bit, as the standard writes it (reflected polynomial 0x82F63B78).
    fn independent_crcs(record: &[u8]) -> (u32, u32) {
        fn crc(bytes: &[u8]) -> u32 {
            !bytes.iter().fold(u32::MAX, |crc, byte| {
                (0..8).fold(crc ^ u32::from(*byte), |crc, _| {
                    if crc & 1 == 1 { (crc >> 1) ^ 0x82F6_3B78 } else { crc >> 1 }
                })
            })
        }
        let mut covered = [9u32.to_le_bytes().as_slice(), &7u64.to_le_bytes(), &record[..22]].concat();
        let header = crc(&covered);
        covered.extend_from_slice(&7u64.to_le_bytes());
        covered.extend_from_slice(&record[30..]);
        (header, crc(&covered))
    }

    #[test]
    fn kinds_and_flags_of_a_newer_version_are_told_from_damage() {
        let decoded = |kind: u8, flags: u8| {
            let mut bytes = Vec::new();
            record(b"").encode(CHAIN, false, &mut bytes);
            (bytes[4], bytes[5]) = (kind, flags);
            let header = header_crc(&bytes[..22], CHAIN);
            let body = body_crc(header, CHAIN.seed, &record(b"").op, b"");
            bytes[22..26].copy_from_slice(&header.to_le_bytes());
            bytes[26..30].copy_from_slice(&body.to_le_bytes());
            Record::decode(&bytes.into(), 0, CHAIN).map(|found| found.is_some())
        };
        assert_eq!(decoded(1, 3), Ok(true));
        assert_eq!(decoded(5, 1), Err(BadRecord::UnknownKind(5)));
        assert_eq!(decoded(1, 4), Err(BadRecord::UnknownFlags(4)));
    }

    #[test]
    fn every_flipped_bit_and_every_cut_is_seen() {
        let mut bytes = Vec::new();
        let next = record(b"some body").encode(CHAIN, false, &mut bytes);
        let whole = Bytes::from(bytes.clone());
        let decoded = Record::decode(&whole, 0, CHAIN).expect("valid").expect("there");
        assert_eq!((decoded.record, decoded.chain, decoded.bytes), (record(b"some body"), next, bytes.len()));
        for bit in 0..bytes.len() * 8 {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(Record::decode(&flipped.into(), 0, CHAIN).is_err(), "bit {bit}");
        }
        for length in 1..bytes.len() {
            assert!(Record::decode(&whole.slice(..length), 0, CHAIN).is_err(), "cut at {length}");
        }
        let other = Chain { seed: 8, ..CHAIN };
        assert!(Record::decode(&whole, 0, other).is_err(), "bytes of another segment");
    }
}
