//! The kinds of faults that a world may have; a seed chooses some of them.

/// Something that can go wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FaultKind {
    /// A process is killed and started again.
    Kill,
    /// A machine loses power: what was not synced may be gone, in parts.
    PowerLoss,
    /// The same, in the middle of some operation of the disk.
    PowerLossWhileWriting,
    /// All machines at once.
    PowerLossOfAll,
    /// A process stands still for a while.
    Pause,
    /// A machine sleeps for a while.
    Suspend,
    /// A machine is cut off from the others.
    Isolate,
    /// Nothing gets from one machine to another, the other way is open.
    OneWayCut,
    /// Two halves do not reach each other.
    Halves,
    /// A machine does not reach the metadata store.
    StoreCut,
    /// Nobody reaches it.
    StoreAway,
    /// It changes its leader: away for a moment, then leases begin anew.
    StoreLeader,
    /// A lease ends too early.
    LeaseEnded,
    /// A lease ends too late.
    LeaseLate,
    /// An operation of a disk fails.
    DiskError,
    /// All operations of a disk fail for a while.
    DeadDisk,
    /// A disk is full for a while.
    DiskFull,
    /// Syncs take long.
    SlowDisk,
    /// A disk says that it synced and has not; then the power goes.
    LyingDisk,
    /// A bit of a file changes.
    BitFlip,
    /// An append lands in another file.
    Misdirected,
    /// A disk is replaced by an empty one.
    Wipe,
    /// A disk holds an earlier state of itself.
    RollBack,
    /// A volume is taken from a process that goes on, and given to another one.
    VolumeMoved,
    /// A candidate for mastership stands still.
    MasterPause,
    /// A machine is to be emptied.
    Drain,
    /// Somebody wants another copy to lead.
    HandOver,
    /// The network is as bad as it gets.
    Storm,
}

impl FaultKind {
    /// All of them.
    pub(super) const ALL: &[FaultKind] = &[
        FaultKind::Kill,
        FaultKind::PowerLoss,
        FaultKind::PowerLossWhileWriting,
        FaultKind::PowerLossOfAll,
        FaultKind::Pause,
        FaultKind::Suspend,
        FaultKind::Isolate,
        FaultKind::OneWayCut,
        FaultKind::Halves,
        FaultKind::StoreCut,
        FaultKind::StoreAway,
        FaultKind::StoreLeader,
        FaultKind::LeaseEnded,
        FaultKind::LeaseLate,
        FaultKind::DiskError,
        FaultKind::DeadDisk,
        FaultKind::DiskFull,
        FaultKind::SlowDisk,
        FaultKind::LyingDisk,
        FaultKind::BitFlip,
        FaultKind::Misdirected,
        FaultKind::Wipe,
        FaultKind::RollBack,
        FaultKind::VolumeMoved,
        FaultKind::MasterPause,
        FaultKind::Drain,
        FaultKind::HandOver,
        FaultKind::Storm,
    ];

    /// Its name in counts.
    pub(super) fn name(self) -> &'static str {
        match self {
            FaultKind::Kill => "kill",
            FaultKind::PowerLoss => "power loss",
            FaultKind::PowerLossWhileWriting => "power loss while writing",
            FaultKind::PowerLossOfAll => "power loss of all",
            FaultKind::Pause => "pause",
            FaultKind::Suspend => "suspend",
            FaultKind::Isolate => "isolation",
            FaultKind::OneWayCut => "one-way cut",
            FaultKind::Halves => "two halves",
            FaultKind::StoreCut => "metadata store out of reach",
            FaultKind::StoreAway => "metadata store away",
            FaultKind::StoreLeader => "new leader of the metadata store",
            FaultKind::LeaseEnded => "lease ended early",
            FaultKind::LeaseLate => "lease that is to end late",
            FaultKind::DiskError => "disk error",
            FaultKind::DeadDisk => "dead disk",
            FaultKind::DiskFull => "full disk",
            FaultKind::SlowDisk => "slow disk",
            FaultKind::LyingDisk => "lying disk",
            FaultKind::BitFlip => "bit flip",
            FaultKind::Misdirected => "misdirected write",
            FaultKind::Wipe => "wiped disk",
            FaultKind::RollBack => "older image",
            FaultKind::VolumeMoved => "volume moved",
            FaultKind::MasterPause => "pause of a Master",
            FaultKind::Drain => "drain",
            FaultKind::HandOver => "wish for a hand-over",
            FaultKind::Storm => "storm",
        }
    }
}
