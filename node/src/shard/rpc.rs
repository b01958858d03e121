//! `vectorsphere.internal.v1.ShardService`: requests of routers to the shards of this node.
//!
//! Everything is checked here again, although gateways did: what is logged must never be refused at replay.

use std::sync::Arc;
use std::time::Instant;

use futures::future::join_all;
use prost::Message as _;
use tonic::{Request, Response, Status};
use vectorsphere_proto::internal::shard_service_server::ShardService;
use vectorsphere_proto::internal::{self as proto};

use super::index_service::IndexService;
use super::memory::NodeMemory;
use super::parse;
use super::replica::Replica;
use super::search::{
    Engine, PlannedQuery, Ranking, SearchFailure, ShardQuery, is_read_out_at_once, read_out, search,
    search_batch,
};
use super::snapshot_filter::SnapshotFilter;
use crate::comm::convert::to_status;
use crate::document::{Document, vector_to_bytes};
use crate::error_code::{Error, ErrorCode};
use crate::ids::{DocumentId, Lsn};
use crate::runtime::PoolError;
use crate::search::{
    ANSWER_BYTES_MAX, BATCH_HITS_MAX, EF_MAX, Hit, QUERIES_MAX, SegmentExplanation, TARGET_RECALL, TOP_K_MAX,
};
use crate::storage::segment::SegmentView;
use crate::storage::{Batch, Snapshot, StorageError};

/// Documents of one page, at most.
const PAGE_DOCUMENTS_MAX: u32 = 1_000;

#[tonic::async_trait]
impl ShardService for IndexService {
    async fn write(
        &self,
        request: Request<proto::WriteRequest>,
    ) -> Result<Response<proto::WriteResponse>, Status> {
        self.write_batch(request.into_inner()).await.map(Response::new).map_err(|error| to_status(&error))
    }

    async fn get(&self, request: Request<proto::GetRequest>) -> Result<Response<proto::GetResponse>, Status> {
        self.get_document(request.into_inner()).await.map(Response::new).map_err(|error| to_status(&error))
    }

    async fn list(
        &self,
        request: Request<proto::ListRequest>,
    ) -> Result<Response<proto::ListResponse>, Status> {
        self.list_documents(request.into_inner()).await.map(Response::new).map_err(|error| to_status(&error))
    }

    async fn search(
        &self,
        request: Request<proto::SearchRequest>,
    ) -> Result<Response<proto::SearchResponse>, Status> {
        let mut request = request.into_inner();
        let parts = std::mem::take(&mut request.parts);
        let answers = match shard_query("", request) {
            Ok(query) => self.search_shards(parts, vec![query]).await,
            Err(error) => Err(error),
        };
        let of_one = |answer: proto::ShardBatchAnswer| {
            let proto::ShardBatchAnswer { shard, mut queries, failure, position } = answer;
            let proto::QueryAnswer { hits, segments } = queries.pop().unwrap_or_default();
            proto::ShardAnswer { shard, hits, failure, position, segments }
        };
        let answers = answers.map_err(|error| to_status(&error))?.into_iter().map(of_one).collect();
        Ok(Response::new(proto::SearchResponse { answers }))
    }

    async fn search_batch(
        &self,
        request: Request<proto::SearchBatchRequest>,
    ) -> Result<Response<proto::SearchBatchResponse>, Status> {
        let proto::SearchBatchRequest { parts, queries } = request.into_inner();
        let answers = match shard_queries(queries) {
            Ok(queries) => self.search_shards(parts, queries).await,
            Err(error) => Err(error),
        };
        let answers = answers.map_err(|error| to_status(&error))?;
        Ok(Response::new(proto::SearchBatchResponse { answers }))
    }

