//! `AppLauncher`: builds the parts of a node bottom-up, and drains them top-down.
//!
//! The order of a stop ([`RunningNode::stop`]): readiness off, accept nothing more, let requests end, resign mastership,
//! flush the shards, end the session. A part that panics or ends by itself stops the node.

mod identity;
mod join;
mod listeners;
mod parts;
mod running_node;
mod settings;

use std::path::PathBuf;
use std::sync::Arc;

use futures::future::BoxFuture;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};
use vectorsphere_index::{Kernels, UnknownTier};
use vectorsphere_proto::keys::Keys;

use crate::cluster::MetaStore;
use crate::cluster::meta_store::{EmbeddedStore, EtcdStore, ForwardOnly};
use crate::cluster::node_session::SessionError;
use crate::config::Config;
use crate::runtime::disk::{Disk, FileDisk, OpenError};
use crate::runtime::network::{Network, Tcp};
use crate::telemetry::Metrics;
use listeners::Listeners;
use parts::Parts;
pub use running_node::RunningNode;

/// Why a node does not start.
#[derive(Debug, thiserror::Error)]
pub enum LaunchError {
    /// A port is taken, or an address is not ours.
    #[error("cannot listen for {what} at {address} (key {key})")]
    Listen {
        /// Which listener.
        what: &'static str,
        /// Where.
        address: String,
        /// The configuration's key.
        key: &'static str,
        /// The system's word.
        #[source]
        source: std::io::Error,
    },
    /// The data directory cannot be used.
    #[error(transparent)]
    Disk(#[from] OpenError),
    /// A file in the data directory cannot be used.
    #[error("cannot use {path}")]
    File {
        /// The file.
        path: PathBuf,
        /// The system's word.
        #[source]
        source: std::io::Error,
    },
    /// The forced kernels cannot be had.
    #[error(transparent)]
    Kernels(#[from] UnknownTier),
    /// The node does not belong to this cluster.
    #[error(transparent)]
    Cluster(#[from] SessionError),
    /// The data directory belongs to another cluster, or is damaged.
    #[error("the data directory cannot join the cluster")]
    Storage(#[from] crate::storage::StorageError),
    /// A part of the node ended while the others were being started; the log says why.
    #[error("a part of the node failed while it started, see the log")]
    Failed,
    /// Told to stop before everything ran.
    #[error("stopped before the node had started")]
    Stopped,
}

/// Starts nodes.
pub struct AppLauncher {
    config: watch::Receiver<Arc<Config>>,
    store: Option<Arc<dyn MetaStore>>,
    disk: Option<Arc<dyn Disk>>,
    network: Arc<dyn Network>,
    metrics: Metrics,
}

impl AppLauncher {
    /// A node by `config`, over the metadata store that the configuration names.
    pub fn new(config: watch::Receiver<Arc<Config>>) -> AppLauncher {
        AppLauncher { config, store: None, disk: None, network: Arc::new(Tcp), metrics: Metrics::new() }
    }

    /// Uses this store instead: several nodes of one process share one.
    pub fn with_store(self, store: Arc<dyn MetaStore>) -> AppLauncher {
        AppLauncher { store: Some(store), ..self }
    }

    /// Keeps data on this disk instead of the configured directory. The name of the node must be configured then.
    pub fn with_disk(self, disk: Arc<dyn Disk>) -> AppLauncher {
        AppLauncher { disk: Some(disk), ..self }
    }

    /// Listens and connects over this network instead of the machine's.
    pub fn with_network(self, network: Arc<dyn Network>) -> AppLauncher {
        AppLauncher { network, ..self }
    }

    /// The registry of the node's metrics, for more of them.
    pub fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    /// Starts the node and returns when it has joined its cluster. Waits for a metadata store that is away; probes answer
    /// meanwhile. When it fails, or `stop` comes first, what was started has ended in order before this returns.
    ///
    /// # Errors
    /// What cannot get better by waiting.
    pub fn start(self, stop: CancellationToken) -> BoxFuture<'static, Result<RunningNode, LaunchError>> {
        // Boxed here, so that this large future is compiled once and not again in every program that starts a node.
        Box::pin(self.launch(stop))
    }

    async fn launch(self, stop: CancellationToken) -> Result<RunningNode, LaunchError> {
        let config = self.config.borrow().clone();
        for note in &config.notes {
            warn!("{note}");
        }
        let kernels = Kernels::detect(Some(config.kernel_tier.as_str()).filter(|tier| !tier.is_empty()))?;
        let disk = match self.disk {
            Some(disk) => disk,
            None => Arc::new(FileDisk::open(&config.data_dir)?),
        };
        let id = identity::node_id(&config)?;
        let predecessor_ended = identity::predecessor_ended(&*disk)?;
        let listeners = Listeners::bind(&config, &*self.network).await?;
        let keys = match &config.etcd.prefix {
            Some(prefix) => Keys::with_prefix(prefix),
            None => Keys::of_service(&config.service_name),
        };
        let store = match self.store {
            Some(store) => store,
            None => open_store(&config)?,
        };
        let store = Arc::new(ForwardOnly::new(store));
        info!(node = %id, node_type = config.node_type.as_str(), kernels = kernels.name(), "starting");
        // From here on there are tasks: every way out of a failure leads through the order of a stop.
        let node = RunningNode::new(id, listeners.ports, self.config.clone());
        let (live, network, metrics) = (self.config, self.network, self.metrics);
        let parts = Parts {
            node: &node,
            config,
            live,
            keys,
            store,
            disk,
            network,
            kernels,
            metrics,
            predecessor_ended,
        };
        let started = tokio::select! {
            started = parts.start(listeners, &stop) => started,
            () = node.failed() => Err(LaunchError::Failed),
        };
        match started {
            Ok(()) => Ok(node),
            Err(error) => {
                node.stop().await;
                Err(error)
            }
        }
    }
}

fn open_store(config: &Config) -> Result<Arc<dyn MetaStore>, LaunchError> {
    if !config.etcd.endpoints.is_empty() {
        return Ok(Arc::new(EtcdStore::new(config.etcd.clone())));
    }
    let path = config.data_dir.join("meta");
    let store = EmbeddedStore::open(&path).map_err(|source| LaunchError::File { path, source })?;
    info!("no etcd endpoint is configured: standalone, over the embedded store");
    Ok(Arc::new(store))
}
