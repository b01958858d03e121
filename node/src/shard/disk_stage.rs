//! How full the data volume is, and what is refused because of it (before anything is appended).

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use crate::runtime::disk::DiskSpace;

/// Shares of the volume in use at which a stage begins, `0.0..=1.0`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct DiskThresholds {
    /// An operator should hear of it.
    pub warn: f64,
    /// The node takes no new copies.
    pub no_copies: f64,
    /// Upserts are refused; deletes, checkpoints and merges go on, for they free space.
    pub refuse: f64,
}

impl Default for DiskThresholds {
    fn default() -> DiskThresholds {
        DiskThresholds { warn: 0.85, no_copies: 0.90, refuse: 0.95 }
    }
}

/// How full the volume is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum DiskStage {
    /// Below all thresholds.
    Normal,
    /// Over [`DiskThresholds::warn`].
    Warn,
    /// Over [`DiskThresholds::no_copies`].
    NoCopies,
    /// Over [`DiskThresholds::refuse`].
    Refuse,
}

impl DiskThresholds {
    /// The stage of a volume.
    pub fn stage(&self, space: DiskSpace) -> DiskStage {
        match space.used_ratio() {
            used if used >= self.refuse => DiskStage::Refuse,
            used if used >= self.no_copies => DiskStage::NoCopies,
            used if used >= self.warn => DiskStage::Warn,
            _ => DiskStage::Normal,
        }
    }
}

/// The stage as it was seen last; shared by all replicas of the node.
#[derive(Clone, Debug, Default)]
pub struct SharedDiskStage(Arc<AtomicU8>);

impl SharedDiskStage {
    /// The stage.
    pub fn get(&self) -> DiskStage {
        match self.0.load(Ordering::Relaxed) {
            0 => DiskStage::Normal,
            1 => DiskStage::Warn,
            2 => DiskStage::NoCopies,
            _ => DiskStage::Refuse,
        }
    }

    /// Stores a stage and returns the one before.
    pub(super) fn set(&self, stage: DiskStage) -> DiskStage {
        let before = self.get();
        self.0.store(stage as u8, Ordering::Relaxed);
        before
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stages_begin_at_their_thresholds() {
        let stage =
            |free_bytes| DiskThresholds::default().stage(DiskSpace { capacity_bytes: 100, free_bytes });
        assert_eq!([16, 15, 11, 10, 6, 5, 0].map(stage), {
            use DiskStage::{NoCopies, Normal, Refuse, Warn};
            [Normal, Warn, Warn, NoCopies, NoCopies, Refuse, Refuse]
        });
        let unknown = DiskSpace { capacity_bytes: 0, free_bytes: 0 };
        assert_eq!(DiskThresholds::default().stage(unknown), DiskStage::Normal);
    }
}
