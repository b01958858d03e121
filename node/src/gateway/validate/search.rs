//! Searches: one, or many of them.

use std::sync::Arc;

use super::super::limits::TOP_K_DEFAULT;
use super::super::violations::Violations;
use super::{ReadDraft, VectorDraft, answer_fits, document_id, ranged, read_options, vector};
use crate::error_code::{Error, ErrorCode};
use crate::filter::{Filter, FilterDraft, KeyPath};
use crate::search::{
    BATCH_HITS_MAX, Consistency, EF_MAX, GROUP_LIMIT_MAX, GroupBy, METADATA_FIELDS_MAX, MetadataChoice,
    QUERIES_MAX, SearchQuery, SearchRequest, SearchTarget, TARGET_RECALL, TOP_K_MAX,
};
use crate::table::{IndexKind, TableSchema};

/// A search as the caller wrote it; `None` and empty mean the default.
#[derive(Clone, Debug, Default)]
pub(in crate::gateway) struct SearchDraft {
    pub(in crate::gateway) vector: Option<VectorDraft>,
    pub(in crate::gateway) document_id: Option<String>,
    pub(in crate::gateway) top_k: Option<u64>,
    pub(in crate::gateway) offset: Option<u64>,
    pub(in crate::gateway) exact: bool,
    pub(in crate::gateway) ef: Option<u64>,
    pub(in crate::gateway) target_recall: Option<f64>,
    pub(in crate::gateway) threshold: Option<f64>,
    pub(in crate::gateway) filter: Option<FilterDraft>,
    pub(in crate::gateway) metadata: MetadataDraft,
    pub(in crate::gateway) with_vector: bool,
    pub(in crate::gateway) explain: bool,
    pub(in crate::gateway) group_by: Option<GroupByDraft>,
}

/// How hits are grouped, as the caller wrote it.
#[derive(Clone, Debug, Default)]
pub(in crate::gateway) struct GroupByDraft {
    pub(in crate::gateway) key: String,
    pub(in crate::gateway) limit: Option<u64>,
}

/// What of metadata the caller wants.
#[derive(Clone, Debug, Default)]
pub(in crate::gateway) enum MetadataDraft {
    #[default]
    Nothing,
    All,
    /// The first paths, and how many `name` holds.
    Fields {
        name: &'static str,
        paths: Vec<String>,
        given: usize,
    },
}

/// A whole request for searches, as the caller wrote it.
#[derive(Clone, Debug, Default)]
pub(in crate::gateway) struct SearchRequestDraft {
    pub(in crate::gateway) queries: Vec<SearchDraft>,
    pub(in crate::gateway) allow_partial: bool,
    pub(in crate::gateway) read: ReadDraft,
}

/// A single search over a table.
pub(in crate::gateway) fn search(
    draft: SearchDraft,
    (allow_partial, read): (bool, ReadDraft),
    schema: &TableSchema,
) -> Result<SearchRequest, Error> {
    let mut violations = Violations::default();
    let query = query(draft, schema, &mut violations);
    let read = read_options(read, Consistency::Session, &mut violations);
    violations.into_result()?;
    let queries = vec![query.ok_or_else(not_recorded)?];
    Ok(SearchRequest { queries, allow_partial, read })
}

/// Several searches over a table.
pub(in crate::gateway) fn search_batch(
    draft: SearchRequestDraft,
    schema: &TableSchema,
) -> Result<SearchRequest, Error> {
    let SearchRequestDraft { queries: drafts, allow_partial, read } = draft;
    if drafts.len() > QUERIES_MAX {
        return Err(too_many_queries());
    }
    let mut violations = Violations::default();
    let read = read_options(read, Consistency::Session, &mut violations);
    if drafts.is_empty() {
        violations
            .add("/queries", format!("queries is empty or missing, must hold 1 to {QUERIES_MAX} items"));
    }
    let mut queries = Vec::with_capacity(drafts.len());
    for (index, draft) in drafts.into_iter().enumerate() {
        let mut broken = Violations::default();
        queries.extend(query(draft, schema, &mut broken));
        violations.add_all(&format!("/queries/{index}"), broken);
    }
    let hits: u64 = queries.iter().map(|query| u64::from(query.offset) + u64::from(query.top_k)).sum();
    if hits > BATCH_HITS_MAX {
        let message =
            format!("queries ask for {hits} hits (top_k and offset), at most {BATCH_HITS_MAX} are allowed");
        violations.add("/queries", message);
    }
    violations.into_result()?;
    Ok(SearchRequest { queries, allow_partial, read })
}

/// The refusal of a batch over its limit, raised before the rest of it is read.
pub(in crate::gateway) fn too_many_queries() -> Error {
    let message = format!("queries holds more than {QUERIES_MAX} items, send several batches");
    Error::new(ErrorCode::PayloadTooLarge, message)
}

fn not_recorded() -> Error {
    Error::new(ErrorCode::Internal, "a broken rule was not recorded")
}

