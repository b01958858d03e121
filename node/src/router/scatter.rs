//! The calls of one search: every shard at one of its replicas, one call a node; where it fails, or is slow, at another.

use std::collections::{BTreeMap, VecDeque};
use std::pin::pin;
use std::time::Instant;

use futures::FutureExt as _;
use futures::future::{Either, join_all, select};
use vectorsphere_proto::internal as proto;

use super::attempts::{Attempts, Target, graver, may_help_elsewhere, revision_of};
use super::search::{Query, hit};
use super::session_token::SeenPosition;
use super::{RequestContext, Router};
use crate::cluster::view::ClusterView;
use crate::error_code::{Error, ErrorCode};
use crate::ids::{NodeId, Revision, ShardId, ShardIndex};
use crate::search::{Hit, SegmentExplanation};
use crate::table::Table;

impl Router {
    /// Asks every shard, again where the map was stale; what each of them said last, ascending.
    pub(super) async fn ask_all_shards(
        &self,
        context: &RequestContext,
        query: &Query<'_>,
    ) -> BTreeMap<ShardIndex, Answer> {
        let mut attempts = Attempts::new(self, context);
        let mut answers = BTreeMap::new();
        let mut pending: Vec<ShardIndex> = (0..query.table.schema.shards).map(ShardIndex).collect();
        loop {
            let tried = self.revisions_of(query.table, &pending);
            answers.extend(self.ask_round(context, query, &pending).await);
            let failed_for_good =
                |answer: &Answer| answer.as_ref().is_err_and(|error| !error.code.is_transient());
            pending.retain(|shard| answers[shard].is_err());
            if pending.is_empty() || answers.values().any(failed_for_good) {
                return answers;
            }
            let has_changed = |view: &ClusterView| {
                tried.iter().any(|(shard, revision)| revision_of(view, *shard) != *revision)
            };
            if !attempts.again(has_changed).await {
                return answers;
            }
        }
    }

    fn revisions_of(&self, table: &Table, shards: &[ShardIndex]) -> Vec<(ShardId, Option<Revision>)> {
        let view = self.view();
        let ids = shards.iter().map(|index| ShardId { table: table.id, index: *index });
        ids.map(|id| (id, revision_of(&view, id))).collect()
    }

    /// Asks each replica of each of the shards at most once, until one answers for it: all nodes in parallel, one call each
    /// for the shards that it is the best choice for, then the shards that failed at the next best.
    async fn ask_round(
        &self,
        context: &RequestContext,
        query: &Query<'_>,
        shards: &[ShardIndex],
    ) -> Vec<(ShardIndex, Answer)> {
        let mut done = Vec::with_capacity(shards.len());
        let mut open = Vec::with_capacity(shards.len());
        for index in shards {
            let shard = ShardId { table: query.table.id, index: *index };
            match self.readers(shard, query.request.read.consistency) {
                Ok(targets) => open.push(Open { index: *index, targets: targets.into(), failure: None }),
                Err(error) => done.push((*index, Err(error))),
            }
        }
        while !open.is_empty() {
            let groups = grouped(open).into_iter();
            let asked =
                join_all(groups.map(|(node, group)| self.ask_group(context, query, node, group))).await;
            open = Vec::new();
            for (mut shard, answer) in asked.into_iter().flatten() {
                let error = match answer {
                    Err(error) if may_help_elsewhere(error.code) => error,
                    answer => {
                        done.push((shard.index, answer));
                        continue;
                    }
                };
                let failure = shard.failure.take().map_or(error.clone(), |failure| graver(failure, error));
                match shard.targets.is_empty() {
                    true => done.push((shard.index, Err(failure))),
                    false => {
                        self.metrics.failovers.inc();
                        open.push(Open { failure: Some(failure), ..shard });
                    }
                }
            }
        }
        done
    }

