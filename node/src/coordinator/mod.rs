//! Skeleton of `coordinator`.
