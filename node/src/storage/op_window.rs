//! The operations that a shard remembers, so that a request sent twice is done once.
//!
//! The window is by count, follows from the log alone, and is part of each manifest.

use std::collections::{HashMap, VecDeque};

use crate::ids::{Lsn, OpId};

/// Operations that are remembered. A gateway retries for seconds; a shard does a few thousand batches in that time.
const OPERATIONS_MAX: usize = 10_000;

/// Bytes of one operation in a manifest.
const STORED_BYTES: usize = 32;

/// What became of an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Receipt {
    /// Position of its last record.
    pub lsn: Lsn,
    /// Documents written, or that existed and were deleted.
    pub affected: u64,
}

/// The last [`OPERATIONS_MAX`] operations.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OpWindow {
    receipts: HashMap<OpId, Receipt>,
    order: VecDeque<OpId>,
}

impl OpWindow {
    /// What became of an operation, if it is remembered.
    pub fn get(&self, op_id: &OpId) -> Option<Receipt> {
        self.receipts.get(op_id).copied()
    }

    /// Remembers an operation and forgets the oldest one when there are too many.
    pub fn insert(&mut self, op_id: OpId, receipt: Receipt) {
        if self.receipts.insert(op_id, receipt).is_none() {
            self.order.push_back(op_id);
        }
        if self.order.len() > OPERATIONS_MAX
            && let Some(oldest) = self.order.pop_front()
        {
            self.receipts.remove(&oldest);
        }
    }

    /// The window's bytes in a manifest.
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(self.order.len() * STORED_BYTES);
        for op_id in &self.order {
            let receipt = self.receipts[op_id];
            bytes.extend_from_slice(&op_id.0);
            bytes.extend_from_slice(&receipt.lsn.0.to_le_bytes());
            bytes.extend_from_slice(&receipt.affected.to_le_bytes());
        }
        bytes
    }

    /// The window of a manifest's bytes; `None` when they are cut off.
    pub fn decode(bytes: &[u8]) -> Option<OpWindow> {
        let (entries, rest) = bytes.as_chunks::<STORED_BYTES>();
        let mut window = OpWindow::default();
        for entry in entries {
            let number = |at: usize| u64::from_le_bytes(entry[at..at + 8].try_into().expect("eight bytes"));
            let op_id = OpId(entry[..16].try_into().expect("sixteen bytes"));
            window.insert(op_id, Receipt { lsn: Lsn(number(16)), affected: number(24) });
        }
        rest.is_empty().then_some(window)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn op(number: usize) -> OpId {
        OpId((number as u128).to_le_bytes())
    }

    #[test]
    fn the_oldest_is_forgotten_and_the_rest_survives_a_manifest() {
        let mut window = OpWindow::default();
        for number in 0..=OPERATIONS_MAX {
            window.insert(op(number), Receipt { lsn: Lsn(number as u64), affected: 2 });
        }
        assert_eq!(window.get(&op(0)), None);
        assert_eq!(window.get(&op(1)), Some(Receipt { lsn: Lsn(1), affected: 2 }));
        assert_eq!(OpWindow::decode(&window.encode()), Some(window));
        assert_eq!(OpWindow::decode(&[0; STORED_BYTES + 1]), None);
    }
}
