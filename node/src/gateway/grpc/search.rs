//! `SearchService`.

use tonic::{Request, Response, Status};
use vectorsphere_proto::v1 as proto;
use vectorsphere_proto::v1::search_request::Query;
use vectorsphere_proto::v1::search_service_server::SearchService;

use super::super::validate::{self, SearchDraft};
use super::Api;
use super::convert::{metadata_message, read_draft, vector_draft, vector_message};
use crate::filter::wire;
use crate::search::ShardExplanation;

#[tonic::async_trait]
impl SearchService for Api {
    async fn search(
        &self,
        request: Request<proto::SearchRequest>,
    ) -> Result<Response<proto::SearchResponse>, Status> {
        self.call("SearchService/Search", request, async |gateway, context, request| {
            let table = gateway.table(&request.table_name)?;
            let mut draft = SearchDraft {
                top_k: (request.top_k > 0).then_some(u64::from(request.top_k)),
                offset: Some(u64::from(request.offset)),
                exact: request.exact,
                ef: (request.ef > 0).then_some(u64::from(request.ef)),
                target_recall: request.target_recall,
                threshold: request.threshold,
                filter: request.filter.map(wire::draft),
                with_metadata: request.with_metadata,
                with_vector: request.with_vector,
                explain: request.explain,
                allow_partial: request.allow_partial,
                read: read_draft(request.read)?,
                ..SearchDraft::default()
            };
            match request.query {
                Some(Query::Vector(vector)) => draft.vector = Some(vector_draft(vector)),
                Some(Query::DocumentId(id)) => draft.document_id = Some(id),
                None => {}
            }
            let result =
                gateway.router().search(&context, &table, validate::search(draft, &table.schema)?).await?;
            let hits = result.hits.iter().map(|hit| proto::Hit {
                document_id: hit.id.to_string(),
                score: hit.score,
                metadata: hit.metadata.as_ref().map(metadata_message),
                vector: hit.vector.as_deref().map(vector_message),
            });
            let missing = result.missing.iter().map(|missing| proto::MissingShard {
                shard: missing.shard.0,
                node_id: missing.node.as_ref().map(ToString::to_string).unwrap_or_default(),
                reason: missing.reason.clone(),
            });
            Ok(proto::SearchResponse {
                hits: hits.collect(),
                missing: missing.collect(),
                session_token: result.session_token.clone(),
                explanation: result.explanation.iter().map(ShardExplanation::to_proto).collect(),
            })
        })
        .await
    }
}
