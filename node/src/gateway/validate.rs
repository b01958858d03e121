//! From drafts, as REST and gRPC parse them, to domain values: one set of rules for both.
//!
//! A draft says what the caller wrote; a domain value is proof that the rules of `docs/reference/limits.md` hold.
//! Checked before anything is written, all broken rules at once.

mod index_kind;
mod indexed_fields;
mod search;
mod tenant;

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::time::Duration;

use serde_json::{Map, Value};

pub(super) use index_kind::{CodeBits, IndexOptionsDraft};
pub(super) use indexed_fields::{IndexedFieldsDraft, metadata_index};
pub(super) use search::{
    GroupByDraft, MetadataDraft, SearchDraft, SearchRequestDraft, search, search_batch, too_many_queries,
};

use super::limits::{
    ANSWER_BYTES_MAX, MAGNITUDE_MAX, METADATA_BYTES_MAX, PAGE_DOCUMENTS_DEFAULT, PAGE_DOCUMENTS_MAX,
};
use super::violations::{Place, Violations, quoted};
use crate::document::{Document, Metadata};
use crate::error_code::{Error, ErrorCode};
use crate::ids::{DocumentId, OpId, TableName};
use crate::router::{PageRequest, Upsert, session_token};
use crate::search::{Consistency, ReadOptions};
use crate::table::{
    DIMENSION_MAX, Metric, REPLICAS_MAX, RowStorage, SHARDS_MAX, StorageType, TableSchema, parse_metric,
};

use index_kind::index_kind;
use indexed_fields::indexed_fields;

/// A table as the caller describes it; `None` and empty mean the default.
#[derive(Clone, Debug, Default)]
pub(super) struct TableDraft {
    pub(super) table_name: String,
    pub(super) dimension: Option<u64>,
    pub(super) metric: String,
    pub(super) storage_type: String,
    pub(super) tenant_key: String,
    pub(super) expected_documents: Option<u64>,
    pub(super) rows: String,
    pub(super) index_type: String,
    pub(super) shards: Option<u64>,
    pub(super) replicas: Option<u64>,
    pub(super) min_isr: Option<u64>,
    pub(super) metadata_indexes: IndexedFieldsDraft,
    pub(super) index_options: IndexOptionsDraft,
}

/// A vector as the caller wrote it.
#[derive(Clone, Debug)]
pub(super) enum VectorDraft {
    /// Values; `given` counts those that were not kept because they are beyond the table's dimension.
    Values { kept: Vec<f32>, given: usize },
    /// Text or bytes that hold no vector, and why.
    Broken(String),
}

/// A document as the caller wrote it.
#[derive(Clone, Debug, Default)]
pub(super) struct DocumentDraft {
    pub(super) id: Option<String>,
    pub(super) vector: Option<VectorDraft>,
    /// Parsed metadata, or what is wrong with it.
    pub(super) metadata: Option<Result<Metadata, String>>,
    pub(super) if_version: Option<u64>,
}

/// What a read must reflect, as the caller wrote it.
#[derive(Clone, Debug, Default)]
pub(super) struct ReadDraft {
    pub(super) consistency: String,
    pub(super) max_staleness_ms: Option<u64>,
    pub(super) session_token: String,
}

/// A page of a listing, as the caller asks for it; `None` and empty mean the default.
#[derive(Clone, Debug, Default)]
pub(super) struct PageDraft {
    pub(super) limit: Option<u64>,
    pub(super) cursor: String,
    pub(super) with_vector: bool,
}

/// What a new table gets where its draft is silent.
#[derive(Clone, Copy, Debug)]
pub(super) struct TableDefaults {
    pub(super) shards: u32,
    pub(super) replicas: u32,
}

/// Consistency levels that a read may name.
const CONSISTENCY_LEVELS: [&str; 5] = ["strong", "strong-noclock", "session", "bounded", "eventual"];
/// Oldest data that a bounded read may ask for, milliseconds.
const STALENESS_MS_MAX: u32 = 600_000;