    async fn statistics(
        &self,
        request: Request<proto::StatisticsRequest>,
    ) -> Result<Response<proto::StatisticsResponse>, Status> {
        let shards = request.into_inner().shards.into_iter();
        let open = shards.filter_map(|shard| self.shard_statistics(shard).ok());
        let NodeMemory { limit, held, reserved } = self.memory.memory();
        let memory = Some(proto::NodeMemory { limit, held, reserved });
        Ok(Response::new(proto::StatisticsResponse { shards: open.collect(), memory }))
    }
}

/// What a shard found.
struct Ranked {
    replica: Arc<Replica>,
    /// One for each query, in order.
    rankings: Vec<Ranking>,
    position: proto::ReadPosition,
    /// For each query, when it was asked for.
    segments: Vec<Vec<SegmentExplanation>>,
}

impl IndexService {
    async fn write_batch(&self, request: proto::WriteRequest) -> Result<proto::WriteResponse, Error> {
        let (shard, epoch) = parse::shard(request.shard.as_ref())?;
        let replica = self.replica(shard)?;
        // Before it is parsed, which takes memory again.
        let room = self.write_room.take(request.encoded_len())?;
        let op_id = parse::op_id(&request.op_id)?;
        let base = (request.base_lsn > 0).then_some(Lsn(request.base_lsn));
        let (dimension, storage_type) = (replica.dimension(), replica.storage_type());
        let operations = parse::operations(request.operations, dimension, storage_type, replica.metric())?;
        let receipt = replica.write(epoch, Batch { op_id, base, operations }, room).await?;
        Ok(proto::WriteResponse {
            lsn: receipt.lsn.0,
            affected: receipt.affected,
            durable_copies: receipt.durable_copies,
            incarnation: replica.incarnation(),
        })
    }

    async fn get_document(&self, request: proto::GetRequest) -> Result<proto::GetResponse, Error> {
        let (shard, epoch) = parse::shard(request.shard.as_ref())?;
        let replica = self.replica(shard)?;
        let id = parse::document_id("/id", &request.id)?;
        let rule = parse::read_rule(request.rule.as_ref())?;
        let found = replica.get(epoch, rule, id.as_str(), request.with_vector).await?;
        // Taken after the look-up: it shows at least what that has shown.
        let position = Some(position(&replica, replica.reader.snapshot().lsn));
        Ok(match found {
            None => proto::GetResponse { position, ..proto::GetResponse::default() },
            Some((document, version)) => {
                let document = Some(document_to_proto(&document));
                proto::GetResponse { document, version: version.0, position }
            }
        })
    }

    async fn list_documents(&self, request: proto::ListRequest) -> Result<proto::ListResponse, Error> {
        let (shard, epoch) = parse::shard(request.shard.as_ref())?;
        if !(1..=PAGE_DOCUMENTS_MAX).contains(&request.limit) {
            let message = format!("limit is {}, must be 1 to {PAGE_DOCUMENTS_MAX}", request.limit);
            return Err(Error::invalid("/limit", message));
        }
        let replica = self.replica(shard)?;
        let rule = parse::read_rule(request.rule.as_ref())?;
        let snapshot = replica.snapshot(epoch, rule).await?;
        let position = Some(position(&replica, snapshot.lsn));
        let bytes_max = usize::try_from(request.bytes_max).unwrap_or(usize::MAX).min(ANSWER_BYTES_MAX);
        let list = move || {
            let limit = request.limit as usize;
            let (documents, more) = snapshot
                .list(&request.after_id, limit, bytes_max, request.with_vector)
                .map_err(|error| replica.rows_failed(error))?;
            let documents = documents.iter().map(document_to_proto).collect();
            Ok(proto::ListResponse { documents, more, position })
        };
        self.compute.run(list).await.map_err(pool_error)?
    }

