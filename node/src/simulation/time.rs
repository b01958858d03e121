//! The world's own time, the clocks of its machines, and what happens when.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::ops::Add;
use std::time::Duration;

use crate::replication::Now;

/// Nanoseconds since the world began. Nobody in it can read them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Time(pub(super) u64);

impl Add<Duration> for Time {
    type Output = Time;

    fn add(self, duration: Duration) -> Time {
        Time(self.0 + duration.as_nanos() as u64)
    }
}

impl Time {
    /// Time that has passed since an earlier one.
    pub(super) fn since(self, earlier: Time) -> Duration {
        Duration::from_nanos(self.0 - earlier.0)
    }
}

/// The two clocks of a machine since it was started.
#[derive(Clone, Copy, Debug)]
pub(super) struct Clock {
    started: Time,
    /// What they showed then.
    offset: Duration,
    /// How much faster than the world it runs, in parts per million.
    rate_ppm: i64,
    /// World time during which the machine was suspended, until its last awakening.
    asleep: Duration,
}

impl Clock {
    /// Of a machine that is started at this time.
    pub(super) fn new(started: Time, offset: Duration, rate_ppm: i64) -> Clock {
        Clock { started, offset, rate_ppm, asleep: Duration::ZERO }
    }

    /// What the machine reads at this time, while it is awake.
    pub(super) fn now(&self, time: Time) -> Now {
        let boot = self.offset + self.local(time.since(self.started));
        Now { boot, monotonic: boot.saturating_sub(self.local(self.asleep)) }
    }

    /// When the monotonic clock will show this, if the machine stays awake; never before `time`.
    pub(super) fn when(&self, time: Time, monotonic: Duration) -> Time {
        let left = monotonic.saturating_sub(self.now(time).monotonic).as_nanos() as i128;
        let world = left * 1_000_000 / i128::from(1_000_000 + self.rate_ppm);
        Time(time.0 + world as u64 + u64::from(left > 0))
    }

    /// The machine was suspended for so long.
    pub(super) fn slept(&mut self, duration: Duration) {
        self.asleep += duration;
    }

    /// How fast it runs.
    pub(super) fn rate_ppm(&self) -> i64 {
        self.rate_ppm
    }

    fn local(&self, world: Duration) -> Duration {
        let nanoseconds = world.as_nanos() as i128;
        let local = nanoseconds + nanoseconds * i128::from(self.rate_ppm) / 1_000_000;
        Duration::from_nanos(local as u64)
    }
}

/// What will happen, in order; of equal times in the order of planning.
#[derive(Debug)]
pub(super) struct Schedule<E> {
    planned: BinaryHeap<Reverse<Planned<E>>>,
    count: u64,
}

#[derive(Debug)]
struct Planned<E> {
    at: Time,
    number: u64,
    event: E,
}

impl<E> Default for Schedule<E> {
    fn default() -> Schedule<E> {
        Schedule { planned: BinaryHeap::new(), count: 0 }
    }
}

impl<E> Schedule<E> {
    /// Plans an event.
    pub(super) fn at(&mut self, at: Time, event: E) {
        self.count += 1;
        self.planned.push(Reverse(Planned { at, number: self.count, event }));
    }

    /// The next event.
    pub(super) fn next(&mut self) -> Option<(Time, E)> {
        self.planned.pop().map(|Reverse(planned)| (planned.at, planned.event))
    }
}

impl<E> PartialEq for Planned<E> {
    fn eq(&self, other: &Planned<E>) -> bool {
        (self.at, self.number) == (other.at, other.number)
    }
}

impl<E> Eq for Planned<E> {}

impl<E> PartialOrd for Planned<E> {
    fn partial_cmp(&self, other: &Planned<E>) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl<E> Ord for Planned<E> {
    fn cmp(&self, other: &Planned<E>) -> std::cmp::Ordering {
        (self.at, self.number).cmp(&(other.at, other.number))
    }
}

mod tests {
    use super::*;

    #[test]
    fn clocks_run_at_their_rates_and_only_one_of_them_while_suspended() {
        let seconds = Duration::from_secs;
        let mut clock = Clock::new(Time(0) + seconds(10), seconds(1_000), 5_000);
        let at = Time(0) + seconds(110);
        assert_eq!(clock.now(at), Now::at(Duration::from_millis(1_100_500)));
        assert_eq!(clock.when(at, clock.now(at).monotonic), at);
        let later = clock.when(at, clock.now(at).monotonic + seconds(1));
        assert!(clock.now(later).monotonic >= Duration::from_millis(1_101_500) && later < at + seconds(1));
        clock.slept(seconds(20));
        let awake = at + seconds(20);
        assert_eq!(clock.now(awake).boot - clock.now(awake).monotonic, Duration::from_millis(20_100));
    }
}
