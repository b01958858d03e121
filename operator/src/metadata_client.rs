//! Reads the metadata store of clusters. Connections are kept per cluster, so that a look costs one call.

use std::collections::HashMap;
use std::sync::Mutex;
use std::time::Duration;

use etcd_client::{
    Certificate, Client, ConnectOptions, GetOptions, Identity, KvClient, MaintenanceClient, TlsOptions, Txn,
    TxnOp, TxnOpResponse,
};
use vectorsphere_proto::keys::Keys;

use crate::metadata::{MetadataError, MetadataView, Record};

/// A reconcile waits at most this long for the store; what cannot be read is told as a condition.
const TIMEOUT: Duration = Duration::from_secs(3);
/// Room for the records of some hundred thousand shards; etcd's own limit on what it sends is higher.
const ANSWER_BYTES_MAX: usize = 64 << 20;

/// How to connect to the store of one cluster.
#[derive(Clone, PartialEq, Eq)]
pub struct Connection {
    /// URLs.
    pub endpoints: Vec<String>,
    /// Content of the TLS Secret.
    pub tls: Option<TlsMaterial>,
    /// User name and password.
    pub user: Option<(String, String)>,
}

/// Content of a TLS Secret, PEM.
#[derive(Clone, PartialEq, Eq)]
pub struct TlsMaterial {
    /// Root certificates.
    pub ca: Vec<u8>,
    /// Client certificate and key.
    pub identity: Option<(Vec<u8>, Vec<u8>)>,
}

/// Why the store could not be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// No connection.
    #[error("failed to connect to etcd")]
    Connect(#[source] etcd_client::Error),
    /// No answer.
    #[error("failed to read from etcd")]
    Read(#[source] etcd_client::Error),
    /// Too slow.
    #[error("etcd did not answer within {} s", TIMEOUT.as_secs())]
    Timeout,
    /// Answer not understood.
    #[error(transparent)]
    Records(#[from] MetadataError),
}

/// The two services of etcd that are asked, over one connection.
#[derive(Clone)]
struct Store {
    kv: KvClient,
    maintenance: MaintenanceClient,
}

/// Open connections, by namespace and name of the cluster's object.
#[derive(Default)]
pub struct MetadataClient {
    open: Mutex<HashMap<String, (Connection, Store)>>,
}

impl MetadataClient {
    /// One consistent look at the metadata of `cluster`. Cancel safe: it only reads.
    pub async fn read(
        &self,
        cluster: &str,
        connection: Connection,
        keys: &Keys,
    ) -> Result<MetadataView, ReadError> {
        let answer = tokio::time::timeout(TIMEOUT, self.try_read(cluster, connection, keys)).await;
        let answer = answer.unwrap_or(Err(ReadError::Timeout));
        if answer.is_err() {
            self.forget(cluster);
        }
        answer
    }

    /// Closes the connection of a cluster.
    pub fn forget(&self, cluster: &str) {
        self.open.lock().expect("no holder panics").remove(cluster);
    }

    async fn try_read(
        &self,
        cluster: &str,
        connection: Connection,
        keys: &Keys,
    ) -> Result<MetadataView, ReadError> {
        let mut store = self.store(cluster, connection).await?;
        // One transaction, so that all parts are of one revision.
        let ranges = [keys.masters(), keys.nodes(), keys.tables(), keys.shards()];
        let gets = ranges.map(|range| TxnOp::get(range, Some(GetOptions::new().with_prefix())));
        let answer = store.kv.txn(Txn::new().and_then(gets)).await.map_err(ReadError::Read)?;
        let records: Vec<Record> = answer
            .op_responses()
            .into_iter()
            .filter_map(|part| match part {
                TxnOpResponse::Get(get) => Some(get),
                _ => None,
            })
            .flat_map(|mut get| get.take_kvs())
            .map(|kv| {
                let create_revision = kv.create_revision();
                let (key, value) = kv.into_key_value();
                Record { key, create_revision, value }
            })
            .collect();
        // A user of etcd may lack the right to ask for this.
        let status = store.maintenance.status().await.ok();
        let store_version = status.map(|status| status.version().to_owned());
        Ok(MetadataView { store_version, ..MetadataView::of_records(keys, &records)? })
    }

    async fn store(&self, cluster: &str, connection: Connection) -> Result<Store, ReadError> {
        if let Some((known, store)) = self.open.lock().expect("no holder panics").get(cluster)
            && *known == connection
        {
            return Ok(store.clone());
        }
        let client = Client::connect(&connection.endpoints, Some(connection.options()))
            .await
            .map_err(ReadError::Connect)?;
        let store = Store {
            kv: client.kv_client().max_decoding_message_size(ANSWER_BYTES_MAX),
            maintenance: client.maintenance_client(),
        };
        self.open.lock().expect("no holder panics").insert(cluster.to_owned(), (connection, store.clone()));
        Ok(store)
    }
}

impl Connection {
    fn options(&self) -> ConnectOptions {
        let mut options = ConnectOptions::new().with_connect_timeout(TIMEOUT).with_timeout(TIMEOUT);
        if let Some((name, password)) = &self.user {
            options = options.with_user(name, password).with_auto_token_refresh(true);
        }
        if let Some(tls) = &self.tls {
            options = options.with_tls(tls.options());
        }
        options
    }
}

impl TlsMaterial {
    fn options(&self) -> TlsOptions {
        let mut options = TlsOptions::new().ca_certificate(Certificate::from_pem(&self.ca));
        if let Some((certificate, key)) = &self.identity {
            options = options.identity(Identity::from_pem(certificate, key));
        }
        options
    }
}
