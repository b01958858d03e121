//! Wire formats of VectorSphere, and the keys under which metadata records are stored.
//!
//! - [`v1`]: the public gRPC API, `vectorsphere.v1`.
//! - [`internal`]: node to node, `vectorsphere.internal.v1`.
//! - [`meta`]: records in the metadata store; both node and operator read them.
//! - [`keys`]: the layout of the metadata store.
//!
//! Generated types stop at the edges of the programs (`rpc.rs`, `comm/convert.rs`, the gateway).

pub mod keys;

/// The public API, package `vectorsphere.v1`.
#[allow(missing_docs, clippy::all, unused_qualifications, unreachable_pub)] // generated; the .proto files carry the documentation
pub mod v1 {
    tonic::include_proto!("vectorsphere.v1");
}

/// Node to node, package `vectorsphere.internal.v1`. `bytes` fields are [`prost::bytes::Bytes`].
#[allow(missing_docs, clippy::all, unused_qualifications, unreachable_pub)] // generated; the .proto files carry the documentation
pub mod internal {
    pub mod v1 {
        tonic::include_proto!("vectorsphere.internal.v1");
    }

    pub use v1::*;
}

/// Records of the metadata store, package `vectorsphere.meta.v1`.
#[allow(missing_docs, clippy::all, unused_qualifications, unreachable_pub)] // generated; the .proto files carry the documentation
pub mod meta {
    pub mod v1 {
        tonic::include_proto!("vectorsphere.meta.v1");
    }

    pub use v1::*;
}

/// The descriptors of all packages above, for gRPC reflection.
pub const FILE_DESCRIPTOR_SET: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/vectorsphere.fds"));
