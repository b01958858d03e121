//! Skeleton of `gateway`.
