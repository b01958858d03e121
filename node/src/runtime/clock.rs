//! The clocks that leases and promises are measured with.

use std::time::Duration;

use nix::time::{ClockId, clock_gettime};

/// Time since the machine started, suspended time included: a lease runs out while the machine sleeps.
pub fn boot_time() -> Duration {
    clock_gettime(ClockId::CLOCK_BOOTTIME).expect("Linux has a boot-time clock").into()
}

/// Time since the machine started, without the time that it was suspended: who promised to wait still waits after a sleep.
pub fn monotonic_time() -> Duration {
    clock_gettime(ClockId::CLOCK_MONOTONIC).expect("Linux has a monotonic clock").into()
}
