//! Brings up a real Kubernetes on one machine, without a container registry, and runs VectorSphere on it.
//!
//! The control plane lives in the host's network namespace; a [node](node) is a network and a mount namespace with a
//! container runtime, a kubelet and a kube-proxy of its own. Everything is built from sources ([images](images),
//! `scripts/build-tools`), lives below one folder, and goes away with [`cluster::take_down`].

pub mod access;
pub mod addons;
pub mod bench_one_node;
pub mod bench_replication;
pub mod bench_server;
pub mod cgroups;
pub mod cluster;
pub mod command;
pub mod control_plane;
pub mod debian;
pub mod demo;
pub mod deployment;
pub mod http;
pub mod image;
pub mod images;
pub mod ingress;
pub mod kubectl;
pub mod lean;
pub mod load;
pub mod local_cluster;
pub mod machine;
pub mod network;
pub mod node;
pub mod phases;
pub mod pki;
pub mod process;
pub mod report;
pub mod rest;
pub mod scenario;
pub mod searcher;
pub mod settings;
pub mod shards;
pub mod torture;
pub mod wait;
pub mod write_gaps;