/// Documents that a new table can be expected to have.
const EXPECTED_DOCUMENTS: RangeInclusive<u64> = 1..=1 << 40;

const METRICS: [Metric; 3] = [Metric::Cosine, Metric::L2, Metric::Dot];

/// The schema of a new table. A write needs half of the copies, rounded up, unless the draft says otherwise.
pub(super) fn table_schema(draft: &TableDraft, defaults: TableDefaults) -> Result<TableSchema, Error> {
    let mut violations = Violations::default();
    let name = TableName::parse(&draft.table_name);
    if draft.table_name.is_empty() {
        violations.add("/table_name", "table_name is missing");
    } else if name.is_err() {
        let given = quoted(&draft.table_name);
        violations.add("/table_name", format!("table name {given} must match [a-z0-9][a-z0-9_-]{{0,62}}"));
    }
    let metric = parse_metric(&draft.metric);
    if metric.is_none() {
        let allowed = METRICS.map(crate::table::metric_as_str).join(", ");
        violations.add("/metric", format!("metric {} must be one of {allowed}", quoted(&draft.metric)));
    }
    let storage_type = StorageType::parse(&draft.storage_type);
    if storage_type.is_none() {
        let allowed = StorageType::ALL.map(StorageType::as_str).join(", ");
        let given = quoted(&draft.storage_type);
        violations.add("/storage_type", format!("storage_type {given} must be one of {allowed}"));
    }
    let rows = RowStorage::parse(&draft.rows);
    if rows.is_none() {
        let allowed = RowStorage::ALL.map(RowStorage::as_str).join(", ");
        violations.add("/rows", format!("rows {} must be one of {allowed}", quoted(&draft.rows)));
    }
    if draft.dimension.is_none() {
        violations.add("/dimension", format!("dimension is missing, must be 1 to {DIMENSION_MAX}"));
    }
    let asked = draft.dimension.and_then(|asked| u32::try_from(asked).ok());
    let vectors = asked.filter(|asked| (1..=DIMENSION_MAX).contains(asked)).zip(metric);
    let index = index_kind(&draft.index_type, &draft.index_options, vectors, &mut violations);
    let dimension = ranged("dimension", draft.dimension.unwrap_or(1), DIMENSION_MAX, &mut violations);
    let shards = draft.shards.unwrap_or(u64::from(defaults.shards));
    let shards = ranged("shards", shards, SHARDS_MAX, &mut violations);
    let replicas = draft.replicas.unwrap_or(u64::from(defaults.replicas));
    let replicas = ranged("replicas", replicas, REPLICAS_MAX, &mut violations);
    let min_isr = draft.min_isr.unwrap_or(u64::from(replicas.div_ceil(2)));
    let min_isr = ranged("min_isr", min_isr, replicas, &mut violations);
    let mut metadata_indexes = indexed_fields(&draft.metadata_indexes, &mut violations);
    let tenant_key = tenant::key(&draft.tenant_key, &mut metadata_indexes, &mut violations);
    if let Some(documents) = draft.expected_documents.filter(|count| !EXPECTED_DOCUMENTS.contains(count)) {
        let most = EXPECTED_DOCUMENTS.end();
        let message = format!("expected_documents is {documents}, must be 1 to {most}");
        violations.add("/expected_documents", message);
    }
    violations.into_result()?;
    let (Ok(name), Some(metric), Some(storage_type), Some(rows), Some(index)) =
        (name, metric, storage_type, rows, index)
    else {
        return Err(Error::new(ErrorCode::Internal, "a broken rule was not recorded"));
    };
    let unknown_indexes = BTreeMap::new();
    Ok(TableSchema {
        name,
        dimension,
        metric,
        storage_type,
        rows,
        index,
        shards,
        replicas,
        min_isr,
        tenant_key,
        metadata_indexes,
        unknown_indexes,
    })
}

/// A table's name in a path or message.
pub(super) fn table_name(text: &str) -> Result<TableName, Error> {
    TableName::parse(text).map_err(|_| {
        let message = format!("table name {} must match [a-z0-9][a-z0-9_-]{{0,62}}", quoted(text));
        Error::invalid("/table_name", message)
    })
}

