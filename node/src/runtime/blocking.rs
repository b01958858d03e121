//! Work that waits for a disk or computes for long: on threads that may wait, never on the reactor.

use std::sync::OnceLock;
use std::time::Duration;

use tokio::task::JoinHandle;

/// How long work takes in a simulation, which has no threads.
static SIMULATED: OnceLock<fn() -> Duration> = OnceLock::new();

/// Runs `work` on a thread that may wait.
#[expect(
    clippy::disallowed_methods,
    reason = "work that blocks ends by itself; whoever starts it waits for it"
)]
pub fn spawn_blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> JoinHandle<T> {
    match SIMULATED.get() {
        None => tokio::task::spawn_blocking(work),
        Some(takes) => tokio::spawn(async move {
            // Time passes on both sides, so that a crash comes between anything and its report.
            tokio::time::sleep(takes()).await;
            let done = work();
            tokio::time::sleep(takes()).await;
            done
        }),
    }
}

/// From now on, in this whole process, all such work runs on the reactor, one piece after the other, as if it took twice
/// `takes`: then the order of everything follows from a seed. Only for simulations.
///
/// # Panics
/// When it is called twice.
pub fn simulate_threads(takes: fn() -> Duration) {
    SIMULATED.set(takes).expect("called once");
}

/// True when there are no threads.
pub(super) fn is_simulated() -> bool {
    SIMULATED.get().is_some()
}
