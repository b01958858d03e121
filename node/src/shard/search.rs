//! Search over one snapshot: pieces of it in parallel, then their best together. Segments with an index are searched
//! through it, the others are scanned. The hits of several shards are read out only when it is known which of them are among
//! the best of all.

mod batch;
mod grouped;
mod indexed;
mod pieces;
mod ranking;

use std::sync::Arc;
use std::time::Instant;

use futures::future::try_join_all;
use tokio_util::sync::CancellationToken;
use vectorsphere_index::faiss::EffortRange;
use vectorsphere_index::{Graph, Kernels, Metric, Plan, Query, TopK, Touched, WIDTH_USUAL};

pub use self::batch::{PlannedQuery, search_batch};
use self::indexed::Indexed;
use self::pieces::{Piece, pieces, rows_min, values_of};
use self::ranking::{PieceBest, RowKey};
pub use self::ranking::{Ranking, is_read_out_at_once, read_out};
use super::snapshot_filter::SnapshotFilter;
use crate::filter::Matcher;
use crate::ids::DocumentId;
use crate::runtime::{ComputePool, PoolError};
use crate::search::{GroupBy, MetadataChoice, SearchPlan, SegmentSearch};
use crate::storage::segment::{SegmentIndex, SegmentView};
use crate::storage::{Snapshot, StorageError};

/// Candidates of a walk for each hit that is wanted, unless the search says how many.
const WIDTH_PER_HIT: usize = 2;
/// A search that reads fewer values than this runs where it is: a hand-over between threads takes as long. About 50 us.
const INLINE_VALUES: usize = 1 << 17;
/// Values that a walk reads, about, for each candidate: its neighbours' codes, and some rows.
const VALUES_PER_CANDIDATE: usize = 512;

/// Reading so many values as codes of FAISS takes as long as reading one as it is.
const CODE_VALUES_PER_VALUE: usize = 4;

/// What a shard is asked.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ShardQuery {
    /// Of the table's dimension, finite, not zero under cosine.
    pub vector: Vec<f32>,
    /// Hits wanted.
    pub top_k: usize,
    /// Hits must be as good as this.
    pub threshold: Option<f64>,
    /// Only rows whose metadata passes: over a snapshot, as a [`SnapshotFilter`].
    pub filter: Option<Arc<Matcher>>,
    /// Say how each segment was searched.
    pub explain: bool,
    /// What to return of metadata.
    pub metadata: MetadataChoice,
    /// Return vectors.
    pub with_vector: bool,
    /// Left out of the answer.
    pub exclude: Option<DocumentId>,
    /// Scan all rows.
    pub exact: bool,
    /// Candidates of a walk, or lists of FAISS to look into; 0: as many as usual.
    pub ef: usize,
    /// Instead of `ef`: the recall that walks are to reach.
    pub target_recall: Option<f64>,
    /// Only the best few of each group.
    pub group_by: Option<GroupBy>,
}

impl ShardQuery {
    fn width(&self, graph: &Graph) -> usize {
        // What is left out must not take the place of a hit.
        let wanted = self.top_k + usize::from(self.exclude.is_some());
        let calibrated = self.target_recall.and_then(|target| graph.calibration().width_for(target, wanted));
        let least = match (calibrated, self.ef) {
            (Some(width), _) => width,
            (None, 0) => WIDTH_USUAL.max(WIDTH_PER_HIT * self.top_k),
            (None, ef) => ef,
        };
        least.max(wanted)
    }

    fn index<'s>(&self, segment: &'s SegmentView) -> Option<&'s SegmentIndex> {
        segment.index().filter(|_| !self.exact)
    }

    /// What FAISS takes for `ef`.
    fn faiss_effort(&self) -> Option<u32> {
        (self.ef > 0).then(|| u32::try_from(self.ef).unwrap_or(u32::MAX))
    }

    /// Values that a search of a segment through its index reads, about.
    fn values_read(&self, index: &SegmentIndex) -> usize {
        match index {
            SegmentIndex::Graph(graph) => self.width(graph) * VALUES_PER_CANDIDATE,
            SegmentIndex::Faiss(index) => {
                let (rows, effort) = (index.rows(), index.factory().effort_of(self.faiss_effort()) as usize);
                let values = rows * index.factory().dimension() / CODE_VALUES_PER_VALUE;
                match index.factory().effort(rows) {
                    EffortRange::None => values,
                    EffortRange::Lists(lists) => {
                        let lists = *lists.end() as usize;
                        values / lists * effort.min(lists) + lists * index.factory().dimension()
                    }
                    EffortRange::Candidates(_) => effort.min(rows) * VALUES_PER_CANDIDATE,
                }
            }
        }
    }
}

