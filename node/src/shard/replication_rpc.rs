//! `vectorsphere.internal.v1.ReplicationService`: what replicas on other nodes and the Master ask of the replicas here.

use std::sync::Arc;

use bytes::Bytes;
use futures::stream::BoxStream;
use futures::{StreamExt as _, stream};
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, Streaming};
use tracing::debug;
use vectorsphere_proto::internal::replication_service_server::ReplicationService;
use vectorsphere_proto::internal::{self as proto};

use super::index_service::IndexService;
use super::owner::chain;
use super::pace::Pace;
use super::parse;
use super::wire::letter_from_proto;
use crate::comm::convert::to_status;
use crate::error_code::{Error, ErrorCode};
use crate::ids::ReplicaId;
use crate::runtime::spawn_blocking;
use crate::storage::{PinnedCheckpoint, StorageError};

/// Bytes of a file in one part of a snapshot.
const PART_BYTES: usize = 1 << 20;

/// The replicas of this node, for other nodes.
pub struct ReplicationRpc {
    service: Arc<IndexService>,
    /// Streams of other nodes never end by themselves.
    cancel: CancellationToken,
}

impl ReplicationRpc {
    /// Serves until `cancel`.
    pub fn new(service: Arc<IndexService>, cancel: CancellationToken) -> ReplicationRpc {
        ReplicationRpc { service, cancel }
    }
}

#[tonic::async_trait]
impl ReplicationService for ReplicationRpc {
    async fn replicate(
        &self,
        request: Request<Streaming<proto::ReplicationFrame>>,
    ) -> Result<Response<proto::ReplicateResponse>, Status> {
        let mut frames = request.into_inner();
        while let Some(frame) = self.cancel.run_until_cancelled(frames.message()).await.transpose()?.flatten()
        {
            for message in frame.messages {
                match letter_from_proto(message) {
                    Ok((shard, letter)) => self.service.deliver(shard, letter),
                    // Of a newer version, or damaged on its way: as if it were lost.
                    Err(error) => debug!(%error, "a replication message was not understood"),
                }
            }
        }
        Ok(Response::new(proto::ReplicateResponse {}))
    }

    type FetchSnapshotStream = BoxStream<'static, Result<proto::SnapshotPart, Status>>;

    async fn fetch_snapshot(
        &self,
        request: Request<proto::FetchSnapshotRequest>,
    ) -> Result<Response<Self::FetchSnapshotStream>, Status> {
        let request = request.into_inner();
        let (shard, _) = parse::shard(request.shard.as_ref()).map_err(|error| to_status(&error))?;
        let replica = self.service.replica(shard).map_err(|error| to_status(&error))?;
        let permit = self.service.snapshot_permit().await;
        let pinned = replica.pin().await.map_err(|error| to_status(&error))?.ok_or_else(|| {
            let message =
                format!("shard {} has no checkpoint: its log reaches back to the beginning", shard.index);
            to_status(&Error::new(ErrorCode::ShardUnavailable, message))
        })?;
        let sending = Sending {
            pinned: Arc::new(pinned),
            begun: request.snapshot,
            sizes: None,
            file: request.file,
            offset: request.offset,
            pace: self.service.pace.clone(),
            _permit: permit,
        };
        Ok(Response::new(stream::try_unfold(sending, Sending::next).boxed()))
    }

    async fn describe(
        &self,
        request: Request<proto::DescribeRequest>,
    ) -> Result<Response<proto::DescribeResponse>, Status> {
        let wanted = request.into_inner().shards;
        let shards = wanted.iter().map(|shard| parse::shard(Some(shard)).map(|(shard, _)| shard));
        let shards: Vec<_> = shards.collect::<Result<_, _>>().map_err(|error| to_status(&error))?;
        let mut replicas = Vec::new();
        for replica in self.service.open_replicas() {
            if !shards.is_empty() && !shards.contains(&replica.shard()) {
                continue;
            }
            // One that ends at the moment is as if it were not open.
            replicas.extend(replica.describe().await.ok());
        }
        let closed = shards.iter().filter_map(|shard| self.service.closed_copy(*shard));
        replicas.extend(closed.map(Arc::unwrap_or_clone));
        Ok(Response::new(proto::DescribeResponse { replicas, is_full: self.service.is_full() }))
    }

    async fn hand_over(
        &self,
        request: Request<proto::HandOverRequest>,
    ) -> Result<Response<proto::HandOverResponse>, Status> {
        let request = request.into_inner();
        let handed = async {
            let (shard, _) = parse::shard(request.shard.as_ref())?;
            let to = match request.to.is_empty() {
                true => None,
                false => Some(
                    ReplicaId::from_bytes(&request.to)
                        .ok_or_else(|| Error::invalid("/to", "to must have 16 bytes"))?,
                ),
            };
            self.service.replica(shard)?.hand_over(to).await
        };
        let epoch = handed.await.map_err(|error| to_status(&error))?;
        Ok(Response::new(proto::HandOverResponse { epoch: epoch.0 }))
    }
}

/// A checkpoint on its way. Nothing is locked while bytes travel.
struct Sending {
    pinned: Arc<PinnedCheckpoint>,
    /// The description of what the other side has begun to take, up to this file and offset; empty: of nothing.
    begun: Bytes,
    /// Sizes of its files; `None` before the first part.
    sizes: Option<Arc<[u64]>>,
    file: u32,
    offset: u64,
    pace: Pace,
    /// Snapshots that a node sends at the same time are few.
    _permit: tokio::sync::OwnedSemaphorePermit,
}

impl Sending {
    /// The next part; `None` at the end. The first one describes the snapshot and carries no bytes.
    async fn next(mut self) -> Result<Option<(proto::SnapshotPart, Sending)>, Status> {
        let Some(sizes) = self.sizes.clone() else { return self.describe().await.map(Some) };
        while sizes.get(self.file as usize).is_some_and(|size| self.offset >= *size) {
            (self.file, self.offset) = (self.file + 1, 0);
        }
        if self.file as usize >= sizes.len() {
            return Ok(None);
        }
        let left = sizes[self.file as usize] - self.offset;
        self.pace.take(left.min(PART_BYTES as u64) as usize).await;
        let (pinned, file, offset) = (self.pinned.clone(), self.file, self.offset);
        let bytes = blocking(move || pinned.read(file, offset, PART_BYTES)).await?;
        self.offset += bytes.len() as u64;
        let part = proto::SnapshotPart { description: Bytes::new(), file, offset, bytes };
        Ok(Some((part, self)))
    }

    async fn describe(mut self) -> Result<(proto::SnapshotPart, Sending), Status> {
        let pinned = self.pinned.clone();
        let (description, sizes) = blocking(move || {
            let description = pinned.description()?;
            let sizes: Arc<[u64]> = description.files.iter().map(|file| file.bytes).collect();
            Ok((Bytes::from(description.encode()), sizes))
        })
        .await?;
        self.sizes = Some(sizes);
        if self.begun != description {
            (self.file, self.offset) = (0, 0);
        }
        Ok((proto::SnapshotPart { description, ..proto::SnapshotPart::default() }, self))
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, StorageError> + Send + 'static,
) -> Result<T, Status> {
    let done = spawn_blocking(work).await.map_err(|_| Status::internal("a snapshot's reader panicked"))?;
    done.map_err(|error| Status::unavailable(chain(&error)))
}
