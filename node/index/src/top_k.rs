//! The best k of everything that is offered, ties included.

use std::cmp::Ordering;
use std::collections::BinaryHeap;

use crate::Metric;

/// Collects the best `k` of all offers; equal scores are ordered by key, ascending.
///
/// `K` is whatever names a row to the caller, for instance the document's id and where it lies; its order decides ties.
#[derive(Debug)]
pub struct TopK<K> {
    metric: Metric,
    k: usize,
    /// The worst kept offer is on top.
    kept: BinaryHeap<Offer<K>>,
}

/// One of the best.
#[derive(Clone, Debug, PartialEq)]
pub struct Ranked<K> {
    /// Its score.
    pub score: f64,
    /// Its key.
    pub key: K,
}

#[derive(Debug)]
struct Offer<K> {
    /// The score, negated where higher is better: the smaller the better.
    cost: f64,
    key: K,
}

impl<K: Ord> TopK<K> {
    /// Collects at most `k`, which may be 0.
    pub fn new(metric: Metric, k: usize) -> TopK<K> {
        TopK { metric, k, kept: BinaryHeap::new() }
    }

    /// True when nothing can be kept, because none was wanted.
    pub fn is_closed(&self) -> bool {
        self.k == 0
    }

    /// How many are wanted.
    pub fn wanted(&self) -> usize {
        self.k
    }

    /// The score that an offer must reach to have a chance; `None` while there is room for any.
    ///
    /// An offer of exactly this score may still win by its key.
    pub fn bar(&self) -> Option<f64> {
        match self.kept.peek() {
            Some(worst) if self.kept.len() >= self.k => Some(self.to_score(worst.cost)),
            _ => None,
        }
    }

    /// Offers a row; `score` is not NaN.
    pub fn offer(&mut self, score: f64, key: K) {
        let offer = Offer { cost: if self.metric.higher_is_better() { -score } else { score }, key };
        if self.kept.len() < self.k {
            self.kept.push(offer);
        } else if let Some(mut worst) = self.kept.peek_mut()
            && offer < *worst
        {
            *worst = offer;
        }
    }

    /// What was kept, best first.
    pub fn into_sorted(self) -> Vec<Ranked<K>> {
        let metric = self.metric;
        let ranked = self.kept.into_sorted_vec().into_iter();
        ranked
            .map(|offer| Ranked {
                score: if metric.higher_is_better() { 0.0 - offer.cost } else { offer.cost },
                key: offer.key,
            })
            .collect()
    }

    fn to_score(&self, cost: f64) -> f64 {
        if self.metric.higher_is_better() { 0.0 - cost } else { cost }
    }
}

impl<K: Ord> Ord for Offer<K> {
    fn cmp(&self, other: &Self) -> Ordering {
        // Zeros of both signs are one score; `total_cmp` would tell them apart.
        let by_cost = self.cost.partial_cmp(&other.cost).unwrap_or_else(|| self.cost.total_cmp(&other.cost));
        by_cost.then_with(|| self.key.cmp(&other.key))
    }
}

impl<K: Ord> PartialOrd for Offer<K> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl<K: Ord> PartialEq for Offer<K> {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl<K: Ord> Eq for Offer<K> {}

#[cfg(test)]
mod tests {
    use super::*;

    fn best(metric: Metric, k: usize, offers: &[(f64, &'static str)]) -> Vec<(f64, &'static str)> {
        let mut top = TopK::new(metric, k);
        offers.iter().for_each(|(score, key)| top.offer(*score, *key));
        top.into_sorted().into_iter().map(|ranked| (ranked.score, ranked.key)).collect()
    }

    #[test]
    fn ties_at_the_end_go_to_the_smaller_key() {
        let offers = [(1.0, "d"), (1.0, "b"), (2.0, "x"), (1.0, "a"), (1.0, "c")];
        assert_eq!(best(Metric::Dot, 3, &offers), [(2.0, "x"), (1.0, "a"), (1.0, "b")]);
        assert_eq!(best(Metric::L2, 3, &offers), [(1.0, "a"), (1.0, "b"), (1.0, "c")]);
    }

    #[test]
    fn zeros_of_both_signs_tie() {
        assert_eq!(best(Metric::Dot, 1, &[(0.0, "b"), (-0.0, "a")])[0].1, "a");
        assert_eq!(best(Metric::Dot, 1, &[(-0.0, "b"), (0.0, "a")])[0].1, "a");
    }

    #[test]
    fn none_wanted_is_none_kept() {
        assert!(best(Metric::Dot, 0, &[(1.0, "a")]).is_empty());
    }
}
