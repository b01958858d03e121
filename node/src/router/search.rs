//! Searches: one call to each node that is to answer for shards of the table, answers merged.

use bytes::Bytes;
use vectorsphere_proto::internal as proto;

use super::merge::merge;
use super::read::session;
use super::session_token::SessionToken;
use super::{RequestContext, Router};
use crate::document::{Metadata, vector_from_bytes, vector_to_bytes};
use crate::error_code::{Error, ErrorCode};
use crate::filter::wire;
use crate::ids::{DocumentId, ShardId, ShardIndex};
use crate::search::{
    ANSWER_BYTES_MAX, Hit, MissingShard, SearchRequest, SearchResult, SearchTarget, ShardExplanation,
};
use crate::table::Table;

impl Router {
    /// The best hits of all shards. A shard that cannot answer makes the search fail, or, when the caller allows
    /// it, is named in the answer.
    pub async fn search(
        &self,
        context: &RequestContext,
        table: &Table,
        request: SearchRequest,
    ) -> Result<SearchResult, Error> {
        let mut token = session(table, &request.read)?;
        let (vector, exclude_id) = self.resolve(context, table, &request, &mut token).await?;
        let mut query = Query { table, vector, exclude_id, token, request: &request };
        let answers = self.ask_all_shards(context, &query).await;
        let (mut lists, mut missing) = (Vec::with_capacity(answers.len()), Vec::new());
        let mut explanation = Vec::new();
        for (shard, answer) in answers {
            match answer {
                Ok(answer) => {
                    query.token.see(shard, answer.position);
                    lists.push(answer.hits);
                    if request.explain {
                        explanation.push(ShardExplanation { shard, segments: answer.segments });
                    }
                }
                Err(error) => missing.push((shard, error)),
            }
        }
        if !request.allow_partial
            && let Some((shard, error)) = missing.first()
        {
            return Err(incomplete(table, *shard, missing.len(), error));
        }
        let mut hits = merge(table.schema.metric, lists, (request.offset + request.top_k) as usize);
        hits.drain(..hits.len().min(request.offset as usize));
        check_size(&request, &hits)?;
        let missing = missing.into_iter().map(|(shard, error)| self.missing(table, shard, error)).collect();
        Ok(SearchResult { hits, missing, session_token: query.token.encode(), explanation })
    }

    fn missing(&self, table: &Table, shard: ShardIndex, error: Error) -> MissingShard {
        let view = self.view();
        let record = view.shards.get(&ShardId { table: table.id, index: shard });
        let node = record.and_then(|record| record.primary_node()).cloned();
        MissingShard { shard, node, reason: error.message }
    }

    /// The vector to look for, and the document to leave out.
    async fn resolve(
        &self,
        context: &RequestContext,
        table: &Table,
        request: &SearchRequest,
        token: &mut SessionToken,
    ) -> Result<(Bytes, String), Error> {
        let id = match &request.target {
            SearchTarget::Vector(vector) => return Ok((vector_to_bytes(vector), String::new())),
            SearchTarget::Document(id) => id,
        };
        let found = self.look_up(context, table, id, true, (request.read.consistency, token)).await?;
        let (document, _) = found.ok_or_else(|| {
            let name = &table.schema.name;
            let message = format!("document {id} does not exist in table {name}");
            Error::new(ErrorCode::DocumentNotFound, message)
        })?;
        Ok((vector_to_bytes(&document.vector), id.to_string()))
    }
}

/// A search whose target is resolved.
pub(super) struct Query<'r> {
    pub(super) table: &'r Table,
    vector: Bytes,
    exclude_id: String,
    token: SessionToken,
    pub(super) request: &'r SearchRequest,
}

