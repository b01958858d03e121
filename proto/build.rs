//! Compiles the `.proto` files with protox, so that this crate needs no `protoc` on the machine.

use std::error::Error;
use std::path::PathBuf;

const FILES: [&str; 11] = [
    "vectorsphere/v1/value.proto",
    "vectorsphere/v1/filter.proto",
    "vectorsphere/v1/explanation.proto",
    "vectorsphere/v1/tables.proto",
    "vectorsphere/v1/documents.proto",
    "vectorsphere/v1/search.proto",
    "vectorsphere/v1/cluster.proto",
    "vectorsphere/meta/v1/meta.proto",
    "vectorsphere/internal/v1/shard.proto",
    "vectorsphere/internal/v1/coordinator.proto",
    "vectorsphere/internal/v1/replication.proto",
];

fn main() -> Result<(), Box<dyn Error>> {
    let descriptors = protox::compile(FILES, ["."])?;
    let out = PathBuf::from(std::env::var_os("OUT_DIR").ok_or("cargo sets OUT_DIR")?);
    std::fs::write(out.join("vectorsphere.fds"), protox::prost::Message::encode_to_vec(&descriptors))?;
    for file in FILES {
        println!("cargo:rerun-if-changed={file}");
    }
    tonic_prost_build::configure().bytes(".vectorsphere.internal.v1").compile_fds(descriptors)?;
    Ok(())
}
