//! Tasks with names and an end. The only place that spawns.

use std::collections::BTreeMap;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::FutureExt;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{Instrument, debug, error, info_span, warn};

/// Tasks that end together. Cheap to clone.
#[derive(Clone)]
pub struct TaskGroup {
    tracker: TaskTracker,
    cancel: CancellationToken,
    running: Arc<Mutex<BTreeMap<u64, &'static str>>>,
}

impl TaskGroup {
    /// Tasks that are told to end by `cancel`; a task that panics cancels it, so that a node never runs without a part.
    pub fn new(cancel: CancellationToken) -> TaskGroup {
        TaskGroup { tracker: TaskTracker::new(), cancel, running: Arc::default() }
    }

    /// What tells the tasks to end.
    pub fn cancellation(&self) -> &CancellationToken {
        &self.cancel
    }

    /// Starts a task, which ends by itself after the cancellation.
    pub fn spawn(&self, name: &'static str, task: impl Future<Output = ()> + Send + 'static) {
        let number = self.lock().last_key_value().map_or(0, |(last, _)| last + 1);
        self.lock().insert(number, name);
        let group = self.clone();
        let guarded = async move {
            if AssertUnwindSafe(task).catch_unwind().await.is_err() {
                error!(task = name, "a task panicked, the node stops");
                group.cancel.cancel();
            }
            group.lock().remove(&number);
            debug!(task = name, "task ended");
        };
        self.tracker.spawn(guarded.instrument(info_span!("task", name)));
    }

    /// Waits until all tasks have ended; `false` when `limit` came first, and says who still runs.
    pub async fn join(&self, limit: Duration) -> bool {
        self.tracker.close();
        if tokio::time::timeout(limit, self.tracker.wait()).await.is_ok() {
            return true;
        }
        let running: Vec<_> = self.lock().values().copied().collect();
        warn!(?running, ?limit, "tasks did not end in time");
        false
    }

    /// A panic under the lock leaves the map whole.
    fn lock(&self) -> MutexGuard<'_, BTreeMap<u64, &'static str>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_panic_ends_the_group() {
        let group = TaskGroup::new(CancellationToken::new());
        let cancel = group.cancellation().clone();
        group.spawn("waits", async move { cancel.cancelled().await });
        group.spawn("panics", async { panic!("on purpose") });
        assert!(group.join(Duration::from_secs(10)).await);
        assert!(group.cancellation().is_cancelled());
    }

    #[tokio::test]
    async fn a_task_that_does_not_end_is_told() {
        let group = TaskGroup::new(CancellationToken::new());
        group.spawn("stays", std::future::pending());
        assert!(!group.join(Duration::from_millis(10)).await);
        assert_eq!(group.lock().values().collect::<Vec<_>>(), [&"stays"]);
    }
}
