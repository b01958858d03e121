//! What several test binaries share: a real etcd, started for one test, a model of it, and a store that loses answers.
#![allow(dead_code, reason = "each test binary uses a part")]

/// Runs each test function, which takes a store, over the embedded store, over a real etcd and over the model of etcd.
#[allow(unused_macros, reason = "each test binary uses a part")]
macro_rules! on_all_stores {
    ($($name:ident),* $(,)?) => {
        mod embedded {
            $(#[tokio::test]
            async fn $name() {
                let folder = tempfile::tempdir().expect("a folder");
                let store = vectorsphere::cluster::meta_store::EmbeddedStore::open(folder.path()).expect("opens");
                super::$name(std::sync::Arc::new(store)).await;
            })*
        }

        mod etcd {
            $(#[tokio::test]
            async fn $name() {
                let etcd = super::support::Etcd::start().await;
                super::$name(std::sync::Arc::new(etcd.store())).await;
            })*
        }

        mod model {
            $(#[tokio::test]
            async fn $name() {
                let etcd = super::support::ModelServer::start().await;
                super::$name(std::sync::Arc::new(etcd.store())).await;
            })*
        }
    };
}

mod faulty_store;
pub(crate) mod model_etcd;
mod model_server;
mod ports;

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;
use vectorsphere::cluster::MetaStore;
use vectorsphere::cluster::meta_store::EtcdStore;
use vectorsphere::config::{Config, ConfigManager, Overrides};
use vectorsphere::ids::Revision;

use ports::free_port;

#[allow(unused_imports, reason = "each test binary uses a part")]
pub(crate) use faulty_store::FaultyStore;
#[allow(unused_imports, reason = "each test binary uses a part")]
pub(crate) use model_server::ModelServer;

/// A single etcd on loopback; dropping it kills it and removes its data.
pub(crate) struct Etcd {
    folder: TempDir,
    client_port: u16,
    peer_port: u16,
    process: Option<Child>,
}

impl Etcd {
    /// Starts etcd. The binary is `VECTORSPHERE_ETCD_BIN`, or the one that `scripts/build-tools etcd` builds.
    pub(crate) async fn start() -> Etcd {
        let folder = tempfile::tempdir().expect("a folder");
        let mut etcd = Etcd { folder, client_port: free_port(), peer_port: free_port(), process: None };
        etcd.start_again().await;
        etcd
    }

    /// Starts it again over its data and waits until it answers.
    pub(crate) async fn start_again(&mut self) {
        let binary = binary();
        assert!(binary.is_file(), "{} is missing: run scripts/build-tools etcd", binary.display());
        let (client, peer) = (self.endpoint(), format!("http://127.0.0.1:{}", self.peer_port));
        let child = Command::new(binary)
            .args(["--log-level", "error", "--data-dir"])
            .arg(self.folder.path())
            .args(["--listen-client-urls", &client, "--advertise-client-urls", &client])
            .args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer])
            .args(["--initial-cluster", &format!("default={peer}")])
            .stdin(Stdio::null())
            .spawn();
        self.process = Some(child.expect("etcd starts"));
        let store = self.store();
        let until = Instant::now() + Duration::from_secs(30);
        while let Err(error) = store.get("ready").await {
            assert!(Instant::now() < until, "etcd does not answer: {error}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// SIGKILL.
    pub(crate) fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.kill().expect("it runs");
            process.wait().expect("it ends");
        }
    }

    /// Forgets what was before `revision`.
    pub(crate) async fn compact(&self, revision: Revision) {
        let mut client = etcd_client::Client::connect([self.endpoint()], None).await.expect("connects");
        client.compact(revision.0, None).await.expect("compacts");
    }

    /// A connection of its own.
    pub(crate) fn store(&self) -> EtcdStore {
        EtcdStore::new(config(&self.endpoint()).etcd)
    }

    /// Its client URL.
    pub(crate) fn endpoint(&self) -> String {
        format!("http://127.0.0.1:{}", self.client_port)
    }
}

impl Drop for Etcd {
    fn drop(&mut self) {
        self.kill();
    }
}

/// A configuration with this etcd and short time limits.
pub(crate) fn config(endpoint: &str) -> Config {
    let flags = vec![
        ("etcd.endpoints", endpoint.to_owned(), "test"),
        ("etcd.request_timeout", "2".to_owned(), "test"),
        ("etcd.dial_timeout", "1".to_owned(), "test"),
    ];
    let overrides = Overrides { environment: Vec::new(), flags };
    Config::clone(&ConfigManager::load(None, overrides).expect("valid").current())
}

fn binary() -> PathBuf {
    if let Some(binary) = std::env::var_os("VECTORSPHERE_ETCD_BIN") {
        return PathBuf::from(binary);
    }
    let home = || PathBuf::from(std::env::var_os("HOME").expect("a home folder")).join(".cache/vectorsphere");
    let cache = std::env::var_os("VECTORSPHERE_CACHE").map_or_else(home, PathBuf::from);
    cache.join("tools/bin/etcd")
}