/// A document of a write; `None` when a rule is broken.
pub(super) fn upsert(
    draft: DocumentDraft,
    schema: &TableSchema,
    place: Place,
    violations: &mut Violations,
) -> Option<Upsert> {
    let id = match &draft.id {
        Some(id) => document_id(id, || place.field("document_id"), violations),
        None => {
            violations.add(place.field("document_id"), "document_id is missing");
            None
        }
    };
    let vector = match draft.vector {
        Some(draft) => stored_vector(draft, schema, || place.field("vector"), violations),
        None => {
            violations.add(place.field("vector"), "vector is missing");
            None
        }
    };
    let metadata = match draft.metadata {
        None => Some(Metadata::empty()),
        Some(Ok(metadata)) => Some(metadata),
        Some(Err(message)) => {
            violations.add(place.field("metadata"), message);
            None
        }
    };
    if let Some(Err(message)) = metadata.as_ref().map(|metadata| tenant::check(metadata, schema)) {
        violations.add(place.field("metadata"), message);
        return None;
    }
    let document = Document { id: id?, vector: vector?, metadata: metadata? };
    Some(Upsert { document, if_version: draft.if_version })
}

/// A document's id; `None` when a rule is broken.
pub(super) fn document_id(
    text: &str,
    pointer: impl FnOnce() -> String,
    violations: &mut Violations,
) -> Option<DocumentId> {
    DocumentId::parse(text).map_err(|error| violations.add(pointer(), error.to_string())).ok()
}

/// A vector of the table: its dimension, finite, of sane magnitude, not zero under cosine. `None` when a rule is broken.
pub(super) fn vector(
    draft: VectorDraft,
    schema: &TableSchema,
    pointer: impl FnOnce() -> String,
    violations: &mut Violations,
) -> Option<Vec<f32>> {
    match check_vector(draft, schema) {
        Ok(vector) => Some(vector),
        Err(message) => {
            violations.add(pointer(), message);
            None
        }
    }
}

/// The same of a document: its values as the table keeps them.
fn stored_vector(
    draft: VectorDraft,
    schema: &TableSchema,
    pointer: impl FnOnce() -> String,
    violations: &mut Violations,
) -> Option<Vec<f32>> {
    let stored = check_vector(draft, schema).and_then(|vector| rounded(vector, schema));
    stored.map_err(|message| violations.add(pointer(), message)).ok()
}

fn rounded(mut vector: Vec<f32>, schema: &TableSchema) -> Result<Vec<f32>, String> {
    let (name, storage_type) = (&schema.name, schema.storage_type);
    if let Err(culprit) = storage_type.round(&mut vector) {
        let (value, word, largest) = (vector[culprit], storage_type.as_str(), storage_type.largest());
        return Err(format!(
            "value {culprit} of vector is {value}, table {name} keeps {word}, at most {largest} in size"
        ));
    }
    if schema.metric == Metric::Cosine && vector.iter().all(|x| *x == 0.0) {
        let word = storage_type.as_str();
        return Err(format!(
            "all values of vector are so small that {word}, which table {name} keeps, has only zeros"
        ));
    }
    Ok(vector)
}

fn check_vector(draft: VectorDraft, schema: &TableSchema) -> Result<Vec<f32>, String> {
    let (values, given) = match draft {
        VectorDraft::Values { kept, given } => (kept, given),
        VectorDraft::Broken(message) => return Err(message),
    };
    if given != schema.dimension as usize {
        let (name, dimension) = (&schema.name, schema.dimension);
        return Err(format!("vector has {given} values, table {name} has dimension {dimension}"));
    }
    // One pass without a branch per value; the slow search for the culprit runs only when there is one. Comparing with
    // `<=` is false for NaN too.
    if !values.iter().fold(true, |good, x| good & (x.abs() <= MAGNITUDE_MAX)) {
        let culprit = values.iter().position(|x| x.is_nan() || x.abs() > MAGNITUDE_MAX).unwrap_or_default();
        let value = values[culprit];
        return Err(format!("value {culprit} of vector is {value}, must be finite and at most 1e18 in size"));
    }
    if schema.metric == Metric::Cosine && values.iter().all(|x| *x == 0.0) {
        return Err("vector has only zeros, which has no direction that cosine could compare".to_owned());
    }
    Ok(values)
}

