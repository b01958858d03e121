//! `vectorsphere.internal.v1.ReplicationService`: what replicas on other nodes and the Master ask of the replicas here.

use std::sync::Arc;

use bytes::Bytes;
use futures::stream::BoxStream;
use futures::{StreamExt as _, stream};
use tokio::task::spawn_blocking;
use tonic::{Request, Response, Status, Streaming};
use tracing::debug;
use vectorsphere_proto::internal::replication_service_server::ReplicationService;
use vectorsphere_proto::internal::{self as proto};

use super::index_service::IndexService;
use super::owner::chain;
use super::parse;
use super::wire::Letter;
use crate::comm::convert::to_status;
use crate::error_code::{Error, ErrorCode};
use crate::ids::ReplicaId;
use crate::storage::PinnedCheckpoint;

/// Bytes of a file in one part of a snapshot.
const PART_BYTES: u64 = 1 << 20;

/// The replicas of this node, for other nodes.
pub struct ReplicationRpc(pub Arc<IndexService>);

#[tonic::async_trait]
impl ReplicationService for ReplicationRpc {
    async fn replicate(
        &self,
        request: Request<Streaming<proto::ReplicationFrame>>,
    ) -> Result<Response<proto::ReplicateResponse>, Status> {
        let mut frames = request.into_inner();
        while let Some(frame) = frames.message().await? {
            for message in frame.messages {
                match Letter::from_proto(message) {
                    Ok(letter) => self.0.deliver(letter),
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
        let (shard, _) = parse::shard(request.into_inner().shard.as_ref()).map_err(|error| to_status(&error))?;
        let replica = self.0.replica(shard).map_err(|error| to_status(&error))?;
        let permit = self.0.snapshot_permit().await;
        let pinned = replica.pin().await.map_err(|error| to_status(&error))?.ok_or_else(|| {
            let message = format!("shard {} has no checkpoint: its log reaches back to the beginning", shard.index);
            to_status(&Error::new(ErrorCode::ShardUnavailable, message))
        })?;
        let sending = Sending { pinned: Arc::new(pinned), file: 0, offset: 0, is_first: true, _permit: permit };
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
        for replica in self.0.open_replicas() {
            if !shards.is_empty() && !shards.contains(&replica.shard()) {
                continue;
            }
            // One that ends at the moment is as if it were not open.
            replicas.extend(replica.describe().await.ok());
        }
        Ok(Response::new(proto::DescribeResponse { replicas }))
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
                false => Some(ReplicaId::from_bytes(&request.to).ok_or_else(|| {
                    Error::invalid("/to", "to must have 16 bytes")
                })?),
            };
            self.0.replica(shard)?.hand_over(to).await
        };
        let epoch = handed.await.map_err(|error| to_status(&error))?;
        Ok(Response::new(proto::HandOverResponse { epoch: epoch.0 }))
    }
}

/// A checkpoint on its way. Nothing is locked while bytes travel.
struct Sending {
    pinned: Arc<PinnedCheckpoint>,
    file: usize,
    offset: u64,
    is_first: bool,
    /// Snapshots that a node sends at the same time are few.
    _permit: tokio::sync::OwnedSemaphorePermit,
}

impl Sending {
    /// The next part; `None` at the end.
    async fn next(mut self) -> Result<Option<(proto::SnapshotPart, Sending)>, Status> {
        let sizes = self.pinned.file_sizes();
        while self.file < sizes.len() && self.offset >= sizes[self.file] {
            (self.file, self.offset) = (self.file + 1, 0);
        }
        if self.file >= sizes.len() && !self.is_first {
            return Ok(None);
        }
        let (pinned, file, offset, is_first) = (self.pinned.clone(), self.file, self.offset, self.is_first);
        let read = move || {
            let description = if is_first { pinned.description()? } else { Bytes::new() };
            let bytes = match sizes.get(file) {
                Some(size) => pinned.read(file, offset, PART_BYTES.min(size - offset))?,
                None => Bytes::new(),
            };
            Ok::<_, crate::storage::StorageError>((description, bytes))
        };
        let read = spawn_blocking(read).await.map_err(|_| Status::internal("a snapshot's reader panicked"))?;
        let (description, bytes) = read.map_err(|error| Status::unavailable(chain(&error)))?;
        let part = proto::SnapshotPart { description, file: file as u32, offset, bytes: bytes.clone() };
        (self.offset, self.is_first) = (offset + bytes.len() as u64, false);
        Ok(Some((part, self)))
    }
}
