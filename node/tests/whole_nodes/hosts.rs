//! The machines: the model of etcd, two gateways that may be Master, three nodes with shards.

use std::sync::Arc;

use tokio::sync::{Mutex, Notify, mpsc};
use tokio_util::sync::CancellationToken;
use tracing::{Instrument as _, info, info_span};
use turmoil::Sim;
use vectorsphere::app_launcher::{AppLauncher, LaunchError};
use vectorsphere::cluster::meta_store::EtcdStore;
use vectorsphere::config::{ConfigManager, Overrides};
use vectorsphere::runtime::disk::MemoryDisk;

use crate::model_etcd::ModelEtcd;
use crate::network::{Cuts, Wires};
use crate::settings::Settings;

pub(crate) const ETCD: &str = "etcd";
pub(crate) const MASTERS: [&str; 2] = ["master-1", "master-2"];
pub(crate) const SLAVES: [&str; 3] = ["slave-1", "slave-2", "slave-3"];
/// Port of the public gRPC API.
pub(crate) const API: u16 = 9090;
const ETCD_PORT: u16 = 2379;

/// Something to do to the model of etcd, by its own clock.
pub(crate) type Order = Box<dyn FnOnce(&ModelEtcd) + Send>;

/// What is left of a machine when its power is off, and what reaches it from outside of the network.
pub(crate) struct Machine {
    pub(crate) name: &'static str,
    pub(crate) disk: MemoryDisk,
    /// Tells the node to stop in order and to start again.
    pub(crate) restart: Arc<Notify>,
}

/// Names of all nodes.
pub(crate) fn nodes() -> impl Iterator<Item = &'static str> {
    MASTERS.into_iter().chain(SLAVES)
}

/// Adds etcd; returns where to send orders.
pub(crate) fn add_etcd(sim: &mut Sim<'_>, seed: u64) -> mpsc::UnboundedSender<Order> {
    let etcd = ModelEtcd::new(seed);
    let (tell, orders) = mpsc::unbounded_channel::<Order>();
    let orders = Arc::new(Mutex::new(orders));
    sim.host(ETCD, move || {
        let (etcd, orders) = (etcd.clone(), orders.clone());
        async move {
            let connections = Box::pin(Wires::accept(ETCD_PORT).await);
            let obeying = async {
                // Held until the host crashes.
                let mut orders = orders.lock().await;
                while let Some(order) = orders.recv().await {
                    order(&etcd);
                }
                std::future::pending::<()>().await;
            };
            tokio::select! {
                () = etcd.serve(connections) => {}
                () = obeying => {}
            }
            Err("etcd ended".into())
        }
    });
    tell
}

/// Adds a node.
pub(crate) fn add_node(
    sim: &mut Sim<'_>,
    name: &'static str,
    settings: &Arc<Settings>,
    cuts: &Cuts,
) -> Machine {
    let disk = MemoryDisk::new(settings.seed);
    let restart = Arc::new(Notify::new());
    let machine = Machine { name, disk: disk.clone(), restart: restart.clone() };
    let (settings, cuts) = (settings.clone(), cuts.clone());
    sim.host(name, move || {
        let (settings, disk, restart) = (settings.clone(), disk.clone(), restart.clone());
        let wires = Wires::of(name, &cuts);
        let running = async move {
            let config = config(name, &settings);
            loop {
                let etcd = config.current().etcd.clone();
                let store = EtcdStore::over(wires.channel_to(ETCD, ETCD_PORT), etcd);
                let launcher = AppLauncher::new(config.subscribe())
                    .with_store(Arc::new(store))
                    .with_disk(Arc::new(disk.clone()))
                    .with_network(Arc::new(wires.clone()));
                let stop = CancellationToken::new();
                let starting = launcher.start(stop.clone());
                tokio::pin!(starting);
                let started = tokio::select! {
                    started = &mut starting => started,
                    () = restart.notified() => {
                        stop.cancel();
                        starting.await
                    }
                };
                let node = match started {
                    Err(LaunchError::Stopped) => continue,
                    started => started?,
                };
                tokio::select! {
                    () = node.failed() => return Err("a part of a node ended".into()),
                    () = restart.notified() => {}
                }
                let in_time = node.stop().await;
                info!(in_time, "stopped in order");
            }
        };
        running.instrument(info_span!("host", name))
    });
    machine
}

fn config(name: &str, settings: &Settings) -> ConfigManager {
    let node_type = if MASTERS.contains(&name) { "master" } else { "slave" };
    let told = [
        ("node_id", name),
        ("node_type", node_type),
        ("advertise_address", name),
        // Never dialled: the store is given a channel.
        ("etcd.endpoints", "etcd:2379"),
        ("etcd.request_timeout", "3"),
        ("etcd.dial_timeout", "1"),
        ("grpc_max_connections", "1"),
        ("grpc_keepalive_time", "1"),
        ("grpc_keepalive_timeout", "1"),
        ("master.retry_interval", "1"),
        ("slave.register_retry_interval", "1"),
        ("scheduler_worker_count", "1"),
        ("shutdown_grace", "2"),
        ("checkpoint_log_bytes", "65536"),
        ("replication.rereplicate_after", settings.rereplicate_after),
        ("replication.without_etcd", settings.without_etcd),
    ];
    let flags = told.into_iter().map(|(key, value)| (key, value.to_owned(), "test")).collect();
    ConfigManager::load(None, Overrides { environment: Vec::new(), flags }).expect("valid")
}
