//! What can go wrong with an index of FAISS.

use std::io;

use super::factory::BadFactory;
use super::native::Refusal;

/// What can go wrong with an index of FAISS.
#[derive(Debug, thiserror::Error)]
pub enum FaissError {
    /// The factory string cannot be used: the caller's mistake.
    #[error(transparent)]
    Factory(#[from] BadFactory),
    /// Training needs more rows than there are.
    #[error("an index {factory:?} of FAISS needs at least {needed} rows, and there are {rows}")]
    TooFewRows {
        /// The factory string.
        factory: String,
        /// Rows that there are.
        rows: usize,
        /// Rows that must be there.
        needed: usize,
    },
    /// FAISS refused.
    #[error("FAISS could not {action}: {reason}")]
    Native {
        /// What it was asked to do.
        action: &'static str,
        /// What it said.
        reason: String,
    },
    /// An index could not be written.
    #[error("an index of FAISS could not be written")]
    Write(#[source] io::Error),
    /// A stored index could not be read.
    #[error("a stored index of FAISS could not be read")]
    Read(#[source] io::Error),
    /// A stored index is not what was written.
    #[error("a stored index of FAISS is damaged: {0}")]
    Damaged(&'static str),
    /// A stored index of a format that this version does not know.
    #[error("a stored index of FAISS has format {0}, and this version knows up to {known}", known = super::stored::FORMAT)]
    Format(u32),
}

impl Refusal {
    /// The error of what FAISS was asked to do.
    pub(super) fn into_error(self, action: &'static str) -> FaissError {
        FaissError::Native { action, reason: self.0 }
    }
}
