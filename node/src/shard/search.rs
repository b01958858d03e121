//! Exact search over one snapshot: pieces of it in parallel, then their best together.

use std::ops::Range;
use std::sync::Arc;

use futures::future::try_join_all;
use vectorsphere_index::{Kernels, Metric, Query, TopK, scan};

use crate::ids::DocumentId;
use crate::runtime::{ComputePool, PoolError};
use crate::search::Hit;
use crate::storage::Snapshot;

/// A piece has this many values (rows times dimension) or more: below, a hand-over between threads costs more than it
/// saves (4 MiB of rows are read in about 100 us).
const PIECE_VALUES: usize = 1 << 20;

/// What a shard is asked.
#[derive(Clone, Debug, PartialEq)]
pub struct ShardQuery {
    /// Of the table's dimension, finite, not zero under cosine.
    pub vector: Vec<f32>,
    /// Hits wanted.
    pub top_k: usize,
    /// Hits must be as good as this.
    pub threshold: Option<f64>,
    /// Return metadata.
    pub with_metadata: bool,
    /// Return vectors.
    pub with_vector: bool,
    /// Left out of the answer.
    pub exclude: Option<DocumentId>,
}

/// How a shard's rows are compared, and by what.
#[derive(Clone, Copy, Debug)]
pub struct Engine {
    /// Chosen once for the processor.
    pub kernels: Kernels,
    /// The table's.
    pub metric: Metric,
}

/// The best hits of a snapshot, best first, ties by id.
pub async fn search(
    pool: &ComputePool,
    engine: Engine,
    snapshot: Arc<Snapshot>,
    query: Arc<ShardQuery>,
) -> Result<Vec<Hit>, PoolError> {
    let mut pieces = pieces(&snapshot, pool.threads());
    if pieces.len() <= 1 {
        let piece = pieces.pop().unwrap_or_default();
        let run = move || {
            let best = best_of(engine, &snapshot, &query, &piece);
            hits(&snapshot, &query, best)
        };
        return pool.run(run).await;
    }
    let runs = pieces.into_iter().map(|piece| {
        let (snapshot, query) = (snapshot.clone(), query.clone());
        pool.run(move || best_of(engine, &snapshot, &query, &piece))
    });
    let found = try_join_all(runs).await?;
    let merge = move || {
        let mut top = TopK::new(engine.metric, query.top_k);
        for (score, place) in found.into_iter().flatten() {
            top.offer(score, RowKey::new(&snapshot, place));
        }
        let best = top.into_sorted().into_iter().map(|ranked| (ranked.score, ranked.key.place)).collect();
        hits(&snapshot, &query, best)
    };
    pool.run(merge).await
}

/// A part of a snapshot: rows of segments.
type Piece = Vec<(usize, Range<u32>)>;
/// Segment in the snapshot, row in the segment.
type Place = (usize, u32);

/// Cuts a snapshot into at most `count` pieces of about equal size.
fn pieces(snapshot: &Snapshot, count: usize) -> Vec<Piece> {
    let Some(dimension) = snapshot.segments.first().map(|segment| segment.rows().dimension()) else {
        return Vec::new();
    };
    let rows_min = (PIECE_VALUES / dimension).max(1) as u64;
    let count = (snapshot.rows() / rows_min).clamp(1, count.max(1) as u64);
    let rows_each = snapshot.rows().div_ceil(count);
    let (mut pieces, mut piece, mut room) = (Vec::new(), Piece::new(), rows_each);
    for (index, segment) in snapshot.segments.iter().enumerate() {
        let mut first = 0;
        while first < segment.len() {
            let end = (u64::from(first) + room).min(u64::from(segment.len())) as u32;
            piece.push((index, first..end));
            room -= u64::from(end - first);
            first = end;
            if room == 0 {
                pieces.push(std::mem::take(&mut piece));
                room = rows_each;
            }
        }
    }
    if !piece.is_empty() {
        pieces.push(piece);
    }
    pieces
}

/// Orders rows by their documents' ids.
struct RowKey<'s> {
    id: &'s str,
    place: Place,
}

impl<'s> RowKey<'s> {
    fn new(snapshot: &'s Snapshot, place: Place) -> RowKey<'s> {
        RowKey { id: snapshot.segments[place.0].document_id(place.1), place }
    }
}

impl Ord for RowKey<'_> {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.id.cmp(other.id)
    }
}

impl PartialOrd for RowKey<'_> {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for RowKey<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.id == other.id
    }
}

impl Eq for RowKey<'_> {}

fn best_of(engine: Engine, snapshot: &Snapshot, query: &ShardQuery, piece: &Piece) -> Vec<(f64, Place)> {
    let target = Query::new(engine.metric, &query.vector, query.threshold);
    let exclude = query.exclude.as_ref().map(DocumentId::as_str);
    let mut top = TopK::new(engine.metric, query.top_k);
    for (index, range) in piece {
        let segment = &snapshot.segments[*index];
        let visible = |row: u32| {
            segment.is_visible(row, snapshot.lsn)
                && exclude.is_none_or(|excluded| segment.document_id(row) != excluded)
        };
        let key = |row: u32| RowKey::new(snapshot, (*index, row));
        scan(engine.kernels, segment.rows(), range.clone(), &target, visible, key, &mut top);
    }
    top.into_sorted().into_iter().map(|ranked| (ranked.score, ranked.key.place)).collect()
}

fn hits(snapshot: &Snapshot, query: &ShardQuery, best: Vec<(f64, Place)>) -> Vec<Hit> {
    let hit = |(score, (index, row)): (f64, Place)| {
        let document = snapshot.segments[index].document(row, query.with_vector);
        Hit {
            id: document.id,
            score,
            metadata: query.with_metadata.then_some(document.metadata),
            vector: query.with_vector.then_some(document.vector),
        }
    };
    best.into_iter().map(hit).collect()
}

#[cfg(test)]
mod tests {
    use rand::rngs::SmallRng;
    use rand::{RngExt, SeedableRng};
    use vectorsphere_index::{norm, score};

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
        let mut documents = Documents::new(dimension, SegmentId(1), Lsn::ZERO);
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
        let (documents, _) = snapshot.list("", usize::MAX - 1, true);
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
            assert_eq!(pieces(&snapshot, pool.threads()).len(), expected_pieces);
            for metric in [Metric::Cosine, Metric::L2, Metric::Dot] {
                let vector: Vec<f32> = (0..dimension).map(|value| (value % 3) as f32 + 0.5).collect();
                for (threshold, exclude) in [(None, None), (Some(2.0), Some(id(3)))] {
                    let threshold = threshold.map(|t| if metric == Metric::Cosine { 0.9 } else { t });
                    let query = ShardQuery {
                        vector: vector.clone(),
                        top_k: 50,
                        threshold,
                        with_metadata: true,
                        with_vector: false,
                        exclude,
                    };
                    let engine = Engine { kernels: Kernels::detect(None).expect("there is one"), metric };
                    let expected = reference(metric, &snapshot, &query);
                    let found =
                        search(&pool, engine, snapshot.clone(), Arc::new(query)).await.expect("no panic");
                    let found: Vec<_> =
                        found.into_iter().map(|hit| (hit.id.to_string(), hit.score)).collect();
                    assert_eq!(found, expected, "{metric:?}");
                }
            }
        }
    }
}
