//! How long a failing object waits: kube gives error policies no number of attempts, so it is kept here.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

const FIRST: Duration = Duration::from_millis(500);
const LONGEST: Duration = Duration::from_secs(60);

/// Attempts by object.
#[derive(Debug, Default)]
pub struct Backoff {
    attempts: Mutex<HashMap<String, u32>>,
}

impl Backoff {
    /// The wait after one more failure: doubled each time, at most a minute.
    pub fn next(&self, key: &str) -> Duration {
        let mut attempts = self.lock();
        let attempt = attempts.entry(key.to_owned()).or_default();
        let wait = FIRST.saturating_mul(1 << (*attempt).min(16)).min(LONGEST);
        *attempt = attempt.saturating_add(1);
        wait
    }

    /// The object succeeded.
    pub fn forget(&self, key: &str) {
        self.lock().remove(key);
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, u32>> {
        self.attempts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_object_waits_longer_until_it_succeeds() {
        let backoff = Backoff::default();
        let waits: Vec<_> = (0..10).map(|_| backoff.next("a")).collect();
        assert_eq!((waits[0], waits[1]), (FIRST, FIRST * 2));
        assert!(waits.is_sorted() && waits[9] == LONGEST);
        assert_eq!(backoff.next("b"), FIRST);
        backoff.forget("a");
        assert_eq!(backoff.next("a"), FIRST);
    }
}
