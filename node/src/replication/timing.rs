//! Clocks and intervals of the protocol. Nothing here reads a clock: times are given.

use std::time::Duration;

/// The time of an event, on the two clocks of a machine.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Now {
    /// Stops while the machine is suspended. Promises end by it: late is safe.
    pub monotonic: Duration,
    /// Goes on while the machine is suspended. Leases and sessions end by it: early is safe.
    pub boot: Duration,
}

impl Now {
    /// Both clocks at the same time, for tests and models.
    pub const fn at(time: Duration) -> Now {
        Now { monotonic: time, boot: time }
    }
}

/// Intervals of the protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Timing {
    /// How long a copy promises to obey nobody else after it heard its primary.
    pub promise: Duration,
    /// How much of it the primary counts on, from the sending of its beacon: clock rates differ by at most 1 %.
    pub grant: Duration,
    /// Between two beacons.
    pub beacon: Duration,
    /// A copy that is silent so long leaves the in-sync set.
    pub silent: Duration,
    /// So does one that answers but whose disk gets no further.
    pub slow: Duration,
    /// Records that were not answered for so long are sent again.
    pub resend: Duration,
    /// A change of the record that got no answer is tried again after this time.
    pub propose_again: Duration,
    /// A hand-over that takes longer is given up.
    pub hand_over: Duration,
    /// How long a copy that left the in-sync set twice within [`Timing::flapping`] stays out; doubled each time.
    pub readmission_min: Duration,
    /// Longest such time.
    pub readmission_max: Duration,
    /// A copy that leaves the in-sync set again within this time flaps.
    pub flapping: Duration,
    /// Life of a node's session after which an earlier process of the node has noticed its end.
    pub session: Duration,
}

impl Default for Timing {
    fn default() -> Timing {
        let ms = Duration::from_millis;
        Timing {
            promise: ms(1_000),
            grant: ms(990),
            beacon: ms(200),
            silent: ms(1_000),
            slow: ms(3_000),
            resend: ms(500),
            propose_again: ms(1_000),
            hand_over: ms(2_000),
            readmission_min: ms(30_000),
            readmission_max: ms(600_000),
            flapping: ms(600_000),
            session: ms(8_000),
        }
    }
}

impl Timing {
    /// When the next beacon is due after one at `now`: up to a quarter earlier than [`Timing::beacon`] says, so that the
    /// beacons of all shards of a node leave at a few common times and share frames.
    pub fn next_beacon(&self, now: Duration) -> Duration {
        let (latest, slot) = ((now + self.beacon).as_nanos(), (self.beacon.as_nanos() / 4).max(1));
        Duration::from_nanos((latest - latest % slot) as u64)
    }

    /// The usual intervals, but that a copy that left the in-sync set twice stays out for so long.
    pub fn with_readmission(pause: Duration) -> Timing {
        Timing { readmission_min: pause, readmission_max: pause * 20, ..Timing::default() }
    }
}

/// What a primary does when its node's session in the metadata store has ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum EtcdPolicy {
    /// It stops writes and strong reads.
    #[default]
    Strict,
    /// It goes on while it hears every copy in sync, of which there must be at least two: nobody else can be elected.
    Failsafe,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn beacons_of_many_shards_are_due_at_common_times_and_never_late() {
        let (timing, ms) = (Timing::default(), Duration::from_millis);
        let due = [1_000, 1_001, 1_049, 1_050, 1_051].map(|now| timing.next_beacon(ms(now)));
        assert_eq!(due, [1_200, 1_200, 1_200, 1_250, 1_250].map(ms));
    }
}
