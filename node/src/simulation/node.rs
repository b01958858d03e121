//! Machines, the processes that run on them, and the copies of shards that these have open.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use super::meta_store::{DiskOpening, Lease, News};
use super::network::Place;
use super::random::Random;
use super::serving::{Reader, Waiting, Writer};
use super::time::{Clock, Time};
use super::world::Event;
use crate::cluster::view::Shard;
use crate::ids::{Lsn, NodeId, ReplicaId, Revision, Session, ShardId};
use crate::replication::driver::{Driver, Write};
use crate::replication::{Now, Ticket};
use crate::runtime::disk::{DiskImage, MemoryDisk};
use crate::storage::checkpoint::{Checkpoint, CheckpointJob};
use crate::storage::{
    LogReader, PinnedCheckpoint, SnapshotDescription, SnapshotWriter, StorageError, Store, StoreReader,
};
use std::sync::Arc;

/// A copy of a shard.
pub(super) type CopyId = (ShardId, ReplicaId);

/// A machine.
pub(super) struct Node {
    pub(super) id: NodeId,
    pub(super) disk: MemoryDisk,
    pub(super) clock: Clock,
    pub(super) process: Option<Process>,
    /// Paused or suspended: what would happen on it waits.
    pub(super) stands_still: bool,
    pub(super) backlog: Vec<Event>,
    /// When it fell asleep, if it is suspended.
    pub(super) asleep_since: Option<Time>,
    /// What a sync takes.
    pub(super) sync_time: Duration,
    /// Its process is not started again by itself.
    pub(super) is_kept_down: bool,
    /// An earlier state of its disk, to be put back one day.
    pub(super) image: Option<DiskImage>,
    /// It may have said to have written what it has not, or what is written elsewhere.
    pub(super) is_lying: bool,
    /// Its volume was taken away from it, and another machine of its name has it.
    pub(super) is_ghost: bool,
    /// Which start of the machine this is; no other one has it.
    pub(super) boot: u64,
    /// On the volume: the start of a machine during which every earlier process over it has ended, or has run.
    pub(super) volume_boot: Option<u64>,
}

/// A process of a node.
pub(super) struct Process {
    /// Which; no other one has it.
    pub(super) number: u64,
    pub(super) session: SessionState,
    /// Its opening of its disk.
    pub(super) disk: DiskOpening,
    /// The metadata store knows no later opening of it: copies may be opened.
    pub(super) disk_is_proven: bool,
    pub(super) predecessor_ended: bool,
    pub(super) view: View,
    pub(super) slots: BTreeMap<CopyId, Slot>,
    /// Questions that were asked, and what for.
    pub(super) asked: BTreeMap<u64, Purpose>,
    /// Checkpoints that it sends, by the number of the question.
    pub(super) sending: BTreeMap<u64, Sending>,
}

/// How a process stands with the metadata store.
#[derive(Debug, Default)]
pub(super) struct SessionState {
    pub(super) registered: Option<(Lease, Session)>,
    /// While it is certain: until when, on the boot-time clock.
    pub(super) held: Option<(Session, Duration)>,
    /// It was registered once: from now on it takes the name from nobody.
    pub(super) was_registered: bool,
    /// When it was registered first, on the monotonic clock.
    pub(super) since: Option<Duration>,
    /// When the request was sent that the next answer belongs to, on the boot-time clock.
    pub(super) sent: Duration,
}

/// What a process knows of the metadata.
#[derive(Debug, Default)]
pub(super) struct View {
    pub(super) revision: Revision,
    pub(super) shards: BTreeMap<ShardId, Arc<Shard>>,
    pub(super) nodes: BTreeMap<NodeId, Session>,
    pub(super) drains: Vec<NodeId>,
    pub(super) master: Option<(Revision, usize)>,
}

/// What a process asked for.
#[derive(Clone, Copy, Debug)]
pub(super) enum Purpose {
    /// Whether its disk went back.
    OpenDisk,
    /// Whether an earlier process holds its name.
    LookUp,
    /// The end of that one's lease.
    TakeOver,
    /// A lease.
    Lease,
    /// Its key.
    Register(Lease),
    /// To go on.
    KeepAlive,
    /// What is new.
    Watch,
    /// A change of a record by a copy.
    Propose(CopyId, u64, u64),
    /// A record for a copy.
    Reload(CopyId, u64),
    /// To say that a copy is lost, or deleted.
    Entry(CopyId),
    /// A snapshot for a copy.
    Fetch(CopyId),
}

/// A copy of a shard on a node.
#[derive(Default)]
pub(super) struct Slot {
    pub(super) open: Option<OpenCopy>,
    /// A step is under way.
    pub(super) is_busy: bool,
    pub(super) is_damaged: bool,
    pub(super) needs_snapshot: Option<ReplicaId>,
    /// The next snapshot comes from the primary.
    pub(super) asks_primary: bool,
    pub(super) leaving_since: Option<Duration>,
    /// Its disk has failed since then.
    pub(super) failing_since: Option<Duration>,
    /// On the monotonic clock: nothing is tried before.
    pub(super) not_before: Duration,
    pub(super) failures: u32,
    /// A snapshot that is being fetched.
    pub(super) fetching: Option<Fetching>,
}

