//! The bodies of answers.

use std::collections::BTreeMap;

use serde::{Serialize, Serializer};
use serde_json::Value;
use serde_json::value::RawValue;
use utoipa::ToSchema;

use crate::document::{Document, Metadata};
use crate::filter::index::FilterReport;
use crate::router::{self, Page, ShardStatistics, StoredDocument, TableStatistics, WriteReceipt};
use crate::search::{Hit, QueryResult, SearchResult, SegmentSearch, ShardExplanation};
use crate::table::{IndexKind, IndexOptions, Table, metric_as_str};

/// A table.
#[derive(Serialize, ToSchema)]
#[schema(as = Table)]
pub(super) struct TableBody {
    /// Unique name.
    table_name: String,
    /// Identity, never used again.
    table_id: String,
    /// Values of each vector.
    dimension: u32,
    /// `cosine`, `l2` or `dot`.
    metric: &'static str,
    /// `f32`, `f16` or `bf16`.
    storage_type: &'static str,
    /// Where each document's metadata says whose it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    tenant_key: Option<String>,
    /// Bytes of memory that a million documents take in one copy, about, beyond those of their ids and metadata.
    memory_bytes_per_million: u64,
    /// Where vectors are kept: `memory` or `disk`.
    rows: &'static str,
    /// `auto`, `flat`, `hnsw`, `ivf` or `faiss:<factory string>`.
    index_type: String,
    /// How graphs are built, as far as it was chosen.
    #[serde(skip_serializing_if = "Option::is_none")]
    index_options: Option<IndexOptionsBody>,
    /// Parts of the table.
    shards: u32,
    /// Copies of each shard.
    replicas: u32,
    /// In-sync copies that a write needs.
    min_isr: u32,
    /// Indexed fields of metadata and the type of each index.
    metadata_indexes: BTreeMap<String, String>,
    /// `creating`, `active` or `deleting`.
    state: &'static str,
}

impl From<&Table> for TableBody {
    fn from(table: &Table) -> TableBody {
        let schema = &table.schema;
        TableBody {
            table_name: schema.name.to_string(),
            table_id: table.id.to_string(),
            dimension: schema.dimension,
            metric: metric_as_str(schema.metric),
            storage_type: schema.storage_type.as_str(),
            memory_bytes_per_million: schema.memory_bytes(1_000_000),
            tenant_key: schema.tenant_key.as_ref().map(ToString::to_string),
            rows: schema.rows.as_str(),
            index_type: schema.index.to_string(),
            index_options: IndexOptionsBody::of(&schema.index),
            shards: schema.shards,
            replicas: schema.replicas,
            min_isr: schema.min_isr,
            metadata_indexes: schema.metadata_index_words().collect(),
            state: table.state.as_str(),
        }
    }
}

/// How graphs are built. What is absent is as usual.
#[derive(Serialize, ToSchema)]
#[schema(as = ChosenIndexOptions)]
struct IndexOptionsBody {
    #[serde(skip_serializing_if = "Option::is_none")]
    m: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ef_construction: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    code_bits: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    alpha: Option<f32>,
}

impl IndexOptionsBody {
    fn of(index: &IndexKind) -> Option<IndexOptionsBody> {
        let options = index.options().filter(|options| **options != IndexOptions::default())?;
        let IndexOptions { m, ef_construction, code_bits: _, alpha } = *options;
        Some(IndexOptionsBody { m, ef_construction, code_bits: options.bits(), alpha })
    }
}

/// All tables.
#[derive(Serialize, ToSchema)]
#[schema(as = Tables)]
pub(super) struct TablesBody {
    /// By name.
    pub(super) tables: Vec<TableBody>,
}

/// The answer of a write.
#[derive(Serialize, ToSchema)]
#[schema(as = WriteReceipt)]
pub(super) struct ReceiptBody {
    /// The documents that the request named.
    document_ids: Vec<String>,
    /// Documents written, or that existed and were deleted.
    count: u64,
    /// The fewest disks that any part of the write is on.
    durable_copies: u32,
    /// Give it to later reads to see this write.
    session_token: String,
}

impl ReceiptBody {
    pub(super) fn new(document_ids: Vec<String>, receipt: WriteReceipt) -> ReceiptBody {
        let WriteReceipt { count, durable_copies, session_token } = receipt;
        ReceiptBody { document_ids, count, durable_copies, session_token }
    }
}

