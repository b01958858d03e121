//! Merges the answers of shards into one. Pure.

use std::cmp::Ordering;

use crate::search::{GroupCounter, Hit};
use crate::table::Metric;

/// The best `top_k` of all hits, best first, ties by document id (ascending bytes); of each group at most `group_limit`.
///
/// Each list is sorted the same way already; sorting again costs little for such short lists and does not have to
/// trust another node.
pub fn merge(metric: Metric, mut lists: Vec<Vec<Hit>>, top_k: usize, group_limit: Option<u32>) -> Vec<Hit> {
    let mut hits = match lists.len() {
        1 => lists.pop().unwrap_or_default(),
        _ => lists.into_iter().flatten().collect(),
    };
    hits.sort_unstable_by(|a, b| rank(metric, a, b));
    if let Some(limit) = group_limit {
        let mut groups = GroupCounter::new(limit);
        let is_kept: Vec<bool> = hits.iter().map(|hit| groups.take(hit.group.as_deref())).collect();
        let mut is_kept = is_kept.into_iter();
        hits.retain(|_| is_kept.next().expect("one for each hit"));
    }
    hits.truncate(top_k);
    hits
}

/// Orders hits by rank: the better one is `Less`.
fn rank(metric: Metric, a: &Hit, b: &Hit) -> Ordering {
    let by_score = match metric {
        Metric::Cosine | Metric::Dot => b.score.total_cmp(&a.score),
        Metric::L2 => a.score.total_cmp(&b.score),
    };
    by_score.then_with(|| a.id.cmp(&b.id))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::DocumentId;

    fn hit(id: &str, score: f64) -> Hit {
        Hit { id: DocumentId::parse(id).expect("valid"), score, metadata: None, vector: None, group: None }
    }

    fn ids(hits: &[Hit]) -> Vec<&str> {
        hits.iter().map(|hit| hit.id.as_str()).collect()
    }

    #[test]
    fn similarity_ranks_high_scores_first() {
        let lists = vec![vec![hit("a", 0.9), hit("b", 0.1)], vec![hit("c", 0.5)], vec![]];
        assert_eq!(ids(&merge(Metric::Cosine, lists, 2, None)), ["a", "c"]);
    }

    #[test]
    fn distance_ranks_low_scores_first() {
        let lists = vec![vec![hit("a", 0.1), hit("b", 0.9)], vec![hit("c", 0.5)]];
        assert_eq!(ids(&merge(Metric::L2, lists, 10, None)), ["a", "c", "b"]);
    }

    #[test]
    fn ties_are_ordered_by_id_wherever_they_come_from() {
        let lists = vec![vec![hit("b", 1.0)], vec![hit("10", 1.0), hit("9", 1.0)], vec![hit("a", 1.0)]];
        assert_eq!(ids(&merge(Metric::Dot, lists, 3, None)), ["10", "9", "a"]);
    }

    #[test]
    fn groups_are_limited_over_all_lists_together() {
        let of = |group: Option<&str>, hit: Hit| Hit { group: group.map(Into::into), ..hit };
        let lists = || {
            vec![
                vec![of(Some("1"), hit("a", 0.9)), of(Some("2"), hit("b", 0.5)), of(None, hit("c", 0.1))],
                vec![of(Some("1"), hit("d", 0.8)), of(Some("1"), hit("e", 0.7)), of(None, hit("f", 0.2))],
            ]
        };
        assert_eq!(ids(&merge(Metric::Dot, lists(), 10, Some(1))), ["a", "b", "f", "c"]);
        assert_eq!(ids(&merge(Metric::Dot, lists(), 3, Some(2))), ["a", "d", "b"]);
    }
}