/// The new metadata of a document.
pub(super) fn metadata_change(metadata: Metadata, schema: &TableSchema) -> Result<Metadata, Error> {
    tenant::check(&metadata, schema).map_err(|why| Error::invalid("/metadata", why))?;
    Ok(metadata)
}

/// Metadata within its size, from an object whose depth is checked.
pub(super) fn metadata(object: &Map<String, Value>) -> Result<Metadata, String> {
    let metadata = Metadata::from_object(object);
    let bytes = metadata.as_json().len();
    if bytes > METADATA_BYTES_MAX {
        return Err(format!(
            "metadata has {bytes} bytes as compact JSON, at most {METADATA_BYTES_MAX} are allowed"
        ));
    }
    Ok(metadata)
}

/// A page of a listing, and what the read must reflect.
pub(super) fn page(
    draft: PageDraft,
    read: ReadDraft,
    schema: &TableSchema,
) -> Result<(PageRequest, ReadOptions), Error> {
    let mut violations = Violations::default();
    let limit = draft.limit.unwrap_or(u64::from(PAGE_DOCUMENTS_DEFAULT));
    let limit = ranged("limit", limit, PAGE_DOCUMENTS_MAX, &mut violations);
    if draft.with_vector {
        answer_fits("limit", limit, schema, &mut violations);
    }
    if draft.cursor.len() > session_token::TOKEN_BYTES_MAX {
        violations.add("/cursor", "cursor is not one that this table returned");
    }
    let read = read_options(read, Consistency::Session, &mut violations);
    violations.into_result()?;
    let cursor = Some(draft.cursor).filter(|cursor| !cursor.is_empty());
    Ok((PageRequest { limit, cursor, with_vector: draft.with_vector }, read))
}

/// What a read must reflect; `default` where the caller does not say how fresh.
pub(super) fn read_options(
    draft: ReadDraft,
    default: Consistency,
    violations: &mut Violations,
) -> ReadOptions {
    let ReadDraft { consistency: word, max_staleness_ms, session_token } = draft;
    let consistency = match word.as_str() {
        "" => default,
        "strong" => Consistency::Strong,
        "strong-noclock" => Consistency::StrongNoClock,
        "session" => Consistency::Session,
        "bounded" => Consistency::Bounded(staleness(max_staleness_ms, violations)),
        "eventual" => Consistency::Eventual,
        word => {
            let allowed = CONSISTENCY_LEVELS.join(", ");
            let message = format!("consistency {} must be one of {allowed}", quoted(word));
            violations.add("/consistency", message);
            default
        }
    };
    if max_staleness_ms.is_some() && word != "bounded" {
        violations.add("/max_staleness_ms", "max_staleness_ms is for consistency bounded only");
    }
    let (bytes, most) = (session_token.len(), session_token::TOKEN_BYTES_MAX);
    if bytes > most {
        let message = format!("session token has {bytes} bytes, at most {most} are allowed");
        violations.add("/session_token", message);
    }
    ReadOptions { consistency, session_token }
}

fn staleness(ms: Option<u64>, violations: &mut Violations) -> Duration {
    let Some(ms) = ms else {
        let message = format!("max_staleness_ms is missing, must be 1 to {STALENESS_MS_MAX}");
        violations.add("/max_staleness_ms", message);
        return Duration::ZERO;
    };
    Duration::from_millis(u64::from(ranged("max_staleness_ms", ms, STALENESS_MS_MAX, violations)))
}

