//! `/api/v1/tables/{table}/search` and `/api/v1/tables/{table}/search:batch`.

use axum::Json;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use utoipa::ToSchema;

use super::super::{ApiGateway, json, validate};
use super::answers::{SearchBatchBody, SearchBody};
use super::documents::{IdText, VectorText};
use super::filter::FilterText;
use super::problem::{Problem, ProblemBody};
use super::request::{Context, Names, json_body, names};

/// What to return of metadata.
#[derive(Deserialize, ToSchema)]
#[schema(as = MetadataChoice)]
#[serde(untagged)]
#[expect(dead_code, reason = "describes what the parser in `json` reads")]
enum MetadataText {
    /// All or nothing.
    Whole(bool),
    /// What these paths reach, such as `section`, `a.b` and `items[].color`.
    Fields(Vec<String>),
}

/// Hits that share a value of their metadata are a group.
#[derive(Deserialize, ToSchema)]
#[schema(as = GroupBy, example = json!({"key": "source", "limit": 2}))]
#[expect(dead_code, reason = "describes what the parser in `json` reads")]
struct GroupByBody {
    /// Path such as `source`, `a.b` and `tags[]`: the first text, number or boolean that it reaches names the group. A document
    /// in which it reaches none belongs to no group and is not limited.
    key: String,
    /// Hits of each group, 1 to 1,000, default 1.
    limit: Option<u32>,
}

/// What to look for.
#[derive(Deserialize, ToSchema)]
#[schema(as = Search, example = json!({"vector": [0.1, 0.2, 0.3], "top_k": 10, "threshold": 0.8}))]
#[expect(dead_code, reason = "describes what the parser in `json` reads")]
struct SearchRequestBody {
    vector: Option<VectorText>,
    /// Instead of a vector: the vector of this document, which is left out of the answer.
    document_id: Option<IdText>,
    /// 1 to 10,000, default 10.
    top_k: Option<u32>,
    /// Best hits that are left out; with top_k up to 10,000. Default 0.
    offset: Option<u32>,
    /// Compare with every row; without it, large segments are searched through their graphs.
    exact: Option<bool>,
    /// Candidates of a walk, 1 to 10,000: more find more of the true best and take longer.
    ef: Option<u32>,
    /// Instead of ef: the mean recall that walks are to reach, 0.5 to 0.999, as measured when each segment was indexed; not
    /// promised of filtered searches.
    target_recall: Option<f64>,
    /// cosine and dot: score of at least; l2: distance of at most.
    threshold: Option<f64>,
    /// Only documents whose metadata passes.
    filter: Option<FilterText>,
    /// Return the metadata of hits: all of it, or what 1 to 64 paths reach.
    with_metadata: Option<MetadataText>,
    /// Return the vectors of hits.
    with_vector: Option<bool>,
    /// Only the best few of each group.
    group_by: Option<GroupByBody>,
    /// Say how each segment was searched.
    explain: Option<bool>,
    /// Answer with what is there and name the shards that are missing.
    allow_partial: Option<bool>,
    /// strong, strong-noclock, session (default), bounded or eventual.
    consistency: Option<String>,
    /// For bounded, which needs it: 1 to 600,000.
    max_staleness_ms: Option<u64>,
    /// Of an earlier answer: the search sees nothing older.
    session_token: Option<String>,
}

