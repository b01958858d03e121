//! A checkpoint on its way from one replica to another that cannot catch up by the log.
//!
//! The source [pins](PinnedCheckpoint) its newest checkpoint, so that its files stay while they are read; no lock is held
//! meanwhile. The [description](SnapshotDescription) says which files there are, with sizes and hashes. The other side
//! [writes](SnapshotWriter) them to a new generation of its directory, which counts when all of it is verified and
//! durable. What moves the bytes is not known here.

mod description;
mod pinned;
mod writer;

pub use description::{SnapshotDescription, SnapshotFile};
pub use pinned::PinnedCheckpoint;
pub(super) use pinned::Pins;
pub(super) use writer::DESCRIPTION_NAME;
pub use writer::SnapshotWriter;
