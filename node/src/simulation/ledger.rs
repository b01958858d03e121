//! What is true in the world, whoever knows it: who led, what was committed and acknowledged, what each disk holds.
//!
//! Logs are kept as one number for each position, which follows from its record and all before it: two logs are equal up
//! to a position when their numbers there are.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use vectorsphere_checker::History;

use super::client::{Level, Wanted};
use super::node::CopyId;
use super::time::Time;
use crate::ids::{Epoch, Lsn, ReplicaId, Revision, ShardId};
use crate::replication::Alarm;
use crate::storage::{Digest, LogRead, LogReader, Positions, StorageError};

/// Bytes of a log that are read at once.
const READ_BYTES: usize = 64 << 10;

/// What is true in the world.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    pub(super) shards: BTreeMap<ShardId, ShardLedger>,
    pub(super) copies: BTreeMap<CopyId, CopyLedger>,
    /// Copies that were in sync at some time.
    pub(super) were_in_sync: BTreeSet<ReplicaId>,
    /// What clients did and were told, of reads the strong ones.
    pub(super) history: History,
    /// The same with reads in sessions.
    pub(super) sessions: History,
    /// Operations of clients that have ended.
    pub(super) operations: u64,
    /// The last Master that decided something, by its key.
    pub(super) master: Revision,
    /// The first thing that should not be.
    pub(super) broken: Option<String>,
}

/// A shard.
#[derive(Debug, Default)]
pub(super) struct ShardLedger {
    /// Who led which reign: copy, machine and process.
    pub(super) reigns: BTreeMap<Epoch, (ReplicaId, u64)>,
    /// The log up to what was committed.
    pub(super) committed: Vec<u64>,
    /// As many copies were in sync once as the table demands.
    pub(super) was_enough: bool,
    /// Digests at positions that somebody applied.
    pub(super) digests: BTreeMap<Lsn, Digest>,
    /// Positions that clients were told, ascending, and when.
    told: Vec<(Time, Lsn)>,
}

/// A copy on its disk.
#[derive(Debug, Default)]
pub(super) struct CopyLedger {
    /// Its durable log.
    pub(super) log: Vec<u64>,
    /// The largest epoch that it has answered under.
    pub(super) answered: Epoch,
    /// Its disk has lost something, or may have.
    pub(super) is_bad: bool,
    /// The same at any time.
    pub(super) was_bad: bool,
    /// Its disk has lost something.
    has_lost: bool,
    /// Its data was deleted by its node.
    pub(super) is_deleted: bool,
}

impl Ledger {
    /// Something is not as it should be.
    pub(super) fn break_with(&mut self, what: String) {
        self.broken.get_or_insert(what);
    }

    /// A shard.
    pub(super) fn shard(&mut self, shard: ShardId) -> &mut ShardLedger {
        self.shards.entry(shard).or_default()
    }

    /// A copy.
    pub(super) fn copy(&mut self, copy: CopyId) -> &mut CopyLedger {
        self.copies.entry(copy).or_default()
    }

    /// Clients were told a position.
    pub(super) fn told(&mut self, shard: ShardId, lsn: Lsn, now: Time) {
        let told = &mut self.shard(shard).told;
        if told.last().is_none_or(|(_, last)| lsn > *last) {
            told.push((now, lsn));
        }
    }

    /// What a read that is sent now must see at least.
    pub(super) fn floor(&mut self, shard: ShardId, wanted: &Wanted, now: Time) -> Lsn {
        let since = match wanted {
            Wanted::Write(_) => return Lsn::ZERO,
            Wanted::Read(Level::Session(token), _) => return *token,
            Wanted::Read(Level::Strong { .. }, _) => Duration::ZERO,
            // Clocks differ by less than 1 %.
            Wanted::Read(Level::Bounded(staleness), _) => *staleness * 101 / 100,
        };
        let told = &self.shard(shard).told;
        let before = told.partition_point(|(at, _)| *at + since < now);
        told[..before].last().map_or(Lsn::ZERO, |(_, lsn)| *lsn)
    }