    /// Answers of each of the shards to all queries.
    async fn search_shards(
        &self,
        parts: Vec<proto::ShardPart>,
        queries: Vec<Arc<ShardQuery>>,
    ) -> Result<Vec<proto::ShardBatchAnswer>, Error> {
        let mut tables = parts.iter().filter_map(|part| part.shard.as_ref()).map(|shard| &shard.table_id);
        let first = tables.next();
        if tables.any(|table| Some(table) != first) {
            return Err(Error::invalid("/parts", "parts are of several tables, must be of one"));
        }
        let ranked = join_all(parts.iter().map(|part| self.rank_shard(part, &queries))).await;
        let shards: Vec<Option<proto::ShardRef>> = parts.into_iter().map(|part| part.shard).collect();
        if let [query] = &queries[..] {
            let rankings: Vec<&Ranking> =
                ranked.iter().flatten().flat_map(|ranked| &ranked.rankings).collect();
            if is_read_out_at_once(&rankings, query) {
                return Ok(answers(shards, ranked, &queries));
            }
        }
        self.compute.run(move || answers(shards, ranked, &queries)).await.map_err(pool_error)
    }

    /// Each shard answers for itself: its best rows for each query and where its snapshot stood, or why not.
    async fn rank_shard(
        &self,
        part: &proto::ShardPart,
        queries: &[Arc<ShardQuery>],
    ) -> Result<Ranked, Error> {
        let started = Instant::now();
        let (shard, epoch) = parse::shard(part.shard.as_ref())?;
        let replica = self.replica(shard)?;
        for query in queries {
            parse::check_vector("/vector", &query.vector, replica.dimension(), replica.metric())?;
        }
        let snapshot = replica.snapshot(epoch, parse::read_rule(part.rule.as_ref())?).await?;
        let position = position(&replica, snapshot.lsn);
        let engine = Engine { kernels: self.kernels, metric: replica.metric() };
        let mut planned = Vec::with_capacity(queries.len());
        for query in queries {
            let filter = self.filter(&replica, &snapshot, query).await?;
            planned.push(PlannedQuery { query: query.clone(), filter });
        }
        let is_explained = queries.iter().any(|query| query.explain);
        let explain = is_explained.then(|| (snapshot.clone(), planned.clone()));
        let rankings = match <[PlannedQuery; 1]>::try_from(planned) {
            Ok([PlannedQuery { query, filter }]) => {
                search(&self.compute, engine, snapshot, query, filter).await.map(|ranking| vec![ranking])
            }
            Err(planned) => search_batch(&self.compute, engine, snapshot, planned).await,
        };
        self.metrics.search_seconds.observe(started.elapsed().as_secs_f64());
        let rankings = rankings.map_err(|failure| match failure {
            SearchFailure::Pool(error) => pool_error(error),
            SearchFailure::Rows(error) => replica.rows_failed(error),
        })?;
        let (rankings, segments) = match explain {
            Some((snapshot, planned)) => {
                let explain = move || {
                    let explained = |(planned, ranking)| explained(&snapshot, planned, ranking);
                    let segments = planned.iter().zip(&rankings).map(explained).collect();
                    (rankings, segments)
                };
                self.compute.run(explain).await.map_err(pool_error)?
            }
            None => (rankings, Vec::new()),
        };
        Ok(Ranked { replica, rankings, position, segments })
    }

    /// The query's filter for a snapshot.
    async fn filter(
        &self,
        replica: &Replica,
        snapshot: &Arc<Snapshot>,
        query: &ShardQuery,
    ) -> Result<Option<Arc<SnapshotFilter>>, Error> {
        let Some(matcher) = query.filter.clone() else { return Ok(None) };
        let (snapshot, indexes) = (snapshot.clone(), replica.indexes.clone());
        let has_none = indexes.is_empty();
        let select = move || Arc::new(SnapshotFilter::new(matcher, &snapshot, &indexes));
        if has_none {
            return Ok(Some(select()));
        }
        self.compute.run(select).await.map(Some).map_err(pool_error)
    }

