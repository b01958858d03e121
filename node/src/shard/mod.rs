//! Skeleton of `shard`.
