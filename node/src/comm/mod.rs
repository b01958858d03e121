//! Skeleton of `comm`.
