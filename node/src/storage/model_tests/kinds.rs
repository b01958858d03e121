//! What happens in the model's world, and how often it did.

/// Kinds of operations, with how often each happens. A seed switches some of them off.
pub(super) const KINDS: [(Kind, u32); 19] = [
    (Kind::Write, 24),
    (Kind::Sync, 16),
    (Kind::Replicate, 20),
    (Kind::Commit, 14),
    (Kind::Apply, 18),
    (Kind::SaveMarks, 3),
    (Kind::BeginCheckpoint, 4),
    (Kind::FinishCheckpoint, 4),
    (Kind::Scrub, 1),
    // From here on a seed may go without.
    (Kind::Conditions, 0),
    (Kind::Retries, 0),
    (Kind::Divide, 0),
    (Kind::NewReign, 3),
    (Kind::Snapshot, 1),
    (Kind::Release, 2),
    (Kind::Restart, 1),
    (Kind::Crash, 1),
    (Kind::PowerOff, 2),
    (Kind::Fault, 2),
];
/// The first kind that a seed may go without.
pub(super) const FIRST_OPTIONAL: usize = 9;

/// What happens in one step, or may be a part of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Write,
    Sync,
    Replicate,
    Commit,
    Apply,
    SaveMarks,
    BeginCheckpoint,
    FinishCheckpoint,
    Scrub,
    /// Writes depend on versions.
    Conditions,
    /// Writes are sent again.
    Retries,
    /// Batches arrive in parts.
    Divide,
    NewReign,
    Snapshot,
    Release,
    Restart,
    Crash,
    PowerOff,
    Fault,
}

/// What happened.
#[derive(Debug, Default)]
pub(super) struct Counters {
    pub(super) operations: usize,
    pub(super) refusals: usize,
    pub(super) repeats: usize,
    pub(super) reigns: usize,
    pub(super) cuts: usize,
    pub(super) voids: usize,
    pub(super) crashes: usize,
    pub(super) checkpoints: usize,
    pub(super) snapshots: usize,
    pub(super) failed_snapshots: usize,
    pub(super) applied_late: usize,
}

impl Counters {
    pub(super) fn add(&mut self, other: &Counters) {
        let Counters {
            operations,
            refusals,
            repeats,
            reigns,
            cuts,
            voids,
            crashes,
            checkpoints,
            snapshots,
            failed_snapshots,
            applied_late,
        } = other;
        self.operations += operations;
        self.refusals += refusals;
        self.repeats += repeats;
        self.reigns += reigns;
        self.cuts += cuts;
        self.voids += voids;
        self.crashes += crashes;
        self.checkpoints += checkpoints;
        self.snapshots += snapshots;
        self.failed_snapshots += failed_snapshots;
        self.applied_late += applied_late;
    }

    /// A hundred seeds see everything often.
    pub(super) fn check(&self) {
        let Counters {
            operations,
            refusals,
            repeats,
            reigns,
            cuts,
            voids,
            crashes,
            checkpoints,
            snapshots,
            failed_snapshots,
            applied_late,
        } = self;
        let often = [operations, refusals, repeats, reigns, cuts, crashes, checkpoints, applied_late];
        assert!(often.iter().all(|count| **count >= 1_000), "too kind a test: {self:?}");
        let sometimes = [voids, snapshots, failed_snapshots];
        assert!(sometimes.iter().all(|count| **count >= 50), "too kind a test: {self:?}");
    }
}
