//! Reads of one shard: one replica is asked; where it fails, or is slow, another one.

use std::time::Instant;

use futures::StreamExt as _;
use futures::stream::FuturesUnordered;
use vectorsphere_proto::internal as proto;

use super::attempts::{Attempts, Target, graver, may_help_elsewhere, revision_of};
use super::session_token::{SeenPosition, SessionToken};
use super::traffic::ReadKind;
use super::{RequestContext, Router};
use crate::comm::ShardClient;
use crate::error_code::Error;
use crate::ids::{Lsn, ShardId};
use crate::search::Consistency;

impl Router {
    /// Asks replicas of `shard` until one answers, all fail for good, or the time is up. At most one of its calls is sent
    /// to a second replica because the first is slow.
    pub(super) async fn read<T, F>(
        &self,
        context: &RequestContext,
        shard: ShardId,
        (kind, consistency): (ReadKind, Consistency),
        call: impl Fn(ShardClient, proto::ShardRef) -> F,
    ) -> Result<T, Error>
    where
        F: Future<Output = Result<tonic::Response<T>, tonic::Status>>,
    {
        self.traffic.earn();
        let (mut attempts, mut may_hedge) = (Attempts::new(self, context), true);
        loop {
            let tried = self.revision_of(shard);
            let answer = match self.readers(shard, consistency) {
                Ok(targets) => self.ask_in_turn(context, kind, targets, &mut may_hedge, &call).await,
                Err(error) => Err(error),
            };
            match answer {
                Err(error) if error.code.is_transient() => {
                    if !attempts.again(|view| revision_of(view, shard) != tried).await {
                        return Err(error);
                    }
                }
                answer => return answer,
            }
        }
    }

    /// Asks each of the replicas at most once, until one answers. Of several failures the gravest is told.
    async fn ask_in_turn<T, F>(
        &self,
        context: &RequestContext,
        kind: ReadKind,
        targets: Vec<Target>,
        may_hedge: &mut bool,
        call: &impl Fn(ShardClient, proto::ShardRef) -> F,
    ) -> Result<T, Error>
    where
        F: Future<Output = Result<tonic::Response<T>, tonic::Status>>,
    {
        let ask = async |target: Target, is_hedge: bool| {
            let started = Instant::now();
            let answer = self.ask(context, &target, call).await;
            (answer, is_hedge, started.elapsed())
        };
        let mut targets = targets.into_iter();
        let first = targets.next().expect("there is a replica to ask");
        let mut under_way = FuturesUnordered::from_iter([ask(first, false)]);
        let (mut failure, mut hedged) = (None, false);
        let slow = tokio::time::sleep(self.traffic.hedge_after(kind));
        tokio::pin!(slow);
        loop {
            let ended = tokio::select! {
                biased;
                Some(ended) = under_way.next() => ended,
                () = &mut slow, if *may_hedge && targets.len() > 0 => {
                    *may_hedge = false;
                    if self.traffic.pay() {
                        hedged = true;
                        under_way.extend(targets.next().map(|target| ask(target, true)));
                    }
                    continue;
                }
            };
            let (answer, is_hedge, elapsed) = ended;
            let error = match answer {
                Err(error) if may_help_elsewhere(error.code) => error,
                answer => {
                    if answer.is_ok() {
                        self.traffic.answered(kind, elapsed);
                    }
                    if hedged {
                        self.metrics.hedged(kind, is_hedge);
                    }
                    return answer;
                }
            };
            failure = Some(failure.map_or(error.clone(), |failure| graver(failure, error)));
            if under_way.is_empty() {
                let Some(target) = targets.next() else { break };
                self.metrics.failovers.inc();
                under_way.push(ask(target, false));
            }
        }
        Err(failure.expect("the first replica failed"))
    }

    /// Takes note of where an answer of `shard` stood; the position as tokens carry it.
    pub(super) fn seen(&self, shard: ShardId, position: Option<proto::ReadPosition>) -> SeenPosition {
        let position = position.unwrap_or_default();
        let seen = SeenPosition { incarnation: position.incarnation, lsn: Lsn(position.applied_lsn) };
        self.known.see(&self.view(), shard, seen);
        seen
    }
}

impl Router {
    /// What a read of one shard must reflect. A session without a token sees at least what this gateway has seen.
    pub(super) fn rule(
        &self,
        consistency: Consistency,
        token: &SessionToken,
        shard: ShardId,
    ) -> proto::ReadRule {
        let mut position = token.position(shard.index);
        if consistency == Consistency::Session && position.lsn == Lsn::ZERO {
            position = self.known.seen(shard);
        }
        rule(consistency, position)
    }
}

fn rule(consistency: Consistency, position: SeenPosition) -> proto::ReadRule {
    let (level, max_staleness_ms) = match consistency {
        Consistency::Strong => (proto::Level::Strong, 0),
        Consistency::StrongNoClock => (proto::Level::StrongNoclock, 0),
        Consistency::Session => (proto::Level::Session, 0),
        Consistency::Bounded(most) => (proto::Level::Bounded, most.as_millis() as u32),
        Consistency::Eventual => (proto::Level::Eventual, 0),
    };
    let SeenPosition { incarnation, lsn } = position;
    proto::ReadRule { level: level.into(), min_lsn: lsn.0, max_staleness_ms, incarnation }
}
