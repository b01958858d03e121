//! What the owner of a replica shares with its readers. In tests each use is a point at which another thread may go on,
//! so that [`shuttle`](https://docs.rs/shuttle) can try the interleavings of our own code.

#[cfg(not(test))]
pub(crate) use {
    super::spawn_blocking,
    arc_swap::ArcSwap,
    std::sync::{Mutex, RwLock},
};

#[cfg(test)]
pub(crate) use explored::{ArcSwap, Mutex, RwLock, explore, spawn_blocking};

#[cfg(test)]
mod explored {
    use std::cell::Cell;
    use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
    use std::sync::{
        self, Arc, LockResult, MutexGuard, RwLockReadGuard, RwLockWriteGuard, TryLockError, TryLockResult,
    };

    use futures::FutureExt as _;
    use futures::future::BoxFuture;
    use shuttle::scheduler::{PctScheduler, RandomScheduler};
    use shuttle::{Config, Runner};
    use tokio::sync::oneshot;
    use tokio::task::JoinError;

    thread_local! {
        /// Shuttle runs all its threads on the one that calls it, one at a time.
        static EXPLORES: Cell<bool> = const { Cell::new(false) };
    }

    /// Runs `scenario` under some schedules, or as many as the environment says: half of them random, half with few
    /// changes at arbitrary places.
    ///
    /// # Panics
    /// With the first one that panics; shuttle prints the schedule.
    #[expect(clippy::disallowed_methods, reason = "a test has no other way to be told how long it may take")]
    pub(crate) fn explore(schedules: usize, scenario: impl Fn() + Send + Sync + Copy + 'static) {
        let wanted = std::env::var("VECTORSPHERE_SCHEDULES").ok();
        let schedules = wanted.map_or(schedules, |wanted| wanted.parse().expect("a number"));
        EXPLORES.set(true);
        let outcome = catch_unwind(AssertUnwindSafe(|| {
            let mut config = Config::new();
            config.stack_size = 1 << 20;
            let random = RandomScheduler::new_from_seed(1, schedules / 2);
            Runner::new(random, config.clone()).run(scenario);
            let few_changes = PctScheduler::new_from_seed(1, 3, schedules / 2);
            Runner::new(few_changes, config).run(scenario);
        }));
        EXPLORES.set(false);
        outcome.unwrap_or_else(|panic| resume_unwind(panic));
    }

    fn others_may_go_on() {
        if EXPLORES.get() {
            shuttle::thread::yield_now();
        }
    }

    /// The lock of the standard library, except that whoever waits under shuttle lets the others go on.
    pub(crate) struct RwLock<T>(sync::RwLock<T>);

    impl<T> RwLock<T> {
        pub(crate) fn new(value: T) -> RwLock<T> {
            RwLock(sync::RwLock::new(value))
        }

        pub(crate) fn read(&self) -> LockResult<RwLockReadGuard<'_, T>> {
            lock(|| self.0.read(), || self.0.try_read())
        }

        pub(crate) fn write(&self) -> LockResult<RwLockWriteGuard<'_, T>> {
            lock(|| self.0.write(), || self.0.try_write())
        }

        pub(crate) fn try_read(&self) -> TryLockResult<RwLockReadGuard<'_, T>> {
            others_may_go_on();
            self.0.try_read()
        }
    }

    /// That of the standard library, in the same way.
    #[derive(Debug, Default)]
    pub(crate) struct Mutex<T>(sync::Mutex<T>);

    impl<T> Mutex<T> {
        pub(crate) fn new(value: T) -> Mutex<T> {
            Mutex(sync::Mutex::new(value))
        }

        pub(crate) fn lock(&self) -> LockResult<MutexGuard<'_, T>> {
            lock(|| self.0.lock(), || self.0.try_lock())
        }
    }

    fn lock<G>(
        wait: impl FnOnce() -> LockResult<G>,
        attempt: impl Fn() -> TryLockResult<G>,
    ) -> LockResult<G> {
        if !EXPLORES.get() {
            return wait();
        }
        loop {
            others_may_go_on();
            match attempt() {
                Ok(guard) => return Ok(guard),
                Err(TryLockError::Poisoned(error)) => return Err(error),
                Err(TryLockError::WouldBlock) => {}
            }
        }
    }

    /// That of the crate `arc-swap`.
    pub(crate) struct ArcSwap<T>(arc_swap::ArcSwap<T>);

    impl<T> ArcSwap<T> {
        pub(crate) fn from_pointee(value: T) -> ArcSwap<T> {
            ArcSwap(arc_swap::ArcSwap::from_pointee(value))
        }

        pub(crate) fn store(&self, value: Arc<T>) {
            others_may_go_on();
            self.0.store(value);
        }

        pub(crate) fn load_full(&self) -> Arc<T> {
            others_may_go_on();
            self.0.load_full()
        }
    }

    /// That of tokio; under shuttle one of its threads.
    pub(crate) fn spawn_blocking<T: Send + 'static>(
        work: impl FnOnce() -> T + Send + 'static,
    ) -> BoxFuture<'static, Result<T, JoinError>> {
        if !EXPLORES.get() {
            return crate::runtime::spawn_blocking(work).boxed();
        }
        let (tell, outcome) = oneshot::channel();
        shuttle::thread::spawn(move || drop(tell.send(work())));
        outcome.map(|outcome| Ok(outcome.expect("shuttle ends when a thread panics"))).boxed()
    }
}
