//! A copy that follows a primary: takes its records, cuts what differs, answers when durable.

use std::time::Duration;

use super::message::{Append, Message, Reply, ReplyOutcome};
use super::replica::{Command, Given, LogOperation, Replica, Standing};
use super::rules::Rule;
use crate::ids::{Epoch, Lsn, ReplicaId, Session};

/// What a follower knows of its primary.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Following {
    /// The reign.
    pub epoch: Epoch,
    /// Who leads it.
    pub primary: ReplicaId,
    /// The logs are equal up to here.
    pub matched: Lsn,
    /// The largest beacon heard.
    beacon: u64,
    /// The largest beacon answered.
    answered: u64,
    /// Why the last append was not taken.
    mismatch: bool,
    /// The primary lacks what is committed.
    contradicted: bool,
    /// A snapshot is being fetched.
    pub(super) installing: bool,
    /// Everything that was acknowledged at this time of its boot-time clock lies at or before the position.
    fresh: Option<(Lsn, Duration)>,
}

impl Replica {
    pub(super) fn on_append(&mut self, from: ReplicaId, append: &Append, given: &mut Given<'_>) {
        if append.epoch < self.promised && self.rules.hold(Rule::EpochIsChecked) {
            return self.refuse(from, append.beacon, given);
        }
        self.obey(from, append.epoch, given);
        let mismatch = !self.log.has(append.prev, self.commit);
        self.promise_to_obey(mismatch, given);
        let is_contradicted = self.contradicts(append) && self.rules.hold(Rule::BehindStepsBack);
        let Standing::Following(following) = &mut self.standing else { unreachable!("set by obey") };
        following.beacon = following.beacon.max(append.beacon);
        following.mismatch = mismatch;
        following.contradicted |= is_contradicted;
        if following.installing || following.mismatch || following.contradicted {
            return self.reply_when_durable(given);
        }
        self.take_records(append, given);
        let Standing::Following(following) = &mut self.standing else { unreachable!("set by obey") };
        following.matched = following.matched.max(append.last);
        if let (Some((told_to, clock)), Some((session, _))) = (append.fresh, self.session)
            && told_to == session
            && following.fresh.is_none_or(|(_, known)| clock > known)
        {
            following.fresh = Some((append.commit, clock));
        }
        // Said to this very process, so what it has now is what it had told.
        let has_all = |(position, _)| position <= following.matched.min(self.log.durable);
        self.is_proven |= following.fresh.is_some_and(has_all);
        let known = append.commit.min(following.matched);
        // A beacon is answered at once: the disk may be slow, but the replica is there.
        let is_new_beacon = following.beacon > following.answered;
        if is_new_beacon || append.last <= self.log.durable {
            self.reply_when_durable(given);
        }
        if known > self.commit {
            self.commit = known;
            given.command(Command::Commit(known));
        }
    }

    /// A position, and a time on the boot-time clock before which nothing else was acknowledged than what lies up to there.
    pub fn freshness(&self) -> Option<(Lsn, Duration)> {
        match &self.standing {
            Standing::Following(following) => following.fresh,
            Standing::Idle | Standing::Primary(_) => None,
        }
    }

    /// Follows the primary of a reign that is not below the promised one.
    fn obey(&mut self, primary: ReplicaId, epoch: Epoch, given: &mut Given<'_>) {
        if let Standing::Primary(own) = &self.standing {
            assert!(
                own.epoch < epoch || !self.rules.hold(Rule::EpochIsChecked),
                "{} and {primary} both lead reign {epoch}",
                self.id
            );
            self.resign(given);
        }
        if epoch > self.promised {
            self.save_promise(epoch, given);
            if !self.rules.hold(Rule::CutWhereLogsPart) && self.log.end > self.commit {
                self.cut(self.commit, given);
            }
        }
        let is_same = matches!(&self.standing, Standing::Following(now) if now.epoch == epoch);
        if !is_same {
            self.standing = Standing::Following(Following {
                epoch,
                primary,
                // What is committed is in the log of every later primary.
                matched: self.commit,
                beacon: 0,
                answered: 0,
                mismatch: false,
                contradicted: false,
                installing: false,
                fresh: None,
            });
        }
    }

