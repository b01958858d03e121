//! The requests that a shard remembers, so that one sent twice is done once.
//!
//! The window is by count, follows from the log alone, and is part of each manifest.

use std::collections::{HashMap, VecDeque};

use crate::ids::{Lsn, OpId};

/// Requests that are remembered: 10 s of 10,000 a second, longer than a gateway or a client keeps trying. They take
/// 8 MiB of memory and 4 MB of each manifest.
const REQUESTS_MAX: usize = 100_000;

/// Bytes of one request in a manifest.
const STORED_BYTES: usize = 40;

/// Tells one request from another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OpKey {
    /// Chosen by the caller; the same when the request is sent again.
    pub id: OpId,
    /// Of what the request asks for: another one under the same id is a mistake of the caller.
    pub digest: u64,
}

impl OpKey {
    /// Of records that nobody asked for.
    pub const NONE: OpKey = OpKey { id: OpId([0; 16]), digest: 0 };
}

/// What became of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Receipt {
    /// Position of its last record.
    pub lsn: Lsn,
    /// Documents written, or that existed and were deleted.
    pub affected: u64,
}

/// The last [`REQUESTS_MAX`] requests.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OpWindow {
    /// Each with its digest.
    receipts: HashMap<OpId, (u64, Receipt)>,
    order: VecDeque<OpId>,
    forgotten: Lsn,
}

impl OpWindow {
    /// The digest of the request that had this id and what became of it, if it is remembered.
    pub fn get(&self, id: OpId) -> Option<(u64, Receipt)> {
        self.receipts.get(&id).copied()
    }

    /// Remembers a request and forgets the oldest one when there are too many.
    pub fn insert(&mut self, op: OpKey, receipt: Receipt) {
        if self.receipts.insert(op.id, (op.digest, receipt)).is_none() {
            self.order.push_back(op.id);
        }
        if self.order.len() > REQUESTS_MAX
            && let Some(oldest) = self.order.pop_front()
            && let Some((_, receipt)) = self.receipts.remove(&oldest)
        {
            self.forgotten = self.forgotten.max(receipt.lsn);
        }
    }

    /// Requests up to here may be forgotten; behind it every one is remembered. [`Lsn::ZERO`] while nothing was forgotten.
    pub fn forgotten(&self) -> Lsn {
        self.forgotten
    }

    /// The window's bytes in a manifest; [`OpWindow::forgotten`] stands beside.
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(self.order.len() * STORED_BYTES);
        for id in &self.order {
            let (digest, receipt) = self.receipts[id];
            bytes.extend_from_slice(&id.0);
            for number in [digest, receipt.lsn.0, receipt.affected] {
                bytes.extend_from_slice(&number.to_le_bytes());
            }
        }
        bytes
    }

    /// The window of a manifest's bytes; `None` when they are cut off.
    pub fn decode(bytes: &[u8], forgotten: Lsn) -> Option<OpWindow> {
        let (entries, rest) = bytes.as_chunks::<STORED_BYTES>();
        let mut window = OpWindow { forgotten, ..OpWindow::default() };
        for entry in entries {
            let number = |at: usize| u64::from_le_bytes(entry[at..at + 8].try_into().expect("eight bytes"));
            let id = OpId(entry[..16].try_into().expect("sixteen bytes"));
            let receipt = Receipt { lsn: Lsn(number(24)), affected: number(32) };
            window.insert(OpKey { id, digest: number(16) }, receipt);
        }
        rest.is_empty().then_some(window)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(number: usize) -> OpId {
        OpId((number as u128).to_le_bytes())
    }

    #[test]
    fn the_oldest_is_forgotten_and_the_rest_survives_a_manifest() {
        let mut window = OpWindow::default();
        for number in 0..=REQUESTS_MAX {
            assert_eq!(window.forgotten(), Lsn::ZERO);
            let op = OpKey { id: id(number), digest: 7 };
            window.insert(op, Receipt { lsn: Lsn(number as u64 + 10), affected: 2 });
        }
        assert_eq!(window.get(id(0)), None);
        assert_eq!(window.get(id(1)), Some((7, Receipt { lsn: Lsn(11), affected: 2 })));
        assert_eq!(window.forgotten(), Lsn(10));
        assert_eq!(OpWindow::decode(&window.encode(), Lsn(10)), Some(window));
        assert_eq!(OpWindow::decode(&[0; STORED_BYTES + 1], Lsn::ZERO), None);
    }
}