/// A document.
#[derive(Serialize, ToSchema)]
#[schema(as = StoredDocument)]
pub(super) struct DocumentBody<'a> {
    /// Its id.
    document_id: &'a str,
    /// Its vector, as stored.
    #[serde(skip_serializing_if = "<[f32]>::is_empty")]
    vector: &'a [f32],
    /// Its metadata.
    #[serde(serialize_with = "raw")]
    #[schema(value_type = Object)]
    metadata: &'a Metadata,
}

/// A document with its version.
#[derive(Serialize, ToSchema)]
#[schema(as = VersionedDocument)]
pub(super) struct StoredBody<'a> {
    #[serde(flatten)]
    document: DocumentBody<'a>,
    /// Grows with each write of the document.
    version: u64,
    /// Give it to later reads to see nothing older.
    session_token: &'a str,
}

impl<'a> From<&'a Document> for DocumentBody<'a> {
    fn from(document: &'a Document) -> DocumentBody<'a> {
        let Document { id, vector, metadata } = document;
        DocumentBody { document_id: id.as_str(), vector, metadata }
    }
}

impl<'a> From<&'a StoredDocument> for StoredBody<'a> {
    fn from(stored: &'a StoredDocument) -> StoredBody<'a> {
        let StoredDocument { document, version, session_token } = stored;
        StoredBody { document: document.into(), version: *version, session_token }
    }
}

/// One page of documents.
#[derive(Serialize, ToSchema)]
#[schema(as = Page)]
pub(super) struct PageBody<'a> {
    /// By shard, then by id.
    documents: Vec<DocumentBody<'a>>,
    /// Continues after this page; missing on the last one.
    #[serde(skip_serializing_if = "Option::is_none")]
    next_cursor: Option<&'a str>,
    /// Give it to later reads to see nothing older.
    session_token: &'a str,
}

impl<'a> From<&'a Page> for PageBody<'a> {
    fn from(page: &'a Page) -> PageBody<'a> {
        let Page { documents, next_cursor, session_token } = page;
        let documents = documents.iter().map(DocumentBody::from).collect();
        PageBody { documents, next_cursor: next_cursor.as_deref(), session_token }
    }
}

/// The answer of a search.
#[derive(Serialize, ToSchema)]
#[schema(as = SearchResult)]
pub(super) struct SearchBody<'a> {
    /// Best first, ties by document id.
    hits: Vec<HitBody<'a>>,
    /// Shards that did not answer; only with `allow_partial`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    missing: Vec<MissingBody<'a>>,
    /// Give it to later reads to see nothing older.
    session_token: &'a str,
    /// How the shards that answered did it; only with `explain`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    explanation: Vec<ShardExplanationBody>,
}

/// The answer of a batch of searches.
#[derive(Serialize, ToSchema)]
#[schema(as = SearchBatchResult)]
pub(super) struct SearchBatchBody<'a> {
    /// One for each query, in order.
    results: Vec<QueryResultBody<'a>>,
    /// Shards that did not answer; only with `allow_partial`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    missing: Vec<MissingBody<'a>>,
    /// Give it to later reads to see nothing older.
    session_token: &'a str,
}

/// What one query of a batch found.
#[derive(Serialize, ToSchema)]
#[schema(as = QueryResult)]
struct QueryResultBody<'a> {
    /// Best first, ties by document id.
    hits: Vec<HitBody<'a>>,
    /// How the shards that answered did it; only with `explain`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    explanation: Vec<ShardExplanationBody>,
}

/// How a shard answered.
#[derive(Serialize, ToSchema)]
#[schema(as = ShardExplanation)]
struct ShardExplanationBody {
    shard: u32,
    segments: Vec<SegmentExplanationBody>,
}

/// How a segment was searched.
#[derive(Serialize, ToSchema)]
#[schema(as = SegmentExplanation)]
struct SegmentExplanationBody {
    /// Deleted ones too.
    rows: u64,
    /// What became of the filter, if there was one.
    #[serde(skip_serializing_if = "Option::is_none")]
    filter: Option<FilterExplanationBody>,
    /// How hits were looked for; missing: nothing was looked at.
    #[serde(skip_serializing_if = "Option::is_none")]
    search: Option<SegmentSearchBody>,
}

