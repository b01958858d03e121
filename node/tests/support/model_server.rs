//! The model of etcd on a port of loopback.

use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_stream::wrappers::TcpListenerStream;
use vectorsphere::cluster::meta_store::EtcdStore;

use super::config;
use super::model_etcd::ModelEtcd;

/// A model of etcd that listens; dropping it ends it.
pub(crate) struct ModelServer {
    pub(crate) etcd: ModelEtcd,
    endpoint: String,
    serving: JoinHandle<()>,
}

impl ModelServer {
    #[expect(clippy::disallowed_methods, reason = "it ends when this is dropped")]
    pub(crate) async fn start() -> ModelServer {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let endpoint = format!("http://{}", listener.local_addr().expect("bound"));
        let etcd = ModelEtcd::new(1);
        let served = etcd.clone();
        let serving = tokio::spawn(async move { served.serve(TcpListenerStream::new(listener)).await });
        ModelServer { etcd, endpoint, serving }
    }

    /// A connection of its own.
    pub(crate) fn store(&self) -> EtcdStore {
        EtcdStore::new(config(&self.endpoint).etcd)
    }

    /// Its client URL.
    pub(crate) fn endpoint(&self) -> String {
        self.endpoint.clone()
    }
}

impl Drop for ModelServer {
    fn drop(&mut self) {
        self.serving.abort();
    }
}
