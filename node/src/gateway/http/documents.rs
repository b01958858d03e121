//! `/api/v1/tables/{table}/documents`.

use axum::Json;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, Request, State};
use axum::http::request::Parts;
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use utoipa::ToSchema;

use super::super::validate::PageDraft;
use super::super::violations::Violations;
use super::super::{ApiGateway, json, validate};
use super::answers::{PageBody, ReceiptBody, StoredBody};
use super::problem::{Problem, ProblemBody};
use super::request::{Context, Names, ReadQuery, VersionQuery, json_body, names, query};
use crate::error_code::{Error, ErrorCode};
use crate::ids::{DocumentId, OpId};
use crate::search::Consistency;

/// Makes a retry of a write safe: the same UUID is carried out once.
const IDEMPOTENCY_KEY: &str = "idempotency-key";

/// One document, or many.
#[derive(Deserialize, ToSchema)]
#[schema(as = Upsert)]
#[serde(untagged)]
#[expect(dead_code, reason = "describes what the parser in `json` reads")]
enum UpsertBody {
    One(WholeDocument),
    Many(ManyDocuments),
}

#[derive(Deserialize, ToSchema)]
#[schema(as = Document, example = json!({"document_id": "doc1", "vector": [0.1, 0.2, 0.3], "metadata": {"title": "Example Document"}}))]
#[expect(dead_code, reason = "describes what the parser in `json` reads")]
struct WholeDocument {
    /// 1 to 512 bytes; a number stands for its decimal text.
    document_id: IdText,
    vector: VectorText,
    /// A JSON object; depth at most 32, at most 1 MiB.
    #[schema(value_type = Option<Object>)]
    metadata: Option<serde_json::Value>,
    /// The version that must be current, 0: the document must not exist; else nothing of its shard's part is written.
    if_version: Option<u64>,
}

#[derive(Deserialize, ToSchema)]
#[schema(as = Documents)]
#[expect(dead_code, reason = "describes what the parser in `json` reads")]
struct ManyDocuments {
    /// 1 to 1,000 documents.
    documents: Vec<WholeDocument>,
}

/// A document whose id is in the path.
#[derive(Deserialize, ToSchema)]
#[schema(as = DocumentWithoutId, example = json!({"vector": [0.1, 0.2, 0.3], "metadata": {"title": "Example Document"}}))]
#[expect(dead_code, reason = "describes what the parser in `json` reads")]
struct PutBody {
    vector: VectorText,
    /// A JSON object; depth at most 32, at most 1 MiB.
    #[schema(value_type = Option<Object>)]
    metadata: Option<serde_json::Value>,
    /// The version that must be current; 0: the document must not exist.
    if_version: Option<u64>,
}

/// A document's id.
#[derive(Deserialize, ToSchema)]
#[schema(as = DocumentId)]
#[serde(untagged)]
#[expect(dead_code, reason = "describes what the parser in `json` reads")]
pub(super) enum IdText {
    /// As it is.
    Text(String),
    /// Stands for its decimal text.
    Number(i64),
}

/// A vector of the table's dimension.
#[derive(Deserialize, ToSchema)]
#[schema(as = Vector)]
#[serde(untagged)]
#[expect(dead_code, reason = "describes what the parser in `json` reads")]
pub(super) enum VectorText {
    /// Its values.
    Values(Vec<f32>),
    /// Base64 of its values as little-endian f32.
    Base64(String),
}

#[derive(Deserialize, ToSchema)]
#[schema(as = MetadataChange)]
#[expect(dead_code, reason = "describes what the parser in `json` reads")]
struct MetadataBody {
    /// Replaces the metadata; the vector stays.
    #[schema(value_type = Object)]
    metadata: serde_json::Value,
    /// The version that must be current.
    if_version: Option<u64>,
}

#[derive(Deserialize, ToSchema)]
#[schema(as = DeleteDocuments)]
#[expect(dead_code, reason = "describes what the parser in `json` reads")]
struct DeleteManyBody {
    /// 1 to 1,000 ids.
    document_ids: Vec<IdText>,
}