    /// From now on, for a while, nobody else's reign begins with this copy's help.
    fn promise_to_obey(&mut self, mismatch: bool, given: &Given<'_>) {
        let until = given.now.monotonic + self.timing.promise;
        self.promise_until = match self.rules.hold(Rule::PromiseIsMaximum) {
            true => self.promise_until.max(until),
            // It promises nothing to one whose records it does not take, and forgets the promises to others.
            false if mismatch => given.now.monotonic,
            false => until,
        };
    }

    /// True when the primary's reign begins where this copy has committed records of an earlier one.
    fn contradicts(&self, append: &Append) -> bool {
        append.start <= self.commit && self.log.epochs.epoch_at(self.commit) < Some(append.epoch)
    }

    fn take_records(&mut self, append: &Append, given: &mut Given<'_>) {
        let difference = self.log.first_difference(append.prev, &append.starts, append.last, self.commit);
        if let Some(at) = difference {
            self.cut(Lsn(at.0 - 1), given);
        }
        if append.last > self.log.end {
            for (epoch, first) in &append.starts {
                if *first > self.log.end {
                    self.log.epochs.begin(*epoch, *first);
                }
            }
            self.log.extend(append.last);
            self.give_to_log(LogOperation::Receive(append.last), given);
        }
    }

    /// Tells the primary how far this copy is, once its promise is durable.
    pub(super) fn reply_when_durable(&mut self, given: &mut Given<'_>) {
        let Standing::Following(following) = &mut self.standing else { return };
        // Who has promised a later reign says nothing more under this one.
        let is_over = following.epoch < self.promised && self.rules.hold(Rule::EpochIsChecked);
        if is_over || self.promised_durable < following.epoch {
            return;
        }
        let outcome = if following.contradicted {
            ReplyOutcome::Contradicted
        } else if following.installing {
            ReplyOutcome::Installing
        } else if following.mismatch {
            ReplyOutcome::Mismatch { epochs: self.log.epochs.clone(), end: self.log.end }
        } else {
            ReplyOutcome::Accepted { flushed: self.log.durable.min(following.matched) }
        };
        following.answered = following.beacon;
        let (to, epoch, beacon) = (following.primary, following.epoch, following.beacon);
        self.reply(to, epoch, beacon, outcome, given);
    }

    /// Tells a primary of an earlier reign that it is over.
    fn refuse(&mut self, to: ReplicaId, beacon: u64, given: &mut Given<'_>) {
        if self.promised_durable == self.promised {
            self.reply(to, self.promised, beacon, ReplyOutcome::Refused, given);
        }
    }

    fn reply(&self, to: ReplicaId, epoch: Epoch, beacon: u64, outcome: ReplyOutcome, given: &mut Given<'_>) {
        // Without a session of its node it can be neither elected nor taken in; it may answer all the same.
        let session = self.session.map_or(Session(0), |(session, _)| session);
        let clock = given.now.boot;
        let reply = Reply { session, clock, epoch, beacon, outcome, disk: self.disk };
        given.command(Command::Send(to, Message::Reply(reply)));
    }

    /// A primary wants this copy to fetch a snapshot, unless it judged another log than the one that is here: one that was
    /// fetched meanwhile, or that was not told yet.
    pub(super) fn on_install(&mut self, from: ReplicaId, epoch: Epoch, judged: Lsn, given: &mut Given<'_>) {
        if epoch < self.promised {
            return self.refuse(from, 0, given);
        }
        self.obey(from, epoch, given);
        let end = self.log.end;
        let Standing::Following(following) = &mut self.standing else { unreachable!("set by obey") };
        following.mismatch = true;
        if judged == end && !following.installing {
            following.installing = true;
            given.command(Command::Fetch(from));
        }
        self.reply_when_durable(given);
    }
}

#[cfg(test)]
mod tests;