/// The key that makes a retry of a write safe: the caller's UUID, or a new one. `name` is the field or header.
pub(super) fn operation_id(text: Option<&str>, name: &str) -> Result<OpId, Error> {
    match text.filter(|text| !text.is_empty()) {
        None => Ok(OpId::random()),
        Some(text) => OpId::parse(text).ok_or_else(|| {
            Error::invalid(format!("/{name}"), format!("{name} {} must be a UUID", quoted(text)))
        }),
    }
}

/// A deadline that the caller asks for, within what is allowed.
pub(super) fn timeout(asked: Duration) -> Duration {
    asked.min(super::limits::REQUEST_TIMEOUT_MAX)
}

/// `value` if within `1..=max`.
fn ranged(name: &str, value: u64, max: u32, violations: &mut Violations) -> u32 {
    match u32::try_from(value) {
        Ok(value) if (1..=max).contains(&value) => value,
        _ => {
            violations.add(format!("/{name}"), format!("{name} is {value}, must be 1 to {max}"));
            max
        }
    }
}

/// Vectors of `rows` rows must fit one answer. Metadata counts when the answer is written, where its size is known.
fn answer_fits(name: &str, rows: u32, schema: &TableSchema, violations: &mut Violations) {
    let row_bytes = u64::from(schema.dimension) * size_of::<f32>() as u64;
    let most = ANSWER_BYTES_MAX as u64 / row_bytes;
    if u64::from(rows) > most {
        let message = format!(
            "{name} is {rows}, with vectors of {row_bytes} bytes at most {most} fit an answer of {ANSWER_BYTES_MAX} bytes"
        );
        violations.add(format!("/{name}"), message);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_gets_the_default_copies_and_a_write_needs_half_of_them() {
        let copies = |replicas: Option<u64>, min_isr: Option<u64>, default: u32| {
            let draft = TableDraft {
                table_name: "t".to_owned(),
                dimension: Some(1),
                replicas,
                min_isr,
                ..TableDraft::default()
            };
            let schema = table_schema(&draft, TableDefaults { shards: 1, replicas: default })?;
            Ok::<_, Error>((schema.replicas, schema.min_isr))
        };
        let needed: Vec<u32> = (1..=7).map(|all| copies(Some(all), None, 1).expect("allowed").1).collect();
        assert_eq!(needed, [1, 1, 2, 2, 3, 3, 4]);
        assert_eq!(copies(None, None, 2), Ok((2, 1)));
        assert_eq!(copies(None, Some(2), 2), Ok((2, 2)));
        assert_eq!(copies(Some(3), Some(1), 1), Ok((3, 1)));
        for (replicas, min_isr, pointer) in
            [(0, 1, "/replicas"), (8, 1, "/replicas"), (3, 0, "/min_isr"), (3, 4, "/min_isr")]
        {
            let refused = copies(Some(replicas), Some(min_isr), 1).expect_err("out of range");
            assert_eq!(refused.violations[0].pointer, pointer);
        }
    }

    #[test]
    fn a_read_says_how_fresh_it_must_be() {
        let read = |consistency: &str, max_staleness_ms: Option<u64>| {
            let mut violations = Violations::default();
            let consistency = consistency.to_owned();
            let draft = ReadDraft { consistency, max_staleness_ms, session_token: String::new() };
            let read = read_options(draft, Consistency::Session, &mut violations);
            violations.into_result().map(|()| read.consistency)
        };
        assert_eq!(read("", None), Ok(Consistency::Session));
        assert_eq!(read("strong-noclock", None), Ok(Consistency::StrongNoClock));
        assert_eq!(read("bounded", Some(600_000)), Ok(Consistency::Bounded(Duration::from_secs(600))));
        for (word, ms) in
            [("bounded", None), ("bounded", Some(0)), ("bounded", Some(600_001)), ("eventual", Some(1))]
        {
            let refused = read(word, ms).expect_err("refused");
            assert_eq!(refused.violations[0].pointer, "/max_staleness_ms", "{word} {ms:?}");
        }
        assert_eq!(read("strong_noclock", None).expect_err("no level").violations[0].pointer, "/consistency");
    }
}