/// How a shard's rows are compared, and by what.
#[derive(Clone, Copy, Debug)]
pub struct Engine {
    /// Chosen once for the processor.
    pub kernels: Kernels,
    /// The table's.
    pub metric: Metric,
}

/// Why a search has no answer.
#[derive(Debug, thiserror::Error)]
pub enum SearchFailure {
    /// It did not run to its end.
    #[error(transparent)]
    Pool(#[from] PoolError),
    /// Rows on disk could not be read, or are not what was written.
    #[error(transparent)]
    Rows(#[from] StorageError),
}

/// Ranks a snapshot's rows. Dropped, it stops soon.
pub async fn search(
    pool: &ComputePool,
    engine: Engine,
    snapshot: Arc<Snapshot>,
    query: Arc<ShardQuery>,
    filter: Option<Arc<SnapshotFilter>>,
) -> Result<Ranking, SearchFailure> {
    if let Some(by) = query.group_by.clone() {
        return Box::pin(grouped::search(pool, engine, snapshot, &query, filter, by)).await;
    }
    let stop = CancellationToken::new();
    let _stop_when_dropped = stop.clone().drop_guard();
    let pieces = pieces(&snapshot, &query, pool.threads());
    if let [piece] = &pieces[..]
        && values_of(&snapshot, &query, piece) < INLINE_VALUES
        // A file may keep it waiting.
        && !reads_files(&snapshot)
    {
        let best = best_of(engine, &snapshot, &query, filter.as_deref(), piece, &stop)?;
        return Ok(Ranking::of(engine.metric, snapshot, best));
    }
    let runs = pieces.into_iter().map(|piece| {
        let (snapshot, query, stop) = (snapshot.clone(), query.clone(), stop.clone());
        let filter = filter.clone();
        pool.run(move || best_of(engine, &snapshot, &query, filter.as_deref(), &piece, &stop))
    });
    let mut found =
        try_join_all(runs).await?.into_iter().collect::<Result<Vec<PieceBest>, StorageError>>()?;
    if found.len() <= 1 {
        return Ok(Ranking::of(engine.metric, snapshot, found.pop().unwrap_or_default()));
    }
    let merge = move || {
        let mut top = TopK::new(engine.metric, query.top_k);
        let mut searched = Vec::new();
        for piece in found {
            for (score, place) in piece.best {
                top.offer(score, RowKey::new(&snapshot.segments[place.0], place.1, place));
            }
            searched.extend(piece.searched);
        }
        let best = top.into_sorted().into_iter().map(|ranked| (ranked.score, ranked.key.place)).collect();
        Ranking::of(engine.metric, snapshot, PieceBest { best, searched })
    };
    Ok(pool.run(merge).await?)
}

/// True when rows of it are in files.
fn reads_files(snapshot: &Snapshot) -> bool {
    snapshot.segments.iter().any(|segment| segment.rows().is_on_disk())
}

fn best_of(
    engine: Engine,
    snapshot: &Snapshot,
    query: &ShardQuery,
    filter: Option<&SnapshotFilter>,
    piece: &Piece,
    stop: &CancellationToken,
) -> Result<PieceBest, StorageError> {
    let target = Query::new(engine.metric, &query.vector, query.threshold);
    let exclude = query.exclude.as_ref().map(DocumentId::as_str);
    let mut top = TopK::new(engine.metric, query.top_k);
    let mut searched = Vec::new();
    for (index, range) in piece {
        let started = query.explain.then(Instant::now);
        let segment = &snapshot.segments[*index];
        let key = |row: u32| RowKey::new(segment, row, (*index, row));
        let is_wanted = |row: u32| exclude.is_none_or(|excluded| segment.document_id(row) != excluded);
        let (plan, touched) = if let Some(through) = query.index(segment) {
            let filter = filter.map(|filter| (filter, *index));
            let indexed =
                Indexed { engine, segment, index: through, snapshot, query, filter, target: &target };
            indexed.run(is_wanted, key, &mut top)?
        } else {
            let passes = |row: u32| filter.is_none_or(|filter| filter.passes(*index, segment, row));
            let visible = |row: u32| segment.is_visible(row, snapshot.lsn) && is_wanted(row) && passes(row);
            let step = rows_min(query.vector.len());
            let runs = match filter {
                Some(filter) => filter.runs(*index, range.clone()),
                None => vec![range.clone()],
            };
            let mut rows = 0;
            for run in runs {
                let mut first = run.start;
                while first < run.end && !stop.is_cancelled() {
                    let end = first.saturating_add(step).min(run.end);
                    segment.rows().scan(engine.kernels, first..end, &target, visible, key, &mut top)?;
                    rows += (end - first) as usize;
                    first = end;
                }
            }
            (SearchPlan::Scan, Touched { plan: Plan::Scan, hops: 0, vertices: 0, rows })
        };
        if let Some(started) = started {
            let Touched { plan: _, hops, vertices, rows } = touched;
            let (hops, vertices, rows) = (hops as u64, vertices as u64, rows as u64);
            searched.push((*index, SegmentSearch { plan, hops, vertices, rows, elapsed: started.elapsed() }));
        }
    }
    let best = top.into_sorted().into_iter().map(|ranked| (ranked.score, ranked.key.place)).collect();
    Ok(PieceBest { best, searched })
}

#[cfg(test)]
mod tests {
    use rand::rngs::SmallRng;
    use rand::{RngExt, SeedableRng};
    use vectorsphere_index::{StorageType, norm, score};

    use super::*;
    use crate::document::{Document, Metadata};
    use crate::ids::Lsn;
    use crate::storage::documents::Documents;
    use crate::storage::effect::Effect;
    use crate::storage::segment::SegmentId;

    fn id(number: u32) -> DocumentId {
        DocumentId::parse(&format!("id{number}")).expect("valid")
    }

    /// Two full segments and a mutable one, with replaced and deleted rows, many of them ties.
    fn snapshot(rows: u32, dimension: u32) -> Snapshot {
        let mut random = SmallRng::seed_from_u64(1);
        let mut documents = Documents::new(dimension, StorageType::F32, SegmentId(1), Lsn::ZERO);
        for number in 0..rows {
            let lsn = Lsn(u64::from(number) + 1);
            let effect = if number % 7 == 6 {
                Effect::Delete(id(number - 2))
            } else {
                let vector = (0..dimension).map(|_| random.random_range(1..4) as f32).collect();
                let target = if number % 5 == 4 { number - 4 } else { number };
                Effect::Upsert(Document { id: id(target), vector, metadata: Metadata::empty() })
            };
            // A delete of a document that is not there does not happen.
            let _ = documents.apply(lsn, &effect);
            if number == rows / 3 || number == rows / 2 {
                documents.freeze(SegmentId(number + 2));
            }
        }
        documents.snapshot()
    }

    /// Every visible row, scored and sorted.
    fn reference(metric: Metric, snapshot: &Snapshot, query: &ShardQuery) -> Vec<(String, f64)> {
        let (documents, _) = snapshot.list("", usize::MAX - 1, usize::MAX, true).expect("in memory");
        let mut all: Vec<(String, f64)> = documents
            .into_iter()
            .filter(|document| Some(&document.id) != query.exclude.as_ref())
            .map(|document| {
                let (a, b) = (&query.vector, &document.vector);
                (document.id.to_string(), score(metric, a, norm(a), b, norm(b)))
            })
            .filter(|(_, score)| query.threshold.is_none_or(|threshold| metric.reaches(*score, threshold)))
            .collect();
        all.sort_by(|(a_id, a), (b_id, b)| {
            let by_score = a.partial_cmp(b).expect("finite");
            let by_score = if metric.higher_is_better() { by_score.reverse() } else { by_score };
            by_score.then_with(|| a_id.cmp(b_id))
        });
        all.truncate(query.top_k);
        all
    }

    #[tokio::test]
    async fn a_search_equals_scoring_every_visible_row() {
        // The second one is large enough for several pieces.
        for (rows, dimension, expected_pieces) in [(500, 3, 1), (3_000, 1_500, 3), (0, 4, 0)] {
            let snapshot = Arc::new(snapshot(rows, dimension));
            let pool = ComputePool::new(3);
            assert_eq!(pieces(&snapshot, &ShardQuery::default(), pool.threads()).len(), expected_pieces);
            for metric in [Metric::Cosine, Metric::L2, Metric::Dot] {
                let vector: Vec<f32> = (0..dimension).map(|value| (value % 3) as f32 + 0.5).collect();
                for (threshold, exclude) in [(None, None), (Some(2.0), Some(id(3)))] {
                    let threshold = threshold.map(|t| if metric == Metric::Cosine { 0.9 } else { t });
                    let query = ShardQuery {
                        vector: vector.clone(),
                        top_k: 50,
                        threshold,
                        filter: None,
                        explain: false,
                        metadata: MetadataChoice::All,
                        with_vector: false,
                        exclude,
                        ..ShardQuery::default()
                    };
                    let engine = Engine { kernels: Kernels::detect(None).expect("there is one"), metric };
                    let expected = reference(metric, &snapshot, &query);
                    let query = Arc::new(query);
                    let ranking =
                        search(&pool, engine, snapshot.clone(), query.clone(), None).await.expect("no panic");
                    let hits = read_out(&[&ranking], &query, &mut 0).expect("in memory").remove(0);
                    let found: Vec<_> = hits.into_iter().map(|hit| (hit.id.to_string(), hit.score)).collect();
                    assert_eq!(found, expected, "{metric:?}");
                }
            }
        }
    }

    #[tokio::test]
    async fn the_queries_of_a_batch_are_ranked_as_each_alone_and_share_turns_as_far_as_they_are_small() {
        // Queries of the small snapshot fit one turn, each of the large one is worth several pieces.
        for (rows, dimension, count, expected_turns) in [(500, 3, 40, 1), (3_000, 1_500, 3, 3), (0, 4, 2, 1)]
        {
            let snapshot = Arc::new(snapshot(rows, dimension));
            let pool = ComputePool::new(3);
            let engine = Engine { kernels: Kernels::detect(None).expect("there is one"), metric: Metric::L2 };
            let planned = |number: usize| {
                let vector = (0..dimension).map(|value| ((value as usize + number) % 5) as f32).collect();
                let query = ShardQuery { vector, top_k: 1 + number % 7, ..ShardQuery::default() };
                PlannedQuery { query: Arc::new(query), filter: None }
            };
            let queries: Vec<PlannedQuery> = (0..count).map(planned).collect();
            assert_eq!(batch::turns(&snapshot, queries.clone(), pool.threads()).len(), expected_turns);
            let together =
                search_batch(&pool, engine, snapshot.clone(), queries.clone()).await.expect("no panic");
            assert_eq!(together.len(), count);
            for (PlannedQuery { query, filter }, ranking) in queries.into_iter().zip(together) {
                let alone = search(&pool, engine, snapshot.clone(), query, filter).await.expect("no panic");
                assert_eq!(ranking.best, alone.best);
            }
        }
    }

    #[test]
    fn a_search_that_nobody_waits_for_reads_no_further() {
        let snapshot = snapshot(500, 3);
        let query = ShardQuery {
            vector: vec![1.0; 3],
            top_k: 50,
            threshold: None,
            filter: None,
            explain: false,
            metadata: MetadataChoice::Nothing,
            with_vector: false,
            exclude: None,
            ..ShardQuery::default()
        };
        let engine = Engine { kernels: Kernels::detect(None).expect("there is one"), metric: Metric::L2 };
        let (stop, whole) = (CancellationToken::new(), pieces(&snapshot, &query, 1).remove(0));
        let best = || best_of(engine, &snapshot, &query, None, &whole, &stop).expect("in memory").best;
        assert_eq!(best().len(), 50);
        stop.cancel();
        assert!(best().is_empty());
    }

    #[tokio::test]
    async fn the_best_hits_of_all_shards_have_their_metadata_and_those_beyond_an_answer_have_none() {
        const MIB: usize = 1 << 20;
        let json = format!("{{\"text\":\"{}\"}}", "x".repeat(MIB - 20));
        let metadata = Metadata::from_stored(json.into()).expect("object");
        let pool = ComputePool::new(1);
        let engine = Engine { kernels: Kernels::detect(None).expect("there is one"), metric: Metric::L2 };
        let query = Arc::new(ShardQuery {
            vector: vec![0.0],
            top_k: 70,
            threshold: None,
            filter: None,
            explain: false,
            metadata: MetadataChoice::All,
            with_vector: false,
            exclude: None,
            ..ShardQuery::default()
        });
        let mut rankings = Vec::new();
        for shard in 0..2 {
            let mut documents = Documents::new(1, StorageType::F32, SegmentId(1), Lsn::ZERO);
            for row in 0..36 {
                let (vector, metadata) = (vec![(row * 2 + shard) as f32], metadata.clone());
                let document = Document { id: id(row * 2 + shard), vector, metadata };
                documents.apply(Lsn(u64::from(row) + 1), &Effect::Upsert(document)).expect("fits");
            }
            let snapshot = Arc::new(documents.snapshot());
            rankings.push(search(&pool, engine, snapshot, query.clone(), None).await.expect("no panic"));
        }
        let rankings: Vec<&Ranking> = rankings.iter().collect();
        assert!(!is_read_out_at_once(&rankings, &query));
        assert!(is_read_out_at_once(
            &rankings,
            &ShardQuery { metadata: MetadataChoice::Nothing, ..(*query).clone() }
        ));
        let hits = read_out(&rankings, &query, &mut 0).expect("in memory");
        assert_eq!([hits[0].len(), hits[1].len()], [35, 35], "the best 70 of 72");
        for hit in hits.iter().flatten() {
            assert_eq!(hit.metadata.is_some(), hit.score < 64.0, "hit {} at {}", hit.id, hit.score);
        }
    }
}
