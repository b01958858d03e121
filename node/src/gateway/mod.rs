//! The public API: REST and gRPC over the same domain calls, behind one door.
//!
//! Knows formats, callers and limits; knows no shards. `json` and `grpc` parse into drafts, `validate` turns drafts into
//! domain values, [`Router`] does the work, `http` and `grpc` answer.

mod admin;
pub mod auth;
mod door;
pub mod grpc;
mod health;
pub mod http;
mod json;
mod limits;
mod metrics;
mod rate_limit;
mod validate;
mod violations;

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::watch;
use uuid::Uuid;

use crate::cluster::ServiceDiscovery;
use crate::cluster::view::ClusterView;
use crate::config::Config;
use crate::error_code::{Error, ErrorCode};
use crate::ids::{NodeId, TableName};
use crate::router::{RequestContext, Router};
use crate::runtime::Readiness;
use crate::table::Table;
use crate::telemetry::Metrics;

use auth::Caller;
use door::Door;
use validate::TableDefaults;

#[cfg(any(test, fuzzing))]
pub(crate) use json::filter as read_filter;

/// When a node that starts is worth another try.
const STARTING_PAUSE: Duration = Duration::from_secs(1);

/// What the API is made of.
pub struct GatewayParts {
    /// Does the work; `None` on slaves, which serve probes and metrics alone.
    pub router: Option<Router>,
    /// The view of the cluster.
    pub discovery: Arc<ServiceDiscovery>,
    /// Live settings.
    pub config: watch::Receiver<Arc<Config>>,
    /// Whether requests are wanted.
    pub readiness: Readiness,
    /// The node's metrics.
    pub metrics: Metrics,
    /// This node's name.
    pub node_id: NodeId,
}

/// The API gateway of one node. Cheap to clone.
#[derive(Clone)]
pub struct ApiGateway {
    inner: Arc<Inner>,
}

struct Inner {
    parts: GatewayParts,
    door: Door,
}

impl ApiGateway {
    /// Serves nothing by itself: see [`http::serve`] and [`grpc::serve`].
    pub fn new(parts: GatewayParts) -> ApiGateway {
        let door = Door::new(parts.config.clone(), &parts.metrics);
        ApiGateway { inner: Arc::new(Inner { parts, door }) }
    }

    fn door(&self) -> &Door {
        &self.inner.door
    }

    fn parts(&self) -> &GatewayParts {
        &self.inner.parts
    }

    fn config(&self) -> Arc<Config> {
        self.inner.parts.config.borrow().clone()
    }

    fn view(&self) -> Arc<ClusterView> {
        self.inner.parts.discovery.view()
    }

    /// Before its first look at the records a node would call every table unknown.
    fn check_tables_are_known(&self) -> Result<(), Error> {
        if self.view().is_known() {
            return Ok(());
        }
        let message = "this node starts: it has not read what tables there are yet";
        Err(Error::new(ErrorCode::NotReady, message).retry_after(STARTING_PAUSE))
    }

    /// Only asked for by routes that a slave does not have.
    fn router(&self) -> &Router {
        self.inner.parts.router.as_ref().expect("a node without a router serves probes alone")
    }

    fn table(&self, name: &str) -> Result<Arc<Table>, Error> {
        self.router().table(&validate::table_name(name)?)
    }

    /// What a new table gets where its creator is silent: no more copies than there are slaves.
    fn table_defaults(&self) -> TableDefaults {
        let (config, view) = (self.config(), self.view());
        let slaves = view.nodes.values().filter(|node| node.holds_shards()).count() as u32;
        let replicas = config.default_replicas.min(slaves.max(1));
        TableDefaults { shards: config.default_shards, replicas }
    }

    fn table_name(name: &str) -> Result<TableName, Error> {
        validate::table_name(name)
    }

    /// A request that ends after `timeout`, or after the configured time.
    fn context(&self, request_id: String, timeout: Option<Duration>) -> RequestContext {
        let timeout = timeout.map_or_else(|| self.config().task_timeout, validate::timeout);
        RequestContext { deadline: Instant::now() + timeout, request_id }
    }
}

/// A caller whose credentials were checked, as a request extension.
#[derive(Clone, Debug)]
struct Admitted {
    #[expect(dead_code, reason = "grants by caller come with the access model")]
    caller: Caller,
    request_id: String,
}

fn new_request_id() -> String {
    Uuid::new_v4().to_string()
}
