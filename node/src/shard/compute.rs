//! Work for processors, away from the threads that wait for sockets.

use std::sync::Arc;

use tokio::sync::Semaphore;

/// A bounded number of threads for searches. Cheap to clone.
#[derive(Clone, Debug)]
pub struct ComputePool {
    permits: Arc<Semaphore>,
    threads: usize,
}

/// The work panicked: a bug of ours.
#[derive(Debug, thiserror::Error)]
#[error("work panicked")]
pub struct ComputeError;

impl ComputePool {
    /// At most `threads` at work; 0: one for each processor.
    pub fn new(threads: usize) -> ComputePool {
        let processors = || std::thread::available_parallelism().map_or(1, usize::from);
        let threads = if threads == 0 { processors() } else { threads };
        ComputePool { permits: Arc::new(Semaphore::new(threads)), threads }
    }

    /// Threads that may be at work.
    pub fn threads(&self) -> usize {
        self.threads
    }

    /// Runs `work` when a thread is free. Not begun if the caller stops waiting before.
    pub async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, ComputeError> {
        let permit = self.permits.clone().acquire_owned().await.expect("never closed");
        let run = move || {
            let _permit = permit;
            work()
        };
        tokio::task::spawn_blocking(run).await.map_err(|_| ComputeError)
    }
}
