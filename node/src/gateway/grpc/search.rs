//! `SearchService`.

use tonic::{Request, Response, Status};
use vectorsphere_proto::v1 as proto;
use vectorsphere_proto::v1::search_request::Query;
use vectorsphere_proto::v1::search_service_server::SearchService;

use super::super::validate::{self, GroupByDraft, MetadataDraft, SearchDraft, SearchRequestDraft};
use super::super::violations::Violations;
use super::Api;
use super::convert::{read_draft, vector_draft, vector_message};
use super::metadata::{metadata_message, value_message};
use crate::error_code::Error;
use crate::filter::wire;
use crate::search::{QueryResult, SearchResult, ShardExplanation};

#[tonic::async_trait]
impl SearchService for Api {
    async fn search(
        &self,
        request: Request<proto::SearchRequest>,
    ) -> Result<Response<proto::SearchResponse>, Status> {
        self.call("SearchService/Search", request, async |gateway, context, mut request| {
            let table = gateway.table(&request.table_name)?;
            let terms = (request.allow_partial, read_draft(request.read.take())?);
            let request = validate::search(draft(request), terms, &table.schema)?;
            let mut result = gateway.router().search(&context, &table, request).await?;
            let proto::QueryResult { hits, explanation } =
                result.queries.pop().map(|query| query_result(&query)).unwrap_or_default();
            let missing = missing(&result);
            Ok(proto::SearchResponse { hits, missing, session_token: result.session_token, explanation })
        })
        .await
    }

    async fn search_batch(
        &self,
        request: Request<proto::SearchBatchRequest>,
    ) -> Result<Response<proto::SearchBatchResponse>, Status> {
        self.call("SearchService/SearchBatch", request, async |gateway, context, request| {
            let table = gateway.table(&request.table_name)?;
            only_queries(&request.queries)?;
            let draft = SearchRequestDraft {
                queries: request.queries.into_iter().map(draft).collect(),
                allow_partial: request.allow_partial,
                read: read_draft(request.read)?,
            };
            let request = validate::search_batch(draft, &table.schema)?;
            let result = gateway.router().search(&context, &table, request).await?;
            Ok(proto::SearchBatchResponse {
                results: result.queries.iter().map(query_result).collect(),
                missing: missing(&result),
                session_token: result.session_token,
            })
        })
        .await
    }
}

/// Refuses queries of a batch that name what holds for the whole batch.
fn only_queries(queries: &[proto::SearchRequest]) -> Result<(), Error> {
    let mut violations = Violations::default();
    for (index, query) in queries.iter().enumerate() {
        let given = [
            ("table_name", !query.table_name.is_empty()),
            ("allow_partial", query.allow_partial),
            ("read", query.read.is_some()),
        ];
        for (name, _) in given.into_iter().filter(|(_, is_given)| *is_given) {
            let message = format!("{name} holds for the whole batch, queries leave it empty");
            violations.add(format!("/queries/{index}/{name}"), message);
        }
    }
    violations.into_result()
}

fn draft(request: proto::SearchRequest) -> SearchDraft {
    let mut draft = SearchDraft {
        top_k: (request.top_k > 0).then_some(u64::from(request.top_k)),
        offset: Some(u64::from(request.offset)),
        exact: request.exact,
        ef: (request.ef > 0).then_some(u64::from(request.ef)),
        target_recall: request.target_recall,
        threshold: request.threshold,
        filter: request.filter.map(wire::draft),
        metadata: metadata_draft(request.with_metadata, request.metadata_fields),
        with_vector: request.with_vector,
        explain: request.explain,
        group_by: request
            .group_by
            .map(|by| GroupByDraft { key: by.key, limit: (by.limit > 0).then_some(u64::from(by.limit)) }),
        ..SearchDraft::default()
    };
    match request.query {
        Some(Query::Vector(vector)) => draft.vector = Some(vector_draft(vector)),
        Some(Query::DocumentId(id)) => draft.document_id = Some(id),
        None => {}
    }
    draft
}

fn metadata_draft(with_metadata: bool, fields: Vec<String>) -> MetadataDraft {
    match (fields.len(), with_metadata) {
        (0, false) => MetadataDraft::Nothing,
        (0, true) => MetadataDraft::All,
        (given, _) => MetadataDraft::Fields { name: "metadata_fields", paths: fields, given },
    }
}

fn query_result(result: &QueryResult) -> proto::QueryResult {
    let hits = result.hits.iter().map(|hit| proto::Hit {
        document_id: hit.id.to_string(),
        score: hit.score,
        metadata: hit.metadata.as_ref().map(metadata_message),
        vector: hit.vector.as_deref().map(vector_message),
        group: hit.group.as_deref().and_then(value_message),
    });
    let explanation = result.explanation.iter().map(ShardExplanation::to_proto);
    proto::QueryResult { hits: hits.collect(), explanation: explanation.collect() }
}

fn missing(result: &SearchResult) -> Vec<proto::MissingShard> {
    let missing = result.missing.iter().map(|missing| proto::MissingShard {
        shard: missing.shard.0,
        node_id: missing.node.as_ref().map(ToString::to_string).unwrap_or_default(),
        reason: missing.reason.clone(),
    });
    missing.collect()
}
