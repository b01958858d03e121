//! A copy whose log is too old fetches a checkpoint of another one, file by file, and goes on behind it.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::timeout;
use tracing::info;
use vectorsphere_proto::internal::{FetchSnapshotRequest, ShardRef, SnapshotPart};

use super::step::Wanted;
use crate::comm::CommunicationService;
use crate::comm::convert::from_status;
use crate::error_code::Error;
use crate::ids::NodeId;
use crate::runtime::disk::Disk;
use crate::runtime::spawn_blocking;
use crate::storage::{SnapshotDescription, SnapshotWriter, StorageError};

/// A sender that is silent for so long is given up; what has arrived is kept for the next try.
const PART_LIMIT: Duration = Duration::from_secs(30);

/// Why a snapshot was not fetched.
#[derive(Debug, thiserror::Error)]
pub(super) enum FetchFailure {
    /// The other node did not answer, or refused.
    #[error("another copy could not be asked for a snapshot")]
    Asked(#[source] Error),
    /// It sent something else than was asked for.
    #[error("a snapshot is malformed: {0}")]
    Malformed(&'static str),
    /// It stopped sending.
    #[error("no part of the snapshot came for {} s", PART_LIMIT.as_secs())]
    Silent,
    /// This node's disk.
    #[error("a snapshot could not be written")]
    Storage(#[source] StorageError),
    /// A bug of ours.
    #[error("a storage thread panicked")]
    Panicked,
}

impl FetchFailure {
    /// This node could not write it. That another copy's checkpoint is too old for this one is not the disk's fault.
    pub(super) fn is_of_disk(&self) -> bool {
        matches!(self, FetchFailure::Storage(error) if !matches!(error, StorageError::Refused { .. }))
    }
}

/// Fetches the newest checkpoint of a shard from a node. When it returns, the copy's directory holds it.
pub(super) async fn fetch(
    comm: &CommunicationService,
    disk: Arc<dyn Disk>,
    wanted: &Wanted,
    from: &NodeId,
) -> Result<(), FetchFailure> {
    let mut client = comm.replication_client(from).map_err(FetchFailure::Asked)?;
    let shard = ShardRef {
        table_id: wanted.record.id.table.to_string(),
        shard: wanted.record.id.index.0,
        epoch: wanted.record.epoch.0,
    };
    let replica_id = Bytes::copy_from_slice(&wanted.entry.id.0);
    let mut request =
        FetchSnapshotRequest { shard: Some(shard), replica_id, ..FetchSnapshotRequest::default() };
    let interrupted = {
        let (place, identity) = (wanted.place(disk.clone()), wanted.identity());
        spawn_blocking(move || SnapshotWriter::interrupted(&place, &identity))
    };
    if let Some(begun) = interrupted.await.map_err(|_| FetchFailure::Panicked)? {
        let (file, offset) = begun.end();
        info!(shard = %wanted.record.id, %from, file, offset, "going on with a snapshot");
        request =
            FetchSnapshotRequest { snapshot: begun.description().encode().into(), file, offset, ..request };
    }
    let answer = client.fetch_snapshot(request).await;
    let mut parts = answer.map_err(|status| FetchFailure::Asked(from_status(&status)))?.into_inner();
    let mut writer: Option<SnapshotWriter> = None;
    let mut bytes = 0;
    loop {
        let part = timeout(PART_LIMIT, parts.message()).await.map_err(|_| FetchFailure::Silent)?;
        let Some(part) = part.map_err(|status| FetchFailure::Asked(from_status(&status)))? else { break };
        bytes += part.bytes.len();
        let (disk, wanted) = (disk.clone(), wanted.clone());
        let write = move || take_part(writer, part, disk, &wanted);
        writer = Some(spawn_blocking(write).await.map_err(|_| FetchFailure::Panicked)??);
    }
    let writer = writer.ok_or(FetchFailure::Malformed("it has no part"))?;
    let finished = spawn_blocking(move || writer.finish()).await.map_err(|_| FetchFailure::Panicked)?;
    let meta = finished.map_err(FetchFailure::Storage)?;
    info!(shard = %wanted.record.id, %from, bytes, lsn = %meta.checkpoint, "snapshot fetched");
    Ok(())
}

/// Writes one part; the first one says what all of them are.
fn take_part(
    writer: Option<SnapshotWriter>,
    part: SnapshotPart,
    disk: Arc<dyn Disk>,
    wanted: &Wanted,
) -> Result<SnapshotWriter, FetchFailure> {
    let mut writer = match writer {
        Some(writer) => writer,
        None => {
            let (place, identity) = (wanted.place(disk), wanted.identity());
            let description =
                SnapshotDescription::decode(&part.description).map_err(FetchFailure::Storage)?;
            SnapshotWriter::begin(&place, &identity, description).map_err(FetchFailure::Storage)?
        }
    };
    // What an earlier try has brought is there, in part perhaps.
    let there = writer.progress().get(part.file as usize).copied().unwrap_or_default();
    let known = there.saturating_sub(part.offset).min(part.bytes.len() as u64);
    if known < part.bytes.len() as u64 {
        let (offset, bytes) = (part.offset + known, &part.bytes[known as usize..]);
        writer.write(part.file, offset, bytes).map_err(FetchFailure::Storage)?;
    }
    Ok(writer)
}
