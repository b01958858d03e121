//! What this gateway knows of its own calls: how many are under way to each node, how long reads took lately, and whether
//! one more read may be sent twice.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::ids::NodeId;

/// Calls of one kind that are remembered.
const RECENT_CALLS: usize = 64;
/// A read is sent to a second replica after twice the time that half of the recent ones took, within these limits.
const HEDGE_AFTER_MIN: Duration = Duration::from_millis(20);
const HEDGE_AFTER_MAX: Duration = Duration::from_secs(1);
/// What a second call costs, in calls: at most each tenth one.
const HEDGE_COST: u32 = 10;
/// Credit is not saved beyond ten second calls, so that a cluster that turns slow is not asked twice for everything.
const CREDIT_MAX: u32 = 10 * HEDGE_COST;

/// Kinds of reads, whose times have nothing to do with each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum ReadKind {
    Get,
    List,
    Search,
    SearchBatch,
}

impl ReadKind {
    /// The word in metrics.
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            ReadKind::Get => "get",
            ReadKind::List => "list",
            ReadKind::Search => "search",
            ReadKind::SearchBatch => "search_batch",
        }
    }
}

/// The calls of this gateway.
#[derive(Debug, Default)]
pub(super) struct Traffic {
    in_flight: Mutex<HashMap<NodeId, usize>>,
    turn: AtomicUsize,
    recent: [Mutex<Recent>; 4],
    credit: AtomicU32,
}

/// A call that is under way; over when dropped.
pub(super) struct Flight<'t> {
    traffic: &'t Traffic,
    node: NodeId,
}

impl Traffic {
    /// A call to `node` begins.
    pub(super) fn begin(&self, node: &NodeId) -> Flight<'_> {
        *self.in_flight().entry(node.clone()).or_default() += 1;
        Flight { traffic: self, node: node.clone() }
    }

    /// Calls that are under way to `node`.
    pub(super) fn calls_to(&self, node: &NodeId) -> usize {
        self.in_flight().get(node).copied().unwrap_or(0)
    }

    /// Whose turn it is.
    pub(super) fn next_turn(&self) -> usize {
        self.turn.fetch_add(1, Ordering::Relaxed)
    }

    /// A read begins: it earns a part of a second call.
    pub(super) fn earn(&self) {
        let earn = |credit: u32| Some((credit + 1).min(CREDIT_MAX));
        let _ = self.credit.fetch_update(Ordering::Relaxed, Ordering::Relaxed, earn);
    }

    /// Pays for a second call; `false`: there is no credit for it.
    pub(super) fn pay(&self) -> bool {
        let pay = |credit: u32| credit.checked_sub(HEDGE_COST);
        self.credit.fetch_update(Ordering::Relaxed, Ordering::Relaxed, pay).is_ok()
    }

    /// A read was answered after this time.
    pub(super) fn answered(&self, kind: ReadKind, elapsed: Duration) {
        self.recent(kind).add(elapsed);
    }

    /// How long to wait for an answer before a second replica is asked.
    pub(super) fn hedge_after(&self, kind: ReadKind) -> Duration {
        match self.recent(kind).median() {
            Some(median) => (2 * median).clamp(HEDGE_AFTER_MIN, HEDGE_AFTER_MAX),
            None => HEDGE_AFTER_MAX,
        }
    }

    // Both locks are held for short and without waits; a panic leaves what they guard whole.
    fn in_flight(&self) -> MutexGuard<'_, HashMap<NodeId, usize>> {
        self.in_flight.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn recent(&self, kind: ReadKind) -> MutexGuard<'_, Recent> {
        self.recent[kind as usize].lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Flight<'_> {
    fn drop(&mut self) {
        let mut in_flight = self.traffic.in_flight();
        match in_flight.get_mut(&self.node) {
            Some(calls) if *calls > 1 => *calls -= 1,
            // Nodes come and go: only those with calls are kept.
            _ => drop(in_flight.remove(&self.node)),
        }
    }
}

/// Times of the last calls.
#[derive(Debug, Default)]
struct Recent(VecDeque<Duration>);

impl Recent {
    fn add(&mut self, elapsed: Duration) {
        if self.0.len() == RECENT_CALLS {
            self.0.pop_front();
        }
        self.0.push_back(elapsed);
    }

    fn median(&self) -> Option<Duration> {
        let mut times: Vec<Duration> = self.0.iter().copied().collect();
        let middle = times.len().checked_sub(1)? / 2;
        Some(*times.select_nth_unstable(middle).1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_under_way_are_counted_until_they_end() {
        let (traffic, node) = (Traffic::default(), NodeId::parse("a").expect("valid"));
        let (first, second) = (traffic.begin(&node), traffic.begin(&node));
        assert_eq!(traffic.calls_to(&node), 2);
        drop(first);
        assert_eq!(traffic.calls_to(&node), 1);
        drop(second);
        assert_eq!(traffic.calls_to(&node), 0);
        assert!(traffic.in_flight().is_empty());
    }

    #[test]
    fn a_second_call_waits_for_twice_the_median_of_its_own_kind() {
        let traffic = Traffic::default();
        assert_eq!(traffic.hedge_after(ReadKind::Get), HEDGE_AFTER_MAX);
        for ms in [1, 100, 100, 100, 60_000] {
            traffic.answered(ReadKind::Search, Duration::from_millis(ms));
            traffic.answered(ReadKind::Get, Duration::from_millis(1));
        }
        assert_eq!(traffic.hedge_after(ReadKind::Search), Duration::from_millis(200));
        assert_eq!(traffic.hedge_after(ReadKind::Get), HEDGE_AFTER_MIN);
        assert_eq!(traffic.hedge_after(ReadKind::List), HEDGE_AFTER_MAX);
        // What is long ago does not count.
        for _ in 0..RECENT_CALLS {
            traffic.answered(ReadKind::Search, Duration::from_secs(7));
        }
        assert_eq!(traffic.hedge_after(ReadKind::Search), HEDGE_AFTER_MAX);
        assert_eq!(traffic.recent(ReadKind::Search).0.len(), RECENT_CALLS);
    }

    #[test]
    fn at_most_each_tenth_read_is_sent_twice() {
        let traffic = Traffic::default();
        let mut paid = 0;
        for _ in 0..1_000 {
            traffic.earn();
            paid += u32::from(traffic.pay());
        }
        assert_eq!(paid, 100);
        for _ in 0..10_000 {
            traffic.earn();
        }
        assert_eq!((0..1_000).filter(|_| traffic.pay()).count(), 10, "credit is not saved for ever");
    }
}