    fn shard_statistics(&self, wanted: proto::ShardRef) -> Result<proto::ShardStatistics, Error> {
        let (shard, _) = parse::shard(Some(&wanted))?;
        let replica = self.replica(shard)?;
        let (state, statistics) = (replica.state(), replica.statistics());
        Ok(proto::ShardStatistics {
            shard: Some(proto::ShardRef { epoch: state.epoch.0, ..wanted }),
            documents: statistics.documents,
            deleted_rows: statistics.deleted_rows,
            vector_bytes: statistics.vector_bytes,
            index_bytes: statistics.index_bytes,
            indexed_rows: statistics.indexed_rows,
            disk_bytes: state.disk_bytes,
            segments: statistics.segments,
            last_lsn: statistics.last_lsn.0,
            recall_estimate: statistics.recall_estimate,
        })
    }
}

/// Where an answer stood.
fn position(replica: &Replica, applied: Lsn) -> proto::ReadPosition {
    let staleness_ms = replica.staleness().map_or(u64::MAX, |staleness| staleness.as_millis() as u64);
    proto::ReadPosition { applied_lsn: applied.0, staleness_ms, incarnation: replica.incarnation() }
}

/// A query as a shard takes it; `place` is that of its message.
fn shard_query(place: &str, request: proto::SearchRequest) -> Result<Arc<ShardQuery>, Error> {
    if !(1..=TOP_K_MAX).contains(&request.top_k) {
        let message = format!("top_k is {}, must be 1 to {TOP_K_MAX}", request.top_k);
        return Err(Error::invalid(format!("{place}/top_k"), message));
    }
    if request.threshold.is_some_and(|threshold| !threshold.is_finite()) {
        return Err(Error::invalid(format!("{place}/threshold"), "threshold must be a finite number"));
    }
    if let Some(recall) = request.target_recall.filter(|recall| !TARGET_RECALL.contains(recall)) {
        let message = format!("a recall of {recall} cannot be asked for");
        return Err(Error::invalid(format!("{place}/target_recall"), message));
    }
    let exclude = match request.exclude_id.as_str() {
        "" => None,
        id => Some(parse::document_id(&format!("{place}/exclude_id"), id)?),
    };
    Ok(Arc::new(ShardQuery {
        vector: parse::values(&format!("{place}/vector"), &request.vector)?,
        top_k: request.top_k as usize,
        threshold: request.threshold,
        filter: parse::filter(request.filter)?,
        explain: request.explain,
        metadata: parse::metadata_choice(place, request.with_metadata, &request.metadata_fields)?,
        with_vector: request.with_vector,
        exclude,
        exact: request.exact,
        ef: request.ef.min(EF_MAX) as usize,
        target_recall: request.target_recall,
        group_by: parse::group_by(place, &request.group_key, request.group_limit)?,
    }))
}

/// The queries of a batch.
fn shard_queries(requests: Vec<proto::SearchRequest>) -> Result<Vec<Arc<ShardQuery>>, Error> {
    if !(1..=QUERIES_MAX).contains(&requests.len()) {
        let message = format!("queries has {} items, must have 1 to {QUERIES_MAX}", requests.len());
        return Err(Error::invalid("/queries", message));
    }
    let hits: u64 = requests.iter().map(|request| u64::from(request.top_k)).sum();
    if hits > BATCH_HITS_MAX {
        let message = format!("queries ask for {hits} hits, at most {BATCH_HITS_MAX} are allowed");
        return Err(Error::invalid("/queries", message));
    }
    let queries = requests.into_iter().enumerate();
    queries.map(|(index, request)| shard_query(&format!("/queries/{index}"), request)).collect()
}

