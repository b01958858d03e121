//! How this crate makes HTTP clients: never through a proxy, since every server is on this machine or in its cluster.

use std::time::Duration;

use anyhow::{Context, Result};

/// A client whose calls take at most `timeout`.
///
/// # Errors
/// When it cannot be made.
pub fn client(timeout: Duration) -> Result<reqwest::Client> {
    build(builder(timeout))
}

/// A client that opens a connection for each call.
///
/// # Errors
/// When it cannot be made.
pub fn client_without_reuse(timeout: Duration) -> Result<reqwest::Client> {
    build(builder(timeout).pool_max_idle_per_host(0))
}

fn builder(timeout: Duration) -> reqwest::ClientBuilder {
    // A test has no `main` that could install it first; a second installation is refused and changes nothing.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    reqwest::Client::builder().no_proxy().timeout(timeout)
}

fn build(builder: reqwest::ClientBuilder) -> Result<reqwest::Client> {
    builder.build().context("cannot make an HTTP client")
}
