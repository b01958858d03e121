//! `/api/v1/tables`.

use std::collections::BTreeMap;

use axum::Json;
use axum::extract::{Request, State};
use axum::http::StatusCode;
use serde::Deserialize;
use utoipa::ToSchema;

use super::super::{ApiGateway, json, validate};
use super::answers::{TableBody, TableStatisticsBody, TablesBody};
use super::problem::{Problem, ProblemBody};
use super::request::{Context, Names, json_body, names};

/// A new table.
#[derive(Deserialize, ToSchema)]
#[schema(as = CreateTable, example = json!({"table_name": "my_vectors", "dimension": 128, "index_type": "flat"}))]
#[expect(dead_code, reason = "describes what the parser in `json` reads")]
struct CreateTableBody {
    /// `[a-z0-9][a-z0-9_-]{0,62}`.
    table_name: String,
    /// Values of each vector, 1 to 65,536.
    dimension: u32,
    /// `cosine` (default), `l2` or `dot`.
    metric: Option<String>,
    /// How values are kept: `f32` (default) as given; `f16` or `bf16` in half the memory and disk, rounded to the nearest. `f16`
    /// refuses values above 65,504 in size.
    storage_type: Option<String>,
    /// Path of the text in each document's metadata that says whose it is; without `[]`.
    tenant_key: Option<String>,
    /// How many documents there will be, 1 to 2^40: a table that would need more memory than the slaves have left is refused.
    expected_documents: Option<u64>,
    /// Where vectors are kept: `memory` (default), or `disk`: in their files but for the newest, with what was read of late in a
    /// cache of the node.
    rows: Option<String>,
    /// `auto` (default): large segments are searched through graphs; `hnsw`: smaller ones too; `flat`: every row is read;
    /// `ivf`: inverted lists of FAISS; `faiss:<factory string>`: what FAISS makes of that string.
    index_type: Option<String>,
    /// How graphs are built, for `auto` and `hnsw`.
    index_options: Option<IndexOptionsBody>,
    /// 1 to 1,024; default: `default_shards` of the configuration.
    shards: Option<u32>,
    /// Copies of each shard, 1 to 7; default: `table.default_replicas` of the configuration, or fewer where there are fewer
    /// slaves.
    replicas: Option<u32>,
    /// In-sync copies that a write needs, 1 to `replicas`; default: half of `replicas`, rounded up.
    min_isr: Option<u32>,
    /// Fields of metadata that get an index, and its type: `keyword`, `bool`, `integer`, `float`, `datetime` or `geo`. At most
    /// 64.
    #[schema(example = json!({"section": "keyword", "size_kib": "integer"}))]
    metadata_indexes: Option<BTreeMap<String, String>>,
}

/// How graphs are built. What is absent is as usual.
#[derive(Deserialize, ToSchema)]
#[schema(as = IndexOptions, example = json!({"m": 24, "ef_construction": 256, "code_bits": 8}))]
#[expect(dead_code, reason = "describes what the parser in `json` reads")]
struct IndexOptionsBody {
    /// Links of a vector, 2 to 32, as graphs of several levels count them: the lowest has twice as many. Default: 16.
    m: Option<u32>,
    /// Candidates that are looked at for each vector, 8 to 2,048: more make a better graph and a longer build. Default: 128.
    ef_construction: Option<u32>,
    /// Bits of a value in the codes that walks decide by: 1, 4, 8 or `auto` (default): 8 up to 256 dimensions, 4 beyond.
    #[schema(value_type = Value)]
    code_bits: Option<serde_json::Value>,
    /// 1 to 2: more keeps more links to vectors far away. Default: 1.1.
    alpha: Option<f32>,
}

/// An index of a field of metadata.
#[derive(Deserialize, ToSchema)]
#[schema(as = MetadataIndex, example = json!({"type": "keyword"}))]
#[expect(dead_code, reason = "describes what the parser in `json` reads")]
struct MetadataIndexBody {
    /// `keyword`, `bool`, `integer`, `float`, `datetime` or `geo`.
    r#type: String,
}

/// All tables, by name.
#[utoipa::path(get, path = "/api/v1/tables", tag = "tables", responses((status = 200, body = TablesBody)))]
pub(super) async fn list(State(gateway): State<ApiGateway>) -> Json<TablesBody> {
    let view = gateway.view();
    Json(TablesBody { tables: view.tables.values().map(|table| TableBody::from(&**table)).collect() })
}