/// Inserts or replaces documents; a batch with one bad item is refused whole. Of equal ids the last wins.
#[utoipa::path(post, path = "/api/v1/tables/{table}/documents", tag = "documents", request_body = UpsertBody,
    params(("table" = String, Path, description = "name of the table"),
        ("Idempotency-Key" = Option<String>, Header, description = "a UUID: the write is carried out once")),
    responses((status = 200, description = "on disk", body = ReceiptBody), (status = 400, body = ProblemBody<'_>),
        (status = 404, body = ProblemBody<'_>), (status = 409, description = "version_mismatch", body = ProblemBody<'_>),
        (status = 503, body = ProblemBody<'_>)))]
pub(super) async fn upsert(
    State(gateway): State<ApiGateway>,
    Context(context): Context,
    table: Names<String>,
    request: Request,
) -> Result<Json<ReceiptBody>, Problem> {
    let table = gateway.table(&names(table)?)?;
    let (parts, body) = request.into_parts();
    let op = operation_id(&parts)?;
    let upserts = json::upserts(&json_body(&parts, body).await?, &table.schema)?;
    let ids = upserts.iter().map(|upsert| upsert.document.id.to_string()).collect();
    let receipt = gateway.router().upsert(&context, &table, upserts, op).await?;
    Ok(Json(ReceiptBody::new(ids, receipt)))
}

/// Inserts or replaces one document.
#[utoipa::path(put, path = "/api/v1/tables/{table}/documents/{document_id}", tag = "documents",
    request_body = PutBody,
    params(("table" = String, Path, description = "name of the table"),
        ("document_id" = String, Path, description = "id, percent-encoded"),
        ("Idempotency-Key" = Option<String>, Header, description = "a UUID: the write is carried out once")),
    responses((status = 200, description = "on disk", body = ReceiptBody), (status = 400, body = ProblemBody<'_>),
        (status = 404, body = ProblemBody<'_>), (status = 409, description = "version_mismatch", body = ProblemBody<'_>)))]
pub(super) async fn put(
    State(gateway): State<ApiGateway>,
    Context(context): Context,
    path: Names<(String, String)>,
    request: Request,
) -> Result<Json<ReceiptBody>, Problem> {
    let (table, id) = names(path)?;
    let (table, id) = (gateway.table(&table)?, document_id(&id)?);
    let (parts, body) = request.into_parts();
    let op = operation_id(&parts)?;
    let upsert = json::upsert(&json_body(&parts, body).await?, &table.schema, &id)?;
    let receipt = gateway.router().upsert(&context, &table, vec![upsert], op).await?;
    Ok(Json(ReceiptBody::new(vec![id.to_string()], receipt)))
}

/// Replaces the metadata of a document; the vector stays.
#[utoipa::path(patch, path = "/api/v1/tables/{table}/documents/{document_id}", tag = "documents",
    request_body = MetadataBody,
    params(("table" = String, Path, description = "name of the table"),
        ("document_id" = String, Path, description = "id, percent-encoded"),
        ("Idempotency-Key" = Option<String>, Header, description = "a UUID: the write is carried out once")),
    responses((status = 200, description = "on disk", body = ReceiptBody), (status = 400, body = ProblemBody<'_>),
        (status = 404, body = ProblemBody<'_>), (status = 409, description = "version_mismatch", body = ProblemBody<'_>)))]
pub(super) async fn patch(
    State(gateway): State<ApiGateway>,
    Context(context): Context,
    path: Names<(String, String)>,
    request: Request,
) -> Result<Json<ReceiptBody>, Problem> {
    let (table, id) = names(path)?;
    let (table, id) = (gateway.table(&table)?, document_id(&id)?);
    let (parts, body) = request.into_parts();
    let op = operation_id(&parts)?;
    let (metadata, if_version) = json::metadata_change(&json_body(&parts, body).await?, &table.schema)?;
    let target = (id.clone(), if_version);
    let receipt = gateway.router().update_metadata(&context, &table, target, metadata, op).await?;
    Ok(Json(ReceiptBody::new(vec![id.to_string()], receipt)))
}

/// One document.
#[utoipa::path(get, path = "/api/v1/tables/{table}/documents/{document_id}", tag = "documents",
    params(("table" = String, Path, description = "name of the table"),
        ("document_id" = String, Path, description = "id, percent-encoded"),
        ("with_vector" = Option<bool>, Query, description = "default true"),
        ("consistency" = Option<String>, Query, description = "strong (default), strong-noclock, session, bounded or eventual"),
        ("max_staleness_ms" = Option<u64>, Query, description = "for consistency bounded, which needs it: 1 to 600,000"),
        ("session_token" = Option<String>, Query, description = "of an earlier answer: nothing older is read")),
    responses((status = 200, body = StoredBody<'_>), (status = 404, body = ProblemBody<'_>),
        (status = 409, description = "session_expired", body = ProblemBody<'_>)))]
pub(super) async fn get(
    State(gateway): State<ApiGateway>,
    Context(context): Context,
    path: Names<(String, String)>,
    asked: Result<Query<ReadQuery>, QueryRejection>,
) -> Result<Response, Problem> {
    let (table, id) = names(path)?;
    let mut asked = query(asked)?;
    let (table, id) = (gateway.table(&table)?, document_id(&id)?);
    let mut violations = Violations::default();
    let read = validate::read_options(asked.read(), Consistency::Strong, &mut violations);
    violations.into_result()?;
    let with_vector = asked.with_vector.unwrap_or(true);
    let stored = gateway.router().get(&context, &table, &id, with_vector, &read).await?;
    let stored = stored.ok_or_else(|| {
        let name = &table.schema.name;
        Error::new(ErrorCode::DocumentNotFound, format!("document {id} does not exist in table {name}"))
    })?;
    Ok(Json(StoredBody::from(&stored)).into_response())
}

/// Deletes a document; one that does not exist is no error, `count` tells.
#[utoipa::path(delete, path = "/api/v1/tables/{table}/documents/{document_id}", tag = "documents",
    params(("table" = String, Path, description = "name of the table"),
        ("document_id" = String, Path, description = "id, percent-encoded"),
        ("if_version" = Option<u64>, Query, description = "the version that must be current"),
        ("Idempotency-Key" = Option<String>, Header, description = "a UUID: the write is carried out once")),
    responses((status = 200, description = "on disk", body = ReceiptBody), (status = 404, body = ProblemBody<'_>),
        (status = 409, description = "version_mismatch", body = ProblemBody<'_>)))]
pub(super) async fn delete(
    State(gateway): State<ApiGateway>,
    Context(context): Context,
    path: Names<(String, String)>,
    asked: Result<Query<VersionQuery>, QueryRejection>,
    request: Request,
) -> Result<Json<ReceiptBody>, Problem> {
    let (table, id) = names(path)?;
    let (table, id) = (gateway.table(&table)?, document_id(&id)?);
    let op = operation_id(&request.into_parts().0)?;
    let receipt = match query(asked)?.if_version {
        None => gateway.router().delete(&context, &table, vec![id.clone()], op).await?,
        Some(version) => gateway.router().delete_at(&context, &table, (id.clone(), version), op).await?,
    };
    Ok(Json(ReceiptBody::new(vec![id.to_string()], receipt)))
}

/// Deletes many documents.
#[utoipa::path(post, path = "/api/v1/tables/{table}/documents:delete", tag = "documents",
    request_body = DeleteManyBody, params(("table" = String, Path, description = "name of the table"),
        ("Idempotency-Key" = Option<String>, Header, description = "a UUID: the write is carried out once")),
    responses((status = 200, description = "on disk", body = ReceiptBody), (status = 400, body = ProblemBody<'_>),
        (status = 404, body = ProblemBody<'_>)))]
pub(super) async fn delete_many(
    State(gateway): State<ApiGateway>,
    Context(context): Context,
    table: Names<String>,
    request: Request,
) -> Result<Json<ReceiptBody>, Problem> {
    let table = gateway.table(&names(table)?)?;
    let (parts, body) = request.into_parts();
    let op = operation_id(&parts)?;
    let ids = json::delete(&json_body(&parts, body).await?)?.ids;
    let named = ids.iter().map(ToString::to_string).collect();
    let receipt = gateway.router().delete(&context, &table, ids, op).await?;
    Ok(Json(ReceiptBody::new(named, receipt)))
}

/// Documents page by page, by shard, then by id.
#[utoipa::path(get, path = "/api/v1/tables/{table}/documents", tag = "documents",
    params(("table" = String, Path, description = "name of the table"),
        ("limit" = Option<u32>, Query, description = "1 to 1,000, default 100"),
        ("cursor" = Option<String>, Query, description = "next_cursor of the page before"),
        ("with_vector" = Option<bool>, Query, description = "default false"),
        ("consistency" = Option<String>, Query, description = "strong, strong-noclock, session (default), bounded or eventual"),
        ("max_staleness_ms" = Option<u64>, Query, description = "for consistency bounded, which needs it: 1 to 600,000"),
        ("session_token" = Option<String>, Query, description = "of an earlier answer: nothing older is read")),
    responses((status = 200, body = PageBody<'_>), (status = 400, body = ProblemBody<'_>), (status = 404, body = ProblemBody<'_>),
        (status = 409, description = "session_expired", body = ProblemBody<'_>)))]
pub(super) async fn list(
    State(gateway): State<ApiGateway>,
    Context(context): Context,
    table: Names<String>,
    asked: Result<Query<ReadQuery>, QueryRejection>,
) -> Result<Response, Problem> {
    let table = gateway.table(&names(table)?)?;
    let mut asked = query(asked)?;
    let read = asked.read();
    let draft = PageDraft {
        limit: asked.limit,
        cursor: asked.cursor,
        with_vector: asked.with_vector.unwrap_or(false),
    };
    let (page, read) = validate::page(draft, read, &table.schema)?;
    let page = gateway.router().list(&context, &table, page, &read).await?;
    Ok(Json(PageBody::from(&page)).into_response())
}

fn document_id(text: &str) -> Result<DocumentId, Error> {
    DocumentId::parse(text).map_err(|error| Error::invalid("/document_id", error.to_string()))
}

fn operation_id(parts: &Parts) -> Result<OpId, Error> {
    let header = parts.headers.get(IDEMPOTENCY_KEY).map(|value| value.to_str().unwrap_or("not text"));
    validate::operation_id(header, "Idempotency-Key")
}
