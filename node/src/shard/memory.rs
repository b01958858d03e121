//! [`MemoryLedger`]: bytes of memory that the shards of this node hold, are about to hold, and may hold.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::error_code::{Error, ErrorCode};

/// The ledger of a node. Cheap to clone; clones see the same.
#[derive(Clone, Debug)]
pub struct MemoryLedger(Arc<Book>);

#[derive(Debug)]
struct Book {
    limit: u64,
    /// What shards held when they were last looked at.
    held: AtomicU64,
    /// What writes may have added since.
    written: AtomicU64,
    /// What indexes and segments will take that are being made.
    reserved: AtomicU64,
}

/// What a ledger says, bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NodeMemory {
    /// What shards may hold.
    pub limit: u64,
    /// Rows, metadata and indexes.
    pub held: u64,
    /// What was promised to indexes and segments that are being made.
    pub reserved: u64,
}

/// Bytes that somebody is about to hold; given back when dropped.
#[derive(Debug)]
pub(super) struct Reservation {
    book: Arc<Book>,
    bytes: u64,
}

/// It does not fit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{asked} bytes more do not fit: {} are held and {} reserved of {} that shards may hold", .memory.held, .memory.reserved, .memory.limit)]
pub(super) struct Shortage {
    asked: u64,
    memory: NodeMemory,
}

impl NodeMemory {
    /// What is left, bytes.
    pub fn free(&self) -> u64 {
        self.limit.saturating_sub(self.held).saturating_sub(self.reserved)
    }
}

impl MemoryLedger {
    /// Nothing is held of `limit` bytes.
    pub fn new(limit: u64) -> MemoryLedger {
        let (held, written, reserved) = Default::default();
        MemoryLedger(Arc::new(Book { limit, held, written, reserved }))
    }

    /// What it says now.
    pub fn memory(&self) -> NodeMemory {
        let book = &*self.0;
        let held = book.held.load(Ordering::Relaxed) + book.written.load(Ordering::Relaxed);
        NodeMemory { limit: book.limit, held, reserved: book.reserved.load(Ordering::Relaxed) }
    }

    /// What shards were seen to hold.
    pub(super) fn note_held(&self, bytes: u64) {
        self.0.held.store(bytes, Ordering::Relaxed);
        self.0.written.store(0, Ordering::Relaxed);
    }

    /// Lets a write add bytes.
    pub(super) fn admit_write(&self, bytes: u64) -> Result<(), Error> {
        self.check(bytes).map_err(|shortage| {
            let message = format!("{shortage}: only deletes are accepted");
            Error::new(ErrorCode::MemoryFull, message)
        })?;
        self.0.written.fetch_add(bytes, Ordering::Relaxed);
        Ok(())
    }

    /// Sets bytes aside if they are there.
    pub(super) fn try_reserve(&self, bytes: u64) -> Result<Reservation, Shortage> {
        self.check(bytes)?;
        Ok(self.reserve(bytes))
    }

    /// Sets bytes aside for what has to be done, be they there or not: writes wait for it.
    pub(super) fn reserve(&self, bytes: u64) -> Reservation {
        self.0.reserved.fetch_add(bytes, Ordering::Relaxed);
        Reservation { book: self.0.clone(), bytes }
    }

    fn check(&self, asked: u64) -> Result<(), Shortage> {
        let memory = self.memory();
        if asked <= memory.free() { Ok(()) } else { Err(Shortage { asked, memory }) }
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.book.reserved.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_fit_is_refused_with_the_arithmetic() {
        let ledger = MemoryLedger::new(100);
        ledger.note_held(40);
        ledger.admit_write(10).expect("fits");
        let building = ledger.try_reserve(30).expect("fits");
        assert_eq!(ledger.memory(), NodeMemory { limit: 100, held: 50, reserved: 30 });
        let refused = ledger.admit_write(21).expect_err("does not fit");
        assert_eq!(refused.code, ErrorCode::MemoryFull);
        let words = "21 bytes more do not fit: 50 are held and 30 reserved of 100 that shards may hold";
        assert!(refused.message.starts_with(words), "{}", refused.message);
        assert!(ledger.try_reserve(21).is_err());
        // A segment must be written all the same.
        let merging = ledger.reserve(60);
        assert_eq!(ledger.memory().free(), 0);
        assert!(ledger.admit_write(1).is_err());
        drop((building, merging));
        ledger.admit_write(50).expect("there is room again");
        ledger.note_held(20);
        assert_eq!(ledger.memory().free(), 80, "what was written is counted once");
    }
}
