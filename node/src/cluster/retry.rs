//! How tries that fail again and again are told: every new reason at once, the same one not each time.

use tracing::{debug, error, warn};

use super::meta_store::MetaError;

/// Failures in a row.
#[derive(Debug, Default)]
pub struct Failures {
    count: u32,
    last: Option<MetaError>,
}

impl Failures {
    /// Logs that the node cannot do `what`: a new reason as a warning, and as an error once more than `retry_count` tries
    /// have failed.
    pub fn tell(&mut self, what: &'static str, error: MetaError, retry_count: u32) {
        self.count = self.count.saturating_add(1);
        let failures = self.count;
        if failures == retry_count.saturating_add(1) {
            error!(%error, failures, "still cannot {what}, trying again and again");
        } else if self.last.as_ref() != Some(&error) {
            warn!(%error, failures, "cannot {what}, trying again");
        } else {
            debug!(%error, failures, "cannot {what} yet");
        }
        self.last = Some(error);
    }

    /// How many.
    pub fn count(&self) -> u32 {
        self.count
    }
}
