//! What replicas of a shard tell each other. Records travel beside: the protocol needs their positions only.

use std::time::Duration;

use super::log_shape::{EpochHistory, Position};
use crate::ids::{Epoch, Lsn, Session};

/// A message from one replica to another.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Message {
    /// From a primary.
    Append(Append),
    /// To a primary.
    Reply(Reply),
    /// From a primary whose log does not reach back to the replica: it is to fetch a snapshot.
    Install {
        /// The primary's reign.
        epoch: Epoch,
        /// Where the replica's log ended when the primary judged it. One that ends elsewhere now says so first.
        judged: Lsn,
    },
}

/// Records `prev.lsn + 1 ..= last`; none of them: a beacon.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Append {
    /// The primary's reign.
    pub epoch: Epoch,
    /// The record that begins it.
    pub start: Lsn,
    /// The record before.
    pub prev: Position,
    /// The last record.
    pub last: Lsn,
    /// Reigns that begin among the records.
    pub starts: Vec<(Epoch, Lsn)>,
    /// Everything up to here is committed.
    pub commit: Lsn,
    /// The reply carries it back.
    pub beacon: u64,
    /// Everything that was acknowledged before the replica's clock showed this, in this session of its node, lies at or
    /// before `commit`. `None`: nobody knows.
    pub fresh: Option<(Session, Duration)>,
}

/// An answer to an [`Append`].
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Reply {
    /// Session of the replica's node.
    pub session: Session,
    /// What the replica's boot-time clock shows, which goes on while its machine sleeps; the primary tells it back.
    pub clock: Duration,
    /// What the replica has promised.
    pub epoch: Epoch,
    /// The largest beacon of this epoch that it heard.
    pub beacon: u64,
    /// What became of the records.
    pub outcome: ReplyOutcome,
    /// The disk of the replica.
    pub disk: DiskCondition,
}

/// What became of an [`Append`].
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum ReplyOutcome {
    /// The logs are equal up to here, and that is durable.
    Accepted {
        /// Up to where.
        flushed: Lsn,
    },
    /// The record `prev` is not there.
    Mismatch {
        /// The replica's reigns.
        epochs: EpochHistory,
        /// Its last position.
        end: Lsn,
    },
    /// The replica obeys a later reign.
    Refused,
    /// The reign begins where the replica has other records that are committed: its primary must not lead.
    Contradicted,
    /// It fetches a snapshot.
    Installing,
}

/// How a disk is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum DiskCondition {
    /// Well.
    #[default]
    Well,
    /// Too full for more documents.
    Full,
    /// Well, but its node is about to stop.
    Leaving,
}