/// How hits were looked for in a segment.
#[derive(Serialize, ToSchema)]
#[schema(as = SegmentSearch)]
struct SegmentSearchBody {
    /// `scan`: every row, or every one that may pass the filter, was compared; the segment has no graph, or the search is exact;
    /// `walk`: through the graph; `filtered_walk`: through the graph, wider, keeping rows that pass; `two_hop_walk`: through the
    /// graph, from one row that passes to the next; `scan_codes`: the codes of all rows that pass were compared;
    /// `faiss`: the rows that an index of FAISS named were compared.
    plan: &'static str,
    /// Candidates of `walk` and `filtered_walk`.
    #[serde(skip_serializing_if = "Option::is_none")]
    width: Option<u32>,
    /// Vertices whose neighbours were looked at.
    hops: u64,
    /// Vertices that codes were compared with.
    vertices: u64,
    /// Rows compared exactly, or by a scan.
    rows: u64,
    /// Time of all threads.
    elapsed_us: u64,
}

impl From<&SegmentSearch> for SegmentSearchBody {
    fn from(search: &SegmentSearch) -> SegmentSearchBody {
        let SegmentSearch { plan, hops, vertices, rows, elapsed } = *search;
        let (width, plan, elapsed_us) = (plan.width(), plan.as_str(), elapsed.as_micros() as u64);
        SegmentSearchBody { plan, width, hops, vertices, rows, elapsed_us }
    }
}

/// How a filter was applied to a segment.
#[derive(Serialize, ToSchema)]
#[schema(as = FilterExplanation)]
struct FilterExplanationBody {
    /// Rows that pass, deleted ones too; an estimate unless `applied` is `index`.
    passing: u64,
    /// `index`: the metadata indexes know all of them; `index_and_metadata`: they leave some rows whose metadata is read;
    /// `metadata`: that of every row that matters is read.
    applied: &'static str,
    /// Keys of the filter that no index answers for, or not for what the filter asks of them; at most 16.
    unindexed_keys: Vec<String>,
    /// Time that it took to find this out.
    elapsed_us: u64,
}

impl From<&ShardExplanation> for ShardExplanationBody {
    fn from(shard: &ShardExplanation) -> ShardExplanationBody {
        let filter = |report: &FilterReport| FilterExplanationBody {
            passing: report.passing,
            applied: report.how.as_str(),
            unindexed_keys: report.unindexed.iter().map(ToString::to_string).collect(),
            elapsed_us: report.elapsed.as_micros() as u64,
        };
        let segments = shard.segments.iter().map(|segment| SegmentExplanationBody {
            rows: segment.rows,
            filter: segment.filter.as_ref().map(filter),
            search: segment.search.as_ref().map(SegmentSearchBody::from),
        });
        ShardExplanationBody { shard: shard.shard.0, segments: segments.collect() }
    }
}

/// One hit.
#[derive(Serialize, ToSchema)]
#[schema(as = Hit)]
pub(super) struct HitBody<'a> {
    /// The document.
    document_id: &'a str,
    /// Cosine and dot: higher is better; l2: distance, lower is better.
    score: f64,
    /// When asked for.
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "raw_option")]
    #[schema(value_type = Option<Object>)]
    metadata: Option<&'a Metadata>,
    /// When asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    vector: Option<&'a [f32]>,
    /// With `group_by`, when it is in a group: the value that its group has in common.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Value>)]
    group: Option<Value>,
}

/// A shard that did not answer.
#[derive(Serialize, ToSchema)]
#[schema(as = MissingShard)]
pub(super) struct MissingBody<'a> {
    /// Its number.
    shard: u32,
    /// The node of its primary.
    node_id: Option<&'a str>,
    /// Why.
    reason: &'a str,
}

impl<'a> SearchBody<'a> {
    /// The answer of a request with one query.
    pub(super) fn new(result: &'a SearchResult) -> SearchBody<'a> {
        let QueryResultBody { hits, explanation } = match result.queries.first() {
            Some(query) => QueryResultBody::from(query),
            None => QueryResultBody { hits: Vec::new(), explanation: Vec::new() },
        };
        SearchBody { hits, missing: missing(result), session_token: &result.session_token, explanation }
    }
}

impl<'a> From<&'a SearchResult> for SearchBatchBody<'a> {
    fn from(result: &'a SearchResult) -> SearchBatchBody<'a> {
        SearchBatchBody {
            results: result.queries.iter().map(QueryResultBody::from).collect(),
            missing: missing(result),
            session_token: &result.session_token,
        }
    }
}

impl<'a> From<&'a QueryResult> for QueryResultBody<'a> {
    fn from(result: &'a QueryResult) -> QueryResultBody<'a> {
        let hit = |hit: &'a Hit| HitBody {
            document_id: hit.id.as_str(),
            score: hit.score,
            metadata: hit.metadata.as_ref(),
            vector: hit.vector.as_deref(),
            group: hit.group.as_deref().and_then(|group| serde_json::from_str(group).ok()),
        };
        QueryResultBody {
            hits: result.hits.iter().map(hit).collect(),
            explanation: result.explanation.iter().map(ShardExplanationBody::from).collect(),
        }
    }
}

