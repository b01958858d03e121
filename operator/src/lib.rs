//! The operator: keeps the clusters that `VectorSphereCluster` objects describe.
//!
//! One reconcile is a short list of stages: [`fetch`] reads, [`validate`], [`scale`], [`build`] and [`plan`] are pure,
//! [`apply`] writes, [`status`] tells. The pure stages know nothing of clients, clocks or tasks.

pub mod admin;
pub mod apply;
pub mod backoff;
pub mod build;
pub mod conditions;
pub mod controller;
pub mod etcd_secrets;
pub mod events;
pub mod fetch;
pub mod group;
pub mod manifest;
pub mod metadata;
pub mod metadata_client;
pub mod metrics;
pub mod names;
pub mod plan;
pub mod reconcile;
pub mod scale;
pub mod settings;
pub mod status;
pub mod validate;
pub mod zones;
