//! Indexes of the FAISS library.
//!
//! [`Factory`] says what can be built, [`FaissIndex`] builds, searches and stores it. FAISS finds candidates; their scores
//! are ours ([`score`](crate::score)), so hits of an index of FAISS compare with those of any other. Nothing that a user
//! writes reaches FAISS unparsed, nothing that was stored unverified, and nothing that it says leaves with the places in
//! its source.
//!
//! The library is compiled for one level of processor, [`CPU_LEVEL`], which is checked before anything else of the program
//! runs.

mod error;
mod factory;
mod index;
mod level;
mod mask;
mod native;
mod stored;
#[cfg(test)]
mod tests;

pub use error::FaissError;
pub use factory::{BadFactory, EffortRange, Factory};
pub use index::FaissIndex;
pub use level::CPU_LEVEL;

/// True when indexes of FAISS can be built.
pub const IS_BUILT_IN: bool = true;
