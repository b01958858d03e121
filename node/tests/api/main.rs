//! The public API of real nodes in one process, over real HTTP and gRPC. One file for each capability.

mod access;
mod admin;
mod cluster;
mod consistency;
mod description;
mod documents;
mod filters;
mod graphs;
mod groups;
mod hostile;
mod index_kinds;
mod memory;
mod metadata_indexes;
#[path = "../support/ports.rs"]
mod ports;
mod replication;
mod rows_on_disk;
mod search;
mod storage_types;
mod support;
mod tables;
mod tenants;
