//! Whether this node wants requests, and why not.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

/// Conditions that must all hold before the node wants requests. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Readiness {
    conditions: Arc<Mutex<BTreeMap<&'static str, bool>>>,
}

impl Readiness {
    /// Sets one condition; a condition that nobody set does not count.
    pub fn set(&self, condition: &'static str, holds: bool) {
        self.conditions.lock().unwrap_or_else(PoisonError::into_inner).insert(condition, holds);
    }

    /// True when every condition holds and there is one.
    pub fn is_ready(&self) -> bool {
        let conditions = self.conditions();
        !conditions.is_empty() && conditions.values().all(|holds| *holds)
    }

    /// Every condition.
    pub fn conditions(&self) -> BTreeMap<&'static str, bool> {
        self.conditions.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

#[cfg(test)]
mod tests {
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
}
