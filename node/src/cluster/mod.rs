//! The cluster as one node sees it: who is Master, which nodes live, which tables and shards exist.
//!
//! Pure parts decide ([`election`], [`placement`], [`view`]); effects run them against a [`MetaStore`]:
//! [`DistributedManager`] holds the node's session and campaigns for mastership, [`ServiceDiscovery`] registers the
//! node and keeps the [`view::ClusterView`] from a watch.

pub mod meta_store;
pub mod view;

pub use meta_store::MetaStore;