fn missing(result: &SearchResult) -> Vec<MissingBody<'_>> {
    let missing = result.missing.iter().map(|missing| MissingBody {
        shard: missing.shard.0,
        node_id: missing.node.as_ref().map(|node| node.as_str()),
        reason: &missing.reason,
    });
    missing.collect()
}

/// Counts and sizes of a table; what a shard that did not answer holds is not in the sums.
#[derive(Serialize, ToSchema)]
#[schema(as = TableStatistics)]
pub(super) struct TableStatisticsBody {
    table_name: String,
    #[serde(flatten)]
    totals: Totals,
    /// Mean recall of ten hits at the default effort, as measured when graphs were built; 1 for rows that are scanned. Absent
    /// without rows, and for indexes of FAISS.
    #[serde(skip_serializing_if = "Option::is_none")]
    recall_estimate: Option<f64>,
    /// Kind of index that the `indexed_rows` are in: `hnsw` under `auto`, else that of the table.
    index_type: String,
    shards: Vec<ShardStatisticsBody>,
}

/// Sums over shards.
#[derive(Serialize, ToSchema)]
pub(super) struct Totals {
    /// Live documents.
    documents: u64,
    /// Rows that wait for a merge.
    deleted_rows: u64,
    /// Bytes of vectors in memory.
    vector_bytes: u64,
    /// Bytes of indexes in memory.
    index_bytes: u64,
    /// Rows in segments with an index; searches scan the others.
    indexed_rows: u64,
    /// Bytes on disk.
    disk_bytes: u64,
    /// Shards that did not answer.
    unavailable_shards: u64,
}

/// Counts and sizes of a shard.
#[derive(Serialize, ToSchema)]
#[schema(as = ShardStatistics)]
struct ShardStatisticsBody {
    shard: u32,
    node_id: Option<String>,
    epoch: u64,
    available: bool,
    documents: u64,
    deleted_rows: u64,
    vector_bytes: u64,
    index_bytes: u64,
    indexed_rows: u64,
    disk_bytes: u64,
    segments: u32,
    last_lsn: u64,
}

impl TableStatisticsBody {
    pub(super) fn new(table: &Table, statistics: &TableStatistics) -> TableStatisticsBody {
        let mut totals = router::Totals::default();
        totals.add(statistics);
        let shards = statistics.shards.iter().map(shard).collect();
        let recall_estimate = totals.recall_estimate();
        let index_type = table.schema.index.of_segments().to_string();
        let table_name = table.schema.name.to_string();
        TableStatisticsBody { table_name, totals: totals.into(), recall_estimate, index_type, shards }
    }
}

impl From<router::Totals> for Totals {
    fn from(totals: router::Totals) -> Totals {
        let router::Totals {
            documents,
            deleted_rows,
            vector_bytes,
            index_bytes,
            indexed_rows,
            disk_bytes,
            unavailable_shards,
            ..
        } = totals;
        Totals {
            documents,
            deleted_rows,
            vector_bytes,
            index_bytes,
            indexed_rows,
            disk_bytes,
            unavailable_shards,
        }
    }
}

fn shard(statistics: &ShardStatistics) -> ShardStatisticsBody {
    let counts = statistics.counts.unwrap_or_default();
    ShardStatisticsBody {
        shard: statistics.shard.0,
        node_id: statistics.node.as_ref().map(ToString::to_string),
        epoch: statistics.epoch.0,
        available: statistics.counts.is_some(),
        documents: counts.documents,
        deleted_rows: counts.deleted_rows,
        vector_bytes: counts.vector_bytes,
        index_bytes: counts.index_bytes,
        indexed_rows: counts.indexed_rows,
        disk_bytes: counts.disk_bytes,
        segments: counts.segments,
        last_lsn: counts.last_lsn.0,
    }
}

/// Metadata is JSON text already: it goes out as it is.
fn raw<S: Serializer>(metadata: &&Metadata, serializer: S) -> Result<S::Ok, S::Error> {
    let raw: &RawValue = serde_json::from_str(metadata.as_json()).map_err(serde::ser::Error::custom)?;
    raw.serialize(serializer)
}

fn raw_option<S: Serializer>(metadata: &Option<&Metadata>, serializer: S) -> Result<S::Ok, S::Error> {
    match metadata {
        Some(metadata) => raw(metadata, serializer),
        None => serializer.serialize_none(),
    }
}
