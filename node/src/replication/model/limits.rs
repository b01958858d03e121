//! How large a world is: what may happen in it, and how often.

use std::time::Duration;

use crate::replication::{Rules, Timing};

/// Records of one message: the rest of a longer one stays behind, as when a connection is full.
pub(super) const RECORDS_MAX: usize = 3;
/// Messages on their way; more push the oldest out.
pub(super) const MAIL_MAX: usize = 8;
/// One step of the model's clock.
pub(super) const STEP: Duration = Duration::from_secs(1);

/// Intervals in steps of the clock: few, so that few states differ by time alone.
pub(super) const TIMING: Timing = Timing {
    promise: Duration::from_secs(2),
    grant: Duration::from_secs(2),
    beacon: Duration::from_secs(1),
    silent: Duration::from_secs(3),
    slow: Duration::from_secs(4),
    resend: Duration::from_secs(1),
    propose_again: Duration::from_secs(1),
    hand_over: Duration::from_secs(4),
    readmission_min: Duration::from_secs(1),
    readmission_max: Duration::from_secs(2),
    flapping: Duration::from_secs(2),
    session: Duration::from_secs(3),
};

/// How large a world is. Numbers without another word say how often something may happen.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    pub(super) rules: Rules,
    /// Copies of the shard, all in sync at the beginning.
    pub(super) copies: usize,
    pub(super) min_isr: usize,
    pub(super) writes: u8,
    /// Records of one batch.
    pub(super) batch: u8,
    /// Writes that are refused for what the documents are.
    pub(super) refusals: u8,
    /// Reads that ask the other copies.
    pub(super) confirmations: u8,
    pub(super) elections: u8,
    pub(super) hand_overs: u8,
    pub(super) crashes: u8,
    /// Disks that are emptied.
    pub(super) wipes: u8,
    /// Processes that are started over the volume of one that goes on.
    pub(super) successors: u8,
    /// Nodes that are to give up their copies, and whose volumes are deleted then.
    pub(super) drains: u8,
    /// Steps of the clock.
    pub(super) time: u8,
}

impl Limits {
    /// Three copies, of which two are needed.
    pub(super) const fn of_three(rules: Rules) -> Limits {
        Limits {
            rules,
            copies: 3,
            min_isr: 2,
            writes: 3,
            batch: 1,
            refusals: 0,
            confirmations: 2,
            elections: 3,
            hand_overs: 1,
            crashes: 1,
            wipes: 1,
            successors: 0,
            drains: 0,
            time: 16,
        }
    }

    /// Two copies, of which one is needed.
    pub(super) const fn of_two(rules: Rules) -> Limits {
        Limits { copies: 2, min_isr: 1, wipes: 0, ..Limits::of_three(rules) }
    }

    /// Three copies, and nothing that happens to a process or a disk.
    pub(super) const fn of_three_that_live(rules: Rules) -> Limits {
        Limits { confirmations: 0, hand_overs: 0, crashes: 0, wipes: 0, ..Limits::of_three(rules) }
    }

    /// Two copies, and nothing that happens to a process or a disk.
    pub(super) const fn of_two_that_live(rules: Rules) -> Limits {
        Limits { copies: 2, min_isr: 1, ..Limits::of_three_that_live(rules) }
    }

    /// Two copies with what else can happen: refused writes, second processes over one volume, drains.
    pub(super) const fn of_two_with_more(rules: Rules) -> Limits {
        Limits { refusals: 1, successors: 1, drains: 1, crashes: 0, ..Limits::of_two(rules) }
    }
}
