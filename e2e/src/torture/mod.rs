//! A real cluster under real faults: kills, stops, cuts, lost power, bad disks, while clients work and write down what they
//! are told, and checkers that judge it.
//!
//! A run is a row of rounds. A round begins with a cluster that is whole, lets clients work on fresh documents, lets one
//! fault strike, mends it, waits until the cluster is whole again, and checks everything. Faults come from a deck that the
//! seed shuffles, so that each class has its turn.
//!
//! The run lives in namespaces of its own: what it mounts nobody else sees, what it sends does not leave the machine, and
//! what it started ends with it.

pub mod etcd;
pub mod fault;
pub mod health;
pub mod lab;
pub mod network;
pub mod process;
pub mod run;
pub mod summary;
pub mod traffic;
pub mod volume;

use std::time::Duration;

use anyhow::{Context, Result, anyhow, ensure};
use nix::unistd::Uid;
use tokio::runtime;
use tokio::sync::oneshot;

use self::network::Network;
use crate::settings::Settings;

pub use self::fault::Fault;
pub use self::summary::Summary;

/// A table of a run.
struct Table {
    name: &'static str,
    shards: usize,
    replicas: usize,
    /// The copies that a write needs.
    min_isr: usize,
}

/// One that survives the loss of any disk; one that survives less, and writes on with less; one whose batches are not torn.
const TABLES: [Table; 3] = [
    Table { name: "three", shards: 4, replicas: 3, min_isr: 2 },
    Table { name: "two", shards: 4, replicas: 2, min_isr: 1 },
    Table { name: "one-shard", shards: 1, replicas: 3, min_isr: 2 },
];

/// What a run does.
#[derive(Clone, Debug)]
pub struct Plan {
    /// How long it goes on, once each fault had its turn.
    pub duration: Duration,
    /// Draws the faults.
    pub seed: u64,
    /// Those that strike.
    pub faults: Vec<Fault>,
    /// Somebody deletes a document of others, and does not say so: a run that passes then has not looked.
    pub with_thief: bool,
}

/// Runs as planned.
///
/// # Errors
/// When something acknowledged is lost, an answer was wrong, the cluster does not become whole again, a fault did not take
/// effect, or the machine lacks something.
pub async fn run(settings: &Settings, plan: Plan) -> Result<Summary> {
    let settings = settings.clone();
    in_own_namespaces(async move |network| run::run(&settings, network, plan).await).await
}

/// Does `work` on the host of the clients, beside a host for each process of a [`lab::Lab`].
///
/// # Errors
/// Those of `work`, and when the machine lacks something.
pub async fn in_own_namespaces<T: Send + 'static>(
    work: impl AsyncFnOnce(Network) -> Result<T> + Send + 'static,
) -> Result<T> {
    ensure!(Uid::effective().is_root(), "this needs root: namespaces, volumes, packet filters");
    let (tell, told) = oneshot::channel();
    // Namespaces belong to threads: the run has threads of its own, which never come back.
    std::thread::Builder::new().name("torture".to_owned()).spawn(move || {
        let _ = tell.send(on_own_hosts(work));
    })?;
    told.await.map_err(|_| anyhow!("the run panicked"))?
}

fn on_own_hosts<T>(work: impl AsyncFnOnce(Network) -> Result<T>) -> Result<T> {
    network::enter_own_mounts()?;
    let laying = runtime::Builder::new_current_thread().enable_all().build()?;
    let network = laying.block_on(Network::lay(lab::hosts())).context("cannot lay the network of the run")?;
    drop(laying);
    network.enter(lab::CLIENTS)?;
    // Its threads are started from here, so they are on the host of the clients, too.
    let runtime = runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(work(network))
}