/// One of many searches.
#[derive(Deserialize, ToSchema)]
#[schema(as = SearchQuery)]
#[expect(dead_code, reason = "describes what the parser in `json` reads")]
struct QueryBody {
    vector: Option<VectorText>,
    /// Instead of a vector: the vector of this document, which is left out of the answer.
    document_id: Option<IdText>,
    /// 1 to 10,000, default 10.
    top_k: Option<u32>,
    /// Best hits that are left out; with top_k up to 10,000. Default 0.
    offset: Option<u32>,
    /// Compare with every row; without it, large segments are searched through their graphs.
    exact: Option<bool>,
    /// Candidates of a walk, 1 to 10,000: more find more of the true best and take longer.
    ef: Option<u32>,
    /// Instead of ef: the mean recall that walks are to reach, 0.5 to 0.999, as measured when each segment was indexed; not
    /// promised of filtered searches.
    target_recall: Option<f64>,
    /// cosine and dot: score of at least; l2: distance of at most.
    threshold: Option<f64>,
    /// Only documents whose metadata passes.
    filter: Option<FilterText>,
    /// Return the metadata of hits: all of it, or what 1 to 64 paths reach.
    with_metadata: Option<MetadataText>,
    /// Return the vectors of hits.
    with_vector: Option<bool>,
    /// Only the best few of each group.
    group_by: Option<GroupByBody>,
    /// Say how each segment was searched.
    explain: Option<bool>,
}

/// What to look for, many times.
#[derive(Deserialize, ToSchema)]
#[schema(as = SearchBatch, example = json!({"queries": [{"vector": [0.1, 0.2, 0.3], "top_k": 10}, {"document_id": "doc1"}]}))]
#[expect(dead_code, reason = "describes what the parser in `json` reads")]
struct SearchBatchRequestBody {
    /// 1 to 1,000 searches, which ask for at most 100,000 hits together.
    queries: Vec<QueryBody>,
    /// Answer with what is there and name the shards that are missing.
    allow_partial: Option<bool>,
    /// strong, strong-noclock, session (default), bounded or eventual.
    consistency: Option<String>,
    /// For bounded, which needs it: 1 to 600,000.
    max_staleness_ms: Option<u64>,
    /// Of an earlier answer: the search sees nothing older.
    session_token: Option<String>,
}

/// The best hits: with exact scores, the true best in small segments, nearly all of them in large ones.
#[utoipa::path(post, path = "/api/v1/tables/{table}/search", tag = "search", request_body = SearchRequestBody,
    params(("table" = String, Path, description = "name of the table")),
    responses((status = 200, body = SearchBody<'_>), (status = 400, body = ProblemBody<'_>), (status = 404, body = ProblemBody<'_>),
        (status = 409, description = "session_expired", body = ProblemBody<'_>),
        (status = 503, description = "a shard does not answer", body = ProblemBody<'_>)))]
pub(super) async fn search(
    State(gateway): State<ApiGateway>,
    Context(context): Context,
    table: Names<String>,
    request: Request,
) -> Result<Response, Problem> {
    let table = gateway.table(&names(table)?)?;
    let (parts, body) = request.into_parts();
    let (draft, terms) = json::search(&json_body(&parts, body).await?, &table.schema)?;
    let request = validate::search(draft, terms, &table.schema)?;
    let result = gateway.router().search(&context, &table, request).await?;
    Ok(Json(SearchBody::new(&result)).into_response())
}

/// Many searches in one call, answered in their order from one state of each shard. One that breaks a rule refuses all.
#[utoipa::path(post, path = "/api/v1/tables/{table}/search:batch", tag = "search",
    request_body = SearchBatchRequestBody, params(("table" = String, Path, description = "name of the table")),
    responses((status = 200, body = SearchBatchBody<'_>), (status = 400, body = ProblemBody<'_>), (status = 404, body = ProblemBody<'_>),
        (status = 409, description = "session_expired", body = ProblemBody<'_>),
        (status = 503, description = "a shard does not answer", body = ProblemBody<'_>)))]
pub(super) async fn search_batch(
    State(gateway): State<ApiGateway>,
    Context(context): Context,
    table: Names<String>,
    request: Request,
) -> Result<Response, Problem> {
    let table = gateway.table(&names(table)?)?;
    let (parts, body) = request.into_parts();
    let draft = json::search_batch(&json_body(&parts, body).await?, &table.schema)?;
    let request = validate::search_batch(draft, &table.schema)?;
    let result = gateway.router().search(&context, &table, request).await?;
    Ok(Json(SearchBatchBody::from(&result)).into_response())
}
