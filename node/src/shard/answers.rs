//! What callers of a write are told.

use super::replica::{BUSY_PAUSE, not_primary, refused_by};
use crate::error_code::{Error, ErrorCode};
use crate::ids::ShardId;
use crate::replication::driver::NotWritten;
use crate::storage::Refusal;

/// Why a write has no receipt, for its caller.
pub(super) fn not_written(shard: ShardId, why: NotWritten) -> Error {
    match why {
        NotWritten::NotAdmitted(why) => refused_by(shard, why),
        NotWritten::OtherReign { wanted, led } => not_primary(shard, wanted, led),
        NotWritten::Refused(refusal) => refused(&refusal),
        NotWritten::NotPrimary => {
            let message = format!("shard {}: this replica may not lead any more", shard.index);
            Error::new(ErrorCode::NotPrimary, message)
        }
        NotWritten::Overloaded => {
            let message = format!("shard {} has too much that waits for a checkpoint", shard.index);
            Error::new(ErrorCode::Overloaded, message).retry_after(BUSY_PAUSE)
        }
        NotWritten::Unknown(why) => {
            Error::new(ErrorCode::OutcomeUnknown, format!("shard {}: {why}", shard.index))
        }
    }
}

fn refused(refusal: &Refusal) -> Error {
    let code = match refusal {
        Refusal::NoSuchDocument(_) => ErrorCode::DocumentNotFound,
        Refusal::VersionMismatch { .. } => ErrorCode::VersionMismatch,
        Refusal::OtherBatch => ErrorCode::RequestIdReused,
        Refusal::TooLarge { .. } => ErrorCode::PayloadTooLarge,
        Refusal::TooLate => ErrorCode::RetryTooLate,
    };
    Error::new(code, refusal.to_string())
}
