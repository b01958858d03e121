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

    /// Starts a part of the node: it runs until the cancellation. One that ends before has failed, and ends the group.
    pub fn spawn(&self, name: &'static str, task: impl Future<Output = ()> + Send + 'static) {
        let cancel = self.cancel.clone();
        self.spawn_brief(name, async move {
            task.await;
            if !cancel.is_cancelled() {
                error!(task = name, "a task ended too early, the node stops");
                cancel.cancel();
            }
        });
    }

    /// Starts a task that may end at any time, such as one connection; it ends by itself after the cancellation.
    pub fn spawn_brief(&self, name: &'static str, task: impl Future<Output = ()> + Send + 'static) {
        let number = {
            let mut running = self.lock();
            let number = running.last_key_value().map_or(0, |(last, _)| last + 1);
            running.insert(number, name);
            number
        };
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

    /// Waits until all tasks have ended.
    pub async fn ended(&self) {
        self.tracker.close();
        self.tracker.wait().await;
    }

    /// Waits until all tasks have ended; `false` when `limit` came first, and says who still runs.
    pub async fn join(&self, limit: Duration) -> bool {
        if tokio::time::timeout(limit, self.ended()).await.is_ok() {
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
    async fn a_part_that_ends_too_early_ends_the_group_and_a_brief_task_does_not() {
        let group = TaskGroup::new(CancellationToken::new());
        group.spawn_brief("brief", async {});
        assert!(group.join(Duration::from_secs(10)).await);
        assert!(!group.cancellation().is_cancelled());
        group.spawn("part", async {});
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
