//! The search engine of VectorSphere: vectors in memory, distance kernels, exact search.
//!
//! [`Rows`] keeps vectors, [`scan`] finds the best of them, [`TopK`] collects them, possibly over many scans. A scan is
//! fast because it reads every vector once with a single-precision kernel ([`Kernels`]); it is exact because every row
//! that the kernel's rounding error could have hidden is scored again in double precision ([`score`]), whose result is
//! the same bit for bit on every processor.
//!
//! Nothing here knows documents, shards or files, and nothing here waits: no IO, no clock, no threads. With the feature
//! `faiss` there are indexes of the FAISS library, too.

mod codes;
mod distance;
#[cfg(feature = "faiss")]
pub mod faiss;
#[cfg(not(feature = "faiss"))]
#[path = "faiss/absent.rs"]
pub mod faiss;
mod graph;
mod line;
mod memory;
mod metric;
mod row_mask;
mod rows;
mod scan;
mod score;
mod storage_type;
mod top_k;

pub use distance::codes::CodeWidth;
pub use distance::{Kernels, UnknownTier};
pub use graph::{
    Calibration, Earlier, GONE, Graph, GraphOptions, Hints, LoadError, Plan, Scratch, Selection, Touched,
    WIDTH_USUAL,
};
pub use metric::Metric;
pub use row_mask::RowMask;
pub use rows::{RowAccess, Rows, RowsView};
pub use scan::{Query, offer, scan};
pub use score::{norm, score};
pub use storage_type::StorageType;
pub use top_k::{Ranked, TopK};
