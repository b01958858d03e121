//! Work that takes all the processor time that nobody else wants.

use std::panic::{AssertUnwindSafe, catch_unwind};

use tokio::sync::oneshot;
use tracing::warn;

use super::blocking::is_simulated;

/// The lowest priority of a thread.
#[cfg(target_os = "linux")]
const NICEST: i32 = 19;

/// Runs long computations on a thread of its own, with the lowest priority; so do the threads that it starts. `None` when
/// it panicked.
pub async fn in_background<T: Send + 'static>(
    name: &str,
    work: impl FnOnce() -> T + Send + 'static,
) -> Option<T> {
    if is_simulated() {
        return catch_unwind(AssertUnwindSafe(work)).ok();
    }
    let (tell, done) = oneshot::channel();
    let run = move || {
        #[cfg(target_os = "linux")]
        if let Err(error) = rustix::process::setpriority_process(None, NICEST) {
            warn!(%error, "a background thread keeps its priority");
        }
        // Whoever waited may have gone.
        let _ = tell.send(work());
    };
    if let Err(error) = std::thread::Builder::new().name(name.to_owned()).spawn(run) {
        warn!(%error, name, "a background thread could not be started");
    }
    done.await.ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn work_is_done_beside_and_a_panic_is_told() {
        assert_eq!(in_background("sum", || 1 + 1).await, Some(2));
        assert_eq!(in_background::<()>("panic", || panic!("as this test wants")).await, None);
    }
}