/// What the shards say: for each query those of their rows that are among the best of all.
fn answers(
    shards: Vec<Option<proto::ShardRef>>,
    mut ranked: Vec<Result<Ranked, Error>>,
    queries: &[Arc<ShardQuery>],
) -> Vec<proto::ShardBatchAnswer> {
    // Each round has one shard less that answers.
    loop {
        match answers_of(&shards, &ranked, queries) {
            Ok(answers) => return answers,
            Err((place, error)) => {
                let failed = ranked.iter_mut().filter(|ranked| ranked.is_ok()).nth(place);
                let failed = failed.expect("a ranking of that place");
                let error = match failed {
                    Ok(ranked) => ranked.replica.rows_failed(error),
                    Err(error) => error.clone(),
                };
                *failed = Err(error);
            }
        }
    }
}

/// The same while all that was ranked can be read; else the place of the shard that cannot, among those that were ranked.
fn answers_of(
    shards: &[Option<proto::ShardRef>],
    ranked: &[Result<Ranked, Error>],
    queries: &[Arc<ShardQuery>],
) -> Result<Vec<proto::ShardBatchAnswer>, (usize, StorageError)> {
    let mut answers: Vec<proto::ShardBatchAnswer> = shards
        .iter()
        .cloned()
        .zip(ranked)
        .map(|(shard, ranked)| match ranked {
            Ok(Ranked { position, .. }) => {
                proto::ShardBatchAnswer { shard, position: Some(*position), ..Default::default() }
            }
            Err(error) => {
                let (code, message) = (error.code.as_str().to_owned(), error.message.clone());
                let failure = Some(proto::Failure { code, message });
                proto::ShardBatchAnswer { shard, failure, ..Default::default() }
            }
        })
        .collect();
    let mut bytes = 0;
    for (number, query) in queries.iter().enumerate() {
        let rankings: Vec<&Ranking> =
            ranked.iter().flatten().map(|ranked| &ranked.rankings[number]).collect();
        let mut hits = read_out(&rankings, query, &mut bytes)?.into_iter();
        for (answer, ranked) in answers.iter_mut().zip(ranked) {
            let Ok(Ranked { segments, .. }) = ranked else { continue };
            let hits = hits.next().expect("one list for each ranking").into_iter();
            let segments = segments.get(number).into_iter().flatten();
            answer.queries.push(proto::QueryAnswer {
                hits: hits.map(hit_to_proto).collect(),
                segments: segments.map(SegmentExplanation::to_proto).collect(),
            });
        }
    }
    Ok(answers)
}

/// How the segments of a snapshot were searched, when that was asked for.
fn explained(
    snapshot: &Snapshot,
    PlannedQuery { query, filter }: &PlannedQuery,
    ranking: &Ranking,
) -> Vec<SegmentExplanation> {
    if !query.explain {
        return Vec::new();
    }
    let mut reports = filter.as_ref().map(|filter| filter.reports(snapshot)).unwrap_or_default().into_iter();
    let explanation = |(place, segment): (usize, &SegmentView)| SegmentExplanation {
        rows: u64::from(segment.len()),
        filter: reports.next(),
        search: ranking.searched(place),
    };
    snapshot.segments.iter().enumerate().map(explanation).collect()
}

fn pool_error(error: PoolError) -> Error {
    let code = match error {
        PoolError::Overloaded => ErrorCode::Overloaded,
        PoolError::Panicked => ErrorCode::Internal,
    };
    Error::new(code, error.to_string())
}

fn document_to_proto(document: &Document) -> proto::Document {
    let Document { id, vector, metadata } = document;
    proto::Document { id: id.to_string(), vector: vector_to_bytes(vector), metadata: metadata.to_bytes() }
}

fn hit_to_proto(hit: Hit) -> proto::Hit {
    let Hit { id, score, metadata, vector, group } = hit;
    proto::Hit {
        id: DocumentId::as_str(&id).to_owned(),
        score,
        metadata: metadata.map(|metadata| metadata.to_bytes()).unwrap_or_default(),
        vector: vector.map(|vector| vector_to_bytes(&vector)).unwrap_or_default(),
        group: group.map(String::from).unwrap_or_default(),
    }
}
