//! What a forced recovery of a shard lost, as far as anybody can say.

use crate::ids::{Epoch, Lsn, NodeId, ReplicaId};

/// A shard that goes on from a copy which may lack acknowledged writes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ForcedPrimary {
    /// Its new reign.
    pub epoch: Epoch,
    /// Its new incarnation: session tokens of earlier ones are refused.
    pub incarnation: u64,
    /// Where the log of the chosen copy ends.
    pub last: Lsn,
    /// What the other copies had.
    pub others: Vec<OtherCopy>,
}

/// A copy that was passed over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OtherCopy {
    /// Which.
    pub replica: ReplicaId,
    /// Where it is.
    pub node: NodeId,
    /// Where its log ends, and how many of its records are lost; `None`: it did not answer.
    pub log: Option<(Lsn, u64)>,
}
