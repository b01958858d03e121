//! Skeleton of `telemetry`.
