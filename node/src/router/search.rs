//! Searches: one call to each node that is to answer for shards of the table, answers merged.

use bytes::Bytes;
use futures::future::try_join_all;
use vectorsphere_proto::internal as proto;

use super::attempts::with_deadline;
use super::merge::merge;
use super::read::session;
use super::scatter::QueryHits;
use super::session_token::SessionToken;
use super::traffic::ReadKind;
use super::{RequestContext, Router};
use crate::comm::ShardClient;
use crate::document::{Metadata, vector_from_bytes, vector_to_bytes};
use crate::error_code::{Error, ErrorCode};
use crate::filter::{KeyPath, wire};
use crate::ids::{DocumentId, NodeId, ShardId, ShardIndex};
use crate::search::{
    ANSWER_BYTES_MAX, Consistency, Hit, MetadataChoice, MissingShard, QueryResult, SearchQuery,
    SearchRequest, SearchResult, SearchTarget, ShardExplanation,
};
use crate::table::Table;

/// Documents that the queries of one request are looked up for at once.
const LOOK_UPS_AT_ONCE: usize = 16;

impl Router {
    /// The best hits of all shards, for each query. A shard that cannot answer makes the search fail, or, when the caller
    /// allows it, is named in the answer.
    pub async fn search(
        &self,
        context: &RequestContext,
        table: &Table,
        request: SearchRequest,
    ) -> Result<SearchResult, Error> {
        let mut token = session(table, &request.read)?;
        let targets = self.resolve_all(context, table, &request, &mut token).await?;
        let mut query = Query { table, targets, token, request: &request };
        let answers = self.ask_all_shards(context, &query).await;
        let mut found: Vec<Found> = request.queries.iter().map(|_| Found::default()).collect();
        let mut missing = Vec::new();
        for (shard, answer) in answers {
            match answer {
                Ok(answer) => {
                    query.token.see(shard, answer.position);
                    for (found, QueryHits { hits, segments }) in found.iter_mut().zip(answer.queries) {
                        found.lists.push(hits);
                        found.explanation.push(ShardExplanation { shard, segments });
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
        let results = request.queries.iter().zip(found).map(|(query, found)| found.result(table, query));
        let queries: Vec<QueryResult> = results.collect();
        check_size(&request, &queries)?;
        let missing = missing.into_iter().map(|(shard, error)| self.missing(table, shard, error)).collect();
        Ok(SearchResult { queries, missing, session_token: query.token.encode() })
    }

    fn missing(&self, table: &Table, shard: ShardIndex, error: Error) -> MissingShard {
        let view = self.view();
        let record = view.shards.get(&ShardId { table: table.id, index: shard });
        let node = record.and_then(|record| record.primary_node()).cloned();
        MissingShard { shard, node, reason: error.message }
    }

    /// What the queries look for, in order; documents are looked up, some at a time, and `token` sees what that has shown.
    async fn resolve_all(
        &self,
        context: &RequestContext,
        table: &Table,
        request: &SearchRequest,
        token: &mut SessionToken,
    ) -> Result<Vec<Resolved>, Error> {
        let level = request.read.consistency;
        let mut targets = Vec::with_capacity(request.queries.len());
        for (part, queries) in request.queries.chunks(LOOK_UPS_AT_ONCE).enumerate() {
            let known = token.clone();
            let look_ups = queries.iter().enumerate().map(|(index, query)| {
                let number = part * LOOK_UPS_AT_ONCE + index;
                let number = (request.queries.len() > 1).then_some(number);
                self.resolve(context, table, (query, number), (level, &known))
            });
            for (target, seen) in try_join_all(look_ups).await? {
                token.see_all(&seen);
                targets.push(target);
            }
        }
        Ok(targets)
    }

    /// The vector of a query, which has a number where it is one of several.
    async fn resolve(
        &self,
        context: &RequestContext,
        table: &Table,
        (query, number): (&SearchQuery, Option<usize>),
        (consistency, token): (Consistency, &SessionToken),
    ) -> Result<(Resolved, SessionToken), Error> {
        let mut token = token.clone();
        let id = match &query.target {
            SearchTarget::Vector(vector) => {
                return Ok((Resolved { vector: vector_to_bytes(vector), exclude_id: String::new() }, token));
            }
            SearchTarget::Document(id) => id,
        };
        let found = self.look_up(context, table, id, true, (consistency, &mut token)).await?;
        let (document, _) = found.ok_or_else(|| {
            let name = &table.schema.name;
            let of = number.map(|number| format!(", which queries/{number} names,")).unwrap_or_default();
            let message = format!("document {id}{of} does not exist in table {name}");
            Error::new(ErrorCode::DocumentNotFound, message)
        })?;
        let vector = vector_to_bytes(&document.vector);
        Ok((Resolved { vector, exclude_id: id.to_string() }, token))
    }
}

/// What the shards found for one query.
#[derive(Default)]
struct Found {
    lists: Vec<Vec<Hit>>,
    explanation: Vec<ShardExplanation>,
}

impl Found {
    fn result(self, table: &Table, query: &SearchQuery) -> QueryResult {
        let (top_k, limit) =
            ((query.offset + query.top_k) as usize, query.group_by.as_ref().map(|by| by.limit));
        let mut hits = merge(table.schema.metric, self.lists, top_k, limit);
        hits.drain(..hits.len().min(query.offset as usize));
        QueryResult { hits, explanation: if query.explain { self.explanation } else { Vec::new() } }
    }
}

/// The vector to look for, and the document to leave out.
struct Resolved {
    vector: Bytes,
    /// Empty: none.
    exclude_id: String,
}

/// A search whose targets are resolved.
pub(super) struct Query<'r> {
    pub(super) table: &'r Table,
    targets: Vec<Resolved>,
    token: SessionToken,
    pub(super) request: &'r SearchRequest,
}

impl Query<'_> {
    /// Batches take longer, and their times say nothing of single searches.
    pub(super) fn kind(&self) -> ReadKind {
        if self.targets.len() == 1 { ReadKind::Search } else { ReadKind::SearchBatch }
    }

    /// Asks one node for some of the shards.
    pub(super) async fn ask(
        &self,
        router: &Router,
        context: &RequestContext,
        (node, mut client): (&NodeId, ShardClient),
        shards: Vec<proto::ShardRef>,
    ) -> Result<Vec<proto::ShardBatchAnswer>, Error> {
        let part = |shard: proto::ShardRef| {
            let id = ShardId { table: self.table.id, index: ShardIndex(shard.shard) };
            let rule = router.rule(self.request.read.consistency, &self.token, id);
            proto::ShardPart { rule: Some(rule), shard: Some(shard) }
        };
        let parts = shards.into_iter().map(part).collect();
        let queries = self.request.queries.iter().zip(&self.targets);
        let mut queries: Vec<proto::SearchRequest> =
            queries.map(|(query, target)| message(query, target)).collect();
        if queries.len() == 1 {
            let message = proto::SearchRequest { parts, ..queries.remove(0) };
            let request = with_deadline(context, message);
            let answer = router.answer_of(context, node, client.search(request)).await?;
            return Ok(answer.answers.into_iter().map(of_one).collect());
        }
        let request = with_deadline(context, proto::SearchBatchRequest { parts, queries });
        Ok(router.answer_of(context, node, client.search_batch(request)).await?.answers)
    }
}

fn message(query: &SearchQuery, target: &Resolved) -> proto::SearchRequest {
    proto::SearchRequest {
        parts: Vec::new(),
        vector: target.vector.clone(),
        top_k: query.offset + query.top_k,
        threshold: query.threshold,
        filter: query.filter.as_deref().map(wire::message),
        with_metadata: query.metadata.is_some(),
        with_vector: query.with_vector,
        exclude_id: target.exclude_id.clone(),
        exact: query.exact,
        ef: query.ef.unwrap_or_default(),
        target_recall: query.target_recall,
        group_key: query.group_by.as_ref().map(|by| by.key.to_string()).unwrap_or_default(),
        group_limit: query.group_by.as_ref().map_or(0, |by| by.limit),
        explain: query.explain,
        metadata_fields: match &query.metadata {
            MetadataChoice::Fields(paths) => paths.iter().map(KeyPath::to_string).collect(),
            MetadataChoice::Nothing | MetadataChoice::All => Vec::new(),
        },
    }
}

/// A shard's answer to a single query in the form of its answer to several.
fn of_one(answer: proto::ShardAnswer) -> proto::ShardBatchAnswer {
    let proto::ShardAnswer { shard, hits, failure, position, segments } = answer;
    proto::ShardBatchAnswer { shard, queries: vec![proto::QueryAnswer { hits, segments }], failure, position }
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
    let group = Some(hit.group).filter(|group| !group.is_empty()).map(String::into_boxed_str);
    Ok(Hit { id, score: hit.score, metadata, vector, group })
}

/// Refuses hits that are too large for one answer: together, or already where a shard left parts of them out.
fn check_size(request: &SearchRequest, results: &[QueryResult]) -> Result<(), Error> {
    let mut bytes = 0;
    let mut is_cut = false;
    for (query, result) in request.queries.iter().zip(results) {
        let cut = |hit: &Hit| {
            query.metadata.is_some() && hit.metadata.is_none() || query.with_vector && hit.vector.is_none()
        };
        bytes += result.hits.iter().map(Hit::answer_bytes).sum::<usize>();
        is_cut |= result.hits.iter().any(cut);
    }
    if bytes <= ANSWER_BYTES_MAX && !is_cut {
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
        let query = SearchQuery {
            target: SearchTarget::Vector(vec![1.0]),
            top_k: 3,
            offset: 0,
            exact: false,
            ef: None,
            target_recall: None,
            threshold: None,
            filter: None,
            explain: false,
            metadata: MetadataChoice::All,
            with_vector: false,
            group_by: None,
        };
        let read = ReadOptions { consistency: Consistency::Session, session_token: String::new() };
        let request = |queries| SearchRequest { queries, allow_partial: false, read: read.clone() };
        let hit = |bytes: Option<usize>| {
            let json = bytes.map(|bytes| format!("{{\"a\":\"{}\"}}", "x".repeat(bytes)));
            let metadata = json.map(|json| Metadata::from_stored(json.into()).expect("object"));
            Hit {
                id: DocumentId::parse("a").expect("valid"),
                score: 0.0,
                metadata,
                vector: None,
                group: None,
            }
        };
        let check = |query: &SearchQuery, hits: Vec<Vec<Hit>>| {
            let results = |hits| QueryResult { hits, explanation: Vec::new() };
            let queries = hits.iter().map(|_| query.clone()).collect();
            check_size(&request(queries), &hits.into_iter().map(results).collect::<Vec<_>>())
        };
        let (small, large) = (hit(Some(200)), hit(Some(ANSWER_BYTES_MAX - 100)));
        assert!(check(&query, vec![vec![hit(Some(10)), large.clone()]]).is_ok());
        let refused = check(&query, vec![vec![small.clone(), large.clone()]]).expect_err("too large");
        assert_eq!(refused.code, ErrorCode::PayloadTooLarge);
        assert!(check(&query, vec![vec![small], vec![large]]).is_err(), "it is one answer");
        assert!(check(&query, vec![vec![hit(None)]]).is_err(), "its node had no room for it");
        assert!(
            check(&SearchQuery { metadata: MetadataChoice::Nothing, ..query }, vec![vec![hit(None)]]).is_ok()
        );
    }
}
