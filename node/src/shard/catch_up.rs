//! Records that are not in memory any more, read from the log's files for copies that are behind.

use std::collections::HashMap;
use std::sync::Arc;

use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use super::pace::Pace;
use crate::ids::{Lsn, ReplicaId};
use crate::replication::Append;
use crate::runtime::spawn_blocking;
use crate::storage::{LogRead, LogReader, StorageError};

/// Bytes that are read at once.
const READ_BYTES: usize = 1 << 20;

/// Reads under way, one for each copy at most.
pub(super) struct CatchUp {
    reader: LogReader,
    /// Readers by copy: going on where the last read ended is cheap.
    readers: HashMap<ReplicaId, LogReader>,
    reading: JoinSet<ReadDone>,
    /// Bounds the bytes that a node reads for this at the same time.
    permits: Arc<Semaphore>,
    pace: Pace,
}

/// What was read for a copy.
pub(super) struct ReadDone {
    pub(super) to: ReplicaId,
    /// The message that the records belong to.
    pub(super) append: Append,
    pub(super) outcome: Result<LogRead, StorageError>,
    reader: Option<LogReader>,
}

impl CatchUp {
    pub(super) fn new(reader: LogReader, permits: Arc<Semaphore>, pace: Pace) -> CatchUp {
        CatchUp { reader, readers: HashMap::new(), reading: JoinSet::new(), permits, pace }
    }

    /// Begins to read the records of a message.
    pub(super) fn read(&mut self, to: ReplicaId, append: Append) {
        let mut reader = self.readers.remove(&to).unwrap_or_else(|| self.reader.clone());
        let (permits, pace) = (self.permits.clone(), self.pace.clone());
        self.reading.spawn(async move {
            let permit = permits.acquire_owned().await.expect("never closed");
            pace.take(READ_BYTES).await;
            let first = append.prev.lsn.next();
            let read = spawn_blocking(move || {
                let outcome = reader.read(first, READ_BYTES);
                (reader, outcome)
            });
            let (reader, outcome) = match read.await {
                Ok((reader, outcome)) => (Some(reader), outcome),
                Err(_) => (None, Err(StorageError::Poisoned { end: Lsn::ZERO })),
            };
            drop(permit);
            ReadDone { to, append, outcome, reader }
        });
    }

    /// The next read that has ended; `None` when none is under way. Cancel-safe.
    pub(super) async fn next(&mut self) -> Option<ReadDone> {
        let mut done = self.reading.join_next().await?.ok()?;
        if let Some(reader) = done.reader.take() {
            self.readers.insert(done.to, reader);
        }
        Some(done)
    }
}
