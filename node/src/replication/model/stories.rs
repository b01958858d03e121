//! Walks that tell a story: what a rule is for where no invariant shows it, and bugs that were found.

use super::limits::Limits;
use super::node::Image;
use super::world::{Action, Request, World, id};
use crate::ids::{Lsn, ReplicaId};
use crate::replication::{Member, Rule, Rules};

const A: usize = 0;
const B: usize = 1;
const C: usize = 2;

/// A world and what may happen in it.
struct Story {
    limits: Limits,
    world: World,
    /// Requests to the metadata store do not arrive, or not yet.
    loses_requests: bool,
    lost: Vec<Request>,
    /// What is broken is looked at by the story itself.
    outside_the_claim: bool,
}

impl Story {
    fn of_two() -> Story {
        Story::new(Limits::of_two(Rules::default()))
    }

    fn of_three(rules: Rules) -> Story {
        Story::new(Limits::of_three(rules))
    }

    fn new(limits: Limits) -> Story {
        let world = World::new(&limits);
        Story { limits, world, loses_requests: false, lost: Vec::new(), outside_the_claim: false }
    }

    fn act(&mut self, action: Action) {
        self.world.act(action, &self.limits);
        assert!(self.world.broken.is_none() || self.outside_the_claim, "{action:?}: {:?}", self.world.broken);
    }

    /// Lets everything happen that should, for as many steps of the clock, among these nodes; the others are silent.
    fn run(&mut self, steps: u8, nodes: &[usize]) {
        for _ in 0..steps {
            for _ in 0..4 {
                self.deliver(nodes);
                nodes.iter().for_each(|node| self.act(Action::Sync(*node)));
                if self.loses_requests {
                    self.lost.append(&mut self.world.requests);
                }
                while !self.world.requests.is_empty() {
                    self.act(Action::Land { request: 0, answered: true });
                }
                nodes.iter().for_each(|node| self.act(Action::Watch(*node)));
            }
            self.act(Action::Time);
            nodes.iter().for_each(|node| self.act(Action::Tick(*node)));
        }
    }

    /// Messages among these nodes arrive, the others are lost.
    fn deliver(&mut self, nodes: &[usize]) {
        while let Some(mail) = self.world.mail.first() {
            match nodes.iter().find(|node| self.world.nodes[**node].id() == mail.to) {
                Some(node) => self.act(Action::Deliver { mail: 0, node: *node, again: false }),
                None => drop(self.world.mail.remove(0)),
            }
        }
    }

    fn takes_writes(&self, node: usize) -> bool {
        let core = &self.world.nodes[node].core;
        core.admit(true, self.world.now()).is_ok()
    }

    /// Writes and lets it be acknowledged, or not.
    fn is_acknowledged(&mut self, node: usize, nodes: &[usize]) -> bool {
        assert!(self.takes_writes(node), "{:?}", self.world.nodes[node].core.admit(true, self.world.now()));
        self.act(Action::Write(node));
        let write = self.world.happened.writes;
        self.run(2, nodes);
        self.world.has_acknowledged(write)
    }

    fn isr(&self) -> Vec<ReplicaId> {
        self.world.record.isr.clone()
    }
}

/// R2. A dead copy's place goes to another one before anything of the new reign is committed: nothing could be while the
/// dead copy counts.
///
/// 1. C falls behind and leaves the set. 2. A's disk is lost, B is elected; the set cannot be smaller than A and B.
/// 3. C catches up with B and takes A's place.
fn primary_and_a_member_are_lost(rules: Rules) -> Story {
    let mut story = Story::of_three(rules);
    story.run(8, &[A, B]);
    assert_eq!(story.isr(), [id(1), id(2)]);
    story.act(Action::Wipe(A));
    story.act(Action::Elect { node: B, out: false });
    story.run(16, &[B, C]);
    story
}

#[test]
fn a_lost_copy_is_replaced_before_the_reign_is_committed() {
    let mut story = primary_and_a_member_are_lost(Rules::default());
    assert_eq!(story.isr(), [id(2), id(3)]);
    assert!(story.is_acknowledged(B, &[B, C]));
}

#[test]
fn without_that_rule_the_shard_stays_unavailable() {
    let mut story = primary_and_a_member_are_lost(Rules::without(Rule::ReplaceBeforeCommit));
    assert_eq!(story.isr(), [id(1), id(2)]);
    assert!(!story.is_acknowledged(B, &[B, C]));
}

/// R8. C's disk holds an earlier state, and the Master elects it all the same.
fn an_older_image_is_elected(rules: Rules) -> Story {
    let mut story = Story::of_three(rules);
    assert!(story.is_acknowledged(A, &[A, B, C]));
    story.outside_the_claim = true;
    story.world.restart(C, id(3), Image::default(), &story.limits);
    story.act(Action::Elect { node: C, out: false });
    story
}

#[test]
fn a_copy_that_lacks_what_is_committed_steps_back_and_is_trusted_no_more() {
    let mut story = an_older_image_is_elected(Rules::default());
    story.run(4, &[B, C]);
    assert_eq!(story.world.record.member(id(3)), Some(Member { id: id(3), damaged: true }));
    assert!(!story.world.leads(C));
    story.act(Action::Elect { node: B, out: false });
    story.run(8, &[A, B, C]);
    assert_eq!(story.isr(), [id(1), id(2)]);
    assert!(story.is_acknowledged(B, &[A, B, C]));
    assert!(story.world.nodes[B].durable.log.starts_with(&story.world.acknowledged), "nothing is lost");
}

#[test]
fn without_that_rule_logs_part_unnoticed() {
    let mut story = an_older_image_is_elected(Rules::without(Rule::BehindStepsBack));
    story.run(6, &[A, B, C]);
    let (b, c) = (&story.world.nodes[B], &story.world.nodes[C]);
    assert!(story.world.leads(C) && c.core.commit() >= Lsn(1) && b.core.commit() >= Lsn(1));
    assert_ne!(b.durable.log[0], c.durable.log[0]);
}

/// A hand-over is asked for, and the request is lost: nobody knows whether it will be carried out. The primary asks for the
/// set as it is; once that is made the hand-over never will be, and it takes writes again. (It waited for ever.)
#[test]
fn a_lost_hand_over_is_settled() {
    let mut story = Story::of_two();
    story.run(2, &[A, B]);
    story.loses_requests = true;
    story.act(Action::HandOver(A));
    story.run(6, &[A, B]);
    assert!(!story.lost.is_empty() && !story.takes_writes(A));
    story.loses_requests = false;
    story.run(4, &[A, B]);
    assert!(story.is_acknowledged(A, &[A, B]));
    story.world.requests = std::mem::take(&mut story.lost);
    story.run(2, &[A, B]);
    assert!(story.world.leads(A), "too late: the record has changed");
}

/// A copy is to enter the set, the request is lost, and the copy dies: it counts until that is settled. (The shard waited
/// for it for ever.)
#[test]
fn a_lost_growth_of_the_set_is_settled() {
    let mut story = Story::of_two();
    story.run(8, &[A]);
    assert_eq!(story.isr(), [id(1)]);
    story.loses_requests = true;
    story.run(4, &[A, B]);
    assert!(!story.lost.is_empty());
    assert!(!story.is_acknowledged(A, &[A]));
    story.loses_requests = false;
    story.run(8, &[A]);
    assert_eq!(story.isr(), [id(1)]);
    assert!(story.is_acknowledged(A, &[A]));
}
