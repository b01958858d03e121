//! Each rule is needed: without it a walk finds a broken state.
//!
//! The rules of the second review (R1 to R13 of the design), and where each of them is shown:
//!
//! | rule | where |
//! |---|---|
//! | R1 a new process takes a new epoch | [`Rule::NeverResume`] |
//! | R2 a dead copy is replaced before the reign is committed | [`Rule::ReplaceBeforeCommit`]: a story, since nothing breaks but availability |
//! | R3 the metadata store was put back | a fault of the simulator: one world has one store |
//! | R4 refusals are reads | [`Rule::RefusalsAreReads`] |
//! | R5 a hand-over may be made late | [`Rule::FormerPrimaryAnswers`], [`Rule::TimeoutIsUnknown`]; the primary makes the change itself, so nobody else's late one exists |
//! | R6 a backup's cut | a position that is confirmed after all marks are placed; see the simulator |
//! | R7 torn tails, half batches | [`Rule::BatchesAreWhole`]; tails are the store's and the Master's, in the simulator |
//! | R8 an older image of a disk | [`Rule::BehindStepsBack`]: stories, since within the claim others outvote the image |
//! | R9 two processes over one volume | [`Rule::PredecessorEnds`], [`Rule::SoleMemberHasSession`] |
//! | R10 late retries | a fault of the simulator: the store's window of ids |
//! | R11 drains are compared | [`Rule::DrainsAreCompared`] |
//! | R12 formats are gated | at registration; a model knows one version |
//! | R13 a damaged copy is not elected | a fault of the simulator: nothing breaks but availability |

use std::time::Duration;

use super::limits::Limits;
use super::{Found, walk};
use crate::replication::{Rule, Rules};

/// Without a rule: a small world in which that shows, and what breaks there first.
type Mutant = (Rule, fn(Rules) -> Limits);

const MUTANTS: &[Mutant] = &[
    (Rule::MaximalIsr, |rules| Limits { elections: 0, ..Limits::of_two_that_live(rules) }),
    (Rule::ShrinkIsConfirmed, Limits::of_three_that_live),
    (Rule::TimeoutIsUnknown, Limits::of_two),
    (Rule::CutWhereLogsPart, Limits::of_three_that_live),
    (Rule::ServeAfterStart, Limits::of_three_that_live),
    (Rule::GrowWhenComplete, Limits::of_three_that_live),
    (Rule::PromiseRunsOut, Limits::of_two),
    (Rule::PromiseIsMaximum, Limits::of_two),
    (Rule::EpochIsChecked, Limits::of_two),
    (Rule::MinIsr, Limits::of_three_that_live),
    (Rule::AcksOfThisEpoch, Limits::of_two),
    (Rule::PromiseIsDurable, Limits::of_two),
    (Rule::IdentityIsNew, Limits::of_three),
    (Rule::NeverResume, Limits::of_three),
    (Rule::RefusalsAreReads, Limits::of_two_with_more),
    (Rule::FormerPrimaryAnswers, Limits::of_two),
    (Rule::BatchesAreWhole, |rules| Limits { batch: 4, ..Limits::of_two(rules) }),
    (Rule::PredecessorEnds, Limits::of_two_with_more),
    (Rule::SoleMemberHasSession, |rules| Limits {
        copies: 1,
        successors: 1,
        crashes: 0,
        ..Limits::of_two(rules)
    }),
    (Rule::DrainsAreCompared, |rules| Limits { drains: 1, elections: 0, ..Limits::of_two_that_live(rules) }),
];

#[test]
fn every_rule_is_needed() {
    for (rule, limits) in MUTANTS {
        let Found { broken, states, story, .. } =
            walk(limits(Rules::without(*rule)), Duration::from_secs(60));
        assert!(broken.is_some(), "nothing breaks without {rule:?}, in {states} states");
        println!("{rule:?}: {} after {states} states, {} actions", broken.unwrap_or_default(), story.len());
    }
}
