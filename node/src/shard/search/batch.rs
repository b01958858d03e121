//! Many queries over one snapshot: they follow one another, some of them in each piece of work, so that other searches get
//! their turn in between.

use std::sync::Arc;

use futures::{StreamExt as _, TryStreamExt as _, stream};
use tokio_util::sync::CancellationToken;

use super::super::snapshot_filter::SnapshotFilter;
use super::{Engine, Ranking, SearchFailure, ShardQuery, best_of, pieces, search, values_of};
use crate::runtime::ComputePool;
use crate::storage::{Snapshot, StorageError};

/// Queries that read fewer values together than this are one piece of work. About 1 ms.
const TOGETHER_VALUES: usize = 1 << 21;

/// A query over a snapshot, with its filter.
#[derive(Clone)]
pub struct PlannedQuery {
    /// What the shard is asked.
    pub query: Arc<ShardQuery>,
    /// The query's filter over the snapshot.
    pub filter: Option<Arc<SnapshotFilter>>,
}

/// Ranks a snapshot's rows for each of several queries, in order. Dropped, it stops soon.
pub async fn search_batch(
    pool: &ComputePool,
    engine: Engine,
    snapshot: Arc<Snapshot>,
    queries: Vec<PlannedQuery>,
) -> Result<Vec<Ranking>, SearchFailure> {
    let stop = CancellationToken::new();
    let _stop_when_dropped = stop.clone().drop_guard();
    let turns = turns(&snapshot, queries, pool.threads());
    let run = |turn: Turn| {
        let (snapshot, stop) = (snapshot.clone(), stop.clone());
        async move {
            match turn {
                Turn::Wide(PlannedQuery { query, filter }) => {
                    search(pool, engine, snapshot, query, filter).await.map(|ranking| vec![ranking])
                }
                Turn::Together(queries) => {
                    let rank = move |PlannedQuery { query, filter }: PlannedQuery| {
                        let whole = pieces(&snapshot, &query, 1).pop().unwrap_or_default();
                        let best = best_of(engine, &snapshot, &query, filter.as_deref(), &whole, &stop)?;
                        Ok(Ranking::of(engine.metric, snapshot.clone(), best))
                    };
                    let ranked: Result<Vec<Ranking>, StorageError> =
                        pool.run(move || queries.into_iter().map(rank).collect()).await?;
                    Ok(ranked?)
                }
            }
        }
    };
    // As many at once as there are threads: more would only stand before the work of others.
    let rankings: Vec<Vec<Ranking>> =
        stream::iter(turns.into_iter().map(run)).buffered(pool.threads()).try_collect().await?;
    Ok(rankings.into_iter().flatten().collect())
}

/// What is run of a batch before others have their turn.
pub(super) enum Turn {
    /// One query that is worth several pieces, or is ranked more than once.
    Wide(PlannedQuery),
    /// Queries that are one piece each.
    Together(Vec<PlannedQuery>),
}

pub(super) fn turns(snapshot: &Snapshot, queries: Vec<PlannedQuery>, threads: usize) -> Vec<Turn> {
    let mut turns = Vec::new();
    let mut room = 0;
    for planned in queries {
        let pieces = pieces(snapshot, &planned.query, threads);
        if pieces.len() > 1 || planned.query.group_by.is_some() {
            turns.push(Turn::Wide(planned));
            continue;
        }
        let values = pieces.iter().map(|piece| values_of(snapshot, &planned.query, piece)).sum();
        match turns.last_mut() {
            Some(Turn::Together(queries)) if room >= values => {
                queries.push(planned);
                room -= values;
            }
            _ => {
                turns.push(Turn::Together(vec![planned]));
                room = TOGETHER_VALUES.saturating_sub(values);
            }
        }
    }
    turns
}
