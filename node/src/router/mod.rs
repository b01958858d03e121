//! One write, one read, one search: routed to the shards that hold it and merged. Runs in every gateway.
//!
//! Knows shards and nodes, not formats: requests arrive parsed and validated against the table.

use std::sync::Arc;
use std::time::Instant;

use crate::document::{Document, Metadata};
use crate::error_code::{Error, ErrorCode};
use crate::ids::{DocumentId, Epoch, Lsn, NodeId, OpId, ShardIndex, TableName};
use crate::search::{ReadOptions, SearchRequest, SearchResult};
use crate::table::{Table, TableSchema};

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
}

/// One page of documents.
#[derive(Clone, Debug, PartialEq)]
pub struct Page {
    /// Documents, by shard, then by id.
    pub documents: Vec<Document>,
    /// Continues after this page; `None`: it was the last.
    pub next_cursor: Option<String>,
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
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TableStatistics {
    /// Every shard of the table, ascending.
    pub shards: Vec<ShardStatistics>,
}

/// Counts and sizes of a shard.
#[derive(Clone, Debug, PartialEq, Eq)]
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
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ShardCounts {
    /// Live documents.
    pub documents: u64,
    /// Rows that are deleted or replaced and wait for a merge.
    pub deleted_rows: u64,
    /// Bytes of vectors in memory.
    pub vector_bytes: u64,
    /// Bytes on disk: log and segments.
    pub disk_bytes: u64,
    /// Sealed segments.
    pub segments: u32,
    /// Last position in the log.
    pub last_lsn: Lsn,
}

/// Routes requests. Cheap to clone.
#[derive(Clone)]
pub struct Router {}

impl Router {
    /// The table of a name, when it is active.
    pub fn table(&self, name: &TableName) -> Result<Arc<Table>, Error> {
        Err(Error::new(ErrorCode::TableNotFound, format!("table {name} does not exist")))
    }

    /// Inserts or replaces documents, `1..=1_000`, of equal ids the last wins.
    pub async fn upsert(
        &self,
        _context: &RequestContext,
        table: &Table,
        _documents: Vec<Document>,
        _op: OpId,
    ) -> Result<WriteReceipt, Error> {
        Err(Error::new(ErrorCode::NotReady, format!("{} is not routed yet", table.id)))
    }

    /// Replaces the metadata of one document, which must exist.
    pub async fn update_metadata(
        &self,
        _context: &RequestContext,
        table: &Table,
        _id: DocumentId,
        _metadata: Metadata,
        _op: OpId,
    ) -> Result<WriteReceipt, Error> {
        Err(Error::new(ErrorCode::NotReady, format!("{} is not routed yet", table.id)))
    }

    /// Deletes documents; ids that do not exist are no error.
    pub async fn delete(
        &self,
        _context: &RequestContext,
        table: &Table,
        _ids: Vec<DocumentId>,
        _op: OpId,
    ) -> Result<WriteReceipt, Error> {
        Err(Error::new(ErrorCode::NotReady, format!("{} is not routed yet", table.id)))
    }

    /// One document.
    pub async fn get(
        &self,
        _context: &RequestContext,
        table: &Table,
        _id: &DocumentId,
        _with_vector: bool,
        _read: &ReadOptions,
    ) -> Result<Option<StoredDocument>, Error> {
        Err(Error::new(ErrorCode::NotReady, format!("{} is not routed yet", table.id)))
    }

    /// One page of documents.
    pub async fn list(
        &self,
        _context: &RequestContext,
        table: &Table,
        _page: PageRequest,
        _read: &ReadOptions,
    ) -> Result<Page, Error> {
        Err(Error::new(ErrorCode::NotReady, format!("{} is not routed yet", table.id)))
    }

    /// A search.
    pub async fn search(
        &self,
        _context: &RequestContext,
        table: &Table,
        _request: SearchRequest,
    ) -> Result<SearchResult, Error> {
        Err(Error::new(ErrorCode::NotReady, format!("{} is not routed yet", table.id)))
    }

    /// Counts and sizes.
    pub async fn statistics(
        &self,
        _context: &RequestContext,
        table: &Table,
    ) -> Result<TableStatistics, Error> {
        Err(Error::new(ErrorCode::NotReady, format!("{} is not routed yet", table.id)))
    }

    /// Creates a table through the Master and returns when its shards are ready.
    pub async fn create_table(&self, _context: &RequestContext, schema: TableSchema) -> Result<Table, Error> {
        Err(Error::new(ErrorCode::NoMaster, format!("{} needs a Master", schema.name)))
    }

    /// Deletes a table through the Master.
    pub async fn delete_table(&self, _context: &RequestContext, name: &TableName) -> Result<(), Error> {
        Err(Error::new(ErrorCode::NoMaster, format!("{name} needs a Master")))
    }
}
