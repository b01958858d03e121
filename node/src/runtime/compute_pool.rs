//! Threads for computing, so that a scan never holds up the reactor.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use tokio::sync::{Semaphore, oneshot};

use super::blocking::is_simulated;

/// Pieces of work that may wait for each thread; more are refused.
const WAITING_PER_THREAD: usize = 256;

/// A fixed number of threads with a bounded queue. Cheap to clone.
#[derive(Clone)]
pub struct ComputePool {
    threads: Arc<rayon::ThreadPool>,
    room: Arc<Semaphore>,
}

/// Why work was not done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PoolError {
    /// The queue is full.
    #[error("too much work is waiting for a thread")]
    Overloaded,
    /// The work panicked: a bug.
    #[error("the work panicked")]
    Panicked,
}

impl ComputePool {
    /// `threads` of them; 0: one for each core.
    ///
    /// # Panics
    /// When the system gives no thread.
    pub fn new(threads: usize) -> ComputePool {
        let builder =
            rayon::ThreadPoolBuilder::new().num_threads(threads).thread_name(|i| format!("compute-{i}"));
        let threads = builder.build().expect("the system starts threads");
        let room = threads.current_num_threads() * (1 + WAITING_PER_THREAD);
        ComputePool { threads: Arc::new(threads), room: Arc::new(Semaphore::new(room)) }
    }

    /// Number of threads.
    pub fn threads(&self) -> usize {
        self.threads.current_num_threads()
    }

    /// Runs `work` on a thread. Dropping the future before the work began drops the work.
    ///
    /// # Errors
    /// When the queue is full or the work panics.
    pub async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, PoolError> {
        let permit = self.room.clone().try_acquire_owned().map_err(|_| PoolError::Overloaded)?;
        if is_simulated() {
            return catch_unwind(AssertUnwindSafe(work)).map_err(|_| PoolError::Panicked);
        }
        let (tell, told) = oneshot::channel();
        self.threads.spawn(move || {
            if !tell.is_closed() {
                let result = catch_unwind(AssertUnwindSafe(work));
                // Whoever has the result finds room for the next piece.
                drop(permit);
                // Nobody may wait any more; then the result is dropped.
                let _ = tell.send(result);
            }
        });
        match told.await {
            Ok(Ok(result)) => Ok(result),
            Ok(Err(_)) | Err(_) => Err(PoolError::Panicked),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    #[tokio::test]
    async fn work_runs_and_a_panic_stays_inside() {
        let pool = ComputePool::new(1);
        assert_eq!(pool.run(|| 6 * 7).await, Ok(42));
        assert_eq!(pool.run(|| panic!("on purpose")).await, Err::<(), _>(PoolError::Panicked));
        assert_eq!(pool.run(|| 1).await, Ok(1));
    }

    #[tokio::test]
    async fn a_full_queue_refuses_and_work_nobody_waits_for_is_skipped() {
        let pool = ComputePool::new(1);
        let (go, gate) = mpsc::channel::<()>();
        let blocker = pool.run(move || gate.recv().is_ok());
        let mut waiting: Vec<_> =
            (0..WAITING_PER_THREAD).map(|_| Box::pin(pool.run(|| panic!("skipped")))).collect();
        let mut blocker = Box::pin(blocker);
        assert!(futures::poll!(&mut blocker).is_pending());
        for work in &mut waiting {
            assert!(futures::poll!(work).is_pending());
        }
        assert_eq!(pool.run(|| ()).await, Err(PoolError::Overloaded));
        drop(waiting);
        go.send(()).expect("the blocker waits");
        assert_eq!(blocker.await, Ok(true));
        assert_eq!(pool.run(|| ()).await, Ok(()));
    }
}
