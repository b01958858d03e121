//! The REST API.

mod admin;
mod answers;
mod cluster;
mod documents;
mod filter;
mod middleware;
mod probes;
mod problem;
mod request;
mod search;
mod server;
mod shards;
mod tables;

use axum::Router;
use axum::middleware::from_fn_with_state;
use axum::routing::post;
use utoipa::OpenApi;
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityRequirement, SecurityScheme};
use utoipa::openapi::{ContentBuilder, PathItem, Ref, ResponseBuilder};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

pub use server::serve;

use super::ApiGateway;
use crate::error_code::{Error, ErrorCode};
use problem::Problem;

/// The head of the description; paths and schemas come from the handlers.
#[derive(OpenApi)]
#[openapi(
    info(
        title = "VectorSphere",
        description = "A distributed vector database. Errors are problem documents (RFC 9457) with a stable `code`.",
        license(name = "MIT", identifier = "MIT")
    ),
    tags(
        (name = "tables", description = "Tables of vectors"),
        (name = "documents", description = "Documents: an id, a vector, metadata"),
        (name = "search", description = "Similarity search"),
        (name = "cluster", description = "What the cluster consists of"),
        (name = "probes", description = "Health, metrics and description of one node")
    )
)]
struct Description;

/// Every route of a node that has a router; a slave has the probes alone.
pub fn routes_of(gateway: ApiGateway) -> Router {
    let is_gateway = gateway.parts().router.is_some();
    let (open, _) = open_routes().split_for_parts();
    let (closed, _) = if is_gateway { described() } else { slave_routes() }.split_for_parts();
    let elsewhere = match is_gateway {
        true => "there is no such path; /openapi.json lists them",
        false => "there is no such path on a slave, which has no API; ask a node of type master or auto",
    };
    open.merge(closed)
        .method_not_allowed_fallback(async || {
            Problem(Error::new(ErrorCode::MethodNotAllowed, "this path does not take this method"))
        })
        .fallback(async move || Problem(Error::new(ErrorCode::RouteNotFound, elsewhere)))
        .layer(from_fn_with_state(gateway.clone(), middleware::pass_the_door))
        .with_state(gateway)
}

/// The OpenAPI description as committed in `docs/reference/openapi.json`.
pub fn openapi() -> String {
    let (_, api) = described().split_for_parts();
    let mut text = serde_json::to_string_pretty(&completed(api)).expect("a description is JSON");
    text.push('\n');
    text
}

/// Asks for nothing: the orchestrator has no token.
fn open_routes() -> OpenApiRouter<ApiGateway> {
    OpenApiRouter::new()
        .routes(routes!(probes::livez))
        .routes(routes!(probes::readyz))
        .routes(routes!(probes::health))
}

fn slave_routes() -> OpenApiRouter<ApiGateway> {
    OpenApiRouter::new().routes(routes!(probes::metrics))
}

fn described() -> OpenApiRouter<ApiGateway> {
    OpenApiRouter::with_openapi(Description::openapi())
        .routes(routes!(probes::metrics))
        .routes(routes!(probes::description))
        .routes(routes!(tables::list, tables::create))
        .routes(routes!(tables::get, tables::delete))
        .routes(routes!(tables::statistics))
        .routes(routes!(tables::put_metadata_index, tables::delete_metadata_index))
        .routes(routes!(shards::list_shards))
        .merge(OpenApiRouter::with_openapi(shards::ActionsDescription::openapi()))
        .route(shards::ACTIONS, post(shards::act))
        .routes(routes!(documents::list, documents::upsert))
        .routes(routes!(documents::get, documents::put, documents::patch, documents::delete))
        .routes(routes!(documents::delete_many))
        .routes(routes!(search::search))
        .routes(routes!(search::search_batch))
        .routes(routes!(cluster::status))
        .routes(routes!(cluster::nodes))
        .routes(routes!(cluster::statistics))
        .routes(routes!(admin::drain, admin::start_drain, admin::cancel_drain))
        .routes(routes!(admin::hand_over_master))
        .merge(open_routes_described())
}

/// The probes again, for the description alone: their routes are merged from [`open_routes`].
fn open_routes_described() -> OpenApiRouter<ApiGateway> {
    let (_, api) = open_routes().split_for_parts();
    OpenApiRouter::with_openapi(api)
}

/// Adds what holds for every operation: credentials, which the probes do without, and the form of errors.
fn completed(mut api: utoipa::openapi::OpenApi) -> utoipa::openapi::OpenApi {
    let bearer = HttpBuilder::new().scheme(HttpAuthScheme::Bearer).bearer_format("JWT").build();
    let components = api.components.get_or_insert_default();
    components.add_security_scheme("token", SecurityScheme::Http(bearer));
    // The empty one: authentication is off unless the configuration says otherwise.
    let anonymous_or_token =
        vec![SecurityRequirement::default(), SecurityRequirement::new("token", Vec::<String>::new())];
    api.security = Some(anonymous_or_token);
    let problem = ContentBuilder::new().schema(Some(Ref::from_schema_name("Problem"))).build();
    let problem =
        ResponseBuilder::new().description("an error").content("application/problem+json", problem).build();
    for item in api.paths.paths.values_mut() {
        let PathItem { get, put, post, patch, delete, .. } = item;
        for operation in [get, put, post, patch, delete].into_iter().flatten() {
            // Handlers of several files have the same name; clients that are generated need unique ones.
            if let (Some(tags), Some(id)) = (&operation.tags, &mut operation.operation_id) {
                *id = format!("{}_{id}", tags.concat());
            }
            operation.responses.responses.insert("default".to_owned(), problem.clone().into());
        }
    }
    api
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_description_does_not_drift() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/reference/openapi.json");
        let committed = std::fs::read_to_string(path).unwrap_or_default();
        assert!(committed == openapi(), "run `vectorsphere openapi > docs/reference/openapi.json`");
    }
}
