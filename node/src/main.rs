//! `vectorsphere`: one node, or several in one process.

mod admin;
mod cli;

use std::process::ExitCode;

fn main() -> ExitCode {
    // First of all: with two providers linked and none installed, rustls panics at the first handshake.
    rustls::crypto::aws_lc_rs::default_provider()
        .install_default()
        .expect("no provider was installed before");
    cli::run()
}
