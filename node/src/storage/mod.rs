//! Skeleton of `storage`.
