//! [`WriteRoom`]: bytes of writes that this node holds in memory until they are on its disk.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::error_code::{Error, ErrorCode};

/// Bytes of requests. Parsed and encoded for the log they take about three times as much.
const ROOM_BYTES: usize = 128 << 20;
/// Room is counted in units of this many bytes.
const UNIT_BYTES: usize = 1 << 10;
/// When a caller should try again.
const PAUSE: Duration = Duration::from_millis(100);

/// Room for the writes of all shards of a node. Clones share it.
#[derive(Clone, Debug)]
pub(super) struct WriteRoom(Arc<Semaphore>);

/// Room that a write has taken, until it is dropped.
#[derive(Debug)]
pub(super) struct TakenRoom(#[expect(dead_code, reason = "it is there to be dropped")] OwnedSemaphorePermit);

impl Default for WriteRoom {
    fn default() -> WriteRoom {
        WriteRoom(Arc::new(Semaphore::new(ROOM_BYTES / UNIT_BYTES)))
    }
}

impl WriteRoom {
    /// Takes room for a request.
    ///
    /// # Errors
    /// [`ErrorCode::Overloaded`] when the writes that wait leave too little.
    pub(super) fn take(&self, bytes: usize) -> Result<TakenRoom, Error> {
        // No request takes more than all of it, so that each has its turn when the others are done.
        let units = bytes.div_ceil(UNIT_BYTES).clamp(1, ROOM_BYTES / UNIT_BYTES) as u32;
        self.0.clone().try_acquire_many_owned(units).map(TakenRoom).map_err(|_| {
            let message = format!("this node holds {ROOM_BYTES} bytes of writes that wait for its disk");
            Error::new(ErrorCode::Overloaded, message).retry_after(PAUSE)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn writes_beyond_the_room_are_refused_until_others_are_done() {
        let room = WriteRoom::default();
        let first = room.take(ROOM_BYTES - UNIT_BYTES).expect("empty");
        let second = room.take(0).expect("the last unit");
        let refused = room.take(1).expect_err("full");
        assert!(refused.code == ErrorCode::Overloaded && refused.retry_after.is_some());
        drop(second);
        assert!(room.take(UNIT_BYTES + 1).is_err() && room.take(UNIT_BYTES).is_ok());
        drop(first);
        assert!(room.take(ROOM_BYTES * 2).is_ok(), "a huge one has its turn, alone");
    }
}
