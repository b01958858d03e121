//! The cluster as one node sees it: who is Master, which nodes live, which tables and shards exist.
//!
//! Pure parts decide ([`election`], [`placement`], [`view`]); effects run them against a [`MetaStore`]:
//! [`NodeSession`] registers the node, [`ServiceDiscovery`] keeps the [`view::ClusterView`] from a watch,
//! [`DistributedManager`] campaigns for mastership.

pub mod distributed_manager;
pub mod election;
mod lease;
pub mod meta_store;
mod metrics;
pub mod node_session;
pub mod placement;
mod retry;
pub mod service_discovery;
pub mod view;

pub use distributed_manager::{DistributedManager, Role, StepBack};
pub use meta_store::MetaStore;
pub use metrics::ClusterMetrics;
pub use node_session::{HeldSession, NodeSession};
pub use retry::Failures;
pub use service_discovery::ServiceDiscovery;