    /// Asks one node for a group of shards. When it is slow and every one of them has another replica, those are asked too:
    /// the first to answer without a failure wins, and where both failed in part, each shard counts that one answered for.
    async fn ask_group(
        &self,
        context: &RequestContext,
        query: &Query<'_>,
        node: NodeId,
        group: Vec<(Open, proto::ShardRef)>,
    ) -> Vec<(Open, Answer)> {
        self.traffic.earn();
        let (mut shards, refs): (Vec<Open>, Vec<proto::ShardRef>) = group.into_iter().unzip();
        let slow = tokio::time::sleep(self.traffic.hedge_after(query.kind()));
        let mut first = pin!(self.ask_node(context, query, &node, refs));
        let may_hedge = shards.iter().all(|shard| !shard.targets.is_empty());
        let early = tokio::select! {
            biased;
            answers = &mut first => Some(answers),
            () = slow, if may_hedge => None,
        };
        let mut answers = match early {
            Some(answers) => answers,
            None if !self.traffic.pay() => first.await,
            None => {
                let (others, second) = self.ask_others(context, query, shards);
                let (answers, second_won) = first_whole(first, pin!(second)).await;
                self.metrics.hedged(query.kind(), second_won);
                shards = others;
                answers
            }
        };
        let answer_of = |shard: Open| {
            let answer = answers.remove(&shard.index).unwrap_or_else(|| {
                Err(Error::new(ErrorCode::Internal, format!("node {node} left out shard {}", shard.index)))
            });
            (shard, answer)
        };
        shards.into_iter().map(answer_of).collect()
    }

    /// Asks the next replica of each of the shards, which have one; the shards as they are then, and the call.
    fn ask_others<'c>(
        &'c self,
        context: &'c RequestContext,
        query: &'c Query<'_>,
        shards: Vec<Open>,
    ) -> (Vec<Open>, impl Future<Output = BTreeMap<ShardIndex, Answer>>) {
        let (mut others, mut calls) = (Vec::with_capacity(shards.len()), Vec::new());
        for (node, group) in grouped(shards) {
            let (shards, refs): (Vec<Open>, Vec<proto::ShardRef>) = group.into_iter().unzip();
            others.extend(shards);
            calls.push(async move { self.ask_node(context, query, &node, refs).await });
        }
        (others, join_all(calls).map(|answers| answers.into_iter().flatten().collect()))
    }

    async fn ask_node(
        &self,
        context: &RequestContext,
        query: &Query<'_>,
        node: &NodeId,
        shards: Vec<proto::ShardRef>,
    ) -> BTreeMap<ShardIndex, Answer> {
        let indexes: Vec<ShardIndex> = shards.iter().map(|shard| ShardIndex(shard.shard)).collect();
        let started = Instant::now();
        let answer = match self.shard_client(node) {
            Ok(client) => {
                let _flight = self.traffic.begin(node);
                query.ask(self, context, (node, client), shards).await
            }
            Err(error) => Err(error),
        };
        let read = |(index, answer): (ShardIndex, proto::ShardBatchAnswer)| {
            let shard = ShardId { table: query.table.id, index };
            (index, self.shard_answer(shard, answer, query.request.queries.len()))
        };
        match answer {
            Ok(answers) => {
                self.traffic.answered(query.kind(), started.elapsed());
                indexes.into_iter().zip(answers).map(read).collect()
            }
            Err(mut error) => {
                error.message = format!("node {node}: {}", error.message);
                indexes.into_iter().map(|index| (index, Err(error.clone()))).collect()
            }
        }
    }

    /// What one shard said to so many queries.
    fn shard_answer(&self, shard: ShardId, answer: proto::ShardBatchAnswer, queries: usize) -> Answer {
        if let Some(failure) = answer.failure {
            let code = ErrorCode::parse(&failure.code).unwrap_or(ErrorCode::Internal);
            return Err(Error::new(code, failure.message));
        }
        if answer.queries.len() != queries {
            let message =
                format!("shard {} answered {} of {queries} queries", shard.index, answer.queries.len());
            return Err(Error::new(ErrorCode::Internal, message));
        }
        let queries = answer.queries.into_iter().map(QueryHits::from_proto).collect::<Result<_, _>>()?;
        Ok(ShardHits { queries, position: self.seen(shard, answer.position) })
    }
}

/// What a shard said: its best hits, or why there are none.
pub(super) type Answer = Result<ShardHits, Error>;

/// The best hits of one shard.
#[derive(Debug)]
pub(super) struct ShardHits {
    /// One for each query, in order.
    pub(super) queries: Vec<QueryHits>,
    /// Where the snapshot stood.
    pub(super) position: SeenPosition,
}