/// One search; `None` when a rule is broken.
fn query(draft: SearchDraft, schema: &TableSchema, all: &mut Violations) -> Option<SearchQuery> {
    let mut violations = Violations::default();
    let target = match (draft.vector, draft.document_id) {
        (Some(draft), None) => {
            vector(draft, schema, || "/vector".to_owned(), &mut violations).map(SearchTarget::Vector)
        }
        (None, Some(id)) => {
            document_id(&id, || "/document_id".to_owned(), &mut violations).map(SearchTarget::Document)
        }
        (None, None) => {
            violations.add("/vector", "vector or document_id is missing");
            None
        }
        (Some(_), Some(_)) => {
            violations.add("/document_id", "vector and document_id exclude each other");
            None
        }
    };
    let top_k = draft.top_k.unwrap_or(u64::from(TOP_K_DEFAULT));
    let top_k = ranged("top_k", top_k, TOP_K_MAX, &mut violations);
    if draft.with_vector {
        answer_fits("top_k", top_k, schema, &mut violations);
    }
    let offset = draft.offset.unwrap_or_default();
    let offset_max = TOP_K_MAX - top_k;
    if offset > u64::from(offset_max) {
        let message = format!("offset is {offset}, with top_k {top_k} it must be 0 to {offset_max}");
        violations.add("/offset", message);
    }
    let ef = draft.ef.map(|ef| ranged("ef", ef, EF_MAX, &mut violations));
    if draft.exact && ef.is_some() {
        violations.add("/ef", "ef excludes exact, which looks at every row");
    }
    if let Some(recall) = draft.target_recall {
        if !TARGET_RECALL.contains(&recall) {
            let (least, most) = (TARGET_RECALL.start(), TARGET_RECALL.end());
            let message =
                format!("target_recall is {recall}, must be {least} to {most}; exact looks at every row");
            violations.add("/target_recall", message);
        }
        if draft.exact || ef.is_some() {
            violations.add("/target_recall", "target_recall excludes ef and exact");
        }
        if matches!(schema.index, IndexKind::Ivf | IndexKind::Faiss(_)) {
            let message =
                format!("a table of index_type {} has no measured recall, it takes ef", schema.index);
            violations.add("/target_recall", message);
        }
    }
    if let Some(threshold) = draft.threshold.filter(|threshold| !threshold.is_finite()) {
        violations.add("/threshold", format!("threshold is {threshold}, must be finite"));
    }
    let filter = draft.filter.and_then(|draft| filter(draft, &mut violations));
    let metadata = metadata_choice(draft.metadata, &mut violations);
    let group_by = draft.group_by.and_then(|draft| group_by(&draft, &mut violations));
    let is_valid = violations.is_empty();
    all.add_all("", violations);
    is_valid.then_some(SearchQuery {
        target: target?,
        top_k,
        offset: offset as u32,
        exact: draft.exact,
        ef,
        target_recall: draft.target_recall,
        threshold: draft.threshold,
        filter,
        metadata: metadata?,
        with_vector: draft.with_vector,
        explain: draft.explain,
        group_by,
    })
}

/// How hits are grouped; `None` when a rule is broken.
fn group_by(draft: &GroupByDraft, violations: &mut Violations) -> Option<GroupBy> {
    let mut broken = Violations::default();
    let limit = ranged("limit", draft.limit.unwrap_or(1), GROUP_LIMIT_MAX, &mut broken);
    let key = match KeyPath::parse(&draft.key) {
        Ok(key) => Some(key),
        Err(why) => {
            let missing = || "key is missing: the path of the field whose values are the groups".to_owned();
            broken.add("/key", if draft.key.is_empty() { missing() } else { why });
            None
        }
    };
    violations.add_all("/group_by", broken);
    key.map(|key| GroupBy { key, limit })
}

/// What of metadata is returned; `None` when a rule is broken.
fn metadata_choice(draft: MetadataDraft, violations: &mut Violations) -> Option<MetadataChoice> {
    let (name, texts, given) = match draft {
        MetadataDraft::Nothing => return Some(MetadataChoice::Nothing),
        MetadataDraft::All => return Some(MetadataChoice::All),
        MetadataDraft::Fields { name, paths, given } => (name, paths, given),
    };
    if !(1..=METADATA_FIELDS_MAX).contains(&given) {
        let message = format!("{name} holds {given} paths, must hold 1 to {METADATA_FIELDS_MAX}");
        violations.add(format!("/{name}"), message);
        return None;
    }
    let mut paths = Vec::with_capacity(texts.len());
    for (index, text) in texts.iter().enumerate() {
        match KeyPath::parse(text) {
            Ok(path) => paths.push(path),
            Err(why) => violations.add(format!("/{name}/{index}"), why),
        }
    }
    (paths.len() == given).then_some(MetadataChoice::Fields(paths))
}

/// The filter of a search; `None` when a rule is broken, or every document passes.
fn filter(draft: FilterDraft, violations: &mut Violations) -> Option<Arc<Filter>> {
    match draft.validate("/filter") {
        Ok(filter) => (!filter.is_empty()).then(|| Arc::new(filter)),
        Err(broken) => {
            broken.into_iter().for_each(|violation| violations.add(violation.pointer, violation.message));
            None
        }
    }
}
