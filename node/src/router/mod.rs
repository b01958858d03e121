//! One write, one read, one search: routed to the shards that hold it and merged. Runs in every gateway.
//!
//! Knows shards and nodes, not formats: requests arrive parsed and validated against the table.

mod admin;
mod attempts;
mod known;
mod master;
pub mod merge;
mod metrics;
mod read;
pub mod readers;
mod replica_read;
mod scatter;
mod search;
pub mod session_token;
mod shards;
mod tables;
mod traffic;
mod write;

use std::sync::Arc;
use std::time::Instant;

use tokio::sync::watch;

use crate::cluster::view::{ClusterView, Node};
use crate::comm::CommunicationService;
use crate::document::Document;
use crate::error_code::{Error, ErrorCode};
use crate::ids::{Epoch, Lsn, NodeId, ShardIndex, TableName};
use crate::table::{Table, TableState};

pub use metrics::RouterMetrics;
pub use shards::{CopyDescription, CopyStatus, ShardDescription};
pub use write::Upsert;

use known::KnownPositions;
use traffic::Traffic;

/// What accompanies every request.
#[derive(Clone, Debug)]
pub struct RequestContext {
    /// No work for the request happens after it.
    pub deadline: Instant,
    /// Echoed in answers and logs.
    pub request_id: String,
}

/// The answer of a write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WriteReceipt {
    /// Documents written, or that existed and were deleted.
    pub count: u64,
    /// The fewest disks that any part of the write is on.
    pub durable_copies: u32,
    /// Makes later reads see this write.
    pub session_token: String,
}

/// A document with its version.
#[derive(Clone, Debug, PartialEq)]
pub struct StoredDocument {
    /// The document; its vector is empty when it was not asked for.
    pub document: Document,
    /// Grows with each write of the document.
    pub version: u64,
    /// Makes later reads see nothing older.
    pub session_token: String,
}

/// One page of documents.
#[derive(Clone, Debug, PartialEq)]
pub struct Page {
    /// Documents, by shard, then by id.
    pub documents: Vec<Document>,
    /// Continues after this page; `None`: it was the last.
    pub next_cursor: Option<String>,
    /// Makes later reads see nothing older.
    pub session_token: String,
}

/// Which page of documents.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PageRequest {
    /// Most documents, `1..=1_000`.
    pub limit: u32,
    /// `next_cursor` of the page before.
    pub cursor: Option<String>,
    /// Return vectors.
    pub with_vector: bool,
}

/// Counts and sizes of a table at the time of the call.
#[derive(Clone, Debug, PartialEq)]
pub struct TableStatistics {
    /// Every shard of the table, ascending.
    pub shards: Vec<ShardStatistics>,
}

/// Counts and sizes of a shard.
#[derive(Clone, Debug, PartialEq)]
pub struct ShardStatistics {
    /// Its number.
    pub shard: ShardIndex,
    /// Node of its primary.
    pub node: Option<NodeId>,
    /// Its reign.
    pub epoch: Epoch,
    /// `None`: the shard did not answer.
    pub counts: Option<ShardCounts>,
}

/// What a shard counts.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct ShardCounts {
    /// Live documents.
    pub documents: u64,
    /// Rows that are deleted or replaced and wait for a merge.
    pub deleted_rows: u64,
    /// Bytes of vectors in memory.
    pub vector_bytes: u64,
    /// Bytes of indexes in memory.
    pub index_bytes: u64,
    /// Rows in segments with an index; searches scan the others.
    pub indexed_rows: u64,
    /// Mean recall of ten hits at the default effort, over rows; `None`: not known.
    pub recall_estimate: Option<f64>,
    /// Bytes on disk: log and segments.
    pub disk_bytes: u64,
    /// Sealed segments.
    pub segments: u32,
    /// Last position in the log.
    pub last_lsn: Lsn,
}

/// Sums over shards. A shard that did not answer is counted as such and adds nothing else.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Totals {
    /// Live documents.
    pub documents: u64,
    /// Rows that are deleted or replaced and wait for a merge.
    pub deleted_rows: u64,
    /// Bytes of vectors in memory.
    pub vector_bytes: u64,
    /// Bytes of indexes in memory.
    pub index_bytes: u64,
    /// Rows in segments with an index; searches scan the others.
    pub indexed_rows: u64,
    /// Rows, each with the recall of its shard, and whether that of a shard is not known.
    found_rows: f64,
    is_recall_unknown: bool,
    /// Bytes on disk: logs and segments.
    pub disk_bytes: u64,
    /// Shards.
    pub shards: u64,
    /// Shards that did not answer.
    pub unavailable_shards: u64,
}

impl Totals {
    /// Adds the shards of one table.
    pub fn add(&mut self, table: &TableStatistics) {
        for shard in &table.shards {
            self.shards += 1;
            let Some(counts) = &shard.counts else {
                self.unavailable_shards += 1;
                continue;
            };
            self.documents += counts.documents;
            self.deleted_rows += counts.deleted_rows;
            self.vector_bytes += counts.vector_bytes;
            self.index_bytes += counts.index_bytes;
            self.indexed_rows += counts.indexed_rows;
            let rows = (counts.documents + counts.deleted_rows) as f64;
            match counts.recall_estimate {
                Some(recall) => self.found_rows += recall * rows,
                None => self.is_recall_unknown = true,
            }
            self.disk_bytes += counts.disk_bytes;
        }
    }

    /// Mean recall of ten hits at the default effort; `None` without rows, and where it is not known.
    pub fn recall_estimate(&self) -> Option<f64> {
        let rows = self.documents + self.deleted_rows;
        (rows > 0 && !self.is_recall_unknown).then(|| self.found_rows / rows as f64)
    }
}

/// Routes requests. Cheap to clone: clones count their calls together.
///
/// The methods are in the files named after what they do: `write`, `read`, `search`, `tables`, `shards`, `admin`. All of them are
/// cancel-safe: a dropped read leaves nothing behind, a dropped write may or may not have happened.
#[derive(Clone)]
pub struct Router {
    view: watch::Receiver<Arc<ClusterView>>,
    comm: Arc<CommunicationService>,
    /// This gateway's node.
    node: NodeId,
    traffic: Arc<Traffic>,
    known: Arc<KnownPositions>,
    metrics: RouterMetrics,
}

impl Router {
    /// A router by the view of the cluster that `node`, which is this one, has.
    pub fn new(
        view: watch::Receiver<Arc<ClusterView>>,
        comm: Arc<CommunicationService>,
        node: NodeId,
        metrics: RouterMetrics,
    ) -> Router {
        Router { view, comm, node, traffic: Arc::default(), known: Arc::default(), metrics }
    }

    /// The cluster as this node sees it at the moment.
    pub fn view(&self) -> Arc<ClusterView> {
        self.view.borrow().clone()
    }

    /// True when this node's probes of `node` are not answered.
    pub fn is_suspect(&self, node: &Node) -> bool {
        self.comm.is_suspect(node)
    }

    /// The table of a name, unless it is being deleted.
    pub fn table(&self, name: &TableName) -> Result<Arc<Table>, Error> {
        match self.view().tables.get(name) {
            Some(table) if table.state != TableState::Deleting => Ok(table.clone()),
            _ => Err(Error::new(ErrorCode::TableNotFound, format!("table {name} does not exist"))),
        }
    }
}

#[cfg(test)]
mod tests;