    /// A copy was opened: what its log holds now.
    ///
    /// # Errors
    /// When the disk fails now.
    pub(super) fn opened(
        &mut self,
        copy: CopyId,
        positions: &Positions,
        reader: &mut LogReader,
    ) -> Result<(), StorageError> {
        let known = self.copy(copy).log.len();
        let first = positions.first.0 as usize;
        let recovered = match self.read(copy, positions.first, positions.end, reader) {
            Ok(recovered) => recovered,
            // A part that nobody needed for the opening is damaged.
            Err(_) if self.copy(copy).is_bad => return Ok(()),
            Err(error) if !error.is_lasting() => return Err(error),
            Err(error) => {
                self.break_with(format!("a log that was opened cannot be read: {error}"));
                return Ok(());
            }
        };
        let state = self.copy(copy);
        let after = first - 1 + recovered.len();
        let common = known.min(after);
        let is_same =
            state.log[..known].get(first - 1..common).is_none_or(|log| log == &recovered[..log.len()]);
        let (is_bad, end) = (state.is_bad, positions.end);
        state.log.truncate(first - 1);
        state.log.extend(recovered);
        let is_whole = is_same && after >= known;
        if !is_whole && !is_bad {
            self.break_with(format!("{} lost durable records: it had {known}, now {end}", copy.1));
        }
        // A disk that was hurt and shows all that it had is well; what its files hold was read.
        let state = self.copy(copy);
        state.has_lost |= !is_whole;
        state.is_bad &= state.has_lost;
        Ok(())
    }

    /// A copy's log is durable up to here.
    pub(super) fn durable(
        &mut self,
        copy: CopyId,
        durable: Lsn,
        reader: &mut LogReader,
    ) -> Result<(), StorageError> {
        let next = Lsn(self.copy(copy).log.len() as u64 + 1);
        let more = self.read(copy, next, durable, reader)?;
        self.copy(copy).log.extend(more);
        Ok(())
    }

    /// Numbers of records `first..=last` of a copy's log.
    fn read(
        &mut self,
        copy: CopyId,
        first: Lsn,
        last: Lsn,
        reader: &mut LogReader,
    ) -> Result<Vec<u64>, StorageError> {
        let mut before = match first.0 {
            0 | 1 => 0,
            first => self.copy(copy).log.get(first as usize - 2).copied().unwrap_or_default(),
        };
        let (mut numbers, mut next, mut was_told) = (Vec::new(), first, false);
        while next <= last {
            let records = match reader.read(next, READ_BYTES)? {
                LogRead::Records(records) if !records.is_empty() => records,
                // A reader is told once of a cut, and goes on.
                LogRead::Gone if !std::mem::replace(&mut was_told, true) => continue,
                LogRead::Records(_) | LogRead::Gone => break,
            };
            for record in records.iter().filter(|record| record.lsn <= last) {
                before = number(before, record.epoch, record.digest());
                numbers.push(before);
            }
            next = records.last().expect("there are some").lsn.next();
        }
        Ok(numbers)
    }

    /// A copy's log was cut.
    pub(super) fn cut(&mut self, copy: CopyId, to: Lsn) {
        self.copy(copy).log.truncate(to.0 as usize);
    }

    /// A snapshot took the place of a copy's log: it holds what was committed.
    pub(super) fn installed(&mut self, copy: CopyId, lsn: Lsn) {
        let committed = &self.shard(copy.0).committed;
        let log = committed.get(..lsn.0 as usize).map(<[u64]>::to_vec);
        match log {
            Some(log) => self.copy(copy).log = log,
            None => self.break_with(format!("a snapshot at {lsn} holds more than was committed")),
        }
    }

    /// A copy says that something is wrong.
    pub(super) fn alarm(&mut self, copy: CopyId, alarm: Alarm) {
        let is_expected = match alarm {
            // It may have been made well meanwhile.
            Alarm::DiskLied(other) => self.copy((copy.0, other)).was_bad,
            Alarm::LacksCommitted => self.copy(copy).is_bad,
            Alarm::StoreWentBack { .. } => false,
        };
        if !is_expected {
            self.break_with(format!("{} raises {alarm:?} without a reason", copy.1));
        }
    }

    /// A copy says that another one's content differs.
    pub(super) fn differs(&mut self, copy: CopyId, other: ReplicaId, at: Lsn) {
        self.break_with(format!("{} and {other} differ at {at}", copy.1));
    }
}

/// The number of a log behind one more record.
fn number(before: u64, epoch: Epoch, digest: u64) -> u64 {
    let mixed = before.rotate_left(23) ^ digest.wrapping_add(epoch.0.wrapping_mul(0x9e37_79b9_7f4a_7c15));
    mixed.wrapping_mul(0x517c_c1b7_2722_0a95).rotate_left(31)
}