/// The best hits of one shard for one query.
#[derive(Debug)]
pub(super) struct QueryHits {
    pub(super) hits: Vec<Hit>,
    /// How the shard was searched, when asked for.
    pub(super) segments: Vec<SegmentExplanation>,
}

impl QueryHits {
    fn from_proto(answer: proto::QueryAnswer) -> Result<QueryHits, Error> {
        Ok(QueryHits {
            hits: answer.hits.into_iter().map(hit).collect::<Result<_, _>>()?,
            segments: answer.segments.into_iter().map(SegmentExplanation::from_proto).collect(),
        })
    }
}

/// A shard that has not answered yet.
struct Open {
    index: ShardIndex,
    /// Replicas that were not asked yet, the best one first.
    targets: VecDeque<Target>,
    /// Of the replicas that were.
    failure: Option<Error>,
}

/// Shards by the node of their next replica, each of which has one. They have been asked then.
fn grouped(shards: Vec<Open>) -> BTreeMap<NodeId, Vec<(Open, proto::ShardRef)>> {
    let mut groups: BTreeMap<NodeId, Vec<_>> = BTreeMap::new();
    for mut shard in shards {
        let target = shard.targets.pop_front().expect("a replica is left to ask");
        groups.entry(target.node).or_default().push((shard, target.shard));
    }
    groups
}

/// The answers of the call that first brings all of them, and whether that is the second one; of both calls where each
/// of them failed in part.
async fn first_whole(
    first: impl Future<Output = BTreeMap<ShardIndex, Answer>> + Unpin,
    second: impl Future<Output = BTreeMap<ShardIndex, Answer>> + Unpin,
) -> (BTreeMap<ShardIndex, Answer>, bool) {
    let is_whole = |answers: &BTreeMap<_, Answer>| answers.values().all(Result::is_ok);
    let (mut early, late, second_won) = match select(first, second).await {
        Either::Left((answers, _)) if is_whole(&answers) => return (answers, false),
        Either::Right((answers, _)) if is_whole(&answers) => return (answers, true),
        Either::Left((answers, second)) => (answers, second.await, true),
        Either::Right((answers, first)) => (answers, first.await, false),
    };
    for (shard, answer) in late {
        if early.get(&shard).is_none_or(Result::is_err) {
            early.insert(shard, answer);
        }
    }
    (early, second_won)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::Lsn;

    fn answers(of: &[(u32, Option<u64>)]) -> BTreeMap<ShardIndex, Answer> {
        let answer = |lsn: &Option<u64>| {
            let position = |lsn: u64| SeenPosition { incarnation: 0, lsn: Lsn(lsn) };
            let hits = |lsn| ShardHits { queries: Vec::new(), position: position(lsn) };
            lsn.map(hits).ok_or_else(|| Error::new(ErrorCode::ShardUnavailable, "down"))
        };
        of.iter().map(|(shard, lsn)| (ShardIndex(*shard), answer(lsn))).collect()
    }

    fn positions(answers: &BTreeMap<ShardIndex, Answer>) -> Vec<Option<u64>> {
        answers.values().map(|answer| answer.as_ref().ok().map(|hits| hits.position.lsn.0)).collect()
    }

    #[tokio::test]
    async fn of_two_calls_the_first_whole_answer_wins_and_partial_ones_complete_each_other() {
        let ready = |of: &[(u32, Option<u64>)]| Box::pin(std::future::ready(answers(of)));
        let never = || Box::pin(std::future::pending());
        let (found, second_won) = first_whole(ready(&[(0, Some(1)), (1, Some(1))]), never()).await;
        assert_eq!((positions(&found), second_won), (vec![Some(1), Some(1)], false));
        let (found, second_won) = first_whole(never(), ready(&[(0, Some(2)), (1, Some(2))])).await;
        assert_eq!((positions(&found), second_won), (vec![Some(2), Some(2)], true));
        let (first, second) = (ready(&[(0, Some(1)), (1, None)]), ready(&[(0, None), (1, Some(2))]));
        assert_eq!(positions(&first_whole(first, second).await.0), [Some(1), Some(2)]);
        let (first, second) = (ready(&[(0, None)]), ready(&[(0, None)]));
        assert_eq!(positions(&first_whole(first, second).await.0), [None]);
    }
}