/// Creates a table and answers when its shards are ready.
#[utoipa::path(post, path = "/api/v1/tables", tag = "tables", request_body = CreateTableBody,
    responses((status = 201, body = TableBody), (status = 400, body = ProblemBody<'_>),
        (status = 409, description = "a table of this name exists", body = ProblemBody<'_>),
        (status = 503, description = "no Master, or too few slaves", body = ProblemBody<'_>)))]
pub(super) async fn create(
    State(gateway): State<ApiGateway>,
    Context(context): Context,
    request: Request,
) -> Result<(StatusCode, Json<TableBody>), Problem> {
    let (parts, body) = request.into_parts();
    let draft = json::table(&json_body(&parts, body).await?)?;
    let schema = validate::table_schema(&draft, gateway.table_defaults())?;
    let table = gateway.router().create_table(&context, schema, draft.expected_documents).await?;
    Ok((StatusCode::CREATED, Json(TableBody::from(&table))))
}

/// One table.
#[utoipa::path(get, path = "/api/v1/tables/{table}", tag = "tables",
    params(("table" = String, Path, description = "name of the table")),
    responses((status = 200, body = TableBody), (status = 404, body = ProblemBody<'_>)))]
pub(super) async fn get(
    State(gateway): State<ApiGateway>,
    table: Names<String>,
) -> Result<Json<TableBody>, Problem> {
    let table = gateway.table(&names(table)?)?;
    Ok(Json(TableBody::from(&*table)))
}

/// Deletes a table with all its documents.
#[utoipa::path(delete, path = "/api/v1/tables/{table}", tag = "tables",
    params(("table" = String, Path, description = "name of the table")),
    responses((status = 204, description = "gone"), (status = 404, body = ProblemBody<'_>)))]
pub(super) async fn delete(
    State(gateway): State<ApiGateway>,
    Context(context): Context,
    table: Names<String>,
) -> Result<StatusCode, Problem> {
    let name = ApiGateway::table_name(&names(table)?)?;
    gateway.router().delete_table(&context, &name).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Lets every segment have an index of a field; one of another type is replaced. It is built in the background, and filters do
/// without until then.
#[utoipa::path(put, path = "/api/v1/tables/{table}/metadata_indexes/{field}", tag = "tables",
    params(("table" = String, Path, description = "name of the table"),
        ("field" = String, Path, description = "path of the field, as in filters")),
    request_body = MetadataIndexBody,
    responses((status = 200, body = TableBody), (status = 400, body = ProblemBody<'_>), (status = 404, body = ProblemBody<'_>)))]
pub(super) async fn put_metadata_index(
    State(gateway): State<ApiGateway>,
    Context(context): Context,
    path: Names<(String, String)>,
    request: Request,
) -> Result<Json<TableBody>, Problem> {
    let (table, field) = names(path)?;
    let table = gateway.table(&table)?;
    let (parts, body) = request.into_parts();
    let word = json::index_type(&json_body(&parts, body).await?)?;
    let (field, kind) = validate::metadata_index(&field, Some(&word))?;
    let table = gateway.router().set_metadata_index(&context, &table, &field, kind).await?;
    Ok(Json(TableBody::from(&table)))
}

/// Removes the index of a field; one that is not there is no error.
#[utoipa::path(delete, path = "/api/v1/tables/{table}/metadata_indexes/{field}", tag = "tables",
    params(("table" = String, Path, description = "name of the table"),
        ("field" = String, Path, description = "path of the field, as in filters")),
    responses((status = 200, body = TableBody), (status = 400, body = ProblemBody<'_>), (status = 404, body = ProblemBody<'_>)))]
pub(super) async fn delete_metadata_index(
    State(gateway): State<ApiGateway>,
    Context(context): Context,
    path: Names<(String, String)>,
) -> Result<Json<TableBody>, Problem> {
    let (table, field) = names(path)?;
    let table = gateway.table(&table)?;
    let (field, _) = validate::metadata_index(&field, None)?;
    let table = gateway.router().set_metadata_index(&context, &table, &field, None).await?;
    Ok(Json(TableBody::from(&table)))
}

/// Counts and sizes, gathered from the shards now.
#[utoipa::path(get, path = "/api/v1/tables/{table}/stats", tag = "tables",
    params(("table" = String, Path, description = "name of the table")),
    responses((status = 200, body = TableStatisticsBody), (status = 404, body = ProblemBody<'_>)))]
pub(super) async fn statistics(
    State(gateway): State<ApiGateway>,
    Context(context): Context,
    table: Names<String>,
) -> Result<Json<TableStatisticsBody>, Problem> {
    let table = gateway.table(&names(table)?)?;
    let statistics = gateway.router().statistics(&context, &table).await;
    Ok(Json(TableStatisticsBody::new(&table, &statistics)))
}
