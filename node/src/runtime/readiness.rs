//! Whether this node wants requests, and why not.

use std::collections::BTreeMap;

use tokio::sync::watch;

/// Conditions that must all hold before the node wants requests. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Readiness {
    conditions: watch::Sender<Conditions>,
}

/// Every condition that somebody set.
pub type Conditions = BTreeMap<&'static str, bool>;

impl Readiness {
    /// Sets one condition; a condition that nobody set does not count.
    pub fn set(&self, condition: &'static str, holds: bool) {
        self.conditions.send_if_modified(|conditions| conditions.insert(condition, holds) != Some(holds));
    }

    /// True when every condition holds and there is one.
    pub fn is_ready(&self) -> bool {
        all_hold(&self.conditions.borrow())
    }

    /// Every condition.
    pub fn conditions(&self) -> Conditions {
        self.conditions.borrow().clone()
    }

    /// Calls `tell` with whether requests are wanted, now and at each change. Does not end.
    pub async fn follow<F: Future<Output = ()>>(&self, tell: impl Fn(bool) -> F) {
        let mut conditions = self.conditions.subscribe();
        loop {
            let is_ready = all_hold(&conditions.borrow_and_update());
            tell(is_ready).await;
            if conditions.changed().await.is_err() {
                return;
            }
        }
    }
}

fn all_hold(conditions: &Conditions) -> bool {
    !conditions.is_empty() && conditions.values().all(|holds| *holds)
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use futures::poll;

    use super::*;

    #[test]
    fn one_condition_that_fails_is_enough() {
        let readiness = Readiness::default();
        assert!(!readiness.is_ready(), "nothing is known yet");
        readiness.set("metadata", true);
        readiness.set("accepting", true);
        assert!(readiness.is_ready());
        readiness.set("accepting", false);
        assert!(!readiness.is_ready());
    }

    #[tokio::test]
    async fn who_follows_hears_of_each_change() {
        let (readiness, heard) = (Readiness::default(), Mutex::new(Vec::new()));
        let mut following = Box::pin(readiness.follow(async |is_ready| {
            heard.lock().expect("no panic").push(is_ready);
        }));
        assert!(poll!(&mut following).is_pending());
        for holds in [true, false] {
            readiness.set("accepting", holds);
            assert!(poll!(&mut following).is_pending());
        }
        assert_eq!(*heard.lock().expect("no panic"), [false, true, false]);
    }
}
