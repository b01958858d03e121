//! What can go wrong below a shard.

use std::io;
use std::path::{Path, PathBuf};

use crate::ids::Lsn;

/// A failure of storage. `Damaged` and `Newer` are lasting; after `Write` or `Sync` the log takes nothing more until
/// it is opened again.
#[derive(Debug, thiserror::Error)]
pub enum StorageError {
    /// A file could not be read.
    #[error("cannot read {path}")]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A file could not be created, written, renamed or removed.
    #[error("cannot write {path}")]
    Write {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A file or directory could not be made durable.
    #[error("cannot sync {path}")]
    Sync {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Bytes are not what was written, or are missing.
    #[error("{path} is damaged: {reason}")]
    Damaged {
        /// Where.
        path: PathBuf,
        /// What was found.
        reason: String,
    },
    /// Written by a newer version of the program.
    #[error("{path} was written by a newer version: {reason}")]
    Newer {
        /// Where.
        path: PathBuf,
        /// What is not known here.
        reason: String,
    },
    /// The directory belongs to another cluster.
    #[error("data directory belongs to cluster {found}, not to {expected}")]
    OtherCluster {
        /// What the directory says.
        found: String,
        /// The cluster that this node is configured for.
        expected: String,
    },
    /// A write or sync of this log failed before.
    #[error("log took nothing after position {end} because a write failed before")]
    Poisoned {
        /// The last position that is known to be durable.
        end: Lsn,
    },
    /// The work was given up because the replica is being closed; nothing of it counts.
    #[error("given up because the replica is being closed")]
    Stopped,
    /// Something that another replica sent does not fit what is here; nothing of it was taken.
    #[error("{what} was not taken: {reason}")]
    Refused {
        /// The first part that does not fit.
        what: String,
        /// Why.
        reason: String,
    },
}

impl StorageError {
    /// True when trying again cannot help: the bytes on disk are the problem.
    pub fn is_lasting(&self) -> bool {
        matches!(
            self,
            StorageError::Damaged { .. } | StorageError::Newer { .. } | StorageError::OtherCluster { .. }
        )
    }

    pub(crate) fn read(path: &Path) -> impl FnOnce(io::Error) -> StorageError {
        |source| StorageError::Read { path: path.to_path_buf(), source }
    }

    pub(crate) fn write(path: &Path) -> impl FnOnce(io::Error) -> StorageError {
        |source| StorageError::Write { path: path.to_path_buf(), source }
    }

    pub(crate) fn sync(path: &Path) -> impl FnOnce(io::Error) -> StorageError {
        |source| StorageError::Sync { path: path.to_path_buf(), source }
    }

    pub(crate) fn refused(what: impl Into<String>, reason: impl Into<String>) -> StorageError {
        StorageError::Refused { what: what.into(), reason: reason.into() }
    }

    pub(crate) fn damaged(path: &Path, reason: impl Into<String>) -> StorageError {
        StorageError::Damaged { path: path.to_path_buf(), reason: reason.into() }
    }
}