/// A snapshot that is being fetched.
pub(super) struct Fetching {
    pub(super) question: u64,
    pub(super) writer: Option<SnapshotWriter>,
}

/// A copy that is open.
pub(super) struct OpenCopy {
    /// Which opening.
    pub(super) opening: u64,
    pub(super) driver: Driver<Writer, Reader>,
    pub(super) store: Store,
    pub(super) reader: StoreReader,
    pub(super) log_reader: LogReader,
    pub(super) turn: Option<Turn>,
    pub(super) intake: VecDeque<Write<Writer>>,
    pub(super) checkpoint: Checkpointing,
    /// When it looks at its clock next.
    pub(super) wake: Option<Time>,
    /// When the marks were saved last, on the monotonic clock.
    pub(super) marked: Duration,
    /// Reads that wait for a position.
    pub(super) waiting: Vec<Waiting>,
    /// Who asked for another copy to lead.
    pub(super) hand_overs: Vec<(Place, u64)>,
    /// Everything up to here is applied.
    pub(super) applied: Lsn,
    /// What the world has seen of it.
    pub(super) seen: Seen,
}

/// What the world has seen of a copy.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Seen {
    pub(super) commit: Lsn,
    /// The next turn cuts the log here.
    pub(super) cut: Option<Lsn>,
}

/// A turn of a store that is under way.
#[derive(Clone, Copy, Debug)]
pub(super) enum Turn {
    /// Operations up to here are durable at its end.
    Sync(Ticket),
    /// Something else that takes time.
    Other,
}

/// How far a checkpoint is.
#[derive(Default)]
pub(super) enum Checkpointing {
    #[default]
    Idle,
    Writing(Option<Box<CheckpointJob>>),
    Written(Result<Checkpoint, StorageError>),
}

/// A checkpoint on its way to another copy.
pub(super) struct Sending {
    pub(super) to: Place,
    pub(super) pinned: PinnedCheckpoint,
    pub(super) description: SnapshotDescription,
    pub(super) file: u32,
    pub(super) offset: u64,
}

/// A part of a snapshot.
#[derive(Clone, Debug)]
pub(super) enum Transfer {
    /// There is none.
    Refused,
    /// What it is.
    Description(Vec<u8>),
    /// Bytes of a file.
    Bytes { file: u32, offset: u64, bytes: bytes::Bytes },
    /// That was all.
    End,
}

impl Node {
    /// A new machine with an empty disk.
    pub(super) fn new(id: NodeId, random: &mut Random) -> Node {
        let mut node = Node {
            id,
            disk: MemoryDisk::new(random.number()),
            clock: Clock::new(Time(0), Duration::ZERO, 0),
            process: None,
            stands_still: false,
            backlog: Vec::new(),
            asleep_since: None,
            sync_time: Duration::from_micros(500),
            is_kept_down: false,
            image: None,
            is_lying: false,
            is_ghost: false,
            boot: 0,
            volume_boot: None,
        };
        node.boot(Time(0), random);
        node
    }

    /// The machine starts: its clocks begin anew.
    pub(super) fn boot(&mut self, now: Time, random: &mut Random) {
        let offset = random.between(Duration::from_secs(1), Duration::from_secs(100_000));
        // Any two clocks differ by less than 1 %.
        let rate_ppm = random.below(0, 9_801) as i64 - 4_900;
        self.clock = Clock::new(now, offset, rate_ppm);
        self.boot = random.number();
    }

    /// What it reads on its clocks.
    pub(super) fn now(&self, time: Time) -> Now {
        self.clock.now(time)
    }
}

impl Process {
    /// A copy that is open, if it is the one of this opening.
    pub(super) fn open(&mut self, copy: CopyId, opening: u64) -> Option<&mut OpenCopy> {
        self.slots.get_mut(&copy)?.open.as_mut().filter(|open| open.opening == opening)
    }
}

impl View {
    /// Takes in what is new. False: it is not.
    pub(super) fn take(&mut self, news: News) -> bool {
        if news.revision < self.revision {
            return false;
        }
        self.revision = news.revision;
        for shard in news.shards {
            self.shards.insert(shard.id, shard);
        }
        (self.nodes, self.drains, self.master) = (news.nodes, news.drains, news.master);
        true
    }
}

impl Slot {
    /// Waits before the next try, longer each time.
    pub(super) fn rest(&mut self, now: Now) {
        let pause = Duration::from_millis(500) * (1 << self.failures.min(3));
        self.failures += 1;
        self.not_before = now.monotonic + pause;
    }
}
