//! Skeleton.

/// How two vectors are compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Metric {
    /// Cosine similarity; higher is better.
    Cosine,
    /// Unsquared Euclidean distance; lower is better.
    L2,
    /// Dot product; higher is better.
    Dot,
}
