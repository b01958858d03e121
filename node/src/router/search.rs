//! Searches: one call to each node that holds shards of the table, answers merged.

use std::collections::BTreeMap;

use bytes::Bytes;
use futures::future::join_all;
use vectorsphere_proto::internal as proto;

use super::attempts::{Attempts, before, with_deadline};
use super::merge::merge;
use super::read::session;
use super::session_token::SessionToken;
use super::{RequestContext, Router};
use crate::document::{Metadata, vector_from_bytes, vector_to_bytes};
use crate::error_code::{Error, ErrorCode};
use crate::ids::{DocumentId, NodeId, ShardId, ShardIndex};
use crate::search::{ANSWER_BYTES_MAX, Hit, MissingShard, SearchRequest, SearchResult, SearchTarget};
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
        let token = session(table, &request.read)?;
        let (vector, exclude_id) = self.resolve(context, table, &request).await?;
        let query = Query { vector, exclude_id, token, request: &request };
        let (lists, missing) = self.ask_all_shards(context, table, &query).await;
        if !request.allow_partial
            && let Some((shard, error)) = missing.first()
        {
            return Err(incomplete(table, *shard, missing.len(), error));
        }
        let view = self.view();
        let missing = missing.into_iter().map(|(index, error)| MissingShard {
            shard: index,
            node: view
                .shards
                .get(&ShardId { table: table.id, index })
                .and_then(|shard| shard.primary_node())
                .cloned(),
            reason: error.message,
        });
        let hits = merge(table.schema.metric, lists, request.top_k as usize);
        check_size(&request, &hits)?;
        Ok(SearchResult { hits, missing: missing.collect() })
    }

    /// The vector to look for, and the document to leave out.
    async fn resolve(
        &self,
        context: &RequestContext,
        table: &Table,
        request: &SearchRequest,
    ) -> Result<(Bytes, String), Error> {
        match &request.target {
            SearchTarget::Vector(vector) => Ok((vector_to_bytes(vector), String::new())),
            SearchTarget::Document(id) => match self.get(context, table, id, true, &request.read).await? {
                Some(stored) => Ok((vector_to_bytes(&stored.document.vector), id.to_string())),
                None => {
                    let name = &table.schema.name;
                    let message = format!("document {id} does not exist in table {name}");
                    Err(Error::new(ErrorCode::DocumentNotFound, message))
                }
            },
        }
    }

    /// Asks every shard, again where the map was stale; the rest is what did not answer.
    async fn ask_all_shards(
        &self,
        context: &RequestContext,
        table: &Table,
        query: &Query<'_>,
    ) -> (Vec<Vec<Hit>>, Vec<(ShardIndex, Error)>) {
        let mut attempts = Attempts::new(self, context);
        let mut pending: Vec<ShardIndex> = (0..table.schema.shards).map(ShardIndex).collect();
        let (mut lists, mut missing) = (Vec::with_capacity(pending.len()), Vec::new());
        loop {
            let mut failed = Vec::new();
            for (shard, answer) in self.ask_once(context, table, query, &pending).await {
                match answer {
                    Ok(hits) => lists.push(hits),
                    Err(error) if error.code.is_transient() => failed.push((shard, error)),
                    Err(error) => missing.push((shard, error)),
                }
            }
            let Some((_, error)) = failed.first() else { break };
            if !missing.is_empty() || !attempts.again(error).await {
                missing.append(&mut failed);
                break;
            }
            pending = failed.into_iter().map(|(shard, _)| shard).collect();
        }
        missing.sort_unstable_by_key(|(shard, _)| *shard);
        (lists, missing)
    }

    /// One round: all nodes in parallel, one call each.
    async fn ask_once(
        &self,
        context: &RequestContext,
        table: &Table,
        query: &Query<'_>,
        shards: &[ShardIndex],
    ) -> Vec<(ShardIndex, Result<Vec<Hit>, Error>)> {
        let mut answers = Vec::with_capacity(shards.len());
        let mut by_node: BTreeMap<NodeId, Vec<proto::ShardRef>> = BTreeMap::new();
        for index in shards {
            match self.route(ShardId { table: table.id, index: *index }) {
                Ok(route) => by_node.entry(route.node).or_default().push(route.shard),
                Err(error) => answers.push((*index, Err(error))),
            }
        }
        let calls = by_node.into_iter().map(|(node, parts)| self.ask_node(context, query, node, parts));
        answers.extend(join_all(calls).await.into_iter().flatten());
        answers
    }

    async fn ask_node(
        &self,
        context: &RequestContext,
        query: &Query<'_>,
        node: NodeId,
        parts: Vec<proto::ShardRef>,
    ) -> Vec<(ShardIndex, Result<Vec<Hit>, Error>)> {
        let shards: Vec<ShardIndex> = parts.iter().map(|part| ShardIndex(part.shard)).collect();
        let answer = match self.shard_client(&node) {
            Ok(mut client) => {
                let request = with_deadline(context, query.to_proto(parts));
                before(context, client.search(request)).await
            }
            Err(error) => Err(error),
        };
        match answer {
            Ok(answer) if answer.answers.len() == shards.len() => {
                shards.into_iter().zip(answer.answers.into_iter().map(hits)).collect()
            }
            Ok(_) => {
                let error = Error::new(ErrorCode::Internal, format!("node {node} left out shards"));
                shards.into_iter().map(|shard| (shard, Err(error.clone()))).collect()
            }
            Err(mut error) => {
                error.message = format!("node {node}: {}", error.message);
                shards.into_iter().map(|shard| (shard, Err(error.clone()))).collect()
            }
        }
    }
}

/// A search whose target is resolved.
struct Query<'r> {
    vector: Bytes,
    exclude_id: String,
    token: SessionToken,
    request: &'r SearchRequest,
}

impl Query<'_> {
    fn to_proto(&self, parts: Vec<proto::ShardRef>) -> proto::SearchRequest {
        let part = |shard: proto::ShardRef| proto::ShardPart {
            min_lsn: self.token.position(ShardIndex(shard.shard)).0,
            shard: Some(shard),
        };
        proto::SearchRequest {
            parts: parts.into_iter().map(part).collect(),
            vector: self.vector.clone(),
            top_k: self.request.top_k,
            threshold: self.request.threshold,
            with_metadata: self.request.with_metadata,
            with_vector: self.request.with_vector,
            exclude_id: self.exclude_id.clone(),
        }
    }
}

/// The hits of one shard.
fn hits(answer: proto::ShardAnswer) -> Result<Vec<Hit>, Error> {
    if let Some(failure) = answer.failure {
        let code = ErrorCode::parse(&failure.code).unwrap_or(ErrorCode::Internal);
        return Err(Error::new(code, failure.message));
    }
    answer.hits.into_iter().map(hit).collect()
}

fn hit(hit: proto::Hit) -> Result<Hit, Error> {
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
    use crate::search::ReadOptions;

    #[test]
    fn an_answer_over_the_limit_is_refused_wherever_its_hits_are() {
        let request = SearchRequest {
            target: SearchTarget::Vector(vec![1.0]),
            top_k: 3,
            threshold: None,
            with_metadata: true,
            with_vector: false,
            allow_partial: false,
            read: ReadOptions::default(),
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