impl Query<'_> {
    pub(super) fn to_proto(&self, router: &Router, shards: Vec<proto::ShardRef>) -> proto::SearchRequest {
        let part = |shard: proto::ShardRef| {
            let id = ShardId { table: self.table.id, index: ShardIndex(shard.shard) };
            let rule = router.rule(self.request.read.consistency, &self.token, id);
            proto::ShardPart { rule: Some(rule), shard: Some(shard) }
        };
        proto::SearchRequest {
            parts: shards.into_iter().map(part).collect(),
            vector: self.vector.clone(),
            top_k: self.request.offset + self.request.top_k,
            threshold: self.request.threshold,
            filter: self.request.filter.as_deref().map(wire::message),
            with_metadata: self.request.with_metadata,
            with_vector: self.request.with_vector,
            exclude_id: self.exclude_id.clone(),
            exact: self.request.exact,
            ef: self.request.ef.unwrap_or_default(),
            target_recall: self.request.target_recall,
            explain: self.request.explain,
        }
    }
}

/// A hit from another node.
pub(super) fn hit(hit: proto::Hit) -> Result<Hit, Error> {
    let broken = |what| Error::new(ErrorCode::Internal, format!("a shard answered with a broken {what}"));
    let metadata = match hit.metadata.is_empty() {
        true => None,
        false => Some(Metadata::from_stored(hit.metadata).ok_or_else(|| broken("metadata"))?),
    };
    let vector = match hit.vector.is_empty() {
        true => None,
        false => Some(vector_from_bytes(&hit.vector).ok_or_else(|| broken("vector"))?),
    };
    let id = DocumentId::parse(&hit.id).map_err(|_| broken("document id"))?;
    Ok(Hit { id, score: hit.score, metadata, vector })
}

/// Refuses hits that are too large for one answer: together, or already where a shard left parts of them out.
fn check_size(request: &SearchRequest, hits: &[Hit]) -> Result<(), Error> {
    let cut = |hit: &Hit| {
        request.with_metadata && hit.metadata.is_none() || request.with_vector && hit.vector.is_none()
    };
    let bytes: usize = hits.iter().map(Hit::answer_bytes).sum();
    if bytes <= ANSWER_BYTES_MAX && !hits.iter().any(cut) {
        return Ok(());
    }
    let message = format!(
        "the hits have more than {ANSWER_BYTES_MAX} bytes, ask for fewer, or without metadata and vectors"
    );
    Err(Error::new(ErrorCode::PayloadTooLarge, message))
}

fn incomplete(table: &Table, shard: ShardIndex, missing: usize, error: &Error) -> Error {
    let code = match error.code.is_transient() {
        true => ErrorCode::ShardUnavailable,
        false => error.code,
    };
    let shards = table.schema.shards;
    let hint = "allow_partial returns what the others have";
    let message =
        format!("{missing} of {shards} shards did not answer, {hint}; shard {shard}: {}", error.message);
    Error::new(code, message)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::search::{Consistency, ReadOptions};

    #[test]
    fn an_answer_over_the_limit_is_refused_wherever_its_hits_are() {
        let request = SearchRequest {
            target: SearchTarget::Vector(vec![1.0]),
            top_k: 3,
            offset: 0,
            exact: false,
            ef: None,
            target_recall: None,
            threshold: None,
            filter: None,
            explain: false,
            with_metadata: true,
            with_vector: false,
            allow_partial: false,
            read: ReadOptions { consistency: Consistency::Session, session_token: String::new() },
        };
        let hit = |bytes: Option<usize>| {
            let json = bytes.map(|bytes| format!("{{\"a\":\"{}\"}}", "x".repeat(bytes)));
            let metadata = json.map(|json| Metadata::from_stored(json.into()).expect("object"));
            Hit { id: DocumentId::parse("a").expect("valid"), score: 0.0, metadata, vector: None }
        };
        assert!(check_size(&request, &[hit(Some(10)), hit(Some(ANSWER_BYTES_MAX - 100))]).is_ok());
        let too_large = [hit(Some(200)), hit(Some(ANSWER_BYTES_MAX - 100))];
        let refused = check_size(&request, &too_large).expect_err("too large");
        assert_eq!(refused.code, ErrorCode::PayloadTooLarge);
        assert!(check_size(&request, &[hit(None)]).is_err(), "its node had no room for it");
        assert!(check_size(&SearchRequest { with_metadata: false, ..request }, &[hit(None)]).is_ok());
    }
}
