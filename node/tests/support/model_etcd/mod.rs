//! A model of etcd: a gRPC server that the real client talks to, over any connections. It keeps what it holds in memory,
//! measures time with tokio's clock, and can be told to go wrong in the ways in which an etcd goes wrong.
//!
//! | file | what |
//! |---|---|
//! | `content.rs` | keys with their versions, revisions, compaction |
//! | `txn.rs` | transactions: compares, operations, what is refused |
//! | `leases.rs` | leases and their end |
//! | `trouble.rs` | delays, lost requests and answers, changes of the leader, leases that end early or late |
//! | `kv.rs`, `watch.rs`, `lease_rpc.rs`, `maintenance.rs` | the services |
//!
//! What VectorSphere does not use is answered with `UNIMPLEMENTED`, never with something that is nearly right. The contract
//! of `MetaStore` runs over it as over a real etcd, and random calls are compared with a real one (`etcd_differential.rs`).
#![allow(dead_code, reason = "each test binary uses a part")]
#![expect(
    clippy::disallowed_methods,
    reason = "an etcd is no part of a node: its streams end with their callers"
)]

mod content;
mod kv;
mod lease_rpc;
mod leases;
mod maintenance;
mod trouble;
mod txn;
mod watch;

use std::io;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use etcd_client::proto::{PbKvServer, PbLeaseServer, PbMaintenanceServer, PbResponseHeader, PbWatchServer};
use futures::Stream;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::watch as watch_channel;
use tokio::time::Instant;
use tonic::Status;
use tonic::transport::Server;
use tonic::transport::server::Connected;

use content::Content;
use leases::Leases;
pub(crate) use trouble::Trouble;

/// How often leases are looked at, as etcd does.
const LEASE_LOOK: Duration = Duration::from_millis(500);

/// A model of etcd. Clones are the same one; what it holds outlives its servers, as on a disk.
#[derive(Clone)]
pub(crate) struct ModelEtcd {
    state: Arc<Mutex<State>>,
    /// The newest revision, for watches.
    revision: watch_channel::Sender<i64>,
    /// Counts the times that all streams were ended.
    interruptions: watch_channel::Sender<u64>,
}

struct State {
    content: Content,
    leases: Leases,
    trouble: Trouble,
    random: rand::rngs::SmallRng,
    /// There is no leader until then.
    leaderless_until: Option<Instant>,
    term: u64,
}

impl ModelEtcd {
    /// An empty one whose arbitrary choices follow from `seed`.
    pub(crate) fn new(seed: u64) -> ModelEtcd {
        let state = State {
            content: Content::default(),
            leases: Leases::default(),
            trouble: Trouble::default(),
            random: rand::SeedableRng::seed_from_u64(seed),
            leaderless_until: None,
            term: 2,
        };
        ModelEtcd {
            state: Arc::new(Mutex::new(state)),
            revision: watch_channel::Sender::new(1),
            interruptions: watch_channel::Sender::new(0),
        }
    }

    /// Serves until it is dropped.
    pub(crate) async fn serve<S, C>(&self, connections: S)
    where
        S: Stream<Item = io::Result<C>>,
        C: AsyncRead + AsyncWrite + Connected + Unpin + Send + 'static,
    {
        self.lock().begin();
        let serving = Server::builder()
            .add_service(PbKvServer::new(self.clone()))
            .add_service(PbWatchServer::new(self.clone()))
            .add_service(PbLeaseServer::new(self.clone()))
            .add_service(PbMaintenanceServer::new(self.clone()))
            .serve_with_incoming(connections);
        tokio::select! {
            served = serving => served.expect("the server goes on"),
            () = self.end_leases() => {}
        }
    }

    /// Forgets what was before `revision`.
    pub(crate) fn compact(&self, revision: i64) {
        self.lock().content.compact(revision).expect("a revision between the last compaction and now");
    }

    /// The newest revision.
    pub(crate) fn revision(&self) -> i64 {
        self.lock().content.revision()
    }

    /// Removes the keys of leases that have run out, whenever there are any.
    async fn end_leases(&self) {
        loop {
            tokio::time::sleep(LEASE_LOOK).await;
            let mut state = self.lock();
            if state.is_leaderless() {
                continue;
            }
            let late = state.trouble.leases_end_late_by;
            for lease in state.leases.ended(Instant::now(), late) {
                state.revoke(lease);
            }
            self.changed(&state);
        }
    }

    /// Tells watches of a new revision.
    fn changed(&self, state: &State) {
        self.revision.send_if_modified(|revision| {
            let is_newer = *revision < state.content.revision();
            *revision = state.content.revision();
            is_newer
        });
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no panic under the lock")
    }
}

impl State {
    /// A process that starts knows nothing of the times of the one before: leases begin again, under a leader.
    fn begin(&mut self) {
        self.leases.begin_again(Instant::now());
        self.leaderless_until = None;
    }

    fn header(&self) -> Option<PbResponseHeader> {
        let revision = self.content.revision();
        Some(PbResponseHeader { cluster_id: 1, member_id: 1, revision, raft_term: self.term })
    }

    /// Ends a lease; `false`: there is none.
    fn revoke(&mut self, lease: i64) -> bool {
        let Some(keys) = self.leases.remove(lease) else { return false };
        self.content.change(|change| {
            for key in keys {
                change.delete(&key);
            }
        });
        true
    }

    fn is_leaderless(&self) -> bool {
        self.leaderless_until.is_some_and(|until| Instant::now() < until)
    }
}

fn unimplemented(what: &str) -> Status {
    Status::unimplemented(format!("the model of etcd has no {what}"))
}
