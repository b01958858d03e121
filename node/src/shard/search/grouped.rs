//! The best rows of which only a few of each group count.

use std::sync::Arc;

use super::super::snapshot_filter::SnapshotFilter;
use super::{Engine, Ranking, SearchFailure, ShardQuery};
use crate::runtime::ComputePool;
use crate::search::{Group, GroupBy, GroupCounter};
use crate::storage::Snapshot;

/// Rows that are ranked at first for each hit that is wanted.
const ROWS_PER_HIT: usize = 4;
/// Where those are too few, this many times as many are ranked next.
const GROWTH: usize = 4;
/// Rows that are ranked at most: four times the most hits.
const ROWS_MAX: usize = 40_000;

/// Ranks more and more rows, until enough of them count, or no more are there.
pub(super) async fn search(
    pool: &ComputePool,
    engine: Engine,
    snapshot: Arc<Snapshot>,
    query: &ShardQuery,
    filter: Option<Arc<SnapshotFilter>>,
    by: GroupBy,
) -> Result<Ranking, SearchFailure> {
    let (wanted, by) = (query.top_k, Arc::new(by));
    let mut rows = (wanted * ROWS_PER_HIT).min(ROWS_MAX);
    loop {
        let wide = Arc::new(ShardQuery { top_k: rows, group_by: None, ..query.clone() });
        let ranking = super::search(pool, engine, snapshot.clone(), wide, filter.clone()).await?;
        let are_all = ranking.best.len() < rows || rows == ROWS_MAX;
        let by = by.clone();
        let ranking = pool.run(move || limited(ranking, &by, wanted)).await?;
        if are_all || ranking.best.len() == wanted {
            return Ok(ranking);
        }
        rows = (rows * GROWTH).min(ROWS_MAX);
    }
}

/// The best `wanted` rows, of each group no more than its limit.
fn limited(mut ranking: Ranking, by: &GroupBy, wanted: usize) -> Ranking {
    let group = |(_, (segment, row)): &(f64, (usize, u32))| {
        by.group_of(ranking.snapshot.segments[*segment].metadata_json(*row))
    };
    let groups: Vec<Option<Group>> = ranking.best.iter().map(group).collect();
    let mut counter = GroupCounter::new(by.limit);
    let is_kept: Vec<bool> = groups.iter().map(|group| counter.take(group.as_deref())).collect();
    let kept = ranking.best.into_iter().zip(groups).zip(is_kept).filter(|(_, is_kept)| *is_kept);
    (ranking.best, ranking.groups) = kept.map(|(kept, _)| kept).take(wanted).unzip();
    ranking
}
